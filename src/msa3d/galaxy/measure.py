"""All that is measured on a galaxy, from its cube to its numbers, and the files of them in ``reduction/science``.

The order matters. The disc that is fitted to Ha says where the lines of a spaxel are and how wide; with that given,
fluxes of all lines are linear in the data and so unbiased however faint they are; the same estimator where there is
no line says how uncertain they are; discs convolved with the PSF give gradients free of beam smearing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.stats import mad_std
from astropy.table import Table

from msa3d.config import Dataset
from msa3d.constants import LINES
from msa3d.cubes.cube import Cube, open_cube
from msa3d.errors import ProductError
from msa3d.galaxy import dust, report
from msa3d.galaxy import metals as galaxy_metals
from msa3d.galaxy.bins import BinMap, bins_for_line, stacked
from msa3d.galaxy.disc import kpc_per_arcsec
from msa3d.galaxy.discfit import DiscFit, fit_disc
from msa3d.galaxy.fit import SIGMA_LIMITS, LineFit, fit_lines
from msa3d.galaxy.images import complete_radius, well_observed
from msa3d.galaxy.lines import SPECIES, LineSpread, line_spread_of
from msa3d.galaxy.noise import blank_images, continuum_image
from msa3d.galaxy.profiles import (
    Exponential,
    Geometry,
    Gradient,
    Rings,
    centre_covariance,
    disc_columns,
    fit_centre,
    fit_exponential,
    rings,
)
from msa3d.galaxy.settings import ScienceSettings
from msa3d.pipeline.layout import Layout
from msa3d.pipeline.parallel import run_tasks
from msa3d.pipeline.products import atomic_path, stamp
from msa3d.published import for_analysis

log = logging.getLogger(__name__)

_DEFAULTS = ScienceSettings()


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
    science : ScienceSettings
        How it was measured.
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
        Adaptive bins in which the disc in Ha has a signal to noise of ``bin_snr``.
    binned : LineFit
        Lines of the bins, maps of shape (1, n_bins); velocity and dispersion free.
    continuum : ndarray, shape (n_y, n_x)
        Mean of the line-free range, MJy/sr.
    continuum_um : float
        Its wavelength, um.
    stars : Exponential
        Disc convolved with the point-spread function fitted to it.
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
    spread : LineSpread
        Line-spread function that was removed from the widths of lines.
    """

    source_id: int
    builder: str
    redshift: float
    science: ScienceSettings = field(repr=False)
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
    star_formation: dust.StarFormation
    offset_arcsec: np.ndarray = field(repr=False)
    offset_covariance: np.ndarray = field(repr=False)
    spread: LineSpread = field(repr=False)


def analyse(
    layout: Layout,
    dataset: Dataset,
    source_id: int,
    builder: str = "drizzle",
    *,
    inclination_deg: float = 0.0,
    pa_deg: float | None = None,
    sample: bool = True,
) -> Galaxy:
    """Measure a galaxy of a run.

    Parameters
    ----------
    layout : Layout
        The run.
    dataset : Dataset
        Its description; redshift and place of the target, and how to measure (``science``), come from there.
    source_id : int
        The galaxy.
    builder : str
        Whose cube: ``drizzle`` or ``paper``.
    inclination_deg : float
        Taken as known (`report.published` has those of the survey): a nearly face-on disc does not tell its own.
    pa_deg : float, optional
        First guess of the position angle.
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
    spread = None
    if paper:
        spread = for_analysis.spread_of(cube, dataset.science.line_spread)
        cube = for_analysis.prepared(cube, target.redshift)
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
        science=dataset.science,
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
    science: ScienceSettings = _DEFAULTS,
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
    spread : LineSpread, optional
        Line-spread function; without it that of ``science.line_spread`` and the cube's header.
    sample, pa_deg
        As in `analyse`.
    science : ScienceSettings
        What to measure, and with which relations.

    Returns
    -------
    Galaxy
        All that was measured.
    """
    step_um = float(np.median(np.diff(cube.wave_um)))
    spread = spread or line_spread_of(cube.header, curve=science.line_spread, step_um=step_um)
    wide = spread.sigma_kms(LINES["Ha"] * (1.0 + redshift))
    if wide > SIGMA_LIMITS[1]:
        raise ProductError(
            f"{cube.name}: the line-spread function of {spread.grating} at Ha is {wide:.0f} km/s wide (standard "
            "deviation): it shows no rotation and does not part Ha from [NII]; msa3d.galaxy.fit.fit_lines "
            "measures their sum"
        )
    first, last = (edge * (1.0 + redshift) for edge in science.continuum_rest_um)
    image, error, noise = continuum_image(cube, first, last)
    continuum_um = 0.5 * (first + last)
    geometry, offset = _centred(image, cube, geometry, continuum_um, science.centre_moved_arcsec)
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
    fit = {"names": tuple(science.lines), "spread": spread}
    lines = fit_lines(cube, redshift, **fit, velocity=disc.maps["velocity"], sigma=disc.maps["sigma"])
    edges = np.arange(0.0, science.rings_to_arcsec + 1e-6, science.ring_arcsec)
    discs, tied, ring_means, factor = _profiles(cube, redshift, geometry, lines, spread, edges)
    predicted = _predicted(cube, geometry, discs.get("Ha"), redshift)
    error = lines.flux_error["Ha"]
    bins = bins_for_line(
        cube, predicted, error, science.bin_snr, _within(cube, geometry, predicted, error, science.ring_arcsec)
    )
    stars = starlight(geometry)
    return Galaxy(
        source_id,
        builder,
        redshift,
        science,
        cube,
        geometry,
        disc,
        lines,
        fit_lines(cube, redshift, **fit),
        bins,
        fit_lines(stacked(cube, bins.masks), redshift, **fit),
        image,
        continuum_um,
        stars,
        discs,
        tied,
        ring_means,
        factor,
        _metallicity(discs, geometry),
        dust.gradient(discs["Ha"], discs["Hb"], geometry, law=science.dust_law) if "Hb" in discs else None,
        dust.star_formation(discs["Ha"], tied, redshift, law=science.dust_law, calibration=science.star_formation),
        offset_arcsec=offset,
        offset_covariance=sure,
        spread=spread,
    )


def _metallicity(discs: dict[str, Exponential], geometry: Geometry) -> dict[str, Gradient]:
    """Gradients by all calibrations whose lines there are, and whose range the ratios do not leave."""
    found = {}
    for name in galaxy_metals.names("metallicity"):
        needed = galaxy_metals.INDICES[galaxy_metals.metallicity_calibration(name).index]
        if all(line in discs for line, _ in needed):
            gradient = galaxy_metals.gradient(discs, geometry, calibration=name)
            if np.isfinite([gradient.slope, gradient.centre]).all():
                found[name] = gradient
    return found


def _centred(image: np.ndarray, cube: Cube, geometry: Geometry, wave_um: float, most_arcsec: float):
    """Centre of the starlight, unless it is far from where the target should be, and its offset from there, arcsec."""
    moved = fit_centre(np.where(well_observed(cube), image, np.nan), cube, geometry, wave_um)
    east = (moved.ra - geometry.ra) * np.cos(np.radians(geometry.dec)) * 3600.0
    north = (moved.dec - geometry.dec) * 3600.0
    log.info("%s: centre of the starlight %.3f arcsec east, %.3f north of the target", cube.name, east, north)
    if np.hypot(east, north) > most_arcsec:
        log.warning(
            "%s: the centre of the starlight is %.2f arcsec east and %.2f north of the target, more than %.2f away: "
            "the position of the catalogue is taken",
            *(cube.name, east, north, most_arcsec),
        )
        return geometry, np.array([east, north])
    return moved, np.array([east, north])


def _predicted(cube: Cube, geometry: Geometry, disc: Exponential | None, redshift: float) -> np.ndarray:
    """Ha of the smooth disc convolved with the PSF, in the unit of the disc; 0 where there is none."""
    everywhere = np.ones(cube.shape, bool)
    if disc is None:
        return np.zeros(cube.shape)
    column = disc_columns(cube, geometry, LINES["Ha"] * (1.0 + redshift), disc.rate, everywhere)[:, 0]
    return np.exp(disc.log_centre) * column.reshape(cube.shape)


def _within(cube: Cube, geometry: Geometry, predicted: np.ndarray, error: np.ndarray, ring_arcsec: float) -> np.ndarray:
    """Spaxels of the part of the disc whose rings should show Ha, by the smooth disc and not by their own noise."""
    radius = geometry.radius(cube)
    edges = np.arange(0.0, radius.max(), ring_arcsec)
    profile = rings(predicted, cube, geometry, edges, error=error)
    faint = profile.radius[~(profile.mean > 3.0 * profile.error) & (profile.count > 0)]
    return radius < (faint.min() if faint.size else radius.max() + 1.0)


def _profiles(cube: Cube, redshift: float, geometry: Geometry, lines: LineFit, spread: LineSpread, edges: np.ndarray):
    """Discs convolved with the point-spread function and rings as observed, for each line that is covered."""
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


_FLUX = "erg s-1 cm-2 arcsec-2"


def maps(galaxy: Galaxy) -> dict[str, tuple[np.ndarray, str]]:
    """Maps of a galaxy, with their units.

    Parameters
    ----------
    galaxy : Galaxy
        What was measured.

    Returns
    -------
    dict of str to (ndarray, str)
        By extension: ``FLUX_<line>``, ``ERR_<line>`` (velocity and dispersion given by the disc), ``VELOCITY``,
        ``SIGMA`` and ``..._ERR`` (free), ``MODEL_VELOCITY``, ``MODEL_SIGMA``, ``CONTINUUM``, ``BINS`` (-1: none),
        and of the bins ``BIN_VELOCITY``, ``BIN_SIGMA``, ``BIN_OH`` (12 + log(O/H)), ``BIN_AV`` with ``..._ERR``.
        NaN: unknown.
    """
    found = {}
    for name in galaxy.lines.flux:
        short = name.replace("[", "").replace("]", "").upper()
        found[f"FLUX_{short}"] = galaxy.lines.flux[name], _FLUX
        found[f"ERR_{short}"] = galaxy.lines.flux_error[name], _FLUX
    spread, binned, free = galaxy.bins.spread, galaxy.binned, galaxy.free
    for key in ("velocity", "sigma"):
        found[key.upper()] = getattr(free, key), "km/s"
        found[f"{key.upper()}_ERR"] = getattr(free, f"{key}_error"), "km/s"
        found[f"MODEL_{key.upper()}"] = galaxy.kinematics.maps[key], "km/s"
        found[f"BIN_{key.upper()}"] = spread(getattr(binned, key)), "km/s"
        found[f"BIN_{key.upper()}_ERR"] = spread(getattr(binned, f"{key}_error")), "km/s"
    found["CONTINUUM"] = galaxy.continuum, "MJy/sr"
    found["BINS"] = galaxy.bins.labels, ""
    metals = galaxy_metals.metallicity(binned.flux, binned.flux_error, calibration=galaxy.science.metallicity)
    found["BIN_OH"], found["BIN_OH_ERR"] = ((spread(value), "") for value in metals)
    if "Hb" in binned.flux:
        lines = (*(binned.flux[n] for n in ("Ha", "Hb")), *(binned.flux_error[n] for n in ("Ha", "Hb")))
        av = dust.balmer_av(*lines, law=galaxy.science.dust_law)
        found["BIN_AV"], found["BIN_AV_ERR"] = ((spread(value), "mag") for value in av)
    return found


def profiles(galaxy: Galaxy) -> Table:
    """Radial profiles: a row a ring.

    Parameters
    ----------
    galaxy : Galaxy
        What was measured.

    Returns
    -------
    astropy.table.Table
        ``radius``, ``low``, ``high`` (arcsec), ``radius_kpc``, ``spaxels``, and for each line the mean as observed with
        its error, erg s-1 cm-2 arcsec-2.
    """
    first = galaxy.rings["Ha"]
    table = Table({"radius": first.radius, "low": first.low, "high": first.high})
    table["radius_kpc"] = first.radius * galaxy.geometry.kpc_per_arcsec
    table["spaxels"] = first.count
    for name, ring in galaxy.rings.items():
        table[name], table[f"{name}_error"] = ring.mean, ring.error
        table[name].unit = table[f"{name}_error"].unit = _FLUX
    return table


def write(galaxy: Galaxy, layout: Layout, dataset: Dataset) -> list[Path]:
    """Write maps, profiles and the table of a galaxy.

    Parameters
    ----------
    galaxy : Galaxy
        What was measured.
    layout : Layout
        The run.
    dataset : Dataset
        Its description.

    Returns
    -------
    list of Path
        ``maps_<id>_<builder>.fits``, ``profiles_<id>_<builder>.ecsv``, ``report_<id>_<builder>.csv`` and ``.fits``
        under ``reduction/science``.
    """
    name = f"{galaxy.source_id}_{galaxy.builder}"
    primary = fits.PrimaryHDU()
    primary.header["SOURCEID"] = galaxy.source_id
    primary.header["REDSHIFT"] = (galaxy.redshift, "what velocities refer to")
    stamp(
        primary.header,
        dataset=dataset,
        inputs=[galaxy.cube.name],
        simulated=galaxy.cube.simulated or dataset.simulated,
        step="science",
    )
    hdus = [primary]
    for extension, (image, unit) in maps(galaxy).items():
        header = galaxy.cube.wcs.to_header()
        header["BUNIT"] = unit
        kind = np.int32 if np.issubdtype(image.dtype, np.integer) else np.float32
        hdus.append(fits.ImageHDU(image.astype(kind), header, name=extension))
    paths = [layout.science / f"maps_{name}.fits", layout.science / f"profiles_{name}.ecsv"]
    with atomic_path(paths[0]) as partial:
        fits.HDUList(hdus).writeto(partial, checksum=True)
    with atomic_path(paths[1]) as partial:
        profiles(galaxy).write(partial, format="ascii.ecsv")
    return paths + report.write_report(_table(galaxy, dataset), layout.science / f"report_{name}")


def measure_source(
    layout: Layout, dataset: Dataset, source_id: int, builder: str = "drizzle", *, sample: bool = True
) -> Galaxy:
    """Measure a galaxy of a run and write what was found; its inclination is the published (or injected) one.

    Parameters
    ----------
    layout : Layout
        The run.
    dataset : Dataset
        Its description.
    source_id : int
        The galaxy.
    builder : str
        Whose cube.
    sample : bool
        As in `galaxy.analyse`.

    Returns
    -------
    Galaxy
        What was measured.
    """
    known = report.published(source_id).get("inclination")
    inclination = known.value if known else report.injected(dataset, source_id).get("inclination", 0.0)
    galaxy = analyse(layout, dataset, source_id, builder, inclination_deg=inclination, sample=sample)
    write(galaxy, layout, dataset)
    return galaxy


def measure_targets(
    layout: Layout,
    dataset: Dataset,
    builder: str | None = None,
    *,
    sample: bool = True,
    workers: int | str | None = 1,
) -> dict[int, Galaxy]:
    """Measure all targets of a run and write what was found.

    Parameters
    ----------
    layout : Layout
        The run.
    dataset : Dataset
        Its description.
    builder : str, optional
        Whose cubes; those of the dataset's builder without it.
    sample : bool
        Sample the posterior of the kinematics of the case study; the others take errors from the curvature.
    workers : int or str, optional
        Processes, a galaxy each, as for `msa3d.pipeline.parallel.run_tasks`.

    Returns
    -------
    dict of int to Galaxy
        By source id. A galaxy whose lines are too faint is left out, and the log says why.
    """
    builder = builder or dataset.cubebuild.builder
    sampled = dataset.case_study if sample and dataset.science.sample else None
    # The case study first, the posterior of which takes longest.
    ids = sorted((target.source_id for target in dataset.targets), key=lambda one: one != dataset.case_study)
    tasks = [(layout, dataset, source_id, builder, source_id == sampled) for source_id in ids]
    made = dict(zip(ids, run_tasks(_measured, tasks, workers=workers, memory_gb_each=1.5), strict=True))
    for source_id, one in made.items():
        if isinstance(one, str):
            log.warning("source %d is not measured: %s", source_id, one)
    return {one.source_id: made[one.source_id] for one in dataset.targets if not isinstance(made[one.source_id], str)}


def _measured(task: tuple[Layout, Dataset, int, str, bool]) -> Galaxy | str:
    """Measure a galaxy; or say why not: a failure must not end the measurement of the others."""
    *what, sample = task
    try:
        return measure_source(*what, sample=sample)
    # A fit to noise can fail in any of these ways.
    except (ProductError, ValueError, KeyError, IndexError, np.linalg.LinAlgError) as error:
        return f"{type(error).__name__}: {error}"


def common_offset(found: Iterable[Galaxy]) -> Table:
    """Measure by how much all galaxies lie beside their positions in the catalogue: an error of target acquisition.

    Parameters
    ----------
    found : iterable of Galaxy
        Those that were measured.

    Returns
    -------
    `astropy.table.Table`
        One row per direction (``to`` is east or north): number of ``galaxies`` with errors, median of their ``offset``
        (centre of the starlight minus catalogue; a wrong centre hardly moves it) and its ``error``, arcsec, from the
        scatter or from the errors, whichever is larger; NaN without a galaxy.
    """
    rows = []
    known = [galaxy for galaxy in found if np.isfinite(galaxy.offset_covariance).all()]
    number = len(known)
    for axis, to in enumerate(("east", "north")):
        offset = error = np.nan
        if number:
            values = np.array([galaxy.offset_arcsec[axis] for galaxy in known])
            errors = np.sqrt([galaxy.offset_covariance[axis, axis] for galaxy in known])
            offset, spread = np.median(values), max(mad_std(values), float(np.median(errors)))
            # The median of many Gaussian values is less certain than their mean; that of one or two is the mean.
            error = spread * (np.sqrt(np.pi / 2.0) if number > 2 else 1.0) / np.sqrt(number)
        rows.append((to, number, float(offset), float(error)))
    table = Table(rows=rows, names=("to", "galaxies", "offset", "error"))
    for name in ("offset", "error"):
        table[name].unit, table[name].info.format = "arcsec", ".4f"
    return table


def _table(galaxy: Galaxy, dataset: Dataset) -> Table:
    return report.report_table(report.rows(galaxy, dataset), galaxy.source_id, simulated=galaxy.cube.simulated)
