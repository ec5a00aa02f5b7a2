"""All seven dispersers through cube and line fit: a uniform sky with a line, on slits of known geometry, with noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import erf

from msa3d.constants import C_KMS, LINES
from msa3d.cubes import drizzle
from msa3d.cubes.cube import open_cube
from msa3d.galaxy.fit import fit_lines
from msa3d.galaxy.lines import line_spread_of, to_line_flux
from msa3d.observation.source import SourceTask, place_exposures
from msa3d.reduce.geometry import fit_geometry

from ..fixtures import calrun
from ..fixtures.calfiles import write_cal
from ..fixtures.calrun import ERROR, NY
from ..fixtures.dispersers import ALL, SlitWcs

NX = 100
SIGMA_KMS = 150.0
CONTINUUM = 0.5
WHERE = {"G140M": 1.38, "G140H": 1.38, "G235M": 2.2, "G235H": 2.2, "G395M": 4.0, "G395H": 4.0, "PRISM": 4.4}


def geometry_at(name: str, line_um: float, east: float, north: float):
    """A tilted, curved slit of a disperser with a line near the middle, its middle at some offsets on the sky."""
    disperser = ALL[name]
    whole = np.arange(disperser.columns(), dtype=float)
    first = round(float(np.interp(line_um, disperser.wave_um(whole), whole))) - NX // 2
    wcs = SlitWcs(lambda x: disperser.wave_um(x + first), (NY, NX))
    like = calrun.geometry_at(east, north, 28.0)
    fitted = fit_geometry(wcs, wcs.shape, name)
    domain = fitted.domain.copy()
    domain[2] = like.domain[2]
    return replace(fitted, ra0=like.ra0, dec0=like.dec0, east=like.east, north=like.north, domain=domain)


def image_of(geometry, lines: dict[float, float], sigma_kms: float) -> np.ndarray:
    """Pixels of continuum and lines (um: MJy/sr um), behind the slit's image, the blur, and averaged over the pixel."""
    _, edges = geometry.on_detector(np.arange(NX + 1) - 0.5, np.arange(float(NY)))
    low, high = edges[:, :-1], edges[:, 1:]
    pixel = high - low
    data = np.full((NY, NX), CONTINUUM)
    across = ((np.arange(20) + 0.5) / 20 - 0.5) * 1.95
    for at, flux in lines.items():
        for shift in across:
            scale = np.sqrt(2.0) * np.hypot(at * sigma_kms / C_KMS, 0.4 * pixel)
            inside = erf((high - at - shift * pixel) / scale) - erf((low - at - shift * pixel) / scale)
            data += flux * 0.5 * inside / pixel / across.size
    return data


def cube_of(root, name: str, lines: dict[float, float], sigma_kms: float = SIGMA_KMS):
    chosen = calrun.dataset(3, 3)
    chosen = chosen.replaced(
        grating=name,
        filter=ALL[name].filter,
        cubebuild={"drizzle": {"outliers": {"method": "none"}}},
    )
    layout, rng = calrun.Layout(root), np.random.default_rng(5)
    for index, activity in enumerate(calrun.activities(9)):
        row, column = chosen.pattern.place(index)
        up, right = (row - 1) * 0.075, (column - 1) * 0.2
        pa = np.radians(28.0)
        where = up * np.sin(pa) + right * np.cos(pa), up * np.cos(pa) - right * np.sin(pa)
        geometry = geometry_at(name, next(iter(lines)), *where)
        sci = image_of(geometry, lines, sigma_kms) + rng.normal(0.0, ERROR, (NY, NX))
        path = layout.cal(activity, "nrs2", f"jw02136001001_{activity}_00001", calrun.POST_SUFFIX)
        optics = {"GRATING": name, "FILTER": ALL[name].filter}
        write_cal(path, [{"sci": sci, "geometry": geometry}], "NRS2", **optics)
    drizzle.build(SourceTask(layout, chosen, 8512, place_exposures(chosen, layout)))
    path = layout.cube(8512, chosen)
    assert path.name == f"jw02136-o001_s08512_nirspec_{ALL[name].filter}-{name}_s3d.fits".lower()
    return open_cube(path)


@pytest.mark.parametrize("name", ALL)
def test_a_line_comes_back_at_its_place_with_its_width_and_flux(tmp_path, name):
    at = WHERE[name]
    geometry = geometry_at(name, at, 0.0, 0.0)
    wave = geometry.on_detector(np.arange(float(NX)), np.zeros(1))[1][0]
    pixel = float(np.interp(at, wave, np.gradient(wave)))
    flux = 60.0 * ERROR * pixel
    cube = cube_of(tmp_path, name, {at: flux})
    spread = line_spread_of(cube.header, step_um=float(np.median(np.diff(cube.wave_um))))
    # What the analysis takes for a pixel is one.
    assert spread.grating == name
    assert spread.pixel_at(at) == pytest.approx(pixel, rel=0.06)
    z = at / LINES["Ha"] - 1.0
    fit = fit_lines(cube, z, names=("Ha",))
    inner = np.isfinite(fit.velocity) & (np.nanmedian(cube.nexp, axis=0) >= 3)
    assert inner.sum() > 20
    assert fit.blended == ()
    # A line hardly wider than a pixel depends on where in its pixel it fell: 3% of a pixel beside the noise.
    pixel_kms = pixel / at * C_KMS
    velocity, error = fit.velocity[inner], np.hypot(fit.velocity_error[inner], 0.03 * pixel_kms)
    ratio = fit.flux["Ha"][inner] / to_line_flux(flux, at)
    pulls = {
        "flux": (ratio - 1.0) * to_line_flux(flux, at) / fit.flux_error["Ha"][inner],
        "velocity": velocity / error,
    }
    assert abs(velocity.mean()) < 0.05 * pixel_kms
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)
    if name != "PRISM":  # There, 150 km/s are a quarter of a pixel.
        assert fit.sigma[inner].mean() == pytest.approx(SIGMA_KMS, abs=max(4.0, 0.05 * pixel_kms))
        pulls["sigma"] = (fit.sigma[inner] - SIGMA_KMS) / np.hypot(fit.sigma_error[inner], 0.03 * pixel_kms)
    for what, pull in pulls.items():
        assert 0.5 < np.sqrt(np.mean(pull**2)) < 1.5, what


def test_the_prism_does_not_part_halpha_from_nitrogen(tmp_path, caplog):
    """At R = 33 only the sum is measured: errors of the parts say so, and the log."""
    at = 1.38
    z = at / LINES["Ha"] - 1.0
    flux = 60.0 * ERROR * 0.019
    share = {"Ha": 1.0, "[NII]6583": 0.4}
    lines = {LINES[name] * (1.0 + z): flux * part for name, part in share.items()}
    cube = cube_of(tmp_path, "PRISM", lines)
    with caplog.at_level("WARNING"):
        fit = fit_lines(cube, z, names=tuple(share))
    assert set(fit.blended) == set(share)
    assert "Ha, [NII]6583 are nearer to another line than the line-spread function is wide" in caplog.text
    inner = np.isfinite(fit.velocity) & (np.nanmedian(cube.nexp, axis=0) >= 3)
    one = to_line_flux(flux, at)
    for name, part in share.items():
        assert (np.abs(fit.snr(name)[inner]) <= 1).all()
        pull = (fit.flux[name][inner] - part * one) / fit.flux_error[name][inner]
        assert np.sqrt(np.mean(pull**2)) < 2.0
    total = sum(fit.flux[name][inner] for name in share).mean()
    assert total == pytest.approx(1.4 * one, rel=0.1)
