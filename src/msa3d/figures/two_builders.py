"""Figure: the two builders side by side, and what each weakness of the published one costs."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.dataset import Dataset
from msa3d.figures import style
from msa3d.figures.line_maps import FLUX_LABEL, FLUX_UNIT
from msa3d.figures.sky import draw_map, label_sky, map_bar
from msa3d.figures.slit_stepping import target_of
from msa3d.science.builders import BuilderComparison

_COLOURS = {"published": style.VERMILION, "drizzle": style.BLUE, "truth": style.BLACK}
_TITLES = {"truth": "truth, through the slit", "published": "published builder", "drizzle": "drizzle builder"}


@style.house_style()
def plot(dataset: Dataset, comparison: BuilderComparison) -> Figure:
    """Draw the H-alpha images, their profiles, the noise of apertures, and the cost of each weakness.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    comparison : BuilderComparison
        What `msa3d.science.builders.compare` found.

    Returns
    -------
    matplotlib.figure.Figure
        Above the maps; in the middle profiles and noise; below a bar for each variant: flux, width, noise.
    """
    target = target_of(dataset, comparison.source_id)
    simulated = comparison.images["drizzle"][0].simulated
    names = [name for name in ("truth", "published", "drizzle") if np.isfinite(comparison.images[name][1]).any()]
    figure = style.new_figure(style.FULL_WIDTH, 8.0)
    above, middle, below = figure.subfigures(3, 1, height_ratios=(1.15, 1.0, 1.2))
    _maps(above, comparison, names)
    left, right = middle.subplots(1, 2)
    _profiles(left, comparison, names)
    _noise(right, comparison)
    _costs(below, comparison)
    figure.suptitle(style.literal(target.name or target.source_id), fontsize=9)
    published, drizzle = comparison.row("published"), comparison.row("drizzle")
    alt = (
        f"H-alpha maps of {target.name or target.source_id} by both builders; brightness against radius; noise "
        f"against the radius of the aperture; bars for flux, width and noise of {len(comparison.table)} cubes. "
        f"Flux over truth is {published['flux_ratio']:.2f} as published and {drizzle['flux_ratio']:.2f} drizzled."
    )
    return style.finish(figure, simulated=simulated, alt=alt)


def _maps(figure: Figure, comparison: BuilderComparison, names: list[str]) -> None:
    """Draw the H-alpha images on one scale."""
    panels = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    images = {name: comparison.images[name][1] / FLUX_UNIT for name in names}
    _, high = style.percentile_limits(images["drizzle"], 1.0, 99.5)
    for letter, axes, name in zip("abc", panels, names, strict=False):
        scale = {"cmap": style.colour_map(style.FLUX_MAP), "vmin": 0.0, "vmax": high}
        mesh = draw_map(axes, comparison.images[name][0], images[name], comparison.centre, **scale)
        axes.set_title(f"{letter}  {_TITLES[name]}")
        label_sky(axes, north=axes is panels[0])
    map_bar(figure, mesh, panels[-1], FLUX_LABEL)


def _profiles(axes: Axes, comparison: BuilderComparison, names: list[str]) -> None:
    """Draw brightness against radius."""
    table = comparison.profiles
    for name in names:
        marks = {"marker": "o", "ms": 3} if name != "truth" else {"lw": 2.5, "alpha": 0.4}
        axes.plot(table["radius"], table[name] / FLUX_UNIT, color=_COLOURS[name], label=_TITLES[name], **marks)
    axes.set(xlabel="radius (arcsec)", ylabel=FLUX_LABEL, xlim=(0, None), ylim=(0, None))
    axes.set_title("d  Mean brightness in rings")
    axes.legend(loc="upper right")


def _noise(axes: Axes, comparison: BuilderComparison) -> None:
    """Draw the noise at equal light, in units of the published cube's, against the size of the aperture."""
    table = comparison.noise
    for name in ("published", "drizzle"):
        error = table[f"{name}_relative_error"]
        axes.errorbar(
            table["radius"], table[f"{name}_relative"], error, fmt="o-", ms=3, color=_COLOURS[name], label=_TITLES[name]
        )
    axes.set(xscale="log", xlabel="radius of the aperture (arcsec)", ylabel="noise over light, relative")
    radii = list(table["radius"])
    axes.set_xticks(radii, [f"{radius:g}" for radius in radii])
    axes.minorticks_off()
    axes.margins(y=0.25)
    axes.set_title("e  Noise of an aperture")
    axes.legend(loc="lower right")


def _costs(figure: Figure, comparison: BuilderComparison) -> None:
    """Draw a bar a cube for flux, width and noise."""
    table = comparison.table
    places = np.arange(len(table))[::-1]
    published = comparison.row("published")
    columns = (
        ("f  Flux over truth", table["flux_ratio"], None, 1.0),
        ("g  Blur of the image (arcsec)", table["fwhm"], None, 0.0),
        ("h  Noise over light, relative", table["noise_ratio"], table["noise_ratio_error"], 1.0),
    )
    panels = figure.subplots(1, 3, sharey=True)
    colours = [_COLOURS.get(name, style.SKY) for name in table["name"]]
    for axes, (title, values, error, aim) in zip(panels, columns, strict=True):
        values = np.asarray(values, dtype=float)
        if not np.isfinite(values).any():
            axes.text(0.5, 0.5, "no truth", ha="center", va="center", transform=axes.transAxes, color=style.GREY)
            continue
        axes.barh(places, values - aim, left=aim, xerr=error, color=colours, height=0.7, error_kw={"lw": 0.7})
        axes.axvline(aim, color=style.BLACK, lw=0.7)
        first = float(values[list(table["name"]).index(published["name"])])
        axes.axvline(first, color=_COLOURS["published"], lw=0.7, ls=":")
        axes.set_title(title)
        axes.margins(x=0.12)
    panels[0].set_yticks(places, list(table["label"]))
    panels[0].tick_params(axis="y", length=0)
