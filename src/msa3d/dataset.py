"""One typed, validated description of an observation and of every parameter of its reduction.

A dataset is a YAML file, packaged (`available`) or a user's own, that may say ``extends: demo`` and then states
only what differs: mappings are merged key by key, lists replace lists. Unknown keys are errors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from msa3d._model import Model, NotNegative, OneLine, PlainName, SourceId, nearest
from msa3d._yaml import read_yaml
from msa3d.errors import DatasetError
from msa3d.pattern import Pattern
from msa3d.settings import (
    CosmicRays,
    CubeSettings,
    Pathloss,
    PostprocessSettings,
    ProcessSettings,
    SimulatedSource,
    Simulation,
    Target,
)
from msa3d.settings_cube import DrizzleSettings, OutlierSettings
from msa3d.settings_drizzle import CalpostSettings, RegistrationSettings
from msa3d.settings_jwst import SPEC2_STEPS, SPEC3_STEPS

__all__ = [
    "SPEC2_STEPS",
    "SPEC3_STEPS",
    "CalpostSettings",
    "CosmicRays",
    "CubeSettings",
    "Dataset",
    "DrizzleSettings",
    "OutlierSettings",
    "Pathloss",
    "Pattern",
    "PostprocessSettings",
    "ProcessSettings",
    "RegistrationSettings",
    "SimulatedSource",
    "Simulation",
    "Target",
    "available",
]


FILTERS = {
    "G140M": ("F070LP", "F100LP"),
    "G140H": ("F070LP", "F100LP"),
    "G235M": ("F170LP",),
    "G235H": ("F170LP",),
    "G395M": ("F290LP",),
    "G395H": ("F290LP",),
    "PRISM": ("CLEAR",),
}
"""Filters that a disperser is used with (JDox, NIRSpec dispersers and filters)."""

_MOST_TOLD = 10


class Dataset(Model):
    """An observation and all parameters of its reduction.

    Parameters
    ----------
    name, title : str
        Short name (of files and folders) and title.
    simulated : bool
        Whether its files are simulated; then `simulation` says how.
    programme, observation, visit : str
        5, 3 and 3 digits, as in file names.
    filter, grating : str
        As in the headers; a pair of `FILTERS`.
    detectors : list of str
        Which detectors every exposure must have.
    metafile : str, optional
        Name of the MSA metafile beside the rates. None: as the headers (MSAMETFL) say.
    crds_context : str, optional
        CRDS context to use for real data where the environment variable CRDS_CONTEXT is not set.
    gwa_tilt_tolerance : float
        Greatest difference of GWA_XTIL and GWA_YTIL between exposures, in the unit of the keywords. jwst corrects
        for the tilt; the default moves a G140H spectrum by 0.05 pixel (by jwst's own WCS).
    ignore_problems : list of str
        Kinds of problems of the metafile (see `msa3d.msafile.MsaFile.check`) and of the pointing
        (`msa3d.observation`) that are only told, not errors.
    source : list of str
        Where the figures in it come from.
    pattern, targets, process, postprocess, calpost, cubebuild, simulation
        See the models of these names.
    case_study : int
        Source id of the galaxy that the figures show.
    """

    name: PlainName
    title: OneLine = ""
    simulated: bool
    programme: str = Field("02136", pattern=r"^\d{5}$")
    observation: str = Field("001", pattern=r"^\d{3}$")
    visit: str = Field("001", pattern=r"^\d{3}$")
    filter: str = "F100LP"
    grating: str = "G140H"
    detectors: list[Literal["NRS1", "NRS2"]] = Field(["NRS1", "NRS2"], min_length=1)
    metafile: PlainName | None = None
    crds_context: PlainName | None = None
    gwa_tilt_tolerance: NotNegative = 2e-4
    ignore_problems: list[OneLine] = Field([])
    source: list[str] = Field([])
    pattern: Pattern = Pattern()
    targets: list[Target] = Field(min_length=1)
    case_study: SourceId = 8512
    process: ProcessSettings = ProcessSettings()
    postprocess: PostprocessSettings = PostprocessSettings()
    calpost: CalpostSettings = CalpostSettings()
    cubebuild: CubeSettings = CubeSettings()
    simulation: Simulation | None = None

    @model_validator(mode="after")
    def _hangs_together(self) -> Dataset:
        if self.grating not in FILTERS:
            hint = nearest(self.grating, FILTERS) or f"; dispersers are {', '.join(FILTERS)}"
            raise ValueError(f"grating: there is no {self.grating!r}{hint}")
        if self.filter not in FILTERS[self.grating]:
            known = " or ".join(FILTERS[self.grating])
            raise ValueError(f"filter: {self.filter!r} does not go with {self.grating}, which needs {known}")
        ids = [target.source_id for target in self.targets]
        if len(set(ids)) != len(ids):
            twice = sorted({i for i in ids if ids.count(i) > 1})
            raise ValueError(f"targets: source_id {twice} is given more than once")
        if self.case_study not in ids:
            raise ValueError(f"case_study {self.case_study} is not among the targets {ids}")
        if self.simulated != (self.simulation is not None):
            raise ValueError("simulation must be given for a simulated dataset, and only for one")
        if self.simulation and self.simulation.scene == "galaxies":
            missing = sorted(set(ids) - {source.source_id for source in self.simulation.sources})
            if missing:
                raise ValueError(f"targets {missing} are not among simulation.sources")
        if "paper" in self.cubebuild.builders and not self.process.rectify:
            raise ValueError(
                "process.rectify is false, but the published builder needs rectified spectra; "
                "set process.rectify to true, or leave paper out of cubebuild.builder and cubebuild.also"
            )
        if self.simulated and not self.metafile:
            raise ValueError("metafile must be named for a simulated dataset")
        return self

    @classmethod
    def load(cls, name_or_path: str | Path) -> Dataset:
        """Load a packaged dataset or a YAML file.

        Parameters
        ----------
        name_or_path : str or Path
            One of `available`, or the path of a YAML file (anything with a suffix or a separator).

        Raises
        ------
        DatasetError
            Where the file is missing, is not YAML, or has an unknown key or a bad value; the sentence
            names file, key and the nearest valid key.
        """
        path = _find(name_or_path, Path())
        return cls.from_mapping(_read(path, ()), str(path))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], origin: str = "dataset") -> Dataset:
        """Validate a mapping, with `DatasetError` in place of pydantic's own error."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            found = [_explain(cls, item) for item in error.errors()]
            more = f"; and {len(found) - _MOST_TOLD} more problems" if len(found) > _MOST_TOLD else ""
            raise DatasetError(f"{origin}: {'; '.join(found[:_MOST_TOLD])}{more}.") from error

    def replaced(self, **changes: Any) -> Dataset:
        """A copy with some values changed and checked again; nested mappings are merged.

        >>> Dataset.load("tiny").replaced(simulation={"noise": False})  # doctest: +SKIP
        """
        return self.from_mapping(_merge(self.model_dump(mode="json"), changes), self.name)

    @property
    def digest(self) -> str:
        """SHA-256 of the whole description, as canonical JSON (64 hexadecimal digits)."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def source_ids(self) -> list[int]:
        """Ids of the targets, in the order given."""
        return [target.source_id for target in self.targets]

    def target(self, source_id: int) -> Target:
        """The target of an id.

        Raises
        ------
        DatasetError
            Where there is none.
        """
        for target in self.targets:
            if target.source_id == source_id:
                return target
        raise DatasetError(f"dataset {self.name} has no target {source_id}; it has {self.source_ids}.")

    @property
    def file_root(self) -> str:
        """What all file names begin with: ``jw<programme><observation><visit>``."""
        return f"jw{self.programme}{self.observation}{self.visit}"

    def rate_name(self, activity: str, detector: str, exposure: int = 1) -> str:
        """Name of the rate file of an activity and a detector."""
        return f"{self.file_root}_{activity}_{exposure:05d}_{detector.lower()}_rate.fits"


def available() -> list[str]:
    """Names of the packaged datasets, the default first."""
    found = {item.name[:-5] for item in _packaged().iterdir() if item.name.endswith(".yaml")} - {"base", "template"}
    return sorted(found, key=lambda name: (name != "demo", name))


# --- reading


def _packaged() -> Path:
    return Path(str(resources.files("msa3d"))) / "datasets"


def _find(name_or_path: str | Path, beside: Path) -> Path:
    text = str(name_or_path)
    path = beside / Path(text).expanduser()
    if "/" in text or path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return path
        raise DatasetError(f"There is no dataset file {path}.")
    path = _packaged() / f"{text}.yaml"
    if path.is_file():
        return path
    raise DatasetError(
        f"There is no dataset {text!r}{nearest(text, available())}; packaged are {', '.join(available())}, "
        "or give the path of a YAML file."
    )


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise DatasetError(f"{path} extends itself, by way of {', '.join(str(p) for p in seen)}.")
    values = read_yaml(path)
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise DatasetError(f"{path} does not hold a mapping of keys to values.")
    if "extends" in values:
        extended = values.pop("extends")
        if not isinstance(extended, str) or Path(extended).name != extended:
            raise DatasetError(
                f"{path}: extends names a packaged dataset or a file in the same directory, not {str(extended)[:80]!r}."
            )
        base = _find(extended, path.parent)
        values = _merge(_read(base, (*seen, path)), values)
    return values


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


# --- error sentences


def _explain(model: type[BaseModel], item: Mapping[str, Any]) -> str:
    """One phrase for one pydantic error."""
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        owner = _owner(model, item["loc"][:-1])
        known = ["extends", *owner.model_fields] if owner is model else list(owner.model_fields)
        hint = nearest(item["loc"][-1], known) or f"; valid keys are {', '.join(known)}"
        return f"unknown key {place!r}{hint}"
    message = item["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if item["type"] == "string_type":
        message += " (put it between quotes)"
    given = item.get("input")
    given = given[:80] if isinstance(given, str) else given
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    return f"{place}: {message}{shown}" if place else message


def _owner(model: type[BaseModel], location: tuple) -> type[BaseModel]:
    """The model that a place in the tree belongs to."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            candidates = [annotation, *get_args(annotation)]
            for kind in candidates:
                if isinstance(kind, type) and issubclass(kind, BaseModel):
                    model = kind
                    break
    return model
