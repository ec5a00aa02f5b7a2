"""The observation before any light: pointings, open slitlets, the MSA metafile, and headers of rate images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.time import Time, TimeDelta

from msa3d.errors import DatasetError
from msa3d.observation.metafile import MsaFile
from msa3d.pipeline.products import mark_simulated
from msa3d_sim.geometry import (
    SHUTTERS_PER_COLUMN,
    V2_REF_ARCSEC,
    V3_IDEAL_Y_ANGLE_DEG,
    V3_REF_ARCSEC,
    MsaPlane,
    Pointing,
    Slitlet,
    tangent_offsets,
)
from msa3d_sim.instrument import (
    FRAME_SECONDS,
    FRAMES_PER_GROUP,
    GROUP_SECONDS,
    exposure_seconds,
    failed_closed,
)

_OPEN_OVER_PITCH = (77.0 / 105.0, 177.0 / 203.5)
"""Open size of a shutter over its pitch, along dispersion and across it."""


_OVERHEAD_SECONDS = 160.0
"""From the start of one exposure of the pattern to the next, beyond the exposure itself (ours, plausible)."""
_GWA_TILT = (0.3604269619999987, 0.1330158)
"""Grating wheel sensor readings (x, y), at the zero readings of the G140H calibration."""
_VA_SCALE = 1.00003


@dataclass(frozen=True)
class PlannedExposure:
    """One exposure of the pattern.

    Attributes
    ----------
    index : int
        Place in observing order, from 0.
    activity : str
        Visit group, sequence and base-36 activity, as in the file name.
    row, column : int
        Place in the pattern: cross-dispersion dither and dispersion step.
    nominal, true : Pointing
        What the header says and where the telescope really looked.
    offset_arcsec : tuple of float
        Commanded offset from the pattern's middle, along dispersion and across it.
    """

    index: int
    activity: str
    row: int
    column: int
    nominal: Pointing
    true: Pointing
    offset_arcsec: tuple[float, float]

    @property
    def configuration(self) -> int:
        """Number of its configuration in the metafile (MSAMETID)."""
        return self.index + 1


@dataclass(frozen=True)
class ObservationPlan:
    """What the simulated telescope does.

    Attributes
    ----------
    exposures : tuple of PlannedExposure
        In observing order.
    slitlets : tuple of Slitlet
        Open throughout.
    shutter_positions : dict
        Source id to an array (exposure, 2): where the source is, in pitches of the shutters, with the origin in the
        lower left corner of its slitlet's primary shutter. The source is in its slitlet where the first is
        between 0 and 1; the second then tells in which of its shutters.
    slitlet_positions : dict
        Slitlet id to an array (exposure, 2): where on the sky the middle of its primary shutter looks (deg).
    """

    exposures: tuple[PlannedExposure, ...]
    slitlets: tuple[Slitlet, ...]
    shutter_positions: dict[int, np.ndarray]
    slitlet_positions: dict[int, np.ndarray]


def plan_observation(dataset) -> ObservationPlan:
    """Point the telescope through the pattern and open a slitlet on every source.

    Raises
    ------
    DatasetError
        A source falls on no shutter, or two slitlets overlap.
    """
    simulation = dataset.simulation
    centre = Pointing(simulation.ra_ref, simulation.dec_ref, simulation.v3_pa_deg)
    middle = PlannedExposure(0, simulation.activity(0), 0, 0, centre, centre, (0.0, 0.0))
    msa = MsaPlane(header_model(dataset, middle, "NRS1", centre))
    exposures = _exposures(dataset, centre, _axes_on_sky(msa))
    slitlets = _open_slitlets(msa, simulation.sources)
    places = _positions_in_shutters(msa, exposures, slitlets, simulation.sources)
    background = background_slitlets(slitlets, simulation.background_slitlets)
    return ObservationPlan(exposures, slitlets + background, places, _slitlets_on_sky(msa, exposures, slitlets))


def _axes_on_sky(msa: MsaPlane) -> np.ndarray:
    """Unit vectors (east, north) on the sky of the MSA's dispersion and cross-dispersion axes."""
    step_m = 1e-4
    x = np.array([0.0, step_m, 0.0])
    y = np.array([0.0, 0.0, step_m])
    ra, dec = msa.to_sky(x, y)
    east, north = tangent_offsets(ra, dec, ra[0], dec[0])
    axes = np.stack([[east[1], north[1]], [east[2], north[2]]])
    return axes / np.linalg.norm(axes, axis=1, keepdims=True)


def _exposures(dataset, centre: Pointing, axes: np.ndarray) -> tuple[PlannedExposure, ...]:
    """Pointings of the pattern, with the telescope's own errors on top."""
    pattern, simulation = dataset.pattern, dataset.simulation
    # Rows go down the MSA: the slit then moves up the rectified spectra, as the published stacking takes for granted.
    rng = np.random.default_rng([simulation.seed, 1])
    exposures = []
    for index in range(pattern.n_exposures):
        row, column = pattern.place(index)
        offset = (
            (column - (pattern.columns - 1) / 2) * pattern.column_step_arcsec,
            -(row - (pattern.rows - 1) / 2) * pattern.row_step_arcsec,
        )
        error = rng.normal(0.0, simulation.pointing_error_arcsec, 2)
        nominal = _moved(centre, np.array(offset) @ axes)
        true = _moved(centre, (np.array(offset) + error) @ axes)
        exposures.append(PlannedExposure(index, simulation.activity(index), row, column, nominal, true, offset))
    return tuple(exposures)


def _moved(pointing: Pointing, east_north_arcsec: np.ndarray) -> Pointing:
    """A pointing moved on the sky by a small offset."""
    from astropy.coordinates import SkyCoord
    from astropy.units import arcsec, deg

    start = SkyCoord(pointing.ra * deg, pointing.dec * deg)
    moved = start.spherical_offsets_by(east_north_arcsec[0] * arcsec, east_north_arcsec[1] * arcsec)
    return Pointing(float(moved.ra.deg), float(moved.dec.deg), pointing.roll)


def _open_slitlets(msa: MsaPlane, sources) -> tuple[Slitlet, ...]:
    """Open a slitlet on every source, in their order, with the MSA at the pattern's middle."""
    slitlets: list[Slitlet] = []
    for number, source in enumerate(sources, start=1):
        x, y = msa.from_sky(source.ra, source.dec)
        found = msa.shutter_at(float(x[0]), float(y[0]))
        below = source.shutters // 2 - source.slitlet_shift
        if found is None or not below < found[2] <= SHUTTERS_PER_COLUMN - source.shutters + below + 1:
            raise DatasetError(
                f"source {source.source_id} of the simulation falls on no slitlet of {source.shutters} shutters: "
                "change simulation.ra_ref, dec_ref or v3_pa_deg, or leave the source out"
            )
        quadrant, row, column = found[:3]
        columns = tuple(range(column - below, column - below + source.shutters))
        slitlets.append(Slitlet(number, source.source_id, quadrant, row, columns, column))
    _refuse_overlaps(slitlets)
    return tuple(slitlets)


def background_slitlets(slitlets, number: int) -> tuple[Slitlet, ...]:
    """Open background slitlets of three working shutters (source id 0) on empty sky, wherever there is room.

    Raises
    ------
    DatasetError
        There is no room for so many.
    """
    closed = set(map(tuple, failed_closed().tolist()))
    taken, found = list(slitlets), []
    places = ((q, row, c) for c in range(2, SHUTTERS_PER_COLUMN) for row in (120, 250) for q in (1, 2, 3, 4))
    for quadrant, row, column in places:
        if len(found) == number:
            break
        columns = (column - 1, column, column + 1)
        new = Slitlet(len(taken) + 1, 0, quadrant, row, columns, column)
        if any((quadrant, row, c) in closed for c in columns) or any(_overlap(new, other) for other in taken):
            continue
        taken.append(new)
        found.append(new)
    if len(found) < number:
        raise DatasetError(
            f"simulation.background_slitlets is {number}, but there is room for {len(found)} only: ask for fewer"
        )
    return tuple(found)


def _overlap(first: Slitlet, second: Slitlet) -> bool:
    """Whether the spectra of two slitlets touch; quadrants 1 and 3 lie side by side, as do 2 and 4."""
    return first.quadrant % 2 == second.quadrant % 2 and (
        first.columns[0] - 1 <= second.columns[-1] and second.columns[0] - 1 <= first.columns[-1]
    )


def _refuse_overlaps(slitlets) -> None:
    """Slitlets side by side along dispersion send their spectra onto the same pixels."""
    for i, first in enumerate(slitlets):
        for second in slitlets[i + 1 :]:
            if _overlap(first, second):
                raise DatasetError(
                    f"the spectra of sources {first.source_id} and {second.source_id} of the simulation overlap: "
                    "leave one of them out, or change simulation.v3_pa_deg"
                )


def _positions_in_shutters(msa: MsaPlane, exposures, slitlets, sources) -> dict[int, np.ndarray]:
    """Where each source is, exposure by exposure, from the corner of its primary shutter (pitches)."""
    ra, dec = np.array([(source.ra, source.dec) for source in sources]).T
    # All sources at once: a pointing's transform costs more than the positions.
    planes = np.array([msa.from_sky(ra, dec, exposure.nominal) for exposure in exposures])
    found = {}
    for slitlet, x, y in zip(slitlets, planes[:, 0].T, planes[:, 1].T, strict=True):
        offset = msa.offset_in((slitlet.quadrant, slitlet.row, slitlet.primary), x, y)
        found[slitlet.source_id] = np.stack(offset, axis=1) * _OPEN_OVER_PITCH + 0.5
    return found


def _slitlets_on_sky(msa: MsaPlane, exposures, slitlets) -> dict[int, np.ndarray]:
    """Where the middle of each slitlet's primary shutter looks, exposure by exposure (deg)."""
    x, y = np.array([msa.middle_of((s.quadrant, s.row, s.primary)) for s in slitlets]).T
    sky = np.array([msa.to_sky(x, y, exposure.nominal) for exposure in exposures])
    return {slitlet.slitlet_id: sky[:, :, number] for number, slitlet in enumerate(slitlets)}


def write_metafile(dataset, plan: ObservationPlan, path: Path) -> None:
    """Write the MSA metafile of the observation, marked as simulated."""
    shutters, sources = metafile_tables(dataset, plan)
    MsaFile.from_tables(shutters, sources, dataset).write(path, overwrite=True)


def metafile_tables(dataset, plan: ObservationPlan):
    """Rows of SHUTTER_INFO and SOURCE_INFO, as lists of dict by column name.

    As in the real observation, every exposure is a configuration of its own (``msa_metadata_id``) with one dither
    point, which the planning tool filled on its own: it knows the source of a slitlet only where the pointing has it
    in one of the slitlet's shutters. Where the step has carried it out, all rows of the slitlet have one negative id,
    of a virtual source in the middle of a shutter, or, every third slitlet, are background (0). Both occur in real
    metafiles. Background slitlets are 0 throughout.
    """
    shutters, virtual = [], []
    for exposure in plan.exposures:
        for slitlet in plan.slitlets:
            source_id, column, position = _held(plan, slitlet, exposure.index)
            if column is None and slitlet.source_id and slitlet.slitlet_id % 3:
                source_id, column, position = -len(virtual) - 1, slitlet.primary, (0.5, 0.5)
                virtual.append((source_id, *plan.slitlet_positions[slitlet.slitlet_id][exposure.index]))
            shutters += _rows(slitlet, exposure.configuration, source_id, column, position)
    named = [(source.source_id, source.ra, source.dec) for source in dataset.simulation.sources]
    programme = int(dataset.programme)
    sources = [
        {
            "program": programme,
            "source_id": source_id,
            "source_name": f"{programme}_{source_id}",
            "alias": str(source_id),
            "ra": ra,
            "dec": dec,
            "preimage_id": "None",
            "stellarity": 0.0,
        }
        for source_id, ra, dec in named + virtual
    ]
    return shutters, sources


def _held(plan: ObservationPlan, slitlet: Slitlet, index: int) -> tuple[int, int | None, tuple[float, float]]:
    """The source that a slitlet holds in an exposure, in which column, and where in that shutter (pitches)."""
    nothing = (0, None, (np.nan, np.nan))
    if not slitlet.source_id:
        return nothing
    x, y = plan.shutter_positions[slitlet.source_id][index]
    column = slitlet.primary + int(np.floor(y))
    if not 0 <= x <= 1 or column not in slitlet.columns:
        return nothing
    return slitlet.source_id, column, (x, y % 1.0)


def _rows(slitlet: Slitlet, configuration: int, source_id: int, primary: int | None, position) -> list[dict]:
    """Rows of SHUTTER_INFO of a slitlet in one configuration."""
    return [
        {
            "slitlet_id": slitlet.slitlet_id,
            "msa_metadata_id": configuration,
            "shutter_quadrant": slitlet.quadrant,
            "shutter_row": slitlet.row,
            "shutter_column": column,
            "source_id": source_id,
            "background": "N" if column == primary else "Y",
            "shutter_state": "OPEN",
            "estimated_source_in_shutter_x": position[0] if column == primary else np.nan,
            "estimated_source_in_shutter_y": position[1] if column == primary else np.nan,
            "dither_point_index": 1,
            "primary_source": "Y" if column == primary else "N",
        }
        for column in slitlet.columns
    ]


def rate_name(dataset, activity: str, detector: str) -> str:
    """File name of a rate image."""
    visit = f"jw{dataset.programme}{dataset.observation}{dataset.visit}"
    return f"{visit}_{activity}_00001_{detector.lower()}_rate.fits"


def primary_header(dataset, exposure: PlannedExposure, detector: str) -> fits.Header:
    """Primary header of a rate image, marked as simulated: the keywords that jwst 1.14.0 and its users read."""
    seconds = exposure_seconds(dataset.simulation.groups)
    start = Time(dataset.simulation.date, scale="utc") + TimeDelta(
        exposure.index * (seconds + _OVERHEAD_SECONDS), format="sec"
    )
    end = start + TimeDelta(seconds, format="sec")
    fast = 2 if detector == "NRS1" else -2
    day, hour = start.isot.split("T")
    cards = {
        "TELESCOP": "JWST", "INSTRUME": "NIRSPEC", "ORIGIN": "STSCI", "DATAMODL": "ImageModel",
        "FILENAME": rate_name(dataset, exposure.activity, detector), "FILETYPE": "countrate",
        "DATE": start.isot, "SDP_VER": "msa3d", "CAL_VER": "1.14.0",
        "TITLE": "Slit-stepping of galaxies at z about 1", "PI_NAME": "Barisic",
        "CATEGORY": "GO", "SUBCAT": "NONE", "SCICAT": "Galaxies", "PROGRAM": dataset.programme,
        "OBSERVTN": dataset.observation, "VISIT": dataset.visit, "VISITGRP": exposure.activity[:2],
        "SEQ_ID": exposure.activity[2], "ACT_ID": exposure.activity[3:], "EXPOSURE": "1",
        "OBSLABEL": "slit stepping", "DATE-OBS": day, "TIME-OBS": hour,
        "TARGPROP": "EGS", "TARGNAME": "EGS", "TARGTYPE": "FIXED", "TARG_RA": dataset.simulation.ra_ref,
        "TARG_DEC": dataset.simulation.dec_ref, "VISITYPE": "PRIME_TARGETED_FIXED",
        "DETECTOR": detector, "FILTER": dataset.filter, "GRATING": dataset.grating,
        "GWA_XTIL": _GWA_TILT[0], "GWA_YTIL": _GWA_TILT[1], "GWA_TTIL": 37.5, "LAMP": "NONE", "OPMODE": "NONE",
        "MSASTATE": "CONFIGURED",
        "MSAMETFL": dataset.metafile, "MSAMETID": exposure.configuration, "FOCUSPOS": 0.0,
        "EXP_TYPE": "NRS_MSASPEC", "EXPSTART": start.mjd, "EXPMID": 0.5 * (start.mjd + end.mjd), "EXPEND": end.mjd,
        "READPATT": "NRSIRS2", "NINTS": 1, "NGROUPS": dataset.simulation.groups, "NFRAMES": FRAMES_PER_GROUP,
        "FRMDIVSR": FRAMES_PER_GROUP, "GROUPGAP": 0, "NSAMPLES": 1, "TSAMPLE": 10.0, "TFRAME": FRAME_SECONDS,
        "TGROUP": GROUP_SECONDS, "EFFINTTM": seconds, "EFFEXPTM": seconds, "DURATION": seconds,
        "SUBARRAY": "FULL", "SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 2048, "SUBSIZE2": 2048,
        "FASTAXIS": fast, "SLOWAXIS": 1 if detector == "NRS1" else -1,
        "PATTTYPE": "NONE", "PATT_NUM": 1, "NUMDTHPT": 1,
        "XOFFSET": exposure.offset_arcsec[0], "YOFFSET": exposure.offset_arcsec[1],
        "APERNAME": "NRS_FULL_MSA", "ENGQLPTG": "CALCULATED_TRACK_TR_202111",
        "PA_V3": exposure.nominal.roll, "VA_SCALE": _VA_SCALE,
        "S_DQINIT": "COMPLETE", "S_SATURA": "COMPLETE", "S_SUPERB": "COMPLETE", "S_REFPIX": "COMPLETE",
        "S_LINEAR": "COMPLETE", "S_DARK": "COMPLETE", "S_JUMP": "COMPLETE", "S_RAMP": "COMPLETE",
        "S_GANSCL": "COMPLETE",
    }  # fmt: skip
    header = fits.Header()
    for keyword, value in cards.items():
        header[keyword] = value
    mark_simulated(header)
    return header


def science_header(pointing: Pointing) -> fits.Header:
    """Header of the SCI extension: the pointing as the telescope reports it."""
    header = fits.Header()
    cards = {
        "EXTNAME": "SCI", "BUNIT": "DN/s", "WCSAXES": 2, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg", "CUNIT2": "deg", "CRVAL1": pointing.ra, "CRVAL2": pointing.dec, "CRPIX1": 1024.5,
        "CRPIX2": 1024.5, "CDELT1": 2.9e-5, "CDELT2": 2.9e-5, "RADESYS": "ICRS", "V2_REF": V2_REF_ARCSEC,
        "V3_REF": V3_REF_ARCSEC, "VPARITY": -1, "V3I_YANG": V3_IDEAL_Y_ANGLE_DEG, "RA_REF": pointing.ra,
        "DEC_REF": pointing.dec, "ROLL_REF": pointing.roll, "RA_V1": pointing.ra, "DEC_V1": pointing.dec,
        "PA_V3": pointing.roll,
    }  # fmt: skip
    for keyword, value in cards.items():
        header[keyword] = value
    return header


def header_model(dataset, exposure: PlannedExposure, detector: str, pointing: Pointing):
    """Empty `jwst.datamodels.ImageModel` with the header of an exposure and a pointing, for the optics."""
    from stdatamodels.jwst import datamodels

    science = fits.ImageHDU(np.zeros((8, 8), np.float32), header=science_header(pointing))
    primary = fits.PrimaryHDU(header=primary_header(dataset, exposure, detector))
    return datamodels.ImageModel(fits.HDUList([primary, science]))
