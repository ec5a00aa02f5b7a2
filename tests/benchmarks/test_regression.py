"""A straight line through metallicities of independent spaxels has the right slope and error, if none are chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from msa3d.galaxy import metals

from ..fixtures.cubes import REDSHIFT, SPREAD, add_lines, disc, empty, wavelengths
from .regression import NAMES, usual_gradient

SCALES = {"Ha": 0.5, "[NII]6583": 0.4}
RATIO = 0.4
SEEDS = 10


def slopes(brightness: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Slopes and formal errors over seeds (dex/kpc), and the slope that was injected."""
    found = []
    for seed in range(SEEDS):
        cube = empty(15, wavelengths(1.36, 1.40), sigma=0.05, seed=seed)
        radius = disc().radius(cube)
        bright = dict(zip(NAMES, (brightness, RATIO * brightness), strict=True))
        add_lines(cube, {name: bright[name] * np.exp(-radius / SCALES[name]) for name in NAMES}, 0.0, 40.0)
        # A published cube has no errors.
        gradient, _ = usual_gradient(replace(cube, err=None), REDSHIFT, disc(), SPREAD)
        found.append((gradient.slope, gradient.slope_error))
    rate = 1.0 / SCALES["[NII]6583"] - 1.0 / SCALES["Ha"]
    relation = metals.metallicity_calibration("PP04_N2")
    injected = -float(relation.slope(np.log10(RATIO))) * rate / np.log(10.0) / disc().kpc_per_arcsec
    return *np.array(found).T, injected


def test_bright_independent_spaxels_have_the_right_slope_and_error():
    slope, formal, injected = slopes(3e-15)
    pulls = (slope - injected) / formal
    assert abs(pulls.mean()) < 4.0 * SEEDS**-0.5
    # A width of ten pulls is known to 0.24.
    assert 0.4 < pulls.std(ddof=1) < 1.8


def test_spaxels_chosen_by_their_noise_flatten_the_slope():
    slope, _, injected = slopes(6e-17)
    assert injected < 0.0
    assert slope.mean() - injected > 3.0 * slope.std(ddof=1) * SEEDS**-0.5
