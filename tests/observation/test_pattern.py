"""The pattern that pointings show."""

from __future__ import annotations

import numpy as np
import pytest

from msa3d.config import Pattern
from msa3d.observation.pattern import find_pattern


def pointings(pattern: Pattern, angle_deg: float = 33.0, centre=(215.0, 52.9), error: float = 0.0):
    """Pointings of a pattern, its axes turned on the sky, each off by some error (arcsec)."""
    angle, rng = np.deg2rad(angle_deg), np.random.default_rng(1)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    ra, dec = [], []
    for index in range(pattern.n_exposures):
        row, column = pattern.place(index)
        east, north = along * column * pattern.column_step_arcsec + across * row * pattern.row_step_arcsec
        east, north = np.array([east, north]) + rng.normal(0.0, error, 2)
        ra.append((centre[0] + east / 3600 / np.cos(np.deg2rad(centre[1]))) % 360)
        dec.append(centre[1] + north / 3600)
    return ra, dec


@pytest.mark.parametrize("order", ["serpentine", "raster"])
@pytest.mark.parametrize("rows, columns", [(7, 9), (3, 3), (2, 5), (5, 2)])
@pytest.mark.parametrize("angle", [0.0, 33.0, 200.0])
def test_whatever_the_pattern_it_is_found(rows, columns, order, angle):
    pattern = Pattern(rows=rows, columns=columns, order=order, row_step_arcsec=0.075, column_step_arcsec=0.2)
    found = find_pattern(*pointings(pattern, angle))
    assert (found.rows, found.columns, found.order) == (rows, columns, order)
    assert found.column_step_arcsec == pytest.approx(0.2, abs=1e-4)
    assert found.row_step_arcsec == pytest.approx(0.075, abs=1e-4)
    assert found.worst_arcsec < 1e-4


def test_pointing_errors_do_not_hide_it():
    found = find_pattern(*pointings(Pattern(), error=0.005))
    assert (found.rows, found.columns, found.order) == (7, 9, "serpentine")
    assert found.row_step_arcsec == pytest.approx(0.075, abs=0.002)
    assert 0.005 < found.worst_arcsec < 0.03


def test_across_the_origin_of_right_ascension():
    assert str(find_pattern(*pointings(Pattern(), centre=(0.00001, 10.0)))).startswith("7 x 9, serpentine")


def test_one_row_of_steps_and_one_exposure():
    found = find_pattern(*pointings(Pattern(rows=1, columns=6)))
    assert (found.rows, found.columns) == (1, 6)
    assert np.isnan(found.row_step_arcsec)
    assert str(find_pattern([215.0], [52.9])) == "1 x 1, serpentine"


def test_what_is_no_grid():
    ra, dec = pointings(Pattern(rows=3, columns=4))
    assert find_pattern(ra[:-1], dec[:-1]) is None  # the last row is not complete
    assert find_pattern([215.0] * 4, [52.9] * 4) is None  # no step at all
