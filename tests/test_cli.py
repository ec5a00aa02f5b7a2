"""The `msa3d` command."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from astropy.table import Table
from typer.testing import CliRunner

from msa3d import __version__, cli
from msa3d.errors import ObservationError
from msa3d.pipeline.engine import Step
from msa3d.pipeline.products import jwst_version

STEPS = ("process", "postprocess", "cubebuild")


class Report:
    def table(self) -> Table:
        return Table({"exposure": ["0311n"], "seconds": [1.5]})


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Let the command set up logging for this test only.
    for name in ("msa3d", "stpipe"):
        logger = logging.getLogger(name)
        for attribute in ("handlers", "filters", "propagate", "level"):
            value = getattr(logger, attribute)
            monkeypatch.setattr(logger, attribute, value[:] if isinstance(value, list) else value)
    return lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture
def steps(monkeypatch):
    """Steps that only note what they are asked to do."""
    calls = []

    def run(step, dataset, layout, *, workers=None, **options):
        calls.append((step.name, dataset.name, layout.root, workers))
        return Report()

    monkeypatch.setattr(Step, "run", run)
    return calls


def test_version(invoke):
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.stdout == f"msa3d {__version__} (jwst {jwst_version()})\n"


def test_messages_come_once_and_jwst_is_quiet(invoke, monkeypatch):
    with suppress(ModuleNotFoundError):
        import stpipe.log  # noqa: F401 - it puts handlers on the root logger; younger versions do not

    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("stpipe").handlers.append(handler)

    def run(step, dataset, layout, **options):
        logging.getLogger("msa3d.reduce.calibrate").info("one of ours")
        logging.getLogger("stpipe").info("one of theirs")
        logging.getLogger("stpipe").error("an error of theirs")
        logging.getLogger("msa3d.reduce.calibrate").debug("too much")
        return Report()

    monkeypatch.setattr(Step, "run", run)
    result = invoke("process", "-d", "tiny")
    assert result.stderr.count("one of ours") == 1
    assert said == ["an error of theirs"]
    assert "too much" not in result.stderr


def test_help_does_not_wait_for_jwst():
    code = "import sys, msa3d.cli; sys.exit(any(m in sys.modules for m in ('jwst', 'numpy', 'astropy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_datasets(invoke):
    result = invoke("datasets")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["demo", "go2136", "middle", "survey", "tiny"]


@pytest.mark.parametrize("name", STEPS)
def test_a_step_works_in_the_run_of_its_dataset(invoke, steps, tmp_path, name):
    result = invoke(name, "--dataset", "tiny")
    assert result.exit_code == 0, result.output
    # Both what drizzled and what published cubes are made of is post-processed.
    wanted = ["calpost", name] if name == "postprocess" else [name]
    assert steps == [(step, "tiny", tmp_path / "runs" / "tiny", None) for step in wanted]
    assert "0311n" in result.stdout


def test_a_step_works_in_a_directory(invoke, steps, tmp_path):
    assert invoke("process", "elsewhere", "--workers", 3).exit_code == 0
    assert steps == [("process", "demo", tmp_path / "elsewhere", 3)]


def test_a_dataset_of_the_user_names_its_run(invoke, steps, tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: tiny\nname: mine\n")
    assert invoke("process", "-d", tmp_path / "mine.yaml").exit_code == 0
    assert steps == [("process", "mine", tmp_path / "runs" / "mine", None)]


def test_run_does_the_three_steps_in_order(invoke, steps):
    assert invoke("run", "-d", "tiny", "-w", "dask://localhost:8786").exit_code == 0
    assert [call[0] for call in steps] == ["process", "calpost", "postprocess", "cubebuild"]
    assert {call[3] for call in steps} == {"dask://localhost:8786"}


@pytest.mark.parametrize("workers", ["0", "-1", "many", "1.5"])
def test_workers_are_a_number_or_an_address(invoke, steps, workers):
    result = invoke("process", f"--workers={workers}")
    assert result.exit_code == 2
    assert "--workers" in result.output
    assert not steps


def test_two_directories_are_one_too_many(invoke, steps):
    result = invoke("process", "one", "two")
    assert result.exit_code == 2
    assert not steps


def test_an_error_is_one_sentence_and_status_2(invoke, monkeypatch):
    def run(step, dataset, layout, **options):
        raise ObservationError("Exposure 0311n has no nrs2; add it.")

    monkeypatch.setattr(Step, "run", run)
    result = invoke("process")
    assert result.exit_code == 2
    assert result.stderr == "msa3d: Exposure 0311n has no nrs2; add it.\n"
    assert result.stdout == ""


def test_an_unknown_dataset_is_an_error(invoke):
    result = invoke("process", "-d", "demoo")
    assert result.exit_code == 2
    assert "did you mean 'demo'" in result.stderr


def test_an_empty_directory_is_an_error_and_stays_empty(invoke, tmp_path):
    (tmp_path / "empty").mkdir()
    for command in ("check", *STEPS):
        result = invoke(command, "empty", "-d", "tiny")
        assert result.exit_code == 2, command
        assert result.stderr.count("\n") == 1
        assert not list((tmp_path / "empty").iterdir())


def test_a_real_observation_is_not_simulated(invoke, tmp_path):
    result = invoke("simulate", "-d", "go2136")
    assert result.exit_code == 2
    assert "real observation" in result.stderr
    assert not list(tmp_path.iterdir())


def test_data_of_a_real_dataset_are_fetched_and_checked(invoke, monkeypatch, tmp_path):
    from msa3d.archive import crds, fetch

    calls = []
    monkeypatch.setattr(
        fetch, "fetch_observation", lambda dataset, layout, **options: calls.append(options["products"]) or Report()
    )
    done = {"files": {"a": {}}, "context": "jwst_1240.pmap", "path": "cache"}
    monkeypatch.setattr(crds, "prefetch", lambda dataset, layout, files: calls.append("references") or done)
    for variable in ("CRDS_PATH", "CRDS_SERVER_URL"):
        monkeypatch.delenv(variable, raising=False)
    result = invoke("data", "-d", "go2136")
    assert calls == [["rate", "metafile"], "references"]
    assert "1 references of jwst_1240.pmap are verified in cache" in result.stdout
    # Nothing came in this test, which the check that follows says.
    assert result.exit_code == 2
    assert str(Path("runs") / "go2136") in result.stderr
    monkeypatch.setenv("CRDS_PATH", str(tmp_path))
    monkeypatch.setenv("CRDS_SERVER_URL", "https://localhost")
    invoke("data", "-d", "go2136")
    assert calls[2:] == [["rate", "metafile"]]


def test_files_that_were_put_there_by_hand_are_not_asked_for(invoke, monkeypatch):
    from msa3d import cli
    from msa3d.archive import fetch

    calls = []
    monkeypatch.setattr(fetch, "fetch_observation", lambda *a, **k: calls.append("files") or Report())
    monkeypatch.setattr(cli, "is_here", lambda description, layout: True)
    monkeypatch.setenv("CRDS_PATH", "/somewhere")
    monkeypatch.setenv("CRDS_SERVER_URL", "https://localhost")
    assert invoke("data", "-d", "go2136").exit_code == 2  # the check after it, in an empty directory
    assert calls == []


def test_fetching_offline_is_one_sentence(invoke, monkeypatch):
    monkeypatch.setenv("MSA3D_MAST_SERVER", "http://localhost:9")
    result = invoke("fetch", "-d", "go2136")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 2  # what it is about to do, and the sentence
    assert "cannot be reached" in result.stderr


def test_a_simulated_dataset_is_not_fetched(invoke):
    result = invoke("fetch", "-d", "tiny")
    assert result.exit_code == 2
    assert "is simulated" in result.stderr


def test_data_of_a_simulated_dataset_are_made(invoke, monkeypatch, tmp_path):
    from msa3d_sim import observe

    calls = []

    def simulate(dataset, layout, *, workers=None):
        calls.append((dataset.name, layout.root, workers))
        return observe.SimulationReport(made=18, current=0, seconds=12.3)

    monkeypatch.setattr(observe, "simulate", simulate)
    result = invoke("data", "-d", "tiny", "-w", 1)
    assert result.exit_code == 0
    assert result.stdout == "18 rate files made, 0 were there, in 12 s.\n"
    assert calls == [("tiny", tmp_path / "runs" / "tiny", 1)]


def test_the_notebook_command_gives_the_parameters(invoke, monkeypatch, tmp_path):
    from msa3d.pipeline import notebooks

    calls = []

    def run(name, layout, dataset, parameters):
        calls.append((name, parameters))
        return Path(f"{name}.ipynb"), name != "02_second"

    monkeypatch.setattr(notebooks, "run", run)
    (tmp_path / "more.yaml").write_text("source: 8512\n")
    result = invoke("notebook", "run", "01_process", "-d", "tiny", "-w", "2", "-f", "more.yaml")
    assert result.exit_code == 0, result.output
    expected = {"dataset": "tiny", "root": str(Path("runs", "tiny")), "workers": 2, "source": 8512}
    assert calls == [("01_process", expected)]
    assert result.stdout == "01_process.ipynb\n"
    (tmp_path / "notebooks").mkdir()
    for name in ("02_second", "01_first", notebooks.START):
        (tmp_path / "notebooks" / f"{name}.ipynb").touch()
    result = invoke("notebook", "all", "-d", "tiny")
    assert result.stdout == "01_first.ipynb\n02_second.ipynb is current\n"


def test_a_metafile_that_is_none_is_an_error(invoke, tmp_path):
    (tmp_path / "x_msa.fits").write_text("no FITS")
    result = invoke("msa", "check", "x_msa.fits")
    assert result.exit_code == 2
    assert "x_msa.fits" in result.stderr


# --- the metafile


@pytest.fixture
def small_metafile(tmp_path):
    """One slitlet of five shutters on 8512, at two dither points."""
    from msa3d.config import Dataset
    from msa3d.observation.metafile import MsaFile

    shutters = [
        {
            "slitlet_id": 1, "msa_metadata_id": 1, "shutter_quadrant": 2, "shutter_row": 100, "shutter_column": column,
            "source_id": 8512 if column == 52 else 0, "background": "N" if column == 52 else "Y",
            "shutter_state": "OPEN", "estimated_source_in_shutter_x": 0.4 if column == 52 else float("nan"),
            "estimated_source_in_shutter_y": 0.6 if column == 52 else float("nan"), "dither_point_index": point,
            "primary_source": "Y" if column == 52 else "N",
        }
        for column in range(50, 55)
        for point in (1, 2)
    ]  # fmt: skip
    source = {
        "program": 2136, "source_id": 8512, "source_name": "2136_8512", "alias": "a", "ra": 215.0, "dec": 52.9,
        "preimage_id": "None", "stellarity": 0.0,
    }  # fmt: skip
    MsaFile.from_tables(shutters, [source], Dataset.load("tiny")).write(tmp_path / "a_msa.fits")
    return tmp_path / "a_msa.fits"


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("ids",), "slitlet 1: source ids 0, 8512 became 8512"),
        (("keep", 8512), "0 changes"),
        (("stellarity", "8512=1"), "source 8512: stellarity 0.0 became 1.0"),
        (("position", 8512, 0.5, 0.25, "--dither", 2), "0.250"),
        (("background", 1), "source 8512 removed"),
        (("split",), "slitlet 2 new"),
        (("split", "--own-sources"), "source 8514 new"),
        (("lengthen", "--shutters", 2), "became"),
        (("one-per-shutter", 1, "--first-id", 900), "source 904 new"),
    ],
)
def test_edits_of_the_metafile_go_into_a_copy(invoke, small_metafile, tmp_path, arguments, told):
    from astropy.io import fits

    before = small_metafile.read_bytes()
    edit, *rest = arguments
    result = invoke("msa", edit, small_metafile, "b_msa.fits", *rest)
    assert result.exit_code == 0, result.output
    assert told in result.stdout
    assert small_metafile.read_bytes() == before
    header = fits.getheader(tmp_path / "b_msa.fits")
    assert header["FILENAME"] == "b_msa.fits"
    assert "a_msa.fits" in str(header["HISTORY"])
    history = "".join(str(line).ljust(72) for line in header["HISTORY"])
    assert (told in history) == (told != "0 changes")
    assert invoke("msa", edit, small_metafile, "b_msa.fits", *rest).exit_code == 2
    assert invoke("msa", edit, small_metafile, "b_msa.fits", "--overwrite", *rest).exit_code == 0


def test_the_metafile_is_checked_and_listed(invoke, small_metafile):
    assert "0 problems" in invoke("msa", "check", small_metafile).stdout
    assert "source     8512" in invoke("msa", "slitlets", small_metafile).stdout


@pytest.mark.parametrize("arguments", [("stellarity", "8512:1"), ("stellarity", "7=1"), ("split", "--longest", 0)])
def test_a_wrong_edit_is_an_error_and_writes_nothing(invoke, small_metafile, tmp_path, arguments):
    edit, *rest = arguments
    assert invoke("msa", edit, small_metafile, "b_msa.fits", *rest).exit_code == 2
    assert not (tmp_path / "b_msa.fits").exists()


def test_the_original_is_never_written_over(invoke, small_metafile):
    result = invoke("msa", "split", small_metafile, small_metafile, "--overwrite")
    assert result.exit_code == 2
    assert "is the original MSA metafile" in result.stderr


# --- a dataset of the user's own


@pytest.fixture
def own(invoke, tmp_path):
    """The template, somewhere outside of the repository."""
    result = invoke("datasets", "--template")
    assert result.exit_code == 0
    path = tmp_path / "somewhere" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(result.stdout)
    return path


def test_the_template_is_a_dataset(invoke, own):
    from msa3d.config import Dataset

    dataset = Dataset.load(own)
    assert (dataset.name, dataset.programme, dataset.source_ids) == ("mine", "02123", [1234])
    result = invoke("check", "elsewhere", "-d", own)
    assert result.exit_code == 2
    assert "no count-rate files jw02123001001_*" in result.stderr
    assert "template" not in invoke("datasets").stdout


@pytest.mark.parametrize(
    "old, new, match",
    [
        (
            "row_step_arcsec: 0.075",
            "row_step_mas: 75",
            "unknown key 'pattern.row_step_mas' (did you mean 'row_step_arcsec'?)",
        ),
        (
            "row_step_arcsec: 0.075",
            "row_step_arcsec: 75 mas",
            "pattern.row_step_arcsec: input should be a valid number",
        ),
        (
            "row_step_arcsec: 0.075",
            "row_step_arcsec: -0.075",
            "pattern.row_step_arcsec: input should be greater than 0",
        ),
        ('programme: "02123"', "programme: 2123", "programme: input should be a valid string (put it between quotes)"),
        ("dec: 52.938", "dec: 152.938", "targets.0.dec: input should be less than or equal to 90"),
        ("case_study: 1234", "case_study: 8512", "case_study 8512 is not among the targets [1234]"),
        ("extends: base", "extends: bases", "There is no dataset 'bases'"),
        ("order: serpentine", "order: snake", "pattern.order: input should be 'serpentine' or 'raster'"),
        ("pattern:", "pattern: [", "is not valid YAML"),
    ],
)
def test_a_wrong_line_in_it_is_one_sentence(invoke, own, old, new, match):
    text = own.read_text()
    assert old in text
    own.write_text(text.replace(old, new, 1))
    result = invoke("check", "elsewhere", "-d", own)
    assert result.exit_code == 2
    assert match in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


def test_a_dataset_that_is_not_there_is_one_sentence(invoke, tmp_path):
    result = invoke("plan", "elsewhere", "-d", tmp_path / "none.yaml")
    assert result.exit_code == 2
    assert result.stderr == f"msa3d: There is no dataset file {tmp_path / 'none.yaml'}.\n"


def test_cleaned_images_go_into_another_root(invoke, monkeypatch, tmp_path):
    calls = []

    def run(step, dataset, layout, *, into, method, workers):
        calls.append((layout.root, into.root, method))
        return Report()

    monkeypatch.setattr(Step, "run", run)
    assert "msa3d run" in invoke("nsclean", "data", "-d", "tiny").stdout
    invoke("nsclean", "data", "-d", "tiny", "--to", "clean", "--by-jwst")
    root = tmp_path / "data"
    assert calls == [(root, tmp_path / "data_nsclean", "fast"), (root, tmp_path / "clean", "jwst")]


def test_a_few_exposures_first(invoke, monkeypatch):
    calls = []
    monkeypatch.setattr(Step, "run", lambda *arguments, **options: calls.append(options) or Report())
    assert invoke("process", "-d", "tiny", "--only", "03101", "--only", "03105").exit_code == 0
    assert calls == [{"workers": None, "only": ["03101", "03105"]}]
