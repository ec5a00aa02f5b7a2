"""The observation as it lies on disk: exposures, dither pattern, sources; checked before anything long starts.

Everything comes from file names, headers and the metafile; only what those cannot tell comes from the dataset.
"""

from __future__ import annotations

import logging
import math
import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msa3d.errors import MetafileError, ObservationError
from msa3d.observation.metafile import MsaFile
from msa3d.observation.pattern import off_grid
from msa3d.observation.reading import SPECTRA, Rate, kind_of, leave_out_others, listed
from msa3d.pipeline.layout import exposure_names, parse_rate_name
from msa3d.pipeline.products import is_simulated

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


logger = logging.getLogger(__name__)

#: What steps 1 to 3 write, GB a slitlet and exposure (both detectors): 399 MB for 40 slitlets were measured in
#: step 1, a quarter more comes with steps 2 and 3.
GB_EACH = 0.0125

#: Kinds of problems of the pointing, for ``ignore_problems``.
_PLANNED, _OFF_PATTERN = "planned pointing", "pointing off the pattern"

#: Largest distance of a pointing from the pattern: a quarter of a shutter. Guiding is ten times better.
_POINTING_TOLERANCE_ARCSEC = 0.05

#: Largest difference in roll, degrees: it moves a slitlet 100 arcsec from the reference point by as much.
_ROLL_TOLERANCE_DEG = 0.03

#: Keywords of the SCI header in which all files agree, as they look through the same aperture, and by how much they
#: may differ (arcsec, degrees).
SAME_IN_ALL = {"V2_REF": 0.01, "V3_REF": 0.01, "VPARITY": 0, "V3I_YANG": 0.001}

#: Keywords in which both detectors of an exposure agree, and by how much they may differ (start: 10 s). MSAMETFL and
#: the tilt of the grating are compared between all files.
SAME_IN_BOTH = {"EXPSTART": 10.0 / 86400, "EFFEXPTM": 1.0, "PATT_NUM": 0, "MSAMETID": 0}

_MAX_TOLD = 5


@dataclass(frozen=True)
class Exposure:
    """One exposure: both detectors at one place of the pattern.

    Parameters
    ----------
    activity : str
        Its name: the activity (five characters, base 36), and the exposure number where an activity has several.
    index : int
        Place in observing order, from 0.
    patt_num : int
        PATT_NUM: the dither point of the metafile.
    row, column : int
        Place in the pattern, from 0 (`msa3d.config.Pattern.place`).
    rates : dict
        ``{"NRS1": path, "NRS2": path}``.
    ra, dec, roll : float
        Pointing of the reference point (RA_REF, DEC_REF, ROLL_REF), degrees.
    start : float
        EXPSTART, MJD (UTC).
    seconds : float
        EFFEXPTM, s; NaN where the header has none.
    msa_metadata_id : int
        MSAMETID: the configuration of the metafile.
    """

    activity: str
    index: int
    patt_num: int
    row: int
    column: int
    rates: dict[str, Path]
    ra: float
    dec: float
    roll: float
    start: float
    seconds: float
    msa_metadata_id: int

    @property
    def name(self) -> str:
        """The activity, as tasks are called in errors."""
        return self.activity


@dataclass(frozen=True)
class Observation:
    """An observation on disk.

    Parameters
    ----------
    layout : Layout
        Where.
    dataset : Dataset
        What it should be.
    rates : tuple of Rate
        Headers of the rate files, in observing order.
    metafile : Path
        The MSA metafile, which `check` makes sure exists.
    """

    layout: Layout
    dataset: Dataset
    rates: tuple[Rate, ...] = field(repr=False)
    metafile: Path

    @classmethod
    def read(cls, layout: Layout, dataset: Dataset, *, metafile: Path | None = None) -> Observation:
        """Read the headers of all rates of the dataset's visit.

        Parameters
        ----------
        layout : Layout
            Where the rates are.
        dataset : Dataset
            Which observation it is; files of other visits are left out, and said so in the log.
        metafile : Path, optional
            The metafile, by default that of the dataset or of MSAMETFL, beside the rates.

        Raises
        ------
        ObservationError
            Where there are no rates, or one is truncated or lacks a keyword.
        """
        paths, others = [], []
        for path in layout.rates():
            (paths if path.name.startswith(dataset.file_root) and parse_rate_name(path) else others).append(path)
        if others:
            logger.warning("left out, not of visit %s: %s", dataset.file_root, listed(others))
        if not paths:
            raise ObservationError(
                f"There are no count-rate files {dataset.file_root}_*_nrs?_rate.fits in {layout.root}; "
                + ("`msa3d simulate` makes them." if dataset.simulated else "download them from MAST.")
            )
        spectra = leave_out_others(paths)
        if not spectra:
            raise ObservationError(
                f"No count-rate file in {layout.root} has EXP_TYPE {SPECTRA}; they have "
                f"{', '.join(sorted({kind_of(path) for path in paths}))}."
            )
        rates = [Rate.read(path) for path in exposure_names(spectra)]
        if metafile is None:
            metafile = layout.metafile(dataset.metafile or str(rates[0].primary["MSAMETFL"]))
        return cls(layout, dataset, tuple(rates), Path(metafile))

    @cached_property
    def exposures(self) -> list[Exposure]:
        """Exposures in observing order: that of the base-36 activities, then of the exposure numbers.

        Those beyond the pattern have row and column -1; `check` does not let them pass.
        """
        by_name: dict[str, list[Rate]] = {}
        names = exposure_names(rate.path for rate in self.rates)
        for rate in self.rates:
            by_name.setdefault(names[rate.path], []).append(rate)
        pattern, found = self.dataset.pattern, []
        for index, (activity, rates) in enumerate(by_name.items()):
            primary, sci = rates[0].primary, rates[0].sci
            row, column = pattern.place(index) if index < pattern.n_exposures else (-1, -1)
            found.append(
                Exposure(
                    activity,
                    index,
                    int(primary["PATT_NUM"]),
                    row,
                    column,
                    {rate.detector: rate.path for rate in rates},
                    float(sci["RA_REF"]),
                    float(sci["DEC_REF"]),
                    float(sci["ROLL_REF"]),
                    float(primary["EXPSTART"]),
                    float(primary.get("EFFEXPTM", math.nan)),
                    int(primary["MSAMETID"]),
                )
            )
        return found

    @property
    def source_ids(self) -> list[int]:
        """Ids of the dataset's targets."""
        return self.dataset.source_ids

    @property
    def simulated(self) -> bool:
        """Whether any of its files is simulated."""
        return any(is_simulated(rate.primary) for rate in self.rates)

    @property
    def middle(self) -> Exposure:
        """The middle exposure, index ``ceil(N / 2) - 1``."""
        return self.exposures[math.ceil(len(self.exposures) / 2) - 1]

    def at(self, row: int, column: int) -> Exposure:
        """Return the exposure at a place of the pattern, both from 0."""
        return self.exposures[self.dataset.pattern.index(row, column)]

    # --- checks

    def problems(self) -> list[str]:
        """Everything that speaks against a reduction, one sentence each; empty where nothing does."""
        checks: tuple[Callable[[], Iterator[str]], ...] = (
            self._detectors,
            self._number_of_exposures,
            self._same_setup,
            self._tilts,
            self._same_place_in_the_telescope,
            self._pointings,
            self._detectors_agree,
            self._names,
            self._simulated_or_not,
            self._metafile,
            self._disk,
        )
        return [sentence for check in checks for sentence in check()]

    def check(self) -> None:
        """Make sure that the observation is what the dataset describes; nothing is written.

        Raises
        ------
        ObservationError
            With one sentence for each problem, a line each.
        """
        found = self.problems()
        if found:
            more = [f"And {len(found) - _MAX_TOLD} more problems."] if len(found) > _MAX_TOLD else []
            raise ObservationError("\n".join(found[:_MAX_TOLD] + more))

    def _detectors(self) -> Iterator[str]:
        for exposure in self.exposures:
            for detector in self.dataset.detectors:
                if detector not in exposure.rates:
                    have = next(iter(exposure.rates.values()))
                    name = have.name.replace(f"_{_detector(have)}_", f"_{detector.lower()}_")
                    yield (
                        f"Exposure {exposure.activity} has no {detector}: {name} is missing in {self.layout.root}; "
                        "put it beside the others."
                    )

    def _number_of_exposures(self) -> Iterator[str]:
        pattern, have = self.dataset.pattern, len(self.exposures)
        if have != pattern.n_exposures:
            yield (
                f"{self.layout.root} has {have} exposures, but the pattern of dataset {self.dataset.name} has "
                f"{pattern.rows} x {pattern.columns} = {pattern.n_exposures}"
                + self._missing_points()
                + "; complete the files, or set pattern.rows and pattern.columns."
            )
        starts = [exposure.start for exposure in self.exposures]
        if starts != sorted(starts):
            first = next(i for i in range(1, have) if starts[i] < starts[i - 1])
            yield (
                f"Exposure {self.exposures[first].activity} starts (EXPSTART) before exposure "
                f"{self.exposures[first - 1].activity}: activities are not in observing order."
            )

    def _missing_points(self) -> str:
        numbers = {exposure.patt_num for exposure in self.exposures}
        missing = sorted(set(range(1, self.dataset.pattern.n_exposures + 1)) - numbers)
        if not missing or len(numbers) != len(self.exposures):
            return ""
        return f" (no PATT_NUM {', '.join(map(str, missing[:9]))}{', ...' if len(missing) > 9 else ''})"

    def _same_setup(self) -> Iterator[str]:
        wanted = {
            "INSTRUME": "NIRSPEC",
            "FILTER": self.dataset.filter,
            "GRATING": self.dataset.grating,
        }
        for keyword, value in wanted.items():
            wrong = [rate for rate in self.rates if str(rate.primary[keyword]).strip() != value]
            if wrong:
                found = sorted({str(rate.primary[keyword]).strip() for rate in wrong})
                rest = len(self.rates) - len(wrong)
                others = f"the other {rest} and in " if rest else ""
                yield (
                    f"{keyword} is {' or '.join(found)} in {listed([rate.path for rate in wrong])}, but {value} in "
                    f"{others}dataset {self.dataset.name}: only exposures of one set-up can be combined."
                )
        for rate in self.rates:
            if str(rate.primary["DETECTOR"]).strip() != rate.detector:
                yield f"{rate.path} says DETECTOR {rate.primary['DETECTOR']}, which its name contradicts."

    def _tilts(self) -> Iterator[str]:
        for keyword in ("GWA_XTIL", "GWA_YTIL"):
            values = {rate.path: rate.primary.get(keyword) for rate in self.rates}
            missing = [path for path, value in values.items() if value is None]
            if len(missing) == len(values):
                continue
            if missing:
                yield f"{keyword} is missing in {listed(missing)}, and present in the others."
                continue
            low, high = min(values, key=values.get), max(values, key=values.get)
            if values[high] - values[low] > self.dataset.gwa_tilt_tolerance:
                yield (
                    f"{keyword}, the tilt of the grating wheel, differs: {values[low]} in {low.name}, {values[high]} "
                    f"in {high.name}; at most {self.dataset.gwa_tilt_tolerance:g} (gwa_tilt_tolerance) is allowed."
                )

    def _same_place_in_the_telescope(self) -> Iterator[str]:
        for keyword, most in SAME_IN_ALL.items():
            values = [rate.sci.get(keyword) for rate in self.rates]
            known = [value for value in values if value is not None]
            usual = statistics.median(known) if known else None
            for rate, value in zip(self.rates, values, strict=True):
                if (value is None) != (usual is None) or (value is not None and abs(value - usual) > most):
                    yield (
                        f"{keyword} is {value} in {rate.path.name}, but {usual} in others: all look through the same "
                        "aperture; get the file again from the archive."
                    )

    def _pointings(self) -> Iterator[str]:
        """Compare the pointings of the headers with each other and with the pattern."""
        ignored = self.dataset.ignore_problems
        cure = "get them again from the archive, or correct RA_REF, DEC_REF and ROLL_REF in copies"
        planned = [rate.path for rate in self.rates if str(rate.primary.get("ENGQLPTG", "")).strip() == "PLANNED"]
        if planned and _PLANNED not in ignored:
            yield (
                f"ENGQLPTG is PLANNED in {listed(planned)}: their pointing was not measured, and the dither is "
                f"missing; {cure}, or put '{_PLANNED}' under ignore_problems in the dataset."
            )
        if _OFF_PATTERN in ignored or not self.exposures:
            return
        cure = f"{cure}, or put '{_OFF_PATTERN}' under ignore_problems in the dataset."
        # The median of differences from one of them: rolls may lie on both sides of 0 degrees.
        turns = [_turn(exposure.roll, self.exposures[0].roll) for exposure in self.exposures]
        for exposure, turn in zip(self.exposures, turns, strict=True):
            name = next(iter(exposure.rates.values())).name
            turned = abs(turn - float(np.median(turns)))
            if turned > _ROLL_TOLERANCE_DEG:
                yield (
                    f"ROLL_REF of {name} is {exposure.roll:.4f}, {turned:.3f} degrees from the median of all exposures "
                    f"(at most {_ROLL_TOLERANCE_DEG:g}); {cure}"
                )
        if len(self.exposures) != self.dataset.pattern.n_exposures:
            return
        ra, dec, row, column = zip(*((e.ra, e.dec, e.row, e.column) for e in self.exposures), strict=True)
        distance = off_grid(ra, dec, row, column)
        for exposure, off in zip(self.exposures, distance, strict=True):
            if off > _POINTING_TOLERANCE_ARCSEC:
                yield (
                    f"RA_REF and DEC_REF of {next(iter(exposure.rates.values())).name} are {off:.2f} arcsec off the "
                    f"{self.dataset.pattern.rows} x {self.dataset.pattern.columns} pattern of the other exposures (at "
                    f"most {_POINTING_TOLERANCE_ARCSEC:g}); {cure}"
                )
        if len(ra) > 1 and 3600.0 * max(np.ptp(ra), np.ptp(dec)) < 1e-3:
            yield f"All {len(ra)} exposures have the same RA_REF and DEC_REF: the pattern is missing; {cure}"

    def _detectors_agree(self) -> Iterator[str]:
        """Compare both detectors of each exposure: `Exposure` has what the first one says."""
        headers = {rate.path: rate for rate in self.rates}
        cure = "get both again from the archive, or correct the wrong one in a copy"
        for exposure in self.exposures:
            first, *others = exposure.rates.values()
            mine = headers[first]
            for other in (headers[path] for path in others):
                both = f"of {first.name} and {other.path.name}"
                for keyword, most in SAME_IN_BOTH.items():
                    one, two = mine.primary.get(keyword), other.primary.get(keyword)
                    if (one is None) != (two is None) or (one is not None and abs(one - two) > most):
                        yield f"{keyword} {both} differs ({one}, {two}), though they are one exposure; {cure}."
                if _OFF_PATTERN not in self.dataset.ignore_problems:
                    yield from self._point_alike(exposure, other, both, cure)

    def _point_alike(self, exposure: Exposure, other: Rate, both: str, cure: str) -> Iterator[str]:
        cure = f"{cure}, or put '{_OFF_PATTERN}' under ignore_problems in the dataset."
        north = float(other.sci["DEC_REF"]) - exposure.dec
        east = _turn(float(other.sci["RA_REF"]), exposure.ra) * math.cos(math.radians(exposure.dec))
        apart, turned = 3600.0 * math.hypot(east, north), abs(_turn(float(other.sci["ROLL_REF"]), exposure.roll))
        if apart > _POINTING_TOLERANCE_ARCSEC:
            yield (
                f"RA_REF and DEC_REF {both} differ by {apart:.2f} arcsec (at most {_POINTING_TOLERANCE_ARCSEC:g}), "
                f"though they are one exposure; {cure}"
            )
        if turned > _ROLL_TOLERANCE_DEG:
            yield (
                f"ROLL_REF {both} differs by {turned:.3f} degrees (at most {_ROLL_TOLERANCE_DEG:g}), though they are "
                f"one exposure; {cure}"
            )

    def _names(self) -> Iterator[str]:
        """Compare FILENAME with the name: another exposure's file under the right name must not pass."""
        for rate in self.rates:
            said = str(rate.primary.get("FILENAME", "")).strip()
            # Who works on a rate keeps the first parts of its name.
            if said and parse_rate_name(said) and said != rate.path.name:
                yield f"{rate.path} says FILENAME {said}, which its name contradicts: give it its own name again."

    def _simulated_or_not(self) -> Iterator[str]:
        real = [rate.path for rate in self.rates if not is_simulated(rate.primary)]
        if real and len(real) < len(self.rates):
            yield f"Simulated and real files lie together in {self.layout.root}: {listed(real)} are real."
        elif real and self.dataset.simulated:
            yield (
                f"Dataset {self.dataset.name} is simulated, but {listed(real)} in {self.layout.root} are not: "
                "name the dataset that describes them (go2136)."
            )

    # --- the metafile

    def _metafile(self) -> Iterator[str]:
        named: dict[str, list[Path]] = {}
        for rate in self.rates:
            named.setdefault(str(rate.primary["MSAMETFL"]).strip(), []).append(rate.path)
        if len(named) > 1:
            places = "; ".join(f"{name} in {listed(paths)}" for name, paths in sorted(named.items()))
            yield f"MSAMETFL differs between exposures: {places}."
            return
        if not self.metafile.is_file():
            yield (
                f"The MSA metafile {self.metafile} is missing (MSAMETFL of the rates says {next(iter(named))}); put "
                "it beside the rates."
            )
            return
        try:
            metafile = MsaFile.read(self.metafile)
        except MetafileError as error:
            yield str(error)
            return
        yield from self._contents(metafile)

    def _contents(self, metafile: MsaFile) -> Iterator[str]:
        known = set(metafile.dither_points)
        for exposure in self.exposures:
            if (exposure.msa_metadata_id, exposure.patt_num) not in known:
                yield (
                    f"Exposure {exposure.activity} has PATT_NUM {exposure.patt_num} and MSAMETID "
                    f"{exposure.msa_metadata_id}, for which {self.metafile} has no rows."
                )
        told = set()
        for problem in metafile.check():
            if problem.level == "error" and problem.kind not in self.dataset.ignore_problems:
                told.add(problem.source_id)
                yield (
                    f"{self.metafile}: {problem.message}; correct a copy of it, or put '{problem.kind}' under "
                    "ignore_problems in the dataset."
                )
            else:
                logger.info("%s: %s", self.metafile.name, problem.message)
        for source_id in sorted(set(self.dataset.source_ids) - set(metafile.source_ids) - told):
            yield (
                f"Source {source_id} of dataset {self.dataset.name} has no slitlet in {self.metafile}; take it out of "
                "targets, or use the metafile that belongs to the rates."
            )

    def _disk(self) -> Iterator[str]:
        """Compare free space with what the steps will write beyond what is there."""
        if not self.metafile.is_file():
            return
        try:
            slitlets = len(MsaFile.read(self.metafile).slitlets())
        except MetafileError:
            return
        need = GB_EACH * slitlets * len(self.exposures)
        have = sum(path.stat().st_size for path in self.layout.reduction.rglob("*") if path.is_file()) / 1e9
        free = shutil.disk_usage(self.layout.root).free / 1e9
        if need - have > free:
            yield (
                f"{self.layout.root} has {free:.1f} GB free, but {slitlets} slitlets in {len(self.exposures)} "
                f"exposures need about {need - have:.1f} GB more; make room, or choose another root."
            )


def _detector(path: Path) -> str:
    return parse_rate_name(path)["detector"]


def _turn(angle: float, reference: float) -> float:
    """Difference of two angles, degrees, between -180 and 180."""
    return (angle - reference + 180.0) % 360.0 - 180.0
