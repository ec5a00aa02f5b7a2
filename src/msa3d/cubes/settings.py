"""How the drizzle builder makes a cube: its part of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from msa3d._model import Model, PlainName, Positive

_Fraction = Annotated[float, Field(gt=0, le=1.5)]


class OutlierSettings(Model):
    """The search for outliers in calibrated pixels.

    Parameters
    ----------
    method : str
        An outlier test of `msa3d.cubes.outliers.TESTS`, or ``none``.
    snr : float
        Residual over its error from which a pixel is rejected.
    """

    old_keys: ClassVar[Mapping[str, str]] = {
        "gradient": "leave it out; the value is now always 1",
        "min_exposures": "leave it out; the value is now always 2",
        "rounds": "leave it out; the value is now always 4",
    }

    method: PlainName = "leave-one-out"
    snr: Positive = 4.0

    @field_validator("method")
    @classmethod
    def _is_there(cls, value: str) -> str:
        if value not in ("leave-one-out", "none"):
            # Only for the others, as that takes a second: the room has to be imported.
            from msa3d.cubes.outliers import find_test

            find_test(value)
        return value


class RegistrationSettings(Model):
    """Measurement of the exposures' pointing offsets.

    Parameters
    ----------
    method : {"none", "measure", "apply"}
        ``measure``: write the table of offsets. ``apply``: also build the cubes with them.
    reference : path, optional
        A continuum image to compare the exposures with, instead of with each other: FITS, with celestial coordinates.
        The offsets are then absolute. Its path below the root, where it or a link to it has to be.
    """

    old_keys: ClassVar[Mapping[str, str]] = {
        "iterations": "leave it out; the value is now always 20",
        "huber": "leave it out; the value is now always 3",
        "prior_arcsec": "leave it out; the value is now always 0.01",
        "reference_light": "leave it out; the image is always compared with the continuum",
        "reference_fwhm": "leave it out and give an image that has been convolved beforehand",
    }

    method: Literal["none", "measure", "apply"] = "none"
    reference: Path | None = None

    @field_validator("reference")
    @classmethod
    def _below_the_root(cls, value: Path | None) -> Path | None:
        if value is not None and (value.is_absolute() or ".." in value.parts):
            raise ValueError(
                f"{value} leads out of the root; put the image or a link to it below the root, and give its path there"
            )
        return value


class DrizzleSettings(Model):
    """The drizzle builder. Names are those of STScI's draft step where the meaning is the same.

    Parameters
    ----------
    coord_system : {"skyalign", "msaalign"}
        Whether y points north, or along the slit.
    cube_pa : float
        Position angle of y, deg east of north; with ``msaalign`` counted from the slit.
    scalexy : float
        Size of a spaxel, arcsec.
    scalew : float, optional
        Width of a wavelength bin, um; by default a pixel (the shortest one of the prism).
    ra_center, dec_center : float, optional
        Middle of the cube, deg; by default that of what the slits cover.
    slit_frac, pixfrac : float
        Fractions of the shutter's open width, and of a pixel's height along the slit, over which it is drizzled.
    weighting : {"volume", "exptime", "ivm"}
        Weight of a pixel in a voxel, beside their overlap: none, exposure time, or inverse variance of the
        read noise.
    wavemin, wavemax : float, optional
        Limits, um; by default all there is.
    exclude : list of str
        Flags of jwst, beside DO_NOT_USE, whose pixels are left out: by default ``MSA_FAILED_OPEN``, lit by the sky
        through a shutter that is stuck open as well.
    outliers, registration
        See `OutlierSettings` and `RegistrationSettings`.
    """

    old_keys: ClassVar[Mapping[str, str]] = {"ends": "leave it out; the value is now always 0.5"}

    coord_system: Literal["skyalign", "msaalign"] = "skyalign"
    cube_pa: float = 0.0
    scalexy: float = Field(0.1, ge=0.01, le=10)
    scalew: Annotated[float, Field(ge=1e-5, le=1)] | None = None
    ra_center: Annotated[float, Field(ge=0, lt=360)] | None = None
    dec_center: Annotated[float, Field(ge=-90, le=90)] | None = None
    slit_frac: _Fraction = 1.0
    pixfrac: _Fraction = 1.0
    weighting: Literal["volume", "exptime", "ivm"] = "ivm"
    wavemin: Positive | None = None
    wavemax: Positive | None = None
    exclude: list[Literal["MSA_FAILED_OPEN", "JUMP_DET", "SATURATED", "OUTLIER"]] = Field(["MSA_FAILED_OPEN"])
    outliers: OutlierSettings = OutlierSettings()
    registration: RegistrationSettings = RegistrationSettings()

    @model_validator(mode="after")
    def _whole_center(self) -> DrizzleSettings:
        if (self.ra_center is None) != (self.dec_center is None):
            raise ValueError("ra_center and dec_center belong together: give both or neither")
        return self
