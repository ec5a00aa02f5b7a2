"""GalPaK, another code, finds the disc that was put in, near enough; and it ends when its time is up."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace

import numpy as np
import pytest

from msa3d.cubes.cube import Cube
from msa3d.errors import ProductError

from ..fixtures.cubes import DEC, RA, REDSHIFT
from ..galaxy.test_discfit import SIGMA0, TRUE, with_disc
from .galpak_check import galpak_check

PLACE = {"ra": RA, "dec": DEC, "inclination_deg": 35.0, "pa_deg": TRUE.pa_deg}
START = {"v_sin_i": 75.0, "sigma0": 50.0, "r_turn": 0.2}


@pytest.fixture(scope="module")
def cube() -> Cube:
    return with_disc(0.02)


@pytest.fixture(scope="module")
def found(cube: Cube) -> dict[str, float]:
    return galpak_check(cube, REDSHIFT, **PLACE, start=START, iterations=300, seconds=120)


def test_the_disc_comes_back(found: dict[str, float]):
    assert abs((found["pa_deg"] - TRUE.pa_deg + 180.0) % 360.0 - 180.0) < 8.0
    assert found["v_sin_i"] == pytest.approx(TRUE.v_sin_i, rel=0.2)
    # It knows nothing of the shift of light beside the slit's middle, and has a thickness of its own.
    assert found["sigma_re"] == pytest.approx(SIGMA0, rel=0.3)
    assert found["systemic"] == pytest.approx(TRUE.systemic, abs=10.0)
    assert found["sigma_re"] >= found["sigma0"]
    assert all(found[f"{name}_error"] > 0 for name in ("v_sin_i", "sigma0", "systemic", "pa_deg", "r_turn"))


def test_the_same_seed_gives_the_same_numbers(cube: Cube):
    one, two = (galpak_check(cube, REDSHIFT, **PLACE, start=START, iterations=30, seed=3) for _ in range(2))
    assert one == two


def test_it_ends_when_its_time_is_up_and_leaves_logging_alone(cube: Cube):
    before = logging.root.manager.disable
    with pytest.raises(ProductError, match="took more than 1 s"):
        galpak_check(cube, REDSHIFT, **PLACE, start=START, iterations=200_000, seconds=1)
    assert logging.root.manager.disable == before


def test_what_it_cannot_do_is_said(cube: Cube, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ProductError, match="no errors"):
        galpak_check(replace(cube, err=None), REDSHIFT, **PLACE)
    monkeypatch.setitem(sys.modules, "galpak", None)
    with pytest.raises(ProductError, match="not installed"):
        galpak_check(cube, REDSHIFT, **PLACE)
    assert np.isfinite(cube.data).all()
