"""Figures of merit of cubes with a known truth.

One yardstick for line images of several cubes of a source.

How good a line image of a cube is: flux, centre, width and noise, measured alike on spaxels of any shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from scipy import fft
from scipy.ndimage import map_coordinates
from scipy.optimize import least_squares

from msa3d.constants import LINES
from msa3d.cubes.cube import Cube
from msa3d.galaxy import images as galaxy_images
from msa3d.galaxy import noise as galaxy_noise
from msa3d.galaxy.images import _SUB_ARCSEC, square_arcsec

Cubes = Mapping[str, tuple[str, Cube]]
"""Label and cube, by name; what is compared is compared with the first one."""

_FORMATS = {
    "flux": ".3e", "flux_ratio": ".3f", "centroid_mas": ".1f", "fwhm": ".3f", "along": ".3f", "across": ".3f",
    "noise": ".2e", "area": ".2f", "noise_ratio": ".3f", "noise_ratio_error": ".3f",
    "noise_ratio_beam": ".3f", "noise_ratio_beam_error": ".3f",
    "centroid_error": ".1f", "fwhm_error": ".3f",
}  # fmt: skip


class Meter:
    """Measures of H-alpha images, the same for all cubes of a source.

    Parameters
    ----------
    centre : tuple of float
        Middle of the apertures, ICRS, deg.
    redshift : float
        Of the source.
    pa_deg : float
        Position angle of the slit.
    truth : linemerit.TruthImage, optional
        H-alpha convolved with the PSF of the telescope.
    slit_arcsec : tuple of float
        Width of the slit, and height of a pixel along it: what no builder can undo, and flux ratios leave out.
    sky : bool
        Whether the sky is in all cubes: noise is compared at equal light, sky and all, which is known far better than
        the light of the line.
    """

    def __init__(
        self,
        centre: tuple[float, float],
        redshift: float,
        pa_deg: float,
        truth: TruthImage | None = None,
        slit_arcsec: tuple[float, float] = (0.2, 0.1),
        *,
        sky: bool = True,
    ) -> None:
        self.sky = sky
        self.centre, self.redshift, self.pa_deg, self.truth = centre, redshift, pa_deg, truth
        self.seen = None if truth is None else truth.through_slit(*slit_arcsec, pa_deg)
        self.line_um = LINES["Ha"] * (1.0 + redshift)

    def image(self, cube: Cube) -> np.ndarray:
        """H-alpha of a cube, erg s-1 cm-2 arcsec-2."""
        return galaxy_images.line_image(cube, self.line_um)

    def true_image(self, cube: Cube, image: np.ndarray) -> np.ndarray:
        """Truth through the slit in the middles of the spaxels that have a value; NaN without a truth."""
        if self.seen is None:
            return np.full(image.shape, np.nan)
        return np.where(np.isfinite(image), self.seen.at(*cube.spaxel_sky()), np.nan)

    def table(self, cubes: Cubes, radius_arcsec: float, noise: Table | None = None) -> Table:
        """Compare flux, centre, widths, noise and area; a row a cube.

        Parameters
        ----------
        cubes : mapping of str to (str, Cube)
            The cubes. On the spaxels of the last one ``centroid_mas`` and ``fwhm`` are measured.
        radius_arcsec : float
            Of the aperture for flux and noise.
        noise : astropy.table.Table, optional
            Of `noise_table` for these cubes, where it is there already; with ``radius_arcsec`` and
            `msa3d.galaxy.noise.BEAM_ARCSEC` among its radii.

        Returns
        -------
        astropy.table.Table
            See `msa3d.closure.builders.BuilderComparison`.
        """
        onto = list(cubes.values())[-1][1]
        table = Table([self._row(name, label, cube, onto, radius_arcsec) for name, (label, cube) in cubes.items()])
        if noise is None:
            noise = self.noise_table(cubes, [galaxy_noise.BEAM_ARCSEC, radius_arcsec])
        wide, beam = (noise[noise["radius"] == r][0] for r in (radius_arcsec, galaxy_noise.BEAM_ARCSEC))
        table["noise"] = [wide[name] for name in cubes]
        for column, row in (("noise_ratio", wide), ("noise_ratio_beam", beam)):
            table[column] = [row[f"{name}_relative"] for name in cubes]
            table[f"{column}_error"] = [row[f"{name}_relative_error"] for name in cubes]
        table["centroid_error"], table["fwhm_error"] = np.full((2, len(table)), np.nan)
        for index in {0, len(table) - 1}:
            cube = list(cubes.values())[index][1]
            table["centroid_error"][index], table["fwhm_error"][index] = self.errors(cube, onto)
        table["flux"].unit = table["noise"].unit = "erg / (s cm2)"
        table["centroid_error"].unit, table["fwhm_error"].unit = "mas", "arcsec"
        table["centroid_mas"].unit, table["area"].unit = "mas", "arcsec2"
        for width in ("fwhm", "along", "across"):
            table[width].unit = "arcsec"
        for column, form in _FORMATS.items():
            table[column].info.format = form
        table.meta["comments"] = [f"H-alpha; flux and noise within {radius_arcsec:g} arcsec; widths of the blur"]
        return table

    def _row(self, name: str, label: str, cube: Cube, onto: Cube, radius: float) -> dict[str, object]:
        image = self.image(cube)
        true = self.true_image(cube, image)
        weights = galaxy_images.aperture_weights(cube, self.centre, radius)
        own = self._match(cube, image)
        same = self._match(onto, laid_on(image, cube, onto))
        return {
            "name": name,
            "label": label,
            "flux": self._flux(cube, image, radius),
            "flux_ratio": _ratio(np.nansum(weights * image), np.nansum(weights * true)),
            "centroid_mas": 1000.0 * same.shift,
            "fwhm": same.fwhm,
            "along": own.along,
            "across": own.across,
            "area": float(np.isfinite(image).sum() * galaxy_images.square_arcsec(cube)),
        }

    def _match(self, cube: Cube, image: np.ndarray) -> Match:
        """Match the truth to an image on the spaxels of a cube."""
        if self.truth is None:
            return Match(*[np.nan] * 5)
        return match(image, cube, self.truth, self.pa_deg, self.scatter(cube))

    def errors(self, cube: Cube, onto: Cube) -> tuple[float, float]:
        """How far the noise alone moves and blurs an image.

        What the cube shows at every other wavelength without lines is added to the truth through the slit, which is
        then matched like the image itself.

        Parameters
        ----------
        cube, onto : Cube
            Whose noise it is, and on whose spaxels it is measured.

        Returns
        -------
        centroid_mas, fwhm_arcsec : float
            Root mean square of the shift about its mean (both coordinates together) and of the blur; NaN without a
            truth.
        """
        if self.truth is None:
            return np.nan, np.nan
        true = self.true_image(cube, self.image(cube))
        noisy = [laid_on(true + blank, cube, onto) for blank in self._blank_images(cube)[::2]]
        found = [self._match(onto, image) for image in noisy]
        east, north, fwhm = np.array([(item.east, item.north, item.fwhm) for item in found]).T
        return 1000.0 * float(np.hypot(east.std(), north.std())), float(fwhm.std())

    def scatter(self, cube: Cube) -> np.ndarray:
        """Noise of the H-alpha image in each spaxel, where it is above the median: noisy spaxels count for less."""
        images = self._blank_images(cube)
        known = np.isfinite(images)
        count = np.maximum(known.sum(axis=0), 1)
        filled = np.where(known, images, 0.0)
        mean = filled.sum(axis=0) / count
        sigma = np.sqrt((known * (filled - mean) ** 2).sum(axis=0) / count)
        usual = np.median(sigma[sigma > 0]) if (sigma > 0).any() else 1.0
        return np.where(known.sum(axis=0) > 1, np.maximum(sigma, usual), np.nan)

    def _blank_images(self, cube: Cube) -> np.ndarray:
        """What the line image is at wavelengths without lines, shape (n, n_y, n_x)."""
        blank = [at for at in galaxy_images.blank_lines(self.redshift) if galaxy_noise.covers(cube, at)]
        if not blank:
            raise ValueError(f"{cube.name} has no wavelengths without lines around {self.line_um:.4f} um")
        return np.array([galaxy_images.line_image(cube, at) for at in blank])

    def noise_table(self, cubes: Cubes, radii: Sequence[float]) -> Table:
        """Noise against the radius of the aperture: ``<cube>``, ``<cube>_relative`` (over light) and its error."""
        noise = self._noise(cubes, radii)
        table = Table({"radius": np.array(radii, dtype=float)})
        for name in cubes:
            table[name], table[f"{name}_relative"] = noise.scatter(name), noise.over_light(name)
            table[f"{name}_relative_error"] = noise.over_light_error(name)
        return table

    def _noise(self, cubes: Cubes, radii: Sequence[float]) -> galaxy_noise.ApertureNoise:
        plain = {name: cube for name, (_, cube) in cubes.items()}
        found = galaxy_noise.measure(plain, self.centre, self.redshift, radii)
        if self.sky:
            return found
        flux = {name: self._flux(cube, self.image(cube), max(radii)) for name, cube in plain.items()}
        first = next(iter(flux.values()))
        return replace(found, light={name: _ratio(value, first) for name, value in flux.items()})

    def _flux(self, cube: Cube, image: np.ndarray, radius: float) -> float:
        weights = galaxy_images.aperture_weights(cube, self.centre, radius)
        return float(np.nansum(weights * image) * galaxy_images.square_arcsec(cube))

    def profiles(self, cubes: Cubes, step_arcsec: float = 0.1, most_arcsec: float = 1.0) -> Table:
        """Mean H-alpha brightness in rings, a column a cube, and that of the truth on the last one's spaxels."""
        edges = np.arange(0.0, most_arcsec + step_arcsec / 2, step_arcsec)
        table = Table({"radius": 0.5 * (edges[1:] + edges[:-1])})
        for name, (_, cube) in cubes.items():
            image = self.image(cube)
            circles = np.array([galaxy_images.aperture_weights(cube, self.centre, edge) for edge in edges[1:]])
            rings = np.diff(circles, axis=0, prepend=0.0)
            table[name] = _mean(image, rings)
            table["truth"] = _mean(self.true_image(cube, image), rings)
        return table

    def images(self, cubes: Cubes) -> dict[str, tuple[Cube, np.ndarray]]:
        """H-alpha images by name, and ``truth`` on the spaxels of the last cube."""
        found = {name: (cube, self.image(cube)) for name, (_, cube) in cubes.items()}
        cube, image = list(found.values())[-1]
        return {**found, "truth": (cube, self.true_image(cube, image))}


def _ratio(value: float, other: float) -> float:
    return float(value / other) if other > 0 else float("nan")


def _mean(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    known = weights * np.isfinite(image)
    total = known.sum(axis=(1, 2))
    summed = (known * np.nan_to_num(image)).sum(axis=(1, 2))
    return np.divide(summed, total, out=np.full(total.shape, np.nan), where=total > 0)


FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True, eq=False)
class TruthImage:
    """Surface brightness of a line convolved with the PSF of the telescope.

    Attributes
    ----------
    flux : numpy.ndarray, shape (n_y, n_x)
        In erg s-1 cm-2 arcsec-2.
    wcs : astropy.wcs.WCS
        Celestial, north up.
    pixel_arcsec : float
        Size of a pixel.
    """

    flux: np.ndarray
    wcs: WCS
    pixel_arcsec: float

    @classmethod
    def read(cls, path: Path, line: str = "Ha") -> TruthImage:
        """Read a line's image from the truth of a simulated source.

        Parameters
        ----------
        path : pathlib.Path
            Truth file.
        line : str
            Name of the line.

        Returns
        -------
        TruthImage
        """
        with fits.open(path) as hdus:
            hdu = hdus[f"OBS_{line}"]
            wcs = WCS(hdu.header)
            pixel_arcsec = float(proj_plane_pixel_scales(wcs)[1]) * 3600.0
            return cls(np.array(hdu.data, dtype=float), wcs, pixel_arcsec)

    def through_slit(self, width_arcsec: float, height_arcsec: float, pa_deg: float) -> TruthImage:
        """Average over what a pixel sees through the slit: the sharpest image that the data hold.

        Parameters
        ----------
        width_arcsec, height_arcsec : float
            Width of the slit, and of a pixel along it.
        pa_deg : float
            Position angle of the slit, deg east of north.

        Returns
        -------
        TruthImage
            Convolved with that rectangle.
        """
        along, across = self._frequencies(pa_deg)
        return self._filtered(np.sinc(along * height_arcsec) * np.sinc(across * width_arcsec))

    def blurred(self, along_arcsec: float, across_arcsec: float, pa_deg: float) -> TruthImage:
        """Convolve with a Gaussian whose axes are those of the slit.

        Parameters
        ----------
        along_arcsec, across_arcsec : float
            Its full widths at half maximum, along the slit and across it.
        pa_deg : float
            Position angle of the slit, deg east of north.

        Returns
        -------
        TruthImage
        """
        along, across = self._frequencies(pa_deg)
        phase = 2.0 * np.pi / FWHM
        return self._filtered(np.exp(-0.5 * phase**2 * ((along * along_arcsec) ** 2 + (across * across_arcsec) ** 2)))

    def _frequencies(self, pa_deg: float) -> tuple[np.ndarray, np.ndarray]:
        """Spatial frequencies along the slit and across it, cycles an arcsec."""
        ny, nx = self.flux.shape
        north, east = fft.fftfreq(ny, self.pixel_arcsec)[:, None], -fft.fftfreq(nx, self.pixel_arcsec)[None, :]
        angle = np.radians(pa_deg)
        return east * np.sin(angle) + north * np.cos(angle), east * np.cos(angle) - north * np.sin(angle)

    def _filtered(self, transfer: np.ndarray) -> TruthImage:
        return TruthImage(fft.ifft2(fft.fft2(self.flux) * transfer).real, self.wcs, self.pixel_arcsec)

    def at(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Surface brightness at places on the sky, deg; 0 outside the image."""
        x, y = self.wcs.world_to_pixel_values(ra, dec)
        return map_coordinates(self.flux, [y, x], order=3, mode="constant", cval=0.0)


@dataclass(frozen=True)
class Match:
    """How a line image differs from the truth.

    Attributes
    ----------
    flux : float
        Brightness over that of the truth.
    east, north : float
        Shift, arcsec.
    along, across : float
        Full widths at half maximum, along the slit and across it, of the Gaussian that the truth has to be
        convolved with to look like the image, arcsec.
    """

    flux: float
    east: float
    north: float
    along: float
    across: float

    @property
    def fwhm(self) -> float:
        """Root mean square of the two widths, arcsec."""
        return float(np.hypot(self.along, self.across) / np.sqrt(2.0))

    @property
    def shift(self) -> float:
        """Length of the shift, arcsec."""
        return float(np.hypot(self.east, self.north))


def match(image: np.ndarray, cube: Cube, truth: TruthImage, pa_deg: float, sigma: np.ndarray | None = None) -> Match:
    """Fit the truth to a line image: its flux, a shift, and a Gaussian blur with the axes of the slit.

    The blur is what slit, detector and builder do to the image together. All of the image's structure counts, which
    makes it sharper a measure in noise than the width of the source itself.

    Parameters
    ----------
    image : numpy.ndarray, shape (n_y, n_x)
        Brightness, NaN left out.
    cube : Cube
        Whose spaxels they are.
    truth : TruthImage
        Behind the telescope, not through the slit.
    pa_deg : float
        Position angle of the slit.
    sigma : numpy.ndarray, shape (n_y, n_x), optional
        Noise of the spaxels, in any unit; all the same without it.

    Returns
    -------
    Match
        NaN where fewer than ten spaxels are known.
    """
    sigma = np.ones(image.shape) if sigma is None else sigma
    use = np.isfinite(image / sigma)
    if use.sum() < 10:
        return Match(*[np.nan] * 5)
    ra, dec = (item[use] for item in cube.spaxel_sky())
    values, weight = image[use], np.median(sigma[use]) / sigma[use]
    scale = np.cos(np.radians(dec))
    norm = float(np.sqrt(np.mean(truth.at(ra, dec) ** 2))) or 1.0

    def residuals(p: np.ndarray) -> np.ndarray:
        model = truth.blurred(p[3], p[4], pa_deg).at(ra - p[1] / scale / 3600.0, dec - p[2] / 3600.0)
        return weight * (p[0] * model - values) / norm

    limits = ([0.0, -0.5, -0.5, 0.0, 0.0], [np.inf, 0.5, 0.5, 1.5, 1.5])
    start = [1.0, 0.0, 0.0, 0.15, 0.15]
    # The steps of the derivatives are wide against the truth's interpolation, narrow against its structure.
    fit = least_squares(residuals, start, bounds=limits, x_scale=[1.0, 0.1, 0.1, 0.1, 0.1], diff_step=1e-4)
    return Match(*(float(value) for value in fit.x))


def laid_on(image: np.ndarray, cube: Cube, onto: Cube) -> np.ndarray:
    """Lay the spaxels of an image on those of another cube, by their common area.

    Parameters
    ----------
    image : numpy.ndarray, shape (n_y, n_x)
        One value a spaxel of `cube`; NaN takes no part.
    cube, onto : Cube
        Whose spaxels they are, and are to be.

    Returns
    -------
    numpy.ndarray, shape of the spaxels of `onto`
        Means over the common area; NaN where less than half of a spaxel is known.
    """
    ny, nx = onto.shape
    n = max(1, int(np.ceil(np.sqrt(square_arcsec(onto)) / _SUB_ARCSEC)))
    y, x = ((np.arange(size * n) + 0.5) / n - 0.5 for size in (ny, nx))
    places = onto.wcs.pixel_to_world_values(*np.meshgrid(x, y))
    column, row = (np.rint(item).astype(int) for item in cube.wcs.world_to_pixel_values(*places))
    inside = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
    fine = np.where(inside, image[np.where(inside, row, 0), np.where(inside, column, 0)], np.nan)
    blocks = fine.reshape(ny, n, nx, n)
    known = np.isfinite(blocks).sum(axis=(1, 3))
    total = np.nansum(blocks, axis=(1, 3))
    return np.divide(total, known, out=np.full(known.shape, np.nan), where=known >= 0.5 * n * n)
