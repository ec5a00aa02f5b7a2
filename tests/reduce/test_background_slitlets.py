"""Slitlets without a source through the real jwst, in whichever version: names, ids, and its master background."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from msa3d.archive import crds
from msa3d.observation.exposures import Observation
from msa3d.observation.source import is_background
from msa3d.pipeline.layout import Layout
from msa3d.reduce import calibrate, exposure, jwst_speed

from ..conftest import METAFILE, write_metafile

#: Source of the metafile, and where: a galaxy, one whose id is the number of the background slitlet, and two
#: slitlets that become background and virtual below.
#: Nine shutters long: jwst averages the background over rows that the ends of a slitlet cover in part, and is too
#: low by 8 per cent with three shutters.
SLITLETS = [(8512, 1, 150, 90, 9), (3, 1, 150, 60, 9), (9001, 1, 150, 75, 9), (9002, 1, 150, 105, 9)]


@pytest.fixture
def root_with_background(root: Path) -> Path:
    """Slitlet 3 is background, as planned by APT; slitlet 4 has a virtual source; slitlet -1 is in the way."""
    (root / METAFILE).unlink()
    write_metafile(root / METAFILE, SLITLETS, 2)
    with fits.open(root / METAFILE, mode="update") as hdus:
        rows = np.array(hdus["SHUTTER_INFO"].data.view(np.ndarray))
        empty = rows["slitlet_id"] == 3
        rows["source_id"][empty], rows["background"][empty], rows["primary_source"][empty] = 0, b"Y", b"N"
        for axis in "xy":
            rows[f"estimated_source_in_shutter_{axis}"][empty] = np.nan
        rows["source_id"][(rows["slitlet_id"] == 4) & (rows["source_id"] > 0)] = -4
        ignored = rows[empty].copy()
        ignored["slitlet_id"], ignored["shutter_row"] = -1, 160
        hdus["SHUTTER_INFO"] = fits.BinTableHDU(np.concatenate([rows, ignored]), name="SHUTTER_INFO")
        hdus["SOURCE_INFO"].data = hdus["SOURCE_INFO"].data[:2]
    return root


def calibrated(root: Path, dataset, **spec2) -> dict[int, fits.HDUList]:
    """SCI extensions (header, data) of NRS2 of the first exposure, by slitlet."""
    process = dataset.process
    # NSClean would take the level of the rates, the same everywhere, for the detector's.
    process = process.model_copy(update={
        "nsclean": False, "rectify": False, "wanted_sources_only": False, "spec2": {**process.spec2, **spec2},
    })  # fmt: skip
    chosen, layout = dataset.model_copy(update={"process": process}), Layout(root)
    context = crds.use_references(layout, chosen)
    observation = Observation.read(layout, chosen)
    metafile = calibrate.write_metafile_copy(chosen, layout, observation)
    names = jwst_speed.chosen("all")
    task = calibrate._task(observation.exposures[0], chosen, layout, metafile, names, context, True).job
    del task.rates["nrs1"]
    exposure.process_exposure(task)
    (path,) = layout.process_dir("03101").glob("*_cal.fits")
    with fits.open(path) as hdus:
        # Beside the slit a version of jwst writes zeros, another NaN.
        slits = {
            int(h.header["SLTNAME"]): (h.header.copy(), np.where(h.data == 0, np.nan, h.data))
            for h in hdus if h.name == "SCI"
        }  # fmt: skip
        return slits | {0: (hdus[0].header.copy(), None)}


@pytest.mark.slow
def test_ids_names_and_the_master_background(root_with_background: Path, dataset) -> None:
    before = calibrated(root_with_background, dataset)
    found = {
        number: (header["SOURCEID"], header["SRCNAME"], is_background(header))
        for number, (header, _) in before.items()
        if number
    }
    # No slitlet -1, and no two slits of one source.
    assert found == {
        1: (8512, "2136_8512", False),
        2: (3, "2136_3", False),
        3: (-3, "background_3", True),
        4: (-4, "background_4", True),
    }

    after = calibrated(root_with_background, dataset, master_background_mos={"skip": False})
    assert after[0][0]["S_MSBSUB"] == "COMPLETE"
    # The rates are 0.5 DN/s everywhere: all of it is background.
    for number in (1, 2):
        level, left = (np.nanmedian(slits[number][1]) for slits in (before, after))
        assert level > 0
        assert abs(left) < 0.05 * level
