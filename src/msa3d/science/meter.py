"""One yardstick for line images of several cubes of a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from astropy.table import Table

from msa3d.constants import LINES
from msa3d.cube import Cube
from msa3d.science import aperturenoise, linemerit

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
        H-alpha behind the telescope.
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
        truth: linemerit.TruthImage | None = None,
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
        return linemerit.line_image(cube, self.line_um)

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
            `msa3d.science.aperturenoise.BEAM_ARCSEC` among its radii.

        Returns
        -------
        astropy.table.Table
            See `msa3d.science.builders.BuilderComparison`.
        """
        onto = list(cubes.values())[-1][1]
        table = Table([self._row(name, label, cube, onto, radius_arcsec) for name, (label, cube) in cubes.items()])
        if noise is None:
            noise = self.noise_table(cubes, [aperturenoise.BEAM_ARCSEC, radius_arcsec])
        wide, beam = (noise[noise["radius"] == r][0] for r in (radius_arcsec, aperturenoise.BEAM_ARCSEC))
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
        weights = linemerit.aperture_weights(cube, self.centre, radius)
        own = self._match(cube, image)
        same = self._match(onto, linemerit.laid_on(image, cube, onto))
        return {
            "name": name,
            "label": label,
            "flux": self._flux(cube, image, radius),
            "flux_ratio": _ratio(np.nansum(weights * image), np.nansum(weights * true)),
            "centroid_mas": 1000.0 * same.shift,
            "fwhm": same.fwhm,
            "along": own.along,
            "across": own.across,
            "area": float(np.isfinite(image).sum() * linemerit.square_arcsec(cube)),
        }

    def _match(self, cube: Cube, image: np.ndarray) -> linemerit.Match:
        """Match the truth to an image on the spaxels of a cube."""
        if self.truth is None:
            return linemerit.Match(*[np.nan] * 5)
        return linemerit.match(image, cube, self.truth, self.pa_deg, self.scatter(cube))

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
        noisy = [linemerit.laid_on(true + blank, cube, onto) for blank in self._blank_images(cube)[::2]]
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
        blank = [at for at in linemerit.blank_lines(self.redshift) if aperturenoise.covers(cube, at)]
        if not blank:
            raise ValueError(f"{cube.name} has no wavelengths without lines around {self.line_um:.4f} um")
        return np.array([linemerit.line_image(cube, at) for at in blank])

    def noise_table(self, cubes: Cubes, radii: Sequence[float]) -> Table:
        """Noise against the radius of the aperture: ``<cube>``, ``<cube>_relative`` (over light) and its error."""
        noise = self._noise(cubes, radii)
        table = Table({"radius": np.array(radii, dtype=float)})
        for name in cubes:
            table[name], table[f"{name}_relative"] = noise.scatter(name), noise.over_light(name)
            table[f"{name}_relative_error"] = noise.over_light_error(name)
        return table

    def _noise(self, cubes: Cubes, radii: Sequence[float]) -> aperturenoise.ApertureNoise:
        plain = {name: cube for name, (_, cube) in cubes.items()}
        found = aperturenoise.measure(plain, self.centre, self.redshift, radii)
        if self.sky:
            return found
        flux = {name: self._flux(cube, self.image(cube), max(radii)) for name, cube in plain.items()}
        first = next(iter(flux.values()))
        return replace(found, light={name: _ratio(value, first) for name, value in flux.items()})

    def _flux(self, cube: Cube, image: np.ndarray, radius: float) -> float:
        weights = linemerit.aperture_weights(cube, self.centre, radius)
        return float(np.nansum(weights * image) * linemerit.square_arcsec(cube))

    def profiles(self, cubes: Cubes, step_arcsec: float = 0.1, most_arcsec: float = 1.0) -> Table:
        """Mean H-alpha brightness in rings, a column a cube, and that of the truth on the last one's spaxels."""
        edges = np.arange(0.0, most_arcsec + step_arcsec / 2, step_arcsec)
        table = Table({"radius": 0.5 * (edges[1:] + edges[:-1])})
        for name, (_, cube) in cubes.items():
            image = self.image(cube)
            circles = np.array([linemerit.aperture_weights(cube, self.centre, edge) for edge in edges[1:]])
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
