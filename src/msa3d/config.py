"""A dataset: one typed, validated description of an observation and of every parameter of its reduction.

A dataset is a YAML file, packaged (`available`) or a user's own, that may say ``extends: demo`` and then states
only what differs: mappings are merged key by key, lists replace lists. Unknown keys are errors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from msa3d._model import Model, NotNegative, OneLine, PlainName, Positive, SourceId, nearest, read_yaml
from msa3d.cubes.settings import DrizzleSettings
from msa3d.errors import DatasetError
from msa3d.galaxy.settings import ScienceSettings
from msa3d.published.settings import PaperSettings, PostprocessSettings
from msa3d.reduce.settings import (
    CalpostSettings,
    ProcessSettings,
)

RightAscension = Annotated[float, Field(ge=0, lt=360)]
Declination = Annotated[float, Field(ge=-90, le=90)]


class Target(Model):
    """One galaxy whose cube is wanted.

    Parameters
    ----------
    source_id : int
        As in the metafile.
    name : str
        For titles; the id where empty.
    redshift : float
        For line positions.
    ra, dec : float
        ICRS, degrees.
    """

    source_id: SourceId
    name: OneLine = ""
    redshift: float = Field(ge=0, le=30)
    ra: RightAscension
    dec: Declination


class CubeSettings(Model):
    """Step 3.

    Parameters
    ----------
    builder : {"drizzle", "paper"}
        ``drizzle`` is the default; ``paper`` is the published algorithm, value for value.
    also : list of {"drizzle", "paper"}
        Other builders whose cubes are made beside, to compare.
    drizzle : DrizzleSettings
        Of the drizzle builder.
    paper : PaperSettings
        Weaknesses of the published algorithm, to be switched off one by one.
    subpixels : int
        Of the paper builder: sub-pixels a native pixel along the slit.
    row_step_arcsec : float, optional
        Of the paper builder: distance of neighbouring dithers; by default that of the pattern.
    """

    builder: Literal["drizzle", "paper"] = "drizzle"
    also: list[Literal["drizzle", "paper"]] = Field([])
    drizzle: DrizzleSettings = DrizzleSettings()
    paper: PaperSettings = PaperSettings()
    subpixels: int = Field(4, ge=1, le=100)
    row_step_arcsec: Annotated[float, Field(gt=0, le=60)] | None = None

    @property
    def builders(self) -> tuple[str, ...]:
        """All builders whose cubes are wanted, the chosen one first."""
        return tuple(dict.fromkeys([self.builder, *self.also]))


class SimulatedSource(Model):
    """One galaxy of the simulated sky. All of it is input: recovering it is a closure test.

    Parameters
    ----------
    source_id : int
        As in the metafile.
    ra, dec : float
        Centre, ICRS, degrees.
    redshift : float
        Redshift.
    shutters : int
        Length of the slitlet.
    slitlet_shift : int
        Shutters by which the slitlet is moved along its column from where it has the source in its middle.
    log_mass : float
        Stellar mass, log10 of solar masses.
    sfr_msun_yr : float
        Star formation rate, solar masses a year.
    re_arcsec : float
        Half-light radius of the stars, arcsec.
    sfr_scale_ratio : float
        Scale length of the SFR density over that of the stars.
    inclination_deg, pa_deg : float
        Inclination (0 is face-on), position angle of the receding major axis (east of north).
    sigma0_kms : float
        Intrinsic dispersion, km/s.
    v_rot_kms, r_turn_arcsec : float
        Rotation speed at the half-light radius (km/s, deprojected), as it is published, and turn-over radius of an
        arctan curve.
    metallicity_centre, metallicity_gradient_dex_kpc : float
        12+log(O/H) at the centre, gradient (dex/kpc).
    av_centre, av_gradient_mag_kpc : float
        A_V (mag) at the centre and its gradient (mag/kpc); A_V never falls below 0.
    morphology : {"spiral", "clumps", "smooth"}
        What stands out against the exponential disc.
    """

    source_id: int = Field(gt=0, lt=2**31)
    ra: RightAscension
    dec: Declination
    redshift: float = Field(gt=0)
    shutters: int = Field(3, ge=1, le=11)
    slitlet_shift: int = Field(0, ge=-5, le=5)
    log_mass: float = 10.0
    sfr_msun_yr: Positive = 3.0
    re_arcsec: Positive = 0.5
    sfr_scale_ratio: Positive = 1.0
    inclination_deg: float = Field(45.0, ge=0, lt=90)
    pa_deg: float = 0.0
    sigma0_kms: Positive = 40.0
    v_rot_kms: NotNegative = 150.0
    r_turn_arcsec: Positive = 0.15
    metallicity_centre: float = 8.5
    metallicity_gradient_dex_kpc: float = -0.02
    av_centre: NotNegative = 1.0
    av_gradient_mag_kpc: float = -0.05
    morphology: Literal["spiral", "clumps", "smooth"] = "spiral"


class Simulation(Model):
    """How an observation is simulated; absent for a real one.

    Parameters
    ----------
    seed : int
        Of all random numbers.
    ra_ref, dec_ref : float
        Where the pattern's centre points: sky position of the MSA reference point, degrees.
    v3_pa_deg : float
        Position angle of the V3 axis at the MSA reference point (ROLL_REF), degrees.
    groups : int
        Groups of the NRSIRS2 integration.
    first_activity : str
        Activity of the first exposure, base 36; the others count on from it in steps of two.
    date : str
        UTC start of the first exposure.
    pointing_error_arcsec : float
        Standard deviation of each exposure's pointing about the pattern, a coordinate.
    noise, banding, cosmic_rays, bad_pixels, saturation, failed_shutters, background, bars, pathloss, psf : bool
        Ingredients, each of which can be switched off.
    banding_along : bool
        The 1/f noise of the readout is that of every pixel's time, so that it varies along columns as well, and partly
        that of each output. Without it whole columns are shifted.
    noisy_pixels : bool
        Read noise differs from pixel to pixel, with a tail of noisy ones. Without it, it is the same in all.
    open_pixels : bool
        Pixels without contact, whose charge goes to their neighbours; part of ``bad_pixels``.
    scene : {"galaxies", "uniform", "point", "line"}
        Galaxies, or one of the test scenes: constant light everywhere, a point at each source's position, or
        constant light with one unresolved emission line.
    uniform_mjy_sr, point_ujy, line_um, line_flux : float
        Of the test scenes: constant light (MJy/sr), flux density of the point (microjansky), vacuum
        wavelength (um) and surface flux (erg/s/cm2/arcsec2) of the line.
    sources : list of SimulatedSource
        The galaxies.
    background_slitlets : int
        Slitlets of three shutters on empty sky, wherever there is room.
    """

    old_keys: ClassVar[Mapping[str, str]] = {"filler_slitlets": "it is background_slitlets now"}

    seed: int = Field(2136, ge=0, lt=2**63)
    ra_ref: RightAscension = 215.02
    dec_ref: Declination = 52.925
    v3_pa_deg: float = 0.0
    groups: int = Field(16, ge=2, le=1000)
    first_activity: str = Field("03101", pattern="^[0-9a-z]{5}$")
    date: str = Field("2023-03-29T00:00:00", pattern=r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?)?$")
    pointing_error_arcsec: NotNegative = 0.005
    noise: bool = True
    banding: bool = True
    banding_along: bool = True
    noisy_pixels: bool = True
    cosmic_rays: bool = True
    bad_pixels: bool = True
    open_pixels: bool = True
    saturation: bool = True
    failed_shutters: bool = True
    background: bool = True
    bars: bool = True
    pathloss: bool = True
    psf: bool = True
    scene: Literal["galaxies", "uniform", "point", "line"] = "galaxies"
    uniform_mjy_sr: NotNegative = 1.0
    point_ujy: Positive = 20.0
    line_um: Positive = 1.38
    line_flux: Positive = 1e-15
    sources: list[SimulatedSource] = Field([])
    background_slitlets: int = Field(0, ge=0, le=1000)

    @field_validator("date")
    @classmethod
    def _is_a_date(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value

    def activity(self, index: int) -> str:
        """Activity of the exposure at a place (from 0) in observing order: five base-36 digits, every second number."""
        number, digits = int(self.first_activity, 36) + 2 * index, ""
        while number:
            number, digit = divmod(number, 36)
            digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        return digits.zfill(5)


class Pattern(Model):
    """The slit-stepping pattern.

    Parameters
    ----------
    rows : int
        Dithers along the slit (cross-dispersion), at most 100.
    columns : int
        Steps across the slit (dispersion): the columns of the cube; at most 100.
    row_step_arcsec, column_step_arcsec : float
        Nominal steps, arcsec on the sky. 0.075 is published; 0.2 (the open width of a shutter) is this
        project's default, since the sources read do not give it.
    order : {"serpentine", "raster"}
        How exposure index becomes a place: serpentine turns round at the end of every row.
    """

    rows: int = Field(7, ge=1, le=100)
    columns: int = Field(9, ge=1, le=100)
    row_step_arcsec: Positive = 0.075
    column_step_arcsec: Positive = 0.2
    order: Literal["serpentine", "raster"] = "serpentine"

    @property
    def n_exposures(self) -> int:
        """Exposures of the whole pattern."""
        return self.rows * self.columns

    def place(self, index: int) -> tuple[int, int]:
        """Row and column of an exposure.

        Parameters
        ----------
        index : int
            Place in observing order, from 0.

        Returns
        -------
        tuple of int
            ``(row, column)``, both from 0: exposure ``j * columns + i`` belongs to row j and, in serpentine
            order, to column i for even j and to column ``columns - 1 - i`` for odd j.
        """
        if not 0 <= index < self.n_exposures:
            raise IndexError(f"exposure {index} is outside a pattern of {self.n_exposures}")
        row, column = divmod(index, self.columns)
        if self.order == "serpentine" and row % 2:
            column = self.columns - 1 - column
        return row, column

    def index(self, row: int, column: int) -> int:
        """Place in observing order of the exposure at a row and a column: the inverse of `place`."""
        if self.order == "serpentine" and row % 2:
            column = self.columns - 1 - column
        return row * self.columns + column


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
        Kinds of problems of the metafile (see `msa3d.observation.metafile.MsaFile.check`) and of the pointing
        (`msa3d.observation.exposures`) that are only told, not errors.
    source : list of str
        Where the figures in it come from.
    pattern, targets, process, postprocess, calpost, cubebuild, science, simulation
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
    science: ScienceSettings = ScienceSettings()
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

        Examples
        --------
        >>> Dataset.load("go2136").source_ids[:3]
        [2111, 2145, 2465]
        >>> Dataset.load("demmo")
        Traceback (most recent call last):
        ...
        msa3d.errors.DatasetError: There is no dataset 'demmo' (did you mean 'demo'?); packaged are ...
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

        >>> Dataset.load("tiny").replaced(pattern={"rows": 7}).pattern.n_exposures
        21
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


def _explain(model: type[Model], item: Mapping[str, Any]) -> str:
    """One phrase for one pydantic error."""
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        owner = _owner(model, item["loc"][:-1])
        if instead := owner.old_keys.get(str(item["loc"][-1])):
            return f"{place!r} is a key of an earlier version; {instead}"
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


def _owner(model: type[Model], location: tuple) -> type[Model]:
    """The model that a place in the tree belongs to."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            candidates = [annotation, *get_args(annotation)]
            for kind in candidates:
                if isinstance(kind, type) and issubclass(kind, Model):
                    model = kind
                    break
    return model
