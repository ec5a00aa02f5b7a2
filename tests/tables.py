"""Numbers of a table, held against what they were."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table


def numbers(**tables: Table) -> dict[str, np.ndarray]:
    """Columns of numbers of some tables, as the regression fixture takes them: ``<table>_<column>``."""
    found = {f"{at}_{name}": table[name] for at, table in tables.items() for name in table.colnames}
    return {name.replace(" ", "_"): np.asarray(c) for name, c in found.items() if c.dtype.kind in "biuf"}


def within_errors(values: Mapping[str, np.ndarray], part: float = 0.05) -> dict[str, dict[str, float]]:
    """Tolerances for quantities beside their ``<name>_error``: an optimiser stops elsewhere on another processor."""
    found = {}
    for name in values:
        error = values.get(f"{name}_error")
        if error is not None:
            found[name] = {"rtol": 0.0, "atol": part * float(np.nanmin(error))}
            found[f"{name}_error"] = {"rtol": 0.02, "atol": 0.0}
    return found
