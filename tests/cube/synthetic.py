"""2-D spectra like those that jwst's resample_spec writes, small, of a sky that is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import astropy.units as u
import gwcs.coordinate_frames as cf
import numpy as np
from astropy import coordinates as coord
from astropy.io import fits
from astropy.modeling.models import (
    AffineTransformation2D,
    Const1D,
    Identity,
    Linear1D,
    Mapping,
    Pix2Sky_TAN,
    RotateNative2Celestial,
    Scale,
    Tabular1D,
)
from gwcs import WCS
from stdatamodels.jwst import datamodels

from msa3d.cube.grid import SlitGeometry, SlitSpectrum
from msa3d.layout import Layout

GAP_UM = 0.02


def wavelengths(nx: int = 240, start: float = 1.0, step: float = 2.35e-4) -> np.ndarray:
    """Wavelengths with slightly uneven steps and the jump between the detectors in the middle."""
    wave = start + step * np.arange(nx) * (1 + 0.02 * np.arange(nx) / nx)
    wave[nx // 2 :] += GAP_UM
    return wave


def slit_wcs(ra: float, dec: float, angle_deg: float, ny: int, wave_um: np.ndarray, pixel: float, flip=1) -> WCS:
    """WCS with the frames of jwst: the slit's centre at (ra, dec), y along the position angle given."""
    slit = Linear1D(slope=flip * pixel, intercept=-flip * pixel * (ny - 1) / 2)
    nodes = np.arange(wave_um.size, dtype=float)
    table = Tabular1D(points=nodes, lookup_table=wave_um, bounds_error=False, fill_value=np.nan)
    det2slit = Mapping((0, 1, 0)) | Const1D(0) & slit & table
    angle = np.radians(angle_deg)
    # (across, along the slit) in arcsec -> (west-positive native x is -east) tangent plane in deg
    matrix = np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    tangent = AffineTransformation2D(matrix=matrix) | Scale(1 / 3600) & Scale(1 / 3600)
    sky = tangent | Pix2Sky_TAN() | RotateNative2Celestial(ra, dec, 180)
    detector = cf.Frame2D(name="detector", axes_order=(0, 1))
    spatial = cf.Frame2D(name="slit_spatial", axes_order=(0, 1), unit=("", ""), axes_names=("x", "y"))
    spectral = cf.SpectralFrame(name="spectral", axes_order=(2,), unit=(u.micron,))
    frame = cf.CompositeFrame([spatial, spectral], name="slit_frame")
    icrs = cf.CelestialFrame(name="sky", axes_order=(0, 1), reference_frame=coord.ICRS())
    world = cf.CompositeFrame([icrs, spectral], name="world")
    wcs = WCS([(detector, det2slit), (frame, sky & Identity(1)), (world, None)])
    wcs.bounding_box = ((-0.5, wave_um.size - 0.5), (-0.5, ny - 0.5))
    wcs.array_shape = (ny, wave_um.size)
    return wcs


def write_s2d(path: Path, data: np.ndarray, wcs: WCS, source_id: int, simulated: bool = True) -> None:
    """Write an s2d file through stdatamodels."""
    with datamodels.SlitModel(data.shape) as model:
        model.data = data.astype(np.float32)
        model.err = np.full(data.shape, 0.01, np.float32)
        model.wht = np.ones(data.shape, np.float32)
        model.con = np.ones((1, *data.shape), np.int32)
        model.var_rnoise = np.full(data.shape, 1e-4, np.float32)
        model.meta.wcs = wcs
        model.meta.bunit_data = "MJy/sr"
        model.meta.instrument.name = "NIRSPEC"
        model.meta.instrument.filter = "F100LP"
        model.meta.instrument.grating = "G140H"
        model.meta.instrument.detector = "NRS1"
        model.meta.exposure.type = "NRS_MSASPEC"
        model.meta.observation.date = "2023-03-29"
        model.meta.observation.time = "00:00:00"
        model.source_id = source_id
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(str(path))
    if simulated:
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["MSA3DSIM"] = True


@dataclass
class Stepping:
    """A slit-stepping observation of one source, already rectified.

    The slit lies along position angle `angle_deg`. Row k of the pattern puts the slit k dithers further along it
    (towards increasing y, times `row_sense`), column c so many steps across it (times `column_sense`).
    """

    rows: int = 3
    columns: int = 3
    ny: int = 14
    pixel: float = 0.10091
    ra: float = 215.05
    dec: float = 52.938
    angle_deg: float = 35.0
    row_step: float = 0.075
    column_step: float = 0.2
    column_sense: int = 1
    flip: int = 1
    wave_um: np.ndarray = field(default_factory=wavelengths)
    source_id: int = 8512
    jitter: float = 0.0

    def centre(self, row: int, column: int) -> tuple[float, float]:
        """East and north of the slit's centre from the pattern's centre, arcsec."""
        along = self.flip * (row - (self.rows - 1) / 2) * self.row_step
        across = self.column_sense * (column - (self.columns - 1) / 2) * self.column_step
        rng = np.random.default_rng(row * 100 + column)
        along, across = np.array([along, across]) + self.jitter * rng.normal(size=2)
        angle = np.radians(self.angle_deg)
        east = along * np.sin(angle) + across * np.cos(angle)
        north = along * np.cos(angle) - across * np.sin(angle)
        return east, north

    def wcs(self, row: int, column: int) -> WCS:
        east, north = self.centre(row, column)
        ra = self.ra + east / 3600 / np.cos(np.radians(self.dec))
        return slit_wcs(ra, self.dec + north / 3600, self.angle_deg, self.ny, self.wave_um, self.pixel, self.flip)

    def image(self, row: int, column: int, sky) -> np.ndarray:
        """Sample a function ``sky(ra, dec, wave_um)`` at the pixels' centres."""
        y, x = np.mgrid[: self.ny, : self.wave_um.size]
        return sky(*self.wcs(row, column)(x, y, with_bounding_box=False))

    def geometry(self, row: int, column: int) -> SlitGeometry:
        """What `msa3d.cube.grid.read_geometry` finds in the file."""
        wcs, nx = self.wcs(row, column).get_transform("detector", "world"), self.wave_um.size
        ends = wcs(np.full(2, nx // 2), np.array([0, self.ny - 1]))
        last = wcs(np.zeros(2), np.array([self.ny - 2, self.ny - 1]))
        return SlitGeometry(self.wave_um, np.transpose(ends[:2]), np.transpose(last[:2]))

    def spectra(self, sky) -> dict[tuple[int, int], SlitSpectrum]:
        """All exposures in observing order as if read from their files, without writing any."""
        return {
            (row, column): SlitSpectrum(
                Path(f"exp_{activity}_nobar/newoutput_s{self.source_id:05d}_s2d.fits"),
                self.image(row, column, sky).astype(np.float32).astype(float),
                self.geometry(row, column),
                fits.Header(),
                fits.Header(),
            )
            for activity, (row, column) in zip(self.activities(), self.places(), strict=True)
        }

    def places(self) -> list[tuple[int, int]]:
        places = []
        for row in range(self.rows):
            columns = range(self.columns) if row % 2 == 0 else reversed(range(self.columns))
            places += [(row, column) for column in columns]
        return places

    def activities(self) -> list[str]:
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"
        return [f"031{digits[i // 36]}{digits[i % 36]}" for i in range(1, self.rows * self.columns + 1)]

    def write(self, layout: Layout, sky, suffix: str = "", leave_out=()) -> dict[tuple[int, int], Path]:
        """Write all exposures where a run has them; return {(row, column): path} in observing order."""
        paths = {}
        for activity, place in zip(self.activities(), self.places(), strict=True):
            path = layout.s2d(activity, self.source_id, suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            if place in leave_out:
                continue
            write_s2d(path, self.image(*place, sky), self.wcs(*place), self.source_id)
            paths[place] = path
        return paths


def blob(ra: float, dec: float, fwhm_arcsec: float = 0.25, line_um: float | None = None):
    """A round Gaussian source at a sky position, its spectrum flat or one line."""

    def sky(at_ra, at_dec, wave_um):
        east = (at_ra - ra) * 3600 * np.cos(np.radians(dec))
        north = (at_dec - dec) * 3600
        sigma = fwhm_arcsec / 2.3548
        value = np.exp(-0.5 * (east**2 + north**2) / sigma**2)
        if line_um is not None:
            value = value * np.exp(-0.5 * ((wave_um - line_um) / 6e-4) ** 2)
        return value

    return sky
