"""Figures of all galaxies, of the truth, of both builders and of the multiplex."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.closure.builders import BuilderComparison
from msa3d.config import Dataset, Target
from msa3d.constants import LINES
from msa3d.cubes.cube import Cube
from msa3d.figures import style
from msa3d.figures.cube import FLUX_LABEL, FLUX_UNIT, RADIUS_ARCSEC, VELOCITY_LABEL, aperture, halpha_image
from msa3d.figures.maps import draw_map, label_sky, map_bar, mark_map, target_of
from msa3d.galaxy.images import collapsed_image
from msa3d.observation.multiplex import Inputs, compare

ROWS = 6
HALF_ARCSEC = 1.85
"""Half of the width of a map."""


@dataclass(frozen=True)
class Entry:
    """A galaxy of the atlas: target, cube, and line-of-sight velocity (km/s; NaN where not known), if measured."""

    target: Target
    cube: Cube
    velocity: np.ndarray | None = None


@style.house_style()
def plot_atlas(dataset: Dataset, entries: Sequence[Entry]) -> Figure:
    """Draw a page of the atlas: a row for each galaxy; maps have scales of their own."""
    if not entries:
        raise ValueError("an atlas needs a galaxy at least")
    moving = any(entry.velocity is not None for entry in entries)
    maps = 3 if moving else 2
    figure = style.new_figure(style.FULL_WIDTH, 1.75 * len(entries) + 0.9)
    grid = figure.subplots(len(entries), maps + 1, squeeze=False, width_ratios=[1.0] * maps + [1.9])
    for row, entry in enumerate(entries):
        _images(figure, grid[row, :maps], entry)
        _spectrum(grid[row, maps], entry, last=row == len(entries) - 1)
    names = ("continuum\n(MJy/sr)", FLUX_LABEL.replace("surface brightness\n", "\n"), VELOCITY_LABEL)
    for axes, text in zip(grid[0, :maps], names, strict=False):
        axes.annotate(
            text, (0.5, 1.0), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points",
            ha="center", va="bottom", fontsize=6.5,
        )  # fmt: skip
    figure.suptitle(style.literal(dataset.title), fontsize=9)
    listed = ", ".join(entry.target.name or str(entry.target.source_id) for entry in entries)
    alt = (
        f"Atlas of {listed}: in each row a map of the continuum, of H-alpha without it"
        + (", of the velocity" if moving else "")
        + f", and the spectrum within {RADIUS_ARCSEC:g} arcsec around H-alpha."
    )
    return style.finish(figure, simulated=any(entry.cube.simulated for entry in entries), alt=alt)


def pages(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cut an atlas of any length into pages of `ROWS` galaxies."""
    for start in range(0, len(entries), ROWS):
        yield entries[start : start + ROWS]


def _images(figure: Figure, panels: Sequence[Axes], entry: Entry) -> None:
    target, cube = entry.target, entry.cube
    centre = (target.ra, target.dec)
    images = [collapsed_image(cube), halpha_image(cube, target.redshift) / FLUX_UNIT]
    for axes, image in zip(panels, images, strict=False):
        low, high = style.percentile_limits(image, 2.0, 99.7)
        mesh = draw_map(axes, cube, image, centre, **style.scale(style.FLUX_MAP, low, high))
        _bar(figure, mesh, axes)
    if len(panels) > 2:
        velocity = np.full(cube.shape, np.nan) if entry.velocity is None else entry.velocity
        limit = style.symmetric_limit(velocity, 95.0)
        scale = style.signed_scale(limit)
        _bar(figure, draw_map(panels[2], cube, velocity, centre, **scale), panels[2])
    for axes in panels:
        axes.set_xlim(HALF_ARCSEC, -HALF_ARCSEC)
        axes.set_ylim(-HALF_ARCSEC, HALF_ARCSEC)
        axes.set_xticks([])
        axes.set_yticks([])
    mark_map(panels[0], cube, target.redshift, fontsize=5.0, others=panels[1:])
    panels[0].set_ylabel(f"{style.literal(target.name or target.source_id)}\nz = {target.redshift:g}", fontsize=7)


def _bar(figure: Figure, mesh, axes: Axes) -> None:
    """Draw a slim bar of numbers to the right of a small map; the heading of the column has the unit."""
    bar = figure.colorbar(mesh, cax=axes.inset_axes([1.02, 0.0, 0.05, 1.0]))
    bar.ax.tick_params(direction="in", length=1.5, labelsize=5.5)
    bar.ax.locator_params(nbins=4)


def _spectrum(axes: Axes, entry: Entry, *, last: bool) -> None:
    """Draw the neighbourhood of Ha in the frame of the galaxy."""
    wave, flux, error, _ = aperture(entry.cube, entry.target)
    rest = wave / (1 + entry.target.redshift)
    inside = (rest >= 0.645) & (rest <= 0.676)
    rest, flux = rest[inside], flux[inside]
    axes.step(rest, flux, where="mid", color=style.BLUE, linewidth=0.7)
    if error is not None:
        band = error[inside]
        axes.fill_between(rest, flux - band, flux + band, step="mid", color=style.SKY, alpha=0.6, linewidth=0)
    for name in ("[NII]6548", "Ha", "[NII]6583", "[SII]6716", "[SII]6731"):
        axes.axvline(LINES[name], color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
    axes.set_xlim(0.645, 0.676)
    axes.tick_params(labelsize=6, labelbottom=last)
    axes.yaxis.tick_right()
    axes.yaxis.set_ticks_position("both")
    axes.tick_params(labelleft=False, labelright=True)
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("flux density (\u00b5Jy)", fontsize=6.5)
    if last:
        axes.set_xlabel("wavelength in the frame of the galaxy (\u00b5m)", fontsize=6.5)


LABELS = {
    "sigma0": "dispersion σ",
    "v_sin_i": "V sin i, asymptote",
    "v_sin_i_re": "V sin i at Re",
    "v_over_sigma": "V/σ",
    "pa_deg": "position angle",
    "r_turn": "turn-over radius",
    "metallicity_gradient": "gradient of O/H, N2",
    "metallicity_centre": "central O/H, N2",
    "metallicity_gradient_PP04_O3N2": "gradient of O/H, O3N2",
    "metallicity_centre_PP04_O3N2": "central O/H, O3N2",
    "av_gradient": "gradient of A$_V$",
    "av_centre": "central A$_V$",
    "scale_line": "scale length, Hα",
    "scale_continuum": "scale length, stars",
    "scale_ratio": "ratio of the two",
    "re_disc_kpc": "Re of the stars",
    "log_sfr": "log SFR",
    "flux_Ha": "flux of Hα",
    "flux_Hb": "flux of Hβ",
    "flux_[NII]6583": "flux of [N II] 6583",
    "flux_[OIII]5007": "flux of [O III] 5007",
}
"""What quantities are called; others by their own names."""
UNITS = {"dex(solMass/yr)": "dex", "1e-17 erg s-1 cm-2": "10$^{-17}$ cgs"}
"""Units that are too long for a row."""


@style.house_style()
def plot_recovered(tables: Mapping[str, Table], *, simulated: bool = True) -> Figure | None:
    """Draw the pulls of all quantities.

    Parameters
    ----------
    tables : mapping of str to astropy.table.Table
        Report of each galaxy (or builder) by name: columns ``quantity``, ``injected``, ``recovered``, ``error``,
        ``pull``, and perhaps ``unit`` and ``published``. Rows without a pull are left out.
    simulated : bool
        Whether the data are from a simulation.

    Returns
    -------
    matplotlib.figure.Figure or None
        Left: a row a quantity, pulls of all tables; right: numbers of the first table. None if no row has a pull.
    """
    pulls = {name: _pulls(table) for name, table in tables.items()}
    quantities = list(dict.fromkeys(quantity for rows in pulls.values() for quantity in rows))
    if not quantities:
        return None
    figure = style.new_figure(style.FULL_WIDTH, 0.27 * len(quantities) + 1.5)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.2, 1.0])
    rows = {quantity: len(quantities) - 1 - index for index, quantity in enumerate(quantities)}
    left.axvspan(-1, 1, color=style.EMPTY_COLOUR, alpha=0.9, linewidth=0)
    for limit in (-3, 3):
        left.axvline(limit, color=style.GREY, linestyle="--", linewidth=0.7)
    left.axvline(0, color=style.TRUTH_COLOUR, linewidth=1.0)
    everything = np.array([value for found in pulls.values() for value in found.values()])
    most = max(4.0, 1.15 * float(np.abs(everything).max()))
    markers = "osD^v<>pP*"
    colours = [c for c in style.CYCLE if c not in (style.TRUTH_COLOUR, style.PUBLISHED_COLOUR)]
    for index, (name, found) in enumerate(pulls.items()):
        offset = 0.22 * (index - 0.5 * (len(pulls) - 1))
        left.errorbar(
            list(found.values()), [rows[q] - offset for q in found], xerr=1.0, fmt=markers[index % len(markers)],
            color=colours[index % len(colours)], markersize=4, elinewidth=0.7, label=style.literal(name),
        )  # fmt: skip
    left.set_xlim(-most, most)
    left.set_ylim(-0.7, len(quantities) - 0.3)
    left.set_yticks(list(rows.values()), [LABELS.get(q, q.replace("_", " ")) for q in rows])
    left.tick_params(axis="y", length=0)
    left.set_xlabel("(recovered \u2212 injected) / error")
    rms = float(np.sqrt(np.mean(everything**2)))
    left.set_title(f"a  pulls, rms {rms:.2f}")
    first = next(iter(tables))
    _numbers(right, tables[first], rows)
    right.set_title(f"b  {style.literal(first)}")
    if len(tables) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(tables), 4))
    alt = (
        f"Pulls of {len(quantities)} quantities for {', '.join(tables)}: rms {rms:.2f}, largest "
        f"{np.abs(everything).max():.1f}; beside them published, injected and recovered values for {first}."
    )
    return style.finish(figure, simulated=simulated, alt=alt)


def _pulls(table: Table) -> dict[str, float]:
    """Finite pulls by quantity."""
    found = {}
    for row in table:
        value = row["pull"]
        if not np.ma.is_masked(value) and np.isfinite(float(value)):
            found[str(row["quantity"])] = float(value)
    return found


def _numbers(axes, table: Table, rows: Mapping[str, int]) -> None:
    """Write published, injected and recovered values beside the rows."""
    places = (("published", 0.11, "published"), ("injected", 0.32, "injected"), ("recovered", 0.61, "recovered"))
    colours = {"published": style.PUBLISHED_COLOUR, "injected": style.TRUTH_COLOUR, "recovered": style.RESULT_COLOUR}
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    top = max(rows.values()) + 0.45
    for name, x, label in places:
        if name in table.colnames:
            axes.text(x, top, label, ha="center", va="center", fontsize=6.5, color=colours[name], fontweight="bold")
    for entry in table:
        row = rows.get(str(entry["quantity"]))
        if row is None:
            continue
        for name, x, _ in places:
            if name in table.colnames:
                axes.text(x, row - 0.05, _text(entry, name), ha="center", va="center", fontsize=6.5)
        if "unit" in table.colnames:
            unit = UNITS.get(str(entry["unit"]), str(entry["unit"]))
            axes.text(1.0, row - 0.05, unit, ha="right", va="center", fontsize=6.0, color=style.GREY)


def _text(entry, name: str) -> str:
    """Value with as many digits as its error makes worth."""
    value, error = (float(np.ma.filled(entry[key], np.nan)) for key in (name, "error"))
    if not np.isfinite(value):
        return "\u2013"
    tiny = not np.isfinite(error) or error <= 0 or abs(value) < 1e-4
    digits = 0 if tiny else int(np.clip(1 - np.floor(np.log10(error)), 0, 5))
    shown = f"{value:.3g}" if tiny else f"{value:.{digits}f}"
    if name == "recovered" and np.isfinite(error):
        shown += f" \u00b1 {error:.2g}" if tiny else f" \u00b1 {error:.{digits}f}"
    return shown.replace("-", "\u2212")


_COLOURS = {"published": style.VERMILION, "drizzle": style.BLUE, "truth": style.BLACK}
_TITLES = {"truth": "truth, through the slit", "published": "published builder", "drizzle": "drizzle builder"}


@style.house_style()
def plot_two_builders(dataset: Dataset, comparison: BuilderComparison) -> Figure:
    """Draw the H-alpha images, their profiles, the noise of apertures, and the cost of each weakness."""
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
    name = style.heading(figure, target)
    published, drizzle = comparison.row("published"), comparison.row("drizzle")
    alt = (
        f"H-alpha maps of {name} by both builders; brightness against radius; noise "
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
        scale = style.scale(style.FLUX_MAP, 0.0, high)
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


MOST_TARGETS = 100
PUBLISHED_GAIN = 15.0
"""Barisic et al. 2024, abstract: more than that."""


@style.house_style()
def plot_multiplex() -> Figure:
    """Draw the gain against the number of targets, and its factors for the published observation."""
    inputs, most = Inputs(), MOST_TARGETS
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
