"""What a simulated observation was made with, value by value, and where each value comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from astropy.table import Table

from msa3d.galaxy.disc import kpc_per_arcsec
from msa3d.galaxy.report import published

if TYPE_CHECKING:
    from msa3d.config import Dataset, SimulatedSource

PUBLISHED, DERIVED, OURS = "", "\u2020", "*"
"""Marks of a value that is published, that follows from published ones, and that this project chose."""

Value = Callable[["SimulatedSource"], float]

_GALAXY: tuple[tuple[str, str, str, str, Value | None], ...] = (
    ("redshift", "redshift", ".3f", "redshift", None),
    ("stellar mass, log (M\u2609)", "log_mass", ".2f", "log_mass", None),
    ("star formation rate (M\u2609/yr)", "sfr_msun_yr", ".1f", "sfr", None),
    (
        "effective radius of the stellar disc (kpc)", "re_arcsec", ".2f", "re_disc_kpc",
        lambda source: source.re_arcsec * kpc_per_arcsec(source.redshift),
    ),
    ("the same (\u2033)", "re_arcsec", ".2f", "re_disc_kpc", None),
    ("scale length of star formation over that of the stars", "sfr_scale_ratio", ".2f", "", None),
    ("inclination (\u00b0)", "inclination_deg", ".1f", "inclination", None),
    ("position angle of the receding side, N through E (\u00b0)", "pa_deg", ".1f", "pa_deg", None),
    ("rotation speed at the effective radius, deprojected (km/s)", "v_rot_kms", ".1f", "v_rot", None),
    (
        r"the same as seen, $V \sin i$ (km/s)", "v_rot_kms", ".1f", "v_rot",
        lambda source: source.v_rot_kms * float(np.sin(np.radians(source.inclination_deg))),
    ),
    ("turn-over radius of the rotation curve (\u2033)", "r_turn_arcsec", ".2f", "", None),
    ("velocity dispersion of the gas (km/s)", "sigma0_kms", ".1f", "sigma0", None),
    ("12 + log(O/H) at the centre", "metallicity_centre", ".2f", "", None),
    ("metallicity gradient (dex/kpc)", "metallicity_gradient_dex_kpc", ".3f", "metallicity_gradient", None),
    ("$A_V$ at the centre (mag)", "av_centre", ".2f", "", None),
    ("gradient of $A_V$ (mag/kpc)", "av_gradient_mag_kpc", ".3f", "", None),
)  # fmt: skip
"""Label, field of `SimulatedSource`, format, quantity among the published ones, and what is shown if not the field."""

_TOLERANCE = 0.01


def galaxies(dataset: Dataset, most: int = 4) -> Table | None:
    """What the simulated galaxies were made with.

    Parameters
    ----------
    dataset : Dataset
        A simulated one.
    most : int
        How many galaxies have a column, the case study first.

    Returns
    -------
    astropy.table.Table or None
        A row a quantity and a column a galaxy, values as text: as they are where they are published, marked
        `DERIVED` where they follow from published ones, and `OURS` where this project chose them. None for an
        observation that is not simulated. A value counts as published where it is the published one, within 1%.
    """
    if dataset.simulation is None or not dataset.simulation.sources:
        return None
    sources = sorted(dataset.simulation.sources, key=lambda source: source.source_id != dataset.case_study)[:most]
    columns: dict[str, list[str]] = {"injected": [row[0] for row in _GALAXY] + ["shutters of the slitlet", "arms"]}
    for source in sources:
        papers = published(source.source_id)
        texts = []
        for _, field, form, name, shown in _GALAXY:
            value = shown(source) if shown else getattr(source, field)
            paper = papers.get(name)
            mark = _mark(source, field, paper.value if paper else None, shown is not None)
            texts.append(f"{value:{form}}".replace("-", "\u2212") + mark)
        texts += [f"{source.shutters}{DERIVED}", f"{source.morphology}{OURS}"]
        columns[dataset.target(source.source_id).name or str(source.source_id)] = texts
    columns["injected"][-1] = "what stands out against the exponential disc"
    return Table(columns)


def _mark(source: SimulatedSource, field: str, paper: float | None, converted: bool) -> str:
    if paper is None:
        return OURS
    value = getattr(source, field)
    if field == "re_arcsec":
        value = value * kpc_per_arcsec(source.redshift)
    if not np.isclose(value, paper, rtol=_TOLERANCE, atol=1e-9):
        return OURS
    # Published in kpc, deprojected: what is shown otherwise follows from it.
    return DERIVED if converted != (field == "re_arcsec") else PUBLISHED


INGREDIENTS = {
    "psf": "point-spread function of the segmented telescope",
    "bars": "bars between the shutters, with their shadow",
    "pathloss": "path loss at slit and grating",
    "background": "zodiacal background",
    "noise": "photon and read noise",
    "banding": "correlated (1/f) read noise",
    "cosmic_rays": "cosmic rays",
    "bad_pixels": "bad pixels",
    "saturation": "saturation",
    "failed_shutters": "shutters that are stuck open or closed",
}
"""What light and detectors go through, by the switches of the dataset."""


def setup(dataset: Dataset) -> Table | None:
    """Instrument and pattern of a simulated observation; None where it is not simulated.

    Parameters
    ----------
    dataset : Dataset
        Its ``simulation`` tells.

    Returns
    -------
    astropy.table.Table
        ``what``, ``value``.
    """
    made, pattern = dataset.simulation, dataset.pattern
    if made is None:
        return None
    steps = f"{pattern.columns} of {pattern.column_step_arcsec:g}\u2033"
    dithers = f"{pattern.rows} of {pattern.row_step_arcsec:g}\u2033"
    on = [text for name, text in INGREDIENTS.items() if getattr(made, name)]
    off = [text for name, text in INGREDIENTS.items() if not getattr(made, name)]
    rows = [
        ("filter and grating", f"{dataset.filter}, {dataset.grating}"),
        ("steps across the slit", steps),
        ("dithers along the slit", dithers),
        ("pointing of the reference point of the MSA (ICRS, \u00b0)", f"{made.ra_ref:.6f}, {made.dec_ref:.6f}"),
        ("position angle (\u00b0)", f"{made.v3_pa_deg:.3f}"),
        ("scatter of the pointings (mas per coordinate)", f"{1e3 * made.pointing_error_arcsec:g}"),
        ("groups per integration (NRSIRS2)", f"{made.groups}"),
        ("galaxies, other slitlets", f"{len(made.sources)}, {made.filler_slitlets}"),
        ("seed of all random numbers", f"{made.seed}"),
        ("simulated", "; ".join(on)),
        ("left out", "; ".join(off)),
    ]
    return Table(rows=rows, names=("what", "value"))
