"""The same galaxies measured in the cubes of both builders: what each gets back of what was put in."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table

from msa3d.config import Dataset
from msa3d.galaxy import measure
from msa3d.galaxy.measure import Galaxy

RATIOS = ("sigma0", "v_sin_i_re", "scale_line", "scale_continuum", "flux_Ha", "flux_[NII]6583")
"""Quantities that are compared as recovered over injected: positive, and well above their errors."""
QUOTED = (*RATIOS, "pa_deg", "redshift", "metallicity_gradient")
"""Quantities that the book quotes."""


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
            for row in measure.rows(galaxy, dataset):
                if not np.isfinite(row.pull):
                    continue
                first = {"galaxy": source_id, "quantity": row.quantity, "unit": row.unit, "injected": row.injected}
                entry = rows.setdefault((source_id, row.quantity), first | dict.fromkeys(columns, np.nan))
                ratio = row.recovered / row.injected if row.quantity in RATIOS else np.nan
                entry |= {builder: row.recovered, f"{builder}_error": row.error, f"{builder}_pull": row.pull}
                entry[f"{builder}_ratio"] = ratio
                rows[source_id, row.quantity] = entry
    names = ["galaxy", "quantity", "unit", "injected", *columns]
    return Table(rows=list(rows.values()) or None, names=names) if rows else Table(names=names)


def quoted(found: Mapping[str, Mapping[int, Galaxy]], dataset: Dataset) -> dict[str, float]:
    """Give the numbers of a comparison of ``drizzle`` and ``paper`` that the book quotes.

    Parameters
    ----------
    found : mapping of str to mapping of int to Galaxy
        By builder and source id; may be empty.
    dataset : Dataset
        Says what was injected.

    Returns
    -------
    dict of str to float
        ``sides_<builder>_<quantity>_ratio`` and ``..._pull`` of the galaxy whose Ha is best measured (its id:
        ``sides_galaxy``), and ``sides_<builder>_rms``, ``..._worst`` and ``..._flux`` (mean of recovered over
        injected Ha) of all galaxies; NaN where there is none.
    """
    table = compared(found, dataset)
    sure = {i: g.discs["Ha"].total / g.discs["Ha"].total_error for i, g in found.get("drizzle", {}).items()}
    best = max(sure, key=sure.__getitem__) if sure else -1
    values = {"sides_galaxy": float(best) if sure else float("nan")}
    for builder in ("drizzle", "paper"):
        known = table if builder in table.colnames else table[:0]
        for quantity in QUOTED:
            here = [row for row in known if row["galaxy"] == best and row["quantity"] == quantity]
            for part in ("ratio", "pull"):
                value = float(here[0][f"{builder}_{part}"]) if here else float("nan")
                # A glue's name goes into a link, where brackets mean something.
                values[f"sides_{builder}_{quantity.replace('[', '').replace(']', '')}_{part}"] = value
        pulls = np.array([row[f"{builder}_pull"] for row in known], dtype=float)
        pulls = pulls[np.isfinite(pulls)]
        flux = [float(row[f"{builder}_ratio"]) for row in known if row["quantity"] == "flux_Ha"]
        values[f"sides_{builder}_rms"] = float(np.sqrt(np.mean(pulls**2))) if pulls.size else float("nan")
        values[f"sides_{builder}_worst"] = float(np.abs(pulls).max()) if pulls.size else float("nan")
        values[f"sides_{builder}_flux"] = float(np.nanmean(flux)) if np.isfinite(flux).any() else float("nan")
    return values
