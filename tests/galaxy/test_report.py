"""The table of a galaxy: every number in its place, pulls right, files that read back."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from msa3d.config import Dataset
from msa3d.errors import ProductError
from msa3d.galaxy import report
from msa3d.galaxy.report import Row
from msa3d_sim.galaxy import DiscGalaxy

TABLES = Path(__file__).parents[2].parent / "shared/data/msa3d_2606.27853_tables.csv"


@pytest.fixture(scope="module")
def demo():
    return Dataset.load("demo")


@pytest.fixture
def table(demo):
    rows = [
        Row("sigma0", "km/s", 39.0, 2.0),
        Row("pa_deg", "deg", 138.2 - 360.0, 1.0),
        Row("clumps", "", 3.0, note="nothing to compare with"),
    ]
    return report.report_table(report.completed(rows, demo, 8512), 8512, simulated=True)


def test_injected_and_published_values_stand_beside_the_measured(table):
    row = {r["quantity"]: r for r in table}
    assert row["sigma0"]["injected"] == 36.0
    assert row["sigma0"]["pull"] == pytest.approx(1.5)
    assert row["sigma0"]["published_error"] == pytest.approx(4.5)
    assert "2408.08350" in row["sigma0"]["citation"]
    assert row["pa_deg"]["pull"] == pytest.approx(-1.0)
    assert (row["pa_deg"]["published"], row["pa_deg"]["published_error"]) == pytest.approx((139.2 - 360.0, 1.3))
    assert np.isnan(row["clumps"]["pull"])
    assert row["log_mass"]["note"] == "not measured"


def test_real_data_have_nothing_injected(demo):
    real = Dataset.load("go2136")
    assert report.injected(real, 8512) == {}
    assert report.injected(demo, 1) == {}


def test_the_injected_curve_is_that_of_the_simulation(demo):
    truth = report.injected(demo, 8512)
    assert truth["v_sin_i_re"] == pytest.approx(261.6 * np.sin(np.radians(12.5)))
    assert truth["v_sin_i_re"] == pytest.approx(truth["v_sin_i"] * 2 / np.pi * np.arctan(0.65 / 0.15))
    for dataset, source in [(d, s) for d in (demo, Dataset.load("survey")) for s in d.simulation.sources]:
        # The simulated velocity field at the half-light radius, along the receding major axis.
        simulated = float(DiscGalaxy(source, 1).velocity(source.re_arcsec, 0.0))
        assert simulated == pytest.approx(source.v_rot_kms * np.sin(np.radians(source.inclination_deg)))
        assert simulated == pytest.approx(report.injected(dataset, source.source_id)["v_sin_i_re"])
    assert truth["re_disc_kpc"] == pytest.approx(5.28, rel=0.02)
    assert truth["scale_line"] == pytest.approx(truth["scale_continuum"])


def test_files_read_back(table, tmp_path):
    first, second = report.write_report(table, tmp_path / "science" / "report_8512")
    with first.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [r["quantity"] for r in rows] == list(table["quantity"])
    assert float(rows[0]["pull"]) == pytest.approx(1.5)
    back = Table.read(second)
    assert back.meta["SIMULATD"]
    assert back["recovered"][0] == 39.0


def test_a_quantity_stands_in_one_row():
    with pytest.raises(ProductError, match="sigma0"):
        report.report_table([Row("sigma0", ""), Row("sigma0", "")], 1, simulated=False)


@pytest.mark.skipif(not TABLES.is_file(), reason="the survey's tables are not available")
def test_typed_numbers_are_those_of_the_survey():
    with TABLES.open() as lines:
        survey = {int(r["ID"]): r for r in csv.DictReader(lines)}
    names = {
        "sigma0": ("sigma0", "esig_p", "esig_m"),
        "v_rot": ("Vrot_Re", "eVrot_p", "eVrot_m"),
        "re_disc_kpc": ("Re_disk_kpc", "eRe_p", "eRe_m"),
        "inclination": ("incl",),
        "sfr": ("SFR",),
        "v_over_sigma": ("vsig",),
    }
    for source_id in (8512, 29470, 12015):
        for name, columns in names.items():
            item = report.published(source_id)[name]
            if "2606.27853" not in item.citation:
                continue
            typed = (item.value, item.plus, item.minus)[: len(columns)]
            assert typed == pytest.approx([float(survey[source_id][c]) for c in columns]), (source_id, name)
