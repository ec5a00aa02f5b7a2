"""Pointings, slitlets and the metafile of a simulated observation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from astropy.io import fits

from msa3d.archive.crds import use_references
from msa3d.config import Dataset
from msa3d.errors import DatasetError
from msa3d.observation.metafile import MsaFile
from msa3d.pipeline.layout import Layout
from msa3d_sim.crds_cache import build_crds_cache
from msa3d_sim.geometry import Slitlet, tangent_offsets
from msa3d_sim.instrument import failed_closed
from msa3d_sim.plan import background_slitlets, metafile_tables, plan_observation, write_metafile


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    layout = Layout(tmp_path_factory.mktemp("plan"))
    build_crds_cache(layout.crds_cache)
    return layout


@pytest.fixture
def demo(cache):
    dataset = Dataset.load("demo")
    use_references(cache, dataset)
    return dataset


def changed(dataset: Dataset, **simulation) -> Dataset:
    return dataset.model_copy(update={"simulation": dataset.simulation.model_copy(update=simulation)})


def test_the_pattern_is_stepped_on_the_sky(demo):
    plan = plan_observation(demo)
    assert len(plan.exposures) == 63
    assert [e.activity for e in plan.exposures[:2]] == ["03101", "03103"]
    assert (plan.exposures[31].activity, plan.exposures[-1].activity) == ("0311r", "0313h")
    by_place = {(e.row, e.column): e.nominal for e in plan.exposures}
    assert len(by_place) == 63
    first = by_place[0, 0]
    for place, wanted in (((0, 1), 0.2), ((1, 0), 0.075), ((6, 8), np.hypot(1.6, 0.45))):
        east, north = tangent_offsets(by_place[place].ra, by_place[place].dec, first.ra, first.dec)
        assert np.hypot(east, north) == pytest.approx(wanted, rel=1e-3)


def test_the_telescope_misses_by_what_the_dataset_says(demo):
    plan = plan_observation(changed(demo, pointing_error_arcsec=0.01))
    misses = [tangent_offsets(e.true.ra, e.true.dec, e.nominal.ra, e.nominal.dec) for e in plan.exposures]
    assert np.std(misses) == pytest.approx(0.01, rel=0.2)
    perfect = plan_observation(changed(demo, pointing_error_arcsec=0.0))
    assert all(e.true == e.nominal for e in perfect.exposures)


def test_sources_are_in_their_slitlets_on_working_shutters(demo):
    plan = plan_observation(demo)
    closed = set(map(tuple, failed_closed().tolist()))
    assert [len(s.columns) for s in plan.slitlets] == [*(s.shutters for s in demo.simulation.sources), 3, 3]
    for slitlet in plan.slitlets[:3]:
        assert all((slitlet.quadrant, slitlet.row, c) not in closed for c in slitlet.columns)
        at_centre = plan.shutter_positions[slitlet.source_id].mean(axis=0)
        assert np.all((at_centre > -0.1) & (at_centre < 1.1))
    # The steps move the source through its shutter: 1.6 arcsec of 0.268 arcsec a shutter.
    positions = plan.shutter_positions[8512]
    assert np.ptp(positions[:, 0]) == pytest.approx(1.6 / 0.268, rel=0.02)
    assert np.ptp(positions[:, 1]) == pytest.approx(0.45 / 0.53, rel=0.05)


def test_the_metafile_is_as_the_archive_writes_it(demo, tmp_path):
    plan = plan_observation(demo)
    path = tmp_path / demo.metafile
    write_metafile(demo, plan, path)
    metafile = MsaFile.read(path)
    assert not [problem for problem in metafile.check() if problem.level == "error"]
    assert metafile.source_ids == sorted(s.source_id for s in demo.simulation.sources)
    assert metafile.dither_points == [(number, 1) for number in range(1, 64)]
    assert len(metafile.shutters) == 63 * (5 + 3 + 4 + 3 + 3)
    assert fits.getval(path, "MSA3DSIM") is True


def test_a_galaxy_is_named_where_the_step_has_it_in_its_slitlet(demo):
    """By its primary shutter, which follows the dithers; elsewhere its slitlet has a virtual source or none."""
    plan = plan_observation(demo)
    shutters, sources = metafile_tables(demo, plan)
    seen = {}
    for exposure, slitlet in itertools.product(plan.exposures, plan.slitlets):
        rows = [
            row
            for row in shutters
            if (row["msa_metadata_id"], row["slitlet_id"]) == (exposure.index + 1, slitlet.slitlet_id)
        ]
        assert [row["shutter_column"] for row in rows] == list(slitlet.columns)
        (source_id,) = {row["source_id"] for row in rows}
        lit = [row for row in rows if row["primary_source"] == "Y"]
        assert [row for row in rows if row["background"] == "N"] == lit
        assert len(lit) == (source_id != 0)
        seen.setdefault((slitlet.source_id, exposure.column), set()).add(int(np.sign(source_id)))
        if source_id > 0:
            # Where the table says that it is, in the middle of a shutter and a pitch from there, it is on the sky.
            x, y = (lit[0][f"estimated_source_in_shutter_{axis}"] for axis in "xy")
            assert 0 <= x <= 1
            assert 0 <= y <= 1
            expected = plan.shutter_positions[source_id][exposure.index]
            assert (x, lit[0]["shutter_column"] - slitlet.primary + y) == pytest.approx(tuple(expected))
    ids = [s.source_id for s in demo.simulation.sources]
    for number, source_id in enumerate(ids, start=1):
        # Steps of 0.2 arcsec, shutters of 0.268 arcsec: the galaxy is in one or two of nine columns.
        signs = [seen[source_id, column] for column in range(9)]
        assert 1 <= signs.count({1}) <= 2
        assert signs[0] == signs[8] == ({-1} if number % 3 else {0})
    assert all(seen[0, column] == {0} for column in range(9))
    virtual = [entry["source_id"] for entry in sources if entry["source_id"] < 0]
    assert virtual == list(range(-1, -len(virtual) - 1, -1))
    assert {row["source_id"] for row in shutters if row["source_id"] < 0} == set(virtual)


def test_the_copy_names_every_galaxy_in_every_configuration(demo, tmp_path):
    """What the pipeline reads: the published transform of the repaired metafile."""
    plan = plan_observation(demo)
    path = tmp_path / demo.metafile
    write_metafile(demo, plan, path)
    table = MsaFile.read(path).repaired().transform_ids().shutters
    for slitlet in plan.slitlets:
        rows = table[table["slitlet_id"] == slitlet.slitlet_id]
        assert len(rows) == 63 * len(slitlet.columns)
        if slitlet.source_id:
            assert set(rows["source_id"]) == {slitlet.source_id}
        assert (rows["primary_source"] == "Y").sum() == 63


def test_a_source_off_the_shutters_is_named(demo):
    with pytest.raises(DatasetError, match=r"8512.*falls on no slitlet"):
        plan_observation(changed(demo, ra_ref=215.2))


def test_overlapping_spectra_are_named(demo):
    source = demo.simulation.sources[0]
    twin = source.model_copy(update={"source_id": 9, "ra": source.ra + 0.0005})
    with pytest.raises(DatasetError, match="spectra of sources 8512 and 9"):
        plan_observation(changed(demo, sources=[source, twin]))


def test_background_slitlets_leave_the_sources_alone():
    taken = (Slitlet(1, 8512, 1, 126, (41, 42, 43, 44, 45), 43),)
    found = background_slitlets(taken, 13)
    assert len(found) == 13
    assert {f.source_id for f in found} == {0}
    for one in found:
        clear = one.quadrant % 2 == 0 or one.columns[0] > 46 or one.columns[-1] < 40
        assert clear
    with pytest.raises(DatasetError, match="room for"):
        background_slitlets(taken, 500)
