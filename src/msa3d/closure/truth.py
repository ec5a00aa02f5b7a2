"""How well a known truth comes back: a simulated galaxy, seen on the spaxels of its cube and measured as the cube is.

The truth is given, never sought: functions take it as arrays or as a `Cube` that the caller has read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits
from astropy.stats import mad_std
from astropy.table import Table
from astropy.wcs.utils import proj_plane_pixel_scales
from scipy import fft
from scipy.ndimage import map_coordinates

from msa3d.cubes.cube import Cube
from msa3d.galaxy.bins import stacked
from msa3d.galaxy.fit import LineFit, fit_lines
from msa3d.galaxy.lines import LineSpread
from msa3d.observation.sky import BLUR_PIXELS

if TYPE_CHECKING:
    from msa3d.galaxy.measure import Galaxy

NO_SPREAD = LineSpread(pixel_um=1e-9)
"""The truth has not been through a spectrograph: its lines are as narrow as the gas makes them."""
FLUX_UNIT = 1e-17
COLUMNS = ("quantity", "unit", "n", "median", "scatter", "pull", "ratio", "ratio_error")


@dataclass(frozen=True, eq=False)
class TrueLines:
    """What the line fit of a galaxy finds in its truth: in single spaxels, and in the bins of the galaxy's own maps."""

    spaxels: LineFit
    binned: LineFit


def on_spaxels(truth: Cube, cube: Cube, *, oversample: tuple[int, int] = (2, 8)) -> Cube:
    """Average a truth over the spaxels of a cube.

    Parameters
    ----------
    truth : Cube
        Noiseless cube on a fine grid of the sky.
    cube : Cube
        Whose spaxels to use. Only its place on the sky is used, not its data.
    oversample : tuple of int
        Points a spaxel along y and x. The spaxels of a slit-stepping cube are narrow along the slit
        and as wide as the step across it.

    Returns
    -------
    Cube
        The truth at its own wavelengths with the cube's spaxels; NaN where a spaxel reaches out of it. For a drizzled
        cube it is first blurred by what no builder can undo and by what drizzling adds: see `slit_transfer`.
    """
    ny, nx = cube.shape
    transfer = slit_transfer(truth, cube.header) if "SLITPA" in cube.header else None
    fraction_y = (np.arange(oversample[0]) + 0.5) / oversample[0] - 0.5
    fraction_x = (np.arange(oversample[1]) + 0.5) / oversample[1] - 0.5
    y = (np.arange(ny)[:, None] + fraction_y[None, :]).ravel()
    x = (np.arange(nx)[:, None] + fraction_x[None, :]).ravel()
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    lon, lat = cube.wcs.pixel_to_world_values(grid_x, grid_y)
    at_x, at_y = truth.wcs.world_to_pixel_values(lon, lat)
    result = np.empty((truth.wave_um.size, ny, nx))
    for index, plane in enumerate(truth.data):
        if transfer is not None:
            plane = fft.irfft2(fft.rfft2(plane) * transfer, s=plane.shape)
        fine = map_coordinates(plane, [at_y, at_x], order=1, mode="constant", cval=np.nan, prefilter=False)
        result[index] = fine.reshape(ny, oversample[0], nx, oversample[1]).mean(axis=(1, 3))
    return Cube(result, truth.wave_um, cube.wcs, cube.pixel_sr, truth.simulated, truth.name)


def slit_transfer(truth: Cube, header: fits.Header) -> np.ndarray:
    """Transfer function of slit, pixel and drizzle footprint, for the real FFT of a plane of a truth.

    Parameters
    ----------
    truth : Cube
        Noiseless cube on a fine grid, north up.
    header : astropy.io.fits.Header
        Of a drizzled cube, as in `msa3d.cubes.psf.gaussian_psf`. Neither telescope nor spaxel is in it.
    """
    ny, nx = truth.shape
    pixel = float(proj_plane_pixel_scales(truth.wcs)[1]) * 3600.0
    north, east = fft.fftfreq(ny, pixel)[:, None], -fft.rfftfreq(nx, pixel)[None, :]
    angle = np.radians(header["SLITPA"])
    along = (east * np.sin(angle) + north * np.cos(angle)) * header["SLITLEN"]
    across = (east * np.cos(angle) - north * np.sin(angle)) * header["SLITWID"]
    seen = np.sinc(along) * np.sinc(across) * np.exp(-2.0 * (np.pi * BLUR_PIXELS * along) ** 2)
    return seen * np.sinc(along * header["PIXFRAC"]) * np.sinc(across * header["SLITFRAC"])


def true_lines(truth: Cube, galaxy: Galaxy) -> TrueLines:
    """Put a truth through the line fit of its galaxy.

    Parameters
    ----------
    truth : Cube
        Of `on_spaxels`, for the galaxy's cube.
    galaxy : Galaxy
        What was measured in the cube; its bins are used.
    """
    names = tuple(galaxy.lines.flux)
    options = {"names": names, "spread": NO_SPREAD}
    return TrueLines(
        fit_lines(truth, galaxy.redshift, **options),
        fit_lines(stacked(truth, galaxy.bins.masks), galaxy.redshift, **options),
    )


def compared(galaxy: Galaxy, true: TrueLines) -> Table:
    """Compare the maps of a galaxy with its truth.

    Fluxes are those of all spaxels within the outermost ring, however faint; velocity and dispersion are those of bins
    that were chosen by the smooth disc. Neither is selected by its own noise.

    Parameters
    ----------
    galaxy : Galaxy
        What was measured.
    true : TrueLines
        The same of the truth.

    Returns
    -------
    astropy.table.Table
        A row a quantity: number ``n`` of spaxels or bins, ``median`` and ``scatter`` (robust standard deviation) of
        result minus truth, ``pull`` (robust standard deviation of that over the error: 1 where errors are right) and,
        of fluxes, the sum over that of the truth, ``ratio``, with the error that noise without lines gives it.
    """
    rows = []
    radius = galaxy.geometry.radius(galaxy.cube)
    for name, ring in galaxy.rings.items():
        got, error, put = galaxy.lines.flux[name], galaxy.lines.flux_error[name], true.spaxels.flux.get(name)
        if put is None:
            continue
        got, error, put = (image / FLUX_UNIT for image in (got, error, put))
        inside = np.isfinite(got + error + put) & (radius < ring.high[-1])
        weight = ring.count.astype(float)
        total = put[inside].sum()
        noise = np.sqrt(weight @ ring.covariance @ weight) / FLUX_UNIT
        ratio = (got[inside].sum() / total, noise / total) if inside.any() else (np.nan, np.nan)
        rows.append(
            (
                name,
                f"{FLUX_UNIT:g} erg s-1 cm-2 arcsec-2",
                *_difference(got[inside], error[inside], put[inside]),
                *ratio,
            )
        )
    for name in ("velocity", "sigma"):
        got, error, put = (np.ravel(value) for value in (
            getattr(galaxy.binned, name), getattr(galaxy.binned, f"{name}_error"), getattr(true.binned, name),
        ))  # fmt: skip
        known = np.isfinite(got + error + put) & (error > 0)
        rows.append((name, "km/s", *_difference(got[known], error[known], put[known]), np.nan, np.nan))
    table = Table(rows=rows, names=COLUMNS)
    for name in COLUMNS[3:]:
        table[name].info.format = ".3g"
    return table


def _difference(got: np.ndarray, error: np.ndarray, put: np.ndarray) -> tuple[int, float, float, float]:
    """Number, median and scatter of result minus truth, and its scatter in units of the error."""
    if not got.size:
        return 0, np.nan, np.nan, np.nan
    off = got - put
    return off.size, float(np.median(off)), float(mad_std(off)), float(mad_std(off / error))
