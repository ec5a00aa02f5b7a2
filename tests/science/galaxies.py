"""A galaxy with known gradients in a small drizzled cube, with noise that neighbours share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import correlate1d
from tests.science.cubes import DEC, RA, REDSHIFT, empty, seen, wavelengths

from msa3d.constants import LINES
from msa3d.cube import Cube
from msa3d.science.disc import Disc
from msa3d.science.discmodel import LineModel
from msa3d.science.light import exponential
from msa3d.science.lines import NII_RATIO, to_line_flux
from msa3d.science.profiles import Geometry
from msa3d.science.resolution import PIXEL_UM

KPC_PER_ARCSEC = 8.2
DISC = Disc(pa_deg=40.0, inclination_deg=35.0, v_sin_i=90.0, r_turn=0.15)
GEOMETRY = Geometry(RA, DEC, 35.0, 40.0, KPC_PER_ARCSEC)
SIGMA0 = 40.0
SCALES = {"Hb": 0.40, "[OIII]5007": 0.45, "Ha": 0.35, "[NII]6583": 0.30}
TOTALS = {"Hb": 2.0e-17, "[OIII]5007": 3.0e-17, "Ha": 8.0e-17, "[NII]6583": 3.0e-17}
"""erg s-1 cm-2."""
STARS = 0.38
_TIED = {"[OIII]5007": (("[OIII]4959", 2.98),), "[NII]6583": (("[NII]6548", NII_RATIO),)}
_ALONG_SKY = np.array([0.3, 0.8, 0.3])
_ALONG_WAVE = np.array([1.0, 0.14])


def noiseless(n: int = 21, grating: str = "G140H", bin_pixels: float = 1.0) -> Cube:
    """The galaxy without noise, in bins of one or more pixels of a grating (of the prism: of its shortest)."""
    wave = wavelengths(1.0, 1.43) if grating == "G140H" else np.arange(0.7, 1.7, PIXEL_UM.get(grating, 4.4e-3))
    pixel = np.median(np.diff(wave))
    if bin_pixels != 1.0:
        wave = np.arange(wave[0] + (bin_pixels - 1.0) / 2.0 * pixel, wave[-1], bin_pixels * pixel)
    cube = empty(n, wave, drizzled=True)
    cube.header["SPECPIX"] = pixel
    cube.header["GRATING"] = grating
    for name, scale in SCALES.items():
        for line, ratio in ((name, 1.0), *_TIED.get(name, ())):
            _add(cube, line, scale, TOTALS[name] / ratio)
    cube.data[...] += 0.6 * seen(cube, GEOMETRY, STARS, 1.18)
    return cube


def _add(cube: Cube, line: str, scale: float, total: float) -> None:
    at = LINES[line] * (1.0 + REDSHIFT)
    near = np.flatnonzero(np.abs(cube.wave_um - at) < 2.8e-3 * cube.header["SPECPIX"] / 2.36e-4)
    model = LineModel(cube, cube.wave_um[near], at, RA, DEC, columns=False)
    light = exponential(model, scale, DISC.pa_deg, DISC.inclination_deg)
    found = model.predict(light, DISC.velocity(model.east, model.north), SIGMA0)
    step = np.median(np.diff(cube.wave_um))
    image = to_line_flux(found.sum(axis=0) * step, at)
    # The disc to infinity, of which the cube holds a part: the brightness is that of its middle.
    wanted = total / (2.0 * np.pi * GEOMETRY.cos_inclination * scale**2) * seen(cube, GEOMETRY, scale, at)
    cube.data[near] += found * (wanted.sum() / image.sum())


def noisy(cube: Cube, sigma: float, seed: int) -> Cube:
    """The same with noise that neighbouring voxels share, its errors and its correlation."""
    ny, nx = cube.shape
    noise = np.random.default_rng(seed).normal(size=(cube.wave_um.size + 4, ny + 4, nx + 4))
    full = np.ones(1)
    parts = []
    for axis, kernel in enumerate((_ALONG_WAVE, _ALONG_SKY, _ALONG_SKY)):
        kernel = kernel / np.sqrt(np.sum(kernel**2))
        odd = kernel if kernel.size % 2 else np.append(kernel, 0.0)
        noise = correlate1d(noise, odd, axis=axis)
        parts.append(np.convolve(kernel, kernel[::-1]))
    full = parts[0][:, None, None] * parts[1][None, :, None] * parts[2][None, None, :]
    data = cube.data + sigma * noise[2:-2, 2:-2, 2:-2]
    return replace(cube, data=data, err=np.full_like(data, sigma), correlation=full)
