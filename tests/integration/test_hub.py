"""A JupyterHub for real: hub and proxy from their registries on loopback, users who log in and run the notebooks.

The configuration is docs/jupyterhub_config.py, the example for operators. ``MSA3D_HUB_LOG`` names a file for the log.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest
from astropy.io import fits

from msa3d.config import Dataset
from msa3d.pipeline.layout import POST_SUFFIX, Layout

from ..fixtures.extraenv import EXTRA
from .hub_person import Person, SessionEnded
from .hub_running import LOCKS, Hub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

START = "msa3d/notebooks/00_start_here.ipynb"
FOUR = ("01_process", "02_postprocess", "03_cubebuild", "04_figures")
N_EXPOSURES = 9

#: A dataset that is taken for a real one: nothing of it is simulated, its references are those of CRDS_PATH.
SHARED = "extends: tiny\nname: shared\ntitle: Shared count rates\nsimulated: false\nsimulation: null\n"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    running = Hub(tmp_path_factory.mktemp("hub"))
    try:
        running.start()
        yield running
    finally:
        running.clear()
        if place := os.environ.get("MSA3D_HUB_LOG"):
            Path(place).write_text(
                "\n".join([*running.log.lines, "", "--- the hub's own log", running.text.read_text()])
            )


def come(hub, name):
    """Log in, and wait for the session."""
    person = Person(hub, name)
    person.log_in()
    person.take_token()
    person.start()
    return person


@pytest.fixture(scope="module")
def alice(hub):
    person = come(hub, "alice")
    yield person
    person.close()


@pytest.fixture(scope="module")
def bob(hub):
    person = come(hub, "bob")
    yield person
    person.close()


@pytest.fixture(scope="module")
def layout(hub):
    """Where the README says that a run lies, in the home directory of alice."""
    return Layout(hub.homes / "alice" / "msa3d" / "runs" / "tiny")


def finished(layout) -> dict[Path, int]:
    """When the products of the exposures that are finished were written."""
    done = [record.stem.removeprefix("process_") for record in layout.records.glob("process_*.json")]
    return {path: path.stat().st_mtime_ns for activity in done for path in layout.process_dir(activity).glob("*.fits")}


class Once:
    """Do something when a number of exposures is finished."""

    def __init__(self, layout, number, action) -> None:
        self.layout, self.number, self.action = layout, number, action
        self.before = {}

    def __call__(self) -> None:
        if not self.before and len(list(self.layout.records.glob("process_*.json"))) >= self.number:
            self.before = finished(self.layout)
            self.action()


def open_tiny(person, name):
    notebook = person.open(f"msa3d/notebooks/{name}.ipynb")
    notebook.set_parameter("dataset", "tiny")
    return notebook


@pytest.fixture(scope="module")
def interrupted(hub, alice, layout):
    """The first notebook: interrupted, gone on with, its session stopped, and again gone on with, to the end."""
    notebook = open_tiny(alice, "01_process")
    (long,) = [cell for cell in notebook.code if "run.process(" in cell.source]
    for cell in notebook.code[: notebook.code.index(long)]:
        assert not notebook.run(cell), cell.outputs
    hub.log(f"alice ran the cells of 01_process before the long one: {len(layout.rates())} count rates")

    square = Once(layout, 2, notebook.interrupt)
    ended_with = notebook.run(long, square)
    found = {"ended with": ended_with, "interrupted": square.before}
    found["workers"] = hub.left("spawn_main")
    hub.log(f"alice interrupted it: {ended_with}; {len(square.before)} products are whole")

    cull = Once(layout, 5, alice.stop)
    with pytest.raises(SessionEnded):
        notebook.run(long, cull)
    notebook.socket.close()
    found["stopped"] = cull.before
    found["after the stop"] = hub.left(user="alice")
    hub.log(f"the hub stopped the session in the middle; {len(cull.before)} products are whole")

    alice.start()
    notebook = open_tiny(alice, "01_process")
    notebook.run_all()
    notebook.close()
    return found


@pytest.fixture(scope="module")
def ran(alice, interrupted):
    """All four notebooks, as they were saved."""
    for name in FOUR[1:]:
        notebook = open_tiny(alice, name)
        notebook.run_all()
        notebook.close()
    start = open_tiny(alice, "00_start_here")
    start.run_all()
    start.close()


def test_the_first_page_is_the_notebook_to_start_with(hub, alice):
    page = alice.get("/user/alice/")
    assert page.ok
    assert page.url == f"{hub.url}/user/alice/lab/tree/{START}"
    assert "JupyterLab" in page.text
    names = [entry["name"] for entry in alice.server("GET", "contents/msa3d/notebooks").json()["content"]]
    assert {f"{name}.ipynb" for name in ("00_start_here", *FOUR)} <= set(names)


def test_an_interrupted_notebook_goes_on(interrupted):
    assert interrupted["ended with"] == "KeyboardInterrupt"
    assert interrupted["workers"] == [], "work goes on after the interrupt"
    before, later = interrupted["interrupted"], interrupted["stopped"]
    assert len(before) >= 2
    assert before.items() <= later.items(), "what was finished before the interrupt was made again"


def test_a_run_goes_on_after_its_session_was_stopped(interrupted, layout):
    assert interrupted["after the stop"] == []
    before, now = interrupted["stopped"], finished(layout)
    assert len(layout.activities()) == N_EXPOSURES
    assert len(before) < len(now)
    assert before.items() <= now.items(), "what was finished before the session ended was made again"


def test_the_results_are_where_the_readme_says(ran, layout):
    tiny = Dataset.load("tiny")
    assert len(layout.rates()) == 2 * N_EXPOSURES
    assert layout.metafile(tiny.metafile).is_file()
    for activity in layout.activities():
        place = layout.root / "reduction" / "process" / f"exp_{activity}_nobar"
        for suffix in ("", POST_SUFFIX):
            assert len(list(place.glob(f"jw*_cal{suffix}.fits"))) == 2
            assert (place / f"newoutput_s{tiny.case_study:05d}_s2d{suffix}.fits").is_file()
    cubes = layout.root / "reduction" / "cubes" / f"cube_{tiny.case_study}"
    path = cubes / f"jw02136-o001_s{tiny.case_study:05d}_nirspec_f100lp-g140h_s3d.fits"
    with fits.open(path) as cube:
        assert (cube["SCI"].data > 0).any()
        assert "MSA3DSIM" in cube[0].header
    assert (cubes / f"cube_medians_{tiny.case_study}.fits").is_file()
    assert any((layout.root / "reduction" / "science").iterdir())
    assert {"slit_stepping.png", "integrated.png", "collapsed.png"} <= {p.name for p in layout.figures.iterdir()}


def test_the_notebooks_were_saved_with_their_outputs(ran, hub, layout):
    for name in FOUR:
        notebook = nbformat.read(hub.homes / "alice" / "msa3d" / "notebooks" / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error"]
        assert any("image/png" in output.get("data", {}) for output in outputs), f"no picture in {name}"
        assert "data rate exceeded" not in str(outputs)


def test_make_in_a_terminal_uses_the_environment_of_the_hub(hub, alice):
    notebook = alice.open(START)
    told = notebook.text("!make --no-print-directory -C .. -n env; command -v msa3d jupyter-lab; echo $CRDS_PATH")
    notebook.close()
    assert "nothing to be done" in told.lower()
    assert not re.search("pip install|-m venv", told, flags=re.I)
    assert not (hub.homes / "alice" / "msa3d" / ".venv" / ".complete").exists()
    assert told.splitlines()[-1] == str(hub.crds)


def test_nobody_sees_the_files_of_another(hub, alice, bob):
    assert alice.server("GET", "contents/msa3d/notebooks").ok
    for path in ("api/contents/msa3d", "api/kernels", "lab"):
        with bob.interface.get(f"{hub.url}/user/alice/{path}", timeout=60) as answer:
            assert answer.status_code == 403, path
        # In the browser the hub is asked first, and may hide that there is anything.
        assert bob.get(f"/user/alice/{path}").status_code in (403, 404), path
    # Without logging in, there is only the login page.
    stranger = Person(hub, "stranger")
    with stranger.interface.get(f"{hub.url}/user/alice/api/contents", timeout=60) as answer:
        assert answer.status_code == 403
    stranger.close()
    hub.log("bob may not see the server of alice: 403")


@pytest.fixture(scope="module")
def shared(hub, interrupted, layout):
    """Count rates, metafile and references of an observation, read-only, where the operator keeps them."""
    observation = hub.data / "observation"
    observation.mkdir()
    for path in layout.root.glob("*.fits"):
        (observation / path.name).write_bytes(path.read_bytes())
    for path in sorted(layout.crds_cache.rglob("*")):
        there = hub.crds / path.relative_to(layout.crds_cache)
        there.mkdir(parents=True) if path.is_dir() else there.write_bytes(path.read_bytes())
    everything = [place for top in (hub.data, hub.crds) for place in (top, *top.rglob("*"))]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield {path: path.stat().st_mtime_ns for path in everything}
    for path in everything:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_shared_data_and_references_are_read_only(hub, bob, shared):
    """A root whose count rates are links, with the hub's CRDS cache: one exposure of it is reduced."""
    notebook = bob.open(START)
    notebook.text("!mkdir -p ../runs/shared && ln -s $MSA3D_DATA/observation/* ../runs/shared/")
    notebook.text(f"import pathlib; pathlib.Path('../shared.yaml').write_text({SHARED!r})")
    context = next(path for path in shared if path.suffix == ".pmap").name
    notebook.text(f"%env CRDS_CONTEXT={context}")
    told = notebook.text("!cd .. && msa3d check runs/shared -d shared.yaml")
    assert f"{N_EXPOSURES} exposures" in told
    told = notebook.text("!cd .. && msa3d process runs/shared -d shared.yaml --only 03105; echo ended with $?")
    assert told.splitlines()[-1] == "ended with 0", told
    notebook.close()
    run = Layout(hub.homes / "bob" / "msa3d" / "runs" / "shared")
    assert len(list(run.process_dir("03105").glob("*_cal.fits"))) == 2
    assert not run.crds_cache.exists()
    assert all(path.is_symlink() for path in run.rates())
    now = {place: place.stat().st_mtime_ns for top in (hub.data, hub.crds) for place in (top, *top.rglob("*"))}
    assert now == shared, "what is read-only was written to"
    hub.log("bob reduced an exposure of links to read-only data with the shared CRDS cache")


def test_nothing_is_left_when_the_hub_ends(hub, alice, bob):
    alice.stop()
    assert hub.left(user="alice") == []
    assert hub.processes("jupyterhub-singleuser", user="bob")
    hub.stop()
    assert hub.left() == []
    hub.log("no process is left")


def test_the_lock_of_the_hub_is_exact_and_names_no_index():
    lines = [line for line in LOCKS[0].read_text().splitlines() if not line.lstrip().startswith("#")]
    entries = [line for line in lines if not line.startswith(" ")]
    assert any(line.startswith("jupyterhub==") for line in entries)
    assert all("==" in line.split(";")[0] and line.endswith("\\") for line in entries)
    assert all("--hash=sha256:" in line for line in lines if line.startswith(" "))
    assert not [line for line in lines if "://" in line]
    proxy = LOCKS[1].read_text()
    assert '"resolved"' not in proxy
    assert proxy.count('"integrity": "sha512-') == proxy.count('"node_modules/') > 30


def test_hub_and_sessions_are_of_one_version():
    """A hub and its users' servers, in two environments, should be of the same release."""
    locks = (EXTRA / "requirements-hub.lock", EXTRA.parents[1] / "requirements.lock")
    assert len({re.search(r"^jupyterhub==(\S+)", lock.read_text(), flags=re.M).group(1) for lock in locks}) == 1
