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
from astropy.table import Table

from msa3d.config import Dataset
from msa3d.cubes.cube import Cube, open_cube
from msa3d.cubes.extract import Ellipse
from msa3d.pipeline.engine import read_record
from msa3d.pipeline.layout import Layout

SAME = "the same"
#: Results of the galaxy, by the names of the report.
RESULTS = {
    "flux_Ha": "flux of Hα (erg s⁻¹ cm⁻²)", "redshift": "redshift", "v_sin_i_re": "V sin i at Re (km/s)",
    "sigma0": "σ₀ (km/s)", "metallicity_gradient": "gradient of O/H, N2 (dex/kpc)",
    "scale_line": "scale length of Hα (arcsec)",
}  # fmt: skip


def planes(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """Images of a file, by name and number."""
    with fits.open(path) as hdus:
        return {(h.name, h.ver): np.array(h.data) for h in hdus[1:] if h.is_image and h.name != "ASDF"}


def differences(one: list[np.ndarray], other: list[np.ndarray]) -> tuple[float, float]:
    """Compare where both are finite.

    Returns
    -------
    rms, largest : float
        Rms of the difference over that of the first; and the largest difference of a pixel, over its own value or that
        rms, whichever is larger.
    """
    pairs = [(a[both].astype(float), b[both].astype(float)) for a, b in zip(one, other, strict=True)
             if (both := np.isfinite(a) & np.isfinite(b)).any()]  # fmt: skip
    first, second = (np.concatenate(values) for values in zip(*pairs, strict=True))
    rms, change = np.sqrt((first**2).mean()), second - first
    return np.sqrt((change**2).mean()) / rms, float((np.abs(change) / np.maximum(np.abs(first), rms)).max())


def named(files: list[dict], name: str) -> list[np.ndarray]:
    """All planes of a name of some files."""
    return [plane for file in files for (found, _), plane in sorted(file.items()) if found == name]


def share(images: list[np.ndarray], of: str) -> str:
    """Share of pixels that are NaN, or zero."""
    counted = [np.isnan(image) if of == "NaN" else image == 0 for image in images]
    return f"{sum(int(one.sum()) for one in counted) / sum(one.size for one in counted):.1%}"


def compared(product: str, names: tuple[str, ...], one: list[dict], other: list[dict]) -> Iterator[tuple[str, ...]]:
    """Rows for planes that have the same shape in both."""
    for name in names:
        rms, largest = differences(named(one, name), named(other, name))
        said = f"{rms:.0e} rms, at most {largest:.0e}" if largest else SAME
        yield product, f"{name}, relative difference", "", said


def rows(first: Layout, second: Layout, dataset: Dataset) -> Iterator[tuple[str, ...]]:
    """Product, quantity, and its value in both runs."""
    runs = (first, second)
    rates = [[planes(path) for path in run.rates()] for run in runs]
    yield from compared("count rates", ("SCI", "ERR"), *rates)
    cals = [[planes(p) for p in sorted(run.process.glob("exp_*/jw*_cal.fits"))] for run in runs]
    yield from compared("cal", ("SCI", "ERR", "WAVELENGTH"), *cals)
    equal = all(np.array_equal(a, b) for a, b in zip(named(cals[0], "DQ"), named(cals[1], "DQ"), strict=True))
    yield "cal", "DQ", "", SAME if equal else "differs"
    yield "cal", "pixels that are NaN", *(share(named(files, "SCI"), "NaN") for files in cals)
    source = dataset.case_study
    s2d = [[run.s2d(activity, source) for activity in run.activities()] for run in runs]
    images = [[planes(path)["SCI", 1] for path in paths] for paths in s2d]
    yield "s2d", "rows x columns", *(" x ".join(map(str, found[0].shape)) for found in images)
    for of in ("NaN", "zero"):
        yield "s2d", f"pixels that are {of}", *(share(found, of) for found in images)
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
    target = next(one for one in dataset.targets if one.source_id == source)
    for radius in (0.3, 0.6):
        circle = Ellipse(target.ra, target.dec, radius)
        spectra = [spectrum(open_cube(run.cube_medians(source)), circle) for run in runs]
        ratio = np.median(binned(spectra[1]) / binned(spectra[0]))
        yield (
            "published cube",
            f"flux within {radius} arcsec of the galaxy, median over wavelength",
            "1",
            f"{ratio:.4f}",
        )
    for builder in ("drizzle", "paper"):
        paths = [run.science / f"report_{source}_{builder}.csv" for run in runs]
        # In the smallest dataset no galaxy is seen well enough to be measured.
        tables = [Table.read(path) for path in paths] if all(path.is_file() for path in paths) else []
        if not tables:
            continue
        reports = [{row["quantity"]: row for row in table} for table in tables]
        for quantity, told in RESULTS.items():
            values = [(float(one[quantity]["recovered"]), float(one[quantity]["error"])) for one in reports]
            found = (f"{value:.{7 if quantity == 'redshift' else 4}g} ± {error:.2g}" for value, error in values)
            yield f"galaxy, {'published' if builder == 'paper' else 'drizzled'} cube", told, *found
    records = [[read_record(path) for path in run.records.glob("process_*.json")] for run in runs]
    seconds = [statistics.median(record["notes"]["seconds"] for record in found) for found in records]
    yield "step 1", "wall seconds a pair of detectors, median", *(f"{value:.1f}" for value in seconds)
    memory = [max(record["notes"]["memory_gb"] for record in found) for found in records]
    yield "step 1", "peak memory (GB)", *(f"{value:.2f}" for value in memory)


def spectrum(cube: Cube, circle: Ellipse) -> np.ndarray:
    """Sum over a circle, its spaxels weighted by the part of them that lies in it and by their area."""
    return np.nansum(cube.data * circle.weights(cube), axis=(1, 2)) * cube.pixel_sr


def binned(values: np.ndarray) -> np.ndarray:
    """Medians of a hundred wavelengths."""
    whole = values.size // 100 * 100
    return np.median(values[:whole].reshape(-1, 100), axis=1)


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
