"""Figure: how much faster slit-stepping is than the integral-field unit, against the number of targets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from msa3d.figures import style
from msa3d.science.multiplex import Inputs, compare

PUBLISHED_GAIN = 15.0
"""Barisic et al. 2024, abstract: more than that."""


@style.house_style()
def plot(inputs: Inputs | None = None, *, most: int = 100) -> Figure:
    """Draw the gain, and what it is made of.

    Parameters
    ----------
    inputs : Inputs, optional
        The observation; the published one without it.
    most : int
        Largest number of targets.

    Returns
    -------
    matplotlib.figure.Figure
        Left: gain against number of targets, under three assumptions; right: the factors at `inputs`.
    """
    inputs = inputs or Inputs()
    figure = style.new_figure(style.FULL_WIDTH, 3.0)
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1.0])
    targets = np.arange(1, most + 1)
    quiet = replace(inputs, noise_penalty=1.0, throughput_ratio=1.0)
    cases = (
        (inputs, style.RESULT_COLOUR, "-", f"noise of the detector (\u00d7{inputs.noise_penalty:g}), overheads"),
        (quiet, style.SKY, "-", "noise of the sky (\u00d71), overheads"),
    )
    for case, colour, line, label in cases:
        gain = [compare(case, targets=int(n)).gain for n in targets]
        left.plot(targets, gain, color=colour, linestyle=line, label=label)
    left.plot(targets, targets / inputs.steps, color=style.GREY, linestyle="--", label="targets / steps alone")
    left.axhline(PUBLISHED_GAIN, color=style.PUBLISHED_COLOUR, linestyle=":", label="published: more than 15")
    result = compare(inputs)
    left.plot([inputs.targets], [result.gain], "o", color=style.RESULT_COLOUR, markersize=4)
    left.annotate(
        f"{inputs.targets} targets: {result.gain:.1f}", (inputs.targets, result.gain), (-6, 6), ha="right", va="bottom",
        textcoords="offset points", fontsize=7,
    )  # fmt: skip
    left.set_xlim(0, most)
    left.set_ylim(0, 1.6 * compare(inputs, targets=most).gain)
    left.set_xlabel("targets")
    left.set_ylabel("time of the IFU / time of slit-stepping")
    left.set_title("a  gain at equal depth")
    left.legend(loc="upper left", fontsize=6.5)
    _factors(right, result)
    alt = (
        f"Gain of slit-stepping over the integral-field unit against the number of targets: {result.gain:.1f} for "
        f"{inputs.targets} targets with overheads; the paper says more than 15. Beside it, factors."
    )
    # A calculation, not data: no mark of simulation.
    return style.finish(figure, simulated=False, alt=alt)


def _factors(axes, result) -> None:
    names = [*result.factors, "gain"]
    values = np.array([*result.factors.values(), result.gain])
    rows = np.arange(len(names))[::-1]
    colours = [style.GREY] * len(result.factors) + [style.RESULT_COLOUR]
    axes.barh(rows, np.log10(values), color=colours, height=0.6)
    for row, value in zip(rows, values, strict=True):
        side = 1 if value >= 1 else -1
        axes.annotate(
            f"\u00d7{value:.2g}" if value < 10 else f"\u00d7{value:.0f}", (np.log10(value), row), (4 * side, 0),
            textcoords="offset points", ha="left" if side > 0 else "right", va="center", fontsize=7,
        )  # fmt: skip
    axes.set_yticks(rows, names)
    axes.set_xlim(-2.0, 2.4)
    ticks = (-1, 0, 1, 2)
    axes.set_xticks(ticks, ["0.1", "1", "10", "100"])
    axes.axvline(0.0, color=style.BLACK, linewidth=0.6)
    axes.set_xlabel("factor")
    axes.set_title("b  what it is made of")
