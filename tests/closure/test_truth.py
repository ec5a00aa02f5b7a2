"""Comparison with a truth: resampling keeps brightness and place, and the figures are what they say."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from msa3d.closure.truth import TrueLines, compared, on_spaxels
from msa3d.constants import LINES
from msa3d.cubes.cube import Cube
from msa3d.galaxy.bins import bins_for_line, stacked
from msa3d.galaxy.fit import fit_lines
from msa3d.galaxy.measure import _predicted, _within, measure
from msa3d.galaxy.profiles import fit_exponential

from ..fixtures.cubes import REDSHIFT
from ..fixtures.galaxies import GEOMETRY, noiseless, noisy


def plane(ny, nx, scale, angle=0.0, ra=10.0, dec=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(nx + 1) / 2, (ny + 1) / 2]
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    wcs.wcs.cd = np.array([[-scale[0] * cos, scale[1] * sin], [scale[0] * sin, scale[1] * cos]]) / 3600
    return wcs


def cube_like(data, wcs):
    return Cube(data, np.arange(data.shape[0], dtype=float), wcs, 1.0, True)


def test_a_flat_truth_stays_flat_and_is_nan_outside():
    truth = cube_like(np.full((2, 61, 61), 3.0), plane(61, 61, (0.05, 0.05)))
    cube = cube_like(np.zeros((1, 100, 5)), plane(100, 5, (0.2, 0.05), angle=30.0))
    seen = on_spaxels(truth, cube)
    assert seen.data.shape == (2, 100, 5)
    assert np.isnan(seen.data[:, 0]).all()
    inner = seen.data[:, 35:65]
    np.testing.assert_allclose(inner, 3.0)


def test_a_source_is_seen_where_it_is():
    fine = plane(81, 81, (0.05, 0.05))
    truth = cube_like(np.zeros((1, 81, 81)), fine)
    east, north = truth.offsets(10.0, 0.0)
    truth.data[0] = np.exp(-0.5 * ((east - 0.3) ** 2 + (north + 0.2) ** 2) / 0.2**2)
    cube = cube_like(np.zeros((1, 60, 15)), plane(60, 15, (0.1, 0.05), angle=30.0))
    seen = np.nan_to_num(on_spaxels(truth, cube).data[0])
    seen[seen < 0.5 * seen.max()] = 0.0
    found = [(seen * offset).sum() / seen.sum() for offset in cube.offsets(10.0, 0.0)]
    np.testing.assert_allclose(found, (0.3, -0.2), atol=0.01)


def test_the_blur_of_slit_and_drizzle_is_that_of_the_cubes_kernel():
    """A point of the truth comes out as wide as top-hats and blur make it; the telescope is in the truth already."""
    header = fits.Header({"SLITWID": 0.2, "SLITLEN": 0.1, "SLITPA": 30.0, "SLITFRAC": 1.0, "PIXFRAC": 1.0})
    fine = plane(121, 121, (0.025, 0.025))
    truth = cube_like(np.zeros((1, 121, 121)), fine)
    truth.data[0, 60, 60] = 1.0
    cube = replace(cube_like(np.zeros((1, 121, 121)), fine), header=header)
    seen = np.nan_to_num(on_spaxels(truth, cube, oversample=(1, 1)).data[0])
    assert seen.sum() == pytest.approx(1.0, abs=1e-6)
    east, north = cube.offsets(10.0, 0.0)
    angle = np.radians(30.0)
    along, across = east * np.sin(angle) + north * np.cos(angle), east * np.cos(angle) - north * np.sin(angle)
    # Two top-hats along and across, and the blur of the spectrograph along.
    assert (seen * along**2).sum() == pytest.approx(2 * 0.1**2 / 12 + (0.4 * 0.1) ** 2, rel=0.02)
    assert (seen * across**2).sum() == pytest.approx(2 * 0.2**2 / 12, rel=0.02)
    assert abs((seen * along * across).sum()) < 2e-5


@pytest.fixture(scope="module")
def galaxy():
    return measure(noisy(noiseless(), 0.1, 5), REDSHIFT, replace(GEOMETRY, pa_deg=0.0), source_id=8512, sample=False)


def test_a_galaxy_agrees_with_its_truth_within_its_errors(galaxy):
    """The noiseless cube as the truth of a noisy one: nothing but noise is left, for every line and the velocity."""
    known = noiseless()
    spaxels = fit_lines(known, REDSHIFT, names=tuple(galaxy.lines.flux))
    binned = fit_lines(stacked(known, galaxy.bins.masks), REDSHIFT, names=tuple(galaxy.lines.flux))
    table = compared(galaxy, TrueLines(spaxels, binned))
    rows = {row["quantity"]: row for row in table}
    assert set(rows) == {*galaxy.rings, "velocity", "sigma"}
    for name in ("Ha", "[NII]6583", "[OIII]5007"):
        assert abs(rows[name]["ratio"] - 1.0) < 4.0 * rows[name]["ratio_error"], name
        assert rows[name]["pull"] == pytest.approx(1.0, abs=0.25), name
    assert rows["Ha"]["ratio_error"] < 0.05
    for name in ("velocity", "sigma"):
        assert rows[name]["n"] == galaxy.bins.n_bins
        assert rows[name]["pull"] == pytest.approx(1.0, abs=0.5), name


def test_bins_are_not_chosen_by_their_own_noise():
    """Over many seeds the flux of the bins that are shown is neither above nor below that of the truth."""
    known = noiseless()
    true = fit_lines(known, REDSHIFT, names=("Ha",))
    given = {"names": ("Ha",), "velocity": true.velocity, "sigma": true.sigma}
    pulls: dict[str, list] = {"predicted": [], "measured": []}
    for seed in range(16):
        cube = noisy(known, 0.3, seed)
        fit = fit_lines(cube, REDSHIFT, **given)
        flux, error = fit.flux["Ha"], fit.flux_error["Ha"]
        disc = fit_exponential(flux, cube, GEOMETRY, LINES["Ha"] * (1 + REDSHIFT), error=error)
        predicted = _predicted(cube, GEOMETRY, disc, REDSHIFT)
        within = _within(cube, GEOMETRY, predicted, error, 0.2)
        for name, signal in (("predicted", predicted), ("measured", flux)):
            bins = bins_for_line(cube, signal, error, 10.0, within)
            mean = [np.array([[np.mean(image[mask]) for mask in bins.masks]]) for image in (true.velocity, true.sigma)]
            options = {"names": ("Ha",), "velocity": mean[0], "sigma": mean[1]}
            got, put = (fit_lines(stacked(each, bins.masks), REDSHIFT, **options) for each in (cube, known))
            pulls[name].append(np.mean((got.flux["Ha"] - put.flux["Ha"]) / got.flux_error["Ha"]))
    assert abs(np.mean(pulls["predicted"])) < 0.2
    # Bins that grow until their own flux suffices stop where noise has lifted them.
    assert np.mean(pulls["measured"]) > np.mean(pulls["predicted"]) + 0.05
