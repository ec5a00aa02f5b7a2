"""A cube of the published builder, made fit for the analysis: square spaxels, errors and correlation.

The published builder gives no errors, and spaxels as wide as a step and a quarter of a detector pixel high, with zeros
where nothing was seen. Here a value stands for the patch of sky that it covers; patches are averaged over square
spaxels, and the scatter of each spaxel along its own spectrum, lines left out, is its error. What photons of the lines
add to it is not known to such errors, nor is anything corrected that the builder did to the light.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from astropy.wcs import WCS
from scipy import sparse
from scipy.ndimage import maximum_filter, median_filter

from msa3d.constants import C_KMS, LINES
from msa3d.cubes.cube import Cube
from msa3d.errors import ProductError
from msa3d.galaxy.lines import LineSpread

SPAXEL_ARCSEC = 0.1
"""Of the drizzle builder, too."""

_SUBSPAXEL = 20
_LEAST_SHARE = 0.5
_SMOOTH = 51
_NOISE = 151
_GAP = 21
_QUIET = 0.2
_CLEAR_KMS = 700.0
_LAGS = (3, 3, 3)


def spread_of(cube: Cube, curve: str | None = None) -> LineSpread:
    """Line-spread function of a published cube, ``slit`` by default: of detector pixels, whatever the cube's bins."""
    return LineSpread(curve or "slit", grating=cube.header.get("GRATING", "G140H"))


def prepared(cube: Cube, redshift: float) -> Cube:
    """Lay a cube of the published builder on square spaxels, and give it errors.

    Parameters
    ----------
    cube : Cube
        Of the published builder.
    redshift : float
        Of the galaxy: its lines take no part in the errors.

    Returns
    -------
    Cube
        North up, spaxels of `SPAXEL_ARCSEC`, with errors, correlation, number of exposures as weight, and keywords of
        slit, pixel and columns in its header.

    Raises
    ------
    msa3d.errors.ProductError
        If the header does not tell the native pixel.
    """
    if "NATPIX" not in cube.header:
        raise ProductError(f"{cube.name}: no keyword NATPIX in SCI: not a cube of the published builder")
    wcs, shape = _square(cube)
    laying = _laying(cube, wcs, shape)
    ny, nx = cube.shape
    # Where nothing was seen the published builder leaves zeros.
    values = cube.data.reshape(cube.wave_um.size, -1)
    known = np.isfinite(values) & (values != 0.0)
    share = (laying @ known.T.astype(float)).T
    total = (laying @ np.where(known, values, 0.0).T).T
    with np.errstate(invalid="ignore", divide="ignore"):
        data = np.where(share >= _LEAST_SHARE, total / share, np.nan).reshape(-1, *shape)
    exposures = np.ones((ny, nx)) if cube.nexp is None else np.asarray(cube.nexp, dtype=float)
    header = cube.header.copy()
    along = cube.wcs.pixel_scale_matrix[:, 1]
    header["SLITWID"] = float(np.hypot(*cube.wcs.pixel_scale_matrix[:, 0])) * 3600.0
    header["SLITLEN"], header["SLITFRAC"], header["PIXFRAC"] = cube.header["NATPIX"], 1.0, 1.0
    # Rows count pixels of the detector, which run against the slit's own axis.
    header["SLITPA"] = float(np.degrees(np.arctan2(-along[0], -along[1])))
    middle = cube.wcs.pixel_to_world_values(nx // 2, (ny - 1) / 2.0)
    header["COLRA"], header["COLDEC"], header["COLSTEP"] = *map(float, middle), header["SLITWID"]
    depth = np.broadcast_to((laying @ exposures.ravel()).reshape(1, *shape), data.shape)
    square = replace(
        cube,
        data=data,
        wcs=wcs,
        pixel_sr=float(np.radians(SPAXEL_ARCSEC / 3600.0) ** 2),
        header=header,
        dq=None,
        wmap=np.where(np.isfinite(data), depth, 0.0),
        nexp=None,
    )
    return _with_scatter(square, redshift)


def _square(cube: Cube) -> tuple[WCS, tuple[int, int]]:
    """North up around the middle of the cube, as large as it."""
    ny, nx = cube.shape
    ra, dec = cube.wcs.pixel_to_world_values((nx - 1) / 2.0, (ny - 1) / 2.0)
    east, north = cube.offsets(float(ra), float(dec), corners=True)
    half = [int(np.ceil(np.abs(offset).max() / SPAXEL_ARCSEC)) for offset in (north, east)]
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = float(ra), float(dec)
    wcs.wcs.crpix = half[1] + 1, half[0] + 1
    wcs.wcs.cdelt = -SPAXEL_ARCSEC / 3600.0, SPAXEL_ARCSEC / 3600.0
    return wcs, (2 * half[0] + 1, 2 * half[1] + 1)


def _laying(cube: Cube, wcs: WCS, shape: tuple[int, int]) -> sparse.csr_matrix:
    """What part of each square spaxel a spaxel of the cube covers, (n_square, n_spaxels)."""
    inside = (np.arange(_SUBSPAXEL) + 0.5) / _SUBSPAXEL - 0.5
    y, x, dy, dx = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), inside, inside, indexing="ij")
    column, row = cube.wcs.world_to_pixel_values(*wcs.pixel_to_world_values(x + dx, y + dy))
    column, row = np.rint(column).astype(int).ravel(), np.rint(row).astype(int).ravel()
    ny, nx = cube.shape
    met = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
    spaxel = np.repeat(np.arange(shape[0] * shape[1]), _SUBSPAXEL**2)[met]
    weight = np.full(spaxel.size, 1.0 / _SUBSPAXEL**2)
    return sparse.csr_matrix((weight, (spaxel, (row * nx + column)[met])), shape=(shape[0] * shape[1], ny * nx))


def _with_scatter(cube: Cube, redshift: float) -> Cube:
    """Errors and correlation from what is left of the spectra after a running median, lines left out."""
    lines = np.array(list(LINES.values())) * (1.0 + redshift)
    away = np.abs(cube.wave_um[:, None] / lines - 1.0).min(axis=1) * C_KMS
    clear = away > _CLEAR_KMS
    seen = np.isfinite(cube.data).mean(axis=0) >= _LEAST_SHARE
    filled = np.where(np.isfinite(cube.data), cube.data, 0.0)
    left = np.where(np.isfinite(cube.data), cube.data - median_filter(filled, (_SMOOTH, 1, 1)), np.nan)
    left[:, ~seen] = np.nan
    left[_quiet(left)] = np.nan
    cube = replace(cube, data=np.where(np.isfinite(left), cube.data, np.nan))
    left[~clear] = np.nan
    middles = np.arange(_NOISE // 2, cube.wave_um.size, _NOISE)
    scatter = np.array([_robust(left[max(i - _NOISE, 0) : i + _NOISE]) for i in middles])
    err = np.full(cube.data.shape, np.nan)
    for y, x in zip(*np.nonzero(seen), strict=True):
        good = np.isfinite(scatter[:, y, x]) & (scatter[:, y, x] > 0)
        if good.any():
            err[:, y, x] = np.interp(np.arange(cube.wave_um.size), middles[good], scatter[good, y, x])
    err[~np.isfinite(cube.data)] = np.nan
    data = np.where(np.isfinite(err), cube.data, np.nan)
    unit = np.clip(left / err, -5.0, 5.0)
    return replace(cube, data=data, err=err, correlation=_correlation(unit))


def _quiet(left: np.ndarray) -> np.ndarray:
    """Tell where a spectrum is so smooth that nothing was observed: the gap between the detectors, filled in."""
    size = np.abs(np.nan_to_num(left))
    local = median_filter(size, (_GAP, 1, 1))
    known = np.isfinite(left).any(axis=0)
    typical = np.zeros(left.shape[1:])
    typical[known] = np.nanmedian(np.abs(left[:, known]), axis=0)
    return maximum_filter(local < _QUIET * typical, (_GAP, 1, 1))


def _robust(values: np.ndarray) -> np.ndarray:
    """1.4826 times the median absolute deviation along the first axis; NaN of fewer than 20 values."""
    known = np.isfinite(values).sum(axis=0) >= 20
    found = np.full(values.shape[1:], np.nan)
    found[known] = 1.4826 * np.nanmedian(np.abs(values[:, known]), axis=0)
    return found


def _correlation(unit: np.ndarray) -> np.ndarray:
    """Mean correlation of voxels by their lag."""
    known = np.isfinite(unit)
    values = np.where(known, unit, 0.0)
    sizes = [2 * lag + 1 for lag in _LAGS]
    found = np.zeros(sizes)
    for index in np.ndindex(*sizes):
        shift = [i - lag for i, lag in zip(index, _LAGS, strict=True)]
        one, other = (
            tuple(slice(max(sign * s, 0), n + min(sign * s, 0)) for s, n in zip(shift, unit.shape, strict=True))
            for sign in (1, -1)
        )
        pairs = float((known[one] & known[other]).sum())
        found[index] = (values[one] * values[other]).sum() / pairs if pairs else 0.0
    return found / found[tuple(_LAGS)]
