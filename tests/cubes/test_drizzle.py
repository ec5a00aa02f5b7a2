"""The drizzle builder on made-up slits of known sky: values, errors, places, gaps, files."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from msa3d.cubes import build as cubes_build
from msa3d.cubes import drizzle
from msa3d.cubes.cube import open_cube
from msa3d.cubes.settings import OutlierSettings, RegistrationSettings
from msa3d.cubes.slit import read_slit
from msa3d.errors import ProductError
from msa3d.galaxy.lines import line_spread_of
from msa3d.observation.sky import BLUR_PIXELS
from msa3d.observation.source import SourceTask, place_exposures
from msa3d.pipeline.layout import POST_SUFFIX
from msa3d.pointing.offsets import Registration, table_path
from msa3d.pointing.profiles import Frame
from msa3d.reduce.slit import PITCH_IN_OPENINGS

from ..fixtures import calrun
from ..fixtures.calfiles import write_cal

NO_OUTLIERS = OutlierSettings(method="none")


def build(root, chosen, sky, **changes):
    """Write a run, build its cube, read it back."""
    layout = calrun.write_run(root, chosen, sky, **changes)
    notes = drizzle.build(SourceTask(layout, chosen, 8512, place_exposures(chosen, layout)))
    return layout, notes, open_cube(layout.cube(8512, chosen))


def mean_image(cube):
    """Mean over wavelengths; 0 where there are no data."""
    full = np.isfinite(cube.data[5:-5])
    return np.nan_to_num(cube.data[5:-5]).sum(axis=0) / np.maximum(full.sum(axis=0), 1)


def centroid(image):
    y, x = np.indices(image.shape)
    return (image * x).sum() / image.sum(), (image * y).sum() / image.sum()


@pytest.mark.parametrize("frame", ["skyalign", "msaalign"])
@pytest.mark.parametrize("weighting", ["volume", "exptime", "ivm"])
def test_uniform_field_is_flat(tmp_path, frame, weighting):
    chosen = calrun.dataset(2, 2, coord_system=frame, weighting=weighting)
    _, notes, cube = build(tmp_path, chosen, calrun.uniform(2.5))
    values = cube.data[np.isfinite(cube.data)]
    assert values.size > 1000
    # The file is in float32.
    np.testing.assert_allclose(values, 2.5, rtol=3e-7)
    assert notes["rejected"] == 0


@pytest.mark.parametrize("pa_deg", [28.0, -75.0, 160.0])
def test_source_is_where_it_is(tmp_path, pa_deg):
    chosen = calrun.dataset(3, 7, scalexy=0.05, outliers=NO_OUTLIERS)
    east, north = 0.07, -0.11
    layout, _, cube = build(tmp_path, chosen, calrun.blob(east, north), pa_deg=pa_deg)
    image = mean_image(cube)
    got = cube.wcs.pixel_to_world_values(*centroid(image))
    wanted = calrun.place_on_sky(east, north)
    offset = np.subtract(got, wanted) * np.array([np.cos(np.radians(calrun.DEC)), 1]) * 3600
    assert np.hypot(*offset) < 0.002
    header = fits.getheader(layout.cube(8512, chosen), "SCI")
    assert (header["SLITPA"] - pa_deg + 180) % 360 - 180 == pytest.approx(0, abs=1e-3)
    assert header["SLITWID"] == pytest.approx(calrun.WIDTH, abs=1e-5)
    assert header["SLITLEN"] == pytest.approx(calrun.HEIGHT, rel=1e-3)


def test_flux_is_conserved(tmp_path):
    chosen = calrun.dataset(5, 5, scalexy=0.05, outliers=NO_OUTLIERS)
    _, _, cube = build(tmp_path, chosen, calrun.blob(0.03, 0.02, fwhm=0.25))
    channel = np.argmin(np.abs(cube.wave_um - 1.204))
    square_arcsec = cube.pixel_sr / (np.pi / 180 / 3600) ** 2
    got = np.nansum(cube.data[channel]) * square_arcsec
    assert got == pytest.approx(2 * np.pi * (0.25 / 2.3548) ** 2, rel=1e-3)


def test_msaalign_has_the_slit_upright_and_the_frame_can_be_chosen(tmp_path):
    chosen = calrun.dataset(1, 3, coord_system="msaalign", outliers=NO_OUTLIERS)
    _, _, cube = build(tmp_path, chosen, calrun.uniform())
    # Axis-aligned footprints leave no half-empty rows: the sweep is three shutters wide.
    assert cube.shape[1] == pytest.approx(3 * calrun.WIDTH / 0.1, abs=1)
    ra, dec = calrun.place_on_sky(0.0, 0.0)
    again = calrun.dataset(
        *(1, 3), ra_center=ra, dec_center=dec, cube_pa=28.0, scalexy=0.1, wavemin=1.203, wavemax=1.21, scalew=5e-4,
        outliers=NO_OUTLIERS,
    )  # fmt: skip
    _, _, other = build(tmp_path / "again", again, calrun.uniform())
    assert other.shape[1] == cube.shape[1]
    assert len(other.wave_um) == 14
    assert other.wave_um[0] == pytest.approx(1.203 + 2.5e-4)
    middle = other.wcs.pixel_to_world_values((other.shape[1] - 1) / 2, (other.shape[0] - 1) / 2)
    np.testing.assert_allclose(middle, (ra, dec), atol=1e-10)


@pytest.mark.parametrize("bin_pixels", [0.5, 2.0])
def test_the_length_of_a_pixel_is_told_whatever_the_bins(tmp_path, bin_pixels):
    layout, _, cube = build(
        tmp_path / "pixel", (chosen := calrun.dataset(1, 1, outliers=NO_OUTLIERS)), calrun.uniform()
    )
    pixel = float(np.diff(cube.wave_um).mean())
    assert fits.getheader(layout.cube(8512, chosen), "SCI")["SPECPIX"] == pytest.approx(pixel, rel=1e-6)
    chosen = calrun.dataset(1, 1, scalew=bin_pixels * pixel, outliers=NO_OUTLIERS)
    layout, _, cube = build(tmp_path / "bins", chosen, calrun.uniform())
    header = fits.getheader(layout.cube(8512, chosen), "SCI")
    assert header["SPECPIX"] == pytest.approx(pixel, rel=1e-6)
    assert header["CDELT3"] == pytest.approx(bin_pixels * pixel, rel=1e-6)
    assert line_spread_of(cube.header).pixel_at(1.2) == pytest.approx(pixel, rel=1e-6)


@pytest.mark.parametrize("weighting, share", [("exptime", 0.25), ("ivm", 1 / 64)])
def test_a_short_exposure_counts_for_what_it_is_worth(tmp_path, weighting, share):
    """Two exposures of one place; the second sees a sky twice as bright in a quarter of the time."""
    chosen = calrun.dataset(1, 2, weighting=weighting, outliers=NO_OUTLIERS)
    layout = calrun.write_run(tmp_path, chosen, calrun.uniform(), step=0.0)
    _, last = calrun.activities(2)
    with fits.open(layout.cal(last, "nrs2", f"jw02136001001_{last}_00001", POST_SUFFIX), mode="update") as hdus:
        usual = hdus[0].header["EFFEXPTM"]
        hdus[0].header["EFFEXPTM"] = usual / 4
        hdus["SCI"].data *= 2.0
        # Of read noise alone, in rates of a quarter of the groups.
        hdus["VAR_RNOISE"].data *= 64.0
    drizzle.build(SourceTask(layout, chosen, 8512, place_exposures(chosen, layout)))
    path = layout.cube(8512, chosen)
    cube = open_cube(path)
    inside = fits.getdata(path, "NEXP") == 2
    assert inside.sum() > 500
    np.testing.assert_allclose(cube.data[inside], (1.0 + share * 2.0) / (1.0 + share), rtol=1e-5)
    etime, weight = fits.getdata(path, "ETIME"), fits.getdata(path, "WMAP")
    single = fits.getdata(build(tmp_path / "long", calrun.dataset(1, 1, weighting=weighting, outliers=NO_OUTLIERS),
                                calrun.uniform())[0].cube(8512, chosen), "ETIME")  # fmt: skip
    assert np.median(etime[inside]) == pytest.approx(1.25 * np.median(single[single > 0]), rel=0.01)
    assert np.isfinite(weight[inside]).all()


def test_errors_are_those_of_the_noise(tmp_path):
    """Scatter over realisations in units of ERR, and that of apertures in units of sum_error."""
    chosen = calrun.dataset(3, 3, outliers=NO_OUTLIERS)
    rng = np.random.default_rng(7)
    pulls, sums = [], []
    for number in range(5):
        _, _, cube = build(tmp_path / str(number), chosen, calrun.uniform(0.0), noise=rng)
        pulls.append((cube.data / cube.err)[np.isfinite(cube.err)])
        mask = np.zeros(cube.shape, bool)
        mask[cube.shape[0] // 2 - 3 : cube.shape[0] // 2 + 3, cube.shape[1] // 2 - 2 : cube.shape[1] // 2 + 2] = True
        sums.append((np.nansum(cube.data * mask, axis=(1, 2)) / cube.sum_error(mask))[2:-2])
    assert np.concatenate(pulls).std() == pytest.approx(1.0, abs=0.05)
    assert np.concatenate(sums).std() == pytest.approx(1.0, abs=0.10)
    assert cube.noise_factor(mask)[5] > 1.4


def through_bars(geometry, sky, fine=400):
    """What the pixels of an open row of shutters measure, blurred along the slit and corrected for the bar shadow."""
    from scipy.special import ndtr

    steps = 4.0 * ((np.arange(fine) + 0.5) / fine - 0.5)
    response = ndtr((steps + 0.5) / BLUR_PIXELS) - ndtr((steps - 0.5) / BLUR_PIXELS)
    total, light = np.zeros((2, calrun.NY, calrun.NX))
    for along, weight in zip(steps, response, strict=True):
        y_slit, wave = geometry.on_detector(np.arange(calrun.NX, dtype=float), np.arange(calrun.NY) + along)
        from_middle = np.abs((y_slit + 0.5 * PITCH_IN_OPENINGS) % PITCH_IN_OPENINGS - 0.5 * PITCH_IN_OPENINGS)
        seen = weight * ((from_middle <= 0.5) & (np.abs(y_slit) <= PITCH_IN_OPENINGS + 0.5))
        east, north = geometry.on_sky(np.zeros_like(wave), y_slit, wave)
        total += seen
        light += seen * sky(east, north, wave)
    return light / np.maximum(total, 1e-9)


def test_pixels_at_a_bar_lie_where_they_look(tmp_path):
    """A sky that changes along the slit, measured through bars: each pixel has the value of its middle."""
    geometry = calrun.geometry_at(0.0, 0.0, 28.0)

    def sky(east, north, wave):
        return 1.0 + east * np.sin(np.radians(28.0)) + north * np.cos(np.radians(28.0))

    path = tmp_path / "jw_nrs2_cal.fits"
    write_cal(path, [{"sci": through_bars(geometry, sky), "geometry": geometry, "header": {"SHUTSTA": "1x1"}}], "NRS2")
    off = {}
    for bars in (False, True):
        slit = read_slit(path, 8512, bars=bars)
        off[bars] = slit.data - sky(slit.east.mean(axis=1), slit.north.mean(axis=1), None)
    # A fifth of a pixel, in arcsec as the sky has a slope of one: rows on both sides of a bar, to opposite sides.
    assert np.abs(off[False]).max() > 0.015
    assert off[False].max() > 0.015 > -0.015 > off[False].min()
    assert np.abs(off[True]).max() < 5e-4


def test_pixels_that_a_stuck_shutter_lights_are_left_out(tmp_path):
    def light(activity, sci, dq):
        sci[12:, :] += 0.5
        dq[12:, :] |= 2**29

    _, _, cube = build(tmp_path, calrun.dataset(2, 2, outliers=NO_OUTLIERS), calrun.uniform(), spoil=light)
    assert np.nanmax(cube.data) == pytest.approx(1.0)
    chosen = calrun.dataset(2, 2, outliers=NO_OUTLIERS, exclude=[])
    assert np.nanmax(build(tmp_path / "all", chosen, calrun.uniform(), spoil=light)[2].data) > 1.4


def test_order_of_the_exposures_does_not_matter(tmp_path):
    chosen = calrun.dataset(3, 2)
    layout = calrun.write_run(tmp_path, chosen, calrun.blob(0, 0), noise=np.random.default_rng(1))
    from msa3d.cubes.grid import make_grid
    from msa3d.cubes.operator import CubeOperator

    settings = chosen.cubebuild.drizzle
    task = SourceTask(layout, chosen, 8512, place_exposures(chosen, layout))
    grid, slits = make_grid(drizzle.read_slits(task), settings)
    shuffled = [slits[k] for k in np.random.default_rng(2).permutation(len(slits))]
    one, other = (CubeOperator(order, grid).combine() for order in (slits, shuffled))
    np.testing.assert_allclose(one.sci, other.sci, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(one.err, other.err, rtol=1e-12)
    np.testing.assert_array_equal(one.nexp, other.nexp)


def test_missing_exposure_and_lost_pixels_leave_gaps_not_lies(tmp_path):
    def lose(activity, sci, dq):
        sci[:, 30:33] = np.nan
        dq[5, :] |= 1
        sci[5, :] = 1e6

    chosen = calrun.dataset(3, 3)
    layout, notes, cube = build(
        tmp_path, chosen, calrun.uniform(), without=calrun.activities(9)[4:5], spoil=lose, step=0.2
    )
    assert (notes["exposures"], notes["missing"]) == (8, 1)
    assert np.nanmax(np.abs(cube.data - 1)) < 1e-6
    # The three lost columns are a gap: flagged, no exposure time, NaN; tilt moves it by a bin at most.
    gap = np.isnan(cube.data[:, cube.nexp.max(axis=0) > 3]).all(axis=1)
    assert 1 <= gap[10:-10].sum() <= 3
    assert ((cube.dq & 1) > 0)[np.isnan(cube.data)].all()
    assert (cube.etime[np.isnan(cube.data)] == 0).all()
    assert cube.nexp.max() == 5  # Of the columns on both sides of a spaxel 3 dithers each, but one is missing.
    whole = build(tmp_path / "whole", chosen, calrun.uniform())[2]
    assert cube.etime.sum() < 0.92 * whole.etime.sum()
    assert not list(layout.cube_dir(8512).glob("*partial*"))


def test_outliers_are_found_and_written_down(tmp_path):
    hits = {}

    def hit(activity, sci, dq):
        rng = np.random.default_rng(int(activity))
        rows, columns = rng.integers(6, 12, 6), rng.integers(5, 55, 6)
        sci[rows, columns] += 10 * calrun.ERROR
        hits[activity] = set(zip(rows.tolist(), columns.tolist(), strict=True))

    chosen = calrun.dataset(5, 3)
    bright = calrun.blob(0.0, 0.0)

    def sky(east, north, wave):
        return 0.2 * bright(east, north, wave)

    layout, notes, cube = build(tmp_path, chosen, sky, noise=np.random.default_rng(3), spoil=hit)
    found = 0
    with fits.open(layout.outliers(8512)) as hdus:
        for activity, places in hits.items():
            name = f"EXP_{activity}_NOBAR_NRS2"
            if name in hdus:
                image = hdus[name].data
                found += sum(image[place] for place in places)
        table = Table(hdus["STATISTICS"].data)
    total = sum(map(len, hits.values()))
    assert found >= 0.95 * total
    assert notes["rejected"] - found <= 0.001 * notes["pixels"]
    assert table["rejected"].sum() == notes["rejected"]
    assert np.median(table["scatter"]) == pytest.approx(1.0, abs=0.1)
    clean = build(tmp_path / "clean", chosen, sky, noise=np.random.default_rng(3))[2]
    line = np.abs(cube.wave_um - 1.207) < 1e-3
    assert np.nansum(cube.data[line]) == pytest.approx(np.nansum(clean.data[line]), rel=0.01)


def test_measured_offsets_are_applied(tmp_path):
    chosen = calrun.dataset(3, 3, registration=RegistrationSettings(method="apply"), outliers=NO_OUTLIERS)
    layout = calrun.write_run(tmp_path, chosen, calrun.blob(0, 0))
    names = calrun.activities(9)
    task = SourceTask(layout, chosen, 8512, place_exposures(chosen, layout))
    with pytest.raises(ProductError, match="not a table of measured offsets"):
        drizzle.build(task)
    offsets, errors = np.tile([0.1, -0.2], (9, 1)), np.full((9, 2), 0.01)
    Registration(tuple(names), offsets, errors, offsets, errors, Frame(28.0), 0.01, {}).write(table_path(layout))
    drizzle.build(task)
    cube = open_cube(layout.cube(8512, chosen))
    image = mean_image(cube)
    east, north = cube.offsets(calrun.RA, calrun.DEC)
    assert (image * east).sum() / image.sum() == pytest.approx(0.1, abs=0.01)
    assert (image * north).sum() / image.sum() == pytest.approx(-0.2, abs=0.01)
    assert table_path(layout) in drizzle.inputs(task)


def test_step_builds_once_and_again_when_a_parameter_changes(tmp_path):
    chosen = calrun.dataset(2, 2)
    layout = calrun.write_run(tmp_path, chosen, calrun.uniform())
    first = cubes_build.run(chosen, layout, workers=1)
    assert [(item.notes["builder"], item.status) for item in first.results] == [("drizzle", "done")]
    assert [item.status for item in cubes_build.run(chosen, layout, workers=1).results] == ["current"]
    finer = calrun.dataset(2, 2, scalexy=0.08)
    assert [item.status for item in cubes_build.run(finer, layout, workers=1).results] == ["done"]
    header = fits.getheader(layout.cube(8512, chosen))
    assert (header["MSA3DBLD"], header["SOURCEID"], header["MSA3DSIM"]) == ("drizzle", 8512, True)


def test_what_cannot_be_built_is_told(tmp_path):
    chosen = calrun.dataset(2, 2)
    layout = calrun.write_run(tmp_path, chosen, calrun.uniform())
    with pytest.raises(ProductError, match="of source 99 for the builder drizzle"):
        cubes_build.run(chosen, layout, workers=1, sources=[99])
    far = calrun.dataset(2, 2, wavemin=2.0, wavemax=2.1)
    with pytest.raises(Exception, match="wavemin and wavemax leave nothing"):
        cubes_build.run(far, layout, workers=1)
    path = next(layout.process.glob("*/*cal_pathcorr*.fits"))
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(Exception, match=path.name):
        cubes_build.run(chosen, layout, workers=1)
