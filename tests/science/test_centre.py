"""The error of a galaxy's centre is that of repeated measurements, and it reaches the systemic velocity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.science.cubes import DEC, RA, REDSHIFT, disc, empty, seen
from tests.science.test_kinematics import TRUE, with_disc

from msa3d.science.centre import centre_covariance, fit_centre
from msa3d.science.kinematics import fit_disc
from msa3d.science.profiles import fit_exponential

WAVE, NOISE = 1.2, 0.05


@pytest.fixture(scope="module")
def scene():
    cube = empty(21, np.array([1.1, 1.2, 1.3]), drizzled=True)
    return cube, seen(cube, disc(), 0.4, WAVE)


def test_centres_scatter_as_their_covariance_says(scene):
    cube, image = scene
    rng = np.random.default_rng(3)
    blanks = rng.normal(0.0, NOISE, (60, *image.shape))
    found = fit_exponential(image + blanks[0], cube, disc(), WAVE, blanks=blanks, error=np.full(image.shape, NOISE))
    sure = centre_covariance(found, cube, disc(), WAVE, blanks, np.isfinite(image))
    moved = []
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(0.0, NOISE, image.shape)
        centre = fit_centre(image + noise, cube, disc(), WAVE)
        moved.append(((centre.ra - RA) * np.cos(np.radians(DEC)) * 3600, (centre.dec - DEC) * 3600))
    scatter = np.std(moved, axis=0)
    assert scatter == pytest.approx(np.sqrt(np.diag(sure)), rel=0.35)
    assert np.abs(np.mean(moved, axis=0)).max() < 3.5 * scatter.max() / np.sqrt(40)


def test_nothing_is_known_of_a_centre_without_light(scene):
    cube, image = scene
    blanks = np.random.default_rng(1).normal(0.0, NOISE, (20, *image.shape))
    dark = replace(fit_exponential(image, cube, disc(), WAVE), log_centre=np.nan)
    assert np.isnan(centre_covariance(dark, cube, disc(), WAVE, blanks, np.isfinite(image))).all()


def test_an_uncertain_centre_makes_the_systemic_velocity_uncertain():
    cube = with_disc(0.02)
    place = {"ra": RA, "dec": DEC, "inclination_deg": 35.0, "pa_deg": TRUE.pa_deg, "sample": False}
    sigma = 0.02
    exact = fit_disc(cube, REDSHIFT, **place)
    unsure = fit_disc(cube, REDSHIFT, **place, centre_covariance=sigma**2 * np.eye(2))
    assert unsure.best == exact.best
    added = np.sqrt(unsure.error["systemic"] ** 2 - exact.error["systemic"] ** 2)
    # A centre that was really put elsewhere: along the major axis, where the velocity changes.
    angle = np.radians(TRUE.pa_deg)
    off = place | {"ra": RA + sigma * np.sin(angle) / 3600 / np.cos(np.radians(DEC))}
    off |= {"dec": DEC + sigma * np.cos(angle) / 3600}
    change = abs(fit_disc(cube, REDSHIFT, **off).best["systemic"] - exact.best["systemic"])
    assert added == pytest.approx(change, rel=0.3)
    assert added > 3.0 * exact.error["systemic"]
    # Across it nothing of the kind happens, and the dispersion does not mind.
    assert unsure.error["sigma0"] < 1.2 * exact.error["sigma0"]
