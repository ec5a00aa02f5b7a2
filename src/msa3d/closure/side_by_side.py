"""The same galaxies measured in the cubes of both builders: what each recovers of what was injected."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table

from msa3d.config import Dataset
from msa3d.galaxy import report
from msa3d.galaxy.measure import Galaxy

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


def summary(table: Table) -> Table:
    """Pulls of all galaxies and quantities, a row a builder.

    Parameters
    ----------
    table : astropy.table.Table
        Of `compared`.

    Returns
    -------
    astropy.table.Table
        ``builder``, ``rms of pulls``, ``largest pull``, and mean ``recovered over injected`` flux of Ha.
    """
    rows = []
    for builder in (name.removesuffix("_pull") for name in table.colnames if name.endswith("_pull")):
        pulls = np.asarray(table[f"{builder}_pull"], dtype=float)
        pulls = pulls[np.isfinite(pulls)]
        flux = np.asarray(table[f"{builder}_ratio"], dtype=float)[table["quantity"] == "flux_Ha"]
        if pulls.size:
            rms = float(np.sqrt(np.mean(pulls**2)))
            rows.append((builder, f"{rms:.2f}", f"{np.abs(pulls).max():.1f}", f"{np.nanmean(flux):.2f}"))
    return Table(rows=rows or None, names=("builder", "rms of pulls", "largest pull", "recovered over injected Ha"))
