"""What all tests share: one thread, no display, no network, nobody's CRDS settings.

One small exposure for the tests that run jwst: noise on both detectors, real keywords, few failed shutters.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

# Before numpy is imported, as its BLAS reads them once.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["MPLBACKEND"] = "agg"
for _name in [name for name in os.environ if name.startswith("CRDS_")]:
    del os.environ[_name]

LOCAL = {"127.0.0.1", "::1", "localhost", "0.0.0.0", ""}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test reach beyond this machine (worker processes and notebook kernels talk on localhost)."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in LOCAL:
            raise AssertionError(f"a test wanted to connect to {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _own_environment() -> object:
    """Undo what a test, or the code it runs, does to the environment variables."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


METAFILE = "jw02136001001_01_msa.fits"
ACTIVITIES = ("03101", "03102")
# Source, quadrant, row (dispersion) and column of the source's shutter, shutters of the slitlet.
SLITLETS = [(8512, 1, 150, 90, 3)]

SHUTTER_COLUMNS = [
    ("slitlet_id", ">i2"), ("msa_metadata_id", ">i2"), ("shutter_quadrant", ">i2"), ("shutter_row", ">i2"),
    ("shutter_column", ">i2"), ("source_id", ">i4"), ("background", "S1"), ("shutter_state", "S6"),
    ("estimated_source_in_shutter_x", ">f4"), ("estimated_source_in_shutter_y", ">f4"),
    ("dither_point_index", ">i2"), ("primary_source", "S1"),
]  # fmt: skip
SOURCE_COLUMNS = [
    ("program", ">i4"), ("source_id", ">i4"), ("source_name", "S20"), ("alias", "S31"), ("ra", ">f8"),
    ("dec", ">f8"), ("preimage_id", "S30"), ("stellarity", ">f8"),
]  # fmt: skip
PRIMARY = {
    "TELESCOP": "JWST", "INSTRUME": "NIRSPEC", "DATAMODL": "ImageModel", "FILTER": "F100LP", "GRATING": "G140H",
    "MSAMETFL": METAFILE, "MSAMETID": 1, "EXP_TYPE": "NRS_MSASPEC", "EFFEXPTM": 1167.0, "DURATION": 1200.0,
    "SUBARRAY": "FULL", "SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": 2048, "SUBSIZE2": 2048, "EXPSTART": 60000.0,
    "EXPEND": 60000.02, "GWA_XTIL": 0.360426962, "GWA_YTIL": 0.1330158, "VA_SCALE": 1.00003, "PROGRAM": "02136",
    "OBSERVTN": "001", "VISIT": "001", "VISITGRP": "03", "SEQ_ID": "1", "EXPOSURE": "1", "READPATT": "NRSIRS2",
    "NINTS": 1, "NGROUPS": 16, "DATE-OBS": "2023-03-29", "TIME-OBS": "01:00:00.0", "MSA3DSIM": True,
}  # fmt: skip


def write_metafile(path: Path, slitlets: list[tuple[int, ...]], n_dithers: int) -> None:
    rows = []
    for slitlet, (source, quadrant, row, column, length) in enumerate(slitlets, start=1):
        for shutter in range(column - length // 2, column - length // 2 + length):
            main = shutter == column
            place = 0.5 if main else np.nan
            owner = (source, "N", "OPEN", place, place) if main else (0, "Y", "OPEN", place, place)
            rows += [
                (slitlet, 1, quadrant, row, shutter, *owner, dither, "Y" if main else "N")
                for dither in range(1, n_dithers + 1)
            ]
    sources = [(2136, s[0], f"2136_{s[0]}", "", 215.05, 52.94, "None", 0.0) for s in slitlets]
    primary = fits.PrimaryHDU()
    primary.header["PROGRAM"] = "02136"
    primary.header["INSTRUME"] = "NIRSPEC"
    fits.HDUList(
        [
            primary,
            fits.ImageHDU(np.zeros((342, 730), np.int16), name="SHUTTER_IMAGE"),
            fits.BinTableHDU(np.array(rows, SHUTTER_COLUMNS), name="SHUTTER_INFO"),
            fits.BinTableHDU(np.array(sources, SOURCE_COLUMNS), name="SOURCE_INFO"),
        ]
    ).writeto(path)


def write_rate(path: Path, detector: str, patt_num: int, shape: tuple[int, int] = (2048, 2048)) -> None:
    random = np.random.default_rng([patt_num, int(detector[-1])])
    primary = fits.PrimaryHDU()
    primary.header.update(PRIMARY)
    primary.header.update({"DETECTOR": detector, "PATT_NUM": patt_num, "ACT_ID": path.name[17:19]})
    primary.header["EXPSTART"] += 0.03 * patt_num
    primary.header["EXPEND"] += 0.03 * patt_num
    pointing = fits.Header()
    pointing.update(
        {"BUNIT": "DN/s", "V2_REF": 378.563202, "V3_REF": -428.402832, "VPARITY": -1, "V3I_YANG": 138.57611}
    )
    pointing.update({"RA_REF": 215.05, "DEC_REF": 52.94 + patt_num * 0.075 / 3600, "ROLL_REF": 0.0})
    planes = {
        "SCI": random.normal(0.5, 0.02, shape).astype("f4"),
        "ERR": np.full(shape, 0.02, "f4"),
        "DQ": (random.random(shape) < 0.003).astype("u4"),
        "VAR_POISSON": np.full(shape, 3e-4, "f4") * random.uniform(0.9, 1.1, shape).astype("f4"),
        "VAR_RNOISE": np.full(shape, 1e-4, "f4") * random.uniform(0.9, 1.1, shape).astype("f4"),
    }
    hdus = [fits.ImageHDU(data, name=name) for name, data in planes.items()]
    hdus[0].header.update(pointing)
    fits.HDUList([primary, *hdus]).writeto(path)


@pytest.fixture(scope="session")
def jwst_loaded() -> None:
    """Import jwst once, without what its companions of 2024 say about younger packages when first imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import asdf
        import jwst.pipeline  # noqa: F401

        asdf.get_config().resource_mappings  # noqa: B018
        logging.captureWarnings(False)


@pytest.fixture(scope="session")
def crds_cache(tmp_path_factory: pytest.TempPathFactory, jwst_loaded: None) -> Path:
    """References of the simulated instrument, with four of its failed-open shutters left (it saves half a minute)."""
    from msa3d_sim.crds_cache import build_crds_cache

    cache = tmp_path_factory.mktemp("crds") / "crds_cache"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_crds_cache(cache)
    (operability,) = (cache / "references" / "jwst" / "nirspec").glob("*msaoper*.json")
    content = json.loads(operability.read_text())
    failed_open = [s for s in content["msaoper"] if "open" in (s["state"], s["Internal state"], s["TA state"])]
    content["msaoper"] = [s for s in content["msaoper"] if s not in failed_open] + failed_open[::6]
    operability.chmod(0o644)
    operability.write_text(json.dumps(content))
    return cache


@pytest.fixture(scope="session")
def pristine_root(tmp_path_factory: pytest.TempPathFactory, crds_cache: Path) -> Path:
    """Root of an observation of two exposures of one slitlet. Not to be written to."""
    root = tmp_path_factory.mktemp("observation")
    write_metafile(root / METAFILE, SLITLETS, len(ACTIVITIES))
    for patt_num, activity in enumerate(ACTIVITIES, start=1):
        for detector in ("NRS1", "NRS2"):
            name = f"jw02136001001_{activity}_00001_{detector.lower()}_rate.fits"
            write_rate(root / name, detector, patt_num)
    (root / "crds_cache").symlink_to(crds_cache)
    return root


@pytest.fixture
def root(pristine_root: Path, tmp_path: Path) -> Path:
    """A root of one's own: the files of `pristine_root`, linked."""
    own = tmp_path / "root"
    own.mkdir()
    for path in pristine_root.iterdir():
        if path.suffix == ".fits":
            os.link(path, own / path.name)
        elif path.name == "crds_cache":
            (own / path.name).symlink_to(path.resolve())
    return own


@pytest.fixture
def root_of_nrs2(root: Path) -> Path:
    """A root whose only slitlet lies where no light of it reaches NRS1."""
    (root / METAFILE).unlink()
    write_metafile(root / METAFILE, [(8512, 1, 60, 90, 3)], len(ACTIVITIES))
    return root


@pytest.fixture
def dataset(tmp_path: Path):
    """Description of the observation in `root`."""
    from msa3d.config import Dataset

    path = tmp_path / "pair.yaml"
    path.write_text("extends: tiny\nname: pair\npattern: {rows: 1, columns: 2}\n")
    return Dataset.load(path)


@pytest.fixture(autouse=True)
def _logging_as_before():
    """Leave loggers as they were: jwst's import installs handlers."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)
