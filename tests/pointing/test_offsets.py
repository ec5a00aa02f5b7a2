"""tests.pointing.test_offsets"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from msa3d.config import Dataset
from msa3d.errors import ProductError
from msa3d.observation.sky import from_tangent, tangent_offsets
from msa3d.pipeline.layout import Layout
from msa3d.pointing import offsets, profiles
from msa3d.pointing.fit import Axis, solve
from msa3d.pointing.offsets import Registration, register, registration_of
from msa3d.pointing.profiles import Band, Frame
from msa3d.pointing.reference import Reference, seen_bands, solve_against

from ..fixtures.calfiles import NX, NY, positions, slit_geometry, write_cal
from ..fixtures.tables import numbers

ROWS, COLUMNS = 4, 5
PIXEL = 0.104
GALAXIES = {
    8512: [(0.0, 0.05, 0.16, 3.0), (0.32, -0.35, 0.1, 2.0), (-0.38, 0.2, 0.12, 2.4), (0.1, 0.45, 0.1, 1.5)],
    29470: [(0.1, -0.1, 0.25, 2.0), (-0.3, -0.4, 0.1, 2.0), (0.4, 0.3, 0.12, 1.5)],
    12015: [(-0.1, 0.0, 0.14, 2.5), (0.15, 0.1, 0.3, 1.0), (-0.45, -0.1, 0.12, 1.5)],
}
"""Clumps: across, along (arcsec), sigma (arcsec), peak (MJy/sr)."""


def sky(across, along, source_id=8512):
    """A galaxy with clumps as the slit sees it: averaged over the slit's width and a pixel."""
    total = np.zeros(np.broadcast(across, along).shape)
    for u in (np.arange(8) + 0.5) / 8 * 0.2 - 0.1:
        for v in (np.arange(4) + 0.5) / 4 * PIXEL - PIXEL / 2:
            for x, y, sigma, peak in GALAXIES[source_id]:
                total += peak * np.exp(-0.5 * ((across + u - x) ** 2 + (along + v - y) ** 2) / sigma**2)
    return 0.15 + total / 32


def pattern():
    """Steps across and dithers along the slit, arcsec, shape (n, 2)."""
    rows, columns = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    return np.stack([(columns - COLUMNS // 2) * 0.2, (rows - ROWS // 2) * 0.075], axis=1)


def make_band(offsets, noise, seed=1, source_id=8512):
    rng = np.random.default_rng(seed)
    along = np.arange(-10, 11) * PIXEL
    steps = pattern()
    across = np.concatenate([np.full(along.size, step[0]) for step in steps])
    places = np.concatenate([along + step[1] for step in steps])
    exposure = np.repeat(np.arange(len(steps)), along.size)
    value = sky(across + offsets[exposure, 0], places + offsets[exposure, 1], source_id)
    value += rng.normal(0.0, noise, value.size)
    return Band(f"{source_id} test", source_id, exposure, across, places, value, np.full(value.size, noise), PIXEL)


def errors_of_pointing(rms, seed=11):
    offsets = np.random.default_rng(seed).normal(0.0, rms, (ROWS * COLUMNS, 2))
    return offsets - offsets.mean(axis=0)


def rms(values):
    return np.sqrt(np.mean(np.square(values), axis=0))


@pytest.mark.parametrize(("size", "within"), [(0.005, 0.005), (0.04, 0.015)])
def test_offsets_are_found(size, within):
    """Small ones and large ones; what is left is not far more than the formal errors."""
    truth = errors_of_pointing(size)
    bands = [make_band(truth, 0.05, seed, source_id) for seed, source_id in enumerate(GALAXIES)]
    solution = solve(bands, ROWS * COLUMNS, prior_arcsec=size)
    left, formal = rms(solution.offsets - truth), rms(solution.errors)
    assert np.all(left < within)
    assert np.all(left < 0.8 * rms(truth))
    assert np.all((left / formal > 0.5) & (left / formal < 2.0))


def test_noise_is_not_taken_for_offsets():
    """Where the data cannot tell, the offsets stay near zero and the errors say so."""
    truth = errors_of_pointing(0.005)
    solution = solve([make_band(truth, 2.0)], ROWS * COLUMNS, prior_arcsec=0.005)
    assert np.all(rms(solution.offsets) < 0.005)
    assert np.all(solution.errors > 0.004)


def test_sources_are_weighed_by_what_they_tell():
    truth = errors_of_pointing(0.03)
    good, poor = make_band(truth, 0.02), make_band(truth, 0.6, seed=3, source_id=29470)
    alone = solve([good], ROWS * COLUMNS)
    both = solve([good, poor], ROWS * COLUMNS)
    assert np.all(rms(both.offsets - alone.offsets) < 0.3 * rms(alone.errors))
    assert np.all(rms(both.errors) < rms(alone.errors) * 1.02)


def test_hits_are_left_out():
    band = make_band(errors_of_pointing(0.02), 0.02)
    value = band.value.copy()
    hit = np.random.default_rng(4).choice(value.size, 12, replace=False)
    value[hit] += 30.0
    kept = replace(band, value=value).without_outliers()
    assert kept.value.max() < 10.0
    assert kept.value.size >= value.size - 40


def test_a_missing_exposure_stays_where_it_is():
    truth = errors_of_pointing(0.02)
    band = make_band(truth, 0.02)
    keep = band.exposure != 9
    parts = {name: getattr(band, name)[keep] for name in ("exposure", "across", "along", "value", "sigma")}
    solution = solve([replace(band, **parts)], ROWS * COLUMNS)
    assert np.all(np.abs(solution.offsets[9]) < 0.005)
    assert np.all(solution.errors[9] > 0.9 * solution.prior_arcsec)


def test_mean_offset_is_zero_and_the_order_does_not_matter():
    truth = errors_of_pointing(0.02)
    band = make_band(truth, 0.02)
    solution = solve([band], ROWS * COLUMNS)
    np.testing.assert_allclose(solution.offsets.mean(axis=0), 0.0, atol=1e-12)
    order = np.random.default_rng(5).permutation(ROWS * COLUMNS)
    shuffled = solve([replace(band, exposure=order[band.exposure])], ROWS * COLUMNS)
    np.testing.assert_allclose(shuffled.offsets[order], solution.offsets, atol=1e-7)


def test_spline_derivatives_are_those_of_its_values():
    axis = Axis(-1.0, 1.0, 0.1)
    places = np.linspace(-1.0, 1.0, 57)
    design, derivative = axis.basis(places)
    np.testing.assert_allclose(design.sum(axis=1), 1.0, atol=1e-12)
    step = 1e-6
    numeric = (axis.basis(places + step)[0] - axis.basis(places - step)[0]) / (2 * step)
    np.testing.assert_allclose(derivative, numeric, atol=1e-4)
    np.testing.assert_allclose(design @ axis.knots, places, atol=1e-12)


def test_the_table_comes_back_as_it_was(tmp_path):
    frame = Frame(-13.7)
    truth = errors_of_pointing(0.02)
    activities = [f"031{k:02d}" for k in range(ROWS * COLUMNS)]
    found = registration_of([make_band(truth, 0.02)], frame, activities)
    np.testing.assert_allclose(frame.to_slit(*found.offsets.T), found.slit_offsets.T, atol=1e-12)
    np.testing.assert_allclose(np.sum(found.errors**2, axis=1), np.sum(found.slit_errors**2, axis=1), rtol=1e-9)
    path = tmp_path / "registration.ecsv"
    found.write(path)
    again = Registration.read(path)
    np.testing.assert_allclose(again.offsets, found.offsets, atol=1e-5)
    assert again.frame.pa_deg == pytest.approx(-13.7)
    assert again.offset_of(activities[3]) == pytest.approx(found.offset_of(activities[3]), abs=1e-5)
    assert found.offset_of("zzzzz") == (0.0, 0.0)
    path.write_text("# nothing\n")
    with pytest.raises(ProductError, match=r"registration\.ecsv is not a table of measured offsets"):
        Registration.read(path)


def test_the_table_stays_what_it_was(ndarrays_regression):
    """Offsets of known pointing errors in noise, to a tenth of a milliarcsecond."""
    truth = errors_of_pointing(0.02)
    bands = [make_band(truth, 0.05, seed, source_id) for seed, source_id in enumerate(GALAXIES)]
    activities = [f"031{k:02d}" for k in range(ROWS * COLUMNS)]
    found = registration_of(bands, Frame(-13.7), activities)
    ndarrays_regression.check(numbers(offsets=found.table()), default_tolerance={"rtol": 0.0, "atol": 1e-4})


# --- against a given image


def sky_image(path, pa_deg=0.0, ra=215.0, dec=52.9, size=201):
    """The galaxies' light before the slit averages it, on pixels of 0.03 arcsec, turned by `pa_deg`."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [ra, dec], [(size + 1) / 2] * 2
    turn = np.radians(pa_deg)
    wcs.wcs.cd = 0.03 / 3600 * np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    y, x = np.mgrid[:size, :size]
    east, north = tangent_offsets(*wcs.pixel_to_world_values(x, y), ra, dec)
    light = sum(
        peak * np.exp(-0.5 * ((east - u) ** 2 + (north - v) ** 2) / sigma**2) for u, v, sigma, peak in GALAXIES[8512]
    )
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(light + 7.0, wcs.to_header())]).writeto(path)
    return path


@pytest.mark.parametrize("pa_deg", [0.0, 25.0])
def test_offsets_against_an_image_are_absolute(tmp_path, pa_deg):
    """Also the mean of all, which the exposures among themselves cannot tell: here 80 and -50 mas."""
    truth = errors_of_pointing(0.02) + np.array([0.08, -0.05])
    band = make_band(truth, 0.02)
    seen = seen_bands(
        Reference.read(sky_image(tmp_path / "image.fits", pa_deg)), [replace(band, name="8512 continuum nrs1")],
        Frame(0.0), {8512: (215.0, 52.9)},
    )  # fmt: skip
    solution = solve_against(seen, ROWS * COLUMNS, prior_arcsec=0.02)
    left = solution.offsets - truth
    assert np.all(np.abs(left.mean(axis=0)) < 0.001)
    assert np.all(rms(left) < 0.006)
    assert np.all((rms(left) / rms(solution.errors) > 0.5) & (rms(left) / rms(solution.errors) < 2.0))


def test_an_image_of_another_place_or_light_is_told(tmp_path):
    band = replace(make_band(errors_of_pointing(0.02), 0.02), name="8512 continuum nrs1")
    image = Reference.read(sky_image(tmp_path / "image.fits", ra=215.1))
    where = Frame(0.0), {8512: (215.0, 52.9)}
    with pytest.raises(ProductError, match="covers none of the sources 8512"):
        seen_bands(image, [band], *where)
    with pytest.raises(ProductError, match="no source shows continuum above the noise"):
        seen_bands(image, [replace(band, name="8512 Hb")], *where)
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "plain.fits")
    with pytest.raises(ProductError, match=r"plain\.fits has no 2-D image with celestial coordinates"):
        Reference.read(tmp_path / "plain.fits")


# --- from files


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """Calibrated files of all exposures, whose headers do not know the pointing errors of 30 mas."""
    folder, rng = tmp_path_factory.mktemp("observed"), np.random.default_rng(12)
    truth, base, files = errors_of_pointing(0.03), slit_geometry(), []
    y_slit, _ = positions(base)
    along = 0.458 * y_slit
    for number, (step, error) in enumerate(zip(pattern(), truth, strict=True)):
        # North is along the slit and east across it. What the header says, and what is seen:
        ra0, dec0 = from_tangent(*step, 215.0, 52.9)
        seen = sky(step[0] + error[0], step[1] + error[1] + along)
        sci = seen + rng.normal(0.0, 0.25, (NY, NX))
        sci[rng.integers(0, NY, 20), rng.integers(0, NX, 20)] += 9.0
        slit = {"sci": sci, "err": np.full((NY, NX), 0.25), "geometry": replace(base, ra0=float(ra0), dec0=float(dec0))}
        files.append([write_cal(folder / f"exp_{number:03d}" / "jw_nrs1_cal.fits", [slit])])
    return files, truth


def test_profiles_lie_where_the_headers_say(observed):
    files, truth = observed
    (band,), frame, centres = profiles.read_profiles(files, {8512: None})
    assert frame.pa_deg == pytest.approx(0.0, abs=0.01)
    assert band.name == "8512 continuum nrs1"
    steps = pattern() - pattern()[0]
    for number in (0, 8, 15):
        this = band.exposure == number
        np.testing.assert_allclose(band.across[this], steps[number, 0], atol=1e-4)
        expected = sky(
            band.across[this] + pattern()[0, 0] + truth[number, 0],
            band.along[this] + pattern()[0, 1] + truth[number, 1],
        )
        # Bins a pixel high round the peaks a little.
        assert np.median(np.abs(band.value[this] - expected) / band.sigma[this]) < 2.5
    assert set(centres) == {8512}


def test_offsets_of_files_against_an_image(observed, tmp_path):
    files, truth = observed
    shifted = sky_image(tmp_path / "image.fits", ra=215.0 + 0.1 / 3600 / np.cos(np.radians(52.9)))
    found = register([f"{k:05d}" for k in range(len(files))], files, {8512: None}, shifted, 0.03)
    left = found.offsets - truth
    # The image stands 0.1 arcsec further east.
    assert left.mean(axis=0) == pytest.approx([0.1, 0.0], abs=0.01)
    assert rms(left - left.mean(axis=0))[1] < 0.010


def test_the_image_of_a_dataset_lies_below_the_root(observed, tmp_path, monkeypatch):
    files, _ = observed
    layout = Layout(tmp_path)
    (tmp_path / "images").mkdir()
    sky_image(tmp_path / "images" / "sky.fits", ra=215.0)
    activities = [f"{k:05d}" for k in range(len(files))]
    monkeypatch.setattr(offsets, "place_exposures", lambda *_: [SimpleNamespace(activity=a) for a in activities])
    monkeypatch.setattr(offsets, "calibrated_files", lambda _, activity: files[int(activity)])
    registration = {"method": "measure", "reference": "images/sky.fits"}
    dataset = Dataset.load("tiny").replaced(cubebuild={"drizzle": {"registration": registration}})
    monkeypatch.chdir(tmp_path.parent)
    found = offsets.run(dataset, layout)
    assert len(found.activities) == len(files)


def test_offsets_of_files_are_found_east_and_north(observed):
    files, truth = observed
    found = register([f"{k:05d}" for k in range(len(files))], files, {8512: None}, prior_arcsec=0.03)
    left = rms(found.offsets - truth)
    assert left[1] < 0.010
    # Across the slit one source in few columns tells little more than the direction.
    inside = [values[:, 0].reshape(ROWS, COLUMNS) for values in (found.offsets, truth)]
    inside = [(values - values.mean(axis=0)).ravel() for values in inside]
    assert np.corrcoef(*inside)[0, 1] > 0.4
    # East is across the slit here, north along it.
    np.testing.assert_allclose(found.slit_offsets, found.offsets, atol=1e-4)


def test_nothing_to_see_is_said(tmp_path):
    rng = np.random.default_rng(3)
    files = []
    for number in range(3):
        slit = {"sci": rng.normal(0.2, 0.25, (NY, NX)), "err": np.full((NY, NX), 0.25)}
        files.append([write_cal(tmp_path / f"exp_{number}" / "jw_nrs1_cal.fits", [slit])])
    with pytest.raises(ProductError, match="no source has structure above the noise"):
        register(["1", "2", "3"], files, {8512: None})
