"""Point-spread function of the telescope and what the slits do to it.

Scalar Fourier optics of the segmented pupil: monochromatic images by a matrix Fourier transform
(Soummer et al. 2007, Optics Express 15, 15935), so that any pixel scale is exact. The wavefront error is
a fixed pattern of segment pistons and tilts of 65 nm rms, without a net slope so that it moves no centroid. In flight
the telescope with NIRCam has 60-80 nm (JDox; Rigby et al. 2023, PASP 135, 048001). NIRSpec's own share comes on top and
is not included, as no value of it was available: the simulated images are, if anything, too sharp.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.signal import fftconvolve

_SEGMENT_FLAT_TO_FLAT_M = 1.32
_SEGMENT_PITCH_M = 1.327
_STRUT_WIDTH_M = 0.11
_SECONDARY_RADIUS_M = 0.38
_PUPIL_SAMPLES = 262
_PUPIL_WIDTH_M = 6.75
DIAMETER_M = 6.5
WAVEFRONT_RMS_UM = 0.065
_GRATING_RADIUS_M = 3.75
"""Radius of the grating, seen as a stop in the telescope's pupil; the pupil itself ends at 3.3 m."""
OPEN_ARCSEC = (0.197, 0.456)
"""Open width and height of a shutter on the sky, mean over the field."""
PITCH_ARCSEC = (0.268, 0.524)
"""Pitch of the shutters on the sky, mean over the field."""
_FINE_ARCSEC = 0.01
"""Step at which images are computed before they are binned to pixels; below half of wave / diameter."""
SPECTROGRAPH_SIGMA_PX = 0.40
"""Gaussian sigma, in pixels, of the spectrograph's own blur (optics, charge diffusion).

With the image of the slit, 1.9-2.0 pixels wide, it gives a resolving power of 2150 at 1.0, 2700 at 1.25
and 3030 at 1.4 um: the nominal curve of G140H (2700 in the middle of the band).
"""
ARCSEC_RAD = np.pi / 180 / 3600


@lru_cache(maxsize=8)
def pupil(rotation_deg: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The telescope's pupil.

    Parameters
    ----------
    rotation_deg : float
        Angle of the V3 axis from up, counter-clockwise.

    Returns
    -------
    coordinate : numpy.ndarray
        Positions of the samples along either axis in metre, shape (n,).
    amplitude : numpy.ndarray
        Transmitted amplitude 0-1, shape (n, n): 18 segments, secondary mirror and its three struts.
    wavefront : numpy.ndarray
        Wavefront error in um, shape (n, n).
    """
    step = _PUPIL_WIDTH_M / _PUPIL_SAMPLES
    axis = (np.arange(_PUPIL_SAMPLES) - (_PUPIL_SAMPLES - 1) / 2) * step
    right, up = np.meshgrid(axis, axis)
    cos, sin = np.cos(np.deg2rad(rotation_deg)), np.sin(np.deg2rad(rotation_deg))
    x, y = right * cos + up * sin, up * cos - right * sin
    generator = np.random.default_rng(20211225)
    amplitude, wavefront = np.zeros_like(x), np.zeros_like(x)
    centres = _segment_centres()
    for x0, y0 in centres[: len(centres) // 2]:
        piston, *tilt = generator.normal(size=3) * (1.0, 2.5, 2.5)
        for sign in (1, -1):
            dx, dy = x - sign * x0, y - sign * y0
            inside = _hexagon(dx, dy, step)
            amplitude += inside
            wavefront += inside * (piston + sign * (tilt[0] * dx + tilt[1] * dy))
    amplitude = np.clip(amplitude, 0, 1) * _open_behind_secondary(x, y)
    weight = amplitude**2 / np.sum(amplitude**2)
    # The struts break the point symmetry: without this the image would sit a milliarcsecond off.
    wavefront -= _mean_slope(amplitude, wavefront, 1) * right / step
    wavefront -= _mean_slope(amplitude, wavefront, 0) * up / step
    wavefront -= np.sum(weight * wavefront)
    wavefront *= WAVEFRONT_RMS_UM / np.sqrt(np.sum(weight * wavefront**2))
    return axis, amplitude, wavefront


def _mean_slope(amplitude, wavefront, axis):
    """Mean difference of the wavefront between neighbours, weighted as it moves the image's centroid."""
    n = amplitude.shape[axis]
    one, other = (amplitude.take(range(k, n - 1 + k), axis) for k in (0, 1))
    return np.sum(one * other * np.diff(wavefront, axis=axis)) / np.sum(one * other)


def _segment_centres() -> list[tuple[float, float]]:
    """Centres of the 18 segments; the second half is the first one mirrored at the origin."""
    a, b = _SEGMENT_PITCH_M * np.sqrt(3) / 2, _SEGMENT_PITCH_M / 2
    ring = [(q * a, q * b + r * 2 * b) for q in range(-2, 3) for r in range(-2, 3)]
    ring = [(x, y) for x, y in ring if 0.1 < np.hypot(x, y) < 2.2 * _SEGMENT_PITCH_M]
    half = [(x, y) for x, y in ring if x > 1e-6 or (abs(x) < 1e-6 and y > 0)]
    return half + [(-x, -y) for x, y in half]


def _hexagon(dx, dy, step):
    """Coverage of pixels by a hexagon with flat sides up and down, with soft one-pixel edges."""
    slanted = np.abs(dx) * np.sqrt(3) / 2 + np.abs(dy) / 2
    distance = np.maximum(np.abs(dy), slanted) - _SEGMENT_FLAT_TO_FLAT_M / 2
    return np.clip(0.5 - distance / step, 0, 1)


def _open_behind_secondary(x, y):
    clear = (np.hypot(x, y) > _SECONDARY_RADIUS_M).astype(float)
    for angle in (90.0, 240.0, 300.0):
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        clear[(x * cos + y * sin > 0) & (np.abs(-x * sin + y * cos) < _STRUT_WIDTH_M / 2)] = 0
    return clear


def psf_image(wave_um: float, scale_arcsec: float = 0.05, size: int = 101, rotation_deg: float = 0.0) -> np.ndarray:
    """Monochromatic image of a point source, integrated over square pixels.

    Parameters
    ----------
    wave_um : float
        Wavelength in um.
    scale_arcsec : float
        Size of a pixel.
    size : int
        Pixels along either side, odd: the source is in the middle of the middle pixel.
    rotation_deg : float
        Position angle of the telescope's V3 axis in the image, from up towards left (from north
        through east on an image with north up and east left).

    Returns
    -------
    numpy.ndarray
        Shape (size, size), read-only, sum 1: the light outside the box is put inside.
    """
    if size % 2 == 0:
        raise ValueError("psf_image: size must be odd so that the source falls on a pixel's middle")
    key = (round(float(wave_um), 6), round(float(scale_arcsec), 6), int(size), round(float(rotation_deg), 4))
    image, _ = _psf(*key)
    return image


@lru_cache(maxsize=256)
def _psf(wave_um, scale_arcsec, size, rotation_deg):
    fine = max(1, 2 * round((scale_arcsec / _FINE_ARCSEC - 1) / 2) + 1)
    n = size * fine
    offset = (np.arange(n) - (n - 1) / 2) * scale_arcsec / fine
    intensity = _intensity(wave_um, offset, rotation_deg)
    image = intensity.reshape(size, fine, size, fine).sum(axis=(1, 3))
    total = image.sum()
    image /= total
    image.flags.writeable = False
    return image, float(1 - total)


def _intensity(wave_um, offset_arcsec, rotation_deg):
    """Fraction of the light in a cell of the square grid offset x offset (arcsec)."""
    axis, amplitude, wavefront = pupil(rotation_deg % 360)
    field = amplitude * np.exp(2j * np.pi * wavefront / wave_um)
    step = axis[1] - axis[0]
    angle = offset_arcsec * ARCSEC_RAD
    cell = angle[1] - angle[0]
    wave = wave_um * 1e-6
    kernel = np.exp(-2j * np.pi * np.outer(angle, axis) / wave)
    image = kernel @ field @ kernel.T
    norm = (step * cell / wave) ** 2 / np.sum(np.abs(field) ** 2)
    return np.abs(image) ** 2 * norm


@lru_cache(maxsize=128)
def aperture_transmission(wave_um: float, shutters: int = 1) -> float:
    """Fraction of the light of a uniformly lit slitlet (bars ignored) that the grating catches.

    The light of a uniform sky is incoherent in the pupil; behind the slit the pupil's image is that of
    the pupil convolved with the slit's diffraction pattern, a squared sinc of width wave / opening in
    either direction. What falls outside the grating's radius (`_GRATING_RADIUS_M`) is lost.
    """
    axis, amplitude, _ = pupil()
    step = 2 * (axis[1] - axis[0])
    coarse = (amplitude**2).reshape(_PUPIL_SAMPLES // 2, 2, _PUPIL_SAMPLES // 2, 2).mean(axis=(1, 3))
    half = np.arange(0, 11, step)
    reach = np.concatenate([-half[:0:-1], half])
    height = OPEN_ARCSEC[1] + (shutters - 1) * PITCH_ARCSEC[1]
    across, along = (
        np.sinc(reach / width) ** 2 * step / width
        for width in (wave_um * 1e-6 / (OPEN_ARCSEC[0] * ARCSEC_RAD), wave_um * 1e-6 / (height * ARCSEC_RAD))
    )
    spread = fftconvolve(coarse, np.outer(along, across), mode="full")
    centre = (np.arange(spread.shape[0]) - (spread.shape[0] - 1) / 2) * step
    caught = np.hypot(*np.meshgrid(centre, centre)) <= _GRATING_RADIUS_M
    return float(spread[caught].sum() / coarse.sum())


def point_transmission(wave_um: float, x_shutter, y_shutter, shutters: int = 1) -> np.ndarray:
    """Fraction of a point source's light that passes the slitlet and reaches the detector.

    The light that the open areas let through (bars included), as a fraction of that within 3 arcsec,
    times the diffraction loss of `aperture_transmission`, which is taken as that of a uniform source.

    Parameters
    ----------
    wave_um : float
        Wavelength in um.
    x_shutter, y_shutter : array
        Source positions from the middle of the middle shutter, in units of the shutter pitch, shapes
        (nx,) and (ny,).
    shutters : int
        1 or 3 open shutters.

    Returns
    -------
    numpy.ndarray
        Shape (ny, nx).
    """
    edges, summed = _light_before(float(wave_um))

    def within(position, start, stop):
        """Interpolation matrix that takes the difference of the integral between two edges."""
        return _hat(edges, stop - position) - _hat(edges, start - position)

    x = np.asarray(x_shutter, dtype=float) * PITCH_ARCSEC[0]
    y = np.asarray(y_shutter, dtype=float) * PITCH_ARCSEC[1]
    columns = within(x, -OPEN_ARCSEC[0] / 2, OPEN_ARCSEC[0] / 2)
    rows = 0
    for k in range(-(shutters // 2), shutters // 2 + 1):
        middle = k * PITCH_ARCSEC[1]
        rows = rows + within(y, middle - OPEN_ARCSEC[1] / 2, middle + OPEN_ARCSEC[1] / 2)
    return rows @ summed @ columns.T * aperture_transmission(float(wave_um), shutters)


@lru_cache(maxsize=1)
def _light_before(wave_um):
    """Light of a source in the middle, summed over both coordinates up to the given edges (arcsec)."""
    offset = np.arange(-300, 301) * _FINE_ARCSEC
    intensity = _intensity(wave_um, offset, 0.0)
    edges = np.append(offset - _FINE_ARCSEC / 2, offset[-1] + _FINE_ARCSEC / 2)
    return edges, np.pad((intensity / intensity.sum()).cumsum(0).cumsum(1), ((1, 0), (1, 0)))


def _hat(knots, positions):
    """Matrix of linear interpolation weights from knots (equidistant) to positions, clipped."""
    index = np.clip((positions - knots[0]) / (knots[1] - knots[0]), 0, knots.size - 1)
    low = np.minimum(index.astype(int), knots.size - 2)
    weights = np.zeros((positions.size, knots.size))
    rows = np.arange(positions.size)
    weights[rows, low] = 1 - (index - low)
    weights[rows, low + 1] = index - low
    return weights
