"""Figures of all galaxies together, and the point-spread function on a map."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from msa3d.config import Dataset
from msa3d.figures import maps as figures_maps
from msa3d.figures import overview
from msa3d.observation.multiplex import PUBLISHED_GAIN, compare

from ..fixtures.run_on_disk import small_cube
from .checks import HOSTILE, check_files, check_letters, check_names, check_panels, check_texts

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(matplotlib|pyparsing)")

NOISE = 0.05


@pytest.fixture(scope="module")
def dataset():
    return Dataset.load("demo")


@pytest.fixture(scope="module")
def cube():
    return small_cube(NOISE)


def report(shift):
    injected = np.array([6.1, 36.0, -0.02])
    error = np.array([0.9, 3.0, 0.004])
    found = injected + shift * error
    columns = {"quantity": ["v_over_sigma", "sigma0", "metallicity_gradient"], "unit": ["", "km/s", "dex/kpc"]}
    columns |= {"published": [6.1, 36.0, -0.02], "injected": injected, "recovered": found, "error": error}
    return Table({**columns, "pull": (found - injected) / error})


DRAWN = {
    "survey": overview.plot_survey,
    "multiplex": lambda _: overview.plot_multiplex(),
    "recovered": lambda _: overview.plot_recovered({HOSTILE: report(0.5), "two": report(-1.0)}),
    "turbulence": lambda d: overview.plot_turbulence(d, {"8512": report(0.5), "12015": report(-1.0)}),
}


@pytest.fixture(params=DRAWN)
def drawn(request, dataset):
    return request.param, DRAWN[request.param](dataset)


def test_every_figure_is_marked_described_and_saved(drawn, tmp_path):
    name, figure = drawn
    check_texts(figure, simulated=name in ("recovered", "turbulence"))
    check_letters(figure)
    check_panels(figure)
    if name == "recovered":
        check_names(figure)
    check_files(figure, tmp_path)


def test_the_survey_marks_the_galaxies_of_the_run(dataset):
    figure = overview.plot_survey(dataset)
    assert len(figure.msa3d_data) == 30
    marked = figure.axes[2].lines[1].get_xydata()
    assert len(marked) == len(dataset.source_ids) == 3
    assert {round(x, 4) for x, _ in marked} == {round(target.ra, 4) for target in dataset.targets}


def test_the_main_sequence_is_that_of_its_paper():
    """Speagle et al. (2014): 10^10.5 solar masses form 1.9 solar masses a year today, and some thirty at z = 1.5."""
    today, early = (float(overview.main_sequence(np.array(10.5), z)) for z in (1e-3, 1.5))
    assert today == pytest.approx((0.84 - 0.026 * 13.47) * 10.5 - (6.51 - 0.11 * 13.47), abs=0.02)
    assert 1.2 < early < 1.7


def test_quantities_that_follow_from_others_count_once():
    figure = overview.plot_recovered({"one": report(1.0)})
    assert sorted(figure.msa3d_data["quantity"]) == ["metallicity_gradient", "sigma0"]
    # A second calibration is shown, but not counted.
    more = report(1.0)
    more["quantity"] = ["metallicity_gradient_PP04_O3N2", "sigma0", "metallicity_gradient"]
    figure = overview.plot_recovered({"one": more})
    assert len(figure.msa3d_data) == 3 and "chi square of the other 2 pulls is 2.0" in figure.msa3d_caption


def test_no_single_number_is_the_gain(dataset):
    figure = overview.plot_multiplex()
    table = figure.msa3d_data
    part = table[table["panel"] == "a"]
    assert np.all(part["low"] <= part["gain"]) and np.all(part["gain"] <= part["high"])
    at = 43
    low, high = (compare(targets=at, noise_penalty=p, throughput_ratio=t).gain
                 for p, t in zip(overview.PENALTIES, overview.THROUGHPUTS[::-1], strict=True))  # fmt: skip
    assert low < PUBLISHED_GAIN < high
    assert f"{low:.1f} to {high:.1f}" in figure.msa3d_caption


def test_the_psf_is_wider_across_the_slit(cube):
    """A slit at 20 deg: the long axis of the ellipse stands across it, wherever the 90 deg are counted from."""
    long, short, angle = figures_maps.psf_ellipse(cube, 1.38)
    assert 0.1 < short < long < 0.5
    assert abs((angle - 20.0 + 90.0) % 180.0 - 90.0) > 60.0
    assert figures_maps.psf_ellipse(replace(cube, header=fits.Header()), 1.38) is None


def test_nothing_to_compare(dataset):
    empty = report(1.0)
    empty["pull"] = np.nan
    assert overview.plot_recovered({"one": empty}) is None
    assert overview.plot_turbulence(dataset, {}) is None
