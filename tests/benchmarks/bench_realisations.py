"""Twenty noise realisations of a small galaxy: pulls of all that is measured, their mean and width.

Not a test, as it takes minutes: ``pytest tests/benchmarks/bench_realisations.py`` prints the table.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.science.cubes import REDSHIFT
from tests.science.galaxies import DISC, GEOMETRY, SCALES, SIGMA0, STARS, TOTALS, noiseless, noisy

from msa3d.science.attenuation import CASE_B, curve
from msa3d.science.galaxy import Galaxy, measure

NUMBER = 20
NOISE = 0.25
"""MJy/sr a voxel: Ha has a signal to noise of about 12 in the brightest spaxels."""


def pulls(galaxy: Galaxy) -> dict[str, float]:
    """(measured - true) / error of each quantity."""
    found = {}
    fit = galaxy.kinematics
    truth = {"pa_deg": DISC.pa_deg, "v_sin_i": DISC.v_sin_i, "r_turn": DISC.r_turn, "sigma0": SIGMA0, "systemic": 0.0}
    for name, true in truth.items():
        found[name] = (fit.best[name] - true) / fit.error[name]
    for name in SCALES.keys() & galaxy.discs.keys():
        disc = galaxy.discs[name]
        found[f"rate {name}"] = (disc.rate - 1 / SCALES[name]) / np.sqrt(disc.covariance[1, 1])
        found[f"total {name}"] = (disc.total - TOTALS[name]) / disc.total_error
    found["rate stars"] = (galaxy.stars.rate - 1 / STARS) / np.sqrt(galaxy.stars.covariance[1, 1])
    per_kpc = 1.0 / np.log(10) / GEOMETRY.kpc_per_arcsec
    metals = galaxy.metallicity["PP04_N2"]
    true = -0.57 * (1 / SCALES["[NII]6583"] - 1 / SCALES["Ha"]) * per_kpc
    found["metallicity_gradient"] = (metals.slope - true) / metals.slope_error
    if galaxy.av is not None:
        per_e = 2.5 / (curve("Hb") - curve("Ha"))
        peak = {name: TOTALS[name] / SCALES[name] ** 2 for name in SCALES}
        true = per_e * (1 / SCALES["Hb"] - 1 / SCALES["Ha"]) * per_kpc
        found["av_gradient"] = (galaxy.av.slope - true) / galaxy.av.slope_error
        centre = per_e * np.log10(peak["Ha"] / peak["Hb"] / CASE_B)
        found["av_centre"] = (galaxy.av.centre - centre) / galaxy.av.centre_error
    return found


@pytest.fixture(scope="module")
def table() -> dict[str, np.ndarray]:
    base, start = noiseless(), replace(GEOMETRY, pa_deg=0.0)
    every = [pulls(measure(noisy(base, NOISE, seed), REDSHIFT, start, sample=False)) for seed in range(NUMBER)]
    names = sorted(set().union(*every))
    return {name: np.array([one[name] for one in every if name in one]) for name in names}


def test_pulls_of_twenty_realisations(table, capsys):
    with capsys.disabled():
        for name, values in table.items():
            line = f"{name:22s} n {values.size:2d} mean {values.mean():+.2f} width {values.std(ddof=1):.2f}"
            print(f"\n{line} largest {np.abs(values).max():.2f}", end="")  # noqa: T201
    together = np.concatenate(list(table.values()))
    assert abs(together.mean()) < 0.3
    assert abs(together.std() - 1.0) < 0.25
