"""The middle exposure of the survey, really simulated and processed, against the 2-D spectra of the real one.

``python -m pytest -o python_files='bench_*.py' tests/benchmarks/bench_real_slits.py -s`` simulates and processes the
dataset ``middle`` (or takes the root that ``MSA3D_MIDDLE`` names, with what it has already) and prints the comparison;
``MSA3D_SLITS=book/real_slits.csv`` makes the table of the book.
"""

from __future__ import annotations

import csv
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from msa3d.config import Dataset
from msa3d.pipeline.layout import Layout

from ..test_real_slits import CUT, ONE_DETECTOR, REAL, real_slits, within

pytestmark = pytest.mark.skipif(not REAL.is_file(), reason=f"no table of the real slits at {REAL}")


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    return Layout(Path(os.environ.get("MSA3D_MIDDLE") or tmp_path_factory.mktemp("middle") / "root"))


def make(dataset: Dataset, layout: Layout) -> None:
    from msa3d.reduce import calibrate
    from msa3d_sim.observe import simulate

    simulate(dataset, layout, workers=1)
    calibrate.run(dataset, layout, workers=1)


def spectrum(path: Path) -> dict[str, float]:
    """Rows, wavelengths and the samples that the gap between the detectors takes, of a rectified spectrum."""
    from stdatamodels.jwst import datamodels

    with datamodels.open(path) as model:
        rows, n_wave = model.data.shape
        _, _, wave = model.meta.wcs(np.arange(n_wave), np.zeros(n_wave))
    steps = np.diff(wave)
    gap = float(steps.max() / np.median(steps)) - 1 if steps.max() > 2 * np.median(steps) else 0.0
    return {"n_rows": rows, "n_wave": n_wave, "first": float(wave[0]), "last": float(wave[-1]), "gap": gap}


def sources_on(layout: Layout, activity: str, detector: str) -> set[int]:
    path = next(layout.process_dir(activity).glob(f"*_{detector}_cal.fits"))
    with fits.open(path) as hdus:
        return {int(hdu.header["SOURCEID"]) for hdu in hdus if hdu.name == "SCI"}


def test_the_slits_are_the_real_ones(benchmark, layout):
    dataset = Dataset.load("middle")
    benchmark.pedantic(make, (dataset, layout), rounds=1)
    activity = dataset.simulation.activity(0)
    table, misses = [], []
    blue = sources_on(layout, activity, "nrs1")
    red = sources_on(layout, activity, "nrs2")
    assert len(blue | red) == 59
    assert {source for source in red - blue if source > 0} == ONE_DETECTOR
    for source_id, real in real_slits().items():
        found = spectrum(layout.s2d(activity, source_id, "", dataset.process.product))
        good = within(real, found)
        if not good:
            misses.append((source_id, real, found))
        table.append(
            [
                source_id,
                int(real["n_rows"]),
                found["n_rows"],
                *("" if np.isnan(real["n_wave"]) else int(real["n_wave"]), found["n_wave"]),
                *("" if np.isnan(real["first"]) else f"{real['first']:.5f}", f"{found['first']:.5f}"),
                *("" if np.isnan(real["last"]) else f"{real['last']:.5f}", f"{found['last']:.5f}"),
                round(found["gap"]),
                "yes" if good else "no",
            ]
        )
        if source_id in CUT:
            assert found["last"] == pytest.approx(1.892, abs=0.0005)
    header = ["source", "rows, real", "simulated", "wavelengths, real", "simulated", "first (µm), real", "simulated"]
    header += ["last (µm), real", "simulated", "samples missing at the gap", "within limits"]
    if path := os.environ.get("MSA3D_SLITS"):
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *table])
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{len(table) - len(misses)} of {len(table)} within the limits; {gigabytes:.1f} GB")  # noqa: T201
    print(*misses, sep="\n")  # noqa: T201
    # Not met (see the page on the simulated observation): a few are too short for their last row, by up to 0.33%.
    assert {source for source, *_ in misses} <= {6848, 11539, 13182, 18188, 19382}
    assert all(real["n_rows"] - found["n_rows"] == 1 for _, real, found in misses)
    assert all(within(real, found | {"n_rows": real["n_rows"]}) for _, real, found in misses)
