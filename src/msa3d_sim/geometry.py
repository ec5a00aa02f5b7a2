"""Where light falls: jwst's own optics, run from the sky and the shutters to the detectors.

The transforms are those that ``jwst.assign_wcs`` builds from the reference files, so that the simulated
detector and the pipeline agree on where a shutter, a wavelength and a point of the sky belong.

Conventions: a shutter is (quadrant 1-4, row 1-365 along dispersion, column 1-171 across); inside a
slitlet ``x_slit`` and ``y_slit`` are in units of the shutter's open size, with the origin in the middle of
the primary shutter; wavelengths are in um; offsets on the sky are gnomonic, east and north, in arcsec.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from msa3d import jwst_adapter

V2_REF_ARCSEC, V3_REF_ARCSEC = 378.563202, -428.402832
"""Reference point of aperture NRS_FULL_MSA in the telescope's V2, V3 frame (arcsec); source: PRD siaf."""
V3_IDEAL_Y_ANGLE_DEG = 138.57611
_SHUTTERS_PER_ROW = 365
SHUTTERS_PER_COLUMN = 171
PITCH_IN_OPENINGS = 1.15
"""Shutter pitch over open size across dispersion, as ``jwst.assign_wcs.nirspec`` rounds it."""
DETECTOR_PIXELS = 2048
WAVE_RANGE_UM = (0.97, 1.89)
"""Wavelengths of F100LP/G140H in the wavelengthrange reference."""
_OPTICS_REFERENCES = (
    "wavelengthrange", "camera", "collimator", "disperser", "fore", "fpa", "msa", "ote", "msaoper",
)  # fmt: skip


@dataclass(frozen=True)
class Pointing:
    """Where the telescope looks: sky position of the V2/V3 reference point and position angle of V3 there, deg."""

    ra: float
    dec: float
    roll: float


@dataclass(frozen=True)
class Slitlet:
    """One open slitlet of the MSA.

    Attributes
    ----------
    slitlet_id : int
        Number of the slitlet in the metafile.
    source_id : int
        Identifier of the source; 0 for a shutter that nobody commanded open.
    quadrant, row : int
        Quadrant (1-4) and shutter row along dispersion (1-365).
    columns : tuple of int
        Open shutters across dispersion (1-171), adjacent and increasing.
    primary : int
        The column that holds the source; origin of ``y_slit``.
    """

    slitlet_id: int
    source_id: int
    quadrant: int
    row: int
    columns: tuple[int, ...]
    primary: int

    @property
    def y_range(self) -> tuple[float, float]:
        """Ends of the open area in ``y_slit``."""
        first, last = self.columns[0] - self.primary, self.columns[-1] - self.primary
        return first * PITCH_IN_OPENINGS - 0.5, last * PITCH_IN_OPENINGS + 0.5


def _find_references(model) -> dict[str, str]:
    """Reference files of the optics, by type, for a data model, from the CRDS cache in use."""
    import crds

    return crds.getreferences(model.get_crds_parameters(), reftypes=list(_OPTICS_REFERENCES), observatory="jwst")


class Optics:
    """The optics in front of one detector, for one position of the grating wheel.

    Parameters
    ----------
    model : `jwst.datamodels.ImageModel`
        Header of any exposure: detector, grating, tilts, V2/V3 reference, velocity aberration. The pointing
        in it does not matter.
    slitlets : sequence of Slitlet
        What is open.
    """

    def __init__(self, model, slitlets):
        slits = [
            {
                "name": str(slitlet.slitlet_id),
                "shutter_id": slitlet.row + (slitlet.primary - 1) * _SHUTTERS_PER_ROW,
                "dither_position": 1,
                "xcen": slitlet.row,
                "ycen": slitlet.primary,
                # Room on both sides, as the pipeline gives it: light is blurred past the slitlet's ends.
                "ymin": slitlet.y_range[0] - PITCH_IN_OPENINGS,
                "ymax": slitlet.y_range[1] + PITCH_IN_OPENINGS,
                "quadrant": slitlet.quadrant,
                "source_id": slitlet.source_id,
                "shutter_state": "x" * len(slitlet.columns),
            }
            for slitlet in slitlets
        ]
        self._steps = jwst_adapter.slitlets_wcs(model.copy(), _find_references(model), slits)

    def slit_wcs(self, slitlet: Slitlet):
        """World coordinates of one slitlet, as `jwst` would attach them."""
        return jwst_adapter.wcs_of_slit(self._steps, str(slitlet.slitlet_id))


def rotate_to_sky(pointing: Pointing):
    """The transform, with an inverse, from V2, V3 (arcsec) to RA, Dec (deg) that jwst makes from the headers."""
    from jwst.assign_wcs.pointing import _v23tosky

    return _v23tosky(
        v2_ref=V2_REF_ARCSEC / 3600,
        v3_ref=V3_REF_ARCSEC / 3600,
        roll_ref=pointing.roll,
        ra_ref=pointing.ra,
        dec_ref=pointing.dec,
    )


class MsaPlane:
    """The sky seen in the MSA plane: which shutter a position falls on.

    Parameters
    ----------
    model : `jwst.datamodels.ImageModel`
        Header with the pointing.
    wave_um : float
        Wavelength at which the chromatic fore optics are taken.
    """

    def __init__(self, model, wave_um: float = 1.4):
        from jwst.assign_wcs.nirspec import msa_to_oteip
        from jwst.assign_wcs.pointing import dva_corr_model
        from stdatamodels.jwst.datamodels import MSAModel

        references = _find_references(model)
        info = model.meta.wcsinfo
        self._wave_um = wave_um
        self._msa_to_oteip = msa_to_oteip(references)
        self._oteip_to_v23 = jwst_adapter.oteip_to_v23(references, model)
        self._aberration = dva_corr_model(model.meta.velocity_aberration.scale_factor, info.v2_ref, info.v3_ref)
        self._pointing = Pointing(info.ra_ref, info.dec_ref, info.roll_ref)
        self._quadrants = {}
        with MSAModel(references["msa"]) as msa:
            for quadrant in range(1, 5):
                plane = getattr(msa, f"Q{quadrant}")
                self._quadrants[quadrant] = (plane.model.copy(), np.array(plane.data))

    def to_sky(self, x_msa, y_msa, pointing=None):
        """Right ascension and declination (deg) of positions in the MSA plane (m)."""
        x_msa, y_msa = np.atleast_1d(x_msa).astype(float), np.atleast_1d(y_msa).astype(float)
        wave = np.full_like(x_msa, self._wave_um * 1e-6)
        v2, v3, _ = self._oteip_to_v23(*self._msa_to_oteip(x_msa, y_msa, wave))
        return rotate_to_sky(pointing or self._pointing)(*self._aberration(v2, v3))

    def from_sky(self, ra, dec, pointing=None):
        """Position in the MSA plane (m) of right ascension and declination (deg)."""
        ra, dec = np.atleast_1d(ra).astype(float), np.atleast_1d(dec).astype(float)
        v2, v3 = self._aberration.inverse(*rotate_to_sky(pointing or self._pointing).inverse(ra, dec))
        wave = np.full_like(v2, self._wave_um)
        # The inverse hands the wavelength over twice, as the fore optics' inverse takes it.
        return self._msa_to_oteip.inverse(*self._oteip_to_v23.inverse(v2, v3, wave))[:2]

    def shutter_at(self, x_msa: float, y_msa: float):
        """Find the shutter at a position of the MSA plane (m).

        Returns
        -------
        tuple or None
            Quadrant, row, column, and the position inside the shutter in units of its open size (0 is
            the middle); None between and outside the quadrants.
        """
        for quadrant, (plane, table) in self._quadrants.items():
            x, y = (float(value) for value in plane.inverse(x_msa, y_msa))
            x_pitch = float(table[1][1]) - float(table[0][1])
            y_pitch = float(table[_SHUTTERS_PER_ROW][2]) - float(table[0][2])
            row = round((x - float(table[0][1])) / x_pitch) + 1
            column = round((y - float(table[0][2])) / y_pitch) + 1
            if 1 <= row <= _SHUTTERS_PER_ROW and 1 <= column <= SHUTTERS_PER_COLUMN:
                return (quadrant, row, column, *self.offset_in((quadrant, row, column), x_msa, y_msa))
        return None

    def middle_of(self, shutter: tuple[int, int, int]) -> tuple[float, float]:
        """Position in the MSA plane (m) of the middle of a shutter (quadrant, row, column)."""
        quadrant, row, column = shutter
        plane, table = self._quadrants[quadrant]
        entry = table[row - 1 + (column - 1) * _SHUTTERS_PER_ROW]
        x, y = plane(float(entry[1]), float(entry[2]))
        return float(x), float(y)

    def offset_in(self, shutter: tuple[int, int, int], x_msa, y_msa) -> tuple:
        """Positions (floats or arrays) relative to the middle of a shutter, in units of its open size."""
        quadrant, row, column = shutter
        plane, table = self._quadrants[quadrant]
        x, y = plane.inverse(x_msa, y_msa)
        entry = table[row - 1 + (column - 1) * _SHUTTERS_PER_ROW]
        return (x - float(entry[1])) / float(entry[3]), (y - float(entry[2])) / float(entry[4])


def tangent_offsets(ra, dec, ra0: float, dec0: float):
    """Gnomonic offsets east and north (arcsec) of positions (deg) from a tangent point (deg).

    Source: Calabretta & Greisen 2002, A&A 395, 1077, section 5.1.3.
    """
    ra, dec, ra0, dec0 = (np.deg2rad(value) for value in (ra, dec, ra0, dec0))
    cos_distance = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    east = np.cos(dec) * np.sin(ra - ra0) / cos_distance
    north = (np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)) / cos_distance
    return np.rad2deg(east) * 3600.0, np.rad2deg(north) * 3600.0


class Polynomial2D:
    """A smooth function of two variables on a box, as a Chebyshev series of given degrees fitted to samples."""

    def __init__(self, u, v, values, degrees: tuple[int, int]):
        self._u = _Scaling(u)
        self._v = _Scaling(v)
        matrix = chebyshev.chebvander2d(self._u(u).ravel(), self._v(v).ravel(), degrees)
        solution, *_ = np.linalg.lstsq(matrix, np.asarray(values).ravel(), rcond=None)
        self._coefficients = solution.reshape(degrees[0] + 1, degrees[1] + 1)

    def __call__(self, u, v):
        """Value of the series; meaningful inside the fitted box only."""
        return chebyshev.chebval2d(self._u(u), self._v(v), self._coefficients)


class _Scaling:
    """Maps the range of some samples onto [-1, 1]."""

    def __init__(self, samples):
        self._low, self._high = float(np.min(samples)), float(np.max(samples))

    def __call__(self, values):
        return (2.0 * np.asarray(values) - self._low - self._high) / (self._high - self._low)
