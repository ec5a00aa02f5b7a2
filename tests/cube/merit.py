"""Figures of merit of the drizzle builder: what came out against what was put in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.optimize import curve_fit
from scipy.special import erf

from msa3d.cube.covariance import mean_correlation
from msa3d.cube.cubefile import Cube
from msa3d.cube.operator import CubeOperator, Planes
from msa3d.cube.outliers import find_outliers
from msa3d.cube.sky import tangent_offsets
from msa3d.cube.skygrid import SkyGrid, make_grid
from msa3d.cube.slitpixels import SlitPixels, read_slit
from msa3d.settings_cube import DrizzleSettings, OutlierSettings

C_KMS = 299792.458


def slits_of(layout, source_id: int, *, raw: bool = False, **options) -> list[SlitPixels]:
    """Slit pixels of all exposures of a run: post-processed, or as jwst calibrated them."""
    pattern = "jw*_cal.fits" if raw else "jw*_cal_pathcorr_astrocorr.fits"
    paths = sorted(layout.process.glob(f"exp_*_nobar/{pattern}"))
    return [slit for path in paths if (slit := read_slit(path, source_id, **options)) is not None]


def operator_of(slits: list[SlitPixels], **settings) -> CubeOperator:
    """Operator of some slits, with the default settings but for those given."""
    chosen = DrizzleSettings(**settings)
    grid, slits = make_grid(slits, chosen)
    return CubeOperator(slits, grid, chosen.weighting, chosen.slit_frac * chosen.pixfrac)


def stepped(slit: SlitPixels, rows: int, columns: int, row_step=0.075, column_step=0.2) -> list[SlitPixels]:
    """Copies of one slit, moved over the sky as the pattern does: real geometry at no cost."""
    east, north = slit.east.mean(axis=0), slit.north.mean(axis=0)
    along = np.array([east[3] - east[0], north[3] - north[0]])
    along /= np.hypot(*along)
    across = np.array([along[1], -along[0]])
    moved = []
    for row in range(rows):
        for column in range(columns):
            shift = (row - (rows - 1) / 2) * row_step * along + (column - (columns - 1) / 2) * column_step * across
            name = slit.path.parent.with_name(f"exp_{row}{column}") / slit.path.name
            moved.append(replace(slit.shifted(*shift), path=name))
    return moved


def interior(planes: Planes, spaxels: int = 2) -> np.ndarray:
    """Voxels with data, some spaxels and bins away from those without."""
    return binary_erosion(np.isfinite(planes.sci), iterations=spaxels)


# --- a uniform field


def flatness(operator: CubeOperator, truth: float, wave_range: tuple[float, float]) -> float:
    """Largest relative deviation of an interior voxel from a uniform field."""
    planes = operator.combine()
    inside = interior(planes) & _within(operator.grid, wave_range)[:, None, None]
    return float(np.abs(planes.sci[inside] / truth - 1).max())


def _within(grid: SkyGrid, wave_range: tuple[float, float]) -> np.ndarray:
    return (grid.wave_um > wave_range[0]) & (grid.wave_um < wave_range[1])


# --- a line


def line_moments(operator: CubeOperator, continuum: float, line_um: float, reach_um: float) -> tuple[float, float]:
    """Centre and standard deviation (um) of a line in the interior spaxels: means of their moments."""
    grid, planes = operator.grid, operator.combine()
    near = np.abs(grid.wave_um - line_um) < reach_um
    inside = interior(planes)[near].all(axis=0)
    light = planes.sci[near][:, inside] - continuum
    wave = grid.wave_um[near][:, None]
    centre = (light * wave).sum(axis=0) / light.sum(axis=0)
    variance = (light * (wave - centre) ** 2).sum(axis=0) / light.sum(axis=0)
    return float(centre.mean()), float(np.sqrt(variance.mean()))


# --- a point


def point_image(operator: CubeOperator, wave_range: tuple[float, float]) -> np.ndarray:
    """Mean image over wavelengths, MJy/sr; spaxels without data are 0."""
    planes = operator.combine()
    return np.nan_to_num(np.nanmean(planes.sci[_within(operator.grid, wave_range)], axis=0))


def fitted_gaussian(image: np.ndarray) -> dict[str, float]:
    """Least-squares elliptical Gaussian, its axes along x and y: centre and FWHM in spaxels."""
    y, x = np.indices(image.shape, dtype=float)

    def model(_, flux, x0, y0, sx, sy):
        # Averaged over the spaxel, as the image is.
        gx, gy = (
            erf((u - u0 + 0.5) / (np.sqrt(2) * s)) - erf((u - u0 - 0.5) / (np.sqrt(2) * s))
            for u, u0, s in ((x, x0, sx), (y, y0, sy))
        )
        return (flux * gx * gy / 4).ravel()

    peak = np.unravel_index(np.argmax(image), image.shape)
    start = (image.sum(), peak[1], peak[0], 1.0, 1.0)
    best, _ = curve_fit(model, None, image.ravel(), p0=start)
    width = 2 * np.sqrt(2 * np.log(2))
    return {"x": best[1], "y": best[2], "fwhm_x": abs(best[3]) * width, "fwhm_y": abs(best[4]) * width}


def centroid(image: np.ndarray) -> tuple[float, float]:
    """First moments (x, y), spaxels."""
    y, x = np.indices(image.shape)
    return float((image * x).sum() / image.sum()), float((image * y).sum() / image.sum())


def place(grid: SkyGrid, ra: float, dec: float) -> tuple[float, float]:
    """Where a sky position lies on the grid, spaxels (x, y)."""
    return tuple(float(value) for value in grid.spaxels(*tangent_offsets(ra, dec, grid.ra, grid.dec)))


# --- noise


def noisy(operator: CubeOperator, rng: np.random.Generator) -> list[np.ndarray]:
    """A realisation of the noise of all pixels, as their errors say."""
    return [rng.normal(size=len(block.slit.flat)) * np.nan_to_num(block.slit.err) for block in operator.blocks]


def noise_pulls(operator: CubeOperator, realisations: int, seed: int) -> float:
    """Standard deviation of (cube - truth) / ERR over voxels and realisations."""
    rng = np.random.default_rng(seed)
    squares = []
    for _ in range(realisations):
        planes = operator.combine(data=noisy(operator, rng))
        squares.append(np.nanmean((planes.sci / planes.err) ** 2))
    return float(np.sqrt(np.mean(squares)))


def aperture_factors(operator: CubeOperator, radius_arcsec: float, realisations: int, seed: int) -> tuple[float, float]:
    """Noise factor of a circular aperture at the middle of the cube: predicted, and over realisations."""
    grid, planes = operator.grid, operator.combine()
    correlation = mean_correlation(operator, planes)
    cube = Cube(
        *(planes.sci, grid.wave_um, grid.wcs().celestial, grid.area_sr), err=planes.err, correlation=correlation
    )
    y, x = np.indices(cube.shape)
    mask = np.hypot(x - (cube.shape[1] - 1) / 2, y - (cube.shape[0] - 1) / 2) * grid.scale_arcsec <= radius_arcsec
    full = np.isfinite(planes.sci[:, mask]).all(axis=1)
    naive = np.sqrt((planes.err[:, mask] ** 2).sum(axis=1))
    rng = np.random.default_rng(seed)
    sums = [operator.combine(data=noisy(operator, rng)).sci[:, mask].sum(axis=1) for _ in range(realisations)]
    measured = np.sqrt(np.mean(np.square(np.array(sums)[:, full] / naive[full])))
    return float(np.median(cube.noise_factor(mask)[full])), float(measured)


# --- cosmic rays


def hits_found(
    operator: CubeOperator, data: list[np.ndarray], sigmas: float, fraction: float, seed: int
) -> tuple[float, float]:
    """Put single-pixel hits on given data: fraction of them found, and of the other pixels rejected."""
    rng = np.random.default_rng(seed)
    hits, blocks = [], []
    for block, values in zip(operator.blocks, data, strict=True):
        inside = np.diff(block.matrix.indptr) > 0
        hit = (rng.random(values.size) < fraction) & block.slit.good & inside
        hits.append(hit)
        blocks.append(
            replace(block, slit=replace(block.slit, data=values + sigmas * np.nan_to_num(block.slit.err) * hit))
        )
    spoilt = CubeOperator([], operator.grid, laid_down=operator.laid_down)
    spoilt.blocks, spoilt.weights = blocks, operator.weights
    masks = find_outliers(spoilt, OutlierSettings()).masks
    found = sum(int((mask & hit).sum()) for mask, hit in zip(masks, hits, strict=True))
    wrong = sum(int((mask & ~hit).sum()) for mask, hit in zip(masks, hits, strict=True))
    total = sum(int(hit.sum()) for hit in hits)
    pixels = sum(mask.size for mask in masks)
    return found / total, wrong / (pixels - total)


def along_profile(image: np.ndarray) -> np.ndarray:
    """Sum of an image over x: the profile along the slit of a cube with ``msaalign``."""
    return image.sum(axis=1)


def fitted_fwhm(profile: np.ndarray, scale: float) -> float:
    """FWHM of the Gaussian that fits a profile best, in units of `scale`."""
    x = np.arange(profile.size, dtype=float)

    def model(x, flux, middle, sigma):
        return flux * np.exp(-0.5 * ((x - middle) / sigma) ** 2)

    best, _ = curve_fit(model, x, profile, p0=(profile.max(), float(np.argmax(profile)), 1.0))
    return abs(float(best[2])) * 2 * np.sqrt(2 * np.log(2)) * scale


def expected_profile(psf: np.ndarray, fine: float, middle: float, size: int, scale: float, pixel: float, blur: float):
    """Profile along the slit that theory expects of a point: telescope, blur, pixel, footprint and spaxel folded.

    `psf` is an image with `fine` arcsec a pixel, its y axis along the slit; `middle` is where the point lies on
    the `size` spaxels of `scale` arcsec; `pixel` and `blur` (sigma) are in arcsec.
    """
    profile = psf.sum(axis=1)
    offset = (np.arange(profile.size) - profile.size // 2) * fine
    kernel = np.exp(-0.5 * (offset / blur) ** 2)
    for box in (pixel, pixel, scale):
        # A box of any width, its ends in part.
        kernel = np.convolve(kernel, np.clip((box / 2 - np.abs(offset)) / fine + 0.5, 0, 1), mode="same")
    folded = np.convolve(profile, kernel / kernel.sum(), mode="same")
    return np.interp((np.arange(size) - middle) * scale, offset, folded)
