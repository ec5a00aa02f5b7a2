"""Twenty noise realisations of a small galaxy: pulls of all that is measured, their mean and width.

The cube is as large as one of `tiny`. Its noise is shared by neighbouring voxels as that of a drizzled cube is, and
the cube knows how. Errors are those of the optimiser and of places without lines: no posterior is sampled.

Not a test, as it takes minutes. The table is printed, and written where MSA3D_REALISATIONS says
(book/realisations.csv): ``make test PYTESTARGS="-o python_files=bench_*.py tests/benchmarks/bench_realisations.py"``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from msa3d.galaxy.dust import CASE_B, curve
from msa3d.galaxy.measure import Galaxy, measure

from ..fixtures.cubes import REDSHIFT
from ..fixtures.galaxies import DISC, GEOMETRY, SCALES, SIGMA0, STARS, TOTALS, noiseless, noisy
from ..fixtures.tables import show

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
    found = {name: np.array([one[name] for one in every if name in one]) for name in names}
    return found | {"all together": np.concatenate(list(found.values()))}


def test_pulls_of_twenty_realisations(table, capsys):
    rows = [
        {
            "quantity": name,
            "realisations": NUMBER,
            "mean pull": f"{values.mean():+.2f}",
            "width": f"{values.std(ddof=1):.2f}",
            "largest": f"{np.abs(values).max():.1f}",
        }
        for name, values in table.items()
    ]
    show(Table(rows=rows), "MSA3D_REALISATIONS", capsys)
    together = table["all together"]
    assert abs(together.mean()) < 0.3
    assert abs(together.std() - 1.0) < 0.25
    # Of twenty, a mean scatters by 0.22 and a width by 0.16: four times that is no chance.
    for name, values in table.items():
        assert abs(values.mean()) < 0.3 + 4.0 / np.sqrt(NUMBER), name
        assert values.std(ddof=1) < 1.25 + 4.0 / np.sqrt(2.0 * NUMBER), name
