"""The environment is said in one place: lock, environment.yml, Dockerfile and pyproject.toml agree."""

from __future__ import annotations

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from pybtex.database import parse_file
from pybtex.richtext import Text

ROOT = Path(__file__).parents[1]

#: What STScI delivered jwst 1.14.0 with, and the paper's cosmic-ray finder: never to be moved by a new lock.
PINS = {
    "jwst": "1.14.0",
    "asdf": "3.1.0",
    "asdf-astropy": "0.6.0",
    "astropy": "6.0.1",
    "crds": "11.17.19",
    "drizzle": "1.15.1",
    "gwcs": "0.21.0",
    "numpy": "1.26.4",
    "photutils": "1.11.0",
    "scipy": "1.12.0",
    "stcal": "1.7.0",
    "stdatamodels": "1.10.1",
    "stpipe": "0.5.2",
    "tweakwcs": "0.8.6",
    "matplotlib": "3.8.3",
    "astroscrappy": "1.2.0",
    "stsci-imagestats": "1.6.3",
    "jupyter-book": "1.0.4.post1",
    "papermill": "2.7.0",
}


def read(name: str) -> str:
    return (ROOT / name).read_text()


def locked(name: str = "requirements.lock") -> dict[str, tuple[Requirement, list[str]]]:
    """Requirement and hashes of every entry of a lock, by name."""
    entries = {}
    for entry in re.split(r"\n(?=[^\s#])", read(name).replace("\\\n", "\n")):
        lines = [line for line in entry.splitlines() if not line.lstrip().startswith("#")]
        if lines:
            requirement = Requirement(lines[0].strip())
            # Where a younger Python has another version, that of 3.11.
            python = {"python_version": "3.11", "python_full_version": "3.11.9"}
            if "python_full_version" in str(requirement.marker) and not requirement.marker.evaluate(python):
                continue
            hashes = re.findall(r"--hash=(\S+)", "\n".join(lines[1:]))
            entries[canonicalize_name(requirement.name)] = (requirement, hashes)
    return entries


def wanted(name: str = "requirements.in") -> list[Requirement]:
    """Requirements that a lock was made from, those of a file that it names (-r) included."""
    lines = [line.split("#")[0].strip() for line in read(name).splitlines()]
    named = [one for line in lines if line.startswith("-r ") for one in wanted(line[3:])]
    return named + [Requirement(line) for line in lines if line and not line.startswith("-")]


def version(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


@pytest.fixture(scope="module", params=["", "-today"], ids=["paper", "today"])
def ending(request) -> str:
    """That of the locks of a pipeline."""
    return request.param


@pytest.fixture(scope="module")
def lock(ending) -> dict[str, tuple[Requirement, list[str]]]:
    return locked(f"requirements{ending}.lock")


def test_every_locked_requirement_is_exact_and_has_hashes(lock):
    assert len(lock) > 200
    for requirement, hashes in lock.values():
        assert version(requirement)
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", item) for item in hashes), requirement


@pytest.mark.parametrize("name", PINS)
def test_the_versions_of_the_paper_are_locked(name):
    assert version(locked()[name][0]) == PINS[name]


def test_the_lock_is_of_requirements_in(lock, ending):
    for requirement in wanted(f"requirements{ending}.in"):
        entry = lock[canonicalize_name(requirement.name)][0]
        assert version(entry) in requirement.specifier, requirement


def test_tests_have_a_lock_of_their_own_which_agrees(lock, ending):
    """What runs is not tested with other versions, and what only tests need is not in the image."""
    tests = locked(f"requirements-test{ending}.lock")
    for requirement in wanted("requirements-test.in"):
        name = canonicalize_name(requirement.name)
        assert version(tests[name][0]) in requirement.specifier, requirement
        assert name not in lock, f"{name} is locked to run"
    for name in tests.keys() & lock.keys():
        assert version(tests[name][0]) == version(lock[name][0])
    assert all(hashes for _, hashes in tests.values())


def test_the_lock_names_no_index(ending):
    text = read(f"requirements{ending}.lock")
    assert "://" not in text
    assert "-index-url" not in re.sub(r"^#.*$", "", text, flags=re.M)


def test_the_lock_is_of_python_3_11_on_linux(lock):
    """Nothing that is installed on Linux with Python 3.11 depends on a marker of some other system."""
    environment = {
        "python_version": "3.11",
        "python_full_version": "3.11.9",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }
    left_out = {name for name, (item, _) in lock.items() if item.marker and not item.marker.evaluate(environment)}
    assert left_out.isdisjoint(canonicalize_name(requirement.name) for requirement in wanted())
    assert {"appnope", "colorama", "pywinpty"} <= left_out


def test_pyproject_asks_for_what_is_locked(lock):
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert SpecifierSet(project["requires-python"]) == SpecifierSet("==3.11.*")
    for requirement in map(Requirement, project["dependencies"]):
        assert version(lock[canonicalize_name(requirement.name)][0]) in requirement.specifier


def test_conda_environment_is_the_same_python_and_lock(ending):
    dependencies = yaml.safe_load(read(f"environment{ending}.yml"))["dependencies"]
    assert "python=3.11" in dependencies
    (pip,) = [item["pip"] for item in dependencies if isinstance(item, dict)]
    assert pip == ["--require-hashes", f"-r requirements{ending}.lock"]


def test_image_is_the_same_python_and_lock():
    dockerfile = read("Dockerfile")
    # Debian 12's own Python is 3.11.
    assert re.findall(r"^ARG BASE=(.*)$", dockerfile, flags=re.M)[0].startswith("debian:bookworm-")
    assert "python3.11" in dockerfile
    assert "--require-hashes" in dockerfile
    assert "requirements.lock" in dockerfile
    assert not re.search(r"pip install(?![^\n]*(--require-hashes|--no-deps))", dockerfile.replace("\\\n", " "))


def test_image_has_one_base_by_digest_beside_its_tag():
    dockerfile = read("Dockerfile")
    assert re.findall(r"^FROM (\S+)", dockerfile, flags=re.M) == ["${BASE}", "base", "base"]
    (base,) = re.findall(r"^ARG BASE=(.+)$", dockerfile, flags=re.M)
    assert re.fullmatch(r"debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}", base)


def test_packages_of_the_image_come_from_the_snapshot_that_its_base_names():
    (script,) = re.findall(r"sed -i -E ('[^']+')", read("Dockerfile"))
    # As Debian's images have it.
    sources = (
        "Types: deb\n# http://snapshot.debian.org/archive/debian/20260824T000000Z\nURIs: http://deb.debian.org/debian\n"
    )
    done = subprocess.run(["sed", "-E", script.strip("'")], input=sources, capture_output=True, text=True, check=True)
    assert done.stdout == "Types: deb\nURIs: http://snapshot.debian.org/archive/debian/20260824T000000Z\n"


def test_image_keeps_the_rules_of_binder():
    """repo2docker: a user by number who owns the repository in his home, jupyter on PATH, any command may be run."""
    dockerfile = read("Dockerfile")
    assert re.findall(r"^ARG NB_UID=(\d+)$", dockerfile, flags=re.M) == ["1000"]
    assert re.findall(r"^USER (\S+)$", dockerfile, flags=re.M) == ["${NB_UID}"]
    assert not re.search(r"^ENTRYPOINT", dockerfile, flags=re.M)
    assert "COPY --chown=${NB_UID}:${NB_UID} . /home/${NB_USER}/msa3d" in dockerfile
    assert "HOME=/home/${NB_USER}" in dockerfile
    assert {"jupyterlab", "notebook-shim"} <= set(locked())
    # One of these directories would hide the Dockerfile from it.
    assert not any((ROOT / name).exists() for name in ("binder", ".binder"))


#: What would let in anybody: a token or a password that is empty, or written down.
OPEN = re.compile(r"(token|password)[\"']?\s*=\s*(\"\"|''|$)|allow_origin|disable_check_xsrf", re.I | re.M)


def test_jupyter_in_the_image_asks_for_its_token():
    dockerfile = read("Dockerfile")
    assert re.findall(r"^CMD (.*)$", dockerfile, flags=re.M) == ['["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]']
    assert not list(ROOT.glob("jupyter*_config.*"))
    for name in ("Dockerfile", "README.md", "Makefile", "docs/jupyterhub_config.py"):
        assert not OPEN.search(read(name)), name
    assert OPEN.search("jupyter lab --IdentityProvider.token=''") and OPEN.search("--ServerApp.password=''")


def test_the_port_of_the_image_is_published_on_this_machine_only():
    for name in ("Dockerfile", "README.md"):
        published = re.findall(r"docker run .*-p (\S+)", read(name))
        assert published and all(port.startswith("127.0.0.1:") for port in published), name


def test_image_has_no_secret():
    """Neither as a value of the Dockerfile, which its history keeps, nor as a file that was lying about."""
    dockerfile = read("Dockerfile")
    names = re.findall(r"^(?:ARG|ENV) (\w+)|^ +(\w+)=|\s(\w+)=", dockerfile, flags=re.M)
    assert not [
        name for found in names for name in found if re.search("TOKEN|SECRET|PASSW|APIKEY|CREDENTIAL", name, re.I)
    ]
    ignored = read(".dockerignore").splitlines()
    for file in (
        ".git",
        "**/.env*",
        "**/.netrc",
        "**/.pypirc",
        "**/.ssh",
        "**/.aws",
        "**/.jupyter",
        "**/*.pem",
        "**/*.key",
    ):
        assert file in ignored, file
    # Nothing that the project has itself is kept out by that.
    # None in the image, which is no repository.
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    tracked = listed.stdout.splitlines()
    secrets = [line.removeprefix("**/") for line in ignored if line.startswith("**/")]
    left_out = [path for path in tracked if any(fnmatch(part, one) for part in path.split("/") for one in secrets)]
    assert left_out == []


def test_make_uses_the_same_python_and_lock():
    makefile = read("Makefile")
    assert "(3, 11)" in makefile
    assert "--require-hashes" in makefile
    assert "requirements$(ENDING).lock" in makefile


def test_one_version_everywhere():
    import msa3d

    project = tomllib.loads(read("pyproject.toml"))["project"]
    citation = yaml.safe_load(read("CITATION.cff"))
    assert project["version"] == msa3d.__version__ == citation["version"]


def test_the_paper_is_what_is_cited():
    paper = yaml.safe_load(read("CITATION.cff"))["preferred-citation"]
    assert paper["authors"][0]["family-names"] == "Barišić"
    assert len(paper["authors"]) == 21
    assert paper["doi"] == "10.3847/1538-4357/ada617"
    assert "arXiv.2408.08350" in paper["identifiers"][0]["value"]


def test_citation_and_bibliography_say_the_same_of_the_paper():
    paper = yaml.safe_load(read("CITATION.cff"))["preferred-citation"]
    entry = parse_file(str(ROOT / "book" / "references.bib")).entries["barisic2024"]
    names = [" ".join(person.last_names) for person in entry.persons["author"]]
    plain = [str(Text.from_latex(name)) for name in names]
    assert plain == [author["family-names"] for author in paper["authors"]]
    assert (entry.fields["doi"], entry.fields["year"]) == (paper["doi"], str(paper["year"]))


def test_what_is_installed_is_what_is_locked():
    """By the lock of the pipeline that this is; the newest of everything is locked nowhere."""
    from importlib.metadata import version as installed

    locks = [locked(name) for name in ("requirements.lock", "requirements-today.lock")]
    mine = [lock for lock in locks if version(lock["jwst"][0]) == installed("jwst")]
    if not mine:
        pytest.skip(f"jwst {installed('jwst')} is in neither lock")
    for name in PINS.keys() & mine[0].keys():
        assert installed(name) == version(mine[0][name][0])
