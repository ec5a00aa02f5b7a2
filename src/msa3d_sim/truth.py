"""What was put into a simulated observation, kept beside it: for closure tests and for nothing else.

``truth_s<id>.fits`` holds one galaxy:

==================  ==========================================================================================
extension           content
==================  ==========================================================================================
SCI                 noiseless cube convolved with the telescope's PSF, [wave, y, x], MJy/sr, means over the voxels; no
                    line-spread function, no zodiacal light
OBS_<line>          surface flux of a line convolved with the PSF of the telescope, erg/s/cm2/arcsec2
FLUX_<line>         the same before the telescope (attenuated by the galaxy's dust)
VELOCITY            line-of-sight velocity relative to the redshift, km/s
DISPERSION          intrinsic Gaussian sigma of the gas, km/s
METALLICITY         12 + log(O/H)
AV                  attenuation of the ionised gas in V, mag
SFR                 star-formation rate, Msun/yr for each kpc2 of the plane of the disc
==================  ==========================================================================================

All images have north up and east to the left, and a celestial WCS; the maps are finer than the cube.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from astropy.io import fits

from msa3d import constants
from msa3d.pipeline.products import atomic_path, mark_simulated
from msa3d_sim import spectrum
from msa3d_sim.galaxy import TangentGrid
from msa3d_sim.source import SourceModel

_WAVE_START_UM = 0.97
_WAVE_END_UM = 1.89
WAVE_STEP_UM = 0.000235
"""Step of the truth cube, the mean step of G140H."""

_CUBE_PIXEL_ARCSEC = 0.1
"""Smallest pixel of the truth cube: the finest one keeps a file below 60 MB."""

_SUBSTEPS = 5

_UNITS = {
    "VELOCITY": "km/s",
    "DISPERSION": "km/s",
    "METALLICITY": "",
    "AV": "mag",
    "SFR": "solMass/(yr kpc2)",
}
_FLUX_UNIT = "erg/(s cm2 arcsec2)"


def _celestial_header(grid: TangentGrid) -> fits.Header:
    """Return the celestial WCS keywords of a grid: axes 1 and 2, and RADESYS."""
    header = fits.Header()
    middle = (grid.n + 1) / 2.0
    step = grid.pixel_arcsec / 3600.0
    for axis, ctype, value, delta in ((1, "RA---TAN", grid.ra, -step), (2, "DEC--TAN", grid.dec, step)):
        header[f"CTYPE{axis}"] = ctype
        header[f"CUNIT{axis}"] = "deg"
        header[f"CRPIX{axis}"] = middle
        header[f"CRVAL{axis}"] = value
        header[f"CDELT{axis}"] = delta
    header["RADESYS"] = "ICRS"
    return header


def truth_cube(model: SourceModel, wave_um: np.ndarray, binning: int | None = None):
    """Sample a model on a regular cube; every voxel is the mean over its volume.

    Parameters
    ----------
    model : SourceModel
        A source convolved with the PSF of the telescope.
    wave_um : numpy.ndarray
        Evenly spaced wavelengths, um.
    binning : int, optional
        Pixels of the model in one of the cube, along either axis; must divide the grid. As many as make a pixel of
        `_CUBE_PIXEL_ARCSEC` or a little more, unless given.

    Returns
    -------
    cube : numpy.ndarray
        float32 [wave, y, x] in MJy/sr.
    grid : TangentGrid
        Its pixels.

    Raises
    ------
    ValueError
        Where the binning does not divide the grid.
    """
    binning = binning or _binning(model.grid)
    if model.grid.n % binning:
        raise ValueError(f"A grid of {model.grid.n} pixels cannot be binned by {binning}.")
    n = model.grid.n // binning
    grid = TangentGrid(model.ra, model.dec, model.grid.pixel_arcsec * binning, n)

    def binned(planes):
        return planes.reshape(-1, n, binning, n, binning).mean(axis=(2, 4), dtype=np.float32)

    continuum = binned(model.continuum).reshape(model.continuum.shape[0], -1)
    weights = _linear_weights(model.continuum_wave_um, wave_um, clamp=True)
    cube = (weights @ continuum).astype(np.float32)
    step = wave_um[1] - wave_um[0]
    substeps = (np.arange(_SUBSTEPS) - (_SUBSTEPS - 1) / 2.0) * step / _SUBSTEPS
    for line in model.lines:
        low, high = line.centre_um * (1.0 + line.velocity_kms[[0, -1]] / constants.C_KMS)
        near = np.flatnonzero((wave_um > low - step) & (wave_um < high + step))
        velocities = line.velocity_of(wave_um[near][:, None] + substeps[None, :])
        weights = _linear_weights(line.velocity_kms, velocities.ravel(), clamp=False)
        weights = weights.reshape(near.size, _SUBSTEPS, -1).mean(axis=1)
        cube[near] += (weights @ binned(line.flux).reshape(line.velocity_kms.size, -1)).astype(np.float32)
    return cube.reshape(-1, n, n), grid


def _binning(grid: TangentGrid) -> int:
    """Return the smallest divisor of the grid's size that makes pixels of `_CUBE_PIXEL_ARCSEC` or more."""
    enough = (1.0 - 1e-9) * _CUBE_PIXEL_ARCSEC / grid.pixel_arcsec
    return next(k for k in range(1, grid.n + 1) if grid.n % k == 0 and (k >= enough or k == grid.n))


def _linear_weights(nodes: np.ndarray, points: np.ndarray, *, clamp: bool) -> np.ndarray:
    """Matrix of linear interpolation between even nodes; beyond them the end value, or nothing."""
    position = (points - nodes[0]) / (nodes[1] - nodes[0])
    outside = (position < 0.0) | (position > nodes.size - 1)
    position = np.clip(position, 0.0, nodes.size - 1.000001)
    whole = position.astype(int)
    matrix = np.zeros((points.size, nodes.size))
    rows = np.arange(points.size)
    matrix[rows, whole] = 1.0 - (position - whole)
    matrix[rows, whole + 1] = position - whole
    if not clamp:
        matrix[outside] = 0.0
    return matrix


def truth_path(directory: Path, source_id: int) -> Path:
    """Return a truth file, ``truth_s<5 digits>.fits``, whether or not it exists."""
    return Path(directory) / f"truth_s{source_id:05d}.fits"


def write_truth(model: SourceModel, path: Path, *, redshift: float | None = None) -> Path:
    """Write one source's truth file, whole or not at all.

    Parameters
    ----------
    model : SourceModel
        The source convolved with the PSF of the telescope.
    path : Path
        The file; replaced if there.
    redshift : float, optional
        Kept in the header.
    """
    wave = np.arange(_WAVE_START_UM, _WAVE_END_UM + 0.5 * WAVE_STEP_UM, WAVE_STEP_UM)
    cube, grid = truth_cube(model, wave)
    primary = fits.PrimaryHDU()
    mark_simulated(primary.header)
    primary.header["SOURCEID"] = (model.source_id, "source id in the metafile")
    primary.header["RA"] = (model.ra, "[deg] ICRS, middle of the grid")
    primary.header["DEC"] = (model.dec, "[deg] ICRS, middle of the grid")
    if redshift is not None:
        primary.header["REDSHIFT"] = redshift
    primary.header["CONTENT"] = "injected truth"
    science = fits.ImageHDU(cube, _cube_header(grid, wave), name="SCI")
    hdus = [primary, science]
    maps = {f"OBS_{line.name}": line.surface_flux for line in model.lines} | model.maps
    for name, image in maps.items():
        header = _celestial_header(model.grid)
        header["BUNIT"] = _UNITS.get(name, _FLUX_UNIT)
        hdus.append(fits.ImageHDU(np.asarray(image, dtype=np.float32), header, name=name))
    with atomic_path(path) as partial:
        fits.HDUList(hdus).writeto(partial)
    return Path(path)


def _cube_header(grid: TangentGrid, wave: np.ndarray) -> fits.Header:
    header = _celestial_header(grid)
    header["CTYPE3"] = "WAVE"
    header["CUNIT3"] = "um"
    header["CRPIX3"] = 1.0
    header["CRVAL3"] = float(wave[0])
    header["CDELT3"] = WAVE_STEP_UM
    header["BUNIT"] = "MJy/sr"
    header["PIXAR_A2"] = (grid.pixel_arcsec**2, "[arcsec2] pixel area")
    header["PIXAR_SR"] = ((grid.pixel_arcsec / 3600.0 * np.pi / 180.0) ** 2, "[sr] pixel area")
    header["LSFSIGMA"] = (0.0, "[km/s] line-spread function: none")
    return header


def write_scene(scene, directory: Path) -> list[Path]:
    """Write ``scene.json`` and, of every source with cubes, its truth file; returns the paths, scene.json first."""
    directory = Path(directory)
    written = [directory / "scene.json"]
    with atomic_path(written[0]) as partial:
        partial.write_text(json.dumps(_description(scene), indent=2, sort_keys=True) + "\n")
    for source_id in scene.source_ids:
        model = scene.source(source_id)
        if isinstance(model, SourceModel):
            redshift = scene.settings_of(source_id).redshift
            written.append(write_truth(model, truth_path(directory, source_id), redshift=redshift))
    return written


def _description(scene) -> dict:
    """All parameters of a scene, and the relations by which they became light."""
    return {
        "simulated": True,
        "simulation": scene.simulation.model_dump(mode="json"),
        "wave_range_um": list(scene.wave_range_um),
        "relations": {
            "cosmology": "flat, H0 = 70 km/s/Mpc, Om0 = 0.3",
            "halpha": "log SFR = log L(Ha) - 41.27 (Kennicutt & Evans 2012)",
            "balmer_decrement": spectrum.BALMER_DECREMENT,
            "nitrogen": "12 + log(O/H) = 8.90 + 0.57 N2 (Pettini & Pagel 2004)",
            "oxygen": "12 + log(O/H) = 8.73 - 0.32 O3N2 (Pettini & Pagel 2004)",
            "sulphur": "12 + log(O/H) = 8.77 + log [NII]/[SII] + 0.264 N2 (Dopita et al. 2016)",
            "metallicity_range": list(spectrum.METALLICITY_RANGE),
            "nebular_dust": "Cardelli et al. 1989, R_V = 3.1",
            "stellar_dust": "Calzetti et al. 2000, R_V = 4.05, E(B-V) 0.44 of the gas",
            "mass_to_light_i": spectrum.mass_to_light_i(),
        },
        "lines_um": {line.name: line.rest_um for line in spectrum.LINES},
    }
