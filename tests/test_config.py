"""Datasets: what is packaged is what was published; what is wrong is told with the nearest right name."""

from __future__ import annotations

import csv
import itertools
import json
import time
from pathlib import Path

import pytest

from msa3d._model import read_yaml
from msa3d.config import Dataset, Pattern, available
from msa3d.errors import DatasetError
from msa3d.reduce.settings import DETECTOR1_STEPS, PARAMETERS, SPEC2_STEPS, SPEC3_STEPS

TABLE = Path(__file__).parents[2] / "shared" / "data" / "msa3d_2606.27853_tables.csv"
SLITS = TABLE.with_name("go2136_slits.csv")

SKIPPED_SPEC2 = {
    "bkg_subtract", "master_background_mos", "pathloss", "barshadow", "wavecorr", "srctype", "straylight",
    "fringe", "residual_fringe", "cube_build", "extract_1d",
}  # fmt: skip
SKIPPED_SPEC3 = {
    "assign_mtwcs", "master_background", "mrs_imatch", "outlier_detection", "cube_build", "extract_1d",
    "combine_1d", "photom",
}  # fmt: skip


def test_available():
    assert available() == ["demo", "go2136", "middle", "survey", "tiny"]


@pytest.mark.parametrize("name", ["demo", "go2136", "middle", "survey", "tiny"])
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
        "demo": 63, "go2136": 63, "middle": 1, "survey": 63, "tiny": 9,
    }  # fmt: skip
    assert {name: len(d.targets) for name, d in sizes.items()} == {
        "demo": 3,
        "go2136": 31,
        "middle": 31,
        "survey": 31,
        "tiny": 1,
    }
    assert len(sizes["survey"].simulation.sources) == 43
    assert {n: d.simulation.background_slitlets for n, d in sizes.items() if d.simulation} == {
        "demo": 2, "middle": 16, "survey": 16, "tiny": 2,
    }  # fmt: skip
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
    # The redshift and position of 10752 are published elsewhere.
    assert sorted([10752, *(int(row["ID"]) for row in rows)]) == dataset.source_ids
    for row in rows:
        target = dataset.target(int(row["ID"]))
        assert (target.ra, target.dec) == (float(row["RA"]), float(row["Dec"]))
        if target.source_id != 8512:
            assert target.redshift == float(row["z"])
    if dataset.simulation:
        sources = {source.source_id: source for source in dataset.simulation.sources}
        for row, source in ((row, sources[int(row["ID"])]) for row in rows):
            assert (source.ra, source.dec) == (float(row["RA"]), float(row["Dec"]))
            assert source.inclination_deg == float(row["incl"])
            assert source.v_rot_kms == float(row["Vrot_Re"])
            if source.source_id != 8512:
                assert source.sigma0_kms == float(row["sigma0"])
                assert source.sfr_msun_yr == float(row["SFR"])


@pytest.mark.skipif(not SLITS.is_file(), reason=f"no table of the real slits at {SLITS}")
def test_survey_has_the_real_slitlets():
    """As many shutters as the rows of the real 2-D spectra leave room for.

    jwst 1.14.0 cuts out half an opening beyond each end; a shutter is 1.15 openings, an opening 4.6 pixels: 21 or 22
    rows are three shutters, 26 or 27 four, 32 five.
    """
    with SLITS.open() as stream:
        rows = csv.DictReader(line for line in stream if not line.startswith("#"))
        real = {int(row["source_id"]): int(row["n_rows"]) for row in rows}
    sources = Dataset.load("survey").simulation.sources
    assert {source.source_id: source.shutters for source in sources} == {
        source_id: {21: 3, 22: 3, 26: 4, 27: 4, 32: 5}[n_rows] for source_id, n_rows in real.items()
    }
    demo = Dataset.load("demo").simulation.sources
    assert {source.source_id: source.shutters for source in demo} == {8512: 5, 29470: 3, 12015: 4}


def test_steps_are_those_of_jwst():
    from jwst import pipeline

    # Steps of other versions are known as well, for datasets that name them.
    assert set(SPEC2_STEPS) >= set(pipeline.Spec2Pipeline.step_defs)
    assert set(SPEC3_STEPS) >= set(pipeline.Spec3Pipeline.step_defs)
    assert set(DETECTOR1_STEPS) >= set(pipeline.Detector1Pipeline.step_defs)


# Texts of jwst's specifications that are choices or lists of numbers; all other texts may name a file.
CHOICES = {
    "debug_spaxel", "exptime_key", "fillval", "good_bits", "ignore_region_max", "ignore_region_min", "kernel",
    "kernel_size", "maximum_cores", "scale", "slit_name", "slit_names", "snr", "source_ids", "source_type",
}  # fmt: skip

# Of what came after jwst 1.14: steps that NIRSpec's slits do not go through, and parameters for other modes.
ELSEWHERE = {"straylight", "wfss_contam", "emicorr", "firstframe"}
OTHER_MODES = ("soss_", "wfss_", "ifu_", "nrs_ifu_", "source_max_sep")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_parameters_are_the_switches_numbers_and_choices_of_jwst():
    from jwst import pipeline
    from stpipe.config_parser import get_merged_spec_file

    classes = (pipeline.Detector1Pipeline, pipeline.Spec2Pipeline, pipeline.Spec3Pipeline)
    for step, kind in (item for one in classes for item in one.step_defs.items()):
        expected, known = set(), get_merged_spec_file(kind)
        for name, spec in known.items():
            plain = str(spec).split("(")[0] in {"boolean", "integer", "float", "option", "int_list", "float_list"}
            if (plain or name in CHOICES) and not name.startswith(("save_", "output_use", "search_output", "skip")):
                expected.add(name)
        # `skip` is every step's, and what begins like it is a step's own.
        expected |= {"skip_dqflagging"} if step == "cube_build" else set()
        # Those that only another version has are not looked at here.
        allowed = {name for name in PARAMETERS.get(step, "").split() if name in known}
        assert allowed <= expected, step
        if step not in ELSEWHERE:
            assert {name for name in expected - allowed if not name.startswith(OTHER_MODES)} == set(), step


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
    assert dataset.simulation.activity(62) == "0313h"


@pytest.mark.parametrize("cubes", [{"builder": "paper", "also": []}, {"also": ["paper"]}], ids=["builder", "also"])
def test_published_cubes_need_rectified_spectra(cubes):
    with pytest.raises(DatasetError, match=r"process\.rectify is false, but the published builder needs"):
        Dataset.load("tiny").replaced(process={"rectify": False}, cubebuild=cubes)
    assert not Dataset.load("tiny").replaced(process={"rectify": False}, cubebuild={"also": []}).process.rectify


# --- what a dataset of somebody else may try

STEPS = ("spec2: {assign_wcs", "spec3: {resample_spec", "detector1: {jump")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "given",
    [
        "pre_hooks: ['touch hooked']",
        "post_hooks: ['os.system']",
        "output_dir: /tmp",
        "input_dir: /etc",
        "output_file: ../../x",
        "output_ext: /../x.fits",
        "suffix: ../x",
        "save_results: true",
        "search_output_file: true",
        "override_flat: /etc/passwd",
        "config_file: x.asdf",
        "class: os.system",
        "logcfg: x.cfg",
    ],
)
def test_hooks_and_paths_are_not_taken_from_a_dataset(tmp_path, step, given):
    path = write(tmp_path / "mine.yaml", f"extends: tiny\nname: mine\nprocess: {{{step}: {{{given}}}}}}}\n")
    name = given.partition(":")[0]
    with pytest.raises(DatasetError, match=f"mine.yaml: process.*cannot set {name!r} of step") as caught:
        Dataset.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "nsclean: {user_mask: m.fits}",
        "flat_field: {user_supplied_flat: f.fits}",
        "master_background_mos: {user_background: b.fits}",
        "resample_spec: {output_wcs: w.asdf}",
        "extract_1d: {soss_modelname: ../x}",
    ],
)
def test_files_are_not_taken_from_a_dataset(given):
    import yaml

    with pytest.raises(DatasetError, match="cannot set"):
        Dataset.load("tiny").replaced(process={"spec2": yaml.safe_load(given)})


@pytest.mark.parametrize(
    "value", ["../x", "/tmp/x", "a\\b", "$HOME", "%(x)s", "a;b", "x\ny", {"pre_hooks": ["x"]}, [["x"]], ["../x"]]
)
def test_values_for_jwst_are_plain(value):
    with pytest.raises(DatasetError, match=r"resample_spec\.kernel has to be a switch, a number, a choice"):
        Dataset.load("tiny").replaced(process={"spec2": {"resample_spec": {"kernel": value}}})


def test_plain_parameters_of_jwst_are_taken():
    steps = {
        "resample_spec": {"kernel": "square", "pixfrac": 0.8, "fillval": "INDEF", "crval": [1.0, 2.0]},
        "nsclean": {"skip": False, "n_sigma": 4},
        "extract_1d": {"bkg_fit": None},
    }
    assert Dataset.load("tiny").replaced(process={"spec2": steps}).process.spec2["nsclean"] == steps["nsclean"]


@pytest.mark.parametrize("key", ["name", "metafile", "crds_context", "process.product"])
@pytest.mark.parametrize(
    "value", ["../../x", "/tmp/x", "..", "a/b", "a\\b", "", "x" * 300, "a\nb", "~x", "$(x)", "`x`"]
)
def test_names_that_lead_elsewhere_are_refused(key, value):
    changes = {"process": {"product": value}} if key == "process.product" else {key: value}
    with pytest.raises(DatasetError, match=f"{key}: a plain name is wanted"):
        Dataset.load("tiny").replaced(**changes)


@pytest.mark.parametrize("value", ["/etc/x.fits", "../x.fits", "images/../../x.fits"])
def test_an_image_outside_of_the_root_is_refused(value):
    with pytest.raises(DatasetError, match=r"registration\.reference: .* leads out of the root"):
        Dataset.load("tiny").replaced(cubebuild={"drizzle": {"registration": {"reference": value}}})


@pytest.mark.parametrize(
    "value", ["/etc/passwd", "../mine.yaml", "x/../mine.yaml", "~/mine.yaml", "[tiny]", "{a: b}", "3"]
)
def test_extends_stays_in_its_directory(tmp_path, value):
    path = write(tmp_path / "mine.yaml", f"extends: {value}\nname: mine\n")
    with pytest.raises(DatasetError, match="extends names a packaged dataset or a file in the same directory"):
        Dataset.load(path)


BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in itertools.pairwise("abcdefghijkl")
)


@pytest.mark.parametrize(
    "text, match",
    [
        ("a: " + "[" * 3000 + "]" * 3000, "line 1: mappings and lists are nested more than 20 deep"),
        ("a: " + "{a: " * 3000 + "1" + "}" * 3000, "nested more than 20 deep"),
        ("".join(" " * i + "a:\n" for i in range(1000)), "line 21: .*nested more than 20 deep"),
        ("case_study: " + "9" * 6000, "line 1: a value has more than 2000 characters"),
        ("case_study: " + "9" * 1500, "a number of more than 40 characters"),
        ("case_study: 0x" + "f" * 1500, "a number of more than 40 characters"),
        ("case_study: 1" + ":59" * 500, "a number of more than 40 characters"),
        ("a: &x {b: *x}", r"line 1: \*x refers to another place"),
        ("a: &x [*x]", r"line 1: \*x refers to another place"),
        (BOMB, r"line 2: \*a refers to another place"),
        ("name: " + "x" * 2_000_000, "more than 1000000 bytes"),
        ("source: [" + "x, " * 60_000 + "]", "more than 50000 values"),
        ("a: 2001-99-99", "not valid YAML: .*month"),
        ("a: !!int x", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML: .*could not determine a constructor"),
        ("? [a]\n: 1", "not valid YAML: .*unhashable"),
        ("a: \x07", "not valid YAML"),
        ("1: 2", "does not hold a mapping of keys"),
    ],
    ids=range(18),
)
@pytest.mark.timeout(20)
def test_yaml_has_bounds(tmp_path, text, match):
    path = write(tmp_path / "mine.yaml", text + "\n")
    with pytest.raises(DatasetError, match=match) as caught:
        Dataset.load(path)
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_many_keys_take_no_time(tmp_path):
    """Comparing each key with all others took minutes."""
    path = write(tmp_path / "mine.yaml", "".join(f"k{i}: \n" for i in range(20_000)))
    started = time.monotonic()
    with pytest.raises(DatasetError, match=r"unknown key 'k0'.*and 1999[0-9] more problems"):
        Dataset.load(path)
    assert time.monotonic() - started < 30


def test_a_yaml_that_is_no_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not valid YAML"):
        Dataset.load(path)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"pattern": {"rows": 1e9}}, "pattern.rows: .*less than or equal to 100"),
        ({"pattern": {"columns": 101}}, "pattern.columns: .*less than or equal to 100"),
        ({"pattern": {"row_step_arcsec": float("inf")}}, "finite number"),
        ({"process": {"lengthen_slitlets": 100_000}}, "lengthen_slitlets: .*less than or equal to 10"),
        ({"process": {"split_slitlets": 10**9}}, "split_slitlets: .*less than or equal to 171"),
        ({"postprocess": {"cosmic_rays": {"niter": 10**9}}}, "niter: .*less than or equal to 100"),
        ({"calpost": {"cosmic_rays": {"niter": 10**9}}}, "niter: .*less than or equal to 100"),
        ({"calpost": {"background": {"knot_um": 1e-12}}}, "knot_um: .*greater than or equal to 0.001"),
        ({"cubebuild": {"subpixels": 10**9}}, "subpixels: .*less than or equal to 100"),
        ({"cubebuild": {"drizzle": {"scalexy": 1e-9}}}, "scalexy: .*greater than or equal to 0.01"),
        ({"cubebuild": {"drizzle": {"scalew": 1e-12}}}, "scalew: .*greater than or equal to"),
        (
            {"cubebuild": {"drizzle": {"outliers": {"rounds": 4}}}},
            "rounds' is a key of an earlier version",
        ),
        ({"cubebuild": {"drizzle": {"ends": 0.5}}}, "ends' is a key of an earlier version; .* always 0.5"),
        ({"simulation": {"groups": 10**9}}, "groups: .*less than or equal to 1000"),
        ({"simulation": {"background_slitlets": 10**9}}, "background_slitlets: .*less than or equal to 1000"),
        ({"simulation": {"seed": -1}}, "seed: .*greater than or equal to 0"),
        ({"simulation": {"date": "yesterday"}}, "date"),
        ({"simulation": {"date": "2023-99-99T00:00:00"}}, "date: .*month"),
        ({"title": "a\nb"}, "title: one line of at most 200 characters"),
        ({"title": "x" * 201}, "title: one line of at most 200 characters"),
    ],
)
def test_values_have_bounds(changes, match):
    with pytest.raises(DatasetError, match=match):
        Dataset.load("tiny").replaced(**changes)
