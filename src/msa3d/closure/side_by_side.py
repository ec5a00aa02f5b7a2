"""The same galaxies measured in the cubes of both builders: what each recovers of what was injected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from astropy.table import Table
from scipy.stats import chi2

from msa3d.config import Dataset
from msa3d.galaxy import report
from msa3d.galaxy.measure import Galaxy
from msa3d.galaxy.report import Row

RATIOS = ("sigma0", "v_sin_i_re", "scale_line", "scale_continuum", "flux_Ha", "flux_[NII]6583")
"""Quantities that are compared as recovered over injected: positive, and well above their errors."""
QUOTED = (*RATIOS, "pa_deg", "redshift", "metallicity_gradient")
"""Quantities that the book shows of one galaxy."""


def compared(found: Mapping[str, Mapping[int, Galaxy]], dataset: Dataset) -> Table:
    """Put the reports of several builders beside each other.

    Parameters
    ----------
    found : mapping of str to mapping of int to Galaxy
        By builder and source id.
    dataset : Dataset
        Says what was injected.

    Returns
    -------
    astropy.table.Table
        A row a galaxy and quantity that any builder has a pull of: ``galaxy``, ``quantity``, ``unit``,
        ``injected``, and for each builder ``<builder>``, ``<builder>_error``, ``<builder>_pull`` and, for `RATIOS`,
        ``<builder>_ratio`` (recovered over injected); NaN where there is none.
    """
    rows: dict[tuple[int, str], dict] = {}
    columns = [f"{builder}{part}" for builder in found for part in ("", "_error", "_pull", "_ratio")]
    for builder, galaxies in found.items():
        for source_id, galaxy in galaxies.items():
            for row in report.rows(galaxy, dataset):
                if not np.isfinite(row.pull):
                    continue
                first = {"galaxy": source_id, "quantity": row.quantity, "unit": row.unit, "injected": row.injected}
                entry = rows.setdefault((source_id, row.quantity), first | dict.fromkeys(columns, np.nan))
                ratio = row.recovered / row.injected if row.quantity in RATIOS else np.nan
                entry |= {builder: row.recovered, f"{builder}_error": row.error, f"{builder}_pull": row.pull}
                entry[f"{builder}_ratio"] = ratio
                rows[source_id, row.quantity] = entry
    names = ["galaxy", "quantity", "unit", "injected", *columns]
    table = Table(rows=list(rows.values()) or None, names=names) if rows else Table(names=names)
    for name in names[3:]:
        table[name].info.format = ".3g"
    return table


def of_best(table: Table, found: Mapping[int, Galaxy]) -> Table:
    """Rows of the galaxy whose Ha is best measured, with a ``ratio`` (recovered over injected) or a ``pull`` a builder.

    Parameters
    ----------
    table : astropy.table.Table
        Of `compared`.
    found : mapping of int to Galaxy
        The galaxies in the cubes of the builder that is trusted.
    """
    best = max(found, key=lambda i: found[i].discs["Ha"].total / found[i].discs["Ha"].total_error)
    rows = table[(table["galaxy"] == best) & np.isin(table["quantity"], QUOTED)]
    kept = [name for name in table.colnames if name.endswith(("_ratio", "_pull"))]
    result = rows["galaxy", "quantity", *kept]
    result.rename_columns(kept, [name.replace("_", ": ") for name in kept])
    return result


def _with_pulls(table: Table) -> list[str]:
    return [name.removesuffix("_pull") for name in table.colnames if name.endswith("_pull")]


def summary(table: Table) -> Table:
    """Pulls of all galaxies and quantities that count (`msa3d.galaxy.report.counts`), a row a builder.

    Parameters
    ----------
    table : astropy.table.Table
        Of `compared`.

    Returns
    -------
    astropy.table.Table
        ``builder``, number of ``pulls``, their ``chi square`` and its ``probability`` to be exceeded by chance if
        pulls are independent and of unit width, ``rms of pulls``, ``largest pull``, and mean ``recovered over
        injected`` flux of Ha.
    """
    counted = [report.counts(str(name)) for name in table["quantity"]]
    rows = []
    for builder in _with_pulls(table):
        pulls = np.asarray(table[f"{builder}_pull"], dtype=float)[counted]
        pulls = pulls[np.isfinite(pulls)]
        flux = np.asarray(table[f"{builder}_ratio"], dtype=float)[table["quantity"] == "flux_Ha"]
        if pulls.size:
            square = float(np.sum(pulls**2))
            told = (f"{square:.1f}", f"{chi2.sf(square, pulls.size):.2g}", f"{np.sqrt(square / pulls.size):.2f}")
            largest = np.abs(pulls).max()
            rows.append((builder, pulls.size, *told, f"{largest:.1f}", f"{np.nanmean(flux):.2f}"))
    names = ("builder", "pulls", "chi square", "probability", "rms of pulls", "largest pull")
    return Table(rows=rows or None, names=(*names, "recovered over injected Ha"))


def combined(table: Table) -> Table:
    """Mean pull of each quantity over the galaxies: what a bias does to all of them, and chance does not.

    Parameters
    ----------
    table : astropy.table.Table
        Of `compared`.

    Returns
    -------
    astropy.table.Table
        A row per quantity that counts (`msa3d.galaxy.report.counts`), and one of ``all``: number of ``galaxies`` (of
        ``all``: of pulls), the ``error`` of a mean of as many pulls of unit width, and for each builder the ``mean
        pull``; NaN where it has none.
    """
    builders = _with_pulls(table)
    part = table[[report.counts(str(name)) for name in table["quantity"]]]
    groups = {name: part[part["quantity"] == name] for name in dict.fromkeys(map(str, part["quantity"]))}
    rows = []
    for name, group in [*groups.items(), *([("all", part)] if groups else [])]:
        pulls = [np.asarray(group[f"{builder}_pull"], dtype=float) for builder in builders]
        number = int(np.isfinite(pulls[0]).sum())
        means = [float(np.mean(one[np.isfinite(one)])) if np.isfinite(one).any() else np.nan for one in pulls]
        rows.append((name, number, number**-0.5 if number else np.nan, *means))
    told = [f"mean pull, {BUILDERS.get(builder, builder)}" for builder in builders]
    found = Table(rows=rows or None, names=("quantity", "galaxies", "error", *told))
    for name, form in zip(found.colnames[2:], (".2f", *["+.2f"] * len(told)), strict=True):
        found[name].info.format = form
    return found


HEADLINE = {
    "sigma0": (r"velocity dispersion of the gas, $\sigma_0$ (km/s)", ".1f"),
    "metallicity_gradient": ("metallicity gradient (dex/kpc)", ".3f"),
    "av_gradient": ("attenuation gradient, $A_V$ (mag/kpc)", ".2f"),
    "log_sfr": ("star formation rate, log (M\u2609/yr)", ".2f"),
    "v_sin_i_re": (r"rotation as seen at the effective radius, $V \sin i$ (km/s)", ".1f"),
    "scale_ratio": ("scale length of H\u03b1 over that of the stellar continuum", ".2f"),
    "redshift": ("redshift", ".5f"),
    "scale_line": ("scale length of H\u03b1 (\u2033)", ".3f"),
    "scale_continuum": ("scale length of the stellar continuum (\u2033)", ".3f"),
}
"""Quantities of the report that the paper's abstract speaks of, and what belongs to them: label and format."""

SIX = tuple(HEADLINE)[:6]
"""Quantities on the first page of the book: those of the paper's abstract, and the rotation of the survey's table."""
WITHOUT_VALUE = {"av_gradient": "reported without a value", "scale_ratio": "\u201cclosely matches\u201d"}
"""What the abstract says where it gives no number."""


def headline(
    found: Mapping[str, Mapping[int, Galaxy]], dataset: Dataset, quantities: Sequence[str] = ()
) -> Table | None:
    """The case study's numbers: published, injected, and recovered in the cubes of each builder.

    Parameters
    ----------
    found : mapping of str to mapping of int to Galaxy
        By builder, the dataset's own first, and source id.
    dataset : Dataset
        Says what was injected.
    quantities : sequence of str, optional
        Which ones, in their order; all of `HEADLINE` without any.

    Returns
    -------
    astropy.table.Table or None
        Text. ``error ratio`` is the error of this book over the published one; the pull of the dataset's own builder
        is the last column, that of others stands in parentheses. Where nothing was injected, nothing says so. None
        if the case study was not measured.
    """
    reports = {
        builder: {row.quantity: row for row in report.rows(galaxies[dataset.case_study], dataset)}
        for builder, galaxies in found.items()
        if dataset.case_study in galaxies
    }
    own, *others = found
    if own not in reports:
        return None
    rows = []
    for name in quantities or HEADLINE:
        if name not in reports[own] or not np.isfinite(reports[own][name].recovered):
            continue
        label, form = HEADLINE[name]
        row, paper = reports[own][name], _of_paper(name, reports[own][name], dataset)
        entry = {"quantity": label, "published": _with_error(*paper, form) or WITHOUT_VALUE.get(name, "")}
        if dataset.simulated:
            entry["injected"] = _number(row.injected, form)
        entry["recovered" if not others else f"recovered, {BUILDERS[own]}"] = _with_error(
            row.recovered, row.error, form
        )
        for builder in (builder for builder in others if builder in reports):
            other = reports[builder].get(name, Row(name, ""))
            told = _with_error(other.recovered, other.error, form)
            pull = f" ({_number(other.pull, '+.1f')}\u03c3)" if np.isfinite(other.pull) else ""
            entry[f"recovered, {BUILDERS[builder]}"] = told + pull
        entry["error ratio"] = _number(row.error / paper[1] if paper[1] > 0 else np.nan, ".1f")
        if dataset.simulated:
            entry["pull"] = _number(row.pull, "+.1f")
        rows.append(entry)
    return Table(rows=rows) if rows else None


def all_galaxies(galaxies: Mapping[int, Galaxy], dataset: Dataset) -> Table | None:
    """The quantities of the headline for all galaxies, a column each.

    Parameters
    ----------
    galaxies : mapping of int to Galaxy
        By source id.
    dataset : Dataset
        Says what was injected.

    Returns
    -------
    astropy.table.Table or None
        Text: recovered value and error, with the pull in parentheses where something was injected. None without
        galaxies.
    """
    if not galaxies:
        return None
    columns = {"quantity": [label for label, _ in HEADLINE.values()]}
    for source_id, galaxy in galaxies.items():
        found = {row.quantity: row for row in report.rows(galaxy, dataset)}
        texts = []
        for name, (_, form) in HEADLINE.items():
            row = found.get(name, Row(name, ""))
            pull = f" ({_number(row.pull, '+.1f')}\u03c3)" if np.isfinite(row.pull) else ""
            texts.append(_with_error(row.recovered, row.error, form) + pull)
        columns[dataset.target(source_id).name or str(source_id)] = texts
    return Table(columns)


BUILDERS = {"drizzle": "drizzle", "paper": "published builder"}
"""What readers are told of a builder."""


def _of_paper(name: str, row: Row, dataset: Dataset) -> tuple[float, float]:
    """Published value and error; those of rotation as seen follow from the deprojected speed and the inclination."""
    known = report.published(dataset.case_study)
    if name == "v_sin_i_re" and {"v_rot", "inclination"} <= known.keys() and not np.isfinite(row.published):
        sine = float(np.sin(np.radians(known["inclination"].value)))
        return known["v_rot"].value * sine, known["v_rot"].error * sine
    return row.published, row.published_error


def _number(value: float, form: str) -> str:
    return f"{value:{form}}".replace("-", "\u2212") if np.isfinite(value) else ""


def _with_error(value: float, error: float, form: str) -> str:
    told, spread = _number(value, form), _number(error, form)
    return f"{told} \u00b1 {spread}" if spread else told
