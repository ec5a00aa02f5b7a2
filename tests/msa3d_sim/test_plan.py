"""Pointings, slitlets and the metafile of a simulated observation."""

from __future__ import annotations

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
from msa3d_sim.plan import filler_slitlets, plan_observation, write_metafile


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
    assert [e.activity for e in plan.exposures[:2]] == ["03101", "03102"]
    assert plan.exposures[-1].activity == "0311r"
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
    assert [len(s.columns) for s in plan.slitlets] == [s.shutters for s in demo.simulation.sources]
    for slitlet in plan.slitlets:
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
    assert len(metafile.shutters) == 63 * sum(s.shutters for s in demo.simulation.sources)
    assert fits.getval(path, "MSA3DSIM") is True


def test_a_source_off_the_shutters_is_named(demo):
    with pytest.raises(DatasetError, match=r"8512.*falls on no slitlet"):
        plan_observation(changed(demo, ra_ref=215.2))


def test_overlapping_spectra_are_named(demo):
    source = demo.simulation.sources[0]
    twin = source.model_copy(update={"source_id": 9, "ra": source.ra + 0.0005})
    with pytest.raises(DatasetError, match="spectra of sources 8512 and 9"):
        plan_observation(changed(demo, sources=[source, twin]))


def test_fillers_leave_the_sources_alone():
    taken = (Slitlet(1, 8512, 1, 126, (41, 42, 43, 44, 45), 43),)
    fillers = filler_slitlets(taken, 13)
    assert len(fillers) == 13
    assert {f.source_id for f in fillers} == {0}
    for one in fillers:
        clear = one.quadrant % 2 == 0 or one.columns[0] > 46 or one.columns[-1] < 40
        assert clear
    with pytest.raises(DatasetError, match="room for"):
        filler_slitlets(taken, 500)
