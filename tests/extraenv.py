"""Environments beside the project's own, for programmes that cannot live in it: made once from a lock, and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXTRA = ROOT / "tests" / "extra"

#: Commands that finish an environment, given its directory, and what they want of the environment variables.
Finish = Callable[[Path], tuple[list[list[str]], dict[str, str]]]


def python_of(name: str, *locks: Path, finish: Finish | None = None) -> Path:
    """Python of the environment of a lock, below ``.cache``, or where ``MSA3D_<NAME>_ENV`` says.

    Parameters
    ----------
    name : str
        What it is called.
    locks : Path
        The lock of Python packages, and whatever else decides what is in it.
    finish : callable, optional
        What is to be done when the packages are there.
    """
    given = os.environ.get(f"MSA3D_{name.upper()}_ENV")
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]
    place = Path(given) if given else ROOT / ".cache" / f"{name}-{digest}"
    python = place / "bin" / "python"
    if (place / ".complete").is_file():
        return python
    uv = Path(sys.executable).with_name("uv")
    uv = str(uv) if uv.is_file() else shutil.which("uv")
    if uv is None:
        pytest.skip(f"the environment {name} is not there, and there is no uv to make it with")
    quiet = ["--quiet", "--no-progress"]
    _do(name, [uv, "venv", "--clear", "--python", sys.executable, str(place), *quiet])
    _do(
        name,
        [uv, "pip", "sync", "--no-cache", "--require-hashes", "--python", str(python), str(locks[0]), *quiet],
    )
    commands, variables = finish(place) if finish else ([], {})
    for command in commands:
        _do(name, command, variables)
    (place / ".complete").touch()
    return python


def _do(name: str, command: list[str], variables: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(variables or {})})
    if done.returncode:
        told = f"the environment {name} could not be made: {done.stderr.strip()[-2000:]}"
        # Without a package index it cannot be: who wants to be sure says MSA3D_VIEWERS=1, MSA3D_HUB=1.
        (pytest.fail if os.environ.get(f"MSA3D_{name.upper()}") == "1" else pytest.skip)(told)
