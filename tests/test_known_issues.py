"""The known issues of NIRSpec MOS data (as STScI numbers them): symptom and cure of each, on simulated data.

``MSA3D_ISSUES=book/known_issues.csv make test PYTESTARGS=tests/test_known_issues.py`` makes the table of the book.
NS-MOS04 (correlated noise) is in `tests/reduce/test_nsclean.py`, which has the images for it.
"""

from __future__ import annotations

import csv
import logging
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from msa3d.cubes import drizzle
from msa3d.cubes.cube import open_cube
from msa3d.cubes.operator import pixel_weights
from msa3d.cubes.settings import OutlierSettings
from msa3d.observation import metafile_edit
from msa3d.observation.source import SourceTask, place_exposures
from msa3d.reduce.exposure import restore_states
from msa3d_sim.throughput import uniform_pathloss

from .fixtures import calrun
from .fixtures.observed import dataset_of, observe
from .reduce.test_corrections import make_slit

log = logging.getLogger("known issues")


@pytest.fixture(scope="module")
def measured():
    """What the tests measured, an issue and a sentence each; the book's table where MSA3D_ISSUES names it."""
    rows: list[list[str]] = []
    yield rows
    if path := os.environ.get("MSA3D_ISSUES"):
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["issue", "measured on simulated data"], *sorted(rows)])


@pytest.fixture(autouse=True)
def _said(caplog, measured):
    with caplog.at_level(logging.INFO, logger="known issues"):
        yield
    # jwst's own log takes records over, under its name.
    told = dict.fromkeys(record.getMessage() for record in caplog.get_records("call"))
    measured += [m.replace("->", "\u2192").split(": ", 1) for m in told if m.startswith("NS-MOS")]


# --- NS-MOS01: outliers


def cube_of(root, chosen, spoil=None):
    layout = calrun.write_run(root, chosen, calrun.blob(0.0, 0.0), noise=np.random.default_rng(3), spoil=spoil)
    drizzle.build(SourceTask(layout, chosen, 8512, place_exposures(chosen, layout)))
    return open_cube(layout.cube(8512, chosen))


def test_mos01_outliers_that_stage_1_missed_do_not_reach_the_cube(tmp_path):
    """Hits of 10 to 40 sigma in single pixels, six an exposure; cubes with and without rejection against none."""

    def hit(activity, sci, dq):
        rng = np.random.default_rng(int(activity))
        rows, columns = rng.integers(5, 13, 6), rng.integers(5, 55, 6)
        sci[rows, columns] += rng.uniform(10, 40, 6) * calrun.ERROR

    none = OutlierSettings(method="none")
    truth = cube_of(tmp_path / "truth", calrun.dataset(5, 3, outliers=none))
    symptom = cube_of(tmp_path / "symptom", calrun.dataset(5, 3, outliers=none), hit)
    cured = cube_of(tmp_path / "cured", calrun.dataset(5, 3), hit)
    inner = np.isfinite(truth.data) & (truth.nexp >= 5)

    def beyond(cube):
        pull = np.abs(cube.data - truth.data)[inner] / truth.err[inner]
        return float((pull > 3).mean()), float(pull.max())

    (many, worst), (few, left) = beyond(symptom), beyond(cured)
    log.info(
        "NS-MOS01: voxels beyond 3 sigma %.2f %% -> %.3f %%, worst %.0f -> %.1f sigma",
        1e2 * many,
        1e2 * few,
        worst,
        left,
    )
    assert many > 0.02
    assert worst > 10
    assert few < 0.03 * many
    assert left < 0.5 * worst


# --- NS-MOS02: errors that are NaN


def test_mos02_errors_without_that_of_the_flat():
    """The uncertainty of a flat is unknown: jwst's ERR is NaN; from photons and read noise it is the scatter again."""
    rng = np.random.default_rng(2)
    slit = make_slit()
    scatter = np.sqrt(slit.variances["VAR_POISSON"] + slit.variances["VAR_RNOISE"])
    slit.data += rng.normal(0.0, scatter)
    slit.err[:] = np.sqrt(scatter**2 + np.nan)
    assert np.isnan(slit.err).all()
    rebuilt = slit.rebuild_errors()
    pull = ((slit.data - 1.0) / slit.err).std()
    log.info(
        "NS-MOS02: pixels with an error %.0f %% -> %.0f %%, scatter over error %.3f",
        0,
        1e2 * rebuilt / slit.err.size,
        pull,
    )
    assert rebuilt == slit.err.size
    assert pull == pytest.approx(1.0, abs=0.03)


# --- NS-MOS03: path loss of long slitlets


@pytest.mark.parametrize("state", ["11x11", "111x111", "x1111", "1x", "11111x"])
def test_mos03_long_slitlets_get_the_path_loss_of_three_shutters(state):
    """jwst 1.14.0 finds no aperture for more than 3 shutters in its reference, and takes that of 3."""
    from jwst.pathloss.pathloss import get_aperture_from_model

    apertures = [SimpleNamespace(name="MOS1x1", shutters=1), SimpleNamespace(name="MOS1x3", shutters=3)]
    model = SimpleNamespace(meta=SimpleNamespace(exposure=SimpleNamespace(type="NRS_MSASPEC")), apertures=apertures)
    assert get_aperture_from_model(model, state).name == "MOS1x3"


def test_mos03_what_no_correction_costs_and_what_that_of_three_leaves():
    """A uniform source in a slitlet of 5: without correction (older versions), and with that of 3 shutters."""
    wave_um = np.linspace(0.98, 1.88, 50)
    passed = uniform_pathloss(wave_um, 5)
    symptom = passed / passed.mean() - 1
    cured = passed / uniform_pathloss(wave_um, 3) - 1
    log.info(
        "NS-MOS03: loss %.1f to %.1f %% over the band without correction; %.2f to %.2f %% left with that of 3 shutters",
        1e2 * (1 - passed.max()), 1e2 * (1 - passed.min()), 1e2 * cured.min(), 1e2 * cured.max(),
    )  # fmt: skip
    assert np.ptp(symptom) > 5 * np.ptp(cured)
    assert np.abs(cured).max() < 0.01


# --- NS-MOS06: ends of slitlets


def slitlet_of(columns, primary):
    from .observation.test_metafile_edit import build, rows_of_slitlet

    return build(rows_of_slitlet(1, 8512, columns, primary, row=150, quadrant=1), sources=[8512])


@pytest.mark.slow
def test_mos06_one_more_shutter_at_each_end_keeps_the_light_there(tmp_path):
    """What jwst cuts out of the detector, in openings of a shutter from the middle of the source's."""
    from jwst.assign_wcs import nirspec

    short = slitlet_of(range(89, 92), 91)  # the source in the shutter at the end, as in an outer dither
    short.write(tmp_path / "short_msa.fits")
    metafile_edit.lengthen_slitlets(short).write(tmp_path / "long_msa.fits")
    (before,), (after,) = (nirspec.get_open_msa_slits(str(tmp_path / f"{n}_msa.fits"), 1, 1) for n in ("short", "long"))
    # A source at the very edge of its opening: how far its light is kept beyond its own place, in arcsec.
    edge, opening = 0.5, 0.458
    kept = [(slit.ymax - edge) * opening for slit in (before, after)]
    log.info("NS-MOS06: light beyond a source at the edge kept to %.2f -> %.2f arcsec", *kept)
    assert kept[0] == pytest.approx(0.25, abs=0.01)
    assert kept[1] - kept[0] == pytest.approx(1.15 * opening, abs=0.001)


def test_mos06_shutters_that_only_pretend_are_not_open(tmp_path):
    """The longer slitlet is cut out, but SHUTSTA says what is open: the drizzle builder measures nothing beyond."""
    short = slitlet_of(range(89, 92), 91)
    metafile_edit.lengthen_slitlets(short, 2).write(tmp_path / "long_msa.fits")
    meta = SimpleNamespace(instrument=SimpleNamespace(msa_metadata_id=1), dither=SimpleNamespace(position_number=1))
    slit = SimpleNamespace(slitlet_id=1, shutter_state="1111x11", dq=np.zeros((2, 3), np.uint32))
    restore_states(SimpleNamespace(meta=meta, slits=[slit]), tmp_path / "long_msa.fits")
    assert slit.shutter_state == "11x"
    assert not slit.dq.any()
    # All that jwst calls the slitlet's middle may be such a shutter: then nothing was measured at all.
    background = SimpleNamespace(slitlet_id=1, shutter_state="x111111", dq=np.zeros((2, 3), np.uint32))
    restore_states(SimpleNamespace(meta=meta, slits=[background]), tmp_path / "long_msa.fits")
    assert (background.dq == 1).all()


@pytest.mark.slow
def test_mos06_pretended_shutters_leave_the_drizzled_cube_as_it_is(tmp_path):
    """A uniform field through simulate, process and drizzle, with slitlets as they are and longer at both ends."""
    planes, rows = {}, {}
    for more in (0, 1):
        chosen = dataset_of("tiny", "uniform", 1, 3)
        chosen = chosen.model_copy(update={"process": chosen.process.model_copy(update={"lengthen_slitlets": more})})
        layout = observe(tmp_path / str(more), chosen)
        drizzle.build(SourceTask(layout, chosen, 8512, place_exposures(chosen, layout)))
        planes[more] = open_cube(layout.cube(8512, chosen))
        with fits.open(next(layout.process.glob("exp_*/*nrs2_cal.fits"))) as hdus:
            rows[more] = hdus["SCI", 1].shape[0]
            assert hdus["SCI", 1].header["SHUTSTA"] == "11x11"
    before, after = planes[0], planes[1]
    assert rows[1] - rows[0] >= 8  # the light there is kept: two pitches of five pixels
    assert after.data.shape == before.data.shape
    np.testing.assert_array_equal(np.isfinite(after.data), np.isfinite(before.data))
    known = np.isfinite(before.data)
    pulls = np.abs(after.data - before.data)[known] / before.err[known]
    log.info("NS-MOS06: rows cut out %d -> %d, cubes differ by %.1e of their errors", *rows.values(), pulls.max())
    assert pulls.max() < 0.1


# --- NS-MOS07: weighting


def combined_error(photons_over_read: float, weighting: str, differ: float = 0.0) -> float:
    """Error of the mean of 9 exposures, one pixel in five of which lost half of its groups to a cosmic ray.

    Exposures differ by a fraction `differ` of the signal, as those of a compact source that steps through the slit do;
    the signal is 100 times the noise of a pixel.
    """
    rng = np.random.default_rng(7)
    size, exposures = 20_000, 9
    lost = rng.random((exposures, size)) < 0.2
    var_rnoise = np.where(lost, 8.0, 1.0)  # as the third power of the groups
    variance = var_rnoise + photons_over_read * np.where(lost, 2.0, 1.0)
    slits = [SimpleNamespace(var_rnoise=v, exposure_s=1000.0, flat=np.arange(size)) for v in var_rnoise]
    weights = np.stack(pixel_weights(slits, weighting))
    profile = np.linspace(-1.5, 1.5, exposures)[:, None]  # of mean 0 and standard deviation 1
    signal = 100.0 * np.sqrt(photons_over_read + 1.0) * differ * profile
    draws = signal + rng.normal(0.0, np.sqrt(variance))
    return float(((weights * draws).sum(axis=0) / weights.sum(axis=0)).std())


def test_mos07_exposure_time_for_bright_sources_inverse_variance_for_faint_ones():
    bright, alike, faint = (
        combined_error(photons, "ivm", differ) / combined_error(photons, "exptime", differ)
        for photons, differ in ((100.0, 0.1), (100.0, 0.0), (0.1, 0.0))
    )
    log.info(
        "NS-MOS07: error with ivm over that with exptime: %.2f where photons rule and exposures differ by 10 %%, "
        "%.3f where they are alike, %.3f where read noise rules", bright, alike, faint,
    )  # fmt: skip
    assert bright > 2.0
    assert alike > 1.0
    assert faint < 0.95
