"""Polynomials of a slit's WCS: all seven dispersers, slits at a detector's edge, tables with several degrees."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import asdf
import numpy as np
import pytest
from astropy.io import fits
from astropy.modeling import fix_inputs
from astropy.modeling.models import Identity, RotationSequence3D, Shift
from stdatamodels.jwst import datamodels

from msa3d.errors import ProductError, UnlitSlitError
from msa3d.pipeline.layout import GEOMETRY
from msa3d.reduce.geometry import WcsAsWritten, fit_geometry, geometry_table, read_geometries

from ..fixtures.dispersers import ALL, SlitWcs, prism_um
from ..fixtures.stepping import slit_wcs

NY = 34


def missed(wcs, geometry) -> float:
    """Largest error of the fit between and at the pixels it was fitted in, in pixels where they are."""
    ny, nx = wcs.shape
    x, y = np.arange(0, nx - 1, 0.5), np.arange(0, ny - 1, 0.5)
    _, wave = geometry.on_detector(x, y)
    _, edges = geometry.on_detector(np.append(x - 0.25, x[-1] + 0.25), y)
    _, _, truth = wcs.get_transform("detector", "slit_frame")(*np.meshgrid(x, y))
    return float(np.nanmax(np.abs(wave - truth * 1e6) / (2 * np.abs(np.diff(edges, axis=1)))))


@pytest.mark.parametrize("name", [name for name in ALL if name != "PRISM"])
def test_gratings_are_polynomials_of_degree_8(name):
    wcs = SlitWcs(ALL[name].wave_um, (NY, 2048), lit=(30, 1990))
    geometry = fit_geometry(wcs, wcs.shape, name)
    assert geometry.wave.shape == geometry.y_slit.shape == (9, 5)
    assert geometry.residuals[:2].max() < 1e-6
    assert missed(wcs, geometry) < 1e-6


@pytest.mark.parametrize(
    ("low", "high", "columns"), [(0.6, 5.3, 400), (1.34, 5.38, 341), (0.6, 1.4, 90), (0.97, 1.9, 60)]
)
def test_the_prism_is_followed_to_a_five_hundredth_of_a_pixel(low, high, columns):
    """A polynomial of degree 8 misses the curve of CaF2 by tenths of a pixel and more.

    jwst reads the wavelength from a table of 5 nm, which is off by 0.003 of the pixels at 0.6 um, the shortest ones.
    """
    wcs = SlitWcs(lambda x: prism_um(x - 5, low, high, columns - 11), (NY, columns))
    geometry = fit_geometry(wcs, wcs.shape, "PRISM")
    assert geometry.residuals[:2].max() <= 2e-3
    assert missed(wcs, geometry) < 5e-3


def test_a_jump_is_still_refused():
    wcs = SlitWcs(lambda x: ALL["G140H"].wave_um(x) + 5e-4 * (x > 800), (NY, 2048))
    with pytest.raises(ProductError, match=r"polynomials miss its WCS by .* it is not that of a NIRSpec slit"):
        fit_geometry(wcs, wcs.shape, "slit 1")


def test_degrees_of_all_kinds_share_a_table(tmp_path):
    curves = (ALL["PRISM"].wave_um, ALL["G140H"].wave_um, lambda x: prism_um(x, 1.34, 5.38, 400))
    made = {v: fit_geometry(SlitWcs(c, (NY, 400)), (NY, 400), str(v)) for v, c in enumerate(curves, start=1)}
    assert len({item.wave.shape for item in made.values()}) == 3
    path = tmp_path / "cal.fits"
    fits.HDUList([fits.PrimaryHDU(), geometry_table(made)]).writeto(path)
    read = read_geometries(path)
    x, y = np.arange(401) - 0.5, np.arange(float(NY))
    for version, geometry in made.items():
        for one, other in zip(geometry.on_detector(x, y), read[version].on_detector(x, y), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_slit_that_lights_a_few_columns_is_told_apart():
    wcs = SlitWcs(ALL["G140H"].wave_um, (NY, 2048), lit=(2043, 2047))
    with pytest.raises(UnlitSlitError, match="it lights 5 columns of the detector"):
        fit_geometry(wcs, wcs.shape, "slit 1")


def test_the_log_names_file_source_and_detector_of_a_slit_left_out(tmp_path, caplog):
    """A file of jwst's, its WCS in ASDF: of two slits one lights 5 columns."""
    path = tmp_path / "jw_nrs1_cal.fits"
    with datamodels.MultiSlitModel() as model:
        model.meta.instrument.detector = "NRS1"
        for source, lit in ((8512, 5), (8513, 120)):
            wave = np.full(120, np.nan)
            wave[-lit:] = ALL["G140H"].wave_um(np.arange(lit)) * 1e-6
            slit = datamodels.SlitModel((NY, 120))
            slit.meta.wcs = slit_wcs(215.0, 52.9, 30.0, NY, wave, 0.1)
            slit.source_id = source
            model.slits.append(slit)
        model.save(str(path))
    with caplog.at_level("WARNING"):
        assert list(read_geometries(path)) == [2]
    assert re.search(r"jw_nrs1_cal\.fits, slit 1 \(source 8512, NRS1\): it lights 5 columns .*left out", caplog.text)


def test_a_table_may_be_empty():
    with fits.HDUList([fits.PrimaryHDU(), geometry_table({})]) as hdus:
        assert len(hdus[GEOMETRY].data) == 0


def test_a_wcs_in_memory_gives_what_its_file_will_give():
    """Angles are kept in radians and written in degrees: in one of seven the last digit changes."""
    dice, changed = np.random.default_rng(0), 0
    where = dice.normal(size=(3, 20))
    for angles in dice.uniform(-180.0, 360.0, (50, 3)):
        rotation = RotationSequence3D(angles, "zyx")
        inside = Shift(0.1) & Shift(0.2) & Shift(0.3) | rotation
        with asdf.AsdfFile({"model": inside}) as file:
            stream = io.BytesIO()
            file.write_to(stream)
        stream.seek(0)
        with asdf.open(stream) as file:
            read = file["model"](*where)
        kept = SimpleNamespace(get_transform=lambda first, last, inside=inside: inside)
        np.testing.assert_array_equal(WcsAsWritten(kept).get_transform("slit_frame", "world")(*where), read)
        changed += not np.array_equal(inside(*where), read)
    assert changed


def test_a_wcs_in_memory_whose_inputs_have_names():
    """jwst 3.0.0 names the inputs of its transforms, and fixes some of them by these names."""
    rotation = RotationSequence3D([10.0, 20.0, 30.0], "zyx")
    named = (Shift(0.1) & Shift(0.2) & Shift(0.3) | rotation) & Identity(1)
    named.inputs = ("x", "y", "z", "name")
    fixed = fix_inputs(named, {"name": 7.0})
    kept = SimpleNamespace(get_transform=lambda first, last: fixed)
    found = WcsAsWritten(kept).get_transform("slit_frame", "world")(1.0, 2.0, 3.0)
    np.testing.assert_allclose(found, [*rotation(1.1, 2.2, 3.3), 7.0], rtol=1e-12)
