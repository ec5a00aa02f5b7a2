"""A run shaped as the real one.

63 exposures with a configuration of the MSA each, galaxies that leave their slitlets, background slitlets, a fixed slit
in the metafile, target acquisition among the rates.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from msa3d.config import Dataset
from msa3d.observation.exposures import Observation
from msa3d.observation.metafile import MsaFile
from msa3d.observation.source import place_exposures, sources_of
from msa3d.pipeline.layout import Layout
from msa3d.pipeline.overview import make_plan
from msa3d.reduce import calibrate

from .conftest import METAFILE, write_rate

ROWS, COLUMNS = 7, 9
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
#: Odd base-36 numbers, from 03101 to 0313h.
NAMES = [f"031{n // 36}{DIGITS[n % 36]}" for n in range(1, 2 * ROWS * COLUMNS, 2)]
#: Source, quadrant, row along dispersion, column of the first shutter, shutters.
GALAXIES = [(8512, 3, 120, 20, 5), (29470, 3, 160, 60, 4), (113852, 4, 200, 100, 6), (12015, 1, 150, 90, 4)]
BACKGROUND = [
    (f, q, 180, c, 3) for f, (q, c) in enumerate(((q, c) for c in (10, 40, 75, 115) for q in (1, 2, 3, 4)), 50)
]


def chosen() -> Dataset:
    """The dataset that describes it: all slitlets are reduced."""
    tiny = Dataset.load("tiny")
    target, source = (
        tiny.model_dump(mode="json")["targets"][0],
        tiny.model_dump(mode="json")["simulation"]["sources"][0],
    )
    ids = [galaxy[0] for galaxy in GALAXIES]
    return tiny.replaced(
        pattern={"rows": ROWS, "columns": COLUMNS},
        process={"wanted_sources_only": False},
        targets=[target | {"source_id": i, "name": f"MSA-3D {i}"} for i in ids],
        simulation={"sources": [source | {"source_id": i} for i in ids]},
    )


def away(slitlet: int, column: int) -> str:
    """How the archive says that the step has carried a galaxy out of its slitlet: by 0 or by a negative id."""
    if column not in (0, COLUMNS - 1) or slitlet % 3 == 0:
        return ""
    return "zero" if (slitlet + column) % 2 else "negative"


def shutters() -> list[dict]:
    """Rows of SHUTTER_INFO, one configuration an exposure."""
    rows = []
    for index in range(ROWS * COLUMNS):
        column = Dataset.load("go2136").pattern.place(index)[1]
        for number, (source, quadrant, row, first, length) in enumerate(GALAXIES + BACKGROUND, 1):
            planned = {"": source, "zero": 0, "negative": -index * 100 - number}[away(number, column)]
            if source < 100:
                planned = -source if number % 2 else 0
            for k in range(length):
                lit = k == length // 2 and planned != 0
                rows.append(
                    {
                        "slitlet_id": number, "msa_metadata_id": index + 1, "shutter_quadrant": quadrant,
                        "shutter_row": row, "shutter_column": first + k, "source_id": planned if lit else 0,
                        "background": "N" if lit else "Y", "shutter_state": "OPEN",
                        "estimated_source_in_shutter_x": 0.5 if lit else np.nan,
                        "estimated_source_in_shutter_y": 0.4 if lit else np.nan, "dither_point_index": 1,
                        "primary_source": "Y" if lit else "N",
                    }
                )  # fmt: skip
    return rows


def write_metafile(path: Path) -> None:
    """Write the metafile, with the column that the archive has had since 2024 and a row of a fixed slit in it."""
    entries = [
        {
            "program": 2136, "source_id": galaxy[0], "source_name": f"2136_{galaxy[0]}", "alias": "", "ra": 215.05,
            "dec": 52.94, "preimage_id": "None", "stellarity": 0.0,
        }
        for galaxy in GALAXIES
    ]  # fmt: skip
    fixed = shutters()[0] | {"slitlet_id": 99, "shutter_quadrant": 1, "shutter_row": 1, "shutter_column": 1}
    MsaFile.from_tables([*shutters(), fixed], entries, fits.Header()).write(path)
    with fits.open(path) as hdus:
        table = hdus["SHUTTER_INFO"]
        kind = np.where(table.data["slitlet_id"] == 99, "S200A1", "NONE")
        hdus["SHUTTER_INFO"] = fits.BinTableHDU.from_columns(
            [*table.columns, fits.Column("fixed_slit", "6A", array=kind)], name="SHUTTER_INFO"
        )
        hdus.writeto(path, overwrite=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory, crds_cache):
    root = tmp_path_factory.mktemp("go2136")
    pattern = Dataset.load("go2136").pattern
    write_metafile(root / METAFILE)
    for index, name in enumerate(NAMES):
        row, column = pattern.place(index)
        for detector in ("NRS1", "NRS2"):
            path = root / f"jw02136001001_{name}_00001_{detector.lower()}_rate.fits"
            write_rate(path, detector, index + 1, (2048, 2048) if index in (0, 31, 62) else (8, 8))
            with fits.open(path, mode="update") as hdus:
                hdus[0].header.update(MSAMETID=index + 1, PATT_NUM=1, ENGQLPTG="CALCULATED_TRACK_TR_202111")
                east = (column - 4) * 0.2 / 3600 / np.cos(np.radians(52.94))
                hdus["SCI"].header.update(RA_REF=215.05 + east, DEC_REF=52.94 + (row - 3) * 0.075 / 3600)
    for number in (1, 2):
        header = fits.Header({"EXP_TYPE": "NRS_MSATA", "MSA3DSIM": True})
        fits.PrimaryHDU(header=header).writeto(root / f"jw02136001001_02101_0000{number}_nrs1_rate.fits")
    (root / "crds_cache").symlink_to(crds_cache)
    return root


def test_check_and_plan(root):
    dataset = chosen()
    observation = Observation.read(Layout(root), dataset)
    assert observation.problems() == []
    assert [exposure.activity for exposure in observation.exposures] == NAMES
    assert (NAMES[0], NAMES[31], NAMES[-1]) == ("03101", "0311r", "0313h")
    plan = make_plan(dataset, Layout(root), workers=1)
    assert (plan.exposures, plan.targets, plan.slitlets, plan.problems) == (63, 4, 20, [])
    assert str(plan.pattern).startswith("7 x 9, serpentine")
    assert [item.activity for item in place_exposures(dataset, Layout(root))] == NAMES


@pytest.mark.slow
def test_all_galaxies_come_out_of_the_first_the_middle_and_the_last_exposure(root):
    dataset, layout = chosen(), Layout(root)
    ids = sorted(galaxy[0] for galaxy in GALAXIES)
    wanted = [NAMES[0], NAMES[31], NAMES[-1]]
    # In two of them a galaxy has left its slitlet, in each way that the archive has for it.
    assert {away(number, column) for number in (1, 2, 4) for column in (0, 8)} == {"zero", "negative"}
    calibrate.run(dataset, layout, workers=min(2, os.cpu_count()), only=wanted)
    exposures = [item for item in place_exposures(dataset, layout) if item.activity in wanted]
    assert {source: len(found) for source, found in sources_of(dataset, layout, tuple(exposures)).items()} == {
        source: 3 for source in ids
    }
    for name in wanted:
        spectra = {path.name for path in layout.process_dir(name).glob("*_s2d.fits")}
        assert {f"newoutput_s{source:05d}_s2d.fits" for source in ids} <= spectra
        assert all(other.startswith("newoutput_b") for other in spectra - {f"newoutput_s{s:05d}_s2d.fits" for s in ids})
        assert len(spectra) > len(ids) + 8
        for source in ids:
            header = fits.getheader(layout.s2d(name, source), "SCI")
            assert (header["SOURCEID"], header["SRCNAME"]) == (source, f"2136_{source}")
