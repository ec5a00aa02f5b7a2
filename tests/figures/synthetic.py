"""A small galaxy of known line flux and velocity, as cube files in the layout of the package."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from scipy.special import erf

from msa3d.constants import C_KMS, LINES
from msa3d.cube import Cube
from msa3d.dataset import Dataset
from msa3d.layout import Layout
from msa3d.provenance import mark_simulated
from msa3d.science.lines import NII_RATIO

REDSHIFT = 1.104
RA, DEC = 215.0497806, 52.9380795
STEP_UM = 2.35e-4


def celestial(ny: int, nx: int, scale: tuple[float, float], angle_deg: float) -> WCS:
    """A tangent plane centred on the galaxy; scale along x and y in arcsec, rotated."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [RA, DEC]
    wcs.wcs.crpix = [(nx + 1) / 2, (ny + 1) / 2]
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    wcs.wcs.cd = np.array([[-scale[0] * cos, scale[1] * sin], [scale[0] * sin, scale[1] * cos]]) / 3600
    return wcs


def galaxy(wave_um: np.ndarray, east: np.ndarray, north: np.ndarray) -> dict[str, np.ndarray]:
    """Noiseless cube (MJy/sr) and the maps it was made from."""
    radius = np.hypot(east, north)
    velocity = 60.0 * np.tanh(east / 0.3)
    amplitude = 2.5e-3 * np.exp(-radius / 0.4)
    width = np.diff(wave_um).mean()
    edges = np.append(wave_um - width / 2, wave_um[-1] + width / 2)
    cube = np.zeros((wave_um.size, *east.shape)) + 0.4 * np.exp(-radius / 0.5)
    strengths = {"Ha": 1.0, "[NII]6583": 0.3, "[NII]6548": 0.3 / NII_RATIO, "[OIII]5007": 0.6, "Hb": 0.3}
    for name, strength in strengths.items():
        centre = LINES[name] * (1 + REDSHIFT) * (1 + velocity / C_KMS)
        sigma = centre * 65.0 / C_KMS
        cumulative = 0.5 * erf((edges[:, None, None] - centre) / (np.sqrt(2) * sigma))
        cube += strength * amplitude * np.diff(cumulative, axis=0) / width
    return {"cube": cube, "velocity": velocity, "amplitude": amplitude}


def cube_hdus(wcs: WCS, wave_um: np.ndarray, data: np.ndarray, *, simulated: bool) -> fits.HDUList:
    """FITS with SCI [wave, y, x] and a wavelength axis in um."""
    header = wcs.to_header()
    header.update({"WCSAXES": 3, "CTYPE3": "WAVE", "CUNIT3": "um", "CRPIX3": 1.0, "CRVAL3": wave_um[0]})
    header["CDELT3"] = wave_um[1] - wave_um[0]
    header["BUNIT"] = "MJy/sr"
    primary = fits.PrimaryHDU()
    if simulated:
        mark_simulated(primary.header)
    return fits.HDUList([primary, fits.ImageHDU(data.astype(np.float32), header, name="SCI")])


def write_run(root: Path, source_id: int = 8512, *, noise: float = 0.05, simulated: bool = True) -> Layout:
    """Write cube, columns and truth of the galaxy under a root."""
    layout = Layout(root)
    wave = np.arange(1.0, 1.45, STEP_UM)
    ny, nx = 40, 9
    wcs = celestial(ny, nx, (0.2, 0.05), 35.0)
    y, x = np.mgrid[0:ny, 0:nx]
    world = wcs.pixel_to_world_values(x, y)
    east = (world[0] - RA) * np.cos(np.deg2rad(DEC)) * 3600
    north = (world[1] - DEC) * 3600
    parts = galaxy(wave, east, north)
    rng = np.random.default_rng(7)
    data = parts["cube"] + rng.normal(0, noise, parts["cube"].shape)
    data[:, :2] = 0.0
    data[:, :, 0] = np.nan
    path = layout.cube_medians(source_id)
    path.parent.mkdir(parents=True)
    for each in (path, layout.cube(source_id, Dataset.load("tiny"))):
        cube_hdus(wcs, wave, data, simulated=simulated).writeto(each)
    for column in range(nx):
        median = data[:, :, column].T
        stack = np.stack([median, median, median]) + rng.normal(0, noise, (3, *median.shape))
        for target, image in (
            (layout.column_median(source_id, column + 1), median),
            (layout.column_stack(source_id, column + 1), stack),
        ):
            fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image, name="SCI")]).writeto(target)
    fine = celestial(81, 81, (0.05, 0.05), 0.0)
    y, x = np.mgrid[0:81, 0:81]
    world = fine.pixel_to_world_values(x, y)
    truth = galaxy(wave, (world[0] - RA) * np.cos(np.deg2rad(DEC)) * 3600, (world[1] - DEC) * 3600)
    layout.truth.mkdir()
    cube_hdus(fine, wave, truth["cube"], simulated=simulated).writeto(layout.truth / f"truth_s{source_id:05d}.fits")
    return layout


def small_cube(noise: float = 0.05) -> Cube:
    """A cube of the galaxy on 21 x 17 spaxels, the lowest two rows not observed."""
    wave = np.arange(1.0, 1.45, STEP_UM)
    ny, nx = 21, 17
    wcs = celestial(ny, nx, (0.1, 0.1), 0.0)
    y, x = np.mgrid[0:ny, 0:nx]
    world = wcs.pixel_to_world_values(x, y)
    east, north = (world[0] - RA) * np.cos(np.deg2rad(DEC)) * 3600, (world[1] - DEC) * 3600
    data = galaxy(wave, east, north)["cube"] + np.random.default_rng(4).normal(0, noise, (wave.size, ny, nx))
    data[:, :2] = np.nan
    header = fits.Header({"SLITWID": 0.2, "SLITLEN": 0.1, "SLITPA": 20.0, "SLITFRAC": 1.0, "PIXFRAC": 1.0})
    planes = {"err": np.where(np.isfinite(data), noise, np.nan), "etime": np.full(data.shape, 8000.0)}
    return Cube(data, wave, wcs, 2.35e-13, True, "small", header=header, **planes)
