"""Figures of all galaxies together: the sample, what came back of what was injected, turbulence, and the multiplex."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.config import Dataset
from msa3d.figures import style
from msa3d.galaxy import report
from msa3d.galaxy.disc import COSMOLOGY
from msa3d.observation.multiplex import PUBLISHED_GAIN, Inputs, compare, published_gain_needs


@style.house_style()
def plot_survey(dataset: Dataset) -> Figure:
    """Draw the sample as published: star formation, redshifts, places; the galaxies of this run marked."""
    table = report.survey()
    own = np.isin(np.asarray(table["ID"], dtype=int), dataset.source_ids)
    figure = style.new_figure(style.FULL_WIDTH, 3.3)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.25, 1.0, 1.1])
    redshift, mass, rate = (np.asarray(table[name], dtype=float) for name in ("z", "logMstar", "SFR"))
    grid = np.linspace(8.8, 11.0, 50)
    level = main_sequence(grid, float(np.median(redshift)))
    left.fill_between(grid, level - 0.3, level + 0.3, color=style.EMPTY_COLOUR, linewidth=0)
    left.plot(grid, level, color=style.GREY, label=f"main sequence, z = {np.median(redshift):.2f}")
    shown = left.scatter(mass, np.log10(rate), c=redshift, cmap="viridis", s=26, zorder=3)
    left.scatter(
        mass[own],
        np.log10(rate[own]),
        s=90,
        facecolors="none",
        edgecolors=style.VERMILION,
        linewidths=1.4,
        zorder=4,
        label="this run",
    )
    left.set(
        xlabel="log(M$_*$ / M$_\\odot$)", ylabel="log(SFR / M$_\\odot$ yr$^{-1}$)", xlim=(8.8, 11.0), ylim=(-0.9, 2.2)
    )
    left.set_title("a  star formation")
    left.legend(loc="upper left")
    style.colour_bar(figure, shown, left, "redshift", fraction=0.06)
    edges = np.arange(0.5, 1.8, 0.1)
    middle.hist(redshift, edges, color=style.SKY, edgecolor="white", label=f"{len(table)} galaxies")
    middle.hist(redshift[own], edges, color=style.VERMILION, label="this run")
    middle.set(xlabel="redshift", ylabel="galaxies")
    middle.set_title("b  redshifts")
    middle.set_ylim(0, middle.get_ylim()[1] * 1.3)
    middle.legend(loc="upper right")
    ra, dec = (np.asarray(table[name], dtype=float) for name in ("RA", "Dec"))
    right.plot(ra, dec, "o", color=style.SKY, markersize=4)
    right.plot(ra[own], dec[own], "o", color=style.VERMILION, markersize=5)
    for x, y, name in zip(ra[own], dec[own], np.asarray(table["ID"])[own], strict=True):
        if own.sum() <= 6:
            right.annotate(str(name), (x, y), (0, 5), textcoords="offset points", ha="center")
    right.set_aspect(1.0 / np.cos(np.radians(float(dec.mean()))))
    right.invert_xaxis()
    right.margins(0.12)
    right.ticklabel_format(useOffset=False)
    right.locator_params(nbins=3)
    right.set(xlabel="RA (deg)", ylabel="Dec (deg)")
    right.set_title("c  sky")
    return style.finish(
        figure,
        simulated=False,
        alt=f"Left: star-formation rate rises with stellar mass, most of {len(table)} galaxies near the main "
        f"sequence; middle: redshifts from {redshift.min():.2f} to "
        f"{redshift.max():.2f}; right: their places in one field of the micro-shutters; those of this run "
        f"({own.sum()}) are marked.",
        caption=f"The sample. The {len(table)} galaxies of the published table of the survey (arXiv:2606.27853): (a) "
        f"star-formation rate against stellar mass; grey: main sequence of Speagle et "
        "al. (2014) at the median redshift, \u00b10.3 dex; (b) redshifts; (c) places on the sky (ICRS). Red: "
        f"galaxies of this run ({own.sum()}). Thirteen more galaxies of "
        "the observation are not in the table.",
        data={
            "sample": {
                name: np.asarray(table[name])
                for name in (
                    "ID",
                    "z",
                    "RA",
                    "Dec",
                    "logMstar",
                    "SFR",
                    "incl",
                    "Re_disk_kpc",
                    "sigma0",
                    "Vrot_Re",
                    "vsig",
                )
            }
        },
    )


def main_sequence(log_mass: np.ndarray, redshift: float) -> np.ndarray:
    """Logarithm of the star-formation rate (Msun/yr) of the main sequence: Speagle et al. 2014, equation 28."""
    age = float(COSMOLOGY.age(redshift).value)
    return (0.84 - 0.026 * age) * np.asarray(log_mass) - (6.51 - 0.11 * age)


@style.house_style()
def plot_turbulence(dataset: Dataset, tables: Mapping[str, Table]) -> Figure | None:
    """Draw dispersion and V/sigma of the galaxies beside the published ones of the survey; None without a galaxy."""
    survey = report.survey()
    found = {name: {str(row["quantity"]): row for row in table} for name, table in tables.items()}
    if not found:
        return None
    figure = style.new_figure(style.FULL_WIDTH, 3.7)
    panels = figure.subplots(1, 2)
    masses = dict(zip(np.asarray(survey["ID"]).astype(str), np.asarray(survey["logMstar"], dtype=float), strict=True))
    data: dict[str, dict] = {}
    for letter, axes, (column, quantity, up, down, label) in zip(
        "ab", panels,
        (("sigma0", "sigma0", "esig_p", "esig_m", "\u03c3$_0$ (km/s)"),
         ("vsig", "v_over_sigma", None, None, "V(Re) / \u03c3$_0$")), strict=True,
    ):  # fmt: skip
        x, y = np.asarray(survey["logMstar"], dtype=float), np.asarray(survey[column], dtype=float)
        error = (
            None
            if up is None
            else np.abs(np.nan_to_num([np.asarray(survey[name], dtype=float) for name in (down, up)]))
        )
        axes.errorbar(
            x,
            y,
            error,
            fmt="o",
            color=style.PUBLISHED_COLOUR,
            markersize=3.5,
            elinewidth=0.7,
            alpha=0.75,
            label="published, survey",
        )
        rows = []
        for index, (name, table) in enumerate(found.items()):
            mass = masses.get(name, np.nan)
            if quantity not in table or not np.isfinite(mass):
                continue
            row = table[quantity]
            value, sigma = float(row["recovered"]), float(row["error"])
            published = float(y[np.asarray(survey["ID"]).astype(str) == name][0])
            put = float(row["injected"]) if "injected" in table[quantity].colnames else np.nan
            axes.plot([mass, mass + 0.04], [published, value], color=style.GREY, linewidth=0.8, zorder=1)
            axes.errorbar(
                mass + 0.04,
                value,
                sigma,
                fmt="s",
                color=style.RESULT_COLOUR,
                markersize=5,
                capsize=2,
                zorder=4,
                label="recovered" if not index else None,
            )
            if np.isfinite(put):
                axes.plot(mass + 0.04, put, "D", mfc="none", mec=style.TRUTH_COLOUR, mew=1.6, ms=7, zorder=5,
                          label="injected" if not index else None)  # fmt: skip
            axes.annotate(name, (mass + 0.04, value), (6, 4), textcoords="offset points")
            rows.append((name, mass, published, value, sigma, put))
        names = ("galaxy", "log mass [dex(solMass)]", "published", "recovered", "error", "injected")
        data[f"{letter} {quantity}"] = (
            dict(zip(names, (list(part) for part in zip(*rows, strict=True)), strict=True)) if rows else {"galaxy": []}
        )
        axes.set(xlabel="log(M$_*$ / M$_\\odot$)", ylabel=label)
        axes.set_ylim(0.0, axes.get_ylim()[1] * 1.25)
        axes.set_title(f"{letter}  " + ("velocity dispersion" if letter == "a" else "rotational support"))
        axes.legend(loc="upper left", ncols=2, columnspacing=1.0)
    listed = ", ".join(found)
    told = "; ".join(
        f"{panel[2:]} recovered "
        + ", ".join(
            f"{value:.1f} for {name}, published {published:.1f}"
            for name, value, published in zip(
                *(columns[key] for key in ("galaxy", "recovered", "published")), strict=True
            )
        )
        for panel, columns in data.items()
        if columns.get("recovered")
    )
    return style.finish(
        figure,
        simulated=dataset.simulated,
        alt=f"Dispersion and V over sigma against stellar mass of {len(survey)} published galaxies; {told}.",
        caption="Turbulence of the survey's galaxies. (a) Velocity dispersion and (b) rotation velocity at Re over "
        f"dispersion against stellar mass: published for {len(survey)} galaxies "
        f"(green; arXiv:2606.27853), recovered here for {listed} (blue squares, moved by 0.04 dex, joined to the "
        f"published value of the same galaxy)"
        + (", and injected (orange)." if dataset.simulated else ".")
        + " The inclination is taken as published.",
        data=data,
    )


LABELS = {
    "sigma0": "dispersion σ₀",
    "v_sin_i": "V sin i, asymptote",
    "v_sin_i_re": "V sin i at Re",
    "v_over_sigma": "V/σ",
    "pa_deg": "position angle",
    "r_turn": "turn-over radius",
    "metallicity_gradient": "O/H gradient, N2",
    "metallicity_centre": "O/H centre, N2",
    "metallicity_gradient_PP04_O3N2": "O/H gradient, O3N2",
    "metallicity_centre_PP04_O3N2": "O/H centre, O3N2",
    "av_gradient": "A$_V$ gradient",
    "av_centre": "A$_V$, centre",
    "scale_line": "scale length, Hα",
    "scale_continuum": "scale length, continuum",
    "scale_ratio": "ratio of scale lengths",
    "log_sfr": "log SFR",
    "flux_Ha": "flux of Hα",
    "flux_Hb": "flux of Hβ",
    "flux_[NII]6583": "flux of [N II] 6583",
    "flux_[OIII]5007": "flux of [O III] 5007",
}
"""What quantities are called; others by their own names."""
UNITS = {"dex(solMass/yr)": "dex", "1e-17 erg s-1 cm-2": "F$_{-17}$", "solMass/yr": "M$_\\odot$/yr"}
"""Units that are too long for a row; F-17 is 1e-17 erg s-1 cm-2."""
GROUPS = {
    "kinematics": ("redshift", "sigma0", "v_sin_i_re", "v_sin_i", "v_over_sigma", "pa_deg", "r_turn"),
    "metals": (
        "metallicity_gradient",
        "metallicity_centre",
        "metallicity_gradient_PP04_O3N2",
        "metallicity_centre_PP04_O3N2",
    ),
    "dust": ("av_gradient", "av_centre"),
    "structure": ("scale_line", "scale_continuum", "scale_ratio"),
    "flux": ("log_sfr", "flux_Ha", "flux_Hb", "flux_[NII]6583", "flux_[OIII]5007"),
}
"""Rows in their order, by subject."""


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
    pulls = {
        name: {q: p for q, p in _pulls(table).items() if q not in report.FOLLOWING} for name, table in tables.items()
    }
    there = {quantity for rows in pulls.values() for quantity in rows}
    listed = [q for group in GROUPS.values() for q in group if q in there]
    quantities = [*listed, *sorted(there - set(listed))]
    if not quantities:
        return None
    figure = style.new_figure(style.FULL_WIDTH, 0.26 * len(quantities) + 1.6)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[1.0, 1.1])
    rows = {quantity: len(quantities) - 1 - index for index, quantity in enumerate(quantities)}
    left.axvspan(-1, 1, color=style.EMPTY_COLOUR, alpha=0.9, linewidth=0)
    for limit in (-3, 3):
        left.axvline(limit, color=style.GREY, linestyle="--", linewidth=0.7)
    left.axvline(0, color=style.TRUTH_COLOUR, linewidth=1.0)
    everything = np.array([value for found in pulls.values() for value in found.values()])
    counted = np.array([value for found in pulls.values() for q, value in found.items() if report.counts(q)])
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
    left.set_ylim(-0.7, len(quantities) - 0.1)
    left.set_yticks(list(rows.values()), [LABELS.get(q, q.replace("_", " ")) for q in rows])
    left.tick_params(axis="y", length=0)
    for label, quantity in zip(left.get_yticklabels(), rows, strict=True):
        label.set_color(style.BLACK if report.counts(quantity) else style.GREY)
    _combined(left, pulls, {quantity: row for quantity, row in rows.items() if report.counts(quantity)})
    edges = [rows[group[-1]] - 0.5 for group in ([q for q in names if q in rows] for names in GROUPS.values()) if group]
    for edge in edges[:-1]:
        left.axhline(edge, color=style.GREY, linewidth=0.5)
    left.set_xlabel("(recovered \u2212 injected) / error")
    rms = float(np.sqrt(np.mean(counted**2))) if counted.size else float("nan")
    left.set_title(f"a  pulls, rms {rms:.2f}")
    first = next(iter(tables))
    _numbers(right, tables[first], rows)
    right.set_title(f"b  {style.literal(first)}")
    if len(tables) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(tables), 4))
    names = ", ".join(tables)
    return style.finish(
        figure,
        simulated=simulated,
        alt=f"Pulls of {len(quantities)} quantities for {names}: points with error bars about zero, "
        f"{np.count_nonzero(np.abs(everything) <= 3)} of {np.count_nonzero(np.isfinite(everything))} within three; "
        f"rms {rms:.2f}, "
        f"largest {np.abs(everything).max():.1f}; beside them published, injected and recovered values for {first}.",
        caption=f"Injected against recovered. (a) Recovered minus injected in units of the error, for {names}; grey: "
        f"\u00b11\u03c3; black bars: mean of all "
        f"galaxies and its error. Quantities with grey names are made of the same data as others and not counted: the "
        f"chi square of the other {counted.size} pulls is {np.sum(counted**2):.1f}, their rms {rms:.2f}. (b) "
        f"Published, injected and recovered values of {first}; F$_{{-17}}$: 10\u207b\u00b9\u2077 erg s\u207b\u00b9 "
        f"cm\u207b\u00b2.",
        data={name: {"quantity": list(found), "pull": list(found.values())} for name, found in pulls.items() if found},
    )


def _combined(axes: Axes, pulls: Mapping[str, Mapping[str, float]], rows: Mapping[str, int]) -> None:
    """Draw the mean pull of each quantity, with the error that as many pulls of unit width have."""
    if len(pulls) < 2:
        return
    for quantity, row in rows.items():
        found = [table[quantity] for table in pulls.values() if quantity in table]
        if len(found) > 1:
            axes.errorbar(
                np.mean(found),
                row - 0.4,
                xerr=len(found) ** -0.5,
                fmt="|",
                color=style.BLACK,
                markersize=5,
                elinewidth=2.2,
            )


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
    places = (("published", 0.11, "published"), ("injected", 0.36, "injected"), ("recovered", 0.64, "recovered"))
    colours = {"published": style.PUBLISHED_COLOUR, "injected": style.TRUTH_TEXT, "recovered": style.RESULT_COLOUR}
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    top = max(rows.values()) + 0.65
    for name, x, label in places:
        if name in table.colnames:
            axes.text(x, top, label, ha="center", va="center", color=colours[name], fontweight="bold")
    for entry in table:
        row = rows.get(str(entry["quantity"]))
        if row is None:
            continue
        for name, x, _ in places:
            if name in table.colnames:
                axes.text(x, row - 0.05, _text(entry, name), ha="center", va="center")
        if "unit" in table.colnames:
            unit = UNITS.get(str(entry["unit"]), str(entry["unit"]))
            axes.text(1.0, row - 0.05, unit, ha="right", va="center", color=style.GREY)


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


MOST_TARGETS = 100
THROUGHPUTS = (0.7, 1.0)
PENALTIES = (1.0, 3.0)
"""Ranges of what is not known of the integral-field unit: its throughput and its noise, relative to the shutters'."""


_MOST = PENALTIES[1], THROUGHPUTS[0]


@style.house_style()
def plot_multiplex() -> Figure:
    """Draw the gain against the number of targets for a range of what is not known, and on the plane of it."""
    inputs = Inputs()
    targets = np.arange(1, MOST_TARGETS + 1, 3)
    figure = style.new_figure(style.FULL_WIDTH, 3.7)
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.05])
    gain = lambda **changes: np.array([compare(inputs, targets=int(n), **changes).gain for n in targets])  # noqa: E731
    low = gain(noise_penalty=PENALTIES[0], throughput_ratio=THROUGHPUTS[1])
    high = gain(noise_penalty=PENALTIES[1], throughput_ratio=THROUGHPUTS[0])
    middle = gain()
    left.axhspan(
        PUBLISHED_GAIN,
        1e3,
        facecolor="none",
        edgecolor=style.PUBLISHED_COLOUR,
        alpha=0.35,
        hatch="///",
        linewidth=0,
        label="published: more than 15",
    )
    left.fill_between(targets, low, high, color=style.SKY, alpha=0.45, linewidth=0, label="range of the unknowns")
    left.plot(
        targets, middle, color=style.RESULT_COLOUR, label=f"equal throughput, noise \u00d7{inputs.noise_penalty:g}"
    )
    left.plot(targets, targets / inputs.steps, color=style.GREY, linestyle="--", label="targets / steps")
    at = [compare(inputs, targets=inputs.targets, noise_penalty=p, throughput_ratio=t).gain
          for p, t in ((PENALTIES[0], THROUGHPUTS[1]), (inputs.noise_penalty, 1.0), _MOST)]  # fmt: skip
    left.axvline(inputs.targets, color=style.BLACK, linewidth=0.7, linestyle=":")
    left.set(
        xlim=(0, MOST_TARGETS),
        ylim=(0, 1.5 * at[2]),
        xlabel="targets observed at once",
        ylabel="time of the IFU / time of slit-stepping",
    )
    left.set_title("a  gain at equal depth")
    left.legend(loc="upper left", frameon=True, framealpha=0.9, edgecolor="none")
    throughput, penalty = np.linspace(0.6, 1.1, 26), np.linspace(1.0, 4.0, 31)
    plane = np.array(
        [[compare(inputs, throughput_ratio=float(t), noise_penalty=float(p)).gain for t in throughput] for p in penalty]
    )
    shown = right.contourf(throughput, penalty, plane, levels=np.arange(0, 61, 5), cmap="viridis", extend="max")
    lines = right.contour(
        throughput, penalty, plane, levels=[10, 15, 20, 30], colors="white", linewidths=[0.8, 2.0, 0.8, 0.8]
    )
    right.clabel(lines, fmt="%g", fontsize=8)
    right.plot(1.0, inputs.noise_penalty, "o", color=style.VERMILION, markersize=7, markeredgecolor="white")
    right.set(xlabel="throughput of the IFU / of a shutter", ylabel="noise variance of the IFU / of a shutter")
    right.set_title(f"b  gain for {inputs.targets} targets")
    style.colour_bar(figure, shown, right, "gain")
    grid_p, grid_t = np.meshgrid(penalty, throughput, indexing="ij")
    needed = published_gain_needs(inputs)
    # A calculation, not data: no mark of simulation.
    return style.finish(
        figure,
        simulated=False,
        alt="Gain of slit-stepping over the integral-field unit, which grows in proportion to the number of "
        f"targets: {at[0]:.0f} to {at[2]:.0f} for {inputs.targets} targets; and on the plane of "
        "throughput and noise of the unit, highest where it transmits little and is noisy.",
        caption="Observing time saved relative to the NIRSpec integral-field unit (IFU) at equal depth. (a) Gain "
        f"against the number of targets; blue line: equal throughput and {inputs.noise_penalty:g} times the "
        f"noise variance in the IFU ({at[1]:.1f} for {inputs.targets} targets); band: throughput of "
        f"{THROUGHPUTS[0]:g} to {THROUGHPUTS[1]:g} and noise variance of {PENALTIES[0]:g} to {PENALTIES[1]:g} of the "
        f"shutters' ({at[0]:.1f} to {at[2]:.1f}); hatched: the published gain, more than 15. (b) The gain for "
        f"{inputs.targets} targets on the plane of both unknowns; red: the assumption of the line in (a). With that "
        f"noise, the published value follows where the IFU has a throughput below "
        f"{needed['throughput_ratio']:.2f} of a shutter's; with equal throughput, where its noise variance is above "
        f"{needed['noise_penalty']:.1f} times a shutter's (white thick line: {PUBLISHED_GAIN:g}).",
        data={
            "a": {"targets": targets, "gain": middle, "low": low, "high": high},
            "b": {"throughput": grid_t, "noise": grid_p, "gain": plane},
        },
    )
