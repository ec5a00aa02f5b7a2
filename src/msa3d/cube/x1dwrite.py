"""Writing the spectrum of an aperture as jwst writes its x1d."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from msa3d.cube.cubefile import CORRELATION
from msa3d.provenance import atomic_path, stamp

if TYPE_CHECKING:
    from msa3d.cube.extract import ApertureSpectrum

_VARIANCES = ("POISSON", "RNOISE", "FLAT")


def write_x1d(spectrum: ApertureSpectrum, path: Path, srctype: str) -> Path:
    """Write a spectrum.

    Parameters
    ----------
    spectrum : ApertureSpectrum
        The spectrum.
    path : pathlib.Path
        The file; another of that name is replaced.
    srctype : str
        Keyword SRCTYPE.

    Returns
    -------
    pathlib.Path
        The file.
    """
    from stdatamodels.jwst.datamodels import MultiSpecModel

    primary = spectrum.primary.copy()
    for key in ("DATAMODL", "FILENAME", "DATE", "CHECKSUM", "DATASUM"):
        primary.remove(key, ignore_missing=True)
    stamp(
        primary,
        inputs=[spectrum.name],
        simulated=spectrum.simulated or None,
        step="extract",
        history=[f"Spectrum of {spectrum.aperture}."],
    )
    ours = [fits.ImageHDU(spectrum.weights, spectrum.wcs.to_header(), name="APERTURE")]
    if spectrum.correlation is not None:
        ours.append(fits.ImageHDU(spectrum.correlation, name=CORRELATION))
        ours[-1].header.add_comment("Correlation coefficient of the errors, by lag 0, 1, ... in wavelength.")
    whole = io.BytesIO()
    with warnings.catch_warnings():
        # What the data model does not know is kept as it is, with a warning.
        warnings.filterwarnings("ignore", module="stdatamodels|astropy")
        with MultiSpecModel(fits.HDUList([fits.PrimaryHDU(header=primary), _table(spectrum, srctype)])) as model:
            model.meta.filename = path.name
            model.to_fits(whole)
    whole.seek(0)
    # specutils knows a file of jwst by its ASDF extension, which the data model writes.
    with fits.open(whole) as saved, atomic_path(path) as partial:
        at = saved.index_of("ASDF")
        fits.HDUList([*saved[:at], *ours, *saved[at:]]).writeto(partial)
    return path


def _table(spectrum: ApertureSpectrum, srctype: str) -> fits.BinTableHDU:
    """EXTRACT1D, its columns in jwst's order."""
    unknown = np.full(spectrum.wave_um.size, np.nan)
    nothing = np.zeros(spectrum.wave_um.size)

    def group(name: str, error: str, part: str, unit: str, value: np.ndarray, sigma: np.ndarray | None) -> list:
        columns = [(name, "D", unit, value), (error, "D", unit, unknown if sigma is None else sigma)]
        squared = {"Jy": "Jy2", "MJy/sr": "MJy2 sr-2"}[unit]
        return columns + [(f"{part}_VAR_{kind}", "D", squared, unknown) for kind in _VARIANCES]

    columns = [
        ("WAVELENGTH", "D", "um", spectrum.wave_um),
        *group("FLUX", "FLUX_ERROR", "FLUX", "Jy", spectrum.flux_jy, spectrum.err_jy),
        *group("SURF_BRIGHT", "SB_ERROR", "SB", "MJy/sr", spectrum.brightness, spectrum.brightness_err),
        ("DQ", "J", None, spectrum.dq),
        *group("BACKGROUND", "BKGD_ERROR", "BKGD", "MJy/sr", nothing, nothing),
        ("NPIXELS", "D", None, spectrum.coverage * spectrum.weights.sum()),
    ]
    table = fits.BinTableHDU.from_columns(
        [
            fits.Column(name=name, format=kind, unit=unit, array=array, bzero=2**31 if kind == "J" else None)
            for name, kind, unit, array in columns
        ],
        name="EXTRACT1D",
    )
    header = table.header
    header["SRCTYPE"] = (srctype, "POINT: readers take FLUX; EXTENDED: SURF_BRIGHT")
    header["EXTVER"] = 1
    header["DISPAXIS"] = (3, "of the cube")
    header["SPORDER"] = (-1, "spectral order")
    if "SOURCEID" in spectrum.primary:
        header["SOURCEID"] = (spectrum.primary["SOURCEID"], "source in the MSA metafile")
    header["PIXAR_SR"] = (spectrum.area_sr / float(spectrum.weights.sum()), "[sr] area of a spaxel")
    header["APERTURE"] = (spectrum.aperture, "what was summed")
    header["APAREA"] = (spectrum.area_sr, "[sr] its area on spaxels with data")
    return table
