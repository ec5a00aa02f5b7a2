"""Simulated ramps: what is in them, without jwst."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from msa3d_sim.header import GROUP_SECONDS
from msa3d_sim.noise import DARK_RATE_DN_S, GROUP_READ_NOISE_DN
from msa3d_sim.ramp import (
    GROUP_BANDING_DN,
    HITS_PER_PIXEL_S,
    NONLINEARITY,
    Cutout,
    bias,
    reference_pixels,
    take_ramp,
    write_uncal,
)
from msa3d_sim.throughput import GAIN_E_PER_DN

CUTOUT = Cutout(first_row=600, first_column=900, rows=80, columns=100)


def light_of(ramp):
    """Counts without bias and non-linearity, DN, shape (groups, rows, columns)."""
    measured = ramp.counts[0] - bias()[CUTOUT.slices]
    return measured + NONLINEARITY * measured**2


def test_counts_rise_as_the_light_falls():
    rate = np.full((80, 100), 2.0)
    ramp = take_ramp(rate, 6, seed=1, cutout=CUTOUT, hits=False, drifts=False)
    assert ramp.counts.shape == (1, 6, 80, 100)
    assert ramp.counts.dtype == np.uint16
    light = light_of(ramp)
    wanted = (2.0 + DARK_RATE_DN_S) * GROUP_SECONDS * np.arange(1, 7)
    np.testing.assert_allclose(light.mean(axis=(1, 2)), wanted, rtol=0.002)
    # Read noise, photon noise, and the rounding to whole counts.
    expected = np.sqrt(GROUP_READ_NOISE_DN**2 + wanted / GAIN_E_PER_DN + 1 / 12)
    np.testing.assert_allclose(light.std(axis=(1, 2)), expected, rtol=0.03)


def test_bright_light_bends_the_ramp():
    ramp = take_ramp(np.full((80, 100), 60.0), 6, seed=1, cutout=CUTOUT, hits=False, drifts=False)
    measured = (ramp.counts[0] - bias()[CUTOUT.slices]).mean(axis=(1, 2))
    assert measured[5] / measured[0] < 0.99 * 6
    np.testing.assert_allclose(light_of(ramp).mean(axis=(1, 2)), 60 * GROUP_SECONDS * np.arange(1, 7), rtol=0.001)


def test_hits_and_drifts_are_as_told():
    ramp = take_ramp(np.zeros((80, 100)), 9, seed=3, cutout=CUTOUT)
    quiet = take_ramp(np.zeros((80, 100)), 9, seed=3, cutout=CUTOUT, hits=False, drifts=False)
    rate = ramp.hit[1:].mean()
    assert rate == pytest.approx(HITS_PER_PIXEL_S * GROUP_SECONDS, rel=0.3)
    assert not ramp.hit[0].any()
    steps = np.diff(ramp.counts[0].astype(float), axis=0)
    assert steps[ramp.hit[1:]].min() > 10 * GROUP_READ_NOISE_DN - 6 * np.sqrt(2) * GROUP_READ_NOISE_DN
    assert ramp.drift.std() == pytest.approx(GROUP_BANDING_DN, rel=0.3)
    assert not quiet.hit.any()
    assert not quiet.drift.any()


def test_the_same_seed_gives_the_same_ramp():
    first, second = (take_ramp(np.ones((80, 100)), 4, seed=7, cutout=CUTOUT) for _ in range(2))
    assert (first.counts == second.counts).all()
    assert (first.counts != take_ramp(np.ones((80, 100)), 4, seed=8, cutout=CUTOUT).counts).any()


def test_reference_pixels_see_no_light():
    corner = Cutout(rows=40, columns=40)
    ramp = take_ramp(np.full((40, 40), 50.0), 3, seed=1, cutout=corner, hits=False, drifts=False)
    blind = reference_pixels()[corner.slices]
    assert blind.sum() == 40 * 40 - 36 * 36
    last = ramp.counts[0, -1] - bias()[corner.slices]
    assert np.abs(last[blind].mean()) < 3
    assert last[~blind].min() > 1000


def test_more_than_the_converter_holds():
    ramp = take_ramp(np.full((80, 100), 400.0), 6, seed=1, cutout=CUTOUT)
    assert (ramp.counts[0, -1] == 65535).all()


def test_the_file_is_an_uncal(tmp_path):
    primary = fits.Header({"FILENAME": "x", "S_RAMP": "COMPLETE", "NGROUPS": 16})
    path = tmp_path / "jw02136001001_03101_00001_nrs1_uncal.fits"
    ramp = take_ramp(np.ones((80, 100)), 4, seed=7, cutout=CUTOUT)
    write_uncal(path, ramp, primary, fits.Header({"EXTNAME": "SCI", "BUNIT": "DN/s"}), CUTOUT)
    with fits.open(path) as hdus:
        header = hdus[0].header
        assert (hdus["SCI"].data == ramp.counts).all()
        assert hdus["SCI"].header["BUNIT"] == "DN"
    assert [header[k] for k in ("SUBSTRT1", "SUBSTRT2", "SUBSIZE1", "SUBSIZE2")] == [901, 601, 100, 80]
    assert (header["NGROUPS"], header["DATAMODL"], "S_RAMP" in header) == (4, "Level1bModel", False)
