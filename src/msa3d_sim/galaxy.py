"""A simulated galaxy before the telescope: a thin exponential disc with arms, clumps, dust and metals.

Two facts make the injected numbers recoverable: the structure (arms, clumps) has an azimuthal mean of
exactly one in the plane of the disc at every radius, so that radial profiles stay the exponentials that were
asked for; and metallicity and attenuation depend on the radius in the plane alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import i0

from msa3d_sim import spectrum

RE_OVER_SCALE_LENGTH = 1.67834699
"""Half-light radius of an exponential disc over its scale length."""

# The polar grid on which structure is normalised: radii in scale lengths of the stars, and azimuths.
_POLAR_RADII = 320
_POLAR_AZIMUTHS = 720
_POLAR_MAX_SCALE_LENGTHS = 10.0

_PITCH_DEG = 18.0


@dataclass(frozen=True)
class TangentGrid:
    """A square grid on the tangent plane, north up and east to the left.

    Attributes
    ----------
    ra, dec : float
        ICRS position of the middle of the grid, deg.
    pixel_arcsec : float
        Pixel size, arcsec.
    n : int
        Pixels a side. Pixel (y, x) has its centre at `dy_north_arcsec[y]`, `dx_east_arcsec[x]`.
    """

    ra: float
    dec: float
    pixel_arcsec: float
    n: int

    @property
    def dx_east_arcsec(self) -> np.ndarray:
        """Offset to the east of each column, arcsec; it falls with the column: east is on the left."""
        return -self.dy_north_arcsec

    @property
    def dy_north_arcsec(self) -> np.ndarray:
        """Offset to the north of each row, arcsec."""
        return (np.arange(self.n) - (self.n - 1) / 2.0) * self.pixel_arcsec

    @property
    def half_size_arcsec(self) -> float:
        """From the middle to the outer edge of the outermost pixel, arcsec."""
        return self.n * self.pixel_arcsec / 2.0

    def columns(self, dx_east_arcsec):
        """Fractional column of an offset to the east."""
        return (self.n - 1) / 2.0 - np.asarray(dx_east_arcsec) / self.pixel_arcsec

    def rows(self, dy_north_arcsec):
        """Fractional row of an offset to the north."""
        return (self.n - 1) / 2.0 + np.asarray(dy_north_arcsec) / self.pixel_arcsec


def _spiral(radius, azimuth, strength, phase):
    """Two logarithmic arms: a von Mises density in the angle to the arm, azimuthal mean 1 at every radius."""
    angle = 2.0 * (azimuth - np.log(np.maximum(radius, 1e-3)) / np.tan(np.radians(_PITCH_DEG)) - phase)
    # Arms fade towards the middle, where they would wind up without end.
    kappa = strength * (1.0 - np.exp(-((radius / 0.5) ** 2)))
    return np.exp(kappa * np.cos(angle)) / i0(kappa)


def _clumps(radius, azimuth, rng, *, number, phase, size, on_arms):
    """Gaussian clumps of star formation in units of the local disc; not yet normalised."""
    total = np.ones_like(radius)
    x, y = radius * np.cos(azimuth), radius * np.sin(azimuth)
    r_clump = rng.uniform(0.35, 3.2, number)
    if on_arms:
        arm = np.log(r_clump) / np.tan(np.radians(_PITCH_DEG)) + phase
        angle = arm + np.pi * rng.integers(0, 2, number) + rng.normal(0.0, 0.12, number)
    else:
        angle = rng.uniform(0.0, 2.0 * np.pi, number)
    contrast = rng.lognormal(np.log(1.5), 0.5, number)
    sigma = size * rng.uniform(0.7, 1.5, number)
    for r_c, a_c, c, s in zip(r_clump, angle, contrast, sigma, strict=True):
        d2 = (x - r_c * np.cos(a_c)) ** 2 + (y - r_c * np.sin(a_c)) ** 2
        total += c * np.exp(-d2 / (2.0 * s**2))
    return total


class DiscGalaxy:
    """The intrinsic maps of one galaxy.

    Parameters
    ----------
    source : object
        A `msa3d.config.SimulatedSource` or anything with its fields (source_id, redshift, log_mass,
        sfr_msun_yr, re_arcsec, sfr_scale_ratio, inclination_deg, pa_deg, sigma0_kms, v_rot_kms,
        r_turn_arcsec, metallicity_centre, metallicity_gradient_dex_kpc, av_centre, av_gradient_mag_kpc,
        morphology).
    seed : int
        Seed of the scene; a galaxy's structure depends on it and on the source id only.

    Notes
    -----
    The position angle is that of the receding half of the major axis, from north through east. The disc is
    thin, and its attenuation does not depend on the inclination: an inclined disc is brighter by
    1/cos(inclination) for each arcsec2 of sky.
    """

    def __init__(self, source, seed: int):
        self.source = source
        self.seed = int(seed)
        self.kpc_per_arcsec = spectrum.kpc_per_arcsec(source.redshift)
        self.distance_cm = spectrum.luminosity_distance_cm(source.redshift)
        self.stellar_scale_arcsec = source.re_arcsec / RE_OVER_SCALE_LENGTH
        self.sfr_scale_arcsec = self.stellar_scale_arcsec * source.sfr_scale_ratio
        self.cos_inclination = float(np.cos(np.radians(source.inclination_deg)))

    # --- the plane of the disc ---------------------------------------------------------------------

    def disc_coordinates(self, dx_east_arcsec, dy_north_arcsec):
        """Radius (arcsec) and azimuth (rad, from the receding major axis) in the plane of the disc."""
        pa = np.radians(self.source.pa_deg)
        major = dx_east_arcsec * np.sin(pa) + dy_north_arcsec * np.cos(pa)
        minor = (dx_east_arcsec * np.cos(pa) - dy_north_arcsec * np.sin(pa)) / self.cos_inclination
        return np.hypot(major, minor), np.arctan2(minor, major)

    @cached_property
    def _polar(self) -> tuple[np.ndarray, np.ndarray]:
        """Structure of stars and of star formation on the polar grid, azimuthal mean 1 in each row."""
        radius = np.linspace(0.0, _POLAR_MAX_SCALE_LENGTHS, _POLAR_RADII)[:, None]
        azimuth = (np.arange(_POLAR_AZIMUTHS) * 2.0 * np.pi / _POLAR_AZIMUTHS)[None, :]
        radius, azimuth = np.broadcast_arrays(radius, azimuth)
        rng = np.random.default_rng([self.seed, int(self.source.source_id)])
        phase = rng.uniform(0.0, np.pi)
        kind = self.source.morphology
        stars = np.ones(radius.shape)
        young = np.ones(radius.shape)
        # Clumps of 0.4 kpc (about 50 mas at z = 1), never below the telescope's resolution by much.
        size = max(0.4 / self.kpc_per_arcsec, 0.04) / self.stellar_scale_arcsec
        if kind == "spiral":
            stars = _spiral(radius, azimuth, 0.55, phase)
            young = _spiral(radius, azimuth, 1.3, phase + 0.15)
            young = young * _clumps(radius, azimuth, rng, number=26, phase=phase + 0.15, size=size, on_arms=True)
        elif kind == "clumps":
            young = _clumps(radius, azimuth, rng, number=14, phase=phase, size=size, on_arms=False)
            stars = 1.0 + 0.25 * (young - 1.0)
        fade = 1.0 - np.exp(-((radius / 0.15) ** 2))
        return tuple(1.0 + fade * (m / m.mean(axis=1, keepdims=True) - 1.0) for m in (stars, young))

    def structure(self, which: str, radius_arcsec, azimuth):
        """Local over azimuthal mean brightness, "stars" or "sfr"; its azimuthal mean is 1 at every radius."""
        table = self._polar[0 if which == "stars" else 1]
        row = radius_arcsec / self.stellar_scale_arcsec * ((_POLAR_RADII - 1) / _POLAR_MAX_SCALE_LENGTHS)
        row = np.minimum(row, _POLAR_RADII - 1.001)
        column = np.mod(azimuth, 2.0 * np.pi) * (_POLAR_AZIMUTHS / (2.0 * np.pi))
        r0, c0 = row.astype(np.intp), column.astype(np.intp)
        fr, fc = row - r0, column - c0
        c0 %= _POLAR_AZIMUTHS
        c1 = (c0 + 1) % _POLAR_AZIMUTHS
        inner = table[r0, c0] * (1.0 - fc) + table[r0, c1] * fc
        outer = table[r0 + 1, c0] * (1.0 - fc) + table[r0 + 1, c1] * fc
        return inner * (1.0 - fr) + outer * fr

    # --- radial profiles ---------------------------------------------------------------------------

    def metallicity(self, radius_arcsec):
        """12 + log(O/H) at a radius in the plane, kept within `spectrum.METALLICITY_RANGE`."""
        s = self.source
        r_kpc = np.asarray(radius_arcsec) * self.kpc_per_arcsec
        return np.clip(s.metallicity_centre + s.metallicity_gradient_dex_kpc * r_kpc, *spectrum.METALLICITY_RANGE)

    def av(self, radius_arcsec):
        """V-band attenuation of the ionised gas, mag, at a radius in the plane; never negative."""
        s = self.source
        r_kpc = np.asarray(radius_arcsec) * self.kpc_per_arcsec
        return np.maximum(s.av_centre + s.av_gradient_mag_kpc * r_kpc, 0.0)

    def sfr_density(self, radius_arcsec):
        """Azimuthal mean of the star-formation rate, Msun/yr for each arcsec2 of the plane of the disc."""
        h = self.sfr_scale_arcsec
        return self.source.sfr_msun_yr / (2.0 * np.pi * h**2) * np.exp(-np.asarray(radius_arcsec) / h)

    def line_profile(self, species: spectrum.LineSpecies, radius_arcsec):
        """Azimuthal mean of a line's attenuated surface flux, seen face on, erg/s/cm2/arcsec2."""
        r = np.asarray(radius_arcsec, dtype=float)
        flux = self.sfr_density(r) * spectrum.HA_LUMINOSITY_PER_SFR / (4.0 * np.pi * self.distance_cm**2)
        ratio = spectrum.line_ratios_to_halpha(self.metallicity(r))[species.name]
        return flux * ratio * 10.0 ** (-0.4 * spectrum.ccm89(species.rest_um) * self.av(r))

    def continuum_profile(self, wave_um: float, radius_arcsec):
        """Azimuthal mean of the attenuated starlight, seen face on, MJy/sr at an observed wavelength."""
        r = np.asarray(radius_arcsec, dtype=float)
        z = self.source.redshift
        rest = wave_um / (1.0 + z)
        l_nu = spectrum.stellar_luminosity_density(rest, self.source.log_mass)
        f_nu = l_nu * (1.0 + z) / (4.0 * np.pi * self.distance_cm**2)
        h = self.stellar_scale_arcsec
        profile = f_nu * spectrum.MJY_SR_PER_CGS_ARCSEC2 / (2.0 * np.pi * h**2) * np.exp(-r / h)
        return profile * 10.0 ** (-0.4 * spectrum.calzetti2000(rest) * spectrum.stellar_av(self.av(r)))

    # --- maps on the sky ---------------------------------------------------------------------------

    def velocity(self, radius_arcsec, azimuth):
        """Line-of-sight velocity, km/s, of an arctan curve that is v_rot at the half-light radius; 0 is systemic.

        v_rot arctan(r/r_turn) / arctan(re/r_turn) sin(i) cos(azimuth): its asymptote is greater than v_rot.
        """
        s = self.source
        at_re = np.arctan(s.re_arcsec / s.r_turn_arcsec)
        curve = s.v_rot_kms * np.arctan(np.asarray(radius_arcsec) / s.r_turn_arcsec) / at_re
        return curve * np.sin(np.radians(s.inclination_deg)) * np.cos(azimuth)

    def intrinsic_maps(self, grid: TangentGrid, continuum_wave_um, *, subsamples: int = 3) -> dict:
        """All intrinsic maps on a grid.

        Parameters
        ----------
        grid : TangentGrid
            Where.
        continuum_wave_um : array-like
            Observed wavelengths of the continuum planes, um.
        subsamples : int
            Brightness is averaged over subsamples x subsamples points a pixel: the disc has a cusp.

        Returns
        -------
        dict
            `lines`: name -> surface flux (erg/s/cm2/arcsec2) [y, x]; `continuum` [wave, y, x] in MJy/sr;
            `velocity` km/s, `metallicity` 12+log(O/H), `av` mag, `sfr` Msun/yr/kpc2 of the disc's plane,
            unattenuated.
        """
        radius, azimuth = self._subsampled(grid, subsamples)
        top = radius.max() * 1.001
        table = np.linspace(0.0, top, 4000)
        scale = table[-1] / (table.size - 1)
        position = radius / scale
        k = position.astype(np.intp)
        f = position - k

        def brightness(profile, structure):
            value = (profile[k] * (1.0 - f) + profile[np.minimum(k + 1, 3999)] * f) * structure
            return value.reshape(grid.n, subsamples, grid.n, subsamples).mean(axis=(1, 3)) / self.cos_inclination

        young = self.structure("sfr", radius, azimuth)
        stars = self.structure("stars", radius, azimuth)
        lines = {s.name: brightness(self.line_profile(s, table), young) for s in spectrum.LINES}
        continuum = [brightness(self.continuum_profile(w, table), stars) for w in continuum_wave_um]
        r, a = self.disc_coordinates(grid.dx_east_arcsec[None, :], grid.dy_north_arcsec[:, None])
        sfr = brightness(self.sfr_density(table), young) * self.cos_inclination / self.kpc_per_arcsec**2
        return {
            "lines": lines,
            "continuum": np.reshape(continuum, (-1, grid.n, grid.n)),
            "velocity": self.velocity(r, a),
            "metallicity": self.metallicity(r),
            "av": self.av(r),
            "sfr": sfr,
        }

    def _subsampled(self, grid: TangentGrid, subsamples: int):
        """Disc radius and azimuth at the sub-pixel points of a grid, [y, x] arrays of n * subsamples."""
        step = grid.pixel_arcsec / subsamples
        offset = (np.arange(grid.n * subsamples) - (grid.n * subsamples - 1) / 2.0) * step
        return self.disc_coordinates(-offset[None, :], offset[:, None])
