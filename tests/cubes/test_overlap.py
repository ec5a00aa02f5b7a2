"""Compiled functions work where no cache can be kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msa3d

USE = """
import numpy as np
from msa3d.cubes import operator
from msa3d.cubes import outliers
from msa3d.cubes import overlap
square = np.array([[-0.25, -0.25], [0.75, -0.25], [0.75, 0.75], [-0.25, 0.75]])
print(overlap.__file__, overlap.polygon_areas(square, 2).sum())
"""


def test_code_and_home_that_cannot_be_written(tmp_path):
    """As installed by somebody else, for a user without a home directory."""
    package = tmp_path / "msa3d"
    shutil.copytree(Path(msa3d.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        # A file in the place of the directory stops root as well.
        (folder / "__pycache__").touch()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("NUMBA_", "XDG_"))}
    environment |= {"HOME": "/dev/null", "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    file, area = done.stdout.rsplit(maxsplit=1)
    assert file == str(package / "cubes" / "overlap.py")
    assert abs(float(area) - 1.0) < 1e-12
