"""Line fits of one cube as large as those of `demo`, on one core: all lines of every spaxel, free, then the disc given.

``pytest -o python_files='bench_*.py' --benchmark-only tests/benchmarks/bench_science.py``
"""

from __future__ import annotations

import numpy as np
import pytest

from msa3d.cubes.cube import Cube
from msa3d.galaxy.fit import fit_lines

from ..fixtures.cubes import REDSHIFT, SPREAD, add_lines, disc, empty, wavelengths

SPAXELS, FIRST_UM, LAST_UM = 31, 0.97, 1.50
"""961 spaxels and 2246 wavelengths: the cube of the case study has 875 and 2232."""


@pytest.fixture(scope="module")
def cube() -> Cube:
    cube = empty(SPAXELS, wavelengths(FIRST_UM, LAST_UM), sigma=0.1, seed=1, drizzled=True)
    radius = disc().radius(cube)
    light = 1e-16 * np.exp(-radius / 0.4)
    lines = {"Ha": light, "[NII]6583": 0.3 * light, "Hb": 0.3 * light, "[OIII]5007": 0.4 * light}
    east, _ = cube.offsets(disc().ra, disc().dec)
    add_lines(cube, lines, 80.0 * np.tanh(east / 0.3), 40.0)
    return cube


def test_lines_of_a_cube_free(benchmark, cube):
    fit = benchmark.pedantic(fit_lines, (cube, REDSHIFT), {"spread": SPREAD}, rounds=1)
    benchmark.extra_info["spaxels"] = int(np.isfinite(fit.flux["Ha"]).sum())
    assert np.isfinite(fit.flux["Ha"]).all()


def test_lines_of_a_cube_with_the_disc_given(benchmark, cube):
    options = {"spread": SPREAD, "velocity": np.zeros(cube.shape), "sigma": np.full(cube.shape, 40.0)}
    fit = benchmark.pedantic(fit_lines, (cube, REDSHIFT), options, rounds=1)
    assert np.isfinite(fit.flux["Ha"]).all()
