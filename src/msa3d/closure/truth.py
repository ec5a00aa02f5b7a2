"""How well a known truth comes back: a simulated galaxy, seen on the spaxels of its cube.

The truth is given, never sought: functions take it as arrays or as a `Cube` that the caller has read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from msa3d.cubes.cube import Cube


@dataclass(frozen=True)
class Comparison:
    """A result against the truth, over the spaxels in which both are known.

    Attributes
    ----------
    quantity, unit : str
        What was compared, and its unit.
    n : int
        Number of spaxels.
    median : float
        Median of result - truth.
    scatter : float
        Robust standard deviation of it: 1.4826 times the median absolute deviation.
    pull : float
        Robust standard deviation of (result - truth) / error: 1 when the errors are right. NaN without
        errors.
    ratio : float
        Sum of the result over the sum of the truth; NaN for quantities that are negative somewhere.
    correlation : float
        Pearson's coefficient.
    """

    quantity: str
    unit: str
    n: int
    median: float
    scatter: float
    pull: float
    ratio: float
    correlation: float


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
        The truth at its own wavelengths with the cube's spaxels; NaN where a spaxel reaches out of it.
    """
    ny, nx = cube.shape
    fraction_y = (np.arange(oversample[0]) + 0.5) / oversample[0] - 0.5
    fraction_x = (np.arange(oversample[1]) + 0.5) / oversample[1] - 0.5
    y = (np.arange(ny)[:, None] + fraction_y[None, :]).ravel()
    x = (np.arange(nx)[:, None] + fraction_x[None, :]).ravel()
    grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
    lon, lat = cube.wcs.pixel_to_world_values(grid_x, grid_y)
    at_x, at_y = truth.wcs.world_to_pixel_values(lon, lat)
    result = np.empty((truth.wave_um.size, ny, nx))
    for index, plane in enumerate(truth.data):
        fine = map_coordinates(plane, [at_y, at_x], order=1, mode="constant", cval=np.nan, prefilter=False)
        result[index] = fine.reshape(ny, oversample[0], nx, oversample[1]).mean(axis=(1, 3))
    return Cube(result, truth.wave_um, cube.wcs, cube.pixel_sr, truth.simulated, truth.name)


def compare(
    result: np.ndarray,
    truth: np.ndarray,
    *,
    quantity: str,
    unit: str,
    error: np.ndarray | None = None,
    where: np.ndarray | None = None,
) -> Comparison:
    """Compare a map with the truth.

    Parameters
    ----------
    result, truth : ndarray, shape (n_y, n_x)
        The two maps, same unit; NaN is left out.
    quantity, unit : str
        What they are.
    error : ndarray, shape (n_y, n_x), optional
        1 sigma errors of the result.
    where : ndarray of bool, shape (n_y, n_x), optional
        Spaxels to use.

    Returns
    -------
    Comparison
        The figures.

    Raises
    ------
    ValueError
        If fewer than three spaxels remain.
    """
    use = np.isfinite(result) & np.isfinite(truth)
    if where is not None:
        use &= where
    if use.sum() < 3:
        raise ValueError(f"only {int(use.sum())} spaxels hold both a result and a truth for {quantity}")
    got, true = result[use], truth[use]
    difference = got - true
    pull = robust_scatter(difference / error[use]) if error is not None else np.nan
    spread = got.std() * true.std()
    correlation = float(np.corrcoef(got, true)[0, 1]) if spread > 0 else np.nan
    total = true.sum()
    return Comparison(
        quantity=quantity,
        unit=unit,
        n=int(use.sum()),
        median=float(np.median(difference)),
        scatter=robust_scatter(difference),
        pull=float(pull),
        ratio=float(got.sum() / total) if total > 0 and (true >= 0).all() else np.nan,
        correlation=correlation,
    )


def robust_scatter(values: np.ndarray) -> float:
    """Return 1.4826 times the median absolute deviation of the finite values."""
    finite = values[np.isfinite(values)]
    return float(1.4826 * np.median(np.abs(finite - np.median(finite)))) if finite.size else np.nan
