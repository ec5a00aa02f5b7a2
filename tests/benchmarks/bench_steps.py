"""What the parts cost that msa3d computes itself, at the size of the real pattern."""

from __future__ import annotations

import numpy as np
import pytest

from msa3d.config import Simulation
from msa3d.published import cube as published_cube
from msa3d_sim.noise import spoil

from ..fixtures.stepping import Stepping, blob, wavelengths


@pytest.fixture(scope="module")
def spectra():
    """63 exposures of a slitlet of three shutters, both detectors long."""
    stepping = Stepping(rows=7, columns=9, ny=26, wave_um=wavelengths(3800))
    return stepping.spectra(blob(stepping.ra, stepping.dec))


def test_published_cube_of_63_exposures(benchmark, spectra):
    cube = benchmark.pedantic(published_cube.build_median, (spectra,), {"n_rows": 7, "n_columns": 9}, rounds=3)
    assert cube.data.shape[2] == 9


def test_noise_of_one_detector(benchmark):
    planes = benchmark.pedantic(spoil, (np.full((2048, 2048), 0.01), "NRS1", 0, Simulation()), rounds=3)
    assert np.isfinite(planes.err).all()
