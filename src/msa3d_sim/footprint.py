"""What one slitlet lights on one detector, and how its light is spread there.

A slitlet's image is handled straightened: for every detector column ``x`` a run of rows from
``first_row[x]`` on, finely divided. At every fine position the position along the slit and the wavelength are
known for several strips across the shutter's opening, so that the width of the slit and its tilt on
the detector come out by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from msa3d_sim.geometry import DETECTOR_PIXELS, PITCH_IN_OPENINGS, WAVE_RANGE_UM, Optics, Polynomial2D, Slitlet

STRIPS = 7
"""Strips across the opening; each is a third of a pixel wide after dispersion."""
FINE_X, FINE_Y = 2, 4
"""Divisions of a pixel along dispersion and across it."""
_MARGIN_PIXELS = 4
_INVERSE_DEGREES = (7, 4)
"""Chebyshev degrees of the fits of position and wavelength over the detector."""


@dataclass(frozen=True)
class Calibration:
    """What turns surface brightness into count rate; all functions of wavelength in um.

    Attributes
    ----------
    factor : callable
        MJy/sr per DN/s for light that fills the slit, for (wave_um, quadrant, row, column).
    transmission : callable
        Fraction that passes the slit and the grating for light that fills the slit; 1 when switched off.
    blur_pixels : float
        Sigma of the spectrograph's blur (pixels).
    bars : bool
        Whether the bars between shutters cast shadows.
    closed : frozenset of tuple
        Shutters (quadrant, row, column) that stay closed whatever they are told.
    """

    factor: object
    transmission: object
    blur_pixels: float
    bars: bool
    closed: frozenset = frozenset()


class Footprint:
    """Pixels and geometry of one slitlet on one detector.

    Parameters
    ----------
    optics : Optics
        In front of the detector.
    slitlet : Slitlet
        The slitlet.
    calibration : Calibration
        What turns light into counts.
    strips : int
        Strips into which the opening is cut; one is enough for light without lines.

    Attributes
    ----------
    lit : bool
        Whether any of its light falls on the detector.
    first_row : ndarray of int, shape (2048,)
        First row of the run in every column.
    rows : int
        Length of the run.
    """

    def __init__(self, optics: Optics, slitlet: Slitlet, calibration: Calibration, strips: int = STRIPS):
        self.slitlet = slitlet
        self.calibration = calibration
        transform = optics.slit_wcs(slitlet).get_transform("slit_frame", "detector")
        self.strips = (np.arange(strips) + 0.5) / strips - 0.5
        self._lines: dict = {}
        samples = [self._samples(transform, strip) for strip in (0.0, *self.strips)]
        self.lit = all(sample is not None for sample in samples)
        if self.lit:
            self._centre, *self._strip_maps = [_Inverse(*sample) for sample in samples]
            self._lay_out_rows(*samples[0])
            self._weigh()

    def _samples(self, transform, strip: float):
        """Positions on and near the detector of a grid along the slit and in wavelength."""
        low, high = self.slitlet.y_range
        y_slit, wave = np.meshgrid(
            np.linspace(low - 0.6, high + 0.6, 17),
            np.linspace(WAVE_RANGE_UM[0] - 0.02, WAVE_RANGE_UM[1] + 0.02, 400),
            indexing="ij",
        )
        x, y = transform(np.full(y_slit.size, strip), y_slit.ravel(), wave.ravel() * 1e-6)
        x, y = x.reshape(y_slit.shape), y.reshape(y_slit.shape)
        near = (x > -30) & (x < DETECTOR_PIXELS + 30)
        on = (x > -0.5) & (x < DETECTOR_PIXELS - 0.5) & (y > -0.5) & (y < DETECTOR_PIXELS - 0.5)
        if on.sum() < 40:
            return None
        return x[near], y[near], y_slit[near], wave[near]

    def _lay_out_rows(self, x, y, y_slit, wave) -> None:
        """Choose the run of rows of every column from the ends of the slit."""
        low, high = self.slitlet.y_range
        # A spectrum may light a few columns only: beyond its samples the polynomial means nothing.
        columns = np.clip(np.arange(DETECTOR_PIXELS), x.min(), x.max())
        row_of = Polynomial2D(x, y_slit, y, _INVERSE_DEGREES)
        ends = np.stack([row_of(columns, np.full(DETECTOR_PIXELS, end)) for end in (low, high)])
        first = np.floor(ends.min(axis=0)).astype(int) - _MARGIN_PIXELS
        self.rows = int(np.ceil((ends.max(axis=0) - first).max())) + _MARGIN_PIXELS
        self.first_row = first

    def fine_positions(self, columns: np.ndarray, fine_x: int):
        """Detector positions of the fine grid in some columns, shape (columns, fine_x, rows * FINE_Y)."""
        across = (np.arange(fine_x) + 0.5) / fine_x - 0.5
        along = (np.arange(self.rows * FINE_Y) + 0.5) / FINE_Y - 0.5
        x = columns[:, None, None] + across[None, :, None]
        y = self.first_row[columns][:, None, None] + along[None, None, :]
        return np.broadcast_arrays(x.astype(float), y.astype(float))

    def _weigh(self) -> None:
        """Response to light of 1 MJy/sr that fills the slit, per fine position."""
        columns = np.arange(DETECTOR_PIXELS)
        x, y = (plane[:, 0] for plane in self.fine_positions(columns, 1))
        self.y_slit, self.wave_um = (plane.astype(np.float32) for plane in self._centre(x, y))
        self._per_brightness = self._counts_per_brightness(self.wave_um)
        step = np.abs(np.gradient(self.y_slit, axis=1))
        aperture = np.mean([self._aperture(strip_map.y_slit(x, y), step) for strip_map in self._strip_maps], axis=0)
        self.response = (aperture * self._per_brightness).astype(np.float32)

    def _counts_per_brightness(self, wave_um):
        """DN/s per MJy/sr inside the opening; zero outside the filter's range."""
        inside = (wave_um > WAVE_RANGE_UM[0]) & (wave_um < WAVE_RANGE_UM[1])
        wave = np.clip(wave_um, *WAVE_RANGE_UM)
        slitlet = self.slitlet
        factor = self.calibration.factor(wave, slitlet.quadrant, slitlet.row, slitlet.primary)
        return np.where(inside, self.calibration.transmission(wave) / factor, 0.0)

    def _aperture(self, y_slit, step):
        """Open fraction of fine pixels at positions along the slit, ``step`` wide."""
        low, high = self.slitlet.y_range
        if not self.calibration.bars:
            return _covered(y_slit, 0.5 * (low + high), high - low, step)
        slitlet = self.slitlet
        total = np.zeros(np.shape(y_slit))
        for column in slitlet.columns:
            if (slitlet.quadrant, slitlet.row, column) not in self.calibration.closed:
                total += _covered(y_slit, (column - slitlet.primary) * PITCH_IN_OPENINGS, 1.0, step)
        return total

    def expose(self, brightness_table) -> np.ndarray:
        """Count rates for light that varies slowly with wavelength.

        Parameters
        ----------
        brightness_table : BrightnessTable
            Surface brightness averaged across the opening.

        Returns
        -------
        ndarray, shape (2048, rows * FINE_Y)
            DN/s on the fine grid, not blurred yet.
        """
        return brightness_table(self.y_slit, self.wave_um) * self.response

    def line_samples(self, wave_low_um: float, wave_high_um: float):
        """Fine positions of a stretch of wavelengths, strip by strip (kept: the optics do not move).

        Parameters
        ----------
        wave_low_um, wave_high_um : float
            The stretch.

        Returns
        -------
        columns : ndarray of int
            Detector columns that it reaches; may be empty.
        samples : list of tuple
            For each strip: strip position, ``y_slit``, ``wave_um`` and response, each of shape
            (columns, FINE_X, rows * FINE_Y).
        """
        key = (wave_low_um, wave_high_um)
        if key not in self._lines:
            self._lines[key] = self._make_line_samples(*key)
        return self._lines[key]

    def _make_line_samples(self, wave_low_um, wave_high_um):
        middle = self.wave_um[:, self.wave_um.shape[1] // 2]
        margin = 4.0 * float(np.median(np.abs(np.diff(middle))))
        columns = np.flatnonzero((middle > wave_low_um - margin) & (middle < wave_high_um + margin))
        samples = []
        if columns.size:
            x, y = self.fine_positions(columns, FINE_X)
            for strip, strip_map in zip(self.strips, self._strip_maps, strict=True):
                y_slit, wave = strip_map(x, y)
                step = np.abs(np.gradient(y_slit, axis=2))
                response = self._aperture(y_slit, step) * self._counts_per_brightness(wave)
                samples.append((strip, *(plane.astype(np.float32) for plane in (y_slit, wave, response))))
        return columns, samples

    def expose_lines(self, wave_low_um: float, wave_high_um: float, brightness) -> tuple:
        """Count rates of emission lines, resolved across the opening.

        Parameters
        ----------
        wave_low_um, wave_high_um : float
            Stretch of wavelengths outside which there is no light.
        brightness : callable
            ``brightness(x_slit, y_slit, wave_um)`` in MJy/sr.

        Returns
        -------
        columns : ndarray of int
            Columns lit.
        rates : ndarray, shape (columns, rows * FINE_Y)
            DN/s on the fine grid, not blurred along the slit yet.
        """
        columns, samples = self.line_samples(wave_low_um, wave_high_um)
        if not columns.size:
            return columns, np.zeros((0, self.rows * FINE_Y))
        total = sum(brightness(strip, y_slit, wave) * response for strip, y_slit, wave, response in samples)
        return columns, total.mean(axis=1) / len(samples)

    def add_to(self, image: np.ndarray, fine_rates: np.ndarray) -> None:
        """Blur fine rates along the slit, bin them to pixels and add them to a detector image.

        Parameters
        ----------
        image : ndarray, shape (2048, 2048)
            Axes (row, column), DN/s; changed in place.
        fine_rates : ndarray, shape (2048, rows * FINE_Y)
            Of this footprint.
        """
        sigma = self.calibration.blur_pixels * FINE_Y
        if sigma > 0:
            fine_rates = gaussian_filter1d(fine_rates, sigma, axis=1, mode="constant")
        pixels = fine_rates.reshape(DETECTOR_PIXELS, self.rows, FINE_Y).mean(axis=2)
        rows = self.first_row[:, None] + np.arange(self.rows)[None, :]
        inside = (rows >= 0) & (rows < DETECTOR_PIXELS)
        columns = np.broadcast_to(np.arange(DETECTOR_PIXELS)[:, None], rows.shape)
        image[rows[inside], columns[inside]] += pixels[inside]


class _Inverse:
    """Detector position to position along the slit and wavelength, for one strip of the opening.

    Columns beyond the samples get the values of the outermost ones, which no light of the filter reaches.
    """

    def __init__(self, x, y, y_slit, wave_um):
        self._columns = float(np.min(x)), float(np.max(x))
        self._y_slit = Polynomial2D(x, y, y_slit, _INVERSE_DEGREES)
        self._wave_um = Polynomial2D(x, y, wave_um, _INVERSE_DEGREES)

    def y_slit(self, x, y):
        """Position along the slit alone."""
        return self._y_slit(np.clip(x, *self._columns), y)

    def __call__(self, x, y):
        return self.y_slit(x, y), self._wave_um(np.clip(x, *self._columns), y)


def _covered(position, centre, width, step):
    """Fraction of bins of size ``step`` at ``position`` that an interval covers."""
    low = np.maximum(position - 0.5 * step, centre - 0.5 * width)
    high = np.minimum(position + 0.5 * step, centre + 0.5 * width)
    return np.clip((high - low) / step, 0.0, 1.0)


class BrightnessTable:
    """Surface brightness along the slit and in wavelength, averaged across the opening.

    Parameters
    ----------
    footprint : Footprint
        Of the slitlet.
    brightness : callable
        ``brightness(x_slit, y_slit, wave_um)`` in MJy/sr, smooth in wavelength.
    """

    WAVE_NODES = 48
    STEP = 0.05
    """Spacing along the slit, in openings (about 0.02 arcsec)."""

    def __init__(self, footprint: Footprint, brightness):
        low, high = footprint.slitlet.y_range
        self._low, count = low - 1.0, int(np.ceil((high - low + 2.0) / self.STEP)) + 1
        y_nodes = self._low + self.STEP * np.arange(count)
        self._wave_low = max(float(footprint.wave_um.min()), WAVE_RANGE_UM[0])
        wave_high = min(float(footprint.wave_um.max()), WAVE_RANGE_UM[1])
        self._wave_step = (wave_high - self._wave_low) / (self.WAVE_NODES - 1)
        waves = self._wave_low + self._wave_step * np.arange(self.WAVE_NODES)
        y_slit, wave = np.meshgrid(y_nodes, waves, indexing="ij")
        self._table = np.mean([brightness(strip, y_slit, wave) for strip in footprint.strips], axis=0, dtype=float)

    def __call__(self, y_slit, wave_um):
        """Interpolate; beyond the table's ends the value at the end."""
        coordinates = np.stack([(y_slit - self._low) / self.STEP, (wave_um - self._wave_low) / self._wave_step])
        return map_coordinates(self._table, coordinates, order=3, mode="nearest")
