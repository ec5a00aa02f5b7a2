"""A small cube whose every voxel is known, written as the drizzle builder writes its cubes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from msa3d.cube.cubewrite import Footprint, science_header, write_cube
from msa3d.cube.operator import Planes
from msa3d.cube.skygrid import SkyGrid
from msa3d.provenance import stamp

#: Turned by 35 degrees and with three different axes, so that nothing can be mistaken for anything else.
GRID = SkyGrid(215.05, 52.938, 35.0, 0.1, 1.3, 2.4e-4, (30, 17, 13))
LINE_UM = 1.3036
SOURCE_ID = 8512


def planes(grid: SkyGrid = GRID) -> Planes:
    """A round blob with a line, off the middle; voxels without data: a corner, an edge of wavelengths, one within."""
    wave = grid.wave_um[:, None, None]
    _, y, x = np.indices(grid.shape)
    blob = np.exp(-0.5 * ((x - 7.5) ** 2 + (y - 9.25) ** 2) / 1.8**2)
    sci = blob * (0.5 + 4.0 * np.exp(-0.5 * ((wave - LINE_UM) / 4e-4) ** 2)) + 1e-3 * x + 1e-4 * y
    err = 0.02 + 1e-3 * y + 1e-4 * np.arange(grid.shape[0])[:, None, None]
    for plane in (sci, err):
        plane[:, :3, :2] = np.nan
        plane[:2, :, -1] = np.nan
        plane[12, 8, 6] = np.nan
    full = np.isfinite(sci)
    return Planes(sci, err, np.where(full, 2.0, 0.0), np.where(full, 1200.0, 0.0), full.astype(np.int16) * 4)


def correlation() -> np.ndarray:
    """Correlation coefficients that noise can have: those of white noise smoothed along all axes, lags (2, 4, 4)."""

    def along(kernel: list[float], reach: int) -> np.ndarray:
        product = np.convolve(kernel, kernel[::-1])
        return np.pad(product / product.max(), reach - len(kernel) + 1)

    wave, y, x = along([1.0, 0.4], 2), along([0.7, 1.0, 0.7], 4), along([0.5, 1.0, 0.8], 4)
    return wave[:, None, None] * y[:, None] * x


def primary_header() -> fits.Header:
    header = fits.Header()
    header["TELESCOP"], header["INSTRUME"], header["EXP_TYPE"] = "JWST", "NIRSPEC", "NRS_MSASPEC"
    header["FILTER"], header["GRATING"], header["DATE-OBS"] = "F100LP", "G140H", "2023-03-29"
    header["SOURCEID"] = (SOURCE_ID, "source in the MSA metafile")
    header["MSA3DBLD"] = "drizzle"
    stamp(header, simulated=True, step="cubebuild")
    return header


def write(path: Path, grid: SkyGrid = GRID) -> Path:
    """Write the cube through the builder's own writer."""
    footprint = Footprint(0.1986, 0.1045, -13.67, 1.0, 1.0, 2.36e-4)
    exposures = Table({"file": ["a_cal.fits", "b_cal.fits"], "rejected": [1, 0]})
    header = science_header(grid, footprint, "BARYCENT")
    write_cube(path, primary_header(), header, planes(grid), correlation(), exposures)
    return path
