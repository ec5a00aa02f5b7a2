"""Where things lie: the published tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from msa3d.errors import ObservationError
from msa3d.pipeline.layout import POST_SUFFIX, Layout, exposure_names, parse_rate_name

ROOT = Path("/data/run")


def test_published_tree():
    layout = Layout(ROOT)
    exposure = ROOT / "reduction/process/exp_0311n_nobar"
    assert layout.process_dir("0311n") == exposure
    assert layout.s2d("0311n", 8512) == exposure / "newoutput_s08512_s2d.fits"
    assert layout.s2d("0311n", 29470, POST_SUFFIX) == exposure / "newoutput_s29470_s2d_pathcorr_astrocorr.fits"
    assert layout.s2d("0311n", 102730) == exposure / "newoutput_s102730_s2d.fits"
    assert layout.cube_medians(8512) == ROOT / "reduction/cubes/cube_8512/cube_medians_8512.fits"
    assert layout.column_median(8512, 3) == ROOT / "reduction/cubes/cube_8512/median_lam3_s8512_all.fits"
    assert layout.column_stack(8512, 3) == ROOT / "reduction/cubes/cube_8512/spec_lam3_s8512_all.fits"
    assert layout.metafile_copy("a_msa.fits") == ROOT / "reduction/msa/a_msa.fits"


@pytest.mark.parametrize(
    "stem",
    [
        "jw02136001001_0311n_00001",
        "jw02136001001_0311n_00001_nrs1",
        "/data/run/jw02136001001_0311n_00001_nrs1_rate.fits",
    ],
)
def test_cal_from_any_stem(stem):
    name = "jw02136001001_0311n_00001_nrs2_cal.fits"
    assert Layout(ROOT).cal("0311n", "NRS2", stem) == ROOT / "reduction/process/exp_0311n_nobar" / name


def test_everything_lies_under_the_root():
    layout = Layout(ROOT)
    for path in (
        layout.crds_cache, layout.truth, layout.records, layout.science, layout.figures, layout.notebooks,
    ):  # fmt: skip
        assert path.is_relative_to(ROOT)


def test_root_is_absolute_and_text_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Layout("runs/tiny").root == tmp_path / "runs" / "tiny"


def test_rates_and_activities(tmp_path):
    layout = Layout(tmp_path)
    assert layout.rates() == []
    assert layout.activities() == []
    for name in (
        "jw02136001001_03110_00001_nrs1_rate.fits",
        "jw02136001001_0310z_00001_nrs1_rate.fits",
        "x.fits",
    ):
        (tmp_path / name).touch()
    assert [path.name[14:19] for path in layout.rates()] == ["0310z", "03110"]
    for activity in ("03110", "0310z", "03102"):
        layout.process_dir(activity).mkdir(parents=True)
    assert layout.activities() == ["03102", "0310z", "03110"]


def test_names_of_exposures():
    stem = "jw02136001001_{}_nrs1_rate.fits"
    paths = [Path(stem.format(name)) for name in ("0310a_00001", "03109_00002", "03109_00010", "03109_00001")]
    names = exposure_names([*paths, Path(stem.format("03109_00010").replace("nrs1", "nrs2"))])
    assert list(names.values()) == ["03109-00001", "03109-00002", "03109-00010", "03109-00010", "0310a"]
    assert exposure_names(paths[:2]) == {paths[1]: "03109", paths[0]: "0310a"}


def test_directories_come_in_observing_order(tmp_path):
    layout = Layout(tmp_path)
    for name in ("0310b", "03109-00010", "03109-00002", "0310a"):
        layout.process_dir(name).mkdir(parents=True)
    assert layout.activities() == ["03109-00002", "03109-00010", "0310a", "0310b"]


def test_parse_rate_name():
    parts = parse_rate_name(Path("/a/jw02136001001_0311n_00001_nrs2_rate.fits"))
    assert parts == {
        "programme": "02136", "observation": "001", "visit": "001", "activity": "0311n", "exposure": "00001",
        "detector": "nrs2",
    }  # fmt: skip
    for other in ("jw02136001001_0311n_00001_nrs2_cal.fits", "jw02136_rate.fits", "notes.txt"):
        assert parse_rate_name(other) is None


@pytest.mark.parametrize(
    "name", ["../x_msa.fits", "/etc/passwd", "..", ".", "", "a/b.fits", "a\\b.fits", "a\nb", "x" * 300, "~root", "$(x)"]
)
def test_no_name_of_a_metafile_leads_out_of_the_root(name):
    with pytest.raises(ObservationError, match=r"MSAMETFL of the rates.*a plain name is wanted") as caught:
        Layout(ROOT).metafile(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_plain_metafile_lies_beside_the_rates():
    assert Layout(ROOT).metafile("jw02136001001_01_msa.fits ") == ROOT / "jw02136001001_01_msa.fits"
