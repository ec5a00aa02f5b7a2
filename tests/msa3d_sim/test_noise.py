"""The planes of a simulated rate image tell of the noise that was put in."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst.datamodels import dqflags

from msa3d.config import Simulation
from msa3d_sim.noise import RatePlanes, read_variance, spoil
from msa3d_sim.observe import write_rate

FLAGS = dqflags.pixel
QUIET = dict.fromkeys(("banding", "cosmic_rays", "bad_pixels", "saturation"), False)


def ideal(level: float = 0.05) -> np.ndarray:
    return np.full((2048, 2048), level)


def test_without_noise_the_image_is_the_ideal_one():
    planes = spoil(ideal(), "NRS1", 0, Simulation(noise=False, **QUIET))
    np.testing.assert_array_equal(planes.sci, np.float32(0.05))
    assert not planes.dq.any()


@pytest.mark.parametrize("banding", [False, True])
def test_errors_are_the_scatter(banding):
    planes = spoil(ideal(), "NRS1", 0, Simulation(**(QUIET | {"banding": banding})))
    pulls = (planes.sci - 0.05) / planes.err
    assert pulls.std() == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(planes.err**2, planes.var_poisson + planes.var_rnoise, rtol=1e-5)


def test_banding_is_common_to_a_column():
    planes = spoil(ideal(), "NRS1", 0, Simulation(**(QUIET | {"banding": True})))
    of_columns = (planes.sci - 0.05).mean(axis=0).std()
    alone = np.sqrt(np.median(planes.var_poisson + planes.var_rnoise) / 2048)
    assert of_columns > 3 * alone


def test_poisson_variance_follows_the_light():
    bright = spoil(ideal(1.0), "NRS1", 0, Simulation(**QUIET)).var_poisson.mean()
    faint = spoil(ideal(0.5), "NRS1", 0, Simulation(**QUIET)).var_poisson.mean()
    assert bright / faint == pytest.approx(2.0, rel=0.02)


def test_read_variance_falls_with_the_cube_of_the_time():
    assert read_variance(32) / read_variance(16) == pytest.approx(1 / 8, rel=0.01)


def test_flaws_are_flagged_and_lie_where_they_should():
    simulation = Simulation(noise=False, banding=False)
    planes, later = (spoil(ideal(), "NRS2", index, simulation) for index in (0, 1))
    broken = FLAGS["DEAD"] | FLAGS["HOT"]
    assert 0.002 < ((planes.dq & broken) > 0).mean() < 0.004
    # Broken pixels stay where they are from exposure to exposure, jumps do not.
    np.testing.assert_array_equal(planes.dq & broken, later.dq & broken)
    assert ((planes.dq & FLAGS["JUMP_DET"]) != (later.dq & FLAGS["JUMP_DET"])).any()
    saturated = (planes.dq & FLAGS["SATURATED"]) > 0
    np.testing.assert_array_equal(np.isnan(planes.sci), saturated)
    # What stage 1 missed is not flagged: that is what post-processing is for.
    assert ((planes.sci > 0.07) & (planes.dq == 0)).sum() > 500


def test_the_same_seed_gives_the_same_image():
    first, again = (spoil(ideal(), "NRS1", 3, Simulation()) for _ in range(2))
    np.testing.assert_array_equal(first.sci, again.sci)
    other = spoil(ideal(), "NRS1", 4, Simulation())
    assert not np.array_equal(first.sci, other.sci)


@pytest.fixture
def noisy() -> RatePlanes:
    return spoil(ideal(), "NRS1", 0, Simulation())


def test_a_rate_file_is_small_and_loses_a_sixtieth_of_sigma(noisy, tmp_path):
    path = tmp_path / "rate.fits"
    write_rate(path, noisy, fits.Header(), fits.Header({"EXTNAME": "SCI"}), exact=False)
    assert path.stat().st_size < 6.5e6
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE"]
        loss = (hdus["SCI"].data - noisy.sci) / noisy.err
        assert np.nanstd(loss) == pytest.approx(1 / (20 * np.sqrt(12)), rel=0.05)
        np.testing.assert_array_equal(np.isnan(hdus["SCI"].data), np.isnan(noisy.sci))
        np.testing.assert_array_equal(hdus["DQ"].data, noisy.dq)
        np.testing.assert_allclose(hdus["ERR"].data, noisy.err, rtol=1e-3)
    assert [p.name for p in tmp_path.iterdir()] == ["rate.fits"]


def test_a_noiseless_rate_file_loses_nothing(tmp_path):
    planes = spoil(ideal() * np.linspace(0, 1, 2048), "NRS1", 0, Simulation(noise=False, **QUIET))
    write_rate(tmp_path / "r.fits", planes, fits.Header(), fits.Header({"EXTNAME": "SCI"}), exact=True)
    with fits.open(tmp_path / "r.fits") as hdus:
        np.testing.assert_array_equal(hdus["SCI"].data, planes.sci)
