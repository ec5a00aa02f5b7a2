"""How the drizzle builder makes a cube: its part of a dataset."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from msa3d._model import Model, NotNegative, Positive
from msa3d.pointing.settings import RegistrationSettings

Fraction = Annotated[float, Field(gt=0, le=1.5)]


class OutlierSettings(Model):
    """Outliers by leave-one-out: each pixel against what the other exposures predict there.

    Parameters
    ----------
    method : {"leave-one-out", "none"}
        Whether to look for them.
    snr : float
        Residual over its error from which a pixel is rejected.
    gradient : float
        Part of the local contrast of the cube that counts as error of the prediction: it protects sharp
        emission lines and edges.
    min_exposures : int
        Other exposures that must reach a pixel for it to be judged.
    rounds : int
        Most rounds of predicting and judging; every round judges all pixels anew.
    """

    method: Literal["leave-one-out", "none"] = "leave-one-out"
    snr: Positive = 4.0
    gradient: NotNegative = 1.0
    min_exposures: int = Field(2, ge=1, le=10_000)
    rounds: int = Field(4, ge=1, le=100)


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
    slit_frac : float
        Fraction of the shutter's open width over which a pixel is laid down.
    pixfrac : float
        Fraction of its height along the slit.
    weighting : {"volume", "exptime", "ivm"}
        Weight of a pixel in a voxel, beside their overlap: none, exposure time, or inverse variance of the
        read noise.
    wavemin, wavemax : float, optional
        Limits, um; by default all there is.
    ends : float
        Pixels nearer than this (in pixels) to an end of the open slitlet are left out.
    exclude : list of str
        Flags of jwst, beside DO_NOT_USE, whose pixels are left out: ``MSA_FAILED_OPEN`` for those on which a
        shutter that is stuck open throws the sky's light.
    outliers, registration
        See `OutlierSettings` and `RegistrationSettings`.
    """

    coord_system: Literal["skyalign", "msaalign"] = "skyalign"
    cube_pa: float = 0.0
    scalexy: float = Field(0.1, ge=0.01, le=10)
    scalew: Annotated[float, Field(ge=1e-5, le=1)] | None = None
    ra_center: Annotated[float, Field(ge=0, lt=360)] | None = None
    dec_center: Annotated[float, Field(ge=-90, le=90)] | None = None
    slit_frac: Fraction = 1.0
    pixfrac: Fraction = 1.0
    weighting: Literal["volume", "exptime", "ivm"] = "ivm"
    wavemin: Positive | None = None
    wavemax: Positive | None = None
    ends: NotNegative = 0.5
    exclude: list[Literal["MSA_FAILED_OPEN", "JUMP_DET", "SATURATED", "OUTLIER"]] = Field([])
    outliers: OutlierSettings = OutlierSettings()
    registration: RegistrationSettings = RegistrationSettings()

    @model_validator(mode="after")
    def _whole_center(self) -> DrizzleSettings:
        if (self.ra_center is None) != (self.dec_center is None):
            raise ValueError("ra_center and dec_center belong together: give both or neither")
        return self
