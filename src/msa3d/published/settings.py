"""Settings of the published algorithm: each of its named weaknesses has a switch; the defaults are as published."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from msa3d._model import Model, OneLine, Positive, SourceId


class PaperSettings(Model):
    """Weaknesses of the published cube; with the defaults, the cube is the published one to the last bit.

    Parameters
    ----------
    truncate_offsets : bool
        Published: the dithers' offsets are truncated to whole sub-pixels. False: every exposure is interpolated
        where the rows of the cube lie in it.
    nominal_offsets : bool
        Published: the dithers are as far apart as planned. False: as far apart along the slit as the exposures'
        own WCS say.
    zeros_in_median : bool
        Published: where a dither does not reach a row, a zero enters the median, as do jwst's zeros where a 2-D
        spectrum has no data. False: only values enter; a row that no exposure reaches is NaN.
    interpolation : {"linear", "cubic"}
        Along the slit, onto sub-pixels. Published: linear. ``cubic`` is the cubic convolution of Keys (1981),
        a = -1/2.
    combine : {"median", "mean"}
        Published: the median. ``mean`` weighs each value by the inverse variance of its read noise; what has no
        variance (such as a zero) has no weight.
    """

    truncate_offsets: bool = True
    nominal_offsets: bool = True
    zeros_in_median: bool = True
    interpolation: Literal["linear", "cubic"] = "linear"
    combine: Literal["median", "mean"] = "median"


class PaperPostprocess(Model):
    """Weaknesses of the published post-processing of 2-D spectra; the defaults are as published.

    Parameters
    ----------
    skip_last_blocks : bool
        Published: cosmic rays are not looked for in the last whole block of wavelengths and in what follows it.
    default_noise : bool
        Published: astroscrappy takes its default gain and read noise (6.5), which are not those of the data, with
        the dataset's ``sigclip`` and ``sigfrac``. False: it takes the variances of the pipeline, with its own
        defaults for both.
    one_pathloss : bool
        Published: the path loss at the wavelengths of the middle exposure divides every exposure. False: that at
        each exposure's own wavelengths.
    ignore_bars : bool
        Published: the shadows of the bars between the shutters stay. False: the 2-D spectrum is divided by the
        shadow of the CRDS reference, within the open slitlet.
    """

    skip_last_blocks: bool = True
    default_noise: bool = True
    one_pathloss: bool = True
    ignore_bars: bool = True


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


class PathlossSettings(Model):
    """Correction for light lost in the spectrograph.

    Parameters
    ----------
    source : {"uniform", "none"}
        Which vector of the CRDS pathloss reference.
    aperture : str
        Published: MOS1x3 for every length of slitlet.
    reference : str, optional
        File of this name in the CRDS cache, whatever the context names. The public code always takes its own copy of
        ``jwst_nirspec_pathloss_0002.fits``. Without it that of the context.
    """

    source: Literal["uniform", "none"] = "uniform"
    aperture: OneLine = "MOS1x3"
    reference: str | None = Field(None, pattern=r"^jwst_nirspec_pathloss_\d{4}\.fits$")


class PostprocessSettings(Model):
    """Step 2.

    Parameters
    ----------
    min_source_id : int
        Only sources with a greater id are treated.
    cosmic_rays, pathloss
        See `CosmicRays` and `PathlossSettings`.
    paper : PaperPostprocess
        Weaknesses of the published post-processing, to be switched off one by one.
    """

    min_source_id: SourceId = 100
    cosmic_rays: CosmicRays = CosmicRays()
    pathloss: PathlossSettings = PathlossSettings()
    paper: PaperPostprocess = PaperPostprocess()
