"""Cubes for programs that do not read jwst's s3d: mpdaf, and readers that know nothing but plain FITS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.wcs.utils import proj_plane_pixel_scales

from msa3d.cubes.cube import Cube, open_cube
from msa3d.errors import ProductError
from msa3d.pipeline.products import atomic_path, stamp

WAVELENGTH_UNITS = ("Angstrom", "nm", "um", "m")
"""Units that an exported cube's wavelengths may have."""

_NO_DATA_ERROR = 1e10
"""Errors of voxels without data, in medians of the others (as CALIFA's cubes have them, Garcia-Benito et al. 2015)."""

_UNEVEN = 1e-2
"""Wavelengths may stray from an even grid by this part of a step."""

_OF_JWST = ("DATAMODL", "FILENAME", "DATE", "EXTEND", "CHECKSUM", "DATASUM", "NEXTEND")
"""Keywords of the primary header that are true of the original alone."""


def export(
    path: str | Path,
    to: str = "plain",
    out: str | Path | None = None,
    *,
    unit: str = "Angstrom",
    keep_nan: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a copy of a cube for other programs; the cube itself is not touched.

    Parameters
    ----------
    path : str or pathlib.Path
        The cube: ours, or any that `msa3d.open_cube` reads.
    to : str
        ``mpdaf``: extensions DATA (NaN where there are no data), STAT (variance) and DQ (1 where there are no
        data), for `mpdaf.obj.Cube`. ``plain``: the image is the primary unit; extensions ERROR (one sigma) and
        MASK (1 where there are no data); no NaN: voxels without data are 0, their errors 1e10 times the median.
    out : str or pathlib.Path, optional
        The copy; without it beside the cube, ``_mpdaf`` or ``_plain`` added to the name.
    unit : str
        Of the wavelengths, one of `WAVELENGTH_UNITS`; they are in vacuum, as in the cube.
    keep_nan : bool
        Leave NaN in a plain copy.
    overwrite : bool
        Replace another file of the copy's name. The cube itself is never replaced.

    Returns
    -------
    pathlib.Path
        The copy.

    Raises
    ------
    msa3d.errors.ProductError
        If the cube cannot be read, its wavelengths are not evenly spaced, or the copy would replace a file.
    """
    path = Path(path)
    if to not in _FORMATS:
        raise ProductError(f"{path.name} cannot be exported to {to!r}: choose one of {', '.join(_FORMATS)}")
    if unit not in WAVELENGTH_UNITS:
        raise ProductError(f"wavelengths cannot be exported in {unit!r}: choose one of {', '.join(WAVELENGTH_UNITS)}")
    out = path.with_name(f"{path.stem}_{to}.fits") if out is None else Path(out)
    cube = open_cube(path)
    if out.exists():
        if out.samefile(path):
            raise ProductError(f"{out} is the cube itself: give the copy another name")
        if not overwrite:
            raise ProductError(f"{out} exists: give the copy another name, or say --overwrite")
    header = _image_header(cube, u.Unit(unit))
    primary = _primary_header(cube, out, to)
    hdus = _FORMATS[to](cube, primary, header, keep_nan)
    with atomic_path(out) as partial:
        fits.HDUList(hdus).writeto(partial, checksum=True)
    return out


def _image_header(cube: Cube, unit: u.Unit) -> fits.Header:
    """WCS with a CD matrix, the wavelengths in a unit of choice."""
    wave = (cube.wave_um * u.um).to_value(unit)
    # Whole steps, so that no rounding of neighbouring wavelengths adds up along the axis.
    step = (wave[-1] - wave[0]) / max(wave.size - 1, 1) if wave.size > 1 else 1.0
    if np.abs(wave - (wave[0] + step * np.arange(wave.size))).max() > _UNEVEN * abs(step):
        raise ProductError(f"{cube.name}: its wavelengths are not evenly spaced, which an exported cube has to be")
    # to_header() writes CDELT and PC, and what is not at its default only.
    header = cube.wcs.to_header()
    for key in [*(f"PC{i}_{j}" for i in (1, 2) for j in (1, 2)), "CDELT1", "CDELT2", "WCSAXES", "MJDREF"]:
        header.remove(key, ignore_missing=True)
    header["CTYPE3"], header["CUNIT3"] = "WAVE", unit.to_string("fits")
    header["CRPIX3"], header["CRVAL3"] = 1.0, wave[0]
    matrix = np.zeros((3, 3))
    matrix[:2, :2], matrix[2, 2] = cube.wcs.pixel_scale_matrix, step
    for i, j in np.ndindex(3, 3):
        header[f"CD{i + 1}_{j + 1}"] = matrix[i, j]
    header["RADESYS"] = cube.wcs.wcs.radesys or "ICRS"
    if "SPECSYS" in cube.header:
        header["SPECSYS"] = cube.header["SPECSYS"]
    header["BUNIT"] = cube.header.get("BUNIT", "MJy/sr")
    header["PIXAR_SR"] = (cube.pixel_sr, "[sr] area of a spaxel")
    for key in ("SLITWID", "SLITLEN", "SLITPA", "SLITFRAC", "PIXFRAC", "SPECPIX"):
        if key in cube.header:
            header[key] = (cube.header[key], cube.header.comments[key])
    return header


def _primary_header(cube: Cube, out: Path, to: str) -> fits.Header:
    """Copy what the cube says of its origin, without section titles, and the stamp."""
    header = cube.primary.copy(strip=True)
    for key in (*_OF_JWST, ""):
        header.remove(key, ignore_missing=True, remove_all=True)
    header["FILENAME"] = out.name
    # mpdaf looks for the frame of the sky here.
    header["RADESYS"] = cube.wcs.wcs.radesys or "ICRS"
    stamp(header, inputs=[cube.name], step=f"export {to}")
    return header


def _empty(cube: Cube) -> np.ndarray:
    """Voxels without data."""
    return ~np.isfinite(cube.data)


def _with_unit(header: fits.Header, unit: str | None) -> fits.Header:
    """Return a copy of a header with another unit, or without."""
    header = header.copy()
    header.remove("BUNIT")
    if unit:
        header["BUNIT"] = unit
    return header


def _mpdaf(cube: Cube, primary: fits.Header, header: fits.Header, _keep_nan: bool) -> list:
    """DATA, STAT and DQ, as mpdaf.obj.Cube looks for them."""
    hdus = [fits.PrimaryHDU(header=primary), fits.ImageHDU(cube.data.astype(np.float32), header, name="DATA")]
    if cube.err is not None:
        squared = (u.Unit(header["BUNIT"]) ** 2).to_string("fits")
        variance = np.where(_empty(cube), np.nan, cube.err**2).astype(np.float32)
        hdus.append(fits.ImageHDU(variance, _with_unit(header, squared), name="STAT"))
    # Where there is a DQ, mpdaf takes its mask from that alone.
    hdus.append(fits.ImageHDU(_empty(cube).astype(np.uint8), _with_unit(header, None), name="DQ"))
    return hdus


def _plain(cube: Cube, primary: fits.Header, header: fits.Header, keep_nan: bool) -> list:
    """Put the image into the primary unit; ERROR and MASK follow."""
    empty, header = _empty(cube), header.copy()
    # Beside a CD matrix CDELT is ignored by whoever knows the standard; old readers look for nothing else.
    for axis, scale in enumerate(proj_plane_pixel_scales(cube.wcs), start=1):
        sign = np.sign(header[f"CD{axis}_{axis}"]) or 1.0
        header[f"CDELT{axis}"] = sign * scale
    header["CDELT3"] = header["CD3_3"]
    both = primary.copy()
    both.update(header)
    image = cube.data if keep_nan else np.where(empty, 0.0, cube.data)
    hdus = [fits.PrimaryHDU(image.astype(np.float32), both)]
    if cube.err is not None:
        known = np.isfinite(cube.err) & ~empty
        large = _NO_DATA_ERROR * np.median(cube.err[known]) if known.any() else _NO_DATA_ERROR
        error = np.where(known, cube.err, np.nan if keep_nan else large)
        hdus.append(fits.ImageHDU(error.astype(np.float32), header, name="ERROR"))
    hdus.append(fits.ImageHDU(empty.astype(np.uint8), _with_unit(header, None), name="MASK"))
    return hdus


_FORMATS: dict[str, Callable] = {"mpdaf": _mpdaf, "plain": _plain}
"""What a cube can be exported to."""
