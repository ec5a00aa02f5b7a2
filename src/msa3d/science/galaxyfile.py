"""What was measured of a galaxy, as a table of numbers and as files under ``reduction/science``."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.stats import mad_std
from astropy.table import Table

from msa3d.dataset import Dataset
from msa3d.errors import ProductError
from msa3d.layout import Layout
from msa3d.provenance import atomic_path, stamp
from msa3d.science import abundance, attenuation, report
from msa3d.science.calibration import DEFAULT_METALLICITY
from msa3d.science.disc import RE_OVER_SCALE_LENGTH
from msa3d.science.galaxy import Galaxy, analyse
from msa3d.science.report import Row
from msa3d.science.truelight import LINES_GIVEN

log = logging.getLogger(__name__)

STELLAR_PER_GAS = 0.44 * 4.05 / 3.1
"""A_V of the stars over that of the gas: 0.44 of E(B-V), R_V 4.05 and 3.1 (Calzetti et al. 2000)."""
_LN_PER_MAG = 0.4 * np.log(10.0)
_FLUX = "erg s-1 cm-2 arcsec-2"


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
        Of `report.completed`.
    """
    truth = report.injected(dataset, galaxy.source_id)
    measured = galaxy.stars.scale_arcsec * RE_OVER_SCALE_LENGTH
    # A rotation velocity is compared at the radius at which it was injected.
    radius = truth["re_disc_kpc"] / galaxy.geometry.kpc_per_arcsec if truth else measured
    found = [
        # The systemic velocity stands in the redshift: once is enough.
        *(row for row in report.disc_rows(galaxy.kinematics, radius) if row.quantity != "systemic"),
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
    return report.completed(found, dataset, galaxy.source_id)


def _gradients(galaxy: Galaxy, truth: dict[str, float]) -> list[Row]:
    found = []
    for name, gradient in galaxy.metallicity.items():
        default = name == DEFAULT_METALLICITY
        known = truth if default or name == "PP04_O3N2" else {}
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
    true_line = 1.0 / (1.0 / truth.get("scale_line", np.nan) + tilt * attenuation.curve("Ha"))
    true_stars = 1.0 / (1.0 / truth.get("scale_continuum", np.nan) + tilt * STELLAR_PER_GAS)
    ratio = line.scale_arcsec / stars.scale_arcsec
    error = abs(ratio) * np.hypot(line.scale_error / line.scale_arcsec, stars.scale_error / stars.scale_arcsec)
    per = RE_OVER_SCALE_LENGTH * galaxy.geometry.kpc_per_arcsec
    note = "not freed of dust"
    return [
        Row("scale_line", "arcsec", line.scale_arcsec, line.scale_error, true_line, note=f"Ha, {note}"),
        Row("scale_continuum", "arcsec", stars.scale_arcsec, stars.scale_error, true_stars, note=note),
        Row("scale_ratio", "", ratio, float(error), true_line / true_stars, note=f"Ha over continuum, {note}"),
        Row("re_disc_kpc", "kpc", stars.scale_arcsec * per, stars.scale_error * per, true_stars * per, note=note),
    ]


def _star_formation(galaxy: Galaxy, dataset: Dataset) -> list[Row]:
    found = galaxy.star_formation
    truth = np.log10(report.injected(dataset, galaxy.source_id).get("sfr", np.nan))
    paper = report.published(galaxy.source_id).get("sfr")
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
    """Light of each line to infinity, by its disc, not freed of dust."""
    note = "whole disc, not freed of dust"
    discs = {name: galaxy.discs[name] for name in LINES_GIVEN if name in galaxy.discs}
    return [
        Row(f"flux_{name}", report.FLUX_UNIT, disc.total * 1e17, disc.total_error * 1e17, note=note)
        for name, disc in discs.items()
    ]


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
    metals = abundance.metallicity(binned.flux, binned.flux_error)
    found["BIN_OH"], found["BIN_OH_ERR"] = ((spread(value), "") for value in metals)
    if "Hb" in binned.flux:
        lines = (*(binned.flux[n] for n in ("Ha", "Hb")), *(binned.flux_error[n] for n in ("Ha", "Hb")))
        av = attenuation.balmer_av(*lines)
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
        fits.HDUList(hdus).writeto(partial)
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
    layout: Layout, dataset: Dataset, builder: str | None = None, *, sample: bool = True
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

    Returns
    -------
    dict of int to Galaxy
        By source id. A galaxy whose lines are too faint is left out, and the log says why.
    """
    found = {}
    for target in dataset.targets:
        try:
            found[target.source_id] = measure_source(
                *(layout, dataset, target.source_id, builder or dataset.cubebuild.builder),
                sample=sample and target.source_id == dataset.case_study,
            )
        # A fit to noise can fail in any of these ways, and must not end the measurement of the other galaxies.
        except (ProductError, ValueError, KeyError, IndexError, np.linalg.LinAlgError) as error:
            log.warning("source %d is not measured: %s: %s", target.source_id, type(error).__name__, error)
    return found


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


HEADLINE = (
    *("sigma0", "v_sin_i_re", "redshift", "metallicity_gradient", "av_gradient", "log_sfr", "scale_line"),
    *("scale_continuum", "scale_ratio"),
)
"""Quantities of the report that the book quotes."""


def headline(found: dict[int, Galaxy], dataset: Dataset | None) -> dict[str, float]:
    """Give the numbers of the case study that the book quotes.

    Parameters
    ----------
    found : dict of int to Galaxy
        As `measure_targets` gives them.
    dataset : Dataset
        Its description.

    Returns
    -------
    dict of str to float
        ``headline_<quantity>_<column>`` for the columns published, injected, recovered, error and pull; NaN where
        there is none.
    """
    columns = ("published", "injected", "recovered", "error", "pull")
    values = {f"headline_{name}_{column}": float("nan") for name in HEADLINE for column in columns}
    galaxy = found.get(dataset.case_study) if found else None
    table = [] if galaxy is None else _table(galaxy, dataset)
    for row in table:
        if row["quantity"] in HEADLINE:
            values |= {f"headline_{row['quantity']}_{column}": float(row[column]) for column in columns}
    worst, rms, _ = (float("nan"), float("nan"), 0) if galaxy is None else report.pull_statistics(table)
    return values | {"headline_worst": worst, "headline_rms": rms}


def _table(galaxy: Galaxy, dataset: Dataset) -> Table:
    return report.report_table(rows(galaxy, dataset), galaxy.source_id, simulated=galaxy.cube.simulated)
