"""Brightness profiles along the slit of every exposure: what the registration compares.

The pixels of a slit are averaged over wavelength, in bins of position along the slit: once for the continuum on
each detector, and once for each emission line less its continuum. All exposures of a run share the wavelengths of
their pixels, so that their averages differ only by where the slit looked, and by noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits

from msa3d.constants import C_KMS, LINES, OTHER_LINES
from msa3d.cubes.slit import SlitPixels, read_slit

BANDS = {
    "Hb": (LINES["Hb"], -450.0, 450.0),
    "[OIII]": (LINES["[OIII]5007"], -450.0, 450.0),
    "Ha+[NII]": (LINES["Ha"], -1100.0, 1350.0),
    "[SII]": (LINES["[SII]6716"], -450.0, 1100.0),
}
"""Lines whose images are compared: rest-frame vacuum wavelength, window in km/s."""
MASKED_UM = (*OTHER_LINES.values(), *LINES.values())
"""Vacuum wavelengths at rest of lines that are kept out of the continuum."""
MASK_KMS, SIDE_KMS, BIN_KMS = 600.0, 3000.0, 40.0
"""Half-width of the mask of a line and of the continuum beside it; bins of the mean spectrum of a line."""
MSA_FAILED_OPEN = 2**29
"""Flag of jwst: pixels with light of shutters that are stuck open, which stays in place when the sky moves."""
MIN_TRANSMISSION = 0.9
"""Pixels deeper in the shadow of a bar are left out: their light is not centred in them."""
MIN_PIXELS = 1000
"""Pixels of a slit without which its continuum is not used: a spectrum that just touches the detector."""
MIN_SIDES = 30
"""Continuum pixels beside a line, in a row, at least."""
COMPLETE = 0.4
"""Part of the wavelengths that a bin must have."""
MOST_MISSING = 0.25
"""Part of a line's weight that may be missing in a row."""
HIT_SIGMA = 5.0
MIN_CONTRAST, MIN_VALUES = 0.3, 60
"""Bands with less structure than this, in units of their noise, are not used, nor those with fewer values."""


@dataclass(frozen=True, eq=False)
class Band:
    """Profiles of one source in one band, of all exposures that have it.

    Attributes
    ----------
    name : str
        Source and band: ``8512 continuum nrs2``, ``8512 Ha``.
    source_id : int
        The source.
    exposure : numpy.ndarray of int, shape (n,)
        Number of the exposure of each value.
    across, along : numpy.ndarray, shape (n,)
        Where it was measured, arcsec from the source's tangent point, across the slit and along it (the frame
        of `Frame`, by the pointing of the headers).
    value, sigma : numpy.ndarray, shape (n,)
        Mean surface brightness, MJy/sr, and its error.
    pixel_arcsec : float
        Height of a detector pixel.
    """

    name: str
    source_id: int
    exposure: np.ndarray
    across: np.ndarray
    along: np.ndarray
    value: np.ndarray
    sigma: np.ndarray
    pixel_arcsec: float

    @property
    def contrast(self) -> float:
        """Scatter of the values over that of their noise, without the noise: 0 where nothing is seen."""
        if self.value.size < MIN_VALUES:
            return 0.0
        scatter, noise = np.std(self.value), np.sqrt(np.mean(self.sigma**2))
        return float(np.sqrt(max((scatter / noise) ** 2 - 1.0, 0.0)))

    def without_outliers(self) -> Band:
        """Leave out values far from all that other exposures saw close by."""
        keep = np.ones(self.value.size, dtype=bool)
        for k in range(self.value.size):
            near = np.abs(self.across - self.across[k]) < 0.15
            near &= (np.abs(self.along - self.along[k]) < 1.5 * self.pixel_arcsec) & (self.exposure != self.exposure[k])
            if near.sum() < 4:
                continue
            others = self.value[near]
            middle = np.median(others)
            spread = 1.4826 * np.median(np.abs(others - middle))
            keep[k] = np.abs(self.value[k] - middle) < HIT_SIGMA * np.hypot(self.sigma[k], spread)
        names = ("exposure", "across", "along", "value", "sigma")
        return replace(self, **{name: getattr(self, name)[keep] for name in names})


@dataclass(frozen=True)
class Frame:
    """Axes across and along the slit on the sky.

    Attributes
    ----------
    pa_deg : float
        Position angle of the direction along the slit (of increasing y_slit), deg east of north; that across
        the slit is 90 degrees further.
    """

    pa_deg: float

    def to_slit(self, east, north):
        """Components across and along the slit of offsets east and north."""
        sin, cos = np.sin(np.radians(self.pa_deg)), np.cos(np.radians(self.pa_deg))
        return cos * east - sin * north, sin * east + cos * north

    def to_sky(self, across, along):
        """Components east and north of offsets across and along the slit."""
        sin, cos = np.sin(np.radians(self.pa_deg)), np.cos(np.radians(self.pa_deg))
        return cos * across + sin * along, -sin * across + cos * along


def slit_angle(pixels: SlitPixels) -> float:
    """Position angle of the direction along the slit, deg east of north."""
    east, north = (np.mean(plane[:, 2:] - plane[:, :2]) for plane in (pixels.east, pixels.north))
    return float(np.degrees(np.arctan2(east, north)))


def read_profiles(
    files: Sequence[Sequence[Path]], sources: Mapping[int, float | None]
) -> tuple[list[Band], Frame, dict[int, tuple[float, float]]]:
    """Read the profiles of all exposures.

    Parameters
    ----------
    files : sequence of sequence of pathlib.Path
        Calibrated files of each exposure, in the order of the exposures: those that post-processing made.
    sources : mapping of int to float or None
        Source ids with their redshifts; None where not known: continuum only, lines not masked.

    Returns
    -------
    bands : list of Band
        Only those seen in three exposures or more.
    frame : Frame
        Axes of all bands.
    centres : dict of int to (float, float)
        Tangent point of each source, deg.
    """
    frame: Frame | None = None
    centres: dict[int, tuple[float, float]] = {}
    parts: dict[tuple[int, str], list[tuple]] = {}
    lines: dict[tuple[int, str], list[tuple]] = {}
    for number, paths in enumerate(files):
        for path in paths:
            for source_id, redshift in sources.items():
                pixels = read_slit(path, source_id)
                if pixels is None or not pixels.good.any():
                    continue
                frame = frame or Frame(slit_angle(pixels))
                centre = centres.setdefault(source_id, (pixels.ra0, pixels.dec0))
                slit = _Slit(pixels.around(*centre), redshift, frame)
                for name, profile in slit.continuum().items():
                    parts.setdefault((source_id, name), []).append((number, *profile, slit.height))
                for name, windows in slit.lines().items():
                    lines.setdefault((source_id, name), []).append((number, windows, slit.height))
    for key, found in lines.items():
        parts[key] = _line_profiles(found)
    bands = [_band(source_id, name, found) for (source_id, name), found in parts.items() if len(found) >= 3]
    bands = [band.without_outliers() for band in bands]
    return [band for band in bands if band.contrast > MIN_CONTRAST], frame or Frame(0.0), centres


def _band(source_id: int, name: str, found: list[tuple]) -> Band:
    exposure = np.concatenate([np.full(item[1].size, item[0]) for item in found])
    across, along, value, sigma = (np.concatenate([item[k] for item in found]) for k in (1, 2, 3, 4))
    height = float(np.median([item[5] for item in found]))
    return Band(f"{source_id} {name}", source_id, exposure, across, along, value, sigma, height)


class _Slit:
    """Pixels of a slit with their places in the frame of the registration."""

    def __init__(self, pixels: SlitPixels, redshift: float | None, frame: Frame):
        self.pixels, self.known, self.redshift = pixels, redshift is not None, redshift or 0.0
        self.positions = frame.to_slit(pixels.east.mean(axis=1), pixels.north.mean(axis=1))
        self.height = float(np.median(np.hypot(*(side[:, 3] - side[:, 0] for side in (pixels.east, pixels.north)))))
        self.wave, self.row = pixels.wave_um.mean(axis=1), pixels.flat // pixels.shape[1]
        self.good = pixels.good & (_transmission(pixels) >= MIN_TRANSMISSION) & ((pixels.dq & MSA_FAILED_OPEN) == 0)
        self.clean = self.good.copy()
        for rest in MASKED_UM if self.known else ():
            self.clean &= np.abs(self.velocity(rest)) > MASK_KMS

    def velocity(self, rest_um: float) -> np.ndarray:
        """Velocity (km/s) of every pixel from a line."""
        return (self.wave / (rest_um * (1.0 + self.redshift)) - 1.0) * C_KMS

    def continuum(self) -> dict[str, tuple]:
        """Profile of the continuum; the hits that it finds are taken out of `clean`."""
        places = np.round(self.positions[1] / self.height).astype(int)
        profile, self.clean = _continuum(self.pixels, self.wave, places, self.clean, self.positions)
        return {} if profile is None else {f"continuum {self.pixels.detector.lower()}": profile}

    def lines(self) -> dict[str, tuple]:
        """Pixels in the windows of lines, less the continuum of their row: see `_line_profiles`."""
        found, pixels = {}, self.pixels
        for name, (rest, low, high) in BANDS.items() if self.known else ():
            velocity = self.velocity(rest)
            inside = (velocity > low) & (velocity < high)
            beside = self.clean & (np.abs(velocity) < SIDE_KMS)
            sides = np.bincount(self.row[beside], minlength=pixels.shape[0])
            # A window cut by the end of the detector has another line in every row.
            whole = inside.any() and velocity.min() < low and velocity.max() > high
            inside &= sides[self.row] >= MIN_SIDES
            if not whole or not inside.any():
                continue
            with np.errstate(invalid="ignore", divide="ignore"):
                level = np.bincount(self.row[beside], pixels.data[beside], pixels.shape[0]) / sides
                level_var = np.bincount(self.row[beside], pixels.err[beside] ** 2, pixels.shape[0]) / sides**2
            row, (across, along) = self.row[inside], (place[inside] for place in self.positions)
            light = (pixels.data - level[self.row])[inside]
            found[name] = (
                row,
                across,
                along,
                velocity[inside],
                light,
                pixels.err[inside],
                self.good[inside],
                level_var[row],
            )
        return found


def _line_profiles(found: list[tuple]) -> list[tuple]:
    """Profiles of a line: every row's light in units of the mean spectrum of the line in all exposures.

    The spectrum is fitted to the row's pixels, so that missing ones change the noise more than the value; rows in
    which too much is missing are left out.
    """
    velocity, light, good = (np.concatenate([windows[k] for _, windows, _ in found]) for k in (3, 4, 6))
    bins = np.floor((velocity - velocity.min()) / BIN_KMS).astype(int)
    count = np.maximum(np.bincount(bins[good]), 1)
    spectrum = np.bincount(bins[good], light[good]) / count
    noise = 1.4826 * np.median(np.abs(light[good])) / np.sqrt(count)
    weight_at = np.where(spectrum > 3.0 * noise, spectrum, 0.0)
    middles = velocity.min() + BIN_KMS * (np.arange(spectrum.size) + 0.5)
    profiles: list[tuple] = []
    if not weight_at.any():
        return profiles
    for number, (row, across, along, velocity, light, err, good, level_var), height in found:
        weight = np.interp(velocity, middles, weight_at)
        n = row.max() + 1
        used = np.where(good, weight, 0.0)
        all_of_it, norm = (np.bincount(row, item**2, n) for item in (weight, used))
        full = (all_of_it > 0) & (norm > (1.0 - MOST_MISSING) * all_of_it)
        full &= all_of_it > 0.5 * all_of_it.max()
        safe = np.where(good, light, 0.0), np.where(good, err, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.bincount(row, used * safe[0], n) / norm
            variance = np.bincount(row, (used * safe[1]) ** 2, n) / norm**2
            counts = np.bincount(row, minlength=n)
            variance += np.bincount(row, level_var, n) / counts * (np.bincount(row, used, n) / norm) ** 2
            places = [np.bincount(row, item, n) / counts for item in (across, along)]
        profiles.append((number, places[0][full], places[1][full], value[full], np.sqrt(variance[full]), height))
    return profiles


def _transmission(pixels: SlitPixels) -> np.ndarray:
    """What the bars let through to each pixel; 1 where the file does not say."""
    with fits.open(pixels.path, memmap=False) as hdus:
        if ("BARSHADOW", pixels.extver) not in hdus:
            return np.ones(pixels.flat.size)
        return np.nan_to_num(hdus["BARSHADOW", pixels.extver].data.ravel()[pixels.flat].astype(float))


def _continuum(pixels, wave, places, use, positions) -> tuple[tuple | None, np.ndarray]:
    """Mean over wavelength in bins one pixel high; also the pixels that are no hits.

    In a bin that high every column has one pixel. Where some are missing, the others are compared with the
    mean spectrum of the slit, so that the colour does not depend on which.
    """
    number = places - places.min()
    if use.sum() < MIN_PIXELS:
        return None, use
    reach = 2.0 * (wave - wave[use].mean()) / np.ptp(wave[use])
    keep = use.copy()
    # Weights by the noise at each wavelength, not of each pixel, whose photons are in its own error.
    noise = np.polynomial.Polynomial.fit(reach[use], np.log(pixels.err[use]), 4)
    worth = np.exp(-2.0 * (noise(reach) - noise(reach[use]).min()))
    for _ in range(3):
        powers = np.vander(reach, 3)
        shape = powers @ np.linalg.lstsq(powers[keep], pixels.data[keep], rcond=None)[0]
        # Where there is hardly any light its colour does not matter, and its spectrum cannot be divided by.
        shape = np.ones(wave.size) if shape[use].min() <= 0.3 * shape[use].mean() else shape / shape[use].mean()
        weight = np.bincount(number[keep], (worth * shape)[keep], number.max() + 1)
        total = np.bincount(number[keep], (worth * pixels.data)[keep], number.max() + 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / weight
        keep = use & (np.abs(pixels.data - mean[number] * shape) < HIT_SIGMA * pixels.err)
    count = np.bincount(number[keep], minlength=mean.size)
    full = count >= COMPLETE * np.median(count[count > 0])
    full &= count >= MIN_PIXELS // 10
    variance = np.bincount(number[keep], (worth * pixels.err)[keep] ** 2, mean.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        across, along = (
            np.bincount(number[keep], (worth * shape * item)[keep], mean.size) / weight for item in positions
        )
        sigma = np.sqrt(variance) / weight
    return (across[full], along[full], mean[full], sigma[full]), keep
