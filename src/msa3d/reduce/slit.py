"""A calibrated slit: its geometry on the sky and its arrays.

Where the pixels of a calibrated slit look: its own gwcs, sampled once and written down as polynomials.

Opening the WCS of a file of many slits costs a second and more, and every source needs the WCS of every
exposure. So each file's WCS is sampled once, by post-processing, and fitted with Chebyshev polynomials that
go into a table of the product; the largest residuals of the fit stand beside them. A file without the table
is read from its gwcs, to the same polynomials.

Pixels ``(x, y)`` count from 0 at the centre of the slit's first pixel, ``x`` along dispersion. Inside the slit
``x_slit`` and ``y_slit`` are in openings of a shutter, from the middle of the primary one.

One slit of a calibrated file in memory: all its planes, changed alike, and put back as they came.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asdf
import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.polynomial import chebyshev

from msa3d.errors import ProductError, UnlitSlitError
from msa3d.observation.reading import readable
from msa3d.observation.sky import DO_NOT_USE, MIN_COLUMNS, tangent_offsets
from msa3d.observation.source import is_background
from msa3d.pipeline.layout import GEOMETRY

log = logging.getLogger(__name__)

PITCH_IN_OPENINGS = 1.15
"""Shutter pitch over open size across dispersion, as jwst.assign_wcs.nirspec rounds it."""

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
    found = {}
    with asdf.config_context() as config, readable(path):
        config.validate_on_read = config.legacy_fill_schema_defaults = False
        # Tables inside a gwcs are read when first used, hence everything while the file is open.
        with asdf.open(tree) as asdf_file:
            for version, (shape, source) in slits.items():
                name = f"{path}, slit {version} (source {source}, {detector})"
                try:
                    found[version] = fit_geometry(asdf_file.tree["slits"][version - 1]["meta"]["wcs"], shape, name)
                except UnlitSlitError as error:
                    log.warning("%s; it is left out", error)
    return found


def _from_table(rows: fits.FITS_rec) -> dict[int, SlitGeometry]:
    names = SlitGeometry.__dataclass_fields__
    return {int(row["extver"]): SlitGeometry(*(_native(row[name]) for name in names)) for row in rows}


def _native(value):
    """Numbers in the machine's byte order."""
    return float(value) if np.ndim(value) == 0 else np.array(value, dtype=float)


def open_ranges(shutter_state: str) -> list[tuple[float, float]]:
    """Where a slitlet is open, from SHUTSTA of jwst.

    Parameters
    ----------
    shutter_state : str
        A letter a shutter: ``1`` open, ``0`` closed, ``x`` the primary (open) one; ``1x1``.

    Returns
    -------
    list of (float, float)
        Ends of the open runs in openings from the middle of the primary shutter. The bars between the
        shutters of a run belong to it.

    Raises
    ------
    msa3d.errors.ProductError
        If it is no such string.
    """
    state = shutter_state.strip()
    if not re.fullmatch("[01]*x[01]*", state):
        raise ProductError(f"SHUTSTA = {shutter_state!r} does not say which shutters are open, as 1x1 does")
    primary = state.index("x")
    runs = [match.span() for match in re.finditer("[1x]+", state)]
    return [((a - primary) * PITCH_IN_OPENINGS - 0.5, (b - 1 - primary) * PITCH_IN_OPENINGS + 0.5) for a, b in runs]


JUMP_DET = 4
"""Flags of jwst (`stdatamodels.jwst.datamodels.dqflags`)."""

VARIANCES = ("VAR_POISSON", "VAR_RNOISE", "VAR_FLAT")
REQUIRED = ("SCI", "ERR", "DQ", "WAVELENGTH", "VAR_POISSON", "VAR_RNOISE")


@dataclass(eq=False)
class CalSlit:
    """Planes and geometry of one slit; the planes are changed in place.

    Attributes
    ----------
    version : int
        EXTVER of its extensions.
    header : astropy.io.fits.Header
        Of SCI.
    data, err : numpy.ndarray of float64, shape (ny, nx)
        MJy/sr; NaN where not known.
    dq : numpy.ndarray of uint32, shape (ny, nx)
        jwst flags.
    variances : dict of str to numpy.ndarray, each (ny, nx)
        ``VAR_POISSON``, ``VAR_RNOISE`` and, where it is there, ``VAR_FLAT``.
    wave_um : numpy.ndarray, shape (ny, nx)
        Wavelength of every pixel; NaN outside the slit.
    y_slit : numpy.ndarray, shape (ny, nx)
        Position along the slit in openings, from the middle of the primary shutter.
    state : str
        SHUTSTA: a letter a shutter.
    """

    version: int
    header: fits.Header
    data: np.ndarray
    err: np.ndarray
    dq: np.ndarray
    variances: dict[str, np.ndarray]
    wave_um: np.ndarray
    y_slit: np.ndarray
    state: str

    @property
    def source_id(self) -> int:
        """The source, as in the metafile copy."""
        return int(self.header["SOURCEID"])

    @property
    def is_empty(self) -> bool:
        """Whether no source is known in it: all its shutters are background."""
        return is_background(self.header)

    @property
    def n_open(self) -> int:
        """Number of open shutters."""
        return len(self.state) - self.state.count("0")

    @property
    def usable(self) -> np.ndarray:
        """Pixels with a value and without DO_NOT_USE."""
        return np.isfinite(self.data) & ((self.dq & DO_NOT_USE) == 0)

    @property
    def from_middle(self) -> np.ndarray:
        """Position along the slit in openings, from the middle of the slitlet."""
        middle = (len(self.state) - 1) / 2 - self.state.index("x")
        return self.y_slit - middle * PITCH_IN_OPENINGS

    def inside(self, margin: float = 0.0) -> np.ndarray:
        """Pixels whose middle lies in the open area, ``margin`` openings or more from its ends."""
        found = np.zeros(self.data.shape, dtype=bool)
        for low, high in open_ranges(self.state):
            found |= (self.y_slit >= low + margin) & (self.y_slit <= high - margin)
        return found

    def divide(self, transmission: np.ndarray, where: np.ndarray) -> None:
        """Divide by a transmission: values and errors by it, variances by its square.

        Parameters
        ----------
        transmission : numpy.ndarray, shape (ny, nx)
            Greater than 0 where it is used.
        where : numpy.ndarray of bool, shape (ny, nx)
            All other pixels stay as they are.
        """
        factor = transmission[where]
        self.data[where] /= factor
        self.err[where] /= factor
        for plane in self.variances.values():
            plane[where] /= factor**2

    def subtract(self, value: np.ndarray, variance: np.ndarray, where: np.ndarray) -> None:
        """Subtract a background, whose variance goes to ERR and to the variance of the photons."""
        self.data[where] -= value[where]
        self.err[where] = np.sqrt(self.err[where] ** 2 + variance[where])
        self.variances["VAR_POISSON"][where] += variance[where]

    def flag(self, where: np.ndarray, bits: int = DO_NOT_USE) -> int:
        """Set flags; give the number of pixels that could be used before and cannot any more."""
        before = np.count_nonzero(self.usable)
        self.dq[where] |= np.uint32(bits)
        return int(before - np.count_nonzero(self.usable))

    def rebuild_errors(self) -> int:
        """Rebuild ERR from photons and read noise where it is NaN and they are not; give the number of pixels."""
        variance = self.variances["VAR_POISSON"] + self.variances["VAR_RNOISE"]
        where = np.isnan(self.err) & self.usable & (variance > 0)
        self.err[where] = np.sqrt(variance[where])
        return int(np.count_nonzero(where))

    def store(self, hdus: fits.HDUList) -> None:
        """Put the planes back where they came from, as float32 like jwst's own."""
        planes = {"SCI": self.data, "ERR": self.err, **self.variances}
        for name, plane in planes.items():
            hdus[name, self.version].data = plane.astype(np.float32)
        hdus["DQ", self.version].data = self.dq


def slits_of(hdus: fits.HDUList, geometries: dict[int, SlitGeometry], name: str) -> Iterator[CalSlit]:
    """Take the slits of an open calibrated file one by one.

    Parameters
    ----------
    hdus : astropy.io.fits.HDUList
        The file.
    geometries : dict of int to SlitGeometry
        By EXTVER (`msa3d.reduce.slit.read_geometries`).
    name : str
        What errors call the file.

    Yields
    ------
    CalSlit

    Raises
    ------
    ProductError
        If an extension is missing, or the unit is not MJy/sr.
    """
    for version in sorted(geometries):
        missing = [extension for extension in REQUIRED if (extension, version) not in hdus]
        if missing:
            raise ProductError(f"{name}: slit {version} has no {', '.join(missing)}; run `msa3d process` again")
        header = hdus["SCI", version].header
        if header.get("BUNIT", "").strip() != "MJy/sr":
            raise ProductError(
                f"{name}: BUNIT of slit {version} is {header.get('BUNIT')!r}, not MJy/sr: skip srctype in "
                "process.spec2, so that photom calibrates surface brightness"
            )
        data = np.array(hdus["SCI", version].data, dtype=float)
        present = [extension for extension in VARIANCES if (extension, version) in hdus]
        state = str(header.get("SHUTSTA", "")).strip()
        open_ranges(state)  # Says what is wrong with it.
        y_slit, _ = geometries[version].on_detector(*(np.arange(n, dtype=float) for n in data.shape[::-1]))
        yield CalSlit(
            version=version,
            header=header,
            data=data,
            err=np.array(hdus["ERR", version].data, dtype=float),
            dq=np.array(hdus["DQ", version].data, dtype=np.uint32),
            variances={key: np.array(hdus[key, version].data, dtype=float) for key in present},
            wave_um=np.array(hdus["WAVELENGTH", version].data, dtype=float),
            y_slit=y_slit,
            state=state,
        )
