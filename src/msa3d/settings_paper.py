"""Switches of the published algorithm: each of its named weaknesses, one by one. The defaults are as published."""

from __future__ import annotations

from typing import Literal

from msa3d._model import Model

__all__ = ["PaperPostprocess", "PaperSettings"]


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
