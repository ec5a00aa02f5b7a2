"""What the services that build and publish the project are told: it must be readable, pinned, and there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
READTHEDOCS = ROOT / ".readthedocs.yaml"
AUDIT = "tests/extra/requirements-audit.lock"
HUB = "tests/extra/requirements-hub.lock"


def jobs_of(path):
    return yaml.safe_load(path.read_text())["jobs"]


def steps_of(path):
    return [step for job in jobs_of(path).values() for step in job["steps"]]


def commands():
    """Lines of shell of all services, with the file that has them."""
    found = [(READTHEDOCS.name, line) for line in yaml.safe_load(READTHEDOCS.read_text())["build"]["commands"]]
    for path in WORKFLOWS:
        found += [(path.name, line) for step in steps_of(path) for line in step.get("run", "").splitlines()]
    return found


def test_the_workflows_are_those_that_are_told_of():
    assert {path.stem for path in WORKFLOWS} >= {"ci", "pages", "weekly"}
    badges = re.findall(r"actions/workflows/(\w+\.yml)", (ROOT / "README.md").read_text())
    assert badges and set(badges) <= {path.name for path in WORKFLOWS}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_little_and_ends(path):
    content = yaml.safe_load(path.read_text())
    # YAML 1.1 takes `on` for true.
    assert content["name"] and (content.get("on") or content[True])
    assert content["permissions"] == {"contents": "read"}
    for job in content["jobs"].values():
        assert job["runs-on"] == "ubuntu-24.04"
        # A job that runs our commands says when it has gone on too long.
        assert "timeout-minutes" in job or not any("run" in step for step in job["steps"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_to_a_commit(path):
    for step in steps_of(path):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"]), step["uses"]


def test_commands_are_there():
    ran = commands()
    assert ("ci.yml", ".ci/run") in ran and ("weekly.yml", "make all") in ran and ("pages.yml", "make all") in ran
    for name, line in ran:
        words = line.partition(" 2>")[0].replace("${{ matrix.pipeline }}", "today").split()
        if words[0].startswith(".cache/audit/bin/"):
            program = words[0].rpartition("/")[2]
            assert program == "pip" or re.search(rf"^{program}==", (ROOT / AUDIT).read_text(), flags=re.M), line
        elif words[0].startswith(".venv/bin/"):
            assert shutil.which(Path(words[0]).name), f"{name}: {line}"
        elif words[0].startswith("."):
            assert (ROOT / words[0]).stat().st_mode & 0o111, f"{name}: {line}"
        elif words[0] == "make":
            # Without making anything: an unknown target ends in an error.
            done = subprocess.run(
                ["make", "--dry-run", "--question", *words[1:]], cwd=ROOT, capture_output=True, text=True, timeout=120
            )
            assert done.returncode in (0, 1), f"{name}: {line}: {done.stderr}"
        else:
            assert words[0] in ("mkdir", "cp", "docker", "grep", "python"), f"{name}: {line}"


def test_known_vulnerabilities_of_all_that_runs_are_looked_for_each_week():
    job = jobs_of(WORKFLOWS[[path.stem for path in WORKFLOWS].index("weekly")])["vulnerabilities"]
    # What runs, what tests and styles it, and what an operator runs.
    locks = [f"requirements{kind}{ending}.lock" for ending in ("", "-today") for kind in ("", "-test")]
    assert job["strategy"]["matrix"]["lock"] == [*locks, HUB]
    assert not job["strategy"]["fail-fast"]
    lines = [step["run"] for step in job["steps"] if "run" in step]
    assert lines[0] == "python -m venv .cache/audit"
    assert lines[1].split()[1:] == ["install", "--quiet", "--require-hashes", "-r", AUDIT]
    audit = lines[2].split()
    assert audit[0] == ".cache/audit/bin/pip-audit" and " ".join(audit[-4:]) == "-r ${{ matrix.lock }}"
    # Nothing is installed, and nothing is looked up that is not in the lock.
    assert {"--disable-pip", "--require-hashes"} <= set(audit)
    # What cannot be looked up is a failure, not a line in the log.
    assert "--strict" in audit
    assert not {"--ignore-vuln", "--dry-run"} & set(audit)
    assert all((ROOT / name).is_file() for name in (*job["strategy"]["matrix"]["lock"], AUDIT))


def test_what_is_published_is_what_is_built():
    (uploaded,) = [step for step in steps_of(WORKFLOWS[[p.stem for p in WORKFLOWS].index("pages")]) if "with" in step
                   and "path" in step["with"]]  # fmt: skip
    html = uploaded["with"]["path"]
    assert html == "book/_build/html"
    assert any(f"cp -r {html}/." in line for name, line in commands() if name == READTHEDOCS.name)


def test_python_is_the_one_of_the_lock():
    (wanted,) = re.findall(r'requires-python = "==(\d\.\d+)\.\*"', (ROOT / "pyproject.toml").read_text())
    assert yaml.safe_load(READTHEDOCS.read_text())["build"]["tools"]["python"] == wanted
    set_up = [step["with"]["python-version"] for path in WORKFLOWS for step in steps_of(path)
              if step.get("uses", "").startswith("actions/setup-python")]  # fmt: skip
    assert len(set_up) >= 3 and set(set_up) == {wanted}
