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

from msa3d.cube.sky import tangent_offsets
from msa3d.cube.slitpixels import SlitPixels, read_slit

LINES_UM = {"Hb": 0.486268, "[OIII]": 0.500824, "Ha": 0.656461}
"""Vacuum wavelengths at rest of the lines whose images are compared (NIST)."""
MASKED_UM = (0.372709, 0.372988, 0.386981, 0.388905, 0.396847, 0.397012, 0.410174, 0.434047, 0.436321, 0.486268,
             0.496030, 0.500824, 0.587562, 0.630205, 0.654986, 0.656461, 0.658527, 0.671829, 0.673268)  # fmt: skip
"""Vacuum wavelengths at rest of lines that are kept out of the continuum."""
LINE_KMS, MASK_KMS, SIDE_KMS = 450.0, 700.0, 3000.0
"""Half-width of a line's window, of the mask, and of the continuum beside a line."""
MIN_TRANSMISSION = 0.9
"""Pixels deeper in the shadow of a bar are left out: their light is not centred in them."""
MIN_PIXELS = 2000
"""Pixels of a slit without which its continuum is not used: a spectrum that just touches the detector."""
MIN_WIDTH, MIN_SIDES = 8, 2.0
"""Pixels in a line's window, and continuum pixels for each of them, at least."""
COMPLETE = 0.4
"""Part of the wavelengths that a bin must have."""
HIT_SIGMA = 6.0
C_KMS = 299_792.458


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

    def without(self, exposure: int) -> Band:
        """Leave out one exposure."""
        keep = self.exposure != exposure
        planes = {name: getattr(self, name)[keep] for name in ("exposure", "across", "along", "value", "sigma")}
        return replace(self, **planes)


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
    frame, centres, parts = None, {}, {}
    for number, paths in enumerate(files):
        for path in paths:
            for source_id, redshift in sources.items():
                pixels = read_slit(path, source_id, ends=0.5)
                if pixels is None or not pixels.good.any():
                    continue
                frame = frame or Frame(slit_angle(pixels))
                centre = centres.setdefault(source_id, (pixels.ra0, pixels.dec0))
                for name, profile in _profiles(pixels, redshift, frame, centre).items():
                    parts.setdefault((source_id, name), []).append((number, *profile))
    bands = [_band(source_id, name, found) for (source_id, name), found in parts.items() if len(found) >= 3]
    return bands, frame or Frame(0.0), centres


def _band(source_id: int, name: str, found: list[tuple]) -> Band:
    exposure = np.concatenate([np.full(item[1].size, item[0]) for item in found])
    planes = [np.concatenate([item[k] for item in found]) for k in (1, 2, 3, 4)]
    return Band(f"{source_id} {name}", source_id, exposure, *planes, float(np.median([item[5] for item in found])))


def _profiles(
    pixels: SlitPixels, redshift: float | None, frame: Frame, centre: tuple[float, float]
) -> dict[str, tuple]:
    """Profiles of one slit of one exposure, by band: across, along, value, sigma, height of a pixel."""
    pixels = pixels.around(*centre)
    across, along = frame.to_slit(pixels.east.mean(axis=1), pixels.north.mean(axis=1))
    height = float(np.median(np.hypot(*(plane[:, 3] - plane[:, 0] for plane in (pixels.east, pixels.north)))))
    wave, row = pixels.wave_um.mean(axis=1), pixels.flat // pixels.shape[1]
    bright = _transmission(pixels) >= MIN_TRANSMISSION
    good = pixels.good & bright
    line_free = np.ones(wave.size, dtype=bool)
    if redshift is not None:
        line_free = np.min([np.abs(_kms(wave, rest, redshift)) for rest in MASKED_UM], axis=0) > MASK_KMS
    places = np.round(along / height).astype(int)
    found = {}
    profile, clean = _continuum(pixels, wave, places, good & line_free, (across, along))
    if profile:
        found[f"continuum {pixels.detector.lower()}"] = (*profile, height)
    for name, rest in LINES_UM.items() if redshift is not None else ():
        velocity = _kms(wave, rest, redshift)
        beside = clean & (np.abs(velocity) > MASK_KMS) & (np.abs(velocity) < SIDE_KMS)
        profile = _line(pixels, row, np.abs(velocity) < LINE_KMS, good, beside, (across, along))
        if profile:
            found[name] = (*profile, height)
    return found


def _kms(wave_um: np.ndarray, rest_um: float, redshift: float) -> np.ndarray:
    return (wave_um / (rest_um * (1.0 + redshift)) - 1.0) * C_KMS


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
    for _ in range(3):
        powers = np.vander(reach, 3)
        shape = powers @ np.linalg.lstsq(powers[keep], pixels.data[keep], rcond=None)[0]
        # Where there is hardly any light its colour does not matter, and its spectrum cannot be divided by.
        shape = np.ones(wave.size) if shape[use].min() <= 0.3 * shape[use].mean() else shape / shape[use].mean()
        weight = np.bincount(number[keep], shape[keep], number.max() + 1)
        total = np.bincount(number[keep], pixels.data[keep], number.max() + 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / weight
        keep = use & (np.abs(pixels.data - mean[number] * shape) < HIT_SIGMA * pixels.err)
    count = np.bincount(number[keep], minlength=mean.size)
    full = count >= COMPLETE * np.median(count[count > 0])
    full &= count >= MIN_PIXELS // 10
    variance = np.bincount(number[keep], pixels.err[keep] ** 2, mean.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        across, along = (np.bincount(number[keep], item[keep], mean.size) / count for item in positions)
        sigma = np.sqrt(variance) / weight
    return (across[full], along[full], mean[full], sigma[full]), keep


def _line(pixels, row, inside, good, beside, positions) -> tuple | None:
    """Mean over the window of a line, row by row, less the continuum beside it; rows without a gap only."""
    n = pixels.shape[0]
    width = np.bincount(row[inside], minlength=n)
    sides = np.bincount(row[beside], minlength=n)
    if width.max() < MIN_WIDTH:
        return None
    full = (np.bincount(row[inside & good], minlength=n) == width) & (width >= width.max() - 1)
    full &= sides >= MIN_SIDES * width.max()
    if full.sum() < 5:
        return None
    use = inside & good

    def sums(what, where):
        return np.bincount(row[where], what[where], n)[full]

    width, sides = width[full], sides[full]
    value = sums(pixels.data, use) / width - sums(pixels.data, beside) / sides
    variance = sums(pixels.err**2, use) / width**2 + sums(pixels.err**2, beside) / sides**2
    across, along = (sums(item, use) / width for item in positions)
    return across, along, value, np.sqrt(variance)
