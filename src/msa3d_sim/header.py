"""Headers of simulated rate images: the keywords that jwst 1.14.0 and its users look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.time import Time, TimeDelta

from msa3d.pipeline.products import mark_simulated

V2_REF_ARCSEC, V3_REF_ARCSEC = 378.563202, -428.402832
"""Reference point of aperture NRS_FULL_MSA in the telescope's V2, V3 frame (arcsec); source: PRD siaf."""
V3_IDEAL_Y_ANGLE_DEG = 138.57611
FRAME_SECONDS, FRAMES_PER_GROUP = 14.58889, 5
GROUP_SECONDS = FRAME_SECONDS * FRAMES_PER_GROUP
"""NRSIRS2: five frames of 14.6 s averaged into one group."""
OVERHEAD_SECONDS = 160.0
"""From the start of one exposure of the pattern to the next, beyond the exposure itself (ours, plausible)."""
GWA_TILT = (0.3604269619999987, 0.1330158)
"""Grating wheel sensor readings (x, y), at the zero readings of the G140H calibration."""
VA_SCALE = 1.00003


@dataclass(frozen=True)
class Pointing:
    """Where the telescope looks in one exposure.

    Attributes
    ----------
    ra, dec : float
        Sky position of the V2/V3 reference point (deg).
    roll : float
        Position angle of V3 there, north to east (deg).
    """

    ra: float
    dec: float
    roll: float


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


def rate_name(dataset, activity: str, detector: str) -> str:
    """File name of a rate image."""
    visit = f"jw{dataset.programme}{dataset.observation}{dataset.visit}"
    return f"{visit}_{activity}_00001_{detector.lower()}_rate.fits"


def exposure_seconds(groups: int) -> float:
    """Effective integration time of one exposure (s)."""
    return groups * GROUP_SECONDS


def primary_header(dataset, exposure: PlannedExposure, detector: str) -> fits.Header:
    """Primary header of a rate image.

    Parameters
    ----------
    dataset : `msa3d.config.Dataset`
        The observation.
    exposure : PlannedExposure
        One exposure of its pattern.
    detector : str
        NRS1 or NRS2.

    Returns
    -------
    `astropy.io.fits.Header`
        Marked as simulated.
    """
    seconds = exposure_seconds(dataset.simulation.groups)
    start = Time(dataset.simulation.date, scale="utc") + TimeDelta(
        exposure.index * (seconds + OVERHEAD_SECONDS), format="sec"
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
        "GWA_XTIL": GWA_TILT[0], "GWA_YTIL": GWA_TILT[1], "GWA_TTIL": 37.5, "LAMP": "NONE", "OPMODE": "NONE",
        "MSASTATE": "CONFIGURED",
        "MSAMETFL": dataset.metafile, "MSAMETID": 1, "FOCUSPOS": 0.0,
        "EXP_TYPE": "NRS_MSASPEC", "EXPSTART": start.mjd, "EXPMID": 0.5 * (start.mjd + end.mjd), "EXPEND": end.mjd,
        "READPATT": "NRSIRS2", "NINTS": 1, "NGROUPS": dataset.simulation.groups, "NFRAMES": FRAMES_PER_GROUP,
        "FRMDIVSR": FRAMES_PER_GROUP, "GROUPGAP": 0, "NSAMPLES": 1, "TSAMPLE": 10.0, "TFRAME": FRAME_SECONDS,
        "TGROUP": GROUP_SECONDS, "EFFINTTM": seconds, "EFFEXPTM": seconds, "DURATION": seconds,
        "SUBARRAY": "FULL", "SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 2048, "SUBSIZE2": 2048,
        "FASTAXIS": fast, "SLOWAXIS": 1 if detector == "NRS1" else -1,
        "PATTTYPE": "NONE", "PATT_NUM": exposure.index + 1, "NUMDTHPT": dataset.pattern.n_exposures,
        "XOFFSET": exposure.offset_arcsec[0], "YOFFSET": exposure.offset_arcsec[1],
        "APERNAME": "NRS_FULL_MSA", "ENGQLPTG": "CALCULATED_TRACK_TR_202111",
        "PA_V3": exposure.nominal.roll, "VA_SCALE": VA_SCALE,
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


def header_model(dataset, exposure: PlannedExposure, detector: str, pointing: Pointing, folder: Path | None = None):
    """Empty data model with the header of an exposure, for the optics.

    Parameters
    ----------
    dataset : `msa3d.config.Dataset`
        The observation.
    exposure : PlannedExposure
        The exposure.
    detector : str
        NRS1 or NRS2.
    pointing : Pointing
        Pointing to write into the header: the nominal or the true one.
    folder : `pathlib.Path`, optional
        Where the metafile lies.

    Returns
    -------
    `jwst.datamodels.ImageModel`
        With planes of 8 by 8 pixels.
    """
    from stdatamodels.jwst import datamodels

    science = fits.ImageHDU(np.zeros((8, 8), np.float32), header=science_header(pointing))
    model = datamodels.ImageModel(
        fits.HDUList([fits.PrimaryHDU(header=primary_header(dataset, exposure, detector)), science])
    )
    if folder is not None:
        model.meta.instrument.msa_metadata_file = str(folder / dataset.metafile)
    return model
