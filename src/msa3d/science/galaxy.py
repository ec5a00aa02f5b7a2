"""One galaxy from its cube to its numbers: continuum, kinematics, lines, bins, profiles, gradients, table.

The order matters. The disc that is fitted to Ha says where the lines of a spaxel are and how wide; with that given,
fluxes of all lines are linear in the data and so unbiased however faint they are; the same estimator where there is
no line says how uncertain they are; discs behind the point-spread function give gradients free of beam smearing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import numpy as np

from msa3d.constants import LINES
from msa3d.cube import Cube, open_cube
from msa3d.dataset import Dataset
from msa3d.errors import ProductError
from msa3d.layout import Layout
from msa3d.science import abundance, attenuation, calibration, papercube
from msa3d.science.binning import BinMap, bins_for_line, stacked
from msa3d.science.blanks import blank_images, continuum_image
from msa3d.science.centre import centre_covariance, fit_centre
from msa3d.science.cosmology import kpc_per_arcsec
from msa3d.science.gradient import Gradient
from msa3d.science.kinematics import DiscFit, fit_disc
from msa3d.science.linefit import SIGMA_LIMITS, LineFit, fit_lines
from msa3d.science.lineprofile import SPECIES
from msa3d.science.profiles import Exponential, Geometry, Rings, fit_exponential, rings
from msa3d.science.resolution import LineSpread, line_spread_of
from msa3d.science.spectra import complete_radius, well_observed

log = logging.getLogger(__name__)

CONTINUUM_REST_UM = (0.508, 0.62)
"""Free of strong lines."""
BIN_SNR = 10.0
RING_ARCSEC = 0.2
RINGS_TO_ARCSEC = 1.2
CENTRE_MOVED_ARCSEC = 0.15
"""A centre farther than this from where the target should be is not believed."""


@dataclass(frozen=True, eq=False)
class Galaxy:
    """What was measured of a galaxy in one cube.

    Attributes
    ----------
    source_id : int
        Which.
    builder : str
        Whose cube.
    redshift : float
        What velocities refer to.
    cube : Cube
        The cube.
    geometry : Geometry
        Place, orientation and scale of the disc.
    kinematics : DiscFit
        The disc that was fitted to Ha.
    lines : LineFit
        All lines of every spaxel, velocity and dispersion given by the disc: fluxes are unbiased.
    free : LineFit
        The same with velocity and dispersion free: what maps of them show.
    bins : BinMap
        Adaptive bins in which Ha has a signal to noise of `BIN_SNR`.
    binned : LineFit
        Lines of the bins, maps of shape (1, n_bins); velocity and dispersion free.
    continuum : ndarray, shape (n_y, n_x)
        Mean of the line-free range, MJy/sr.
    continuum_um : float
        Its wavelength, um.
    stars : Exponential
        Disc behind the point-spread function fitted to it.
    discs : dict of str to Exponential
        The same for each line, errors from wavelengths without lines.
    hbeta_tied : Exponential or None
        Hb with the scale length of Ha: one decrement for the whole disc.
    rings : dict of str to Rings
        Means of rings, as observed.
    noise_factor : dict of str to float
        Error of the light of all rings, over what independent errors of the spaxels would give.
    metallicity : dict of str to Gradient
        By calibration.
    av : Gradient or None
        Of A_V; None without Hb.
    star_formation : StarFormation
        Rate and scale length.
    offset_arcsec : ndarray, shape (2,)
        Centre of the starlight minus position in the catalogue, to the east and to the north, arcsec; measured even
        where it is too large to be believed.
    offset_covariance : ndarray, shape (2, 2)
        Of it, arcsec squared; NaN where it is not known.
    """

    source_id: int
    builder: str
    redshift: float
    cube: Cube = field(repr=False)
    geometry: Geometry
    kinematics: DiscFit = field(repr=False)
    lines: LineFit = field(repr=False)
    free: LineFit = field(repr=False)
    bins: BinMap = field(repr=False)
    binned: LineFit = field(repr=False)
    continuum: np.ndarray = field(repr=False)
    continuum_um: float
    stars: Exponential
    discs: dict[str, Exponential]
    hbeta_tied: Exponential | None
    rings: dict[str, Rings]
    noise_factor: dict[str, float]
    metallicity: dict[str, Gradient]
    av: Gradient | None
    star_formation: attenuation.StarFormation
    offset_arcsec: np.ndarray = field(repr=False)
    offset_covariance: np.ndarray = field(repr=False)


def analyse(
    layout: Layout,
    dataset: Dataset,
    source_id: int,
    builder: str = "drizzle",
    *,
    inclination_deg: float = 0.0,
    pa_deg: float | None = None,
    spread: LineSpread | None = None,
    sample: bool = True,
) -> Galaxy:
    """Measure a galaxy of a run.

    Parameters
    ----------
    layout : Layout
        The run.
    dataset : Dataset
        Its description; redshift and place of the target come from there.
    source_id : int
        The galaxy.
    builder : str
        Whose cube: ``drizzle`` or ``paper``.
    inclination_deg : float
        Taken as known (`report.published` has those of the survey): a nearly face-on disc does not tell its own.
    pa_deg : float, optional
        First guess of the position angle.
    spread : LineSpread, optional
        Line-spread function; without it that of the cube's header (of `papercube` for the published builder).
    sample : bool
        Sample the posterior of the kinematics, rather than take errors from the curvature.

    Returns
    -------
    Galaxy
        All that was measured.

    Raises
    ------
    msa3d.errors.ProductError
        If there is no such cube, or Ha is not seen in it.
    """
    target = dataset.target(source_id)
    paper = builder == "paper"
    cube = open_cube(layout.cube_medians(source_id) if paper else layout.cube(source_id, dataset))
    if paper:
        cube, spread = papercube.prepared(cube, target.redshift), spread or papercube.spread_of(cube)
    geometry = Geometry(target.ra, target.dec, inclination_deg, pa_deg or 0.0, kpc_per_arcsec(target.redshift))
    return measure(
        cube,
        target.redshift,
        geometry,
        source_id=source_id,
        builder=builder,
        spread=spread,
        sample=sample,
        pa_deg=pa_deg,
    )


def measure(
    cube: Cube,
    redshift: float,
    geometry: Geometry,
    *,
    source_id: int = 0,
    builder: str = "drizzle",
    spread: LineSpread | None = None,
    sample: bool = True,
    pa_deg: float | None = None,
) -> Galaxy:
    """Measure a galaxy in a cube.

    Parameters
    ----------
    cube : Cube
        The cube.
    redshift : float
        What velocities refer to.
    geometry : Geometry
        Where the disc should be, its inclination and scale; centre and position angle are fitted.
    source_id, builder
        As in `Galaxy`.
    spread, sample, pa_deg
        As in `analyse`.

    Returns
    -------
    Galaxy
        All that was measured.
    """
    spread = spread or line_spread_of(cube.header, step_um=float(np.median(np.diff(cube.wave_um))))
    wide = spread.sigma_kms(LINES["Ha"] * (1.0 + redshift))
    if wide > SIGMA_LIMITS[1]:
        raise ProductError(
            f"{cube.name}: the line-spread function of {spread.grating} at Ha is {wide:.0f} km/s wide (standard "
            "deviation): it shows no rotation and does not part Ha from [NII]; msa3d.science.linefit.fit_lines "
            "measures their sum"
        )
    first, last = (edge * (1.0 + redshift) for edge in CONTINUUM_REST_UM)
    image, error, noise = continuum_image(cube, first, last)
    continuum_um = 0.5 * (first + last)
    geometry, offset = _centred(image, cube, geometry, continuum_um)
    good = well_observed(cube)
    light = np.where(good, image, np.nan)
    options = {"error": error, "blanks": noise, "background": True, "unit": "MJy/sr"}

    def starlight(geometry: Geometry) -> Exponential:
        most = complete_radius(good, geometry.radius(cube))
        return fit_exponential(light, cube, geometry, continuum_um, max_radius_arcsec=most, **options)

    known = np.isfinite(light)
    sure = centre_covariance(starlight(geometry), cube, geometry, continuum_um, noise, known)
    place = {"ra": geometry.ra, "dec": geometry.dec, "inclination_deg": geometry.inclination_deg}
    if np.isfinite(sure).all():
        place["centre_covariance"] = sure
    disc = fit_disc(cube, redshift, **place, pa_deg=pa_deg, spread=spread, sample=sample)
    geometry = replace(geometry, pa_deg=disc.best["pa_deg"] % 360.0)
    lines = fit_lines(cube, redshift, spread=spread, velocity=disc.maps["velocity"], sigma=disc.maps["sigma"])
    discs, tied, ring_means, factor = _profiles(cube, redshift, geometry, lines, spread)
    bins = bins_for_line(cube, lines, BIN_SNR, where=_within(cube, geometry, lines))
    stars = starlight(geometry)
    return Galaxy(
        source_id,
        builder,
        redshift,
        cube,
        geometry,
        disc,
        lines,
        fit_lines(cube, redshift, spread=spread),
        bins,
        fit_lines(stacked(cube, bins.masks), redshift, spread=spread),
        image,
        continuum_um,
        stars,
        discs,
        tied,
        ring_means,
        factor,
        _metallicity(discs, geometry),
        attenuation.gradient(discs["Ha"], discs["Hb"], geometry) if "Hb" in discs else None,
        attenuation.star_formation(discs["Ha"], tied, redshift),
        offset_arcsec=offset,
        offset_covariance=sure,
    )


def _metallicity(discs: dict[str, Exponential], geometry: Geometry) -> dict[str, Gradient]:
    """Gradients by all calibrations whose lines there are, and whose range the ratios do not leave."""
    found = {}
    for name in calibration.names("metallicity"):
        needed = calibration.INDICES[calibration.metallicity_calibration(name).index]
        if all(line in discs for line, _ in needed):
            gradient = abundance.gradient(discs, geometry, calibration=name)
            if np.isfinite([gradient.slope, gradient.centre]).all():
                found[name] = gradient
    return found


def _centred(image: np.ndarray, cube: Cube, geometry: Geometry, wave_um: float):
    """Centre of the starlight, unless it is far from where the target should be, and its offset from there, arcsec."""
    moved = fit_centre(np.where(well_observed(cube), image, np.nan), cube, geometry, wave_um)
    east = (moved.ra - geometry.ra) * np.cos(np.radians(geometry.dec)) * 3600.0
    north = (moved.dec - geometry.dec) * 3600.0
    log.info("%s: centre of the starlight %.3f arcsec east, %.3f north of the target", cube.name, east, north)
    if np.hypot(east, north) > CENTRE_MOVED_ARCSEC:
        log.warning(
            "%s: the centre of the starlight is %.2f arcsec east and %.2f north of the target, more than %.2f away: "
            "the position of the catalogue is taken",
            *(cube.name, east, north, CENTRE_MOVED_ARCSEC),
        )
        return geometry, np.array([east, north])
    return moved, np.array([east, north])


def _within(cube: Cube, geometry: Geometry, lines: LineFit) -> np.ndarray:
    """Spaxels of the part of the disc that shows Ha, by its smooth profile and not by their own noise."""
    radius = geometry.radius(cube)
    edges = np.arange(0.0, radius.max(), RING_ARCSEC)
    profile = rings(lines.flux["Ha"], cube, geometry, edges, error=lines.flux_error["Ha"])
    faint = profile.radius[~(profile.mean > 3.0 * profile.error) & (profile.count > 0)]
    return radius < (faint.min() if faint.size else radius.max() + 1.0)


def _profiles(cube: Cube, redshift: float, geometry: Geometry, lines: LineFit, spread: LineSpread):
    """Discs behind the point-spread function and rings as observed, for each line that is covered."""
    edges = np.arange(0.0, RINGS_TO_ARCSEC + 1e-6, RING_ARCSEC)
    discs, means, factor, tied = {}, {}, {}, None
    good = well_observed(cube)
    for name in [n for n in SPECIES if n in lines.flux and np.isfinite(lines.flux[n]).sum() > 10]:
        wave = LINES[name] * (1.0 + redshift)
        flux = np.where(good, lines.flux[name], np.nan)
        noise = blank_images(cube, redshift, lines, name, spread=spread)
        options = {"error": lines.flux_error[name], "blanks": noise, "unit": "erg s-1 cm-2 arcsec-2"}
        found = fit_exponential(flux, cube, geometry, wave, **options)
        means[name] = rings(flux, cube, geometry, edges, error=options["error"], blanks=noise)
        naive = rings(flux, cube, geometry, edges, error=options["error"])
        weight = means[name].count.astype(float)
        ratio = weight @ means[name].covariance @ weight / (weight @ naive.covariance @ weight)
        factor[name] = float(np.sqrt(ratio))
        if not np.isfinite(found.log_centre):
            log.warning("%s: no disc in %s, it is too faint", cube.name, name)
            continue
        discs[name] = found
        if name == "Hb":
            tied = options
    if tied is not None and "Ha" in discs:
        flux = np.where(good, lines.flux["Hb"], np.nan)
        tied = fit_exponential(flux, cube, geometry, LINES["Hb"] * (1 + redshift), rate=discs["Ha"].rate, **tied)
    return discs, tied, means, factor
