"""What a cube builder is given: one source, and where each of its exposures belongs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from astropy.io import fits

from msa3d.errors import ObservationError
from msa3d.observation.reading import rates_of, readable
from msa3d.pipeline.layout import GEOMETRY, POST_SUFFIX, Layout

if TYPE_CHECKING:
    from msa3d.config import Dataset


# What a cube keeps of the primary header of its first exposure.
_INHERITED = (
    *("TELESCOP", "INSTRUME", "FILTER", "GRATING", "EXP_TYPE", "PROGRAM", "OBSERVTN", "VISIT", "TARGPROP"),
    *("TARGNAME", "TITLE", "PI_NAME", "CATEGORY", "MSAMETFL", "MSAMETID", "READPATT", "NGROUPS", "NINTS"),
    *("EFFEXPTM", "DATE-OBS", "CAL_VER", "CAL_VCS", "CRDS_VER", "CRDS_CTX"),
)


#: What jwst calls slitlets that the metafile gives no source: background_12 in 1.14.0, 2136_BKG12 in 3.0.0.
INVENTED_NAME = re.compile(r"^background_|^\d+_BKG\d+$")


@dataclass(frozen=True)
class Placed:
    """An exposure in the dither pattern: its name, its row along the slit, its column, from 0."""

    activity: str
    row: int
    column: int


@dataclass(frozen=True)
class SourceTask:
    """One source to build a cube of.

    Attributes
    ----------
    layout : Layout
        Where the files lie.
    dataset : Dataset
        Pattern and parameters.
    source_id : int
        The source.
    exposures : tuple of Placed
        All exposures of the pattern in observing order, whether the source has a spectrum in them or not.
    """

    layout: Layout
    dataset: Dataset
    source_id: int
    exposures: tuple[Placed, ...]

    @property
    def name(self) -> str:
        """What errors and the progress bar call it."""
        return f"source {self.source_id}"

    def spectra(self) -> dict[tuple[int, int], Path]:
        """Post-processed spectra that are there: ``{(row, column): path}`` in observing order."""
        return {(item.row, item.column): path for item, path in self._paths() if path.is_file()}

    def missing(self) -> list[Path]:
        """Post-processed spectra that should be there and are not."""
        return [path for _, path in self._paths() if not path.is_file()]

    def calibrated(self) -> dict[str, list[Path]]:
        """Post-processed calibrated slits that are there: ``{activity: paths}`` in observing order."""
        return {item.activity: calibrated_files(self.layout, item.activity) for item in self.exposures}

    def _paths(self) -> list[tuple[Placed, Path]]:
        product = self.dataset.process.product
        return [(item, self.layout.s2d(item.activity, self.source_id, POST_SUFFIX, product)) for item in self.exposures]


def is_background(header: fits.Header) -> bool:
    """Whether a slit (header of its SCI) has no source: its id is not positive, or jwst invented one for lack of it."""
    return int(header["SOURCEID"]) <= 0 or INVENTED_NAME.search(str(header.get("SRCNAME", ""))) is not None


def place_exposures(dataset: Dataset, layout: Layout) -> tuple[Placed, ...]:
    """Put the exposures of a run into the dither pattern.

    The rates at the top of the root say which exposures there are; a run without rates (only 2-D spectra, as
    the published entry point allows) is known by its directories ``exp_<activity>_nobar``.

    Parameters
    ----------
    dataset : Dataset
        Gives the pattern.
    layout : Layout
        Where things lie.

    Returns
    -------
    tuple of Placed
        In observing order.

    Raises
    ------
    msa3d.errors.ObservationError
        If their number is not that of the pattern.
    """
    activities = list(dict.fromkeys(rates_of(dataset, layout).values())) or layout.activities()
    pattern = dataset.pattern
    if len(activities) != pattern.n_exposures:
        raise ObservationError(
            f"{layout.root}: {len(activities)} exposures, but the pattern of dataset {dataset.name} has "
            f"{pattern.rows} x {pattern.columns} = {pattern.n_exposures}; add what is missing or correct "
            "pattern.rows and pattern.columns"
        )
    return tuple(Placed(activity, *pattern.place(index)) for index, activity in enumerate(activities))


def cube_path(layout: Layout, dataset: Dataset, source_id: int) -> Path:
    """Path of the cube that the science is done on: that of the builder which the dataset names first."""
    if dataset.cubebuild.builder == "paper":
        return layout.cube_medians(source_id)
    return layout.cube(source_id, dataset)


def calibrated_files(layout: Layout, activity: str) -> list[Path]:
    """List the post-processed calibrated slits of an exposure that are there, a file a detector, NRS1 first."""
    return sorted(layout.process_dir(activity).glob(f"jw*_cal{POST_SUFFIX}.fits"))


def sources_calibrated(dataset: Dataset, layout: Layout, exposures: tuple[Placed, ...]) -> dict[int, list[Placed]]:
    """Find the sources that have post-processed calibrated slits, and in which exposures.

    Parameters
    ----------
    dataset : Dataset
        Gives ``postprocess.min_source_id``: only greater ids are taken.
    layout : Layout
        Where things lie.
    exposures : tuple of Placed
        The exposures to look into.

    Returns
    -------
    dict of int to list of Placed
        By source id, sorted.

    Raises
    ------
    msa3d.errors.ProductError
        If a file is not whole.
    """
    found: dict[int, list[Placed]] = {}
    for exposure in exposures:
        seen = set()
        for path in calibrated_files(layout, exposure.activity):
            with readable(path), fits.open(path) as hdus:
                # A slit that lights hardly any column of the detector has no geometry, and no pixels.
                known = set(hdus[GEOMETRY].data["extver"]) if GEOMETRY in hdus else None
                slits = (hdu for hdu in hdus if hdu.name == "SCI" and (known is None or hdu.ver in known))
                seen |= {int(hdu.header["SOURCEID"]) for hdu in slits if not is_background(hdu.header)}
        for source_id in seen:
            if source_id > dataset.postprocess.min_source_id:
                found.setdefault(source_id, []).append(exposure)
    return dict(sorted(found.items()))


def sources_of(
    dataset: Dataset, layout: Layout, exposures: tuple[Placed, ...], suffix: str = ""
) -> dict[int, list[Placed]]:
    """Find the sources that have a 2-D spectrum, and in which exposures.

    Parameters
    ----------
    dataset : Dataset
        Gives ``postprocess.min_source_id``: only greater ids are taken, as published.
    layout : Layout
        Where things lie.
    exposures : tuple of Placed
        The exposures to look into.
    suffix : str
        ``""`` for what Spec3 wrote, `msa3d.pipeline.layout.POST_SUFFIX` for what post-processing made of it.

    Returns
    -------
    dict of int to list of Placed
        By source id, sorted.
    """
    name = re.compile(rf"{re.escape(dataset.process.product)}_s(\d+)_s2d{re.escape(suffix)}\.fits")
    found: dict[int, list[Placed]] = {}
    for exposure in exposures:
        for path in sorted(layout.process_dir(exposure.activity).glob("*.fits")):
            match = name.fullmatch(path.name)
            if match and int(match[1]) > dataset.postprocess.min_source_id:
                found.setdefault(int(match[1]), []).append(exposure)
    return dict(sorted(found.items()))


def inherited_header(primary: fits.Header, source_id: int) -> fits.Header:
    """Primary header of a cube: what all exposures share, from that of the first one.

    Parameters
    ----------
    primary : astropy.io.fits.Header
        Primary header of the source's first exposure.
    source_id : int
        Written as SOURCEID.
    """
    header = fits.Header()
    for keyword in _INHERITED:
        if keyword in primary:
            header.append(primary.cards[keyword])
    header["SOURCEID"] = (source_id, "source in the MSA metafile")
    header["DATAMODL"] = ("IFUCubeModel", "axes of the array: wave, y, x")
    return header
