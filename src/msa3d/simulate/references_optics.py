"""Reference files of the optics, in the form that ``jwst.assign_wcs`` reads (ASDF and JSON)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from asdf.tags.core import HistoryEntry
from stdatamodels.jwst import datamodels

from msa3d.provenance import SIMULATED_HISTORY, SIMULATED_KEYWORD
from msa3d.simulate.optics import COLUMNS, QUADRANTS, ROWS, InstrumentModel, failed_closed, failed_open

AUTHOR = "msa3d.simulate"
USEAFTER = "2022-01-01T00:00:00"
SHUTTER_FIELDS = [("NO", "f8"), ("XC", "f8"), ("YC", "f8"), ("SIZEX", "f8"), ("SIZEY", "f8")]


def describe(model, reftype: str, description: str) -> None:
    """Fill the header entries that every reference file must have, and mark the file as simulated.

    Parameters
    ----------
    model : `stdatamodels.jwst.datamodels.ReferenceFileModel`
        Changed in place.
    reftype : str
        CRDS reference type.
    description : str
        One line.
    """
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
        describe(model, reftype, f"NIRSpec {reftype} from ESA's instrument model NRS_COMM_16")
        written[reftype] = _save(model, folder / name(reftype, "asdf"))
    written["msaoper"] = folder / name("msaoper", "json")
    written["msaoper"].write_text(json.dumps(_msaoper(), separators=(",", ":")), encoding="utf-8")
    return written


def _save(model, path: Path) -> Path:
    """Write an ASDF reference with the mark of simulated files in its tree and history."""
    model[SIMULATED_KEYWORD.lower()] = True
    model.history = [HistoryEntry({"description": SIMULATED_HISTORY})]
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
        table = np.zeros(COLUMNS * ROWS, dtype=SHUTTER_FIELDS)
        table["NO"] = np.arange(1, table.size + 1)
        table["XC"], table["YC"] = (i * geometry.pitch_m[0]).ravel(), (j * geometry.pitch_m[1]).ravel()
        table["SIZEX"], table["SIZEY"] = geometry.open_m
        tables[f"Q{quadrant}"], transforms[f"Q{quadrant}"] = table, optics.quadrant(quadrant)
    tables["Q5"] = np.zeros(1, dtype=SHUTTER_FIELDS)
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
