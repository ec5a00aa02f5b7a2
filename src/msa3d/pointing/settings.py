"""Settings of the registration."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from msa3d._model import Model, NotNegative, Positive


class RegistrationSettings(Model):
    """Measurement of the exposures' pointing offsets.

    Parameters
    ----------
    method : {"none", "measure", "apply"}
        ``measure``: write the table of offsets. ``apply``: also build the cubes with them.
    iterations : int
        Rounds of model and offsets at most.
    huber : float
        Residuals beyond this many standard deviations weigh less.
    prior_arcsec : float
        Expected rms of the offsets, a coordinate. It keeps offsets that the data do not constrain from following
        the noise: without much signal they stay near zero. 0 for none.
    reference : path, optional
        An image to compare the exposures with, instead of with each other: FITS, with celestial coordinates. The
        offsets are then absolute. Its path below the root, where it or a link to it has to be.
    reference_light : str
        What it shows: ``continuum``, or ``Ha+[NII]``, ``[OIII]``, ``Hb``, ``[SII]``.
    reference_fwhm : float
        Gaussian that it is blurred with first, arcsec, where it is sharper than NIRSpec's.
    """

    method: Literal["none", "measure", "apply"] = "none"
    iterations: int = Field(20, ge=1, le=1000)
    huber: Positive = 3.0
    prior_arcsec: NotNegative = 0.01
    reference: Path | None = None
    reference_light: Literal["continuum", "Ha+[NII]", "[OIII]", "Hb", "[SII]"] = "continuum"
    reference_fwhm: NotNegative = 0.0

    @field_validator("reference")
    @classmethod
    def _below_the_root(cls, value: Path | None) -> Path | None:
        if value is not None and (value.is_absolute() or ".." in value.parts):
            raise ValueError(
                f"{value} leads out of the root; put the image or a link to it below the root, and give its path there"
            )
        return value
