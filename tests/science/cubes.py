"""Small synthetic cubes with known lines, for the tests of science."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.signal import fftconvolve

from msa3d.constants import LINES
from msa3d.cube import Cube
from msa3d.science.lineprofile import SPECIES, bin_edges, species_profile
from msa3d.science.lines import to_line_flux
from msa3d.science.profiles import Geometry
from msa3d.science.psf import effective_psf
from msa3d.science.resolution import LineSpread

RA, DEC, REDSHIFT = 215.0, 52.9, 1.1
SPREAD = LineSpread("slit", pixel_um=2.36e-4)


def sky(n: int, step_arcsec: float = 0.1) -> WCS:
    """North up, east to the left, `RA`, `DEC` in the middle."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = RA, DEC
    wcs.wcs.crpix = (n + 1) / 2, (n + 1) / 2
    wcs.wcs.cdelt = -step_arcsec / 3600, step_arcsec / 3600
    return wcs


def header(slit_pa: float = -13.0) -> fits.Header:
    """What a drizzled cube says about its slit."""
    return fits.Header({"SLITWID": 0.2, "SLITLEN": 0.105, "SLITPA": slit_pa, "SLITFRAC": 1.0, "PIXFRAC": 1.0})


def wavelengths(first_um: float = 1.0, last_um: float = 1.43) -> np.ndarray:
    """Bins of G140H."""
    return np.arange(first_um, last_um, 2.36e-4)


def empty(n: int, wave_um: np.ndarray, *, sigma: float = 0.0, seed: int = 0, drizzled: bool = False) -> Cube:
    """A cube of noise (independent voxels), with errors where there is noise."""
    rng = np.random.default_rng(seed)
    data = rng.normal(0.0, sigma, (wave_um.size, n, n)) if sigma > 0 else np.zeros((wave_um.size, n, n))
    err = np.full_like(data, sigma) if sigma > 0 else None
    return Cube(
        data, wave_um, sky(n), 2.35e-13, True, "synthetic", err=err, header=header() if drizzled else fits.Header()
    )


def add_lines(cube: Cube, flux: dict[str, np.ndarray], velocity, sigma, continuum: float = 0.2) -> None:
    """Add lines of given surface brightness (erg s-1 cm-2 arcsec-2, maps or numbers) and a continuum."""
    edges = bin_edges(cube.wave_um)
    v, s = (np.broadcast_to(a, cube.shape).ravel().astype(float) for a in (velocity, sigma))
    cube.data[...] += continuum
    for name in SPECIES:
        if name in flux:
            profile = species_profile(name, edges, REDSHIFT, v, s, SPREAD)
            amplitude = np.broadcast_to(flux[name], cube.shape).ravel() / to_line_flux(
                1.0, LINES[name] * (1 + REDSHIFT)
            )
            cube.data[...] += (profile * amplitude[:, None]).T.reshape(cube.data.shape)


def disc(inclination_deg: float = 30.0, pa_deg: float = 40.0) -> Geometry:
    """A disc in the middle."""
    return Geometry(RA, DEC, inclination_deg, pa_deg, 8.2)


def seen(cube: Cube, geometry: Geometry, scale_arcsec: float, wave_um: float) -> np.ndarray:
    """An exponential disc of central brightness 1, averaged over the spaxels, behind the point-spread function."""
    pad, parts = 12, 10
    fine = np.exp(-geometry.radius(cube, pad, parts) / scale_arcsec)
    ny, nx = (n // parts for n in fine.shape)
    mean = fine.reshape(ny, parts, nx, parts).mean(axis=(1, 3))
    return fftconvolve(mean, effective_psf(cube, wave_um, spaxel=False), mode="same")[pad:-pad, pad:-pad]
