"""Datasets: what is packaged is what was published; what is wrong is told with the nearest right name."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import pytest

from msa3d.dataset import SPEC2_STEPS, SPEC3_STEPS, Dataset, Pattern, available
from msa3d.errors import DatasetError

TABLE = Path(__file__).parents[2] / "shared" / "data" / "msa3d_2606.27853_tables.csv"

SKIPPED_SPEC2 = {
    "bkg_subtract", "master_background_mos", "pathloss", "barshadow", "wavecorr", "srctype", "straylight",
    "fringe", "residual_fringe", "cube_build", "extract_1d",
}  # fmt: skip
SKIPPED_SPEC3 = {
    "assign_mtwcs", "master_background", "mrs_imatch", "outlier_detection", "cube_build", "extract_1d",
    "combine_1d", "photom",
}  # fmt: skip


def test_available():
    assert available() == ["demo", "go2136", "survey", "tiny"]


@pytest.mark.parametrize("name", ["demo", "go2136", "survey", "tiny"])
def test_published_parameters(name):
    dataset = Dataset.load(name)
    assert dataset.name == name
    assert {step for step, values in dataset.process.spec2.items() if values == {"skip": True}} == SKIPPED_SPEC2
    assert {step for step, values in dataset.process.spec3.items() if values == {"skip": True}} == SKIPPED_SPEC3
    assert dataset.process.product == "newoutput"
    cosmic = dataset.postprocess.cosmic_rays
    assert (cosmic.method, cosmic.sigclip, cosmic.sigfrac, cosmic.niter, cosmic.block) == (
        "astroscrappy", 0.6, 0.001, 3, 100,
    )  # fmt: skip
    assert (dataset.postprocess.min_source_id, dataset.postprocess.pathloss.aperture) == (100, "MOS1x3")
    assert dataset.cubebuild.builders == ("drizzle", "paper")
    assert dataset.cubebuild.subpixels == 4
    assert dataset.pattern.row_step_arcsec == 0.075
    assert (dataset.programme, dataset.filter, dataset.grating) == ("02136", "F100LP", "G140H")


def test_sizes():
    sizes = {name: Dataset.load(name) for name in available()}
    assert {name: d.pattern.n_exposures for name, d in sizes.items()} == {
        "demo": 63, "go2136": 63, "survey": 63, "tiny": 9,
    }  # fmt: skip
    assert {name: len(d.targets) for name, d in sizes.items()} == {
        "demo": 3,
        "go2136": 30,
        "survey": 30,
        "tiny": 1,
    }
    assert len(sizes["survey"].simulation.sources) + sizes["survey"].simulation.filler_slitlets == 43
    assert sizes["go2136"].simulation is None


def test_tiny_is_a_piece_of_demo():
    demo, tiny = Dataset.load("demo"), Dataset.load("tiny")
    assert tiny.targets[0] == demo.target(8512)
    assert tiny.simulation.sources == [s for s in demo.simulation.sources if s.source_id == 8512]
    assert tiny.process == demo.process


def test_case_study_has_the_papers_values():
    for name in ("demo", "tiny", "survey"):
        (source,) = (s for s in Dataset.load(name).simulation.sources if s.source_id == 8512)
        assert (source.redshift, source.log_mass, source.sfr_msun_yr, source.sigma0_kms) == (
            1.104,
            10.3,
            3.0,
            36.0,
        )
        assert source.metallicity_gradient_dex_kpc == -0.020
        assert (source.inclination_deg, source.sfr_scale_ratio, source.morphology) == (12.5, 1.0, "spiral")
        assert source.shutters == 5
        assert source.av_gradient_mag_kpc != 0


@pytest.mark.skipif(not TABLE.is_file(), reason=f"no table of arXiv:2606.27853 at {TABLE}")
@pytest.mark.parametrize("name", ["survey", "go2136"])
def test_survey_is_the_published_table(name):
    dataset = Dataset.load(name)
    with TABLE.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["ID"]) for row in rows] == dataset.source_ids
    for row, target in zip(rows, dataset.targets, strict=True):
        assert (target.ra, target.dec) == (float(row["RA"]), float(row["Dec"]))
        if target.source_id != 8512:
            assert target.redshift == float(row["z"])
    if dataset.simulation:
        for row, source in zip(rows, dataset.simulation.sources, strict=True):
            assert source.inclination_deg == float(row["incl"])
            assert source.v_rot_kms == float(row["Vrot_Re"])
            if source.source_id != 8512:
                assert source.sigma0_kms == float(row["sigma0"])
                assert source.sfr_msun_yr == float(row["SFR"])


def test_steps_are_those_of_jwst():
    from jwst import pipeline

    assert set(SPEC2_STEPS) == set(pipeline.Spec2Pipeline.step_defs)
    assert set(SPEC3_STEPS) == set(pipeline.Spec3Pipeline.step_defs)


# --- the pattern


def test_serpentine():
    pattern = Pattern()
    assert [pattern.place(i) for i in (0, 8, 9, 17, 18, 62)] == [
        (0, 0),
        (0, 8),
        (1, 8),
        (1, 0),
        (2, 0),
        (6, 8),
    ]


@pytest.mark.parametrize("order", ["serpentine", "raster"])
@pytest.mark.parametrize("rows, columns", [(7, 9), (3, 3), (1, 5), (4, 1)])
def test_every_place_is_taken_once(order, rows, columns):
    pattern = Pattern(rows=rows, columns=columns, order=order)
    places = [pattern.place(i) for i in range(pattern.n_exposures)]
    assert sorted(places) == [(r, c) for r in range(rows) for c in range(columns)]
    assert [pattern.index(*place) for place in places] == list(range(pattern.n_exposures))
    if order == "serpentine":
        steps = [abs(a[0] - b[0]) + abs(a[1] - b[1]) for a, b in itertools.pairwise(places)]
        assert set(steps) == {1}


def test_place_outside():
    with pytest.raises(IndexError):
        Pattern(rows=3, columns=3).place(9)


# --- loading


def write(path, text):
    path.write_text(text)
    return path


def test_a_users_file(tmp_path):
    path = write(tmp_path / "mine.yaml", "extends: tiny\nname: mine\nsimulation: {noise: false}\n")
    mine, tiny = Dataset.load(path), Dataset.load("tiny")
    assert mine.simulation.noise is False
    assert mine.simulation.sources == tiny.simulation.sources
    assert mine.digest != tiny.digest
    more = write(tmp_path / "more.yml", "extends: mine.yaml\nname: more\n")
    assert Dataset.load(str(more)).simulation.noise is False


@pytest.mark.parametrize(
    "text, match",
    [
        ("simulation: {nois: false}", r"unknown key 'simulation.nois' \(did you mean 'noise'\?\)"),
        ("patern: {rows: 3}", r"unknown key 'patern' \(did you mean 'pattern'\?\)"),
        (
            "postprocess: {cosmic_rays: {sig_clip: 1}}",
            r"'postprocess.cosmic_rays.sig_clip' \(did you mean 'sigclip'",
        ),
        (
            "process: {spec2: {pathlos: {skip: true}}}",
            r"no such step: 'pathlos' \(did you mean 'pathloss'\?\)",
        ),
        ("zzz: 1", "unknown key 'zzz'; valid keys are extends, name"),
        ("programme: 02136", "programme: .* valid string .*quotes"),
        ("pattern: {rows: 0}", "pattern.rows: .* greater than or equal to 1, not 0"),
        ("pattern: {row_step_arcsec: wide}", "row_step_arcsec: .* valid number.*, not 'wide'"),
        ("case_study: 3", "case_study 3 is not among the targets"),
        ("simulated: false", "simulation must be given for a simulated dataset, and only for one"),
        ("targets: []", "targets: .* at least 1 item"),
        ("grating: G235H", "filter: 'F100LP' does not go with G235H, which needs F170LP"),
        ("filter: CLEAR", "filter: 'CLEAR' does not go with G140H, which needs F070LP or F100LP"),
        ("grating: G140", r"grating: there is no 'G140' \(did you mean 'G140[HM]'\?\)"),
        ("grating: MIRROR", "there is no 'MIRROR'.* G140M, G140H, G235M"),
        ("extends: nothing", "There is no dataset 'nothing'"),
        ("name: a\nname: b", "'name' given twice"),
        ("name: [", "not valid YAML"),
    ],
)
def test_errors_name_the_key(tmp_path, text, match):
    head = "" if text.startswith(("extends", "name")) else "extends: tiny\nname: mine\n"
    path = write(tmp_path / "mine.yaml", head + text + "\n")
    with pytest.raises(DatasetError, match=match) as caught:
        Dataset.load(path)
    assert "\n" not in str(caught.value)
    if "extends: nothing" not in text:
        assert "mine.yaml" in str(caught.value)


def test_not_a_mapping(tmp_path):
    with pytest.raises(DatasetError, match="does not hold a mapping"):
        Dataset.load(write(tmp_path / "a.yaml", "- 1\n"))


def test_extends_itself(tmp_path):
    write(tmp_path / "a.yaml", "extends: b.yaml\n")
    with pytest.raises(DatasetError, match="extends itself"):
        Dataset.load(write(tmp_path / "b.yaml", "extends: a.yaml\n"))


def test_unknown_names():
    with pytest.raises(DatasetError, match=r"no dataset 'dem' \(did you mean 'demo'\?\)"):
        Dataset.load("dem")
    with pytest.raises(DatasetError, match=r"no dataset file nowhere/a.yaml"):
        Dataset.load("nowhere/a.yaml")


def test_digest_is_of_the_content():
    tiny = Dataset.load("tiny")
    assert tiny.digest == Dataset.load("tiny").digest
    assert tiny.digest == Dataset.from_mapping(json.loads(tiny.model_dump_json())).digest
    assert tiny.digest != tiny.replaced(simulation={"seed": 1}).digest


def test_replaced_is_checked():
    with pytest.raises(DatasetError, match="did you mean 'rows'"):
        Dataset.load("tiny").replaced(pattern={"row": 2})


def test_target():
    assert Dataset.load("demo").target(12015).redshift == 1.24
    with pytest.raises(DatasetError, match="has no target 1;"):
        Dataset.load("demo").target(1)


def test_names_of_files():
    dataset = Dataset.load("demo")
    assert dataset.rate_name("0311n", "NRS1") == "jw02136001001_0311n_00001_nrs1_rate.fits"
    assert dataset.simulation.activity(62) == "0311r"


@pytest.mark.parametrize("cubes", [{"builder": "paper", "also": []}, {"also": ["paper"]}], ids=["builder", "also"])
def test_published_cubes_need_rectified_spectra(cubes):
    with pytest.raises(DatasetError, match=r"process\.rectify is false, but the published builder needs"):
        Dataset.load("tiny").replaced(process={"rectify": False}, cubebuild=cubes)
    assert not Dataset.load("tiny").replaced(process={"rectify": False}, cubebuild={"also": []}).process.rectify
