"""Emission lines: their table, their profile and the resolution of the instrument.

A line of Gaussian gas is seen behind the line-spread function, in the bins of a cube. What the instrument measures is
the image of the slit (a top-hat), blurred by the spectrograph, averaged over a detector pixel, and drizzled over the
length of that pixel; the averaging over the cube's own bins is left to the line profile, which is integrated over
them. The sum of top-hats is hardly Gaussian, but its second and fourth cumulants are those of two equal Gaussians side
by side, which is how profiles are computed.
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

CURVES = ("slit", "pre-flight", "in-flight")
"""Line-spread functions to choose from, see `LineSpread`."""


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
        Width of the slit's image; sigma of the spectrograph's blur; length over which a pixel is drizzled
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
        if self.curve not in CURVES:
            raise ValueError(f"no line-spread function {self.curve!r}: choose slit, pre-flight or in-flight")
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
