"""Small calibrated files with slits of known geometry, made without jwst."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

from msa3d.cube.slitgeometry import SlitGeometry, geometry_table

NY, NX = 40, 120
PIXEL = -0.2265
"""Openings a row: y_slit falls with the row, as on the detectors."""
WAVES_UM = (1.20, 1.20 + NX * 2.35e-4)
OPENING_ARCSEC = 0.458
ASDF_BYTES = b"#ASDF 1.0.0\nnot read, but carried over\n" * 40


def slit_geometry(ny: int = NY, nx: int = NX, tilt: float = 0.004) -> SlitGeometry:
    """A slit whose positions and wavelengths are linear in the pixels, north up along the slit."""
    y_slit, wave = np.zeros((9, 5)), np.zeros((9, 5))
    y_slit[0, 1], y_slit[1, 0] = PIXEL * ny / 2, tilt * nx / 2
    wave[0, 0], wave[1, 0] = np.mean(WAVES_UM), np.ptp(WAVES_UM) / 2
    reach = abs(PIXEL) * ny / 2 + tilt * nx / 2
    east, north = np.zeros((2, 4, 4)), np.zeros((2, 4, 4))
    east[1, 0, 0], north[0, 1, 0] = 0.1, OPENING_ARCSEC * reach
    domain = np.array([(-0.5, nx - 0.5), (-0.5, ny - 0.5), (-reach, reach), WAVES_UM])
    return SlitGeometry(215.0, 52.9, domain, y_slit, wave, east, north, np.zeros(3))


def positions(geometry: SlitGeometry, ny: int = NY, nx: int = NX) -> tuple[np.ndarray, np.ndarray]:
    """Position along the slit (openings) and wavelength (um) of every pixel."""
    return geometry.on_detector(np.arange(nx, dtype=float), np.arange(ny, dtype=float))


def write_cal(path: Path, slits: list[dict], detector: str = "NRS1", **keywords) -> Path:
    """Write a calibrated file.

    Each slit is a dict with ``sci`` (ny, nx) and, where wanted, ``err``, ``dq``, ``wave``, ``var_poisson``,
    ``var_rnoise``, ``var_flat``, ``header`` (keywords of SCI) and ``geometry``.
    """
    primary = fits.PrimaryHDU()
    primary.header.update({"DETECTOR": detector, "EFFEXPTM": 1000.0, "EXP_TYPE": "NRS_MSASPEC", "MSA3DSIM": True})
    primary.header.update(keywords)
    hdus, geometries = [primary], {}
    for version, slit in enumerate(slits, start=1):
        sci = np.asarray(slit["sci"], dtype=np.float32)
        geometries[version] = slit.get("geometry") or slit_geometry(*sci.shape)
        _, wave = positions(geometries[version], *sci.shape)
        planes = {
            "SCI": sci,
            "DQ": slit.get("dq", np.zeros(sci.shape, np.uint32)),
            "ERR": slit.get("err", np.full(sci.shape, 0.05)),
            "WAVELENGTH": slit.get("wave", wave),
            "VAR_POISSON": slit.get("var_poisson", np.full(sci.shape, 0.0009)),
            "VAR_RNOISE": slit.get("var_rnoise", np.full(sci.shape, 0.0016)),
            "VAR_FLAT": slit.get("var_flat", np.zeros(sci.shape)),
        }
        for name, plane in planes.items():
            kind = np.uint32 if name == "DQ" else np.float32
            hdus.append(fits.ImageHDU(np.asarray(plane).astype(kind), name=name, ver=version))
        header = {"SOURCEID": 8512, "SRCNAME": "2136_8512", "SHUTSTA": "1x1", "BUNIT": "MJy/sr", "STLARITY": 0.0}
        fits.HDUList(hdus)["SCI", version].header.update(header | slit.get("header", {}))
    hdus.append(geometry_table(geometries))
    asdf = np.array([(np.frombuffer(ASDF_BYTES, np.uint8),)], dtype=[("ASDF_METADATA", "u1", len(ASDF_BYTES))])
    hdus.append(fits.BinTableHDU(asdf, name="ASDF"))
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path)
    return path
