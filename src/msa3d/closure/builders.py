"""The two builders side by side: what each weakness of the published one costs, against a known truth."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from msa3d.archive import crds
from msa3d.closure import images
from msa3d.closure.images import Meter
from msa3d.config import Dataset
from msa3d.cubes.cube import Cube, open_cube
from msa3d.errors import ProductError
from msa3d.galaxy import images as galaxy_images
from msa3d.galaxy.noise import BEAM_ARCSEC
from msa3d.observation.reading import spectra
from msa3d.observation.source import place_exposures, sources_of
from msa3d.pipeline.layout import POST_SUFFIX, Layout
from msa3d.pipeline.products import atomic_path
from msa3d.published import cube as published_cube
from msa3d.published import frame as published_frame
from msa3d.published.cube import Place, quality
from msa3d.published.rectified import SlitSpectrum, inverse
from msa3d.published.settings import PaperPostprocess, PaperSettings
from msa3d.published.spectra import PathlossVector, corrected, pathloss_vectors
from msa3d.reduce.corrections import BarShadows
from msa3d.reduce.geometry import read_rectified

log = logging.getLogger(__name__)

TABLE = "two_builders.ecsv"
"""Table under ``reduction/science``."""

SLIT_ARCSEC = 0.2
"""Open width of a shutter on the sky."""

RADIUS_ARCSEC = 0.5
NOISE_RADII = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class Variant:
    """A cube to be compared: the published algorithm with some of its weaknesses off.

    Attributes
    ----------
    name, label : str
        In the table, and in figures.
    build, post : dict
        What differs from `PaperSettings` and `PaperPostprocess`.
    """

    name: str
    label: str
    build: Mapping[str, object] = field(default_factory=dict)
    post: Mapping[str, object] = field(default_factory=dict)


VARIANTS = (
    Variant("published", "as published"),
    Variant("exact_offsets", "exact offsets", {"truncate_offsets": False}),
    Variant("measured_offsets", "offsets from the WCS", {"nominal_offsets": False}),
    Variant("no_zeros", "no zeros in medians", {"zeros_in_median": False}),
    Variant("cubic", "cubic interpolation", {"interpolation": "cubic"}),
    Variant("mean", "weighted mean", {"combine": "mean"}),
    Variant("all_blocks", "all wavelengths cleaned", {}, {"skip_last_blocks": False}),
    Variant("known_noise", "cosmic rays with known noise", {}, {"default_noise": False}),
    Variant("own_pathloss", "per-exposure path loss", {}, {"one_pathloss": False}),
    Variant("bars", "bar shadow corrected", {}, {"ignore_bars": False}),
    Variant(
        "all_off",
        "all but median, interpolation",
        {"truncate_offsets": False, "nominal_offsets": False, "zeros_in_median": False},
        {"skip_last_blocks": False, "default_noise": False, "one_pathloss": False, "ignore_bars": False},
    ),
)
"""Each weakness of the published algorithm switched off alone, and those that harm nothing together."""


def _with_error(value: float, error: float) -> str:
    """Value and error; an unknown error, as of a circle for which a small field has no room, is left out."""
    if not np.isfinite(value):
        return "nan"
    return f"{value:.3f} \u00b1 {error:.3f}" if np.isfinite(error) else f"{value:.3f}"


@dataclass(frozen=True, eq=False)
class BuilderComparison:
    """What `compare` found.

    Attributes
    ----------
    source_id : int
        The source.
    table : astropy.table.Table
        A row a variant and one for the drizzled cube: ``flux`` (H-alpha within `RADIUS_ARCSEC`), ``flux_ratio``
        (that over the truth through the slit), ``centroid_mas`` and ``fwhm`` (how far the truth has to be shifted,
        and the Gaussian it has to be blurred with, to look like the image: `msa3d.closure.images.match`), both
        for images laid on the spaxels of the drizzled cube, ``along``, ``across`` (the blur along the slit and
        across it, arcsec, each cube on its own spaxels), ``noise`` (erg s-1 cm-2 in an aperture of
        `RADIUS_ARCSEC`, over the whole spectrum), ``noise_ratio`` (noise over light, in units of the published
        cube's) and ``noise_ratio_error``, ``noise_ratio_beam`` and its error (the same in an aperture of
        `msa3d.galaxy.noise.BEAM_ARCSEC`), ``area`` (arcsec2 with data), ``centroid_error`` and
        ``fwhm_error`` (by the noise alone; of the first and the last cube). NaN where there is no truth.
    noise : astropy.table.Table
        ``radius`` (arcsec) and, for each cube, the noise of a line in such an aperture (erg s-1 cm-2) and
        ``<cube>_relative`` (over light, in units of the published cube's) and its error.
    profiles : astropy.table.Table
        ``radius`` (arcsec) and the mean H-alpha brightness in rings, a column a cube and ``truth``.
    images : dict of str to (Cube, numpy.ndarray)
        H-alpha images: ``published``, ``drizzle`` and, through the slit on the drizzled cube's spaxels, ``truth``.
    centre : tuple of float
        Middle of the apertures, ICRS, deg.
    """

    source_id: int
    table: Table
    noise: Table
    profiles: Table
    images: dict[str, tuple[Cube, np.ndarray]]
    centre: tuple[float, float]

    def row(self, name: str) -> Table.Row:
        """Row of the table with that name."""
        return self.table[list(self.table["name"]).index(name)]

    def quoted(self) -> Table:
        """What the book shows of the table, as text; columns in which nothing is known are left out."""
        columns = {
            "cube": [str(row["label"]) for row in self.table],
            # The error is that by the noise; variants of one cube share it.
            "flux over truth": [
                _with_error(row["flux_ratio"], row["noise"] * row["flux_ratio"] / row["flux"]) for row in self.table
            ],
            "centre (mas)": [f"{row['centroid_mas']:.1f}" for row in self.table],
            "blur (\u2033)": [f"{row['fwhm']:.3f}" for row in self.table],
        }
        for radius, name in ((BEAM_ARCSEC, "noise_ratio_beam"), (RADIUS_ARCSEC, "noise_ratio")):
            texts = [_with_error(row[name], row[f"{name}_error"]) for row in self.table]
            columns[f"noise, {radius:g}\u2033"] = texts
        known = {name: texts for name, texts in columns.items() if set(texts) != {"nan"}}
        return Table(known)

    def write(self, folder: Path) -> Path:
        """Write the table; give its path."""
        with atomic_path(folder / TABLE) as partial:
            self.table.write(partial, format="ascii.ecsv")
        return folder / TABLE


class PaperRun:
    """The rectified spectra of one source, to build variants of its published cube from.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    layout : Layout
        Where things lie.
    source_id : int
        The source.
    """

    def __init__(self, dataset: Dataset, layout: Layout, source_id: int) -> None:
        self.dataset, self.source_id = dataset, source_id
        exposures = place_exposures(dataset, layout)
        found = sources_of(dataset, layout, exposures)
        if source_id not in found:
            raise ProductError(f"{layout.process}: no 2-D spectrum of source {source_id}; run `msa3d process` first")
        name = dataset.process.product
        self.paths = {
            (item.row, item.column): (
                layout.s2d(item.activity, source_id, "", name),
                layout.s2d(item.activity, source_id, POST_SUFFIX, name),
            )
            for item in found[source_id]
        }
        _, vectors = pathloss_vectors(dataset, layout, exposures, {source_id: found[source_id]})
        self.vector: PathlossVector | None = vectors.get(source_id)
        geometry = read_rectified(next(iter(self.paths.values()))[0])
        self.native_arcsec = geometry.native_pixel_arcsec
        self.layout = layout

    @cached_property
    def bars(self) -> BarShadows:
        """Bar shadow of the CRDS reference."""
        crds.use_references(self.layout, self.dataset)
        header_of = next(spectra(self.layout.rates()), next(iter(self.paths.values()))[0])
        return BarShadows.read(crds.reference_for(header_of, "barshadow"))

    def spectra(self, switches: PaperPostprocess) -> dict[Place, SlitSpectrum]:
        """Post-process all exposures in memory, in observing order."""
        spectra = {}
        for place, (raw, post) in self.paths.items():
            geometry = read_rectified(post if post.is_file() else raw)
            with fits.open(raw, memmap=False) as hdus:
                data, _, _ = corrected(
                    hdus,
                    geometry,
                    self.dataset.postprocess.cosmic_rays,
                    switches,
                    vector=self.vector,
                    bars=None if switches.ignore_bars else self.bars,
                    name=raw,
                )
                headers = hdus[0].header.copy(), hdus["SCI"].header.copy()
                weight = inverse(hdus["VAR_RNOISE"].data)
            spectra[place] = SlitSpectrum(post, data.astype(np.float64), geometry, *headers, weight)
        return spectra

    def cube(self, spectra: Mapping[Place, SlitSpectrum], settings: PaperSettings) -> Cube:
        """Build the cube in memory."""
        pattern, cubebuild = self.dataset.pattern, self.dataset.cubebuild
        made = published_cube.build_median(
            spectra,
            n_rows=pattern.rows,
            n_columns=pattern.columns,
            row_step_arcsec=cubebuild.row_step_arcsec or pattern.row_step_arcsec,
            subpixels=cubebuild.subpixels,
            settings=settings,
        )
        frame = published_frame.fit_frame(spectra, made.geometry, pattern.columns, pattern.column_step_arcsec)
        header = published_frame.cube_header(frame, made.wave_um)
        data = np.where(quality(made, settings) > 0, np.nan, made.data)
        simulated = bool(next(iter(spectra.values())).primary.get("MSA3DSIM", False))
        wcs = WCS(header).celestial
        return Cube(data, made.wave_um, wcs, header["PIXAR_SR"], simulated, "published", nexp=made.nexp, header=header)


def compare(
    dataset: Dataset,
    layout: Layout,
    source_id: int,
    *,
    truth: Path | None = None,
    variants: Sequence[Variant] = VARIANTS,
    drizzled: Mapping[str, Cube] | None = None,
) -> BuilderComparison:
    """Compare the published builder, with each of its weaknesses switched off alone, and the drizzle builder.

    Everything is measured in H-alpha (`msa3d.galaxy.images.line_image`). The truth is the source behind the
    telescope. For fluxes it is averaged over the slit's width and a pixel along it, which no builder can undo, and
    taken at the middles of the very spaxels that hold data.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    layout : Layout
        Where its products lie; post-processed already.
    source_id : int
        One of its targets.
    truth : pathlib.Path, optional
        Truth file of the source, if the observation is simulated.
    variants : sequence of Variant
        What to build. The first one is what others are compared with.
    drizzled : mapping of str to Cube, optional
        Cubes of the drizzle builder by name; by default that of the run, as ``drizzle``.

    Returns
    -------
    BuilderComparison

    Raises
    ------
    ProductError
        If there are no spectra, or no drizzled cube.
    """
    target = next(item for item in dataset.targets if item.source_id == source_id)
    if drizzled is None:
        drizzled = {"drizzle": open_cube(layout.cube(source_id, dataset))}
    run = PaperRun(dataset, layout, source_id)
    cubes = {variant.name: (variant.label, cube) for variant, cube in _paper_cubes(run, variants)}
    cubes |= {name: (name, cube) for name, cube in drizzled.items()}
    pa = galaxy_images.slit_angle(cubes[variants[0].name][1])
    true = None
    if truth is not None:
        true = images.TruthImage.read(truth)
    sky = dataset.calpost.background.method == "none"
    meter = Meter((target.ra, target.dec), target.redshift, pa, true, (SLIT_ARCSEC, run.native_arcsec), sky=sky)
    noise = meter.noise_table(cubes, NOISE_RADII)
    return BuilderComparison(
        source_id,
        meter.table(cubes, RADIUS_ARCSEC, noise),
        noise,
        meter.profiles({name: cubes[name] for name in (variants[0].name, *drizzled)}),
        meter.images({name: cubes[name] for name in (variants[0].name, *drizzled)}),
        (target.ra, target.dec),
    )


def _paper_cubes(run: PaperRun, variants: Sequence[Variant]) -> Iterator[tuple[Variant, Cube]]:
    """Build the variants; the published post-processing is done once."""
    published = run.spectra(PaperPostprocess())
    for variant in variants:
        switches = PaperPostprocess(**variant.post)
        spectra = published if switches == PaperPostprocess() else run.spectra(switches)
        log.info("source %d: building the published cube, %s", run.source_id, variant.label)
        yield variant, run.cube(spectra, PaperSettings(**variant.build))
