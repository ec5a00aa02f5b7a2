"""A slit-stepping run of made-up calibrated slits: known sky, known geometry, no jwst."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from msa3d.cube.sky import from_tangent
from msa3d.cube.slitgeometry import SlitGeometry
from msa3d.dataset import Dataset
from msa3d.layout import POST_SUFFIX, Layout

from ..steps.calfiles import slit_geometry, write_cal

RA, DEC = 215.05, 52.938
NY, NX = 18, 60
WIDTH, HEIGHT = 0.2, 0.2265 * 0.458
ERROR = 0.05


def dataset(rows: int = 3, columns: int = 3, **drizzle) -> Dataset:
    """The packaged `tiny`, of another size and with other parameters of the drizzle builder."""
    tiny = Dataset.load("tiny")
    settings = tiny.cubebuild.model_copy(
        update={"drizzle": tiny.cubebuild.drizzle.model_copy(update=drizzle), "also": []}
    )
    pattern = tiny.pattern.model_copy(update={"rows": rows, "columns": columns})
    return tiny.model_copy(update={"pattern": pattern, "cubebuild": settings})


def activities(count: int) -> list[str]:
    return [f"03{index:03d}" for index in range(101, 101 + count)]


def geometry_at(east: float, north: float, pa_deg: float, tilt: float = 0.004) -> SlitGeometry:
    """A straight slit whose middle looks at some offsets (arcsec), +y along a position angle."""
    slit = slit_geometry(NY, NX, tilt)
    reach = slit.domain[2, 1] * 0.458
    sin, cos = np.sin(np.radians(pa_deg)), np.cos(np.radians(pa_deg))
    to_east, to_north = np.zeros((2, 4, 4)), np.zeros((2, 4, 4))
    to_east[0, 0, 0], to_north[0, 0, 0] = east, north
    to_east[1, 0, 0], to_north[1, 0, 0] = WIDTH / 2 * cos, -WIDTH / 2 * sin
    to_east[0, 1, 0], to_north[0, 1, 0] = reach * sin, reach * cos
    return replace(slit, ra0=RA, dec0=DEC, east=to_east, north=to_north)


def seen(geometry: SlitGeometry, sky, fine: int = 5) -> np.ndarray:
    """What the pixels of a slit measure: the sky (MJy/sr, of east, north, wave) averaged over what they see."""
    steps = (np.arange(fine) + 0.5) / fine - 0.5
    total = np.zeros((NY, NX))
    for across in steps:
        for along in steps:
            y_slit, wave = geometry.on_detector(np.arange(NX, dtype=float), np.arange(NY) + along)
            east, north = geometry.on_sky(np.full_like(wave, across), y_slit, wave)
            total += sky(east, north, wave)
    return total / fine**2


def write_run(root, chosen: Dataset, sky, *, pa_deg=28.0, step=WIDTH, without=(), noise=None, spoil=None) -> Layout:
    """Write the post-processed calibrated slits of a whole pattern.

    `without` names activities to leave out; `noise` is a random generator; `spoil(activity, sci, dq)` may
    change the pixels in place.
    """
    layout = Layout(root)
    pattern = chosen.pattern
    sin, cos = np.sin(np.radians(pa_deg)), np.cos(np.radians(pa_deg))
    for index, activity in enumerate(activities(pattern.n_exposures)):
        row, column = pattern.place(index)
        up, right = (row - (pattern.rows - 1) / 2) * 0.075, (column - (pattern.columns - 1) / 2) * step
        geometry = geometry_at(up * sin + right * cos, up * cos - right * sin, pa_deg)
        sci, dq = seen(geometry, sky), np.zeros((NY, NX), np.uint32)
        if noise is not None:
            sci += noise.normal(0.0, ERROR, sci.shape)
        if spoil is not None:
            spoil(activity, sci, dq)
        layout.process_dir(activity).mkdir(parents=True, exist_ok=True)
        if activity not in without:
            path = layout.cal(activity, "nrs2", f"jw02136001001_{activity}_00001", POST_SUFFIX)
            write_cal(path, [{"sci": sci, "dq": dq, "geometry": geometry, "header": {"SHUTSTA": "1x1"}}], "NRS2")
    return layout


def place_on_sky(east: float, north: float) -> tuple[float, float]:
    """Sky position (deg) of offsets (arcsec) from the middle of the run."""
    return tuple(float(value) for value in from_tangent(east, north, RA, DEC))


def uniform(level: float = 1.0):
    """A sky of one brightness."""
    return lambda east, north, wave: np.full(np.shape(wave), level)


def blob(east0: float, north0: float, fwhm: float = 0.3, line_um: float = 1.207):
    """A round Gaussian source with an emission line on a flat continuum."""
    sigma = fwhm / 2.3548

    def sky(east, north, wave):
        shape = np.exp(-0.5 * ((east - east0) ** 2 + (north - north0) ** 2) / sigma**2)
        return shape * (1.0 + 3.0 * np.exp(-0.5 * ((wave - line_um) / 3e-4) ** 2))

    return sky
