"""Both builders' numbers stand beside each other, and what the book quotes is always there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table

from msa3d.closure import side_by_side
from msa3d.config import Dataset
from msa3d.galaxy import report
from msa3d.galaxy.measure import Galaxy, measure

from ..fixtures.cubes import REDSHIFT
from ..fixtures.galaxies import GEOMETRY, noiseless, noisy
from ..fixtures.tables import numbers


@pytest.fixture(scope="module")
def found() -> dict[str, dict[int, Galaxy]]:
    galaxy = measure(noisy(noiseless(), 0.2, 1), REDSHIFT, replace(GEOMETRY, pa_deg=0.0), source_id=8512, sample=False)
    # The other builder sees three quarters of the light.
    line = galaxy.discs["Ha"]
    dim = replace(line, log_centre=line.log_centre + np.log(0.75))
    return {"drizzle": {8512: galaxy}, "paper": {8512: replace(galaxy, discs=galaxy.discs | {"Ha": dim})}}


def test_builders_stand_beside_each_other(found):
    dataset = Dataset.load("tiny")
    table = side_by_side.compared(found, dataset)
    rows = {row["quantity"]: row for row in table}
    assert len(rows) == len(table)
    own = {row.quantity: row for row in report.rows(found["drizzle"][8512], dataset)}
    for name, row in rows.items():
        assert row["drizzle_pull"] == pytest.approx(own[name].pull), name
    flux = rows["flux_Ha"]
    assert flux["paper_ratio"] / flux["drizzle_ratio"] == pytest.approx(0.75)
    assert flux["drizzle_ratio"] == pytest.approx(flux["drizzle"] / flux["injected"])
    assert np.isnan(rows["redshift"]["drizzle_ratio"])
    # A quantity that only one builder gives has a row all the same.
    alone = side_by_side.compared({"drizzle": found["drizzle"], "paper": {}}, dataset)
    assert np.isnan(alone["paper_pull"]).all()
    assert np.isfinite(alone["drizzle_pull"]).all()


def test_the_comparison_stays_what_it_was(found, ndarrays_regression):
    """All pulls and ratios; pulls move by less than the twentieth of an error within which an optimiser stops."""
    table = side_by_side.compared(found, Dataset.load("tiny"))
    table.remove_columns([name for name in table.colnames if name in found or name.endswith("_error")])
    ndarrays_regression.check(numbers(sides=table), default_tolerance={"rtol": 0.02, "atol": 0.07})


def test_what_the_book_quotes(found):
    table = side_by_side.compared(found, Dataset.load("tiny"))
    best = side_by_side.of_best(table, found["drizzle"])
    assert set(best["galaxy"]) == {8512} and set(best["quantity"]) <= set(side_by_side.QUOTED)
    assert {"drizzle: pull", "drizzle: ratio", "paper: pull", "paper: ratio"} < set(best.colnames)
    rows = {row["builder"]: row for row in side_by_side.summary(table)}
    pulls = np.array(table["drizzle_pull"])[[report.counts(name) for name in table["quantity"]]]
    assert rows["drizzle"]["pulls"] == pulls.size < len(table)
    assert float(rows["drizzle"]["chi square"]) == pytest.approx(np.sum(pulls**2), abs=0.06)
    assert float(rows["drizzle"]["rms of pulls"]) == pytest.approx(np.sqrt(np.mean(pulls**2)), abs=0.006)
    assert float(rows["drizzle"]["largest pull"]) == pytest.approx(np.abs(pulls).max(), abs=0.06)
    ratio = float(rows["paper"]["recovered over injected Ha"]) / float(rows["drizzle"]["recovered over injected Ha"])
    assert ratio == pytest.approx(0.75, abs=0.02)


def test_means_over_galaxies_count_each_quantity_once():
    """Two galaxies: 3 and 1 of sigma0, of which the published builder has one; the rotation's asymptote is no more."""
    rows = [(1, "sigma0", 3.0, 4.0), (1, "v_sin_i_re", -1.0, -1.0), (1, "v_sin_i", 9.0, 9.0),
            (2, "sigma0", 1.0, np.nan), (2, "metallicity_gradient_PP04_O3N2", 9.0, 9.0)]  # fmt: skip
    table = Table(rows=rows, names=("galaxy", "quantity", "drizzle_pull", "paper_pull"))
    found = {row["quantity"]: row for row in side_by_side.combined(table)}
    assert list(found) == ["sigma0", "v_sin_i_re", "all"]
    assert found["sigma0"]["mean pull, drizzle"] == pytest.approx(2.0)
    assert (found["sigma0"]["galaxies"], found["sigma0"]["error"]) == (2, pytest.approx(0.5**0.5))
    assert found["sigma0"]["mean pull, published builder"] == pytest.approx(4.0)
    assert found["all"]["galaxies"] == 3 and found["all"]["mean pull, drizzle"] == pytest.approx(1.0)
    assert len(side_by_side.combined(table[:0])) == 0


def test_nothing_to_compare():
    assert len(side_by_side.compared({"drizzle": {}, "paper": {}}, Dataset.load("tiny"))) == 0


def test_the_headline_has_what_was_published_injected_and_recovered(found):
    dataset = Dataset.load("tiny")
    table = side_by_side.headline(found, dataset, side_by_side.SIX)
    assert table.colnames == [
        "quantity", "published", "injected", "recovered, drizzle", "recovered, published builder",
        "error ratio", "pull",
    ]  # fmt: skip
    rows = {str(row["quantity"]): row for row in table}
    assert "nan" not in " ".join(str(cell) for row in table for cell in row)
    dispersion = next(row for name, row in rows.items() if "dispersion" in name)
    own = next(row for row in report.rows(found["drizzle"][8512], dataset) if row.quantity == "sigma0")
    assert dispersion["published"] == "36.0 \u00b1 4.5"
    assert dispersion["recovered, drizzle"] == f"{own.recovered:.1f} \u00b1 {own.error:.1f}"
    assert float(dispersion["error ratio"]) == pytest.approx(own.error / 4.5, abs=0.051)
    assert float(dispersion["pull"].replace("\u2212", "-")) == pytest.approx(own.pull, abs=0.051)
    assert dispersion["recovered, published builder"].endswith(f"({dispersion['pull']}\u03c3)")
    # Rotation as seen: the survey's deprojected speed times the sine of its inclination.
    rotation = next(row for name, row in rows.items() if "rotation" in name)
    assert float(rotation["published"].split()[0]) == pytest.approx(261.6 * np.sin(np.radians(12.5)), abs=0.06)


def test_the_headline_of_real_data_needs_no_truth(found):
    real = Dataset.load("go2136")
    table = side_by_side.headline({"drizzle": found["drizzle"]}, real)
    assert table.colnames == ["quantity", "published", "recovered", "error ratio"]
    assert side_by_side.headline({"drizzle": {}, "paper": {}}, real) is None


def test_all_galaxies_stand_in_one_table(found):
    dataset = Dataset.load("tiny")
    table = side_by_side.all_galaxies(found["drizzle"], dataset)
    assert table.colnames == ["quantity", "MSA-3D 8512"] and len(table) == len(side_by_side.HEADLINE)
    own = next(row for row in report.rows(found["drizzle"][8512], dataset) if row.quantity == "sigma0")
    assert table[0][1].startswith(f"{own.recovered:.1f} \u00b1 {own.error:.1f} (")
    assert side_by_side.all_galaxies({}, dataset) is None
