"""Reference files of the simulated instrument: optics (ASDF and JSON) and radiometry (FITS).

The optics are in the form that ``jwst.assign_wcs`` reads, and the bar shadow in that of ``jwst.barshadow``: two images,
for a shutter with closed and with open neighbours, of 1001 positions along the slit, from one pitch below the middle of
a shutter to one above it, by 101 wavelengths.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.special import ndtr
from stdatamodels.jwst import datamodels

from msa3d.jwst_adapter import add_history
from msa3d.pipeline.products import SIMULATED_HISTORY, SIMULATED_KEYWORD, mark_simulated
from msa3d_sim import psf, throughput
from msa3d_sim.geometry import PITCH_IN_OPENINGS, WAVE_RANGE_UM
from msa3d_sim.instrument import COLUMNS, QUADRANTS, ROWS, InstrumentModel, failed_closed, failed_open
from msa3d_sim.psf import SPECTROGRAPH_SIGMA_PX

AUTHOR = "msa3d_sim"
USEAFTER = "2022-01-01T00:00:00"
_SHUTTER_FIELDS = [("NO", "f8"), ("XC", "f8"), ("YC", "f8"), ("SIZEX", "f8"), ("SIZEY", "f8")]


def _describe(model, reftype: str, description: str) -> None:
    """Fill the header entries that every reference file must have, and mark the file as simulated."""
    model.meta.description = f"SIMULATED: {description}"
    model.meta.reftype = reftype
    model.meta.author = AUTHOR
    model.meta.pedigree = "MODEL"
    model.meta.useafter = USEAFTER
    model.meta.telescope = "JWST"
    model.meta.instrument.name = "NIRSPEC"


def write_optics(folder: Path, name) -> dict[str, Path]:
    """Write camera, collimator, ote, fore, fpa, disperser, msa, wavelengthrange and msaoper.

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
    optics = InstrumentModel.load()
    models = {
        "camera": datamodels.CameraModel(model=optics.camera()),
        "collimator": datamodels.CollimatorModel(model=optics.collimator()),
        "ote": datamodels.OTEModel(model=optics.ote()),
        "fore": datamodels.FOREModel(model=optics.fore()),
        "fpa": datamodels.FPAModel(nrs1_model=optics.detector("NRS1"), nrs2_model=optics.detector("NRS2")),
        "disperser": _disperser(optics),
        "msa": _msa(optics),
        "wavelengthrange": _wavelengthrange(optics),
    }
    models["fore"].meta.instrument.filter = optics.figures["configuration"]["filter"]
    written = {}
    for reftype, model in models.items():
        _describe(model, reftype, f"NIRSpec {reftype} from ESA's instrument model NRS_COMM_16")
        written[reftype] = _save(model, folder / name(reftype, "asdf"))
    written["msaoper"] = folder / name("msaoper", "json")
    written["msaoper"].write_text(json.dumps(_msaoper(), separators=(",", ":")), encoding="utf-8")
    return written


def _save(model, path: Path) -> Path:
    """Write an ASDF reference with the mark of simulated files in its tree and history."""
    model[SIMULATED_KEYWORD.lower()] = True
    add_history(model, SIMULATED_HISTORY)
    model.meta.exposure.type = "NRS_MSASPEC"
    model.validate()
    model.to_asdf(path)
    model.close()
    return path


def _disperser(optics):
    g = optics.figures["grating"]
    model = datamodels.DisperserModel(
        groovedensity=g["grooves_per_metre"],
        theta_x=g["theta_x_arcsec"] / 3600,
        theta_y=g["theta_y_arcsec"] / 3600,
        theta_z=g["theta_z_arcsec"] / 3600,
        gwa_tiltx=optics.tilt("gwa_xtilt"),
        gwa_tilty=optics.tilt("gwa_ytilt"),
    )
    model.tilt_x, model.tilt_y = 0.0, g["tilt_y_deg"]
    model.meta.instrument.grating = g["name"]
    return model


def _wavelengthrange(optics):
    c = optics.figures["configuration"]
    return datamodels.WavelengthrangeModel(
        wrange_selector=[f"{c['filter']}_{c['grating']}"],
        wrange=[list(c["wavelength_range_m"])],
        order=[c["order"]],
        wunits="m",
    )


def _msa(optics):
    """The shutter tables of the four quadrants; the fifth entry (fixed slits, IFU) is a stand-in.

    The position of a shutter is given in the quadrant's own frame, before rotation and shift.
    """
    i, j = np.meshgrid(np.arange(COLUMNS), np.arange(ROWS))
    tables, transforms = {}, {}
    for quadrant in QUADRANTS:
        geometry = optics.shutters(quadrant)
        table = np.zeros(COLUMNS * ROWS, dtype=_SHUTTER_FIELDS)
        table["NO"] = np.arange(1, table.size + 1)
        table["XC"], table["YC"] = (i * geometry.pitch_m[0]).ravel(), (j * geometry.pitch_m[1]).ravel()
        table["SIZEX"], table["SIZEY"] = geometry.open_m
        tables[f"Q{quadrant}"], transforms[f"Q{quadrant}"] = table, optics.quadrant(quadrant)
    tables["Q5"] = np.zeros(1, dtype=_SHUTTER_FIELDS)
    transforms["Q5"] = optics.quadrant(4)
    return datamodels.MSAModel(models=transforms, data=tables)


def _msaoper() -> dict:
    """Operability of the shutters, with the keys that ``jwst.msaflagopen`` looks at."""

    def entry(shutter, state, reason):
        quadrant, i, j = (int(n) for n in shutter)
        return {
            "Q": quadrant, "x": i, "y": j, "state": state, "TA state": state,
            "Internal state": state, "Vignetted": "No", "reason": reason,
        }  # fmt: skip

    shutters = [entry(s, "open", "failed open") for s in failed_open()]
    shutters += [entry(s, "closed", "failed closed") for s in failed_closed()]
    return {
        "title": "SIMULATED: MSA operability, shutter map NRS_MSOP_CHK 3.0.1",
        "reftype": "msaoper", "pedigree": "MODEL", "author": AUTHOR, "instrument": "NIRSPEC",
        "exp_type": "NRS_MSASPEC", "telescope": "JWST", "useafter": USEAFTER,
        "descrip": "SIMULATED: operability of the microshutters", "HISTORY": SIMULATED_HISTORY,
        SIMULATED_KEYWORD.lower(): True, "msaoper": shutters,
    }  # fmt: skip


_WAVES_UM = np.linspace(0.90, 2.00, 101)
_POSITIONS = 1001
"""Number of positions; ``jwst.barshadow`` is written for this number and for 101 wavelengths."""


def pixel_in_openings(wave_um) -> np.ndarray:
    """Height of a detector pixel in units of a shutter's open height, mean over the field, by wavelength (um).

    The spectrograph's camera makes it depend on wavelength, by 1.5 per cent over the band; over the field it
    differs by up to 1 per cent from this mean.
    """
    optics = InstrumentModel.load()
    wave = np.clip(np.asarray(wave_um, dtype=float), *WAVE_RANGE_UM)[:, None, None] * 1e-6
    i, j = np.meshgrid(np.linspace(1, COLUMNS, 5), np.linspace(1, ROWS, 5))
    to_focal_plane, pitch = optics.msa_to_focal_plane(), optics.figures["detectors"]["NRS1"]["pitch_m"]
    sizes = []
    for quadrant in QUADRANTS:
        shutters = optics.shutters(quadrant)
        x, y = shutters.centre(i, j)
        half = shutters.open_m[1] / 2
        planes = np.broadcast_arrays(x, y, wave)
        ends = [to_focal_plane(planes[0], planes[1] + side * half, planes[2])[1] for side in (-1, 1)]
        sizes.append(pitch / np.abs(ends[1] - ends[0]))
    return np.mean(sizes, axis=(0, 2, 3))


def shadow(y_slit, pixel, shutters) -> np.ndarray:
    """Fraction of uniform light that a pixel gets through a row of shutters.

    The open areas, blurred by the spectrograph and averaged over the pixel: what `msa3d_sim.footprint`
    does numerically.

    Parameters
    ----------
    y_slit : array_like
        Middle of the pixel, in openings from the middle of shutter 0.
    pixel : array_like
        Its height, in openings; shapes of both broadcast.
    shutters : sequence of int
        Those that are open.

    Returns
    -------
    numpy.ndarray
        0 to 1.
    """
    y_slit, pixel = np.broadcast_arrays(np.asarray(y_slit, dtype=float), np.asarray(pixel, dtype=float))
    total = np.zeros(y_slit.shape)
    for shutter in shutters:
        from_middle = y_slit - shutter * PITCH_IN_OPENINGS
        total += _blurred_edge(from_middle + 0.5, pixel) - _blurred_edge(from_middle - 0.5, pixel)
    return total


def _blurred_edge(distance, pixel):
    """Mean over a pixel of a Gaussian-blurred step at a distance from it."""
    sigma = SPECTROGRAPH_SIGMA_PX * pixel

    def integral(x):
        return x * ndtr(x / sigma) + sigma * np.exp(-0.5 * (x / sigma) ** 2) / np.sqrt(2 * np.pi)

    return (integral(distance + pixel / 2) - integral(distance - pixel / 2)) / pixel


def barshadow_model() -> datamodels.BarshadowModel:
    """Make the reference: `shadow` for one and for three open shutters."""
    y_slit = np.linspace(-1.0, 1.0, _POSITIONS)[:, None] * PITCH_IN_OPENINGS
    pixel = pixel_in_openings(_WAVES_UM)[None, :]
    model = datamodels.BarshadowModel()
    for name, shutters in (("1x1", (0,)), ("1x3", (-1, 0, 1))):
        setattr(model, f"data{name}", shadow(y_slit, pixel, shutters).astype(np.float32))
        setattr(model, f"var{name}", np.zeros((_POSITIONS, _WAVES_UM.size), dtype=np.float32))
    # As in the files of the instrument team: wavelength in metre, position in pitches.
    model.crval1, model.cdelt1 = float(_WAVES_UM[0]) * 1e-6, float(_WAVES_UM[1] - _WAVES_UM[0]) * 1e-6
    model.crval2, model.cdelt2 = -1.0, 2.0 / (_POSITIONS - 1)
    return model


_POSITION_STEP = 0.05
"""Step of the pathloss reference in source position, in shutters."""


def write_calibration(folder: Path, name) -> dict[str, Path]:
    """Write fflat, photom, area, pathloss and barshadow, as `write_optics`."""
    makers = {"fflat": _fflat, "photom": _photom, "area": _area, "pathloss": _pathloss, "barshadow": barshadow_model}
    written = {}
    for reftype, make in makers.items():
        model = make()
        _describe(model, reftype, f"NIRSpec MOS {reftype}, a plausible instrument, not a measured one")
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
    x = np.arange(-10, 11) * _POSITION_STEP
    y = {shutters: np.arange(-10 * shutters, 10 * shutters + 1) * _POSITION_STEP for shutters in (1, 3)}
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
        wcs.crpix1, wcs.crval1, wcs.cdelt1 = 1.0, float(x[0]), _POSITION_STEP
        wcs.crpix2, wcs.crval2, wcs.cdelt2 = 1.0, float(y[shutters][0]), _POSITION_STEP
        wcs.crpix3, wcs.crval3, wcs.cdelt3 = 1.0, start, step
        entry.uniform_wcs.crpix1, entry.uniform_wcs.crval1, entry.uniform_wcs.cdelt1 = 1.0, start, step
    return model
