"""The light that a galaxy is said to have been given is that which the simulation gave it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid

from msa3d.config import Dataset
from msa3d.galaxy import report
from msa3d.galaxy.injected import LINES_GIVEN, line_discs
from msa3d_sim import spectrum
from msa3d_sim.galaxy import DiscGalaxy

NAMES = {"Ha": "HA", "Hb": "HB", "[NII]6583": "NII6583", "[OIII]5007": "OIII5007"}


@pytest.mark.parametrize("source_id", [8512, 29470, 12015])
def test_lines_are_those_of_the_simulation(source_id: int):
    dataset = Dataset.load("demo")
    truth = report.injected(dataset, source_id)
    source = next(s for s in dataset.simulation.sources if s.source_id == source_id)
    galaxy = DiscGalaxy(source, dataset.simulation.seed)
    species = {line.name: line for line in spectrum.LINES}
    radius = np.linspace(0.0, 6.0, 20001)
    found = line_discs(truth)
    assert set(found) == set(LINES_GIVEN)
    for line, (flux, scale) in found.items():
        profile = galaxy.line_profile(species[NAMES[line]], radius)
        assert flux == pytest.approx(trapezoid(2.0 * np.pi * radius * profile, radius), rel=3e-3), line
        near = radius < 1.5
        assert -1.0 / scale == pytest.approx(np.polyfit(radius[near], np.log(profile[near]), 1)[0], rel=3e-3), line
        assert truth[f"flux_{line}"] == pytest.approx(1e17 * flux)
