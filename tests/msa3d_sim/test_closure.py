"""Light put in comes out: test scenes through the simulator and the real Spec2 of jwst."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

pytestmark = pytest.mark.slow

SWITCHES = ("noise", "banding", "cosmic_rays", "bad_pixels", "saturation", "failed_shutters", "background")
SPEED_OF_LIGHT_KMS = 299_792.458


def calibrate(root, scene: str, **changes):
    """Simulate one exposure of a test scene and run the pipeline up to the calibrated slits."""
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout
    from msa3d.reduce import calibrate as reduce_calibrate
    from msa3d_sim.observe import simulate

    base = Dataset.load("tiny")
    switches = dict.fromkeys(SWITCHES, False) | {"scene": scene} | changes
    dataset = base.model_copy(
        update={
            "pattern": base.pattern.model_copy(update={"rows": 1, "columns": 1}),
            "simulation": base.simulation.model_copy(update=switches),
        }
    )
    layout = Layout(root)
    simulate(dataset, layout, workers=1)
    reduce_calibrate.run(dataset, layout, workers=1)
    return dataset, layout


def slits(layout):
    """Calibrated slits of the one exposure, with world coordinates and position along the slit."""
    from stdatamodels.jwst import datamodels

    found = []
    for path in sorted(layout.process.glob("exp_*_nobar/*_cal.fits")):
        with datamodels.open(path) as model:
            for slit in model.slits:
                y, x = np.mgrid[: slit.data.shape[0], : slit.data.shape[1]]
                ra, dec, wave = slit.meta.wcs(x, y)
                _, along, _ = slit.meta.wcs.get_transform("detector", "slit_frame")(x, y)
                bad = (slit.dq & 1) > 0
                planes = {name: np.where(bad, np.nan, getattr(slit, name)) for name in ("data", "err")}
                found.append(planes | {"ra": ra, "dec": dec, "wave": wave, "along": along, "wcs": slit.meta.wcs})
    return found


@pytest.fixture(scope="module")
def point(tmp_path_factory):
    root = tmp_path_factory.mktemp("point")
    return calibrate(root, "point", bars=False, pathloss=False, point_ujy=50.0)


def test_uniform_field_comes_back_as_its_surface_brightness(tmp_path):
    """Away from the ends of the slit, to 1 per cent."""
    dataset, layout = calibrate(tmp_path, "uniform", bars=False, pathloss=False)
    put_in = dataset.simulation.uniform_mjy_sr
    seen = 0
    for slit in slits(layout):
        # Five shutters: open to 2.8 openings either side of the middle; a pixel is 0.23 of an opening.
        inside = (np.abs(slit["along"]) < 2.3) & (slit["wave"] > 0.99) & (slit["wave"] < 1.88)
        values = slit["data"][inside]
        seen += np.isfinite(values).sum()
        assert np.isfinite(values).sum() >= 0.99 * values.size
        np.testing.assert_allclose(values[np.isfinite(values)], put_in, rtol=0.01)
    assert seen > 20_000


def test_bars_cast_shadows_where_they_are(tmp_path):
    """The published reduction does not correct the bars: they must show, at the pitch of the shutters."""
    dataset, layout = calibrate(tmp_path, "uniform", pathloss=False)
    slit = max(slits(layout), key=lambda s: np.isfinite(s["data"]).sum())
    ratio = slit["data"] / dataset.simulation.uniform_mjy_sr
    for column in range(-2, 3):
        middle = np.abs(slit["along"] - 1.15 * column) < 0.1
        assert np.nanmedian(ratio[middle]) > 0.98
    for bar in (-1.5, -0.5, 0.5, 1.5):
        assert np.nanmedian(ratio[np.abs(slit["along"] - 1.15 * bar) < 0.06]) < 0.7
    corrected_bars_leave_a_flat_field(dataset, layout)


def corrected_bars_leave_a_flat_field(dataset, layout):
    """Post-processing for the drizzle builder takes the shadows out: from 15 per cent rms to below 0.5."""
    from msa3d.archive import crds
    from msa3d.reduce import slits as reduce_slits
    from msa3d.reduce.corrections import BarShadows
    from msa3d.reduce.settings import CalpostSettings

    cal = max(reduce_slits.cal_files(layout, layout.activities()[0]), key=lambda path: path.stat().st_size)
    crds.use_references(layout, dataset)
    bars = BarShadows.read(crds.reference_for(cal, "barshadow"))
    reduce_slits.calpost_file(dataset, CalpostSettings(), cal, reduce_slits.product_of(cal), None, bars)
    with fits.open(cal) as before, fits.open(reduce_slits.product_of(cal)) as after:
        wave = after["WAVELENGTH", 1].data
        usable = ((after["DQ", 1].data & 1) == 0) & (wave > 0.99) & (wave < 1.88)
        raw, flat = (hdus["SCI", 1].data[usable] / dataset.simulation.uniform_mjy_sr for hdus in (before, after))
    assert raw.size > 20_000
    assert raw.std() > 0.1
    assert flat.std() < 0.005
    assert flat.mean() == pytest.approx(1.0, abs=0.001)
    assert np.abs(flat - 1.0).max() < 0.03


def test_point_comes_back_at_its_place(point):
    """Centroid along the slit against the sky position that the slit's own WCS gives the source: 5 mas."""
    dataset, layout = point
    source = dataset.simulation.sources[0]
    offsets = []
    for slit in slits(layout):
        for low in np.arange(1.05, 1.45, 0.05):
            part = (slit["wave"] > low) & (slit["wave"] < low + 0.05) & (np.abs(slit["along"]) < 1.5)
            if np.isfinite(slit["data"][part]).sum() < 2000:
                continue
            weight = np.where(np.isfinite(slit["data"][part]), slit["data"][part], 0.0)
            along = np.sum(weight * slit["along"][part]) / weight.sum()
            sky = slit["wcs"].get_transform("slit_frame", "world")
            # Where along the slit is the source? The nearest point of the slit's centre line.
            line = np.linspace(-2, 2, 4001)
            ra, dec, _ = sky(np.zeros_like(line), line, np.full_like(line, (low + 0.025) * 1e-6))
            distance = np.hypot((ra - source.ra) * np.cos(np.deg2rad(source.dec)), dec - source.dec) * 3600
            offsets.append((along - line[np.argmin(distance)]) * 0.458)
    assert len(offsets) >= 6
    assert np.abs(offsets).max() < 0.005


def test_line_comes_back_at_its_wavelength(tmp_path):
    """An unresolved line that fills the slit: centroid to 0.05 pixel in every row away from the ends."""
    dataset, layout = calibrate(tmp_path, "line", bars=False, pathloss=False)
    wanted = dataset.simulation.line_um
    errors = []
    for slit in slits(layout):
        near = (np.abs(slit["wave"] - wanted) < 0.003) & (np.abs(slit["along"]) < 2.3)
        for row in np.flatnonzero(near.any(axis=1)):
            part = near[row] & np.isfinite(slit["data"][row])
            if part.sum() < 15:
                continue
            light = slit["data"][row, part] - dataset.simulation.uniform_mjy_sr
            step = np.median(np.abs(np.diff(slit["wave"][row, part])))
            errors.append((np.sum(light * slit["wave"][row, part]) / light.sum() - wanted) / step)
    assert len(errors) >= 15
    assert np.abs(errors).max() < 0.05


def test_errors_are_those_of_the_noise(tmp_path):
    """(noisy - noiseless) / ERR of calibrated pixels has a standard deviation of 1 within 5 per cent."""
    _, clean = calibrate(tmp_path / "clean", "uniform")
    _, noisy = calibrate(tmp_path / "noisy", "uniform", noise=True, banding=True)
    pulls = [(b["data"] - a["data"]) / b["err"] for a, b in zip(slits(clean), slits(noisy), strict=True)]
    pulls = np.concatenate([pull[np.isfinite(pull)] for pull in pulls])
    assert pulls.size > 20_000
    assert pulls.std() == pytest.approx(1.0, abs=0.05)
    assert abs(pulls.mean()) < 0.05
