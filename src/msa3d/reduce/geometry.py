"""Where the pixels of a slit look: its own gwcs, evaluated once and written down as numbers.

Opening the WCS of a file of many slits costs a second and more, and every source needs the WCS of every
exposure. So it is evaluated while jwst has it in memory, and the numbers go into a table of the file. A file without
the table is read from its gwcs, to the same numbers.

Of a calibrated slit, pixels ``(x, y)`` count from 0 at the centre of the slit's first pixel, ``x`` along dispersion.
Inside the slit ``x_slit`` and ``y_slit`` are in openings of a shutter, from the middle of the primary one. Both
are Chebyshev polynomials, with the largest residuals of the fit beside them.

Of a rectified 2-D spectrum (``s2d``) the table `SLITGEOM` holds, digit by digit, what the builders take from the WCS.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asdf
import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.modeling import CompoundModel, Model
from astropy.table import Table
from numpy.polynomial import chebyshev

from msa3d.errors import ProductError, UnlitSlitError
from msa3d.observation.reading import readable
from msa3d.observation.sky import MIN_COLUMNS, tangent_offsets
from msa3d.pipeline.layout import GEOMETRY

log = logging.getLogger(__name__)

_DETECTOR_DEGREES = tuple((degree, 4) for degree in (8, 16, 24, 32, 48))
"""Over (x, y), the first that is good enough: 8 for a grating; the dispersion of the prism, with its turning point near
1.5 um, needs more the more of its range a slit shows."""
_SKY_DEGREES = (1, 3, 3)
_SAMPLES_X = (90, 512)
"""Columns sampled for the first of the degrees, and for the others."""
_MOST_RESIDUAL_PIXEL = 2e-3
_MOST_RESIDUAL_ARCSEC = 1e-4


@dataclass(frozen=True, eq=False)
class SlitGeometry:
    """Polynomials of one slit of one exposure.

    Attributes
    ----------
    ra0, dec0 : float
        Tangent point of the sky offsets, deg.
    domain : numpy.ndarray, shape (4, 2)
        Ranges of x, y (pixels), y_slit (openings) and wavelength (um) that the polynomials were fitted in. Columns
        outside that of x have no WCS.
    y_slit, wave : numpy.ndarray, shape (9, 5) or (more, 5)
        Chebyshev coefficients over (x, y): position along the slit (openings), wavelength (um). In a table all have
        the shape of the largest, filled up with zeros, which change no digit.
    east, north : numpy.ndarray, shape (2, 4, 4)
        Chebyshev coefficients over (x_slit, y_slit, wavelength): gnomonic offsets, arcsec.
    residuals : numpy.ndarray, shape (3,)
        Largest residuals of the fits: y_slit (pixels), wavelength (pixels of mean length), sky (arcsec).
    """

    ra0: float
    dec0: float
    domain: np.ndarray
    y_slit: np.ndarray
    wave: np.ndarray
    east: np.ndarray
    north: np.ndarray
    residuals: np.ndarray

    def on_detector(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Position along the slit (openings) and wavelength (um) on a grid of pixels.

        Parameters
        ----------
        x, y : numpy.ndarray, shapes (n_x,) and (n_y,)
            Pixel coordinates; halves are edges.

        Returns
        -------
        y_slit, wave_um : numpy.ndarray, shape (n_y, n_x)
        """
        u, v = (_scaled(item, self.domain[axis]) for axis, item in enumerate((x, y)))
        return tuple(chebyshev.chebgrid2d(u, v, coefficients).T for coefficients in (self.y_slit, self.wave))

    def on_sky(self, x_slit, y_slit, wave_um) -> tuple[np.ndarray, np.ndarray]:
        """Offsets on the sky, east and north of ``(ra0, dec0)``, arcsec, of places in the slit.

        Parameters
        ----------
        x_slit, y_slit : numpy.ndarray
            Openings from the middle of the primary shutter, across and along the slit.
        wave_um : numpy.ndarray
            Wavelength, um (the fore optics are chromatic).

        Returns
        -------
        east, north : numpy.ndarray
        """
        where = (2.0 * np.asarray(x_slit), *map(_scaled, (y_slit, wave_um), self.domain[2:]))
        most = max(item.ndim for item in where)
        # One variable after the other, as chebval3d does, but each in its own shape: the few places across the slit
        # are not repeated for every pixel.
        x, y, wave = (item.reshape((1,) * (most - item.ndim) + item.shape) for item in where)
        return tuple(
            chebyshev.chebval(wave, chebyshev.chebval(y, chebyshev.chebval(x, one), tensor=False), tensor=False)
            for one in (self.east, self.north)
        )


def _scaled(values, domain: np.ndarray) -> np.ndarray:
    """Map a domain to [-1, 1]."""
    return (2.0 * np.asarray(values) - domain.sum()) / (domain[1] - domain[0])


def _fit(where: list[np.ndarray], values: np.ndarray, degrees: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Fit a Chebyshev polynomial in as many variables as there are degrees; give it and its residuals."""
    vander = {2: chebyshev.chebvander2d, 3: chebyshev.chebvander3d}[len(degrees)]
    design = vander(*where, degrees)
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    shape = tuple(degree + 1 for degree in degrees)
    return coefficients.reshape(shape), values - design @ coefficients


def fit_geometry(wcs, shape: tuple[int, int], name: str) -> SlitGeometry:
    """Sample the gwcs of a slit and fit the polynomials.

    Parameters
    ----------
    wcs : gwcs.wcs.WCS
        With the frames ``detector``, ``slit_frame`` and ``world``, as jwst writes them.
    shape : tuple of int
        ``(n_y, n_x)`` of the slit's arrays.
    name : str
        What errors call the slit.

    Returns
    -------
    SlitGeometry

    Raises
    ------
    msa3d.errors.UnlitSlitError
        If the WCS is defined in hardly any column.
    msa3d.errors.ProductError
        If no such polynomial describes it.
    """
    lit = _lit_columns(wcs, shape, name)
    for degrees in _DETECTOR_DEGREES:
        samples = _SAMPLES_X[degrees is not _DETECTOR_DEGREES[0]]
        domain, along, spectral, missed = _fit_detector(*_sample(wcs, shape, lit, samples), shape, degrees)
        # More coefficients than every second column could carry would follow anything.
        if max(missed) <= _MOST_RESIDUAL_PIXEL or np.ptp(lit) < 2 * (degrees[0] + 8):
            break
    to_world = wcs.get_transform("slit_frame", "world")
    grid = np.meshgrid((-0.5, 0.0, 0.5), np.linspace(*domain[2], 9), np.linspace(*domain[3], 9))
    x_slit, y_grid, wave_grid = (item.ravel() for item in grid)
    ra, dec, *_ = to_world(x_slit, y_grid, wave_grid * 1e-6)
    ra0, dec0 = float(ra[ra.size // 2]), float(dec[dec.size // 2])
    in_slit = [2.0 * x_slit, _scaled(y_grid, domain[2]), _scaled(wave_grid, domain[3])]
    sky = [_fit(in_slit, offset, _SKY_DEGREES) for offset in tangent_offsets(ra, dec, ra0, dec0)]
    residuals = np.array([*missed, max(np.abs(left).max() for _, left in sky)])
    if residuals[:2].max() > _MOST_RESIDUAL_PIXEL or residuals[2] > _MOST_RESIDUAL_ARCSEC:
        raise ProductError(
            f"{name}: polynomials miss its WCS by {residuals[:2].max():.1e} pixels and {residuals[2]:.1e} arcsec: "
            "it is not that of a NIRSpec slit"
        )
    return SlitGeometry(ra0, dec0, domain, along, spectral, sky[0][0], sky[1][0], residuals)


def _lit_columns(wcs, shape: tuple[int, int], name: str) -> np.ndarray:
    """First and last column where the WCS is defined: a slit may light a narrow stretch of a detector."""
    ny, nx = shape
    columns = np.arange(nx, dtype=float)
    where = np.meshgrid(columns, np.arange(0, ny, 4.0))
    _, y_slit, wave = wcs.get_transform("detector", "slit_frame")(*(item.ravel() for item in where))
    lit = (np.isfinite(y_slit) & np.isfinite(wave)).reshape(-1, nx).any(axis=0)
    if lit.sum() < MIN_COLUMNS:
        raise UnlitSlitError(f"{name}: it lights {lit.sum()} columns of the detector, too few for a spectrum")
    return columns[lit][[0, -1]]


def _sample(wcs, shape: tuple[int, int], lit: np.ndarray, samples: int) -> tuple[np.ndarray, ...]:
    """Evaluate the WCS in some columns where it is defined: x, y, y_slit (openings), wavelength (um)."""
    x = np.unique(np.rint(np.linspace(*lit, samples)))
    x, y = (item.ravel() for item in np.meshgrid(x, np.arange(shape[0], dtype=float)))
    _, y_slit, wave = wcs.get_transform("detector", "slit_frame")(x, y)
    good = np.isfinite(y_slit) & np.isfinite(wave)
    return x[good], y[good], y_slit[good], wave[good] * 1e6


def _fit_detector(x, y, y_slit, wave, shape: tuple[int, int], degrees: tuple[int, int]) -> tuple:
    """Fit both polynomials of a pixel: domain, coefficients, and the largest residuals in pixels."""
    ends = [(item.min(), item.max()) for item in (x, y_slit, wave)]
    domain = np.array([ends[0], (-0.5, shape[0] - 0.5), *ends[1:]])
    where = [_scaled(x, domain[0]), _scaled(y, domain[1])]
    along, along_left = _fit(where, y_slit, degrees)
    spectral, spectral_left = _fit(where, wave, degrees)
    missed = (
        np.abs(along_left).max() / (np.ptp(y_slit) / np.ptp(y)),
        np.abs(spectral_left).max() / (np.ptp(wave) / np.ptp(x)),
    )
    return domain, along, spectral, missed


def geometry_table(geometries: dict[int, SlitGeometry]) -> fits.BinTableHDU:
    """Write the geometry of a file's slits as a table.

    Parameters
    ----------
    geometries : dict of int to SlitGeometry
        By EXTVER of the slit's SCI.

    Returns
    -------
    astropy.io.fits.BinTableHDU
        Named `GEOMETRY`, a row a slit.
    """
    table = Table({"extver": np.array(list(geometries), dtype=np.int16)})
    most = max((len(item.wave) for item in geometries.values()), default=0)
    for name in SlitGeometry.__dataclass_fields__:
        values = [np.asarray(getattr(item, name)) for item in geometries.values()]
        if name in ("y_slit", "wave"):
            values = [np.pad(value, ((0, most - len(value)), (0, 0))) for value in values]
        table[name] = np.array(values)
    return fits.BinTableHDU(table, name=GEOMETRY)


def read_geometries(path: str | Path) -> dict[int, SlitGeometry]:
    """Read the geometry of all slits of a calibrated file.

    Parameters
    ----------
    path : str or pathlib.Path
        ``cal`` file of jwst, or what post-processing made of it.

    Returns
    -------
    dict of int to SlitGeometry
        By EXTVER of the slit's SCI. Slits that light hardly any column of the detector are left out; the log says
        which.

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing, truncated or without a WCS.
    """
    path = Path(path)
    with readable(path), fits.open(path, memmap=False) as hdus:
        if GEOMETRY in hdus:
            return _from_table(hdus[GEOMETRY].data)
        detector = hdus[0].header.get("DETECTOR", "")
        slits = {hdu.ver: (hdu.shape, hdu.header.get("SOURCEID")) for hdu in hdus if hdu.name == "SCI"}
        tree = io.BytesIO(hdus["ASDF"].data.tobytes())
    with _open_tree(tree, path) as found:
        wcs = ((version, found["slits"][version - 1]["meta"]["wcs"], *slit) for version, slit in slits.items())
        return fit_geometries(wcs, str(path), detector)


@contextmanager
def _open_tree(tree: io.BytesIO, path: Path) -> Iterator[Any]:
    """Open an ASDF extension without the checks of ``jwst.datamodels.open``, which cost several times as much."""
    # Asked for once, the extensions of asdf stay in the configuration that each context copies; otherwise every
    # context looks them up anew among all installed packages, which takes longer than to read the file.
    defaults = asdf.get_config()
    _ = defaults.extensions, defaults.resource_manager
    with asdf.config_context() as config, readable(path):
        config.validate_on_read = config.legacy_fill_schema_defaults = False
        # Tables inside a gwcs are read when first used, hence everything while the file is open.
        with asdf.open(tree) as asdf_file:
            yield asdf_file.tree


_ANGLES = {"angle", "angles", "lon", "lat", "lon_pole", "phi", "theta", "psi"}
"""Parameters that astropy keeps in radians and writes in degrees."""


@dataclass(frozen=True, eq=False)
class WcsAsWritten:
    """A gwcs in memory that gives the numbers which it will give when it has been read from its file.

    Angles are kept in radians and written in degrees, which may change their last digit.

    Attributes
    ----------
    wcs : gwcs.wcs.WCS
        It is not changed.
    """

    wcs: Any

    @property
    def available_frames(self) -> list[str]:
        """Names of its frames."""
        return self.wcs.available_frames

    def get_transform(self, first: str, last: str) -> Model:
        """Transform from one frame to another."""
        return _as_written(self.wcs.get_transform(first, last))


def _as_written(model: Model) -> Model:
    """The same model, its angles rounded as they are when written."""
    if isinstance(model, CompoundModel):
        parts = [_as_written(part) if isinstance(part, Model) else part for part in (model.left, model.right)]
        if parts[0] is model.left and parts[1] is model.right:
            return model
        changed = CompoundModel(model.op, *parts)
        # Younger versions of jwst fix inputs by the names that they were given.
        changed.inputs, changed.outputs = model.inputs, model.outputs
        return changed
    if not _ANGLES.intersection(model.param_names):
        return model
    model = model.copy()
    for name in model.param_names:
        setattr(model, name, getattr(model, name).value)
    return model


def fit_geometries(
    slits: Iterable[tuple[int, Any, tuple[int, int], int]], name: str, detector: str
) -> dict[int, SlitGeometry]:
    """Fit the geometry of all slits of a calibrated file.

    Parameters
    ----------
    slits : iterable of tuple
        EXTVER, gwcs, shape ``(n_y, n_x)`` and source id of each slit.
    name, detector : str
        What errors call the file, and its detector.

    Returns
    -------
    dict of int to SlitGeometry
        By EXTVER. Slits that light hardly any column of the detector are left out; the log says which.

    Raises
    ------
    msa3d.errors.ProductError
        If no such polynomial describes a WCS.
    """
    found = {}
    for version, wcs, shape, source in slits:
        try:
            found[version] = fit_geometry(wcs, shape, f"{name}, slit {version} (source {source}, {detector})")
        except UnlitSlitError as error:
            log.warning("%s; it is left out", error)
    return found


def _from_table(rows: fits.FITS_rec) -> dict[int, SlitGeometry]:
    names = SlitGeometry.__dataclass_fields__
    return {int(row["extver"]): SlitGeometry(*(_native(row[name]) for name in names)) for row in rows}


def _native(value):
    """Numbers in the machine's byte order."""
    return float(value) if np.ndim(value) == 0 else np.array(value, dtype=float)


SLITGEOM = "SLITGEOM"
"""Extension of a post-processed ``s2d``: a row of numbers that its WCS gave."""


@dataclass(frozen=True, eq=False)
class RectifiedGeometry:
    """What the WCS of an ``s2d`` file says, in plain numbers.

    Attributes
    ----------
    wave_um : numpy.ndarray, shape (nx,)
        Wavelength of each column in the first row, um.
    ends : numpy.ndarray, shape (2, 2)
        Sky position (ra, dec), deg, of the first and of the last row, at the middle column.
    last : numpy.ndarray, shape (2, 2)
        Sky position (ra, dec), deg, of the last row but one and of the last row, at column 0.
    along : numpy.ndarray, shape (2,)
        Position along the slit of the first and of the last row, in openings of a shutter from the middle of the
        primary one; NaN where the WCS has no frame of the slit. Rows between are evenly spaced.
    """

    wave_um: np.ndarray
    ends: np.ndarray
    last: np.ndarray
    along: np.ndarray = field(default_factory=lambda: np.full(2, np.nan))

    @property
    def native_pixel_arcsec(self) -> float:
        """Size of a native pixel along the slit, arcsec, rounded to 5 decimals as published.

        It is the distance on the sky between the pixels (row -2, column 0) and (row -1, column 0).
        """
        first, second = SkyCoord(self.last * u.deg, frame="icrs")
        return round(float(first.separation(second).arcsecond), 5)


def read_rectified(path: str | Path) -> RectifiedGeometry:
    """Read what the WCS of an ``s2d`` file says: from the table `SLITGEOM`, or from the gwcs where there is none.

    Raises
    ------
    msa3d.errors.ProductError
        If the file is missing, holds no WCS, or its wavelengths do not increase.
    """
    path = Path(path)
    with readable(path), fits.open(path, memmap=False) as hdus:
        return rectified_geometry(hdus, path)


def rectified_geometry(hdus: fits.HDUList, path: Path) -> RectifiedGeometry:
    """Geometry of a rectified spectrum in an open file; as `read_rectified`."""
    if SLITGEOM in hdus:
        row = hdus[SLITGEOM].data[0]
        # In the machine's byte order, as the gwcs gives them.
        return RectifiedGeometry(*(np.array(row[name], dtype=float) for name in RectifiedGeometry.__dataclass_fields__))
    shape, detector = hdus["SCI"].shape, hdus[0].header.get("DETECTOR", "")
    with _open_tree(io.BytesIO(hdus["ASDF"].data.tobytes()), path) as tree:
        return evaluate_rectified(tree["meta"]["wcs"], shape, f"{path} ({detector})")


def evaluate_rectified(wcs, shape: tuple[int, int], name: str) -> RectifiedGeometry:
    """Evaluate the gwcs of a rectified spectrum, without its bounding box, as published.

    Parameters
    ----------
    wcs : gwcs.wcs.WCS
        With the frames ``detector`` and ``world``.
    shape : tuple of int
        ``(n_y, n_x)`` of the spectrum.
    name : str
        What errors call it.

    Returns
    -------
    RectifiedGeometry

    Raises
    ------
    msa3d.errors.UnlitSlitError
        If it has less than `MIN_COLUMNS` columns.
    msa3d.errors.ProductError
        If its wavelengths do not increase.
    """
    ny, nx = shape
    to_world = wcs.get_transform("detector", "world")
    _, _, wave_um = to_world(np.arange(nx), np.zeros(nx, dtype=int))
    middle, ends_y = np.full(2, nx // 2), np.array([0, ny - 1])
    ends = to_world(middle, ends_y)
    last = to_world(np.zeros(2, dtype=int), np.array([ny - 2, ny - 1]))
    along = np.full(2, np.nan)
    if "slit_frame" in wcs.available_frames:
        along = np.array(wcs.get_transform("detector", "slit_frame")(middle, ends_y)[1], dtype=float)
    wave_um = np.array(wave_um, dtype=float)
    if np.isfinite(wave_um).sum() < MIN_COLUMNS:
        raise UnlitSlitError(f"{name}: it has {np.isfinite(wave_um).sum()} columns of a spectrum, too few")
    if not np.all(np.diff(wave_um) > 0):
        raise ProductError(f"{name}: the wavelengths of its WCS do not increase along the first row")
    return RectifiedGeometry(wave_um, np.transpose(ends[:2]).astype(float), np.transpose(last[:2]).astype(float), along)


def rectified_table(geometry: RectifiedGeometry) -> fits.BinTableHDU:
    """Write a geometry as a table of one row, named `SLITGEOM`, in float64: nothing is rounded."""
    names = RectifiedGeometry.__dataclass_fields__
    table = Table({name: np.asarray(getattr(geometry, name), dtype=float)[None] for name in names})
    table["wave_um"].unit = "um"
    table["ends"].unit = table["last"].unit = "deg"
    return fits.BinTableHDU(table, name=SLITGEOM)
