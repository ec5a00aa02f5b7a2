"""The parts of a dataset: pattern, targets, parameters of the steps, and how an observation is simulated."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from msa3d._model import Model, NotNegative, OneLine, PlainName, Positive, SourceId
from msa3d.settings_cube import DrizzleSettings
from msa3d.settings_jwst import DETECTOR1_STEPS, SPEC2_STEPS, SPEC3_STEPS, check_steps
from msa3d.settings_paper import PaperPostprocess, PaperSettings

#: Shutters along a slit in a quadrant of the MSA: no slitlet can be longer.
SHUTTERS = 171

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


class ProcessSettings(Model):
    """Step 1, with parameters of jwst as data.

    Parameters
    ----------
    spec2, spec3 : dict of dict
        ``{step: {parameter: value}}`` of Spec2Pipeline and Spec3Pipeline: those of `msa3d.settings_jwst.PARAMETERS`.
    rectify : bool
        Whether Spec3 makes rectified 2-D spectra: the published builder needs them, the drizzle builder does not.
    product : str
        Product name of the Spec3 association.
    transform_msa : bool
        Apply the published transform of source ids to the copy of the metafile.
    wanted_sources_only : bool
        Keep in the metafile copy only the slitlets of the targets. Not published: it saves time.
    split_slitlets : int, optional
        In the metafile copy, split slitlets that are longer than this many shutters (known issue NS-MOS03).
    lengthen_slitlets : int
        In the metafile copy, pretend so many more open shutters, at most 10, at each end (known issue NS-MOS06).
    accelerations : "all", "none" or list of str
        Which accelerations of `msa3d.steps.speed` to use; all give identical images.
    run_stage1 : bool
        Start from uncal files with Detector1 (`detector1`), not from rates.
    detector1 : dict of dict
        ``{step: {parameter: value}}`` of Detector1Pipeline, likewise.
    """

    spec2: dict[str, dict[str, Any]] = Field({})
    spec3: dict[str, dict[str, Any]] = Field({})
    rectify: bool = True
    product: PlainName = "newoutput"
    transform_msa: bool = True
    wanted_sources_only: bool = False
    split_slitlets: int | None = Field(None, ge=1, le=SHUTTERS)
    lengthen_slitlets: int = Field(0, ge=0, le=10)
    accelerations: list[str] | Literal["all", "none"] = "all"
    run_stage1: bool = False
    detector1: dict[str, dict[str, Any]] = Field({})

    @field_validator("spec2", "spec3", "detector1")
    @classmethod
    def _steps_are_safe(cls, value: dict, info: Any) -> dict:
        steps = {"spec2": SPEC2_STEPS, "spec3": SPEC3_STEPS, "detector1": DETECTOR1_STEPS}
        check_steps(value, steps[info.field_name])
        return value


class CosmicRays(Model):
    """Rejection of cosmic rays in the s2d images, as published.

    Parameters
    ----------
    method : {"astroscrappy", "none"}
        Published: astroscrappy.
    sigclip, sigfrac, niter
        Arguments of `astroscrappy.detect_cosmics`; others stay at their defaults.
    block : int
        Wavelengths a block.
    """

    method: Literal["astroscrappy", "none"] = "astroscrappy"
    sigclip: Positive = 0.6
    sigfrac: Positive = 0.001
    niter: int = Field(3, ge=1, le=100)
    block: int = Field(100, ge=1, le=10_000)


class Pathloss(Model):
    """Correction for light lost in the spectrograph.

    Parameters
    ----------
    source : {"uniform", "none"}
        Which vector of the CRDS pathloss reference.
    aperture : str
        Published: MOS1x3 for every length of slitlet.
    """

    source: Literal["uniform", "none"] = "uniform"
    aperture: OneLine = "MOS1x3"


class PostprocessSettings(Model):
    """Step 2.

    Parameters
    ----------
    min_source_id : int
        Only sources with a greater id are treated.
    cosmic_rays, pathloss
        See `CosmicRays` and `Pathloss`.
    paper : PaperPostprocess
        Weaknesses of the published post-processing, to be switched off one by one.
    """

    min_source_id: SourceId = 100
    cosmic_rays: CosmicRays = CosmicRays()
    pathloss: Pathloss = Pathloss()
    paper: PaperPostprocess = PaperPostprocess()


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
        Position angle of the V3 axis, degrees.
    groups : int
        Groups of the NRSIRS2 integration.
    first_activity : str
        Activity of the first exposure, base 36; the others count on from it.
    date : str
        UTC start of the first exposure.
    pointing_error_arcsec : float
        Standard deviation of each exposure's pointing about the pattern, a coordinate.
    noise, banding, cosmic_rays, bad_pixels, saturation, failed_shutters, background, bars, pathloss, psf : bool
        Ingredients, each of which can be switched off.
    scene : {"galaxies", "uniform", "point", "line"}
        Galaxies, or one of the test scenes: constant light everywhere, a point at each source's position, or
        constant light with one unresolved emission line.
    uniform_mjy_sr, point_ujy, line_um, line_flux : float
        Of the test scenes: constant light (MJy/sr), flux density of the point (microjansky), vacuum
        wavelength (um) and surface flux (erg/s/cm2/arcsec2) of the line.
    sources : list of SimulatedSource
        The galaxies.
    filler_slitlets : int
        Slitlets on empty sky that fill the MSA, as many as in the real programme.
    """

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
    cosmic_rays: bool = True
    bad_pixels: bool = True
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
    filler_slitlets: int = Field(0, ge=0, le=1000)

    @field_validator("date")
    @classmethod
    def _is_a_date(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value

    def activity(self, index: int) -> str:
        """Activity of the exposure at a place (from 0) in observing order: five base-36 digits."""
        number, digits = int(self.first_activity, 36) + index, ""
        while number:
            number, digit = divmod(number, 36)
            digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        return digits.zfill(5)
