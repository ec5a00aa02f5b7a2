"""What differs between two runs of one dataset with two versions of jwst, as the table of the book.

    make notebooks DATASET=tiny; make notebooks DATASET=tiny PIPELINE=today
    .venv/bin/python tests/benchmarks/compare_pipelines.py runs/tiny runs/tiny-today book/two_pipelines.csv

It reads FITS planes and records only, so that either environment does. Planes are compared where both are finite, in
units of the rms of the first run's.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits

from msa3d.config import Dataset
from msa3d.pipeline.engine import read_record
from msa3d.pipeline.layout import Layout

SAME = "the same"


def planes(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """Images of a file, by name and number."""
    with fits.open(path) as hdus:
        return {(h.name, h.ver): np.array(h.data) for h in hdus if isinstance(h, fits.ImageHDU) and h.name != "ASDF"}


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Largest difference where both are finite, over the rms of the first."""
    worst, squares, number = 0.0, 0.0, 0
    for left, right in zip(one, other, strict=True):
        both = np.isfinite(left) & np.isfinite(right)
        left, right = left[both].astype(float), right[both].astype(float)
        worst = max(worst, float(np.abs(right - left).max(initial=0.0)))
        squares, number = squares + float((left**2).sum()), number + left.size
    return worst / np.sqrt(squares / number)


def named(files: list[dict], name: str) -> list[np.ndarray]:
    """All planes of a name of some files."""
    return [plane for file in files for (found, _), plane in sorted(file.items()) if found == name]


def finite(images: list[np.ndarray]) -> str:
    """Share of pixels that are neither NaN nor zero."""
    good = sum(int((np.isfinite(image) & (image != 0)).sum()) for image in images)
    return f"{good / sum(image.size for image in images):.1%}"


def compared(product: str, names: tuple[str, ...], one: list[dict], other: list[dict]) -> Iterator[tuple[str, ...]]:
    """Rows for planes that have the same shape in both."""
    for name in names:
        worst = difference(named(one, name), named(other, name))
        yield product, f"{name}, largest difference (rms)", "", f"{worst:.0e}" if worst else SAME


def rows(first: Layout, second: Layout, dataset: Dataset) -> Iterator[tuple[str, ...]]:
    """Product, quantity, and its value in both runs."""
    runs = (first, second)
    rates = [[planes(path) for path in run.rates()] for run in runs]
    yield from compared("count rates", ("SCI", "ERR"), *rates)
    cals = [[planes(p) for p in sorted(run.process.glob("exp_*/jw*_cal.fits"))] for run in runs]
    yield from compared("cal", ("SCI", "ERR", "WAVELENGTH"), *cals)
    equal = all(np.array_equal(a, b) for a, b in zip(named(cals[0], "DQ"), named(cals[1], "DQ"), strict=True))
    yield "cal", "DQ", "", SAME if equal else "differs"
    yield "cal", "pixels with a value", *(finite(named(files, "SCI")) for files in cals)
    source = dataset.case_study
    s2d = [[run.s2d(activity, source) for activity in run.activities()] for run in runs]
    images = [[planes(path)["SCI", 1] for path in paths] for paths in s2d]
    yield "s2d", "rows x columns", *(" x ".join(map(str, found[0].shape)) for found in images)
    yield "s2d", "pixels with a value", *(finite(found) for found in images)
    # Height of a pixel, as the published builder measures it on the coordinates of the rectified spectra.
    steps = [fits.getheader(run.cube_medians(source), "SCI")["NATPIX"] for run in runs]
    yield "s2d", "pixel along the slit (arcsec)", *(f"{step:.5f}" for step in steps)
    sums = [np.array([np.nansum(image.astype(float)) for image in found]) * step
            for found, step in zip(images, steps, strict=True)]  # fmt: skip
    yield "s2d", "flux summed along the slit, median over exposures", "1", f"{np.median(sums[1] / sums[0]):.4f}"
    cubes = [[planes(run.cube(source, dataset))] for run in runs]
    yield from compared("drizzled cube", ("SCI", "ERR", "WMAP"), *cubes)
    equal = np.array_equal(cubes[0][0]["DQ", 1], cubes[1][0]["DQ", 1])
    yield "drizzled cube", "DQ", "", SAME if equal else "differs"
    paper = [planes(run.cube_medians(source))["SCI", 1].astype(float) for run in runs]
    yield "published cube", "wave x rows x columns", *(" x ".join(map(str, cube.shape)) for cube in paper)
    middle = [np.nansum(around_middle(cube, step)) * step for cube, step in zip(paper, steps, strict=True)]
    yield "published cube", "flux within 1 arcsec along the slit", "1", f"{middle[1] / middle[0]:.4f}"
    whole = [np.nansum(cube) * step for cube, step in zip(paper, steps, strict=True)]
    yield "published cube", "flux of all of it", "1", f"{whole[1] / whole[0]:.4f}"
    records = [[read_record(path) for path in run.records.glob("process_*.json")] for run in runs]
    seconds = [statistics.median(record["notes"]["seconds"] for record in found) for found in records]
    yield "step 1", "wall seconds a pair of detectors, median", *(f"{value:.1f}" for value in seconds)
    memory = [max(record["notes"]["memory_gb"] for record in found) for found in records]
    yield "step 1", "peak memory (GB)", *(f"{value:.2f}" for value in memory)


def around_middle(cube: np.ndarray, step: float) -> np.ndarray:
    """Rows within an arcsecond of the middle of the published cube, which has four to a pixel."""
    rows = (np.arange(cube.shape[1]) - (cube.shape[1] - 1) / 2) * step / 4
    return cube[:, np.abs(rows) < 1.0]


def main(one: str, other: str, table: str, name: str = "tiny") -> None:
    """Write the table."""
    layouts = Layout(Path(one)), Layout(Path(other))
    header = ["product", "quantity"]
    for layout in layouts:
        record = read_record(next(layout.records.glob("process_*.json")))
        assert record is not None
        header.append(f"jwst {record['jwst']}")
    with Path(table).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *rows(*layouts, Dataset.load(name))])


if __name__ == "__main__":
    main(*sys.argv[1:])
