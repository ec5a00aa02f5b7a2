"""Spaxels put together until a line stands out: adaptive bins, and the spectra of bins, rings and apertures.

Bins grow by accretion as in Cappellari & Copin (2003), without their last step (the tessellation), which takes
the noise of spaxels for independent. In a drizzled cube it is not: here the noise of a bin is that of
the correlated sum, and so bins come out larger than the naive ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from msa3d.constants import C_KMS
from msa3d.cubes.cube import Cube
from msa3d.cubes.psf import quadratic_form

REACHED = 0.8
"""A bin that cannot grow any more is kept if it has this part of the wanted signal to noise."""
ENDED = 0.6
"""A bin has run into the sky when its signal to noise has fallen to this part of its best."""
_LEAST_COVERAGE = 0.5


@dataclass(frozen=True, eq=False)
class BinMap:
    """Which spaxel belongs to which bin.

    Attributes
    ----------
    labels : ndarray of int, shape (n_y, n_x)
        Number of the bin, from 0; -1 for spaxels in none.
    snr : ndarray, shape (n_bins,)
        Signal to noise of each bin, correlation of the noise between spaxels included.
    """

    labels: np.ndarray
    snr: np.ndarray

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return self.snr.size

    @property
    def sizes(self) -> np.ndarray:
        """Number of spaxels of each bin."""
        return np.bincount(self.labels[self.labels >= 0], minlength=self.n_bins)

    @property
    def masks(self) -> list[np.ndarray]:
        """A boolean map (n_y, n_x) for each bin."""
        return [self.labels == index for index in range(self.n_bins)]

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Lay a value of each bin out on its spaxels.

        Parameters
        ----------
        values : ndarray, n_bins elements
            Anything of the bins, such as a map of shape (1, n_bins) fitted to `stacked` spectra.

        Returns
        -------
        ndarray, shape (n_y, n_x)
            NaN in spaxels without a bin.
        """
        flat = np.append(np.ravel(values).astype(float), np.nan)
        return flat[self.labels]


def adaptive_bins(
    signal: np.ndarray,
    noise: np.ndarray,
    target_snr: float,
    *,
    where: np.ndarray | None = None,
    correlation: np.ndarray | None = None,
    spaxel: tuple[float, float] = (1.0, 1.0),
) -> BinMap:
    """Grow bins from the brightest spaxels outwards until each reaches a signal to noise.

    Parameters
    ----------
    signal, noise : ndarray, shape (n_y, n_x)
        Signal of each spaxel and its 1 sigma error, any unit. NaN, and noise that is not positive: no bin.
    target_snr : float
        Wanted signal to noise of a bin's sum.
    where : ndarray of bool, shape (n_y, n_x), optional
        Spaxels that may be used; without it all with a signal.
    correlation : ndarray, shape (2 Ly + 1, 2 Lx + 1), optional
        Correlation coefficient of the noise of two spaxels by lag; without it they are independent.
    spaxel : tuple of float
        Size of a spaxel along y and x in any unit: bins are round in it.

    Returns
    -------
    BinMap
        Spaxels of bins that fell short are given to the nearest bin that did not. If none reached the
        signal to noise, all usable spaxels are one bin.

    Raises
    ------
    ValueError
        If the wanted signal to noise is not positive, or the shapes do not agree.
    """
    if target_snr <= 0 or np.shape(signal) != np.shape(noise):
        raise ValueError(f"bins of signal to noise {target_snr:g} from maps {np.shape(signal)} and {np.shape(noise)}")
    usable = np.isfinite(signal) & np.isfinite(noise) & (np.nan_to_num(noise) > 0)
    if where is not None:
        usable &= where
    labels = np.full(usable.shape, -1)
    if not usable.any():
        return BinMap(labels, np.zeros(0))
    growth = _Growth(np.where(usable, signal, 0.0), np.where(usable, noise, 0.0), usable, correlation, spaxel)
    bins = [members for members, snr in growth.run(target_snr) if snr >= REACHED * target_snr]
    if bins:
        centres = np.array([growth.centre(members) for members in bins])
        for index, members in enumerate(bins):
            labels[tuple(np.transpose(members))] = index
        for place in np.argwhere(usable & (labels < 0)):
            labels[tuple(place)] = int(np.argmin(np.sum((centres - place * growth.spaxel) ** 2, axis=1)))
    else:
        labels[usable] = 0
    count = max(len(bins), 1)
    return BinMap(labels, np.array([growth.snr(np.argwhere(labels == index)) for index in range(count)]))


class _Growth:
    """Accretion of spaxels to bins, with the variance of correlated sums kept up to date."""

    def __init__(self, signal, noise, usable, correlation, spaxel):
        self.signal, self.noise, self.free = signal, noise, usable.copy()
        self.correlation = np.ones((1, 1)) if correlation is None else correlation
        self.spaxel = np.asarray(spaxel, dtype=float)

    def centre(self, members) -> np.ndarray:
        """Mean place of some spaxels, in the unit of `spaxel`."""
        return np.mean(members, axis=0) * self.spaxel

    def variance(self, place, members) -> float:
        """Variance that a spaxel adds to a sum over others: its own and twice its covariance with them."""
        reach = np.array(self.correlation.shape) // 2
        own = self.noise[tuple(place)]
        if not len(members):
            return own**2
        members = np.asarray(members)
        lag = members - np.asarray(place)
        near = (np.abs(lag) <= reach).all(axis=1)
        shared = self.correlation[tuple((lag[near] + reach).T)] * self.noise[tuple(members[near].T)]
        return own**2 + 2.0 * own * shared.sum()

    def snr(self, members) -> float:
        """Signal to noise of the sum over some spaxels."""
        variance = sum(self.variance(place, members[:index]) for index, place in enumerate(members))
        return float(sum(self.signal[tuple(p)] for p in members) / np.sqrt(max(variance, 1e-300)))

    def run(self, target: float):
        """Yield members and signal to noise of each bin, the brightest seed first."""
        with np.errstate(invalid="ignore", divide="ignore"):
            merit = np.where(self.free, self.signal / self.noise, -np.inf)
        for seed in np.column_stack(np.unravel_index(np.argsort(-merit, axis=None), merit.shape)):
            if self.free[tuple(seed)]:
                yield self._grow(tuple(int(k) for k in seed), target)

    def _grow(self, seed: tuple[int, int], target: float):
        members, total, variance = [seed], self.signal[seed], self.noise[seed] ** 2
        self.free[seed] = False
        border, best = self._neighbours(seed), -np.inf
        while total < target * np.sqrt(variance) and border:
            centre = self.centre(members)
            place = min(border, key=lambda p: (np.sum((p * self.spaxel - centre) ** 2), p))
            larger, noisier = total + self.signal[place], variance + self.variance(place, members)
            # A neighbour shares noise, and so may lower the signal to noise at first; sky goes on lowering it.
            best = max(best, larger / np.sqrt(noisier))
            if larger < ENDED * best * np.sqrt(noisier):
                break
            members.append(place)
            total, variance = larger, noisier
            self.free[place] = False
            border = (border | self._neighbours(place)) - {place}
        return members, total / np.sqrt(variance)

    def _neighbours(self, place: tuple[int, int]) -> set[tuple[int, int]]:
        y, x = place
        ny, nx = self.free.shape
        around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        return {p for p in around if 0 <= p[0] < ny and 0 <= p[1] < nx and self.free[p]}


def bins_for_line(cube: Cube, signal: np.ndarray, noise: np.ndarray, target_snr: float, where: np.ndarray) -> BinMap:
    """Adaptive bins of a cube in which a line has a signal to noise.

    Parameters
    ----------
    cube : Cube
        The cube that was fitted; its correlation of neighbouring spaxels is used.
    signal : ndarray, shape (n_y, n_x)
        Flux that is expected, of a smooth model: bins that were chosen by the measured one would choose its noise.
    noise : ndarray, shape (n_y, n_x)
        1 sigma of the measured flux, same unit.
    target_snr : float
        Wanted signal to noise of the line in each bin.
    where : ndarray of bool, shape (n_y, n_x)
        Spaxels that may be used.
    """
    spatial = None if cube.correlation is None else cube.correlation[cube.correlation.shape[0] // 2]
    scale = np.sqrt(np.sum(cube.wcs.pixel_scale_matrix**2, axis=0))[::-1]
    spaxel = tuple(float(s) for s in scale / scale.min())
    return adaptive_bins(signal, noise, target_snr, where=where, correlation=spatial, spaxel=spaxel)


def at_rest(cube: Cube, velocity: np.ndarray) -> Cube:
    """Move every spaxel to velocity 0, by whole voxels.

    Nothing is interpolated, so errors and their correlation along the wavelength stay what they are. What
    is left, up to half a voxel to each side, widens stacked lines by a top-hat of one voxel.

    Parameters
    ----------
    cube : Cube
        The cube; its wavelengths evenly spaced.
    velocity : ndarray, shape (n_y, n_x)
        Velocity of each spaxel, km/s, positive when receding; spaxels with NaN become NaN.

    Returns
    -------
    Cube
        Data and errors moved; the planes of weights are left out.
    """
    step = (cube.wave_um[-1] - cube.wave_um[0]) / (cube.wave_um.size - 1)
    known = np.isfinite(velocity)
    shift = np.rint(cube.wave_um[:, None, None] * np.where(known, velocity, 0.0) / C_KMS / step).astype(int)
    source = np.arange(cube.wave_um.size)[:, None, None] + shift
    inside = (source >= 0) & (source < cube.wave_um.size) & known
    source = np.clip(source, 0, cube.wave_um.size - 1)
    moved = {
        name: np.where(inside, np.take_along_axis(plane, source, axis=0), np.nan)
        for name, plane in (("data", cube.data), ("err", cube.err))
        if plane is not None
    }
    return replace(cube, dq=None, wmap=None, etime=None, nexp=None, **moved)


def stacked(cube: Cube, masks: Sequence[np.ndarray], *, velocity: np.ndarray | None = None) -> Cube:
    """Mean spectra of groups of spaxels, as a cube of one row.

    Parameters
    ----------
    cube : Cube
        The cube.
    masks : sequence of ndarray, each (n_y, n_x)
        True, or a weight, for the spaxels of each group.
    velocity : ndarray, shape (n_y, n_x), optional
        Moves the spaxels to velocity 0 first, see `at_rest`.

    Returns
    -------
    Cube
        Data of shape (n_wave, 1, n_masks), MJy/sr, the weighted mean of the known voxels; NaN where less than half
        of the weight is known. Errors by `Cube.sum_error`. Its correlation is that of sums along
        the wavelength, mean of the groups. The place on the sky means nothing. Fit it like any cube;
        a flux times the group's solid angle is the flux of the group.
    """
    if velocity is not None:
        cube = at_rest(cube, velocity)
    size = cube.wave_um.size
    data = np.full((size, 1, len(masks)), np.nan)
    err = None if cube.err is None else np.full_like(data, np.nan)
    known = np.isfinite(cube.data) if cube.err is not None else np.isfinite(cube.data) & (cube.data != 0)
    values = np.where(known, cube.data, 0.0)
    for index, mask in enumerate(masks):
        weight = np.asarray(mask, dtype=float)
        total = np.tensordot(known, weight, axes=2)
        enough = total > _LEAST_COVERAGE * weight.sum()
        if not enough.any():
            continue
        data[enough, 0, index] = np.tensordot(values, weight, axes=2)[enough] / total[enough]
        if err is not None:
            err[enough, 0, index] = cube.sum_error(weight)[enough] / total[enough]
    planes = {"dq": None, "wmap": None, "etime": None, "nexp": None}
    return replace(cube, data=data, err=err, correlation=_summed_correlation(cube, masks), **planes)


def _summed_correlation(cube: Cube, masks: Sequence[np.ndarray]) -> np.ndarray | None:
    """Correlation along the wavelength of sums over masks, mean of them, shape (2 Lw + 1, 1, 1)."""
    if cube.correlation is None or cube.err is None:
        return None
    error = np.nanmedian(np.where(np.isfinite(cube.err), cube.err, 0.0), axis=0)
    found = []
    for mask in masks:
        weighted = np.asarray(mask, dtype=float) * error
        covariance = np.array([quadratic_form(weighted[None], plane)[0] for plane in cube.correlation])
        middle = covariance[covariance.size // 2]
        if middle > 0:
            found.append(covariance / middle)
    return np.mean(found, axis=0)[:, None, None] if found else None
