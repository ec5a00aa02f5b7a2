"""Which part of the sky a position inside a slitlet sees, exposure by exposure."""

from __future__ import annotations

import numpy as np

from msa3d.simulate.geometry import WAVE_RANGE_UM, Optics, Slitlet, rotate_to_sky, tangent_offsets
from msa3d.simulate.header import Pointing


class SlitletSky:
    """The optics from one slitlet to the telescope's focal surface; the same in every exposure.

    Parameters
    ----------
    optics : Optics
        Either detector's: the sky does not know which.
    slitlet : Slitlet
        The slitlet.
    """

    def __init__(self, optics: Optics, slitlet: Slitlet):
        low, high = slitlet.y_range
        grid = np.meshgrid(
            np.linspace(-0.5, 0.5, 3),
            np.linspace(low - 1.0, high + 1.0, 9),
            np.linspace(*WAVE_RANGE_UM, 7),
            indexing="ij",
        )
        x_slit, y_slit, wave_um = (axis.ravel() for axis in grid)
        transform = optics.slit_wcs(slitlet).get_transform("slit_frame", "v2v3vacorr")
        self._v2, self._v3, _ = transform(x_slit, y_slit, wave_um * 1e-6)
        self._terms = _terms(x_slit, y_slit, wave_um)

    def at(self, pointing: Pointing, ra: float, dec: float) -> SkyMap:
        """Fix the pointing and the origin of the offsets.

        Parameters
        ----------
        pointing : Pointing
            Where the telescope looks.
        ra, dec : float
            Origin (deg).

        Returns
        -------
        SkyMap
        """
        east, north = tangent_offsets(*rotate_to_sky(pointing)(self._v2, self._v3), ra, dec)
        coefficients, *_ = np.linalg.lstsq(self._terms, np.stack([east, north], axis=1), rcond=None)
        residual = np.abs(self._terms @ coefficients - np.stack([east, north], axis=1)).max()
        return SkyMap(coefficients, float(residual))


class SkyMap:
    """Offsets on the sky of positions in a slitlet, for one exposure.

    Attributes
    ----------
    residual_arcsec : float
        Largest difference between this polynomial and the optics.
    """

    def __init__(self, coefficients: np.ndarray, residual_arcsec: float):
        self._coefficients = coefficients.astype(np.float64)
        self.residual_arcsec = residual_arcsec

    def __call__(self, x_slit, y_slit, wave_um):
        """Offsets east and north (arcsec), of the shape that the arguments broadcast to.

        Parameters
        ----------
        x_slit, y_slit : array_like
            Position in units of the shutter's open size.
        wave_um : array_like
            Wavelength (um): the fore optics are slightly chromatic.
        """
        w = np.asarray(wave_um) - 1.4
        result = []
        for c in self._coefficients.T:
            along = c[0] + c[1] * x_slit + c[6] * x_slit**2
            across = c[2] + c[3] * x_slit + c[5] * y_slit
            chromatic = w * (c[4] + c[7] * x_slit + c[8] * y_slit + w * (c[9] + c[10] * w))
            result.append(along + y_slit * across + chromatic)
        return tuple(result)


def _terms(x, y, wave_um):
    """Columns of the least-squares fit, in the order that SkyMap adds them up."""
    w = wave_um - 1.4
    return np.stack([np.ones_like(x), x, y, x * y, w, y**2, x**2, w * x, w * y, w**2, w**3], axis=1)
