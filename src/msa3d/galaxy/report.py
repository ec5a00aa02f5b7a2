"""One table a galaxy: what was published, what was injected, what came back, with errors and pulls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from astropy.stats import gaussian_sigma_to_fwhm
from astropy.table import Column, Table

from msa3d.constants import C_KMS, LINES
from msa3d.errors import ProductError
from msa3d.galaxy import dust
from msa3d.galaxy.disc import RE_OVER_SCALE_LENGTH, Disc, kpc_per_arcsec
from msa3d.galaxy.discfit import fit_disc
from msa3d.galaxy.injected import LINES_GIVEN, line_discs
from msa3d.galaxy.lines import CURVES
from msa3d.pipeline.products import atomic_path

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.galaxy.measure import Galaxy

COLUMNS = (
    ("quantity", "name"),
    ("unit", "unit of all numbers of the row"),
    ("published", "published value"),
    ("published_error", "its error, mean of both sides"),
    ("injected", "what the simulation was made with"),
    ("recovered", "what was measured"),
    ("error", "its error, one sigma"),
    ("pull", "(recovered - injected) / error"),
    ("citation", "where the published value stands"),
    ("note", "what must be known to compare"),
)

FLUX_UNIT = "1e-17 erg s-1 cm-2"
INJECTED_BY = ("PP04_N2", "PP04_O3N2")
"""Calibrations by which a metallicity is injected, as ratios of lines; others make other numbers of the same ratios."""


@dataclass(frozen=True)
class Published:
    """A published value.

    Attributes
    ----------
    value, plus, minus : float
        The value and its errors to either side, NaN where none is given.
    unit : str
        In astropy's notation.
    citation : str
        Where it stands.
    """

    value: float
    plus: float
    minus: float
    unit: str
    citation: str

    @property
    def error(self) -> float:
        """Mean of both errors; that of one side where only one is given; NaN where none is."""
        known = [e for e in (self.plus, self.minus) if np.isfinite(e)]
        return float(np.mean(known)) if known else float("nan")


@cache
def survey() -> Table:
    """Published table of the survey (arXiv:2606.27853, Tables 1 and 2), a row a galaxy; NaN where nothing is given.

    Returns
    -------
    astropy.table.Table
        ``ID``, ``z``, ``RA``, ``Dec`` (ICRS, deg), ``logMstar`` (dex of solar masses), ``SFR`` (Msun/yr),
        ``incl`` (deg), ``Re_disk_kpc``, ``sigma0`` and ``Vrot_Re`` (km/s), ``vsig``, and errors ``e..._p`` (up) and
        ``e..._m`` (down).
    """
    text = resources.files("msa3d.galaxy").joinpath("data/survey.csv").read_text()
    return Table.read(text, format="ascii.csv", comment="#")


@dataclass(frozen=True)
class Row:
    """One quantity of a galaxy.

    Attributes
    ----------
    quantity, unit : str
        Name, and unit in astropy's notation.
    recovered, error : float
        Measured value and its error, one sigma; NaN where there is none.
    injected, published, published_error : float
        NaN where unknown.
    citation, note : str
        Where the published value stands; what must be known to compare.
    """

    quantity: str
    unit: str
    recovered: float = float("nan")
    error: float = float("nan")
    injected: float = float("nan")
    published: float = float("nan")
    published_error: float = float("nan")
    citation: str = ""
    note: str = ""

    @property
    def pull(self) -> float:
        """``(recovered - injected) / error``; NaN where one is unknown or the error is zero."""
        return (self.recovered - self.injected) / self.error if self.error > 0 else float("nan")


@cache
def _published() -> dict[str, Any]:
    text = resources.files("msa3d.galaxy").joinpath("data/published.yaml").read_text()
    return yaml.safe_load(text)


def published(source_id: int) -> dict[str, Published]:
    """Published values of a galaxy.

    Parameters
    ----------
    source_id : int
        As in the survey.

    Returns
    -------
    dict of str to Published
        By quantity; empty for a galaxy that nothing was typed of.
    """
    table = _published()
    nan = float("nan")
    return {
        name: Published(
            float(item["value"]),
            float(item.get("plus", nan)),
            float(item.get("minus", nan)),
            item["unit"],
            table["sources"][item["citation"]],
        )
        for name, item in table["galaxies"].get(source_id, {}).items()
    }


def injected(dataset, source_id: int) -> dict[str, float]:
    """What a simulated galaxy was made with, in the quantities that are measured.

    Parameters
    ----------
    dataset : msa3d.config.Dataset
        Its `simulation` tells.
    source_id : int
        The galaxy.

    Returns
    -------
    dict of str to float
        Empty for real data, and for a source that the simulation has no galaxy for. Angles in deg, velocities
        in km/s, ``scale_*`` and ``r_turn`` in arcsec, gradients per kpc, ``flux_<line>`` in `FLUX_UNIT`. No metallicity
        where the dataset's calibration is not one of `INJECTED_BY`.
    """
    simulation = getattr(dataset, "simulation", None)
    sources = [] if simulation is None else simulation.sources
    source = next((s for s in sources if s.source_id == source_id), None)
    if source is None:
        return {}
    stars = source.re_arcsec / RE_OVER_SCALE_LENGTH
    # Published is the speed at the half-light radius; the fit's parameter is the asymptote of the curve.
    v_sin_i_re = source.v_rot_kms * np.sin(np.radians(source.inclination_deg))
    unit = Disc(source.pa_deg, source.inclination_deg, 1.0, source.r_turn_arcsec)
    values = {
        "redshift": source.redshift,
        "systemic": 0.0,
        "offset_east": 0.0,
        "offset_north": 0.0,
        "log_mass": source.log_mass,
        "sfr": source.sfr_msun_yr,
        "sigma0": source.sigma0_kms,
        "v_rot": source.v_rot_kms,
        "v_sin_i": v_sin_i_re / float(unit.rotation(source.re_arcsec)),
        "v_sin_i_re": v_sin_i_re,
        "v_over_sigma": source.v_rot_kms / source.sigma0_kms,
        "pa_deg": source.pa_deg,
        "r_turn": source.r_turn_arcsec,
        "inclination": source.inclination_deg,
        "re_disc_kpc": source.re_arcsec * kpc_per_arcsec(source.redshift),
        "scale_continuum": stars,
        "scale_line": stars * source.sfr_scale_ratio,
        "scale_ratio": source.sfr_scale_ratio,
        "metallicity_centre": source.metallicity_centre,
        "metallicity_gradient": source.metallicity_gradient_dex_kpc,
        "av_centre": source.av_centre,
        "av_gradient": source.av_gradient_mag_kpc,
    }
    values |= {f"flux_{line}": 1e17 * flux for line, (flux, _) in line_discs(values).items()}
    if dataset.science.metallicity not in INJECTED_BY:
        values = {name: value for name, value in values.items() if not name.startswith("metallicity")}
    return {name: float(value) for name, value in values.items()}


def disc_rows(fit, re_arcsec: float | None = None) -> list[Row]:
    """Rows of a fitted disc.

    Parameters
    ----------
    fit : msa3d.galaxy.discfit.DiscFit
        The fit.
    re_arcsec : float, optional
        Radius at which the rotation curve is also given (``v_sin_i_re``): its asymptote is an extrapolation.

    Returns
    -------
    list of Row
        sigma0, v_sin_i, v_sin_i_re, v_over_sigma, pa_deg, r_turn, systemic, redshift; and effective_samples and
        autocorrelation_time (of the slowest parameter) if the posterior was sampled.
    """
    note = f"chi square divided by {fit.scale:.2f}: noise shared by neighbours, and banding"
    rows = [
        Row("sigma0", "km/s", fit.best["sigma0"], fit.error["sigma0"], note=note),
        Row("v_sin_i", "km/s", fit.best["v_sin_i"], fit.error["v_sin_i"], note="asymptote of the rotation curve"),
    ]
    if re_arcsec is not None:
        _, low, high = fit.rotation([re_arcsec])
        at_re = float(fit.disc.rotation(re_arcsec))
        rows.append(Row("v_sin_i_re", "km/s", at_re, 0.5 * float(high[0] - low[0]), note=f"at {re_arcsec:g} arcsec"))
    ratio, ratio_error = fit.v_over_sigma(re_arcsec)
    where = "asymptote of the rotation curve" if re_arcsec is None else f"at {re_arcsec:g} arcsec"
    rows.append(Row("v_over_sigma", "", ratio, ratio_error, note=f"{where}; inclination taken as known"))
    for name, unit in (("pa_deg", "deg"), ("r_turn", "arcsec"), ("systemic", "km/s")):
        rows.append(Row(name, unit, fit.best[name], fit.error[name]))
    per_kms = (1.0 + fit.redshift) / C_KMS
    redshift = fit.redshift + fit.best["systemic"] * per_kms
    rows.append(Row("redshift", "", redshift, fit.error["systemic"] * per_kms))
    if fit.convergence is not None:
        chain = fit.convergence
        rows.append(Row("effective_samples", "", chain.effective, note=chain.told))
        rows.append(Row("autocorrelation_time", "", chain.time, note=f"steps of the chain, of {chain.steps}"))
    return rows


STELLAR_PER_GAS = 0.44 * 4.05 / 3.1
"""A_V of the stars over that of the gas: 0.44 of E(B-V), R_V 4.05 and 3.1 (Calzetti et al. 2000)."""
_LN_PER_MAG = 0.4 * np.log(10.0)


def rows(galaxy: Galaxy, dataset: Dataset) -> list[Row]:
    """Numbers of a galaxy, with what was injected and published beside them.

    Scale lengths are those of the light as the dust lets it out; where something was injected, its scale length is
    tilted by the injected gradient of attenuation before it is compared. The star-formation rate has an error in
    the logarithm, and so its pull stands in the row ``log_sfr``.

    Parameters
    ----------
    galaxy : Galaxy
        What was measured.
    dataset : Dataset
        Says what was injected.

    Returns
    -------
    list of Row
        Of `completed`.
    """
    truth = injected(dataset, galaxy.source_id)
    measured = galaxy.stars.scale_arcsec * RE_OVER_SCALE_LENGTH
    # A rotation velocity is compared at the radius at which it was injected.
    radius = truth["re_disc_kpc"] / galaxy.geometry.kpc_per_arcsec if truth else measured
    found = [
        # The systemic velocity stands in the redshift: once is enough.
        *(row for row in disc_rows(galaxy.kinematics, radius) if row.quantity != "systemic"),
        Row("inclination", "deg", galaxy.geometry.inclination_deg, note="taken as known"),
        *(
            Row(f"offset_{name}", "arcsec", value, error, note="centre of the starlight minus catalogue")
            for name, value, error in zip(
                ("east", "north"), galaxy.offset_arcsec, np.sqrt(np.diag(galaxy.offset_covariance)), strict=True
            )
        ),
        *_gradients(galaxy, truth),
        *_scales(galaxy, truth),
        *_star_formation(galaxy, dataset),
        *_fluxes(galaxy),
    ]
    return completed(found, dataset, galaxy.source_id)


def _gradients(galaxy: Galaxy, truth: dict[str, float]) -> list[Row]:
    found = []
    for name, gradient in galaxy.metallicity.items():
        default = name == galaxy.science.metallicity
        known = truth if name in INJECTED_BY else {}
        for quantity, unit, value, error in (
            ("metallicity_gradient", "dex/kpc", gradient.slope, gradient.slope_error),
            ("metallicity_centre", "dex", gradient.centre, gradient.centre_error),
        ):
            row = Row(quantity if default else f"{quantity}_{name}", unit, value, error, note=gradient.method)
            found.append(_with(row, known.get(quantity, np.nan)))
    note = "Hb is not covered" if galaxy.av is None else galaxy.av.method
    for quantity, unit, which in (("av_gradient", "mag/kpc", "slope"), ("av_centre", "mag", "centre")):
        value, error = (np.nan if galaxy.av is None else getattr(galaxy.av, key) for key in (which, f"{which}_error"))
        found.append(Row(quantity, unit, value, error, note=note))
    return found


def _with(row: Row, injected: float) -> Row:
    return Row(row.quantity, row.unit, row.recovered, row.error, injected=injected, note=row.note)


def _scales(galaxy: Galaxy, truth: dict[str, float]) -> list[Row]:
    """Scale lengths of light as attenuated."""
    line, stars = galaxy.discs["Ha"], galaxy.stars
    tilt = truth.get("av_gradient", np.nan) * galaxy.geometry.kpc_per_arcsec * _LN_PER_MAG
    # The continuum's range is so near V that its attenuation is taken for A_V.
    true_line = 1.0 / (1.0 / truth.get("scale_line", np.nan) + tilt * dust.curve("Ha"))
    true_stars = 1.0 / (1.0 / truth.get("scale_continuum", np.nan) + tilt * STELLAR_PER_GAS)
    ratio = line.scale_arcsec / stars.scale_arcsec
    error = abs(ratio) * np.hypot(line.scale_error / line.scale_arcsec, stars.scale_error / stars.scale_arcsec)
    per = RE_OVER_SCALE_LENGTH * galaxy.geometry.kpc_per_arcsec
    note = "not corrected for dust"
    return [
        Row("scale_line", "arcsec", line.scale_arcsec, line.scale_error, true_line, note=f"Ha, {note}"),
        Row("scale_continuum", "arcsec", stars.scale_arcsec, stars.scale_error, true_stars, note=note),
        Row("scale_ratio", "", ratio, float(error), true_line / true_stars, note=f"Ha over continuum, {note}"),
        Row("re_disc_kpc", "kpc", stars.scale_arcsec * per, stars.scale_error * per, true_stars * per, note=note),
    ]


def _star_formation(galaxy: Galaxy, dataset: Dataset) -> list[Row]:
    found = galaxy.star_formation
    truth = np.log10(injected(dataset, galaxy.source_id).get("sfr", np.nan))
    paper = published(galaxy.source_id).get("sfr")
    known = {} if paper is None else {"published": float(np.log10(paper.value)), "citation": paper.citation}
    dex = found.sfr_error / found.sfr / np.log(10.0)
    if galaxy.hbeta_tied is None:
        lower = "lower limit: Hb is not covered, nothing taken off for dust"
        return [Row("sfr", "solMass/yr", found.sfr, note=lower)]
    low, high = found.sfr * 10.0**-dex, found.sfr * 10.0**dex
    return [
        Row("sfr", "solMass/yr", found.sfr, note=f"68%: {low:.2g} to {high:.2g}; pull: see log_sfr; {found.method}"),
        Row("log_sfr", "dex(solMass/yr)", float(np.log10(found.sfr)), float(dex), float(truth), note="", **known),
    ]


def _fluxes(galaxy: Galaxy) -> list[Row]:
    """Light of each line to infinity, by its disc, not corrected for dust."""
    note = "whole disc, not corrected for dust"
    discs = {name: galaxy.discs[name] for name in LINES_GIVEN if name in galaxy.discs}
    return [
        Row(f"flux_{name}", FLUX_UNIT, disc.total * 1e17, disc.total_error * 1e17, note=note)
        for name, disc in discs.items()
    ]


def completed(rows: Iterable[Row], dataset, source_id: int) -> list[Row]:
    """Enter what was injected and published into rows; quantities that were not measured get a row too.

    Parameters
    ----------
    rows : iterable of Row
        What was measured.
    dataset : msa3d.config.Dataset
        Tells what was injected.
    source_id : int
        The galaxy.

    Returns
    -------
    list of Row
        Measured quantities first, in their order, then published ones that were not measured.
    """
    truth, papers = injected(dataset, source_id), published(source_id)
    result, seen = [], set()
    for row in rows:
        seen.add(row.quantity)
        paper = papers.get(row.quantity)
        change: dict[str, Any] = {}
        if np.isnan(row.injected) and row.quantity in truth:
            change["injected"] = _beside(row, truth[row.quantity])
        if np.isnan(row.published) and paper is not None:
            change |= {"published": _beside(row, paper.value), "published_error": paper.error}
            change["citation"] = paper.citation
        result.append(replace(row, **change))
    for name, paper in papers.items():
        if name not in seen:
            value = truth.get(name, float("nan"))
            blank = Row(name, paper.unit, injected=value, published=paper.value, published_error=paper.error)
            result.append(replace(blank, citation=paper.citation, note="not measured"))
    return result


def _beside(row: Row, value: float) -> float:
    """A value as it is compared with the measured one: angles on the circle."""
    return row.recovered - _turn(row.recovered - value) if row.quantity == "pa_deg" else value


def _turn(angle: float) -> float:
    """Bring an angle into [-180, 180)."""
    return (angle + 180.0) % 360.0 - 180.0


def report_table(rows: Sequence[Row], source_id: int, *, simulated: bool) -> Table:
    """Put rows into a table.

    Parameters
    ----------
    rows : sequence of Row
        In the order of the table.
    source_id : int
        The galaxy.
    simulated : bool
        Whether the data are simulated; goes into the header.

    Returns
    -------
    astropy.table.Table
        Columns `COLUMNS`; numbers are in the unit of their row; NaN where unknown.

    Raises
    ------
    msa3d.errors.ProductError
        If a quantity is there twice.
    """
    names = [row.quantity for row in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ProductError(f"report of {source_id}: {', '.join(twice)} stands in more than one row; give each once")
    table = Table(meta={"SOURCEID": source_id, "SIMULATD": simulated})
    for name, text in COLUMNS:
        kind = str if name in ("quantity", "unit", "citation", "note") else float
        table[name] = Column([getattr(row, name) for row in rows], dtype=kind, description=text)
    return table


def line_spreads(galaxy: Galaxy, dataset: Dataset) -> Table:
    """Fit the disc of a galaxy again with each of the line-spread functions that can be chosen.

    The light, the centre and the noise of the cube are the same each time; only the width that is removed differs. The
    posterior is not sampled again.

    Parameters
    ----------
    galaxy : Galaxy
        What was measured, with one of them.
    dataset : Dataset
        Says what was injected.

    Returns
    -------
    astropy.table.Table
        A row per line-spread function: its name, its resolving power ``R`` and standard deviation ``sigma_lsf`` at Ha,
        ``sigma0`` of the gas with its ``error``, what was ``injected`` (NaN for a real galaxy), the ``pull``, and
        whether it is the one ``used`` for the report; km/s.
    """
    at = LINES["Ha"] * (1.0 + galaxy.redshift)
    place = {name: getattr(galaxy.geometry, name) for name in ("ra", "dec", "inclination_deg", "pa_deg")}
    if np.isfinite(galaxy.offset_covariance).all():
        place["centre_covariance"] = galaxy.offset_covariance
    truth = injected(dataset, galaxy.source_id).get("sigma0", np.nan)
    rows = []
    for curve in CURVES:
        used, spread = curve == galaxy.spread.curve, replace(galaxy.spread, curve=curve)
        fit = galaxy.kinematics
        if not used:
            fit = fit_disc(galaxy.cube, galaxy.redshift, **place, spread=spread, sample=False)
        width, value, error = spread.sigma_kms(at), fit.best["sigma0"], fit.error["sigma0"]
        resolving = C_KMS / (width * gaussian_sigma_to_fwhm)
        rows.append((curve, resolving, width, value, error, truth, (value - truth) / error, "yes" if used else "no"))
    names = ("line spread", "R", "sigma_lsf", "sigma0", "error", "injected", "pull", "used")
    table = Table(rows=rows, names=names)
    for name, form in zip(names[1:-1], (".0f", ".1f", ".1f", ".1f", ".1f", ".1f"), strict=True):
        table[name].info.format = form
    for name in names[2:-2]:
        table[name].unit = "km/s"
    return table


FOLLOWING = ("re_disc_kpc", "v_sin_i", "v_over_sigma", "offset_east", "offset_north")
"""Quantities that repeat others: Re the scale length, asymptote and V/sigma the rotation at Re."""
_SHARED = ("scale_ratio", "log_sfr", "av_centre", "metallicity_centre")


def counts(quantity: str) -> bool:
    """Whether a quantity is counted where pulls are combined, so that what is measured once counts once.

    Beside `FOLLOWING`, the ratio of the two scale lengths, and what is made of the fluxes of the lines (star formation,
    A_V and O/H at the centre) are not; nor is a further metallicity calibration. Fluxes and gradients are.
    """
    again = quantity.startswith(("metallicity_gradient_", "metallicity_centre_"))
    return not again and quantity not in FOLLOWING and quantity not in _SHARED


def write_report(table: Table, stem: str | Path) -> list[Path]:
    """Write a table as CSV and as FITS.

    Parameters
    ----------
    table : astropy.table.Table
        Of `report_table`.
    stem : str or pathlib.Path
        Path without its ending.

    Returns
    -------
    list of pathlib.Path
        The two files, each whole.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, kind in ((".csv", "ascii.csv"), (".fits", "fits")):
        path = stem.with_name(stem.name + suffix)
        with atomic_path(path) as partial:
            plain = table.copy() if suffix == ".csv" else table
            if suffix == ".csv":
                plain.meta = {}
            plain.write(partial, format=kind, overwrite=True)
        paths.append(path)
    return paths
