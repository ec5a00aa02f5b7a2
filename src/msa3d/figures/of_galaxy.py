"""Figures of a galaxy that was measured: what `msa3d.science.galaxy` found, handed to the modules that draw it."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from msa3d.dataset import Dataset
from msa3d.figures import attenuation, kinematics, metallicity, sfr_profile
from msa3d.figures.atlas import Entry
from msa3d.figures.radial import Points
from msa3d.science import abundance, report
from msa3d.science.attenuation import balmer_av
from msa3d.science.calibration import DEFAULT_METALLICITY
from msa3d.science.disc import Disc
from msa3d.science.galaxy import Galaxy
from msa3d.science.profiles import Exponential, Rings

AV_ERROR = 1.0
"""Attenuation is mapped where its error is smaller, mag: chosen by the error, not by the value."""

AV_SHOWN = (0.0, 3.0)
"""Colours of the map, mag: noise makes negative values, which no dust does. More where rings have more."""

_DRAWS = 300


def plot_kinematics(dataset: Dataset, galaxy: Galaxy) -> Figure:
    """Draw velocity, dispersion, disc and rotation curve; what was put in and published beside the curve."""
    fit = galaxy.kinematics
    centre = np.array([galaxy.geometry.ra, galaxy.geometry.dec])
    east, north = galaxy.cube.offsets(*centre)
    seen = fit.maps["used"].astype(bool)
    end = float(np.percentile(fit.disc.radius_azimuth(east, north)[0][seen], 98.0)) if seen.any() else 1.0
    rotation = kinematics.Rotation.from_draws(fit.names, fit.draws(_DRAWS), fit.disc, np.linspace(0.0, end, 60))
    known, told = report.injected(dataset, galaxy.source_id), report.published(galaxy.source_id)
    injected = None
    if {"v_sin_i", "r_turn"} <= known.keys():
        injected = Disc(fit.disc.pa_deg, fit.disc.inclination_deg, known["v_sin_i"], known["r_turn"])
    published = None
    if {"v_rot", "inclination", "re_disc_kpc"} <= told.keys():
        # Published deprojected, at the half-light radius of the disc.
        speed, radius = told["v_rot"], told["re_disc_kpc"].value / galaxy.geometry.kpc_per_arcsec
        sine = float(np.sin(np.radians(told["inclination"].value)))
        published = (radius, speed.value * sine, 0.5 * (speed.plus + speed.minus) * sine)
    return kinematics.plot(
        dataset, galaxy.cube, fit.maps, fit.disc, rotation,
        injected=injected, published=published, source_id=galaxy.source_id, centre=tuple(centre),
    )  # fmt: skip


def plot_metallicity(dataset: Dataset, galaxy: Galaxy, calibration: str = DEFAULT_METALLICITY) -> Figure:
    """Draw the metallicity of bins and rings, and its gradient."""
    value, _ = abundance.metallicity(galaxy.binned.flux, galaxy.binned.flux_error, calibration=calibration)
    rings = galaxy.rings
    means, errors = ({name: getattr(ring, key) for name, ring in rings.items()} for key in ("mean", "error"))
    points = abundance.metallicity(means, errors, calibration=calibration, snr=2.0)
    known, told = report.injected(dataset, galaxy.source_id), report.published(galaxy.source_id)
    return metallicity.plot(
        dataset, galaxy.cube, galaxy.bins.spread(value), Points(_kpc(galaxy, rings["Ha"]), *points),
        galaxy.metallicity.get(calibration), injected=_pair(known, "metallicity"),
        published=_told(told, "metallicity_gradient"), source_id=galaxy.source_id,
    )  # fmt: skip


def plot_attenuation(dataset: Dataset, galaxy: Galaxy) -> Figure | None:
    """Draw the attenuation of bins and rings, and its gradient; None for a galaxy whose Hb is not covered."""
    if galaxy.av is None:
        return None
    flux, error, rings = galaxy.binned.flux, galaxy.binned.flux_error, galaxy.rings
    value, sigma = balmer_av(flux["Ha"], flux["Hb"], error["Ha"], error["Hb"])
    with np.errstate(invalid="ignore"):
        value = np.where(sigma < AV_ERROR, value, np.nan)
    points = balmer_av(rings["Ha"].mean, rings["Hb"].mean, rings["Ha"].error, rings["Hb"].error)
    with np.errstate(invalid="ignore"):
        points = [np.where(points[1] < 3.0 * AV_ERROR, part, np.nan) for part in points]
    most = max(AV_SHOWN[1], float(np.nanmax(points[0], initial=0.0)))
    return attenuation.plot(
        dataset, galaxy.cube, galaxy.bins.spread(value), Points(_kpc(galaxy, rings["Ha"]), *points), galaxy.av,
        injected=_pair(report.injected(dataset, galaxy.source_id), "av"), source_id=galaxy.source_id,
        limits=(AV_SHOWN[0], most),
    )  # fmt: skip


def plot_sfr_profile(dataset: Dataset, galaxy: Galaxy, continuum: Rings, injected: dict[str, float]) -> Figure:
    """Draw star formation against the stellar continuum.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    galaxy : Galaxy
        What was measured.
    continuum : Rings
        Of the image of the continuum (`profiles.rings`), the constant beneath the disc not yet taken off.
    injected : dict of str to float
        ``scale_line`` and ``scale_continuum`` that were put in, arcsec, as the dust lets the light out; may be empty.

    Returns
    -------
    matplotlib.figure.Figure
        See `sfr_profile.plot`.
    """
    found, geometry = galaxy.star_formation, galaxy.geometry
    # One decrement for the whole disc: light turns into star formation by a constant. Face on.
    factor = found.sfr / found.halpha / geometry.kpc_per_arcsec**2 * geometry.cos_inclination
    gas = _profile(galaxy.discs["Ha"], galaxy.rings["Ha"], factor, injected.get("scale_line", np.nan))
    stars = _profile(galaxy.stars, continuum, 1.0, injected.get("scale_continuum", np.nan))
    return sfr_profile.plot(dataset, gas, stars, source_id=galaxy.source_id, simulated=galaxy.cube.simulated)


def atlas_entry(dataset: Dataset, galaxy: Galaxy) -> Entry:
    """Make the row of an atlas: velocities are those of the bins."""
    with np.errstate(invalid="ignore"):
        speed = np.where(galaxy.binned.velocity_error < 60.0, galaxy.binned.velocity, np.nan)
    return Entry(dataset.target(galaxy.source_id), galaxy.cube, galaxy.bins.spread(speed))


def _profile(disc: Exponential, rings: Rings, factor: float, injected: float) -> sfr_profile.Profile:
    with np.errstate(invalid="ignore"):
        # On a logarithmic scale only what is there with some certainty.
        value = (rings.mean - disc.background) * factor
        value = np.where(value > rings.error * factor, value, np.nan)
    centre = float(np.exp(disc.log_centre)) * factor
    return sfr_profile.Profile(
        rings.radius, value, rings.error * factor, disc.scale_arcsec, disc.scale_error, centre, injected
    )


def _kpc(galaxy: Galaxy, rings: Rings) -> np.ndarray:
    return rings.radius * galaxy.geometry.kpc_per_arcsec


def _pair(known: dict[str, float], name: str) -> tuple[float, float] | None:
    """Centre and gradient of what was put in."""
    keys = {f"{name}_centre", f"{name}_gradient"}
    return (known[f"{name}_centre"], known[f"{name}_gradient"]) if keys <= known.keys() else None


def _told(told: dict, name: str) -> tuple[float, float] | None:
    """Published value and its mean error."""
    return (told[name].value, 0.5 * (told[name].plus + told[name].minus)) if name in told else None
