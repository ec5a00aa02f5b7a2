"""Emission lines: their table, their profile and the resolution of the instrument.

Emission lines: names and wavelengths, and a fit of Ha with [NII] in every spaxel at once.

The fit is least squares on a straight continuum and Gaussians that share one velocity and one width.
Amplitudes and continuum enter linearly, so a grid of velocity and width with the linear part solved
in each point (variable projection, Golub & Pereyra 1973) finds the start, and damped Gauss-Newton
steps on all spaxels together polish it. Profiles are integrated over the pixels: the line-spread
function is hardly wider than one.

Profiles of emission lines in the bins of a cube: Gaussian gas behind the line-spread function.

How wide the instrument makes an infinitely narrow line, in the voxels of a cube.

What the instrument measures is the image of the slit (a top-hat), blurred by the spectrograph, averaged over a
detector pixel, and laid down over the length of that pixel; the averaging over the cube's own bins is left
to the line profile, which is integrated over them. The sum of top-hats is hardly Gaussian, but its second and
fourth cumulants are those of two equal Gaussians side by side, which is how profiles are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.stats import gaussian_sigma_to_fwhm
from scipy.special import erf

from msa3d.constants import C_KMS, LINES

SQUARE_ARCSEC_PER_SR = (180.0 / np.pi * 3600.0) ** 2

NII_RATIO = 3.05
"""[NII] 6583 over 6548, set by atomic physics (Storey & Zeippen 2000)."""

_VELOCITIES = np.arange(-500.0, 501.0, 20.0)
_SIGMAS = np.array([35.0, 50.0, 65.0, 85.0, 110.0, 150.0, 200.0])
_SIGMA_LIMITS = (15.0, 300.0)
_STEPS = 25


@dataclass(frozen=True)
class LineMaps:
    """What the fit of Ha and [NII] gives in every spaxel; all maps have shape (n_y, n_x).

    A spaxel that could not be fitted (fewer than four fifths of its window finite, or all zeros) is NaN
    in every map. Errors are 1 sigma from the curvature of chi square, scaled by the scatter of the
    residuals where the cube brings no errors; they know nothing of covariance between voxels.

    Attributes
    ----------
    halpha, nii : ndarray
        Surface brightness of Ha and of [NII] 6583, erg s-1 cm-2 arcsec-2.
    halpha_error, nii_error : ndarray
        Their errors, same unit.
    velocity, velocity_error : ndarray
        Line-of-sight velocity against the given redshift, km/s, positive when receding.
    sigma, sigma_error : ndarray
        Width (standard deviation) as observed, line-spread function included, km/s.
    continuum : ndarray
        Continuum at Ha, MJy/sr.
    noise : ndarray
        Standard deviation of the residuals in the window, MJy/sr.
    """

    halpha: np.ndarray
    halpha_error: np.ndarray
    nii: np.ndarray
    nii_error: np.ndarray
    velocity: np.ndarray
    velocity_error: np.ndarray
    sigma: np.ndarray
    sigma_error: np.ndarray
    continuum: np.ndarray
    noise: np.ndarray

    def snr(self) -> np.ndarray:
        """Signal to noise of the Ha flux, dimensionless."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.halpha / self.halpha_error

    def reliable(self, snr: float = 5.0) -> np.ndarray:
        """Tell where Ha stands out enough for a velocity.

        Parameters
        ----------
        snr : float
            Least signal to noise of the Ha flux.

        Returns
        -------
        ndarray of bool, shape (n_y, n_x)
            True where Ha is at least that significant and neither velocity nor width ran to its limit.
        """
        inside = np.abs(self.velocity) < abs(_VELOCITIES[0]) * 0.99
        inside &= (self.sigma > _SIGMA_LIMITS[0] * 1.01) & (self.sigma < _SIGMA_LIMITS[1] * 0.99)
        return np.isfinite(self.halpha) & (self.snr() >= snr) & inside


def line_window(wave_um: np.ndarray, redshift: float, half_width_kms: float = 3000.0) -> np.ndarray:
    """Select the wavelengths around Ha that the fit uses.

    Parameters
    ----------
    wave_um : ndarray, shape (n_wave,)
        Wavelengths, um.
    redshift : float
        Redshift of the galaxy.
    half_width_kms : float
        How far the window reaches to each side of Ha.

    Returns
    -------
    ndarray of bool, shape (n_wave,)
        True inside the window.

    Raises
    ------
    ValueError
        If fewer than 20 wavelengths lie in it: Ha is not covered.
    """
    velocity = C_KMS * (wave_um / (LINES["Ha"] * (1.0 + redshift)) - 1.0)
    inside = np.abs(velocity) <= half_width_kms
    if inside.sum() < 20:
        raise ValueError(
            f"Ha at z = {redshift:g} lies at {LINES['Ha'] * (1 + redshift):.4f} um, outside the cube's "
            f"{wave_um.min():.4f}-{wave_um.max():.4f} um"
        )
    return inside


def fit_halpha(
    wave_um: np.ndarray,
    cube: np.ndarray,
    redshift: float,
    *,
    error: np.ndarray | None = None,
    half_width_kms: float = 3000.0,
) -> LineMaps:
    """Fit a straight continuum, Ha and the [NII] doublet in every spaxel.

    Parameters
    ----------
    wave_um : ndarray, shape (n_wave,)
        Vacuum wavelengths, um, increasing.
    cube : ndarray, shape (n_wave, n_y, n_x)
        Surface brightness, MJy/sr; NaN where unknown.
    redshift : float
        Redshift that velocities are measured against.
    error : ndarray, shape (n_wave, n_y, n_x), optional
        1 sigma errors, MJy/sr; without it every wavelength weighs the same.
    half_width_kms : float
        Half width of the window around Ha, km/s.

    Returns
    -------
    LineMaps
        The maps.

    Raises
    ------
    ValueError
        If Ha is outside the wavelengths, or the shapes do not agree.
    """
    if cube.ndim != 3 or cube.shape[0] != wave_um.size:
        raise ValueError(f"a cube of shape {cube.shape} does not go with {wave_um.size} wavelengths")
    inside = line_window(wave_um, redshift, half_width_kms)
    wave = wave_um[inside]
    spectra = cube[inside].reshape(wave.size, -1).T
    weight = np.isfinite(spectra).astype(float)
    if error is not None:
        sigma = error[inside].reshape(wave.size, -1).T
        usable = np.isfinite(sigma) & (sigma > 0)
        weight = np.where(usable, weight / np.where(usable, sigma, 1.0), 0.0)
    filled = np.where(weight > 0, spectra, 0.0)
    fit = ((weight > 0).mean(axis=1) >= 0.8) & (np.abs(filled).max(axis=1) > 0)
    parameters = np.full((spectra.shape[0], 6), np.nan)
    errors = np.full((spectra.shape[0], 6), np.nan)
    noise = np.full(spectra.shape[0], np.nan)
    if fit.any():
        profile = _Profile(wave, redshift)
        start = _grid_start(profile, filled[fit], weight[fit])
        solved = _polish(profile, filled[fit], weight[fit], start, scale=error is None)
        parameters[fit], errors[fit], noise[fit] = solved
    return _as_maps(parameters, errors, noise, cube.shape[1:], redshift)


class _Profile:
    """The model: columns of unit-flux line profiles and of the continuum, and their derivatives."""

    def __init__(self, wave: np.ndarray, redshift: float):
        self.wave = wave
        middle = 0.5 * (wave[1:] + wave[:-1])
        self.edges = np.concatenate([[2 * wave[0] - middle[0]], middle, [2 * wave[-1] - middle[-1]]])
        self.stretch = 1.0 + redshift
        self.slope = (wave - LINES["Ha"] * self.stretch) / np.ptp(wave)

    def lines(self, velocity: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Profiles of Ha and of [NII] (6583 of unit flux, 6548 with it); each (n_spaxels, n_wave)."""
        halpha = self._gauss(LINES["Ha"], velocity, sigma)
        nii = self._gauss(LINES["[NII]6583"], velocity, sigma)
        return halpha, nii + self._gauss(LINES["[NII]6548"], velocity, sigma) / NII_RATIO

    def _gauss(self, rest: float, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        centre = (rest * self.stretch * (1.0 + velocity / C_KMS))[:, None]
        width = rest * self.stretch * sigma[:, None] / C_KMS
        cumulative = 0.5 * erf((self.edges[None, :] - centre) / (np.sqrt(2.0) * width))
        return np.diff(cumulative, axis=1) / np.diff(self.edges)

    def columns(self, velocity: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """Design matrix (n_spaxels, n_wave, 4): Ha, [NII], constant, slope."""
        halpha, nii = self.lines(velocity, sigma)
        flat = np.ones_like(halpha)
        return np.stack([halpha, nii, flat, flat * self.slope], axis=-1)


def _grid_start(profile: _Profile, spectra: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Best velocity and width on a grid, (n_spaxels, 2); the linear part solved in every point."""
    # Unweighted, so that one projection serves all spaxels; the polish uses the weights.
    level = np.where(weight > 0, spectra, np.nan)
    centre = np.nanmedian(level, axis=1, keepdims=True)
    residual = np.where(weight > 0, spectra - centre, 0.0)
    best = np.full(spectra.shape[0], -np.inf)
    start = np.tile([0.0, _SIGMAS[2]], (spectra.shape[0], 1))
    for velocity in _VELOCITIES:
        for sigma in _SIGMAS:
            design = profile.columns(np.array([velocity]), np.array([sigma]))[0]
            basis, triangle = np.linalg.qr(design)
            projected = residual @ basis
            flux = np.linalg.solve(triangle, projected.T)[0]
            explained = np.where(flux > 0, (projected**2).sum(axis=1), -np.inf)
            better = explained > best
            best[better] = explained[better]
            start[better] = velocity, sigma
    return start


def _polish(
    profile: _Profile, spectra: np.ndarray, weight: np.ndarray, start: np.ndarray, *, scale: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levenberg-Marquardt on all spaxels at once, over velocity and width; amplitudes stay linear.

    Returns parameters (n, 6: Ha, [NII], level, slope, velocity, sigma), their errors, and the noise.
    """
    shape = start.copy()
    linear, residual = _solve_linear(profile, spectra, weight, shape)
    chi2 = (residual**2).sum(axis=1)
    damping = np.full(chi2.size, 1e-3)
    for _ in range(_STEPS):
        jacobian = _jacobian(profile, weight, linear, shape)
        normal = _square(jacobian)
        gradient = _times(jacobian, residual)
        diagonal = np.einsum("sii->si", normal)
        lifted = normal + np.einsum("si,ij->sij", diagonal * damping[:, None] + 1e-300, np.eye(6))
        step = np.linalg.solve(_regular(lifted), gradient[..., None])[..., 0]
        trial = shape + np.clip(step[:, 4:], -100.0, 100.0)
        trial[:, 0] = np.clip(trial[:, 0], _VELOCITIES[0], _VELOCITIES[-1])
        trial[:, 1] = np.clip(trial[:, 1], *_SIGMA_LIMITS)
        trial_linear, trial_residual = _solve_linear(profile, spectra, weight, trial)
        trial_chi2 = (trial_residual**2).sum(axis=1)
        better = trial_chi2 <= chi2
        settled = np.abs(trial_chi2 - chi2) <= 1e-9 * chi2
        shape[better], linear[better] = trial[better], trial_linear[better]
        residual[better], chi2[better] = trial_residual[better], trial_chi2[better]
        if settled.all():
            break
        damping = np.clip(np.where(better, damping / 5.0, damping * 5.0), 1e-9, 1e9)
    freedom = np.maximum((weight > 0).sum(axis=1) - 6, 1)
    jacobian = _jacobian(profile, weight, linear, shape)
    covariance = np.linalg.pinv(_square(jacobian), hermitian=True)
    variance = np.clip(np.einsum("sii->si", covariance), 0.0, None)
    if scale:
        variance = variance * (chi2 / freedom)[:, None]
    unweighted = np.where(weight > 0, residual / np.where(weight > 0, weight, 1.0), 0.0)
    noise = np.sqrt((unweighted**2).sum(axis=1) / freedom)
    return np.column_stack([linear, shape]), np.sqrt(variance), noise


def _solve_linear(
    profile: _Profile, spectra: np.ndarray, weight: np.ndarray, shape: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Amplitudes (n, 4) for given velocity and width, and the weighted residuals (n, n_wave)."""
    design = profile.columns(shape[:, 0], shape[:, 1]) * weight[..., None]
    target = spectra * weight
    normal = _square(design)
    right = _times(design, target)
    linear = np.linalg.solve(_regular(normal), right[..., None])[..., 0]
    return linear, target - (design @ linear[..., None])[..., 0]


def _jacobian(profile: _Profile, weight: np.ndarray, linear: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Weighted derivatives of the model (n, n_wave, 6); those of velocity and width by differences."""
    design = profile.columns(shape[:, 0], shape[:, 1])
    columns = [design]
    for index, delta in ((0, 0.5), (1, 0.5)):
        moved = [shape.copy(), shape.copy()]
        moved[0][:, index] -= delta
        moved[1][:, index] += delta
        low, high = (profile.columns(m[:, 0], m[:, 1])[..., :2] for m in moved)
        columns.append(np.einsum("swi,si->sw", (high - low) / (2 * delta), linear[:, :2])[..., None])
    return np.concatenate(columns, axis=-1) * weight[..., None]


def _square(columns: np.ndarray) -> np.ndarray:
    """Normal matrices (n, k, k) of columns (n, n_wave, k)."""
    return columns.transpose(0, 2, 1) @ columns


def _times(columns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Columns (n, n_wave, k) times values (n, n_wave), summed over the wavelengths: (n, k)."""
    return (columns.transpose(0, 2, 1) @ values[..., None])[..., 0]


def _regular(matrices: np.ndarray) -> np.ndarray:
    """Add a relative 1e-12 of the diagonal, so that a spaxel without signal does not stop the others."""
    diagonal = np.einsum("sii->si", matrices)
    ridge = 1e-12 * diagonal + 1e-300 + 1e-14 * diagonal.max(axis=1, keepdims=True)
    return matrices + np.einsum("si,ij->sij", ridge, np.eye(matrices.shape[-1]))


def to_line_flux(amplitude: np.ndarray, wave_um: float) -> np.ndarray:
    """Turn MJy/sr um into erg s-1 cm-2 arcsec-2.

    Parameters
    ----------
    amplitude : ndarray
        Integral of the surface brightness per frequency over wavelength, MJy/sr um.
    wave_um : float
        Wavelength of the line as observed, um; d(nu) = c / wave**2 d(wave).

    Returns
    -------
    ndarray
        Line surface brightness, erg s-1 cm-2 arcsec-2.
    """
    hertz_per_um = C_KMS * 1e9 / wave_um**2
    return amplitude * 1e-17 * hertz_per_um / SQUARE_ARCSEC_PER_SR


def _as_maps(
    parameters: np.ndarray, errors: np.ndarray, noise: np.ndarray, shape: tuple[int, int], redshift: float
) -> LineMaps:
    """Reshape the columns of the fit into maps, with fluxes in erg s-1 cm-2 arcsec-2."""
    value = [column.reshape(shape) for column in parameters.T]
    sigma = [column.reshape(shape) for column in errors.T]
    halpha = LINES["Ha"] * (1 + redshift)
    nii = LINES["[NII]6583"] * (1 + redshift)
    return LineMaps(
        halpha=to_line_flux(value[0], halpha),
        halpha_error=to_line_flux(sigma[0], halpha),
        nii=to_line_flux(value[1], nii),
        nii_error=to_line_flux(sigma[1], nii),
        velocity=value[4],
        velocity_error=sigma[4],
        sigma=value[5],
        sigma_error=sigma[5],
        continuum=value[2],
        noise=noise.reshape(shape),
    )


OIII_RATIO = 2.98
"""[OIII] 5007 over 4959 (Storey & Zeippen 2000)."""

SPECIES = {
    "Hb": (("Hb", 1.0),),
    "[OIII]5007": (("[OIII]5007", 1.0), ("[OIII]4959", 1.0 / OIII_RATIO)),
    "Ha": (("Ha", 1.0),),
    "[NII]6583": (("[NII]6583", 1.0), ("[NII]6548", 1.0 / NII_RATIO)),
    "[SII]6716": (("[SII]6716", 1.0),),
    "[SII]6731": (("[SII]6731", 1.0),),
}
"""What is free in a fit: a line and those tied to it, with their flux over its own."""


def bin_edges(wave_um: np.ndarray) -> np.ndarray:
    """Edges of the bins around increasing wavelengths, (n_wave + 1,)."""
    middle = 0.5 * (wave_um[1:] + wave_um[:-1])
    return np.concatenate([[2 * wave_um[0] - middle[0]], middle, [2 * wave_um[-1] - middle[-1]]])


def gaussian_bins(edges_um: np.ndarray, centre_um: np.ndarray, sigma_um: np.ndarray, half_um: float) -> np.ndarray:
    """Mean density in bins of a line of unit flux.

    Parameters
    ----------
    edges_um : ndarray, shape (n_wave + 1,)
        Edges of the bins, um.
    centre_um, sigma_um : ndarray, shape (n,)
        Centre, and sigma of each of the two Gaussians, um.
    half_um : float
        Half of the distance of the two Gaussians, um; 0 for one.

    Returns
    -------
    ndarray, shape (n, n_wave)
        Per um.
    """
    scale = np.sqrt(2.0) * sigma_um[:, None]
    shifts = (0.0,) if half_um == 0 else (-half_um, half_um)
    total = sum(erf((edges_um[None, :] - centre_um[:, None] - shift) / scale) for shift in shifts)
    return np.diff(total, axis=1) * (0.5 / len(shifts)) / np.diff(edges_um)


def species_profile(
    name: str,
    edges_um: np.ndarray,
    redshift: float,
    velocity_kms: np.ndarray,
    sigma_kms: np.ndarray,
    spread: LineSpread,
    *,
    alone: bool = False,
) -> np.ndarray:
    """Profile of a species of `SPECIES`, its first line of unit flux.

    Parameters
    ----------
    name : str
        Key of `SPECIES`.
    edges_um : ndarray, shape (n_wave + 1,)
        Edges of the bins, um.
    redshift : float
        Redshift of velocity 0; a line lies at rest (1 + z) (1 + v/c).
    velocity_kms, sigma_kms : ndarray, shape (n,)
        Velocity and dispersion of the gas.
    spread : LineSpread
        The instrument.
    alone : bool
        Without the lines that are tied to the first one.

    Returns
    -------
    ndarray, shape (n, n_wave)
        Per um.
    """
    total = 0.0
    for line, share in SPECIES[name][: 1 if alone else None]:
        rest = LINES[line] * (1.0 + redshift)
        half, own = spread.components(rest)
        sigma = np.hypot(own, rest * sigma_kms / C_KMS)
        total = total + share * gaussian_bins(edges_um, rest * (1.0 + velocity_kms / C_KMS), sigma, half)
    return total


def windows(
    wave_um: np.ndarray, redshift: float, names: Sequence[str], reach_kms: float
) -> list[tuple[np.ndarray, list[str]]]:
    """Group lines that lie close together.

    Parameters
    ----------
    wave_um : ndarray, shape (n_wave,)
        Wavelengths of the cube, um.
    redshift : float
        Of the galaxy.
    names : sequence of str
        Keys of `SPECIES`.
    reach_kms : float
        How far a window reaches to each side of its lines.

    Returns
    -------
    list of (ndarray of int, list of str)
        Indices of the wavelengths of each window, and the species in it. Species of which a line is not covered
        to either side by a third of the reach are left out.
    """
    found: list[tuple[float, float, list[str]]] = []
    for name in sorted(names, key=LINES.__getitem__):
        at = [LINES[line] * (1.0 + redshift) for line, _ in SPECIES[name]]
        margin = 1.0 + reach_kms / 3.0 / C_KMS
        if min(at) / margin < wave_um[0] or max(at) * margin > wave_um[-1]:
            continue
        low, high = min(at) * (1.0 - reach_kms / C_KMS), max(at) * (1.0 + reach_kms / C_KMS)
        if found and low <= found[-1][1]:
            found[-1] = (min(low, found[-1][0]), max(high, found[-1][1]), [*found[-1][2], name])
        else:
            found.append((low, high, [name]))
    return [(np.flatnonzero((wave_um >= low) & (wave_um <= high)), names) for low, high, names in found]


FWHM_PER_SIGMA = gaussian_sigma_to_fwhm

PIXEL_UM = {"G140M": 6.4e-4, "G140H": 2.36e-4, "G235M": 1.07e-3, "G235H": 3.96e-4, "G395M": 1.79e-3, "G395H": 6.66e-4}
"""Wavelength step of a detector pixel of each grating, um (JDox, dispersion curves of NIRSpec): nearly constant."""

PIXELS_PER_FWHM = 2.2
"""Pixels that the pre-flight curves take for the full width of a line."""

NOMINAL_R = {
    grating: ((1.0, 2.0), (1.0 / PIXELS_PER_FWHM / pixel, 2.0 / PIXELS_PER_FWHM / pixel))
    for grating, pixel in PIXEL_UM.items()
}
NOMINAL_R["G140H"] = (0.97, 1.89), (1849.0, 3675.0)
NOMINAL_R["PRISM"] = (
    (0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.3),
    (65.0, 50.0, 41.0, 35.0, 32.0, 30.0, 30.0, 31.0, 34.0, 41.0, 50.0, 73.0, 103.0, 140.0, 184.0, 234.0, 292.0, 330.0),
)
"""Pre-flight resolving power: wavelengths (um) and R there, linear between them (JDox, NIRSpec dispersers and filters:
for the prism 30 to 330, in the shape of the dispersion of CaF2, Malitson 1963)."""


def nominal_resolution(grating: str, wave_um: float) -> float:
    """Pre-flight resolving power of a disperser at a wavelength, um; gratings linear beyond the ends, too."""
    wave, resolving = NOMINAL_R[grating]
    if grating == "PRISM":
        return float(np.interp(wave_um, wave, resolving))
    return resolving[0] + (resolving[1] - resolving[0]) * (wave_um - wave[0]) / (wave[1] - wave[0])


IN_FLIGHT_FACTOR = 1.2
"""In-flight over pre-flight resolving power: lines of small sources are 10-50% narrower than the pre-flight curve
says; a galaxy that fills the slit gains least, hence our choice near the lower end."""


@dataclass(frozen=True)
class LineSpread:
    """Line-spread function before the cube's own bins.

    Attributes
    ----------
    curve : str
        ``slit``: image of the slit, blur, pixel and footprint, constant in pixels. ``pre-flight``: Gaussian of the
        nominal curve of the resolving power. ``in-flight``: the same times `factor`.
    pixel_um : float, optional
        Length of a detector pixel, um (for ``slit``); without it that of the grating. Pixels of the prism are as long
        as its pre-flight curve says.
    slit_pixels, blur_pixels, footprint_pixels : float
        Width of the slit's image; sigma of the spectrograph's blur; length over which a pixel is laid down
        (for ``slit``).
    factor : float
        In-flight over pre-flight resolving power.
    grating : str
        A key of `NOMINAL_R`.
    """

    curve: str = "slit"
    pixel_um: float | None = None
    slit_pixels: float = 1.95
    blur_pixels: float = 0.4
    footprint_pixels: float = 1.0
    factor: float = IN_FLIGHT_FACTOR
    grating: str = "G140H"

    def __post_init__(self) -> None:
        """Refuse unknown curves."""
        if self.curve not in ("slit", "pre-flight", "in-flight"):
            raise ValueError(f"no resolution curve {self.curve!r}: choose slit, pre-flight or in-flight")
        if self.grating not in NOMINAL_R:
            raise ValueError(f"no resolving power of {self.grating!r} is known: dispersers are {', '.join(NOMINAL_R)}")

    def pixel_at(self, wave_um: float) -> float:
        """Length of a detector pixel at a wavelength, um."""
        if self.grating != "PRISM":
            return self.pixel_um or PIXEL_UM[self.grating]
        return wave_um / nominal_resolution("PRISM", wave_um) / PIXELS_PER_FWHM

    def components(self, wave_um: float) -> tuple[float, float]:
        """Two equal Gaussians with the function's second and fourth cumulants.

        Parameters
        ----------
        wave_um : float
            Observed wavelength, um.

        Returns
        -------
        tuple of float
            Half of the distance of the two, and the sigma of each, um.
        """
        if self.curve != "slit":
            return 0.0, self.sigma_um(wave_um)
        boxes = np.array([self.slit_pixels, 1.0, self.footprint_pixels])
        # Fourth cumulant of a top-hat of width w: -w^4/120; of two points at +-d: -2 d^4.
        half = (np.sum(boxes**4) / 240.0) ** 0.25
        variance = np.sum(boxes**2) / 12.0 + self.blur_pixels**2
        pixel_um = self.pixel_at(wave_um)
        return half * pixel_um, np.sqrt(variance - half**2) * pixel_um

    def sigma_um(self, wave_um: float) -> float:
        """Standard deviation at a wavelength, um; what is subtracted in quadrature."""
        if self.curve == "slit":
            return float(np.hypot(*self.components(wave_um)))
        resolving = nominal_resolution(self.grating, wave_um)
        if self.curve == "in-flight":
            resolving *= self.factor
        return float(wave_um / resolving / FWHM_PER_SIGMA)

    def sigma_kms(self, wave_um: float) -> float:
        """Standard deviation at a wavelength, km/s."""
        return C_KMS * self.sigma_um(wave_um) / wave_um


def line_spread_of(header, *, curve: str | None = None, step_um: float | None = None) -> LineSpread:
    """Line-spread function that goes with a cube.

    Parameters
    ----------
    header : astropy.io.fits.Header
        SCI header, with the GRATING of the primary one (`msa3d.cubes.build.open_cube` puts it there); SLITWID and
        SLITLEN (arcsec) say how many pixels wide the slit's image is, a pixel being as long on the sky along the
        spectrum as across it. SPECPIX is the length of a detector pixel, um, whatever the cube's bins are.
    curve : str, optional
        As in `LineSpread`; without it ``slit`` for a header with SLITWID, else ``pre-flight``.
    step_um : float, optional
        Step of the cube's wavelengths, um: taken for the length of a detector pixel, by the builders' default, where
        the header does not tell it.

    Returns
    -------
    LineSpread
        The function.
    """
    if curve is None:
        curve = "slit" if "SLITWID" in header else "pre-flight"
    grating = header.get("GRATING")
    return LineSpread(
        curve, pixel_um=header.get("SPECPIX", step_um), grating=grating if grating in NOMINAL_R else "G140H"
    )
