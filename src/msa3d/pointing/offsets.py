"""Pointing offsets of the exposures, measured on the calibrated slits of all targets together.

Profiles along the slit are compared with the images that all exposures make (the mean offset is then zero), or with a
given image.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table

from msa3d.errors import ProductError
from msa3d.observation.source import calibrated_files, place_exposures
from msa3d.pipeline import products
from msa3d.pipeline.engine import Made, Record, Step, Task
from msa3d.pointing.fit import PRIOR_ARCSEC, Solution, solve
from msa3d.pointing.profiles import Band, Frame, read_profiles
from msa3d.pointing.reference import Reference, Seen, seen_bands, solve_against

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


log = logging.getLogger(__name__)

TABLE = "registration.ecsv"
"""Table under ``reduction/cubes``: a row an exposure."""


@dataclass(frozen=True, eq=False)
class Registration:
    """Measured offsets of all exposures.

    Attributes
    ----------
    activities : tuple of str
        The exposures.
    offsets : numpy.ndarray, shape (n, 2)
        East and north, arcsec: to be added to the positions by the headers (`SlitPixels.shifted`).
    errors : numpy.ndarray, shape (n, 2)
        Their formal errors.
    slit_offsets, slit_errors : numpy.ndarray, shape (n, 2)
        The same across and along the slit, in the axes of `frame`.
    frame : Frame
        Axes across and along the slit.
    prior_arcsec : float
        Expected rms of the offsets.
    scales : dict of str to float
        Scatter of the residuals over their errors, of each band.
    """

    activities: tuple[str, ...]
    offsets: np.ndarray
    errors: np.ndarray
    slit_offsets: np.ndarray
    slit_errors: np.ndarray
    frame: Frame
    prior_arcsec: float
    scales: dict[str, float]

    def offset_of(self, activity: str) -> tuple[float, float]:
        """East and north offset of an exposure, arcsec; zero for one that was not measured."""
        if activity not in self.activities:
            return 0.0, 0.0
        east, north = self.offsets[self.activities.index(activity)]
        return float(east), float(north)

    def table(self) -> Table:
        """Offsets with errors, a row an exposure, arcsec."""
        table = Table({"exposure": list(self.activities)})
        columns = (
            ("east", "north", self.offsets),
            ("east_error", "north_error", self.errors),
            ("across", "along", self.slit_offsets),
            ("across_error", "along_error", self.slit_errors),
        )
        for first, second, values in columns:
            for name, column in zip((first, second), values.T, strict=True):
                table[name] = column
                table[name].unit = "arcsec"
                table[name].format = ".5f"
        table.meta["slit_pa_deg"] = self.frame.pa_deg
        table.meta["prior_arcsec"] = self.prior_arcsec
        table.meta["scatter_over_error"] = {name: round(scale, 3) for name, scale in self.scales.items()}
        table.meta["comments"] = ["to be added to the positions by the headers; across: 90 deg east of along"]
        return table

    def write(self, path: Path) -> None:
        """Write the table, whole or not at all."""
        with products.atomic_path(path) as partial:
            self.table().write(partial, format="ascii.ecsv")

    @classmethod
    def read(cls, path: Path) -> Registration:
        """Read a table that `write` wrote.

        Raises
        ------
        ProductError
            If it is missing or another table.
        """
        try:
            table = Table.read(str(path), format="ascii.ecsv")
            pairs = [
                ("east", "north"),
                ("east_error", "north_error"),
                ("across", "along"),
                ("across_error", "along_error"),
            ]
            offsets, errors, slit_offsets, slit_errors = (
                np.stack([np.asarray(table[name], dtype=float) for name in pair], axis=1) for pair in pairs
            )
            frame, prior = Frame(table.meta["slit_pa_deg"]), table.meta["prior_arcsec"]
            scales = dict(table.meta["scatter_over_error"])
            names = tuple(map(str, table["exposure"]))
            return cls(names, offsets, errors, slit_offsets, slit_errors, frame, prior, scales)
        except (OSError, ValueError, KeyError) as error:
            raise ProductError(f"{path} is not a table of measured offsets ({error}); measure them again") from error


def register(
    activities: Sequence[str],
    files: Sequence[Sequence[Path]],
    sources: Mapping[int, float | None],
    reference: Path | None = None,
    prior_arcsec: float = PRIOR_ARCSEC,
) -> Registration:
    """Measure the offsets of all exposures of a run.

    Parameters
    ----------
    activities : sequence of str
        The exposures.
    files : sequence of sequence of pathlib.Path
        Post-processed calibrated files of each exposure.
    sources : mapping of int to float or None
        Source ids with their redshifts (None: continuum only). Bright and compact ones tell most.
    reference : pathlib.Path, optional
        A continuum image to compare the exposures with; by default they are compared with each other.
    prior_arcsec : float
        Expected rms of the offsets, a coordinate.

    Returns
    -------
    Registration

    Raises
    ------
    ProductError
        If no source shows enough structure in three exposures.
    """
    bands, frame, centres = read_profiles(files, sources)
    if not bands:
        raise ProductError(
            "no source has structure above the noise in three exposures or more: the pointing cannot be measured; "
            "set registration.method to none"
        )
    seen = None
    if reference is not None:
        seen = seen_bands(Reference.read(reference), bands, frame, centres)
    return registration_of(bands, frame, activities, seen, prior_arcsec)


def registration_of(
    bands: list[Band],
    frame: Frame,
    activities: Sequence[str],
    seen: list[Seen] | None = None,
    prior_arcsec: float = PRIOR_ARCSEC,
) -> Registration:
    """Measure the offsets from profiles.

    Parameters
    ----------
    bands : list of Band
        Profiles of all exposures.
    frame : Frame
        Their axes.
    activities : sequence of str
        The exposures, in the order of their numbers in the bands.
    seen : list of Seen, optional
        A given image, as the bands see it; by default the exposures are compared with each other.
    prior_arcsec : float
        Expected rms of the offsets, a coordinate.

    Returns
    -------
    Registration
    """
    n = len(activities)
    solution = solve(bands, n, prior_arcsec) if seen is None else solve_against(seen, n, prior_arcsec)
    offsets = np.stack(frame.to_sky(*solution.offsets.T), axis=1)
    across, along = np.median(solution.errors, axis=0) * 1e3
    log.info("registration: median formal errors %.1f mas across, %.1f mas along the slit", across, along)
    return Registration(
        tuple(activities),
        offsets,
        _sky_errors(solution, frame),
        solution.offsets,
        solution.errors,
        frame,
        solution.prior_arcsec,
        solution.scales,
    )


def _sky_errors(solution: Solution, frame: Frame) -> np.ndarray:
    """Formal errors east and north, from the covariance across and along."""
    turn = np.stack(frame.to_sky(*np.eye(2)), axis=0)
    n = len(solution.offsets)
    blocks = solution.covariance.reshape(n, 2, n, 2)[np.arange(n), :, np.arange(n), :]
    return np.sqrt(np.maximum(np.einsum("ij,njk,ik->ni", turn, blocks, turn), 0.0))


def table_path(layout: Layout) -> Path:
    """Where the table of measured offsets of a run lies."""
    return layout.reduction / "cubes" / TABLE


MODULES = ("msa3d.pointing.offsets",)


def tasks(dataset: Dataset, layout: Layout) -> list[Task]:
    """Make the only task of this step: the offsets of all exposures.

    Parameters
    ----------
    dataset : Dataset
        Targets with their redshifts, and ``cubebuild.drizzle.registration``.
    layout : Layout
        Where things lie.

    Returns
    -------
    list of Task

    Raises
    ------
    ProductError
        If there are no post-processed slits.
    """
    activities = [item.activity for item in place_exposures(dataset, layout)]
    files = [calibrated_files(layout, activity) for activity in activities]
    inputs = [path for paths in files for path in paths]
    if not inputs:
        raise ProductError(f"{layout.process}: no post-processed slits; run `msa3d process` and `msa3d postprocess`")
    settings = dataset.cubebuild.drizzle.registration
    sources = {target.source_id: target.redshift for target in dataset.targets}
    parameters = {"registration": settings.model_dump(mode="json", exclude={"method"}), "sources": sources}
    record = Record(layout, "register", "offsets", inputs=inputs, parameters=parameters, modules=MODULES)
    reference = None if settings.reference is None else layout.root / settings.reference
    return [Task("offsets", record, (table_path(layout), activities, files, sources, reference))]


def measure_offsets(job: tuple) -> Made:
    """Measure the offsets of all exposures (`register`) and write their table."""
    path, *arguments = job
    register(*arguments).write(path)
    return Made([path])


STEP = Step("register", tasks, measure_offsets)


def run(dataset: Dataset, layout: Layout) -> Registration:
    """Measure the offsets of all exposures unless their table is current, and read it."""
    STEP.run(dataset, layout, workers=1)
    return Registration.read(table_path(layout))
