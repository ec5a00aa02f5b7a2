"""Calibrated pixels of one source in one file, with the quadrilateral on the sky that each of them sees."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.special import ndtr

from msa3d.errors import ProductError
from msa3d.observation.reading import readable
from msa3d.observation.sky import BLUR_PIXELS, DO_NOT_USE, from_tangent, tangent_offsets
from msa3d.observation.source import is_background
from msa3d.reduce.geometry import SlitGeometry, read_geometries
from msa3d.reduce.slit import PITCH_IN_OPENINGS, open_ranges


@dataclass(frozen=True, eq=False)
class SlitPixels:
    """Pixels of a slit inside its open area; all arrays have one value a pixel.

    Attributes
    ----------
    path : pathlib.Path
        File they were read from.
    extver : int
        EXTVER of the slit's SCI in it.
    shape : tuple of int
        ``(n_y, n_x)`` of the slit's image.
    flat : numpy.ndarray of int32, shape (n,)
        Place of each pixel in the flattened image.
    data, err, var_rnoise : numpy.ndarray, shape (n,)
        Surface brightness, its error (MJy/sr), and the variance of read noise. NaN where not known.
    dq : numpy.ndarray of uint32, shape (n,)
        jwst flags.
    good : numpy.ndarray of bool, shape (n,)
        Whether data and error are finite and DO_NOT_USE is not set.
    wave_um : numpy.ndarray, shape (n, 2)
        Wavelengths of the pixel's two edges in its own row, increasing, um.
    y_slit : numpy.ndarray, shape (n,)
        Position of the pixel's middle along the slit, openings from the middle of the primary shutter.
    east, north : numpy.ndarray, shape (n, 4)
        Corners of what it sees, arcsec in the plane tangent at `ra0`, `dec0`; in order around it.
    ra0, dec0 : float
        Tangent point, deg.
    exposure_s : float
        Effective exposure time.
    header : astropy.io.fits.Header
        Primary header of the file.
    """

    path: Path
    extver: int
    shape: tuple[int, int]
    flat: np.ndarray
    data: np.ndarray
    err: np.ndarray
    var_rnoise: np.ndarray
    dq: np.ndarray
    good: np.ndarray
    wave_um: np.ndarray
    y_slit: np.ndarray
    east: np.ndarray
    north: np.ndarray
    ra0: float
    dec0: float
    exposure_s: float
    header: fits.Header

    @property
    def name(self) -> str:
        """Directory and name of the file: all exposures of a source share the latter."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def detector(self) -> str:
        """``NRS1`` or ``NRS2``."""
        return str(self.header["DETECTOR"])

    def shifted(self, east_arcsec: float, north_arcsec: float) -> SlitPixels:
        """Pixels moved on the sky, by a measured error of the pointing."""
        return replace(self, east=self.east + east_arcsec, north=self.north + north_arcsec)

    def around(self, ra0: float, dec0: float) -> SlitPixels:
        """Pixels with the corners in the plane tangent at another point (deg)."""
        sky = from_tangent(self.east, self.north, self.ra0, self.dec0)
        east, north = tangent_offsets(*sky, ra0, dec0)
        return replace(self, east=east, north=north, ra0=ra0, dec0=dec0)


def read_slit(
    path: str | Path,
    source_id: int,
    *,
    slit_frac: float = 1.0,
    pixfrac: float = 1.0,
    ends: float = 0.5,
    exclude: Sequence[str] = (),
    bars: bool = False,
) -> SlitPixels | None:
    """Read the pixels of a source from a file of calibrated slits.

    Parameters
    ----------
    path : str or pathlib.Path
        ``cal`` file of jwst, or what post-processing made of it.
    source_id : int
        The source (SOURCEID).
    slit_frac : float
        Fraction of the open width of the shutter that a pixel is taken to see.
    pixfrac : float
        Fraction of its height along the slit.
    ends : float
        Pixels whose middle is nearer to an end of the open area than this (in pixels) are left out. 0.5
        leaves out those that look past the end.
    exclude : sequence of str
        Flags of jwst, beside DO_NOT_USE, whose pixels are not good: ``MSA_FAILED_OPEN``.
    bars : bool
        Pixels that look partly at a bar see what lies beside it: their corners are those of the part that they see.

    Returns
    -------
    SlitPixels or None
        None if the file has no slit of this source, it lights hardly any column of the detector, or none of its
        pixels lies in the open area.

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing, truncated, in another unit than MJy/sr, or without WCS or errors.
    """
    path = Path(path)
    with readable(path), fits.open(path, memmap=False) as hdus:
        slits = [hdu for hdu in hdus if hdu.name == "SCI" and hdu.header.get("SOURCEID") == source_id]
        versions = [hdu.ver for hdu in slits if not is_background(hdu.header)]
        if not versions:
            return None
        version = versions[0]
        sci, primary = hdus["SCI", version].header, hdus[0].header.copy()
        names = ("SCI", "ERR", "VAR_RNOISE", "DQ")
        planes = {name: np.array(hdus[name, version].data) for name in names}
    if len(versions) > 1:
        raise ProductError(
            f"{path}: {len(versions)} slits of source {source_id}; correct the metafile (see `msa3d msa check`)"
        )
    if sci.get("BUNIT", "").strip() != "MJy/sr":
        raise ProductError(
            f"{path}: BUNIT of source {source_id} is {sci.get('BUNIT')!r}, not MJy/sr: skip srctype in "
            "process.spec2, so that photom calibrates surface brightness"
        )
    geometry = read_geometries(path).get(version)
    if geometry is None:
        return None
    ny, nx = planes["SCI"].shape
    x, y = np.arange(nx, dtype=float), np.arange(ny, dtype=float)
    y_slit, _ = geometry.on_detector(x, y)
    height = np.abs(geometry.on_detector(x, y + 0.5)[0] - geometry.on_detector(x, y - 0.5)[0])
    margin = ends * height
    inside = np.zeros((ny, nx), dtype=bool)
    for low, high in open_ranges(sci["SHUTSTA"]):
        inside |= (y_slit - margin >= low) & (y_slit + margin <= high)
    inside &= (x >= geometry.domain[0, 0]) & (x <= geometry.domain[0, 1])
    flat = np.flatnonzero(inside)
    if not flat.size:
        return None
    _, edges = geometry.on_detector(np.arange(nx + 1) - 0.5, y)
    wave = np.sort(np.stack([edges[:, :-1].ravel()[flat], edges[:, 1:].ravel()[flat]], axis=1), axis=1)
    middle, tall = y_slit.ravel()[flat], height.ravel()[flat]
    if bars:
        middle, tall = _beside_bars(middle, tall, sci["SHUTSTA"])
    east, north = _corners(geometry, middle, tall, wave, slit_frac, pixfrac)
    data, err, var_rnoise = (planes[name].ravel()[flat].astype(float) for name in names[:3])
    dq = planes["DQ"].ravel()[flat].astype(np.uint32)
    good = np.isfinite(data) & np.isfinite(err) & (err > 0) & ((dq & _flags(exclude)) == 0)
    return SlitPixels(
        *(path, version, (ny, nx), flat.astype(np.int32), data, err, var_rnoise, dq, good),
        *(wave, y_slit.ravel()[flat], east, north, geometry.ra0, geometry.dec0),
        *(_exposure_time(primary, path), primary),
    )


def _flags(names: Sequence[str]) -> int:
    """Bits of DO_NOT_USE and of some other flags."""
    from stdatamodels.jwst.datamodels.dqflags import pixel

    return DO_NOT_USE | functools.reduce(operator.or_, (pixel[name] for name in names), 0)


def _beside_bars(middle: np.ndarray, height: np.ndarray, state: str) -> tuple[np.ndarray, np.ndarray]:
    """Middle and height along the slit of what pixels see of the open shutters, openings.

    Of uniform light a pixel half on a bar gets half, for which the bar shadow is corrected; but it is the half beside
    the bar. Mean and variance are those of the pixel, blurred by the spectrograph, where the shutters are open.
    """
    at = np.linspace(-3.0, 3.0, 601)
    edge = [ndtr((at + side) / BLUR_PIXELS) for side in (0.5, -0.5)]
    response = (edge[0] - edge[1]) * (at[1] - at[0])
    below = [np.concatenate([[0.0], np.cumsum(response * at**power)]) for power in range(3)]
    ends = np.append(at, at[-1] + at[1] - at[0]) - 0.5 * (at[1] - at[0])
    found = np.zeros((3, middle.size))
    primary = state.index("x")
    for number, letter in enumerate(state):
        if letter == "0":
            continue
        low, high = (((number - primary) * PITCH_IN_OPENINGS + side - middle) / height for side in (-0.5, 0.5))
        found += [np.interp(high, ends, moment) - np.interp(low, ends, moment) for moment in below]
    part = np.maximum(found[0], 1e-6)
    mean = found[1] / part
    spread = np.sqrt(np.maximum(found[2] / part - mean**2, 0.0) / (1.0 / 12.0 + BLUR_PIXELS**2))
    return middle + mean * height, np.clip(spread, 0.1, 1.5) * height


def _corners(
    geometry: SlitGeometry,
    y_slit: np.ndarray,
    height: np.ndarray,
    wave: np.ndarray,
    slit_frac: float,
    pixfrac: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Sky offsets of the corners of what each pixel sees, through the slit: shape (n, 4)."""
    across = 0.5 * slit_frac * np.array([-1.0, 1.0, 1.0, -1.0])
    along = y_slit[:, None] + 0.5 * pixfrac * height[:, None] * np.array([-1.0, -1.0, 1.0, 1.0])
    return geometry.on_sky(across, along, wave.mean(axis=1)[:, None])


def _exposure_time(primary: fits.Header, path: Path) -> float:
    for key in ("EFFEXPTM", "XPOSURE", "DURATION"):
        if key in primary:
            return float(primary[key])
    raise ProductError(f"{path}: no EFFEXPTM in its header; run `msa3d process` again")
