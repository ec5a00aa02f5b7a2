"""The published builder with its weaknesses switched off, one at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from msa3d.published import cube as published_cube
from msa3d.published.settings import PaperSettings

from ..fixtures.stepping import Stepping, blob


def stacks_of(spectra, rows, columns, **off):
    kept = {}
    cube = published_cube.build_median(
        spectra,
        n_rows=rows,
        n_columns=columns,
        settings=PaperSettings(**off),
        on_column=lambda column, planes, _: kept.update({column: planes.copy()}),
    )
    return cube, kept


def ramp(stepping):
    """Brightness that grows along the slit, by 1 an arcsec."""
    angle = np.radians(stepping.angle_deg)

    def sky(ra, dec, wave):
        east = (ra - stepping.ra) * 3600 * np.cos(np.radians(stepping.dec))
        north = (dec - stepping.dec) * 3600
        return 5 + east * np.sin(angle) + north * np.cos(angle) + 0 * wave

    return sky


def disagreement(planes):
    """Scatter of the dithers about each other where all of them reach."""
    all_there = (np.isfinite(planes) & (planes != 0)).all(axis=(0, 2))
    return np.ptp(planes[:, all_there], axis=0).max()


def test_exact_offsets_put_the_dithers_where_they_are():
    stepping = Stepping(rows=7, columns=1, ny=12)
    spectra = stepping.spectra(ramp(stepping))
    _, published = stacks_of(spectra, 7, 1)
    _, exact = stacks_of(spectra, 7, 1, truncate_offsets=False)
    # The nominal offsets 0 ... 17.84 sub-pixels of 0.025" become 0 ... 17: up to 0.97 of a sub-pixel.
    assert disagreement(published[0]) == pytest.approx(0.024, abs=0.002)
    assert disagreement(exact[0]) < 2e-5


def test_measured_offsets_follow_the_pointings():
    stepping = Stepping(rows=7, columns=2, ny=12, jitter=0.03)
    spectra = stepping.spectra(ramp(stepping))
    _, nominal = stacks_of(spectra, 7, 2, truncate_offsets=False)
    _, measured = stacks_of(spectra, 7, 2, truncate_offsets=False, nominal_offsets=False)
    for column in range(2):
        assert disagreement(nominal[column]) > 0.05
        assert disagreement(measured[column]) < 2e-5
    cube, _ = stacks_of(spectra, 7, 2, nominal_offsets=False)
    offsets = published_cube.measured_offsets(spectra, cube.geometry.sub_arcsec)
    assert min(offsets.values()) == 0
    assert [cube.geometry.first_row(place) for place in spectra] == [int(offsets[place]) for place in spectra]


def test_without_zeros_a_constant_field_is_constant_wherever_it_was_seen():
    stepping = Stepping(rows=7, columns=1, ny=8)
    spectra = stepping.spectra(lambda ra, dec, wave: np.ones_like(wave))
    # As jwst has it: zeros where there are no data.
    for spectrum in spectra.values():
        spectrum.data[0] = 0
    cube, _ = stacks_of(spectra, 7, 1, zeros_in_median=False)
    published, _ = stacks_of(spectra, 7, 1)
    seen = np.isfinite(cube.data[5, :, 0])
    np.testing.assert_allclose(cube.data[5, seen, 0], 1.0, rtol=1e-12)
    assert seen.sum() > (published.data[5, :, 0] == 1).sum()
    flags = published_cube.quality(cube, PaperSettings(zeros_in_median=False))
    np.testing.assert_array_equal(flags[5, :, 0] == 0, seen)
    # The published medians fall towards the ends, because jwst's zeros take part.
    assert ((published.data[5, :, 0] > 0) & (published.data[5, :, 0] < 1)).any()


def test_known_median_is_that_of_numpy():
    values = np.random.default_rng(3).normal(size=(6, 30, 40))
    values[np.random.default_rng(4).random(values.shape) < 0.4] = np.nan
    values[0, 1:] = 0.5
    values[:, 0, 0] = np.nan
    got = published_cube.known_median(values)
    assert np.isnan(got[0, 0])
    values[:, 0, 0] = got[0, 0] = 1.0
    np.testing.assert_array_equal(got, np.nanmedian(values, axis=0))


def test_the_mean_weighs_by_inverse_variance_and_knows_no_zeros():
    stepping = Stepping(rows=2, columns=1, ny=8, row_step=0.1)
    levels = {(0, 0): (1.0, 1.0), (1, 0): (3.0, 3.0)}
    spectra = {
        place: dataclasses.replace(
            spectrum, data=np.full(spectrum.shape, levels[place][0]), weight=np.full(spectrum.shape, levels[place][1])
        )
        for place, spectrum in stepping.spectra(blob(stepping.ra, stepping.dec)).items()
    }
    spectra[0, 0].weight[0] = 0.0
    cube, _ = stacks_of(spectra, 2, 1, combine="mean")
    column = cube.data[5, :, 0]
    first, last = cube.geometry.offsets[1], cube.geometry.positions.size
    # The first row of the first exposure has no weight, nor have the sub-pixels that it takes part in.
    np.testing.assert_allclose(column[first + 4 : last], (1 * 1 + 3 * 3) / 4)
    assert np.isnan(column[:first]).all()
    np.testing.assert_allclose(column[last : last + first], 3.0)
    assert np.isnan(column[last + first :]).all()


def test_cubic_convolution_returns_nodes_and_parabolas():
    rng = np.random.default_rng(5)
    wave = np.linspace(1.0, 1.2, 9)
    at = np.linspace(0, 9, 37)
    data = rng.normal(size=(10, 9))
    np.testing.assert_allclose(published_cube.interpolate_cubic(data, wave, at, wave)[::4], data, rtol=1e-12)
    parabola = np.repeat((0.3 * np.arange(10.0) ** 2 - np.arange(10.0))[:, None], 9, axis=1)
    got = published_cube.interpolate_cubic(parabola, wave, at, wave)
    np.testing.assert_allclose(got[4:33, 3], 0.3 * at[4:33] ** 2 - at[4:33], rtol=1e-12, atol=1e-12)
    assert np.isnan(published_cube.interpolate_cubic(data, wave, np.array([-0.1, 9.1]), wave)).all()
    hole = data.copy()
    hole[5, 4] = np.nan
    missing = np.isnan(published_cube.interpolate_cubic(hole, wave, at, wave)[:, 4])
    assert missing[20]
    assert not missing[:12].any()


def test_the_builder_takes_the_switch():
    stepping = Stepping(rows=3, columns=1, ny=8)
    spectra = stepping.spectra(blob(stepping.ra, stepping.dec))
    linear, _ = stacks_of(spectra, 3, 1)
    cubic, _ = stacks_of(spectra, 3, 1, interpolation="cubic")
    # A source hardly wider than a pixel: linear interpolation cuts its peak.
    assert np.nanmax(cubic.data) > np.nanmax(linear.data)


def test_the_header_says_in_what_a_cube_differs():
    assert published_cube.description(PaperSettings()).startswith("Published algorithm: truncated")
    text = published_cube.description(PaperSettings(truncate_offsets=False, combine="mean"))
    assert text == "Published algorithm, but for truncate_offsets = False, combine = mean."
