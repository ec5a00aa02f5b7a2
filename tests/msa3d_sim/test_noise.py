"""The planes of a simulated rate image tell of the noise that was put in."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst.datamodels import dqflags

from msa3d.config import Simulation
from msa3d_sim.noise import (
    BANDING_FRACTION,
    NOISE_SCATTER,
    NOISY_FRACTION,
    OPEN_FRACTION,
    OPEN_LOSS,
    OWN_BANDING,
    RatePlanes,
    banding,
    read_variance,
    spoil,
)
from msa3d_sim.observe import write_rate

FLAGS = dqflags.pixel
QUIET = dict.fromkeys(("banding", "noisy_pixels", "cosmic_rays", "bad_pixels", "saturation"), False)


def ideal(level: float = 0.05) -> np.ndarray:
    return np.full((2048, 2048), level)


def test_without_noise_the_image_is_the_ideal_one():
    planes = spoil(ideal(), "NRS1", 0, Simulation(noise=False, **QUIET))
    np.testing.assert_array_equal(planes.sci, np.float32(0.05))
    assert not planes.dq.any()


@pytest.mark.parametrize("more", [{}, {"banding": True}, {"banding": True, "noisy_pixels": True}])
def test_errors_are_the_scatter(more):
    planes = spoil(ideal(), "NRS1", 0, Simulation(**(QUIET | more)))
    pulls = (planes.sci - 0.05) / planes.err
    assert pulls.std() == pytest.approx(1.0, abs=0.01)
    np.testing.assert_allclose(planes.err**2, planes.var_poisson + planes.var_rnoise, rtol=1e-5)


def test_banding_is_common_to_a_column():
    planes = spoil(ideal(), "NRS1", 0, Simulation(**(QUIET | {"banding": True})))
    of_columns = (planes.sci - 0.05).mean(axis=0).std()
    alone = np.sqrt(np.median(planes.var_poisson + planes.var_rnoise) / 2048)
    assert of_columns > 3 * alone


@pytest.fixture(scope="module")
def drift():
    """1/f noise alone, in units of the read noise."""
    return banding(np.random.default_rng(1), np.ones((2048, 2048)), along=True)


def test_the_drift_is_1_over_f_in_the_order_of_the_readout(drift):
    """Power times frequency is the same along columns (within one line) and from column to column."""
    series = drift[:512] - drift[:512].mean()
    # From column to column: a step of one line of 712 ticks of the clock.
    across = np.abs(np.fft.rfft(drift.mean(axis=0))) ** 2 / 2048
    octave = [across[k : 2 * k].sum() * 2 / 2048 for k in (32, 64, 128, 256)]
    assert max(octave) < 1.6 * min(octave)
    # Within a column: 512 pixels of an output, with reference pixels every 16 of them.
    taper = np.hanning(512)[:, None]
    within = (np.abs(np.fft.rfft((series - series.mean(axis=0)) * taper, axis=0)) ** 2).mean(axis=1)
    within *= 2 / 512 / (taper**2).sum()
    along = [within[k : 2 * k].sum() for k in (4, 8, 16, 32)]
    assert max(along) < 1.25 * min(along)
    assert np.mean(along) == pytest.approx(np.mean(octave), rel=0.25)
    # Nothing is left that is slower than 256 columns: reference pixels took it out.
    assert across[1:7].sum() < 0.01 * across[8:64].sum()


def test_the_drift_is_as_large_as_it_says_and_partly_of_each_output(drift):
    outputs = np.array([drift[512 * k : 512 * (k + 1)].mean(axis=0) for k in range(4)])
    common = outputs.mean(axis=0)
    own = (outputs - common).std() / np.sqrt(3 / 4)
    assert common.std() == pytest.approx(BANDING_FRACTION * np.sqrt(1 + OWN_BANDING**2 / 4), rel=0.05)
    assert own == pytest.approx(OWN_BANDING * BANDING_FRACTION, rel=0.05)
    # Every second output is read in the opposite direction.
    inner = drift - np.repeat(outputs, 512, axis=0)
    np.testing.assert_allclose(inner[:512], inner[512:1024][::-1], atol=1e-5)
    # Within columns it varies about as much as from one to another: two and a half decades against two.
    assert inner.std() == pytest.approx(common.std(), rel=0.4)
    flat = banding(np.random.default_rng(1), np.ones((2048, 2048)), along=False)
    assert flat.shape == (1, 2048)
    assert flat.std() == pytest.approx(BANDING_FRACTION, rel=1e-3)


def test_noisy_pixels_are_a_tail_that_the_variance_knows():
    planes, later = (spoil(ideal(0.0), "NRS1", index, Simulation(**QUIET | {"noisy_pixels": True})) for index in (0, 1))
    np.testing.assert_array_equal(planes.var_rnoise, later.var_rnoise)
    factor = np.sqrt(planes.var_rnoise / np.median(planes.var_rnoise))
    # Twice the noise: noisy ones whose exponential exceeds 1, and hardly any of the others.
    assert (factor > 2.0).mean() == pytest.approx(NOISY_FRACTION * np.exp(-1.0), rel=0.1)
    low, high = np.percentile(np.log(factor), (15.87, 84.13))
    assert 0.5 * (high - low) == pytest.approx(NOISE_SCATTER, rel=0.05)
    other = spoil(ideal(0.0), "NRS2", 0, Simulation(**QUIET | {"noisy_pixels": True}))
    assert not np.array_equal(planes.var_rnoise, other.var_rnoise)
    # Of the image itself: a Gaussian leaves nothing beyond five of its sigma.
    assert (np.abs(planes.sci) > 5.5 * planes.sci.std()).sum() > 500
    even = spoil(ideal(0.0), "NRS1", 0, Simulation(**QUIET))
    assert not (np.abs(even.sci) > 5.5 * even.sci.std()).any()


def test_open_pixels_give_their_light_to_their_neighbours():
    switches = QUIET | {"bad_pixels": True}
    planes, without = (
        spoil(ideal(), "NRS1", 0, Simulation(noise=False, **switches, open_pixels=on)) for on in (True, False)
    )
    opened, beside = ((planes.dq & FLAGS[name]) > 0 for name in ("OPEN", "ADJ_OPEN"))
    assert opened.mean() == pytest.approx(OPEN_FRACTION, rel=0.05)
    assert 3.5 < beside.sum() / opened.sum() <= 4.0
    assert ((planes.dq[opened | beside] & FLAGS["DO_NOT_USE"]) > 0).all()
    lonely = opened & (without.dq == 0) & ~beside
    np.testing.assert_allclose(planes.sci[lonely], 0.05 * (1 - OPEN_LOSS), rtol=1e-5)
    # No light is lost, and nothing else has changed.
    assert planes.sci.sum(dtype=float) == pytest.approx(without.sci.sum(dtype=float), rel=1e-7)
    np.testing.assert_array_equal(planes.sci[~(opened | beside)], without.sci[~(opened | beside)])
    assert not (without.dq & (FLAGS["OPEN"] | FLAGS["ADJ_OPEN"])).any()


def test_poisson_variance_follows_the_light():
    bright = spoil(ideal(1.0), "NRS1", 0, Simulation(**QUIET)).var_poisson.mean()
    faint = spoil(ideal(0.5), "NRS1", 0, Simulation(**QUIET)).var_poisson.mean()
    assert bright / faint == pytest.approx(2.0, rel=0.02)


def test_read_variance_falls_with_the_cube_of_the_time():
    assert read_variance(32) / read_variance(16) == pytest.approx(1 / 8, rel=0.01)


def test_flaws_are_flagged_and_lie_where_they_should():
    simulation = Simulation(noise=False)
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
    assert path.stat().st_size < 14e6
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SCI", "ERR", "DQ", "VAR_POISSON", "VAR_RNOISE"]
        loss = (hdus["SCI"].data - noisy.sci) / noisy.err
        assert np.nanstd(loss) == pytest.approx(1 / (20 * np.sqrt(12)), rel=0.05)
        np.testing.assert_array_equal(np.isnan(hdus["SCI"].data), np.isnan(noisy.sci))
        np.testing.assert_array_equal(hdus["DQ"].data, noisy.dq)
        # Half a step of the quantisation, as a fraction of the median.
        for name, plane in (("ERR", noisy.err), ("VAR_RNOISE", noisy.var_rnoise), ("VAR_POISSON", noisy.var_poisson)):
            np.testing.assert_allclose(hdus[name].data, plane, atol=2.6e-3 * np.median(plane))
    assert [p.name for p in tmp_path.iterdir()] == ["rate.fits"]


def test_a_noiseless_rate_file_loses_nothing(tmp_path):
    planes = spoil(ideal() * np.linspace(0, 1, 2048), "NRS1", 0, Simulation(noise=False, **QUIET))
    write_rate(tmp_path / "r.fits", planes, fits.Header(), fits.Header({"EXTNAME": "SCI"}), exact=True)
    with fits.open(tmp_path / "r.fits") as hdus:
        np.testing.assert_array_equal(hdus["SCI"].data, planes.sci)
