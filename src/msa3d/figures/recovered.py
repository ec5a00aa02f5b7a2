"""Figure: what was recovered against what was put in, in units of the error."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure

from msa3d.figures import style

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
def plot(tables: Mapping[str, Table], *, simulated: bool = True) -> Figure:
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
    matplotlib.figure.Figure
        Left: a row a quantity, pulls of all tables; right: numbers of the first table.

    Raises
    ------
    ValueError
        If no row has a pull.
    """
    pulls = {name: _pulls(table) for name, table in tables.items()}
    quantities = list(dict.fromkeys(quantity for rows in pulls.values() for quantity in rows))
    if not quantities:
        raise ValueError("no quantity has both an injected value and an error: there is nothing to compare")
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
    left.set_xlabel("(recovered \u2212 put in) / error")
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
    places = (("published", 0.11, "published"), ("injected", 0.32, "put in"), ("recovered", 0.61, "recovered"))
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
