"""What `make` hands on to msa3d: the values of a user as they are, whatever is in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

#: In the place of msa3d: it says what it was called with.
STANDIN = f"""#!{sys.executable}
import json, sys
print("CALLED", json.dumps(sys.argv[1:]))
"""


@pytest.fixture
def place(tmp_path):
    """A directory with the Makefile, and another with a stand-in for msa3d beside a python."""
    here, programs = tmp_path / "project", tmp_path / "programs"
    here.mkdir()
    programs.mkdir()
    shutil.copy(PROJECT / "Makefile", here)
    (programs / "python").symlink_to(sys.executable)
    (programs / "msa3d").write_text(STANDIN)
    (programs / "msa3d").chmod(0o755)
    return here


def make(place: Path, *arguments: str, **environment: str) -> list[list[str]]:
    """Calls of msa3d that a make makes."""
    settings = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    path = f"{place.parent / 'programs'}{os.pathsep}{os.environ['PATH']}"
    settings |= {"PATH": path, "MSA3D_ENV": "1", "HOME": str(place.parent / "home"), **environment}
    for name in {"DATASET", "ROOT", "WORKERS", "PIPELINE"} - set(environment):
        settings.pop(name, None)
    done = subprocess.run(
        ["make", *arguments], cwd=place, env=settings, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("CALLED ")]


def test_all_is_three_calls(place):
    assert make(place, "all") == [
        ["data", "--dataset", "demo"], ["notebook", "all", "--dataset", "demo"], ["book", "--dataset", "demo"]
    ]  # fmt: skip
    chosen = ["/data/a", "--dataset", "tiny", "--workers", "2"]
    assert make(place, "notebooks", "DATASET=tiny", "ROOT=/data/a", "WORKERS=2") == [
        ["data", *chosen], ["notebook", "all", *chosen]
    ]  # fmt: skip


@pytest.mark.parametrize("by", ["argument", "environment"])
@pytest.mark.parametrize(
    "value",
    [
        "$(shell touch pwned)",
        "$$(touch pwned)",
        "$(touch pwned)",
        "`touch pwned`",
        '"; touch pwned; "',
        "'; touch pwned; '",
        "/data/with a space",
        "/data/#1 what? 100%20",
        "it's",
    ],
)
def test_no_value_is_read_as_code(place, value, by):
    values = {"DATASET": value, "ROOT": value}
    arguments = [f"{name}={text}" for name, text in values.items()] if by == "argument" else []
    calls = make(place, "all", *arguments, **(values if by == "environment" else {}))
    assert [call[-3:] for call in calls] == [[value, "--dataset", value]] * 3
    assert not list(place.rglob("pwned"))
    make(place, "help", *arguments, **(values if by == "environment" else {}))
    assert not list(place.rglob("pwned"))


def test_a_tilde_is_the_home_of_the_user(place):
    """Not that of the tools, to which HOME is set while they run."""
    home = str(place.parent / "home")
    (call,) = make(place, "data", "DATASET=~/mine.yaml", "ROOT=~/run a")
    assert call == ["data", f"{home}/run a", "--dataset", f"{home}/mine.yaml"]


def test_another_pipeline_has_runs_of_its_own(place):
    for dataset, root in (("demo", "runs/demo-today"), ("/data/mine.v2.yaml", "runs/mine.v2-today")):
        (call,) = make(place, "data", "PIPELINE=today", f"DATASET={dataset}")
        assert call == ["data", root, "--dataset", dataset]
        (call,) = make(place, "data", f"DATASET={dataset}", "ROOT=/data/a", PIPELINE="today")
        assert call == ["data", "/data/a", "--dataset", dataset]


@pytest.mark.parametrize("value", ["yesterday", "$(shell touch pwned)", ""])
def test_there_is_no_other_pipeline(place, value):
    with pytest.raises(AssertionError, match="PIPELINE is paper, today or newest"):
        make(place, "data", f"PIPELINE={value}")
    assert not list(place.rglob("pwned"))
