"""Figures of the two builders: their images on one grid, and what each weakness of the published one costs."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.closure.builders import RADIUS_ARCSEC, BuilderComparison
from msa3d.closure.images import laid_on
from msa3d.config import Dataset
from msa3d.constants import LINES
from msa3d.figures import style
from msa3d.figures.cube import line_error
from msa3d.figures.lines import FLUX_COLUMN, FLUX_UNIT
from msa3d.figures.maps import (
    HALF_ARCSEC,
    draw_contours,
    draw_map,
    label_sky,
    map_bar,
    map_shape,
    map_table,
    mark_map,
    target_of,
)
from msa3d.galaxy.images import well_observed

COLOURS = {"published": style.VERMILION, "drizzle": style.BLUE}
_UNIT = "10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ arcsec$^{-2}$"


@style.house_style()
def plot_two_builders(dataset: Dataset, comparison: BuilderComparison) -> Figure:
    """Draw the Ha images of both builders on the spaxels of the drizzled cube, the truth, and the differences."""
    target = target_of(dataset, comparison.source_id)
    cube = comparison.images["drizzle"][0]
    images = {name: laid_on(image, of, cube) / FLUX_UNIT if of is not cube else image / FLUX_UNIT
              for name, (of, image) in comparison.images.items()}  # fmt: skip
    known = np.isfinite(images["truth"]).any()
    reference = "truth" if known else "drizzle"
    panels = _panels(images, reference, known)
    half = HALF_ARCSEC
    wide = (style.FULL_WIDTH - 1.6) / 3
    height = wide * map_shape(cube, comparison.centre, half) + 0.35
    rows = (len(panels) + 2) // 3
    figure = style.new_figure(style.FULL_WIDTH, rows * height + 0.9)
    grid = figure.subplots(rows, 3, squeeze=False, sharex=True, sharey=True)
    top = style.percentile_limits(images[reference], 1.0, 99.7)[1]
    limit = 0.6 * top
    snr = images["truth"] / (line_error(cube, LINES["Ha"] * (1.0 + target.redshift)) / FLUX_UNIT) if known else None
    for letter, axes, (title, image, signed) in zip("abcdef", grid.flat, panels, strict=False):
        scale = style.signed_scale(limit) if signed else style.scale(style.FLUX_MAP, 0.0, top)
        mesh = draw_map(axes, cube, image, comparison.centre, half=half, **scale)
        label_sky(axes, east=axes in grid[-1], north=axes in grid[:, 0])
        axes.set_title(f"{letter}  {title}")
        if axes in grid[:, -1] or letter == "abcdef"[len(panels) - 1]:
            map_bar(figure, mesh, axes, _UNIT, "both")
        if snr is not None:
            draw_contours(axes, cube, snr, comparison.centre, style.BLACK if signed else "white")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    mark_map(grid[0, 0], cube, target.redshift)
    name = style.heading(figure, target)
    # Where both have data, and not at the ends of the slitlets, which few exposures reach.
    both = np.isfinite(images["published"] + images["drizzle"]) & well_observed(cube)
    rms = {
        n: float(np.nanstd((images[n] - images[reference])[both])) for n in ("published", "drizzle") if n != reference
    }
    told = "; ".join(f"{n} minus {reference}: {value:.2f}" for n, value in rms.items())
    return style.finish(
        figure,
        simulated=cube.simulated,
        alt=f"H-alpha maps of {name} by both builders on one grid, and what they differ by: standard deviation per "
        f"spaxel, in 1e-17 erg/s/cm2/arcsec2, {told}.",
        caption=f"H\u03b1 of {name} in the cubes of both builders, on the spaxels of the drizzled one. "
        + (
            "(a) Injected image, convolved with PSF, slit and pixel; (b) published and (c) drizzle builder; below, "
            "each minus the injected image"
            if known
            else "(a) Published and (b) drizzle builder; (c) their difference"
        )
        + (
            ", and the two builders' difference. Contours: expected S/N of 3, 5, 10 per spaxel of the drizzled cube."
            if known
            else "."
        )
        + f" Standard deviation per well-observed spaxel ({_PLAIN}): {told}. The published spaxels are 0.2\u2033 "
        f"\u00d7 0.025\u2033, drizzled ones 0.1\u2033. Grey ellipse: FWHM of the PSF.",
        data={"maps": map_table(cube, comparison.centre, {f"{n} {FLUX_COLUMN}": image for n, image in images.items()})},
    )


_PLAIN = "10\u207b\u00b9\u2077 erg s\u207b\u00b9 cm\u207b\u00b2 arcsec\u207b\u00b2"


def _panels(images: dict[str, np.ndarray], reference: str, known: bool) -> list[tuple[str, np.ndarray, bool]]:
    """Title, image, and whether it is signed."""
    if not known:
        return [("published", images["published"], False), ("drizzle", images["drizzle"], False),
                ("published \u2212 drizzle", images["published"] - images["drizzle"], True)]  # fmt: skip
    return [
        ("injected, convolved", np.where(np.isfinite(images["drizzle"]), images["truth"], np.nan), False),
        ("published", images["published"], False),
        ("drizzle", images["drizzle"], False),
        ("published \u2212 drizzle", images["published"] - images["drizzle"], True),
        ("published \u2212 injected", images["published"] - images[reference], True),
        ("drizzle \u2212 injected", images["drizzle"] - images[reference], True),
    ]


@style.house_style()
def plot_builder_costs(dataset: Dataset, comparison: BuilderComparison) -> Figure:
    """Draw flux, blur and noise of all variants with their errors, a row a cube, and the noise against the aperture."""
    target, table = target_of(dataset, comparison.source_id), comparison.table
    simulated = comparison.images["drizzle"][0].simulated
    columns = _columns(table)
    figure = style.new_figure(style.FULL_WIDTH, 0.27 * len(table) + 1.3)
    panels = figure.subplots(1, len(columns) + 1, sharey=False, width_ratios=[1.0] * len(columns) + [1.15])
    places = np.arange(len(table))[::-1]
    colours = [COLOURS.get(name, style.GREY) for name in table["name"]]
    for letter, axes, (title, values, error, aim) in zip("abcd", panels, columns, strict=False):
        for place, value, e, colour in zip(places, values, error, colours, strict=True):
            axes.errorbar(
                value,
                place,
                xerr=e if np.isfinite(e) else None,
                fmt="o",
                color=colour,
                markersize=4.5,
                elinewidth=1.0,
                capsize=1.5,
            )
        if aim is not None:
            axes.axvline(aim, color=style.BLACK, linewidth=0.8)
        axes.axvline(float(values[0]), color=COLOURS["published"], linewidth=0.8, linestyle=":")
        axes.set_yticks(places, list(table["label"]) if axes is panels[0] else [""] * len(table))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.7, len(table) - 0.3)
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=3)
        axes.set_xlabel(title)
        axes.set_title(letter)
    _noise(panels[-1], comparison)
    panels[-1].set_title("abcd"[len(columns)])
    name = style.heading(figure, target)
    published, drizzle = comparison.row("published"), comparison.row("drizzle")
    told = (
        f"Flux over the injected one is {style.number(published['flux_ratio'], _flux_error(published))} as published "
        f"and "
        f"{style.number(drizzle['flux_ratio'], _flux_error(drizzle))} "
        f"drizzled." if np.isfinite(drizzle["flux_ratio"]) else ""
    )  # fmt: skip
    return style.finish(
        figure,
        simulated=simulated,
        alt=f"Dots with error bars for {len(table)} cubes of {name}, the published one first and the drizzled one "
        f"last. {told}",
        caption=f"What each weakness of the published algorithm costs, {name}. Each row is a cube with one weakness "
        f"switched off; red, dotted: as published; blue: drizzled. "
        f"H\u03b1 flux within {RADIUS_ARCSEC:g}\u2033 over the injected one (convolved with PSF and slit), blur of "
        f"the image, and noise at equal flux (sky, continuum and line) in units of the "
        "published cube's; last: that noise against the radius of the aperture. Errors 1\u03c3, from wavelengths "
        f"without lines. {told}",
        data={
            "cubes": {"cube": list(table["name"]), **{title: values for title, values, _, _ in columns},
                      **{f"{title}, error": error for title, _, error, _ in columns}},
            "aperture": {name: np.asarray(comparison.noise[name], dtype=float) for name in comparison.noise.colnames},
        },
    )  # fmt: skip


def _flux_error(row) -> float:
    """Error of the flux over the truth: the noise of the aperture over what the truth has in it."""
    return float(row["noise"] / row["flux"] * row["flux_ratio"])


def _columns(table) -> list[tuple[str, np.ndarray, np.ndarray, float | None]]:
    """Title, values, errors and aim of the panels that have values."""
    blank = np.full(len(table), np.nan)
    widths = np.asarray(table["fwhm_error"], dtype=float)
    widths = np.where(np.isfinite(widths), widths, widths[0])
    found = [
        (
            "flux / injected",
            np.asarray(table["flux_ratio"], dtype=float),
            np.array([_flux_error(row) for row in table]),
            1.0,
        ),
        ("blur, FWHM (\u2033)", np.asarray(table["fwhm"], dtype=float), widths, None),
        (
            "relative noise",
            np.asarray(table["noise_ratio"], dtype=float),
            np.asarray(table["noise_ratio_error"], dtype=float),
            1.0,
        ),
    ]
    return [(t, v, e if e is not None else blank, aim) for t, v, e, aim in found if np.isfinite(v).any()]


def _noise(axes: Axes, comparison: BuilderComparison) -> None:
    """Draw the noise at equal flux, in units of the published cube's, against the size of the aperture."""
    table = comparison.noise
    for name in ("published", "drizzle"):
        axes.errorbar(table["radius"], table[f"{name}_relative"], table[f"{name}_relative_error"], fmt="o-", ms=4,
                      capsize=1.5, color=COLOURS[name], label=name)  # fmt: skip
    axes.set(xlabel="aperture radius (\u2033)")
    axes.yaxis.tick_right()
    axes.yaxis.set_ticks_position("both")
    axes.tick_params(labelleft=False, labelright=True)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.35 * (high - low))
    axes.legend(loc="upper right")
