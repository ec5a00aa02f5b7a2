"""The simulated sky: galaxies convolved with the PSF, or a test scene, and which part of it a slitlet sees."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import fft

from msa3d.constants import C_KMS
from msa3d_sim import spectrum
from msa3d_sim.galaxy import DiscGalaxy, TangentGrid
from msa3d_sim.geometry import WAVE_RANGE_UM, Optics, Pointing, Slitlet, rotate_to_sky, tangent_offsets
from msa3d_sim.psf import psf_image
from msa3d_sim.source import LineCube, SourceModel
from msa3d_sim.spectrum import zodiacal_mjy_sr


class SlitletSky:
    """The optics from one slitlet to the telescope's focal surface; the same in every exposure.

    Parameters
    ----------
    optics : Optics
        Either detector's: the sky does not know which.
    slitlet : Slitlet
        The slitlet.
    """

    def __init__(self, optics: Optics, slitlet: Slitlet):
        low, high = slitlet.y_range
        grid = np.meshgrid(
            np.linspace(-0.5, 0.5, 3),
            np.linspace(low - 1.0, high + 1.0, 9),
            np.linspace(*WAVE_RANGE_UM, 7),
            indexing="ij",
        )
        x_slit, y_slit, wave_um = (axis.ravel() for axis in grid)
        transform = optics.slit_wcs(slitlet).get_transform("slit_frame", "v2v3vacorr")
        self._v2, self._v3, _ = transform(x_slit, y_slit, wave_um * 1e-6)
        self._terms = _terms(x_slit, y_slit, wave_um)

    def at(self, pointing: Pointing, ra: float, dec: float) -> _SkyMap:
        """Fix the pointing and the origin (deg) of the offsets."""
        east, north = tangent_offsets(*rotate_to_sky(pointing)(self._v2, self._v3), ra, dec)
        coefficients, *_ = np.linalg.lstsq(self._terms, np.stack([east, north], axis=1), rcond=None)
        residual = np.abs(self._terms @ coefficients - np.stack([east, north], axis=1)).max()
        return _SkyMap(coefficients, float(residual))


class _SkyMap:
    """Offsets on the sky of positions in a slitlet, for one exposure, and the polynomial's largest error (arcsec)."""

    def __init__(self, coefficients: np.ndarray, residual_arcsec: float):
        self._coefficients = coefficients.astype(np.float64)
        self.residual_arcsec = residual_arcsec

    def __call__(self, x_slit, y_slit, wave_um):
        """Offsets east and north (arcsec), of the shape to which the arguments (openings; um) broadcast."""
        w = np.asarray(wave_um) - 1.4
        result = []
        for c in self._coefficients.T:
            along = c[0] + c[1] * x_slit + c[6] * x_slit**2
            across = c[2] + c[3] * x_slit + c[5] * y_slit
            chromatic = w * (c[4] + c[7] * x_slit + c[8] * y_slit + w * (c[9] + c[10] * w))
            result.append(along + y_slit * across + chromatic)
        return tuple(result)


def _terms(x, y, wave_um):
    """Columns of the least-squares fit, in the order that SkyMap adds them up."""
    w = wave_um - 1.4
    return np.stack([np.ones_like(x), x, y, x * y, w, y**2, x**2, w * x, w * y, w**2, w**3], axis=1)


logger = logging.getLogger(__name__)

PIXEL_ARCSEC = 0.05
GRID_PIXELS = 104
"""Pixels of a galaxy's grid a side: 5.2 arcsec, wider than any slitlet and its dithers."""

_OVERSAMPLE = 2
PSF_PIXELS = 129
"""Size of the point-spread function in intrinsic pixels of 0.025 arcsec: out to 1.6 arcsec."""

_CONTINUUM_PLANES = 12

POINT_PIXEL_ARCSEC = 0.0125
_POINT_PIXELS = 243
"""Odd, for a source in the middle of a pixel, and with divisors, for coarser truth cubes: 3.04 arcsec."""
_POINT_SIGMA_ARCSEC = 0.03
"""Sigma of the point source where the point-spread function is switched off: it must have some width."""

_Psf = Callable[[float, float, int], np.ndarray]


def telescope_psf(v3_pa_deg: float = 0.0) -> _Psf:
    """The telescope's ``psf(wave_um, scale_arcsec, size)``, of sum 1, for a position angle of V3 (deg)."""
    return partial(psf_image, rotation_deg=v3_pa_deg)


class _Telescope:
    """Convolution with the point-spread function, and binning from the intrinsic to the model's grid."""

    def __init__(self, psf: _Psf | None, grid: TangentGrid):
        self._psf = psf
        self._n = grid.n
        self._margin = 0 if psf is None else PSF_PIXELS - 1
        size = _OVERSAMPLE * grid.n + self._margin
        self.grid = TangentGrid(grid.ra, grid.dec, grid.pixel_arcsec / _OVERSAMPLE, size)

    def transfer(self, wave_um: float) -> np.ndarray | None:
        """Fourier transform of the point-spread function at a wavelength."""
        if self._psf is None:
            return None
        image = np.asarray(self._psf(wave_um, self.grid.pixel_arcsec, PSF_PIXELS), dtype=float)
        size, half = self.grid.n, PSF_PIXELS // 2
        padded = np.zeros((size, size), dtype=np.float32)
        padded[:PSF_PIXELS, :PSF_PIXELS] = image / image.sum()
        return fft.rfft2(np.roll(padded, (-half, -half), axis=(0, 1)))

    def observe(self, planes: np.ndarray, transfer: np.ndarray | None) -> np.ndarray:
        """Convolved and binned planes, float32 [..., n, n].

        The convolution is circular; what wraps round reaches no further than half a point-spread function
        into the array, which is cut away.
        """
        planes = np.asarray(planes, dtype=np.float32)
        if transfer is not None:
            planes = fft.irfft2(fft.rfft2(planes) * transfer, s=planes.shape[-2:])
        edge = self._margin // 2
        inner = planes[..., edge : edge + _OVERSAMPLE * self._n, edge : edge + _OVERSAMPLE * self._n]
        shape = (*inner.shape[:-2], self._n, _OVERSAMPLE, self._n, _OVERSAMPLE)
        return inner.reshape(shape).mean(axis=(-3, -1), dtype=np.float32)


def _profiles(velocity_map: np.ndarray, sigma_kms: float) -> tuple[np.ndarray, np.ndarray]:
    """Velocity grid (km/s) and Gaussian profiles (per km/s) of every pixel on it, [v, y, x]."""
    step = min(sigma_kms / 4.0, 15.0)
    # 5.5 sigma: the wings end below 1e-6 of the peak.
    reach = int(np.ceil((np.abs(velocity_map).max() + 5.5 * sigma_kms) / step))
    velocity = np.arange(-reach, reach + 1) * step
    # Linear interpolation between the planes adds step^2/6 to the variance; it is taken off beforehand.
    sigma = np.sqrt(sigma_kms**2 - step**2 / 6.0)
    d = (velocity[:, None, None] - velocity_map[None]).astype(np.float32) / np.float32(sigma)
    return velocity, np.exp(-0.5 * d * d) / np.float32(sigma * np.sqrt(2.0 * np.pi))


def _line_cube(species, source, surface_flux, velocity, profiles, telescope: _Telescope) -> LineCube:
    centre = species.rest_um * (1.0 + source.redshift)
    per_v = spectrum.line_density_mjy_sr(1.0, 1.0, velocity, centre).astype(np.float32)
    transfer = telescope.transfer(centre)
    # The surface flux is of order 1e-17: scaled first, so that float32 keeps its digits.
    scaled = (surface_flux * per_v.mean()).astype(np.float32)
    relative = per_v / per_v.mean()
    flux = [telescope.observe(scaled * phi * factor, transfer) for phi, factor in zip(profiles, relative, strict=True)]
    return LineCube(species.name, species.rest_um, centre, velocity, np.stack(flux))


def build_galaxy_model(
    source, seed: int, *, psf: _Psf | None, wave_range_um: Sequence[float] = WAVE_RANGE_UM
) -> SourceModel:
    """Build a galaxy as the telescope delivers it.

    Parameters
    ----------
    source : SimulatedSource
        Its parameters.
    seed : int
        Seed of the scene.
    psf : callable or None
        ``psf(wave_um, scale_arcsec, size)`` -> image of sum 1, or None for a perfect telescope.
    wave_range_um : sequence of two floats
        Observed range of the continuum; lines outside are left out.

    Returns
    -------
    SourceModel
        With the intrinsic maps in `maps`: line fluxes in erg/s/cm2/arcsec2 under ``FLUX_<line>``, VELOCITY
        and DISPERSION in km/s, METALLICITY as 12+log(O/H), AV in mag, SFR in Msun/yr/kpc2 of the disc.
    """
    grid = TangentGrid(source.ra, source.dec, PIXEL_ARCSEC, GRID_PIXELS)
    galaxy = DiscGalaxy(source, seed)
    telescope = _Telescope(psf, grid)
    wave = np.linspace(*wave_range_um, _CONTINUUM_PLANES)
    intrinsic = galaxy.intrinsic_maps(telescope.grid, wave)
    continuum = np.stack(
        [telescope.observe(plane, telescope.transfer(w)) for w, plane in zip(wave, intrinsic["continuum"], strict=True)]
    )
    velocity, profiles = _profiles(intrinsic["velocity"], source.sigma0_kms)
    lines = [
        _line_cube(s, source, intrinsic["lines"][s.name], velocity, profiles, telescope)
        for s in spectrum.LINES
        if wave_range_um[0] < s.rest_um * (1.0 + source.redshift) < wave_range_um[1]
    ]
    model = SourceModel(source.source_id, source.ra, source.dec, grid, wave, continuum, lines)
    model.maps = _truth_maps(galaxy, grid)
    return model


def _truth_maps(galaxy: DiscGalaxy, grid: TangentGrid) -> dict[str, np.ndarray]:
    """Intrinsic maps on the grid of the model, before the telescope."""
    maps = galaxy.intrinsic_maps(grid, [], subsamples=6)
    named = {f"FLUX_{name}": flux for name, flux in maps["lines"].items()}
    named["VELOCITY"] = maps["velocity"]
    named["DISPERSION"] = np.full_like(maps["velocity"], galaxy.source.sigma0_kms)
    named["METALLICITY"] = maps["metallicity"]
    named["AV"] = maps["av"]
    named["SFR"] = maps["sfr"]
    return named


def build_point_model(
    source, *, flux_ujy: float, psf: _Psf | None, wave_range_um: Sequence[float] = WAVE_RANGE_UM
) -> SourceModel:
    """Build a point source of constant F_nu: the point-spread function, or a narrow Gaussian where that is None."""
    grid = TangentGrid(source.ra, source.dec, POINT_PIXEL_ARCSEC, _POINT_PIXELS)
    wave = np.linspace(*wave_range_um, _CONTINUUM_PLANES)
    if psf is None:
        profile = np.exp(-0.5 * (grid.dy_north_arcsec / _POINT_SIGMA_ARCSEC) ** 2)
        images = [np.outer(profile, profile)] * wave.size
    else:
        images = [np.asarray(psf(w, grid.pixel_arcsec, grid.n), dtype=float) for w in wave]
    # Microjansky in a pixel to MJy/sr.
    per_pixel = flux_ujy * 1e-12 * (180.0 * 3600.0 / np.pi) ** 2 / grid.pixel_arcsec**2
    continuum = np.stack([image / image.sum() * per_pixel for image in images]).astype(np.float32)
    return SourceModel(source.source_id, source.ra, source.dec, grid, wave, continuum, oversample=1)


@dataclass
class FieldModel:
    """A test scene that is the same everywhere: constant light, and perhaps one emission line.

    Attributes
    ----------
    source_id, ra, dec
        As of a `SourceModel`.
    continuum_mjy_sr : float
        Constant I_nu.
    line_um : float, optional
        Wavelength of an unresolved line.
    line_flux : float
        Its surface flux, erg/s/cm2/arcsec2.
    line_sigma_kms : float
        Its Gaussian sigma; `broadened` adds the line-spread function to it in quadrature.
    """

    source_id: int
    ra: float
    dec: float
    continuum_mjy_sr: float
    line_um: float | None = None
    line_flux: float = 0.0
    line_sigma_kms: float = 1.0

    @property
    def lines(self) -> list:
        """No line cubes: the line is analytic."""
        return []

    def intensity(self, dx_east_arcsec, dy_north_arcsec, wave_um, *, lsf_sigma_kms: float | None = None):
        """Specific intensity in MJy/sr, float32; arguments as of `SourceModel.intensity`."""
        if lsf_sigma_kms is not None:
            return self.broadened(lambda _: lsf_sigma_kms).intensity(dx_east_arcsec, dy_north_arcsec, wave_um)
        line = self.line_intensity(dx_east_arcsec, dy_north_arcsec, wave_um)
        return line + np.float32(self.continuum_mjy_sr)

    def continuum_intensity(self, dx_east_arcsec, dy_north_arcsec, wave_um):
        """Return the constant part alone, MJy/sr."""
        shape = np.broadcast_shapes(*map(np.shape, (dx_east_arcsec, dy_north_arcsec, wave_um)))
        return np.full(shape, self.continuum_mjy_sr, dtype=np.float32)

    def line_intensity(self, dx_east_arcsec, dy_north_arcsec, wave_um):
        """Return the line alone, MJy/sr."""
        shape = np.broadcast_shapes(*map(np.shape, (dx_east_arcsec, dy_north_arcsec, wave_um)))
        if self.line_um is None:
            return np.zeros(shape, dtype=np.float32)
        velocity = C_KMS * (np.asarray(wave_um, dtype=float) / self.line_um - 1.0)
        sigma = self.line_sigma_kms
        phi = np.exp(-0.5 * (velocity / sigma) ** 2) / (sigma * np.sqrt(2.0 * np.pi))
        value = spectrum.line_density_mjy_sr(self.line_flux, phi, velocity, self.line_um)
        return np.broadcast_to(value, shape).astype(np.float32)

    def broadened(self, sigma_kms_of_wave: Callable[[float], float]) -> FieldModel:
        """Convolve the line with a line-spread function (Gaussian sigma, km/s); returns a new field."""
        if self.line_um is None:
            return self
        return replace(self, line_sigma_kms=float(np.hypot(self.line_sigma_kms, sigma_kms_of_wave(self.line_um))))


class Scene:
    """All sources of a simulation, each built when first asked for.

    Parameters
    ----------
    simulation : msa3d.config.Simulation
        Settings: seed, scene, psf and background switches, sources.
    wave_range_um : sequence of two floats
        Observed range.
    psf : callable or None
        Point-spread function; None for a perfect telescope.
    """

    def __init__(self, simulation, wave_range_um: Sequence[float], psf: _Psf | None):
        self.simulation = simulation
        self.wave_range_um = tuple(wave_range_um)
        self._psf = psf
        self._models: dict[int, SourceModel | FieldModel] = {}

    @classmethod
    def from_settings(cls, simulation) -> Scene:
        """Make the scene of a simulation, convolved with the PSF of the telescope unless `psf` is switched off."""
        return cls(simulation, WAVE_RANGE_UM, telescope_psf(simulation.v3_pa_deg) if simulation.psf else None)

    @property
    def source_ids(self) -> list[int]:
        """Ids of the sources, in the order of the settings."""
        return [source.source_id for source in self.simulation.sources]

    @property
    def sources(self) -> list[SourceModel | FieldModel]:
        """All models; builds those not yet built."""
        return [self.source(source_id) for source_id in self.source_ids]

    def settings_of(self, source_id: int):
        """Return the parameters of one source; KeyError for an id that is not in the settings."""
        for source in self.simulation.sources:
            if source.source_id == source_id:
                return source
        raise KeyError(f"The simulation has no source {source_id}.")

    def source(self, source_id: int) -> SourceModel | FieldModel:
        """Return the model of one source; the same object at every call."""
        if source_id not in self._models:
            self._models[source_id] = self._build(self.settings_of(source_id))
        return self._models[source_id]

    def background(self, wave_um):
        """Light that is everywhere besides the sources: zodiacal light in MJy/sr, or 0 where switched off."""
        wave_um = np.asarray(wave_um, dtype=float)
        return zodiacal_mjy_sr(wave_um) if self.simulation.background else np.zeros_like(wave_um)

    def write_truth(self, directory) -> list:
        """Write scene.json and a truth file for each galaxy; see `msa3d_sim.truth`."""
        from msa3d_sim.truth import write_scene

        return write_scene(self, directory)

    def _build(self, source):
        settings = self.simulation
        if settings.scene == "galaxies":
            logger.info("building galaxy %d", source.source_id)
            return build_galaxy_model(source, settings.seed, psf=self._psf, wave_range_um=self.wave_range_um)
        if settings.scene == "point":
            return build_point_model(
                source, flux_ujy=settings.point_ujy, psf=self._psf, wave_range_um=self.wave_range_um
            )
        line = {}
        if settings.scene == "line":
            line = {"line_um": settings.line_um, "line_flux": settings.line_flux}
        return FieldModel(source.source_id, source.ra, source.dec, settings.uniform_mjy_sr, **line)
