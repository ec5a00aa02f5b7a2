"""The light and velocities of a disc as the instrument sees them.

From light and velocities on the sky to an emission line in a cube, through slit, spectrograph and drizzle.

A slit is no point: light that enters it beside its middle falls beside its wavelength, by a pixel (51 km/s at
1.38 um) for each 0.1 arcsec. Where the light changes within the slit, velocities shift, and the line grows wider.
The instrument therefore is not a point spread times a line spread; but it is still a convolution, of the two
together, and in Fourier space the slit is one factor: ``sinc(w q + p f)`` with the width ``w`` of the slit and ``p``
of its image in wavelength bins, at the spatial frequency ``q`` across the slit and ``f`` along wavelength.

Steps across the slit are about as large as the slit is wide, so that all spaxels within a column are told what that
column's slit saw. Where the columns lie is read off the number of exposures of each spaxel.

How a line's light lies on the sky, finer than the spaxels: an exponential disc, then corrected towards the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft, sparse
from scipy.optimize import minimize_scalar

from msa3d.constants import C_KMS
from msa3d.cubes.cube import Cube
from msa3d.cubes.psf import telescope_mtf
from msa3d.errors import ProductError
from msa3d.galaxy.disc import Disc
from msa3d.galaxy.lines import LineSpread, line_spread_of
from msa3d.observation.sky import BLUR_PIXELS, tangent_offsets

OVERSAMPLE = 3
"""Pixels of the model a spaxel and axis."""
MARGIN = 8
"""Spaxels around the cube: light there comes in through the point spread."""
SLIT_SIGN = -1
"""Light west of the slit's middle (for a slit along north) is shifted to the red (+1) or to the blue (-1). The sense
was found on simulated cubes, where the other one puts the position angle 8 sigma off; check it on real ones."""

_SUBSPAXEL = 6
_CHANNELS, _WINGS = 32, 8
"""Fewest frequencies of the spectral transform, and pixels beyond the wavelengths that keep it from wrapping."""
_PERIODS = np.linspace(0.95, 1.05, 41)
_LEAST_CORRELATION = 0.6
_NEGLIGIBLE = 1e-3


@dataclass(frozen=True)
class Lattice:
    """Where the columns of a slit-stepping pattern lie.

    Attributes
    ----------
    first : float
        Position of the middle of any column across the slit, arcsec from the origin.
    period : float
        Distance of two columns, arcsec.
    correlation : float
        Of the number of exposures that it predicts with the one that was read.
    """

    first: float
    period: float
    correlation: float

    def nearest(self, across: np.ndarray) -> np.ndarray:
        """Middle of the column in which a place lies."""
        return self.first + self.period * np.round((across - self.first) / self.period)


def slit_axes(header) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors (east, north) along and across the slit.

    Parameters
    ----------
    header : astropy.io.fits.Header
        With SLITPA, deg.

    Returns
    -------
    along, across : numpy.ndarray, shape (2,)
    """
    angle = np.radians(header["SLITPA"])
    return np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])


def find_lattice(nexp: np.ndarray, across: np.ndarray, width: float, half_spaxel: float) -> Lattice | None:
    """Find the columns from the number of exposures of each spaxel.

    A spaxel that lies within a column is met by the dithers of one column, one on the border by those of two.

    Parameters
    ----------
    nexp : numpy.ndarray, shape (n_y, n_x)
        Number of exposures.
    across : numpy.ndarray, shape (n_y, n_x)
        Position of the spaxels across the slit, arcsec.
    width : float
        Of the slit, arcsec.
    half_spaxel : float
        Half of what a spaxel covers across the slit, arcsec.

    Returns
    -------
    Lattice or None
        None where no columns can be told: the steps are much finer than the slit, say.
    """
    use = nexp > 0.3 * np.nanmax(nexp, initial=1.0)
    if use.sum() < 20:
        return None
    seen = nexp[use] - nexp[use].mean()
    best = None
    for period in _PERIODS * width:
        for first in np.arange(0.0, period, 0.005):
            distance = np.abs((across[use] - first + period / 2) % period)
            border = np.minimum(distance, period - distance) < half_spaxel
            expected = border - border.mean()
            norm = np.sqrt((seen**2).sum() * (expected**2).sum())
            score = float((seen * expected).sum() / norm) if norm > 0 else 0.0
            if best is None or score > best.correlation:
                best = Lattice(float(first), float(period), score)
    return best if best.correlation > _LEAST_CORRELATION else None


class LineModel:
    """An emission line of a disc as a cube shows it.

    Parameters
    ----------
    cube : Cube
        Of the drizzle builder (its header tells the slit).
    wave_um : numpy.ndarray, shape (n_wave,)
        Wavelengths of the model: evenly spaced, around the line.
    line_um : float
        The line at velocity 0, um.
    ra, dec : float
        Origin of offsets, ICRS, deg.
    spread : LineSpread, optional
        Without it that of the header.
    slit_shift : int
        `SLIT_SIGN`, its opposite, or 0 to leave out the shift of light beside the slit's middle.
    columns : bool
        Take the columns of the pattern into account where the cube tells them.

    Attributes
    ----------
    east, north : numpy.ndarray, shape (n_fine_y, n_fine_x)
        Pixels of the model, arcsec from the origin.
    lattice : Lattice or None
        The columns.

    Raises
    ------
    msa3d.errors.ProductError
        If the header does not tell the slit.
    """

    def __init__(
        self,
        cube: Cube,
        wave_um: np.ndarray,
        line_um: float,
        ra: float,
        dec: float,
        *,
        spread: LineSpread | None = None,
        slit_shift: int = SLIT_SIGN,
        columns: bool = True,
    ):
        missing = [key for key in ("SLITWID", "SLITLEN", "SLITPA", "SLITFRAC", "PIXFRAC") if key not in cube.header]
        if missing:
            raise ProductError(f"{cube.name}: no keyword {', '.join(missing)} in SCI: a disc needs a drizzled cube")
        self.shape, self.line_um = cube.shape, line_um
        self.step_um = float(np.median(np.diff(wave_um)))
        self.n_wave = wave_um.size
        self.spread = spread or line_spread_of(cube.header, step_um=self.step_um)
        # Bins longer than a pixel do not sample the line: it is computed in parts of them.
        self._parts = max(round(self.step_um / self.spread.pixel_at(line_um)), 1)
        self._fine_um = self.step_um / self._parts
        self._first = (line_um - wave_um[0]) / self._fine_um
        wings = int(np.ceil(_WINGS * self.spread.pixel_at(line_um) / self._fine_um - 0.01))
        self._channels = max(fft.next_fast_len(self.n_wave * self._parts + wings, real=True), _CHANNELS)
        self._header = cube.header
        along, across = slit_axes(cube.header)
        self._place(cube, ra, dec)
        self.lattice = self._find(cube, across, ra, dec) if columns else None
        self._frequency = fft.rfftfreq(self._channels)
        self._axes, self._slit_shift = (along, across), slit_shift
        self._transfer = self._instrument(self._frequency)
        self._largest = np.abs(self._transfer).max(axis=(1, 2))
        self._sampler = self._make_sampler(along, across)

    def _place(self, cube: Cube, ra: float, dec: float) -> None:
        """Pixels of the model; the sky is flat enough for the cube's corners to tell all."""
        ny, nx = cube.shape
        east, north = cube.offsets(ra, dec)
        self._step = np.array(
            [
                [(east[0, -1] - east[0, 0]) / (nx - 1), (east[-1, 0] - east[0, 0]) / (ny - 1)],
                [(north[0, -1] - north[0, 0]) / (nx - 1), (north[-1, 0] - north[0, 0]) / (ny - 1)],
            ]
        )
        self._origin = np.array([east[0, 0], north[0, 0]])
        self.spaxel_east, self.spaxel_north = east, north
        size = [fft.next_fast_len((n + 2 * MARGIN) * OVERSAMPLE) for n in (ny, nx)]
        y, x = np.indices(size) / OVERSAMPLE - MARGIN
        self.east = self._origin[0] + self._step[0, 0] * x + self._step[0, 1] * y
        self.north = self._origin[1] + self._step[1, 0] * x + self._step[1, 1] * y

    def _find(self, cube: Cube, across: np.ndarray, ra: float, dec: float) -> Lattice | None:
        if "COLSTEP" in cube.header:
            # The middle of one column, and the step: known, not sought.
            h = cube.header
            return Lattice(float(across @ tangent_offsets(h["COLRA"], h["COLDEC"], ra, dec)), h["COLSTEP"], 1.0)
        if cube.nexp is None:
            return None
        nexp = cube.nexp
        if nexp.ndim == 3:
            middle = int(np.argmin(np.abs(cube.wave_um - self.line_um)))
            nexp = np.median(cube.nexp[max(middle - 10, 0) : middle + 11], axis=0)
        half = 0.5 * np.abs(across @ self._step).sum()
        position = across[0] * self.spaxel_east + across[1] * self.spaxel_north
        return find_lattice(nexp, position, float(cube.header["SLITWID"]), half)

    def _instrument(self, f: np.ndarray) -> np.ndarray:
        """Fourier transform of the instrument and of the bins, (n_frequency, n_fine_y, n_fine_x): all but the gas."""
        h, shape = self._header, self.east.shape
        along, across = self._axes
        cycles = np.stack(np.meshgrid(fft.fftfreq(shape[1]), fft.fftfreq(shape[0])))  # A fine pixel, x and y.
        q = np.einsum("ij,jyx->iyx", np.linalg.inv(self._step / OVERSAMPLE).T, cycles)
        q_along, q_across = (axis[0] * q[0] + axis[1] * q[1] for axis in (along, across))
        blur = BLUR_PIXELS * h["SLITLEN"]
        spatial = telescope_mtf(np.hypot(*q), self.line_um) * np.exp(-2 * (np.pi * blur * q_along) ** 2)
        spatial = spatial * np.sinc(q_along * h["SLITLEN"]) * np.sinc(q_along * h["SLITLEN"] * h["PIXFRAC"])
        # Linear interpolation between the model's pixels (`_make_sampler`) smooths: taken out beforehand.
        spatial = spatial / np.sinc(cycles[0]) ** 2 / np.sinc(cycles[1]) ** 2
        if self.lattice is None:
            spatial = spatial * np.sinc(q_across * h["SLITWID"] * h["SLITFRAC"])
        pixel = self.spread.pixel_at(self.line_um) / self._fine_um
        spectral = np.sinc(f * self._parts)
        image = self.spread.slit_pixels * pixel
        if self.spread.curve == "slit":
            spectral = spectral * np.exp(-2 * (np.pi * f * self.spread.blur_pixels * pixel) ** 2)
            spectral = spectral * np.sinc(f * pixel) * np.sinc(f * pixel * self.spread.footprint_pixels)
        else:
            # The slit's image is part of any line-spread function: the rest, a Gaussian, makes up the given width.
            sigma = self.spread.sigma_um(self.line_um) / self._fine_um
            image = min(image, sigma * np.sqrt(12.0))
            spectral = spectral * np.exp(-2 * (np.pi * f) ** 2 * (sigma**2 - image**2 / 12.0))
        if self._slit_shift:
            slit = np.sinc(h["SLITWID"] * q_across[None] + self._slit_shift * image * f[:, None, None])
        else:
            slit = np.sinc(q_across * h["SLITWID"])[None] * np.sinc(image * f)[:, None, None]
        return spatial[None] * slit * spectral[:, None, None]

    def _make_sampler(self, along: np.ndarray, across: np.ndarray) -> sparse.csr_matrix:
        """Weights of the fine pixels in each spaxel: what the columns' slits saw, drizzled onto it."""
        ny, nx = self.shape
        inside = (np.arange(_SUBSPAXEL) + 0.5) / _SUBSPAXEL - 0.5
        y, x, dy, dx = np.meshgrid(np.arange(ny), np.arange(nx), inside, inside, indexing="ij")
        place = np.stack([(x + dx).ravel(), (y + dy).ravel()])
        sky = self._origin[:, None] + self._step @ place
        if self.lattice is not None:
            u = across @ sky
            sky = sky + across[:, None] * (self.lattice.nearest(u) - u)
            place = np.linalg.solve(self._step, sky - self._origin[:, None])
        fine = (place + MARGIN) * OVERSAMPLE
        low = np.floor(fine).astype(int)
        part = fine - low
        row = np.repeat(np.arange(ny * nx), _SUBSPAXEL**2)
        n_y, n_x = self.east.shape
        rows, columns, values = [], [], []
        for j, k in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = (part[1] if j else 1 - part[1]) * (part[0] if k else 1 - part[0])
            rows.append(row)
            columns.append(np.clip(low[1] + j, 0, n_y - 1) * n_x + np.clip(low[0] + k, 0, n_x - 1))
            values.append(weight / _SUBSPAXEL**2)
        index = (np.concatenate(rows), np.concatenate(columns))
        return sparse.csr_matrix((np.concatenate(values), index), shape=(ny * nx, n_y * n_x))

    def predict(self, light: np.ndarray, velocity_kms: np.ndarray, sigma_kms: float) -> np.ndarray:
        """Shape the line.

        Parameters
        ----------
        light : numpy.ndarray, shape (n_fine_y, n_fine_x)
            Surface brightness of the line on the model's pixels.
        velocity_kms : numpy.ndarray, shape (n_fine_y, n_fine_x)
            Velocity of the gas.
        sigma_kms : float
            Its dispersion.

        Returns
        -------
        numpy.ndarray, shape (n_wave, n_y, n_x)
            Brightness a wavelength bin, in the unit of `light` a bin.
        """
        bins = self.line_um / C_KMS / self._fine_um
        one = np.exp(-2j * np.pi * self._frequency[1] * (self._first + bins * velocity_kms))
        gas = np.exp(-2 * (np.pi * self._frequency * sigma_kms * bins) ** 2)
        spectrum = np.zeros((self._frequency.size, self.shape[0] * self.shape[1]), dtype=complex)
        wave = light.astype(complex)
        # What the widths of gas and instrument have damped to nothing need not be computed.
        last = int(np.flatnonzero(self._largest * gas > _NEGLIGIBLE)[-1])
        for k in range(last + 1):
            seen = fft.ifft2(fft.fft2(wave) * (self._transfer[k] * gas[k]))
            spectrum[k] = self._sampler @ seen.ravel()
            wave = wave * one
        bins = fft.irfft(spectrum, n=self._channels, axis=0)[: self.n_wave * self._parts : self._parts] * self._parts
        return bins.reshape(self.n_wave, *self.shape)

    def flux(self, light: np.ndarray) -> np.ndarray:
        """Image of the line, summed over wavelength.

        Parameters
        ----------
        light : numpy.ndarray, shape (n_fine_y, n_fine_x)
            As in `predict`.

        Returns
        -------
        numpy.ndarray, shape (n_y, n_x)
            In the unit of `light`.
        """
        seen = fft.ifft2(fft.fft2(light) * self._transfer[0]).real
        return (self._sampler @ seen.ravel()).reshape(self.shape)

    def slit_velocity(self, light: np.ndarray) -> np.ndarray:
        """Shift of the line's mean by light beside the slit's middle, times the line's image.

        Parameters
        ----------
        light : numpy.ndarray, shape (n_fine_y, n_fine_x)
            As in `predict`.

        Returns
        -------
        numpy.ndarray, shape (n_y, n_x)
            km/s times the unit of `light`.
        """
        # The first moment is the derivative of the transform at frequency 0.
        tiny = 1e-4
        low, high = (self._instrument(np.array([f]))[0] for f in (-tiny, tiny))
        slope = (high - low) / (2.0 * tiny) * 1j / (2.0 * np.pi)
        seen = fft.ifft2(fft.fft2(light) * slope).real
        return (self._sampler @ seen.ravel()).reshape(self.shape) * self._fine_um / self.line_um * C_KMS

    def transposed(self, image: np.ndarray) -> np.ndarray:
        """Adjoint of `flux`.

        Parameters
        ----------
        image : numpy.ndarray, shape (n_y, n_x)
            Any image of the cube.

        Returns
        -------
        numpy.ndarray, shape (n_fine_y, n_fine_x)
        """
        spread = (self._sampler.T @ image.ravel()).reshape(self.east.shape)
        return fft.ifft2(fft.fft2(spread) * np.conj(self._transfer[0])).real


ITERATIONS = 30
_SCALES = np.geomspace(0.08, 1.2, 12)


def exponential(model: LineModel, scale_arcsec: float, pa_deg: float, inclination_deg: float, x0=0.0, y0=0.0):
    """Exponential disc on the model's pixels.

    Parameters
    ----------
    model : LineModel
        Has the pixels.
    scale_arcsec : float
        Scale length in the plane, arcsec.
    pa_deg, inclination_deg : float
        Of the major axis, and 0 for face on.
    x0, y0 : float
        Centre, arcsec.

    Returns
    -------
    numpy.ndarray, shape (n_fine_y, n_fine_x)
        1 at the centre.
    """
    radius, _ = Disc(pa_deg, inclination_deg, 0.0, 1.0, x0=x0, y0=y0).radius_azimuth(model.east, model.north)
    return np.exp(-radius / scale_arcsec)


def deconvolve(
    model: LineModel,
    flux: np.ndarray,
    error: np.ndarray,
    *,
    pa_deg: float = 0.0,
    inclination_deg: float = 0.0,
    x0: float = 0.0,
    y0: float = 0.0,
    iterations: int = ITERATIONS,
) -> np.ndarray:
    """Find a positive distribution of light that looks like an image through the instrument.

    It begins as the exponential disc that fits best, and is corrected by multiplication (image-space
    reconstruction, Daube-Witherspoon & Muehllehner 1986) until the image is met within its errors.

    Parameters
    ----------
    model : LineModel
        The instrument.
    flux, error : numpy.ndarray, shape (n_y, n_x)
        Image of the line and its error; NaN where unknown.
    pa_deg, inclination_deg, x0, y0 : float
        Of the disc it begins with.
    iterations : int
        At most so many corrections; 0 leaves the exponential disc.

    Returns
    -------
    numpy.ndarray, shape (n_fine_y, n_fine_x)
        In the unit of `flux`.
    """
    known = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    # A floor keeps the few brightest spaxels from ruling: their errors are smaller than the model is good.
    floor = np.hypot(error, 0.02 * np.nanmax(np.where(known, flux, np.nan)))
    weight = np.where(known, 1.0 / np.where(known, floor, 1.0) ** 2, 0.0)
    data = np.where(known, flux, 0.0)

    def fitted(log_scale: float) -> tuple[float, np.ndarray]:
        light = exponential(model, np.exp(log_scale), pa_deg, inclination_deg, x0, y0)
        seen = model.flux(light)
        amplitude = (weight * seen * data).sum() / (weight * seen**2).sum()
        return (weight * (data - amplitude * seen) ** 2).sum(), max(amplitude, 1e-30) * light

    near = min(np.log(_SCALES), key=lambda value: fitted(value)[0])
    step = np.log(_SCALES[1] / _SCALES[0])
    found = minimize_scalar(
        lambda value: fitted(value)[0], bounds=(near - step, near + step), method="bounded", options={"xatol": 2e-3}
    )
    light = fitted(found.x)[1]
    above = np.maximum(data, 0.0)
    target = model.transposed(weight * above)
    for _ in range(iterations):
        seen = model.flux(light)
        if (weight * (above - seen) ** 2).sum() < known.sum():
            break
        below = model.transposed(weight * seen)
        # Where no spaxel looks there is nothing to correct: the ratio tends to 1.
        floor = 1e-3 * below.max()
        light = light * np.maximum(target + floor, 0.0) / np.maximum(below + floor, floor)
    return light
