"""What is known of the real slits of GO-2136, against the optics of the simulation and the table of the book.

`tests/benchmarks/bench_real_slits.py` makes the table.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from msa3d.archive.crds import use_references
from msa3d.config import Dataset
from msa3d.pipeline.layout import Layout
from msa3d_sim.geometry import DETECTOR_PIXELS, WAVE_RANGE_UM, Optics
from msa3d_sim.plan import header_model, plan_observation

REAL = Path(__file__).parents[2] / "shared" / "data" / "go2136_slits.csv"
TABLE = Path(__file__).parents[1] / "book" / "real_slits.csv"

pytestmark = pytest.mark.skipif(not REAL.is_file(), reason=f"no table of the real slits at {REAL}")

#: Those that lie on NRS2 alone, and those whose spectra the filter ends.
ONE_DETECTOR = {10107, 10502, 11539, 11702, 18586, 19382, 29470}
CUT = {2145, 2465, 2824, 4391}
#: Limits: wavelengths, and first and last wavelength (um). A pixel is 2.35e-4 um.
SAMPLES, WAVE_UM = 3, 0.0005


def real_slits() -> dict[int, dict[str, float]]:
    """Rows, wavelengths, first and last wavelength (um) of the real spectra, NaN where not given, by source."""
    columns = {"n_rows": "n_rows", "n_wave": "n_wave", "first": "wave_first_um", "last": "wave_last_um"}
    with REAL.open() as stream:
        return {
            int(row["source_id"]): {name: float(row[column] or "nan") for name, column in columns.items()}
            for row in csv.DictReader(line for line in stream if not line.startswith("#"))
        }


def within(real: dict[str, float], found: dict[str, float]) -> bool:
    """Whether a spectrum is the real one within the limits, as far as that is given."""
    near = [abs(found["n_wave"] - real["n_wave"]) > SAMPLES]
    near += [abs(found[name] - real[name]) > WAVE_UM for name in ("first", "last")]
    return found["n_rows"] == real["n_rows"] and not any(near)


def test_red_ends_of_the_optics(tmp_path):
    """Each galaxy's spectrum ends where the real one does: at the last column of NRS2, or where the filter ends."""
    from msa3d_sim.crds_cache import build_crds_cache

    survey, layout = Dataset.load("survey"), Layout(tmp_path)
    build_crds_cache(layout.crds_cache)
    use_references(layout, survey)
    plan = plan_observation(survey.replaced(pattern={"rows": 1, "columns": 1}))
    slitlets = [slitlet for slitlet in plan.slitlets if slitlet.source_id]
    middle = plan.exposures[0]
    ends, lit = {}, {"NRS1": set(), "NRS2": set()}
    wave = np.linspace(WAVE_RANGE_UM[0], WAVE_RANGE_UM[1], 4001)
    for detector, sources in lit.items():
        optics = Optics(header_model(survey, middle, detector, middle.nominal), slitlets)
        for slitlet in slitlets:
            transform = optics.slit_wcs(slitlet).get_transform("slit_frame", "detector")
            y_slit = np.full(wave.size, np.mean(slitlet.y_range))
            x, _ = transform(np.zeros(wave.size), y_slit, wave * 1e-6)
            if (inside := (x > -0.5) & (x < DETECTOR_PIXELS - 0.5)).any():
                sources.add(slitlet.source_id)
                ends[slitlet.source_id] = wave[inside].max()
    assert lit["NRS2"] == set(real_slits())
    assert lit["NRS2"] - lit["NRS1"] == ONE_DETECTOR
    assert {source for source, end in ends.items() if end == wave[-1]} == CUT
    known = {source: real["last"] for source, real in real_slits().items() if np.isfinite(real["last"])}
    off = {source: ends[source] - last for source, last in known.items() if source not in CUT}
    assert len(off) == 29
    assert max(map(abs, off.values())) < WAVE_UM, off


@pytest.mark.skipif(not TABLE.is_file(), reason="the table has not been made")
def test_the_table_of_the_book():
    """It has the real numbers, and says of each slit whether the simulated one is within the limits."""
    with TABLE.open(encoding="utf-8") as stream:
        _, *rows = csv.reader(stream)
    real = real_slits()
    assert [int(row[0]) for row in rows] == list(real)
    for row in rows:
        told, found = ([float(text or "nan") for text in row[start:9:2]] for start in (1, 2))
        names = ("n_rows", "n_wave", "first", "last")
        np.testing.assert_array_equal(told, [real[int(row[0])][name] for name in names])
        assert row[10] == ("yes" if within(real[int(row[0])], dict(zip(names, found, strict=True))) else "no")
        if int(row[0]) in ONE_DETECTOR:
            assert row[9] == "0"
        elif int(row[0]) not in CUT:
            # As many are missing in the real spectra (128 to 169).
            assert 125 < int(row[9]) < 172
