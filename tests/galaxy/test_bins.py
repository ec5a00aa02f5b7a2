"""Bins: every spaxel once, signal to noise with covariance, stacks whose errors are the scatter."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import correlate

from msa3d.constants import C_KMS
from msa3d.cubes.cube import Cube
from msa3d.galaxy.bins import REACHED, adaptive_bins, at_rest, bins_for_line, stacked

KERNEL = np.array([0.25, 0.5, 0.25])


def correlation() -> np.ndarray:
    """Correlation by lag of white noise smoothed along x by `KERNEL`: (1, 1, 5)."""
    full = np.convolve(KERNEL, KERNEL)
    return (full / full[2])[None, None, :]


def noisy_cube(n_wave: int = 600, ny: int = 12, nx: int = 14, seed: int = 1) -> Cube:
    white = np.random.default_rng(seed).normal(size=(n_wave, ny, nx + 2))
    data = correlate(white, KERNEL[None, None])[..., 1:-1]
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.cdelt, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [-2.8e-5, 2.8e-5], [215.0, 53.0]
    error = np.full_like(data, np.sqrt(np.sum(KERNEL**2)))
    wave = 1.30 + 2.35e-4 * np.arange(n_wave)
    return Cube(data, wave, wcs, 2.35e-13, err=error, correlation=correlation())


def disc(ny: int = 25, nx: int = 23) -> np.ndarray:
    y, x = np.indices((ny, nx))
    return 10.0 * np.exp(-np.hypot(y - ny // 2, x - nx // 2) / 4.0)


def test_bins_hold_every_usable_spaxel_once_and_reach_the_target():
    signal, noise = disc(), np.ones((25, 23))
    where = signal > 0.5
    noise[12, 13] = np.nan
    bins = adaptive_bins(signal, noise, 8.0, where=where)
    assert_array_equal(bins.labels >= 0, where & np.isfinite(noise))
    assert bins.n_bins > 10
    assert bins.sizes.sum() == (bins.labels >= 0).sum()
    for mask, snr in zip(bins.masks, bins.snr, strict=True):
        assert_allclose(signal[mask].sum() / np.sqrt(mask.sum()), snr, rtol=1e-10)
    assert (bins.snr > REACHED * 8.0).all()
    # Bright spaxels need no company.
    assert bins.sizes[bins.labels[12, 11]] == 1


def test_correlated_noise_makes_larger_bins():
    signal, noise, where = disc(), np.ones((25, 23)), disc() > 0.5
    alone = adaptive_bins(signal, noise, 8.0, where=where)
    shared = np.outer([0.3, 1.0, 0.3], [0.6, 1.0, 0.6])
    together = adaptive_bins(signal, noise, 8.0, where=where, correlation=shared)
    assert together.n_bins < alone.n_bins
    for mask, snr in zip(together.masks, together.snr, strict=True):
        variance = np.sum(mask * correlate(mask.astype(float), shared, mode="constant"))
        assert_allclose(signal[mask].sum() / np.sqrt(variance), snr, rtol=1e-10)


def test_bins_without_enough_signal_are_one():
    bins = adaptive_bins(np.full((4, 5), 0.1), np.ones((4, 5)), 50.0)
    assert bins.n_bins == 1
    assert (bins.labels == 0).all()
    assert_allclose(bins.snr, 0.1 * np.sqrt(20))
    empty = adaptive_bins(np.full((4, 5), np.nan), np.ones((4, 5)), 5.0)
    assert empty.n_bins == 0
    with pytest.raises(ValueError, match="signal to noise 0"):
        adaptive_bins(np.ones((4, 5)), np.ones((4, 5)), 0.0)


def test_bins_are_round_on_the_sky():
    bins = adaptive_bins(np.ones((60, 12)), np.ones((60, 12)), 6.0, spaxel=(0.25, 1.0))
    rows, columns = np.nonzero(bins.labels == 0)
    assert 2.0 < np.ptp(rows) / max(np.ptp(columns), 1) < 8.0


def test_values_of_bins_are_laid_out_on_their_spaxels():
    bins = adaptive_bins(disc(), np.ones((25, 23)), 8.0, where=disc() > 0.5)
    spread = bins.spread(np.arange(bins.n_bins)[None, :])
    assert_array_equal(np.isnan(spread), bins.labels < 0)
    assert_array_equal(spread[bins.labels >= 0], bins.labels[bins.labels >= 0])


def test_errors_of_a_stack_are_its_scatter():
    cube = noisy_cube()
    masks = [np.zeros(cube.shape) for _ in range(2)]
    masks[0][3:8, 4:9], masks[1][:, 2] = 1.0, 0.5
    stack = stacked(cube, masks)
    assert stack.data.shape == (cube.wave_um.size, 1, 2)
    for index in range(2):
        measured = stack.data[:, 0, index].std()
        # 600 wavelengths: known to 3%; without covariance the first would be 1.8 times too small.
        assert_allclose(measured, stack.err[:, 0, index].mean(), rtol=0.09)
    assert_allclose(stack.spectral_correlation, [1.0])


def test_a_stack_is_nan_where_little_is_known():
    cube = noisy_cube(40)
    cube.data[5, :, :8] = np.nan
    cube.err[5, :, :8] = np.nan
    stack = stacked(cube, [np.ones(cube.shape)])
    assert_array_equal(np.flatnonzero(np.isnan(stack.data[:, 0, 0])), [5])
    cube.data[6, 0, 0] = cube.err[6, 0, 0] = np.nan
    assert_allclose(stacked(cube, [np.ones(cube.shape)]).data[6, 0, 0], np.nanmean(cube.data[6]))


def test_spaxels_are_moved_to_rest_by_whole_voxels():
    cube = noisy_cube(600)
    velocity = np.linspace(-300.0, 300.0, cube.shape[0])[:, None] * np.ones(cube.shape)
    velocity[0, 0] = np.nan
    centre = 1.37 * (1.0 + velocity / C_KMS)
    line = np.exp(-0.5 * ((cube.wave_um[:, None, None] - np.nan_to_num(centre, nan=1.37)) / 4e-4) ** 2)
    cube.data[:] = line
    moved = at_rest(cube, velocity)
    assert np.isnan(moved.data[:, 0, 0]).all()
    values = np.nan_to_num(moved.data)
    mean = np.tensordot(cube.wave_um, values, axes=1)[1:] / values.sum(axis=0)[1:]
    assert np.abs(mean / 1.37 - 1.0).max() < 0.51 * 2.35e-4 / 1.37
    assert_array_equal(at_rest(cube, np.zeros(cube.shape)).data, cube.data)


def test_bins_for_a_line_use_the_correlation_of_the_cube():
    cube = noisy_cube(40, 25, 23)
    signal, noise = disc(), np.ones((25, 23))
    bins = bins_for_line(cube, signal, noise, 8.0, signal > 0.5)
    expected = adaptive_bins(signal, noise, 8.0, where=signal > 0.5, correlation=cube.correlation[0])
    assert_array_equal(bins.labels, expected.labels)
