"""One slit of a calibrated file in memory: all its planes, changed alike, and put back as they came.

Inside the slit, positions are in openings of a shutter, from the middle of the primary one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from msa3d.errors import ProductError
from msa3d.observation.sky import DO_NOT_USE
from msa3d.observation.source import is_background
from msa3d.pipeline.layout import POST_SUFFIX, Layout
from msa3d.reduce.geometry import SlitGeometry

PITCH_IN_OPENINGS = 1.15
"""Shutter pitch over open size across dispersion, as jwst.assign_wcs.nirspec rounds it."""


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


def cal_files(layout: Layout, activity: str) -> list[Path]:
    """Calibrated files that jwst wrote of one exposure, sorted by detector."""
    name = re.compile(r"jw.*_nrs[12]_cal\.fits")
    return sorted(path for path in layout.process_dir(activity).glob("*_cal.fits") if name.fullmatch(path.name))


def product_of(cal: Path) -> Path:
    """Path of what post-processing makes of a calibrated file."""
    return cal.with_name(f"{cal.stem}{POST_SUFFIX}.fits")
