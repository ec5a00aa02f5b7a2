"""The observation before any light: pointings, open slitlets and the MSA metafile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msa3d.errors import DatasetError
from msa3d.observation.metafile import MsaFile
from msa3d_sim.geometry import SHUTTERS_PER_COLUMN, MsaPlane, Slitlet, tangent_offsets
from msa3d_sim.header import PlannedExposure, Pointing, header_model
from msa3d_sim.instrument import failed_closed

OPEN_OVER_PITCH = (77.0 / 105.0, 177.0 / 203.5)
"""Open size of a shutter over its pitch, along dispersion and across it."""


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
        Source id to an array (exposure, 2): where the source is in its primary shutter, as a fraction of
        the shutter's pitch with the origin in its lower left corner, as the planning tool writes it.
    """

    exposures: tuple[PlannedExposure, ...]
    slitlets: tuple[Slitlet, ...]
    shutter_positions: dict[int, np.ndarray]


def plan_observation(dataset) -> ObservationPlan:
    """Point the telescope through the pattern and open a slitlet on every source.

    Parameters
    ----------
    dataset : `msa3d.config.Dataset`
        With a ``simulation`` block.

    Returns
    -------
    ObservationPlan

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
    slitlets = open_slitlets(msa, simulation.sources)
    positions = {
        source.source_id: _positions_in_shutter(msa, exposures, slitlet, source)
        for slitlet, source in zip(slitlets, simulation.sources, strict=True)
    }
    fillers = filler_slitlets(slitlets, simulation.filler_slitlets)
    return ObservationPlan(exposures, slitlets + fillers, positions)


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


def open_slitlets(msa: MsaPlane, sources) -> tuple[Slitlet, ...]:
    """Open a slitlet on every source, in order of the sources.

    Parameters
    ----------
    msa : MsaPlane
        The MSA at the pattern's middle.
    sources : sequence
        With ``source_id``, ``ra``, ``dec`` (deg) and ``shutters``.

    Returns
    -------
    tuple of Slitlet

    Raises
    ------
    DatasetError
        A source is on no shutter, or the spectra of two slitlets would overlap.
    """
    slitlets: list[Slitlet] = []
    for number, source in enumerate(sources, start=1):
        x, y = msa.from_sky(source.ra, source.dec)
        found = msa.shutter_at(float(x[0]), float(y[0]))
        half = source.shutters // 2
        if found is None or not half < found[2] <= SHUTTERS_PER_COLUMN - half:
            raise DatasetError(
                f"source {source.source_id} of the simulation falls on no slitlet of {source.shutters} shutters: "
                "change simulation.ra_ref, dec_ref or v3_pa_deg, or leave the source out"
            )
        quadrant, row, column = found[:3]
        columns = tuple(range(column - half, column - half + source.shutters))
        slitlets.append(Slitlet(number, source.source_id, quadrant, row, columns, column))
    _refuse_overlaps(slitlets)
    return tuple(slitlets)


def filler_slitlets(slitlets, number: int) -> tuple[Slitlet, ...]:
    """Open slitlets of three shutters on empty sky, wherever there is room on working shutters.

    Parameters
    ----------
    slitlets : sequence of Slitlet
        Those on sources.
    number : int
        How many to add.

    Returns
    -------
    tuple of Slitlet
        With source id 0.

    Raises
    ------
    DatasetError
        There is no room for so many.
    """
    closed = set(map(tuple, failed_closed().tolist()))
    taken, fillers = list(slitlets), []
    places = ((q, row, c) for c in range(2, SHUTTERS_PER_COLUMN) for row in (120, 250) for q in (1, 2, 3, 4))
    for quadrant, row, column in places:
        if len(fillers) == number:
            break
        columns = (column - 1, column, column + 1)
        new = Slitlet(len(taken) + 1, 0, quadrant, row, columns, column)
        if any((quadrant, row, c) in closed for c in columns) or any(_overlap(new, other) for other in taken):
            continue
        taken.append(new)
        fillers.append(new)
    if len(fillers) < number:
        raise DatasetError(
            f"simulation.filler_slitlets is {number}, but there is room for {len(fillers)} only: ask for fewer"
        )
    return tuple(fillers)


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


def _positions_in_shutter(msa, exposures, slitlet: Slitlet, source) -> np.ndarray:
    """Where a source is in its primary shutter, exposure by exposure (fraction of the pitch)."""
    positions = np.empty((len(exposures), 2))
    shutter = (slitlet.quadrant, slitlet.row, slitlet.primary)
    for exposure in exposures:
        x, y = msa.from_sky(source.ra, source.dec, exposure.nominal)
        offset = msa.offset_in(shutter, float(x[0]), float(y[0]))
        positions[exposure.index] = np.multiply(offset, OPEN_OVER_PITCH) + 0.5
    return positions


def write_metafile(dataset, plan: ObservationPlan, path: Path) -> None:
    """Write the MSA metafile of the observation, marked as simulated.

    Parameters
    ----------
    dataset : `msa3d.config.Dataset`
        The observation.
    plan : ObservationPlan
        Its slitlets and pointings.
    path : `pathlib.Path`
        Where to.
    """
    shutters, sources = metafile_tables(dataset, plan)
    MsaFile.from_tables(shutters, sources, dataset).write(path, overwrite=True)


def metafile_tables(dataset, plan: ObservationPlan):
    """Rows of the metafile: shutters of every slitlet at every dither point, and the sources.

    Parameters
    ----------
    dataset : `msa3d.config.Dataset`
        The observation.
    plan : ObservationPlan
        Its slitlets and pointings.

    Returns
    -------
    shutters, sources : list of dict
        Keys are the column names of the extensions SHUTTER_INFO and SOURCE_INFO.
    """
    shutters = []
    for slitlet in plan.slitlets:
        for column in slitlet.columns:
            for exposure in plan.exposures:
                primary = column == slitlet.primary and slitlet.source_id > 0
                position = plan.shutter_positions[slitlet.source_id][exposure.index] if primary else (np.nan, np.nan)
                shutters.append(
                    {
                        "slitlet_id": slitlet.slitlet_id,
                        "msa_metadata_id": 1,
                        "shutter_quadrant": slitlet.quadrant,
                        "shutter_row": slitlet.row,
                        "shutter_column": column,
                        "source_id": slitlet.source_id if primary else 0,
                        "background": "N" if primary else "Y",
                        "shutter_state": "OPEN",
                        "estimated_source_in_shutter_x": position[0],
                        "estimated_source_in_shutter_y": position[1],
                        "dither_point_index": exposure.index + 1,
                        "primary_source": "Y" if primary else "N",
                    }
                )
    programme = int(dataset.programme)
    sources = [
        {
            "program": programme,
            "source_id": source.source_id,
            "source_name": f"{programme}_{source.source_id}",
            "alias": str(source.source_id),
            "ra": source.ra,
            "dec": source.dec,
            "preimage_id": "None",
            "stellarity": 0.0,
        }
        for source in dataset.simulation.sources
    ]
    return shutters, sources
