"""Where each product of a run lies: one root, and the published directory tree under it.

Nothing here touches the disk but :meth:`Layout.rates` and :meth:`Layout.activities`, which list it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from msa3d._model import plain_name
from msa3d.errors import ObservationError

if TYPE_CHECKING:
    from msa3d.config import Dataset


#: What post-processing appends to the name of an s2d or cal file (the published name).
POST_SUFFIX = "_pathcorr_astrocorr"

#: Extension of post-processed calibrated files with the geometry of their slits, a row a slit.
GEOMETRY = "GEOMETRY"

#: Name of a count-rate file: programme, observation, visit, activity (base 36), exposure, detector.
RATE_NAME = re.compile(
    r"^jw(?P<programme>\d{5})(?P<observation>\d{3})(?P<visit>\d{3})"
    r"_(?P<activity>[0-9a-z]{5})_(?P<exposure>\d{5})_(?P<detector>nrs[12])_rate\.fits$"
)


def parse_rate_name(path: Path | str) -> dict[str, str] | None:
    """Split the name of a rate file into its parts.

    Parameters
    ----------
    path : path
        A file, or only its name.

    Returns
    -------
    dict or None
        ``programme``, ``observation``, ``visit``, ``activity``, ``exposure``, ``detector`` (lower case),
        or None where the name is not that of a NIRSpec rate file.
    """
    match = RATE_NAME.match(Path(path).name)
    return match.groupdict() if match else None


def exposure_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Name the exposure that each count-rate file belongs to.

    Parameters
    ----------
    paths : iterable of Path
        Files of one visit, named as `parse_rate_name` reads them.

    Returns
    -------
    dict of Path to str
        In observing order: the activity, or ``<activity>-<exposure number>`` where an activity has several exposures
        (as nods and dithers of one specification have).
    """
    parts = {path: part for path in paths if (part := parse_rate_name(path))}
    numbers: dict[str, set[str]] = {}
    for part in parts.values():
        numbers.setdefault(part["activity"], set()).add(part["exposure"])
    names = {
        path: part["activity"] if len(numbers[part["activity"]]) == 1 else f"{part['activity']}-{part['exposure']}"
        for path, part in parts.items()
    }
    return dict(sorted(names.items(), key=lambda item: (observing_order(item[1]), item[0].name)))


def observing_order(name: str) -> tuple[int, int]:
    """Key that sorts names of exposures: the activity, base 36, then the exposure number."""
    activity, _, number = name.partition("-")
    return int(activity, 36), int(number or 0)


@dataclass(frozen=True)
class Layout:
    """Paths of one run.

    Parameters
    ----------
    root : Path
        Directory that holds the rates and the metafile at its top, and everything made from them.

    Examples
    --------
    >>> layout = Layout("runs/demo")
    >>> layout.s2d("0311r", 8512).relative_to(layout.root).as_posix()
    'reduction/process/exp_0311r_nobar/newoutput_s08512_s2d.fits'
    """

    root: Path

    def __post_init__(self) -> None:
        """Accept a string, and make the root absolute so that worker processes agree on it."""
        object.__setattr__(self, "root", Path(self.root).expanduser().absolute())

    # --- what the run starts from

    def rates(self) -> list[Path]:
        """Count-rate files at the top of the root, sorted by name."""
        return sorted(path for path in self.root.glob("jw*_rate.fits") if path.is_file())

    def metafile(self, name: str) -> Path:
        """Path of the original MSA metafile, beside the rates; never written to.

        Parameters
        ----------
        name : str
            As MSAMETFL of the headers, or the dataset, says.

        Raises
        ------
        ObservationError
            Where it is not the plain name of a file, and so could lead out of the root.
        """
        try:
            return self.root / plain_name(name.strip())
        except ValueError as error:
            raise ObservationError(
                f"{self.root}: the name of the MSA metafile (MSAMETFL of the rates, or metafile of the dataset) is "
                f"{name[:80]!r}; {error}, as the metafile lies beside the rates."
            ) from error

    @property
    def crds_cache(self) -> Path:
        """CRDS cache of a simulated observation."""
        return self.root / "crds_cache"

    @property
    def truth(self) -> Path:
        """What a simulated observation was made from; no step may read it."""
        return self.root / "truth"

    # --- what the steps make

    @property
    def reduction(self) -> Path:
        """Everything that the steps write."""
        return self.root / "reduction"

    @property
    def records(self) -> Path:
        """JSON records that say what made each product."""
        return self.reduction / "records"

    def metafile_copy(self, name: str) -> Path:
        """Path of the edited copy of the metafile."""
        return self.reduction / "msa" / name

    @property
    def process(self) -> Path:
        """All exposures of step 1."""
        return self.reduction / "process"

    def process_dir(self, activity: str) -> Path:
        """Directory of one exposure, by its name (`exposure_names`)."""
        return self.process / f"exp_{activity}_nobar"

    def activities(self) -> list[str]:
        """Exposures that have a directory under ``process``, by name, in observing order."""
        found = [path.name[4:-6] for path in self.process.glob("exp_*_nobar") if path.is_dir()]
        return sorted(found, key=observing_order)

    def cal(self, activity: str, detector: str, stem: str, suffix: str = "") -> Path:
        """Path of the calibrated slits of one exposure and detector.

        Parameters
        ----------
        activity : str
            Name of the exposure (`exposure_names`).
        detector : str
            ``nrs1`` or ``nrs2``, in any case.
        stem : str
            What stands before the detector in the rate's name (``jw02136001001_0311n_00001``); the name
            of a whole rate file is accepted as well.
        suffix : str
            ``""`` or `POST_SUFFIX`.
        """
        head = re.sub(r"_nrs[12](_rate)?(\.fits)?$", "", Path(stem).name)
        return self.process_dir(activity) / f"{head}_{detector.lower()}_cal{suffix}.fits"

    def s2d(self, activity: str, source_id: int, suffix: str = "", product: str = "newoutput") -> Path:
        """Path of the rectified spectrum of one source in one exposure.

        Parameters
        ----------
        activity : str
            Name of the exposure (`exposure_names`).
        source_id : int
            As in the metafile copy.
        suffix : str
            ``""`` as Spec3 wrote it, `POST_SUFFIX` after post-processing.
        product : str
            Product name of the Spec3 association.
        """
        return self.process_dir(activity) / f"{product}_s{source_id:05d}_s2d{suffix}.fits"

    # --- cubes

    def cube_dir(self, source_id: int) -> Path:
        """Directory of the cubes of one source (id without zero padding, as published)."""
        return self.reduction / "cubes" / f"cube_{source_id}"

    def cube_medians(self, source_id: int) -> Path:
        """Cube of the paper's builder."""
        return self.cube_dir(source_id) / f"cube_medians_{source_id}.fits"

    def cube(self, source_id: int, dataset: Dataset) -> Path:
        """Cube of the drizzle builder.

        Parameters
        ----------
        source_id : int
            The source.
        dataset : Dataset
            Its programme, observation, filter and grating are in the name.
        """
        optics = f"{dataset.filter}-{dataset.grating}".lower()
        name = f"jw{dataset.programme}-o{dataset.observation}_s{source_id:05d}_nirspec_{optics}_s3d.fits"
        return self.cube_dir(source_id) / name

    def outliers(self, source_id: int) -> Path:
        """Pixels that the drizzle builder rejected: a map a file, and a table."""
        return self.cube_dir(source_id) / f"outliers_s{source_id:05d}.fits"

    def column_median(self, source_id: int, column: int) -> Path:
        """Median spectrum image of one column of the paper's builder."""
        return self.cube_dir(source_id) / f"median_lam{column}_s{source_id}_all.fits"

    def column_stack(self, source_id: int, column: int) -> Path:
        """Stack of the dithers of one column of the paper's builder."""
        return self.cube_dir(source_id) / f"spec_lam{column}_s{source_id}_all.fits"

    # --- what is shown

    @property
    def science(self) -> Path:
        """Maps, profiles and tables."""
        return self.reduction / "science"

    @property
    def figures(self) -> Path:
        """Figures."""
        return self.reduction / "figures"

    @property
    def notebooks(self) -> Path:
        """Executed notebooks."""
        return self.root / "notebooks"
