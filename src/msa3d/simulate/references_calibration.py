"""Reference files of the radiometry: fflat, photom, area, pathloss and barshadow (FITS)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits
from stdatamodels.jwst import datamodels

from msa3d.provenance import mark_simulated
from msa3d.simulate import psf, throughput
from msa3d.simulate.optics import COLUMNS, QUADRANTS, ROWS, InstrumentModel
from msa3d.simulate.references_barshadow import barshadow_model
from msa3d.simulate.references_optics import describe

POSITION_STEP = 0.05
"""Step of the pathloss reference in source position, in shutters."""


def write_calibration(folder: Path, name) -> dict[str, Path]:
    """Write fflat, photom, area, pathloss and barshadow.

    Parameters
    ----------
    folder : pathlib.Path
        Existing folder.
    name : callable
        ``name(reftype, suffix)`` gives the file's name.

    Returns
    -------
    dict of str to pathlib.Path
        The file of every reference type.
    """
    makers = {
        "fflat": _fflat,
        "photom": _photom,
        "area": _area,
        "pathloss": _pathloss,
        "barshadow": barshadow_model,
    }
    written = {}
    for reftype, make in makers.items():
        model = make()
        describe(model, reftype, f"NIRSpec MOS {reftype}, a plausible instrument, not a measured one")
        path = folder / name(reftype, "fits")
        model.save(path)
        model.close()
        with fits.open(path, mode="update") as hdus:
            hdus[0].header["EXP_TYPE"] = ("NRS_MSASPEC", "Type of data in the exposure")
            mark_simulated(hdus[0].header)
        written[reftype] = path
    return written


def _fflat():
    """Fore-optics flat: fast variation with wavelength, slow variation over the shutters."""
    model = datamodels.NirspecQuadFlatModel()
    i, j = np.meshgrid(np.arange(1, COLUMNS + 1), np.arange(1, ROWS + 1))
    wave, fast = throughput.flat_table()
    fields = ("slit_name", "nelem", "wavelength", "data", "error")
    form = list(zip(fields, ("S15", "i4", *[f"{wave.size}f4"] * 3), strict=True))
    for quadrant in QUADRANTS:
        planes = throughput.field_variation(quadrant, i, j).astype(np.float32)
        model.quadrants.append(model.quadrants.item())
        entry = model.quadrants[-1]
        entry.data = planes
        entry.dq = np.zeros(planes.shape, dtype=np.uint32)
        entry.err = np.zeros(planes.shape, dtype=np.float32)
        entry.wavelength = np.array([(w,) for w in throughput.PLANE_WAVES_UM], dtype=[("wavelength", "f4")])
        entry.flat_table = np.array([("ANY", wave.size, wave, fast, np.zeros_like(fast))], dtype=form)
    _configuration(model)
    return model


def _configuration(model) -> None:
    c = InstrumentModel.load().figures["configuration"]
    model.meta.instrument.filter, model.meta.instrument.grating = c["filter"], c["grating"]


def _photom():
    """Conversion to flux: MJy per (DN/s), with the response relative to the reference wavelength."""
    c = InstrumentModel.load().figures["configuration"]
    wave, response = throughput.photom_table()
    n = wave.size
    form = [
        ("filter", "S12"), ("grating", "S15"), ("photmj", "f4"), ("uncertainty", "f4"), ("nelem", "i2"),
        ("wavelength", "f4", (n,)), ("relresponse", "f4", (n,)), ("reluncertainty", "f4", (n,)),
    ]  # fmt: skip
    row = (c["filter"], c["grating"], throughput.photom_scalar(), 0.0, n, wave, response, np.zeros(n))
    model = datamodels.NrsMosPhotomModel(phot_table=np.array([row], dtype=form))
    mean = float(np.mean([throughput.pixel_area_arcsec2(q, 183, 86) for q in QUADRANTS]))
    model.meta.photometry.pixelarea_arcsecsq = mean
    model.meta.photometry.pixelarea_steradians = mean * throughput.ARCSEC2_SR
    return model


def _area():
    """Solid angle of a pixel behind every shutter."""
    i, j = (a.ravel() for a in np.meshgrid(np.arange(1, COLUMNS + 1), np.arange(1, ROWS + 1)))
    form = [("quadrant", "i2"), ("shutter_x", "i2"), ("shutter_y", "i2"), ("pixarea", "f4")]
    table = np.zeros(i.size * len(QUADRANTS), dtype=form)
    for k, quadrant in enumerate(QUADRANTS):
        part = table[k * i.size : (k + 1) * i.size]
        part["quadrant"], part["shutter_x"], part["shutter_y"] = quadrant, i, j
        part["pixarea"] = throughput.pixel_area_arcsec2(quadrant, i, j)
    model = datamodels.NirspecMosAreaModel(area_table=table)
    _configuration(model)
    return model


def _pathloss():
    """Slit losses of point sources (by position) and of uniform sources, for 1 and 3 open shutters."""
    model = datamodels.PathlossModel()
    wave_um = throughput.PATHLOSS_WAVES_UM
    n, start, step = wave_um.size, float(wave_um[0]) * 1e-6, float(wave_um[1] - wave_um[0]) * 1e-6
    x = np.arange(-10, 11) * POSITION_STEP
    y = {shutters: np.arange(-10 * shutters, 10 * shutters + 1) * POSITION_STEP for shutters in (1, 3)}
    points = {shutters: [] for shutters in y}
    for wave in wave_um:
        for shutters, planes in points.items():
            planes.append(psf.point_transmission(wave, x, y[shutters], shutters))
    for shutters in points:
        point = np.stack(points[shutters])
        uniform = throughput.uniform_pathloss(wave_um, shutters)
        model.apertures.append(model.apertures.item())
        entry = model.apertures[-1]
        entry.name, entry.shutters = f"MOS1x{shutters}", shutters
        entry.pointsource_data = point.astype(np.float32)
        entry.pointsource_err = np.zeros(point.shape, dtype=np.float32)
        entry.uniform_data = uniform.astype(np.float32)
        entry.uniform_err = np.zeros(n, dtype=np.float32)
        wcs = entry.pointsource_wcs
        wcs.crpix1, wcs.crval1, wcs.cdelt1 = 1.0, float(x[0]), POSITION_STEP
        wcs.crpix2, wcs.crval2, wcs.cdelt2 = 1.0, float(y[shutters][0]), POSITION_STEP
        wcs.crpix3, wcs.crval3, wcs.cdelt3 = 1.0, start, step
        entry.uniform_wcs.crpix1, entry.uniform_wcs.crval1, entry.uniform_wcs.cdelt1 = 1.0, start, step
    return model
