"""Figures of a measured galaxy show the numbers that were measured, and what was injected and published beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from msa3d.closure.truth import TrueLines
from msa3d.config import Dataset
from msa3d.figures import cube as figures_cube
from msa3d.figures import galaxy as figures_galaxy
from msa3d.galaxy import report
from msa3d.galaxy.measure import Galaxy, measure

from ..fixtures.cubes import DEC, RA, REDSHIFT
from ..fixtures.galaxies import GEOMETRY, noiseless, noisy

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(matplotlib|pyparsing)")


@pytest.fixture(scope="module")
def galaxy() -> Galaxy:
    return measure(noisy(noiseless(), 0.1, 5), REDSHIFT, replace(GEOMETRY, pa_deg=0.0), source_id=8512, sample=False)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """The case study, moved to where the synthetic galaxy lies."""
    whole = Dataset.load("tiny")
    target = whole.targets[0].model_copy(update={"ra": RA, "dec": DEC, "redshift": REDSHIFT})
    return whole.model_copy(update={"targets": [target]})


def panel(figure: Figure, title: str):
    """Axes whose title begins so."""
    return next(
        axes for axes in figure.axes if axes.get_title().startswith(title) or axes.get_title("left").startswith(title)
    )


def labels(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_kinematics(dataset: Dataset, galaxy: Galaxy):
    figure = figures_galaxy.plot_kinematics(dataset, galaxy)
    curve = panel(figure, "f")
    assert {"fitted disc", "injected", "published"} <= set(labels(curve))
    kpc = GEOMETRY.kpc_per_arcsec
    lines = {line.get_label(): line for line in curve.lines}
    radius, speed = lines["fitted disc"].get_data()
    # The figure takes its kpc from the redshift of the target, the test's galaxy from a number near it.
    expected = galaxy.kinematics.rotation(radius / kpc)[0]
    assert np.abs(speed - expected)[10:] == pytest.approx(0.0, abs=3.0 * galaxy.kinematics.error["v_sin_i"])
    put_in = lines["injected"].get_ydata()
    assert put_in[-1] < report.injected(dataset, 8512)["v_sin_i"]
    # No ring sets a scale that the curve does not need.
    low, high = curve.get_ylim()
    assert -0.6 * speed.max() < low <= 0.0
    assert high < 3.0 * speed.max() + 60.0


def test_metallicity_and_attenuation(dataset: Dataset, galaxy: Galaxy):
    for figure, gradient, unit in (
        (figures_galaxy.plot_metallicity(dataset, galaxy), galaxy.metallicity["PP04_N2"], "dex/kpc"),
        (figures_galaxy.plot_attenuation(dataset, galaxy), galaxy.av, "mag/kpc"),
    ):
        told = next(text for text in labels(panel(figure, "b")) if text.startswith("fit"))
        sign = "+" if gradient.slope > 0 else "\u2212"
        assert told == f"fit: {sign}{abs(gradient.slope):.3f} \u00b1 {gradient.slope_error:.3f} {unit}"


def test_attenuation_has_colours_that_dust_can_make(dataset: Dataset, galaxy: Galaxy):
    figure = figures_galaxy.plot_attenuation(dataset, galaxy)
    mesh = next(item for item in panel(figure, "a").collections if isinstance(item, QuadMesh))
    low, high = mesh.get_clim()
    assert (low, high >= 3.0) == (0.0, True)
    assert figures_galaxy.plot_attenuation(dataset, replace(galaxy, av=None)) is None


def test_star_formation(dataset: Dataset, galaxy: Galaxy):
    figure = figures_galaxy.plot_sfr_profile(dataset, galaxy)
    told = " ".join(labels(panel(figure, "b")))
    # Scale lengths are told in kpc, as the target's redshift has it.
    for disc in (galaxy.discs["Ha"], galaxy.stars):
        assert any(f"h = {disc.scale_arcsec * scale:.2f}" in told for scale in (8.17, 8.18, 8.19, 8.2, 8.16))
    assert "injected" in told


def test_maps_of_a_line_and_their_errors(dataset: Dataset, galaxy: Galaxy):
    true = TrueLines(galaxy.lines, galaxy.binned)
    figure = figures_cube.plot_line_maps(dataset, galaxy, true)
    titles = [axes.get_title() or axes.get_title("left") for axes in figure.axes]
    assert [title for title in titles if title] == [
        "a  result",
        "b  error",
        "c  truth",
        "d  (result \u2212 truth) / error",
    ]
    pull = next(item for item in panel(figure, "d").collections if isinstance(item, QuadMesh)).get_array()
    np.testing.assert_allclose(np.ma.filled(pull, 0.0), 0.0, atol=1e-12)
    alone = figures_cube.plot_line_maps(dataset, galaxy)
    assert not [axes for axes in alone.axes if axes.get_title("left").startswith("c")]
    assert f"{galaxy.bins.n_bins} bins" in alone.msa3d_alt


def test_atlas_entry_leaves_out_velocities_that_are_not_known(dataset: Dataset, galaxy: Galaxy):
    entry = figures_galaxy.atlas_entry(dataset, galaxy)
    assert entry.target.source_id == 8512
    speed = galaxy.bins.spread(np.where(galaxy.binned.velocity_error < 60.0, galaxy.binned.velocity, np.nan))
    np.testing.assert_array_equal(entry.velocity, speed)
