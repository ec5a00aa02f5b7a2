"""Parameters of the post-processing of calibrated slit pixels, which the drizzle builder reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from msa3d._model import Model, NotNegative, Positive

__all__ = [
    "BarShadow",
    "CalBackground",
    "CalCosmicRays",
    "CalPathloss",
    "CalpostSettings",
    "RegistrationSettings",
]


class CalPathloss(Model):
    """Correction for light lost in the spectrograph, by the slitlet's real length.

    Parameters
    ----------
    source : {"uniform", "auto", "point", "none"}
        Whose path loss of the CRDS reference. ``uniform``: light that fills the slit, right for the cube of a
        stepped slit, whose steps share the light of every source. ``point``: a point at the source's place in
        its shutter, right for one exposure on a star; where the place is outside the reference's range, the
        slit is treated as uniform. ``auto``: ``point`` where SRCTYPE or the stellarity say so, else ``uniform``.
    """

    source: Literal["uniform", "auto", "point", "none"] = "uniform"


class BarShadow(Model):
    """Correction for the shadow of the bars between shutters.

    Parameters
    ----------
    method : {"apply", "none"}
        ``apply``: divide by what the CRDS ``barshadow`` reference lets through, in the open area of the slitlet.
        Slits corrected as point sources are left alone, as their path loss has the bars in it.
    min_transmission : float
        Pixels that get less than this fraction of the light are flagged DO_NOT_USE and not amplified. Those
        between two open shutters get about 0.5.
    """

    method: Literal["apply", "none"] = "apply"
    min_transmission: Annotated[float, Field(gt=0, lt=1)] = 0.4


class CalBackground(Model):
    """Background that is subtracted from the slits.

    Parameters
    ----------
    method : {"none", "empty", "ends"}
        ``none``: the background stays for the continuum fit. ``empty``: from the slitlets without a source
        (background or filler shutters) on the same detector. ``ends``: from the slitlet's own pixels near its
        two ends, which must be free of the source.
    ends_arcsec : float
        For ``ends``: how far from the ends of the open area.
    knot_um : float
        Distance of the knots of the cubic spline in wavelength.
    sigclip : float
        Values further from the spline than this many standard deviations are left out, three times over.
    """

    method: Literal["none", "empty", "ends"] = "none"
    ends_arcsec: Positive = 0.45
    knot_um: float = Field(0.02, ge=1e-3)
    sigclip: Positive = 4.0


class CalCosmicRays(Model):
    """Rejection of cosmic rays in one exposure; the leave-one-out rejection of the cube does without it.

    Parameters
    ----------
    method : {"none", "astroscrappy"}
        ``astroscrappy``: L.A.Cosmic with the pipeline's own variances, so that gain and read noise need not be
        guessed. Pixels are flagged, never replaced.
    sigclip, sigfrac, objlim, niter
        Arguments of `astroscrappy.detect_cosmics`.
    """

    method: Literal["none", "astroscrappy"] = "none"
    sigclip: Positive = 5.0
    sigfrac: Positive = 0.3
    objlim: Positive = 3.0
    niter: int = Field(4, ge=1, le=100)


class CalpostSettings(Model):
    """Post-processing of calibrated slits: cal -> cal_pathcorr_astrocorr.

    Parameters
    ----------
    pathloss, barshadow, background, cosmic_rays
        See `CalPathloss`, `BarShadow`, `CalBackground`, `CalCosmicRays`.
    recompute_errors : bool
        Where ERR is NaN though the variances of photons and read noise are known (the uncertainty of a flat is
        not: STScI's known issue NS-MOS02), rebuild it from these two.
    open_area_only : bool
        Flag pixels whose middle lies outside the slitlet's open area DO_NOT_USE.
    """

    pathloss: CalPathloss = CalPathloss()
    barshadow: BarShadow = BarShadow()
    background: CalBackground = CalBackground()
    cosmic_rays: CalCosmicRays = CalCosmicRays()
    recompute_errors: bool = True
    open_area_only: bool = True


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
