"""A cube of the published builder gets square spaxels, and errors that are those of its noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from msa3d.constants import LINES
from msa3d.cubes.cube import Cube
from msa3d.errors import ProductError
from msa3d.galaxy.discmodel import LineModel
from msa3d.published.for_analysis import SPAXEL_ARCSEC, prepared, spread_of

from ..fixtures.cubes import DEC, RA, REDSHIFT, wavelengths

NY, NX, SLIT_PA = 120, 7, -13.0
SIGMA = 0.3
GAP = slice(600, 740)


def published(noise: float = SIGMA, seed: int = 0) -> Cube:
    """Columns as wide as a step, rows a quarter of a pixel; a galaxy, zeros at one end, a smooth gap."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix = (RA, DEC), ((NX + 1) / 2, (NY + 1) / 2)
    wcs.wcs.cdelt = 1.0, 1.0
    angle = np.radians(SLIT_PA)
    # Columns to the east, rows towards the slit's lower end.
    across, along = (np.array(v) for v in ((np.cos(angle), -np.sin(angle)), (-np.sin(angle), -np.cos(angle))))
    wcs.wcs.pc = np.stack([0.2 * across, 0.025 * along], axis=1) / 3600.0
    wave = wavelengths(1.0, 1.45)
    rng = np.random.default_rng(seed)
    # Four rows share a native pixel.
    data = np.repeat(rng.normal(0.0, noise, (wave.size, NY // 4, NX)), 4, axis=1)
    bare = Cube(data, wave, wcs, 1e-13, True, "published", header=fits.Header({"NATPIX": 0.1}))
    radius = np.hypot(*bare.offsets(RA, DEC))
    data += 2.0 * np.exp(-((radius / 0.4) ** 2)) + 0.5
    data[GAP] = 0.5 + 1e-4 * rng.normal(size=data[GAP].shape)
    data[:, :8] = 0.0
    return replace(bare, nexp=np.full((NY, NX), 7))


@pytest.fixture(scope="module")
def cube() -> Cube:
    return prepared(published(), REDSHIFT)


def test_the_light_is_kept(cube: Cube):
    at = np.hypot(*cube.offsets(RA, DEC)) < 0.7
    mean = cube.data[:500].mean(axis=0)[at]
    expected = 2.0 * np.exp(-((np.hypot(*cube.offsets(RA, DEC))[at] / 0.4) ** 2)) + 0.5
    # A column shows one value over its whole width.
    assert mean.mean() == pytest.approx(expected.mean(), rel=0.02)
    assert cube.pixel_sr == pytest.approx(np.radians(SPAXEL_ARCSEC / 3600) ** 2)


def test_errors_are_those_of_the_noise(cube: Cube):
    difference = cube.data - cube.data[:500].mean(axis=0)
    pulls = (difference / cube.err)[:500]
    assert 1.4826 * np.nanmedian(np.abs(pulls)) == pytest.approx(1.0, abs=0.05)
    middle = tuple(n // 2 for n in cube.correlation.shape)
    assert cube.correlation[middle] == 1.0
    # Neighbours in a column share a pixel in part, wavelengths share nothing.
    assert cube.correlation[middle[0], middle[1] + 1, middle[2]] > 0.2
    assert abs(cube.correlation[middle[0] + 1, middle[1], middle[2]]) < 0.05
    mask = np.hypot(*cube.offsets(RA, DEC)) < 0.4
    total = np.nansum(np.where(mask, difference, 0.0), axis=(1, 2))[:500]
    assert total.std() / np.median(cube.sum_error(mask)[:500]) == pytest.approx(1.0, abs=0.2)


def test_what_was_not_observed_is_not_known(cube: Cube):
    assert np.isnan(cube.data[GAP]).all()
    ends = published(0.0).data[0].size - np.count_nonzero(published(0.0).data[0])
    assert ends == 8 * NX
    seen = np.isfinite(cube.data[100]).sum() * SPAXEL_ARCSEC**2
    assert seen == pytest.approx((NY - 8) * 0.025 * NX * 0.2, rel=0.1)


def test_slit_and_columns_are_told(cube: Cube):
    assert cube.header["SLITPA"] == pytest.approx(SLIT_PA, abs=0.01)
    assert cube.header["SLITWID"] == pytest.approx(0.2, rel=1e-6)
    near = np.abs(cube.wave_um / (LINES["Ha"] * (1 + REDSHIFT)) - 1) < 1e-3
    model = LineModel(cube, cube.wave_um[near], LINES["Ha"] * (1 + REDSHIFT), RA, DEC, spread=spread_of(cube))
    assert model.lattice is not None
    assert model.lattice.period == pytest.approx(0.2, rel=1e-6)
    # A column lies in the middle.
    assert abs(model.lattice.first) < 1e-3


def test_other_cubes_are_refused():
    with pytest.raises(ProductError, match="NATPIX"):
        prepared(replace(published(), header=fits.Header()), REDSHIFT)
