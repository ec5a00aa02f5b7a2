"""Both builders on the same 63 exposures of one source: CPU seconds and peak memory.

Of a run named by MSA3D_BENCH_ROOT (processed and post-processed, its products are not touched), or, for the
published builder alone, of a made-up one:

`MSA3D_BENCH_ROOT=runs/demo python -m pytest -o python_files='bench_*.py' tests/benchmarks/bench_cubes.py -s`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from msa3d.pipeline.layout import POST_SUFFIX, Layout
from msa3d.published import spectra

from ..fixtures.stepping import Stepping, blob, wavelengths

ROOT = os.environ.get("MSA3D_BENCH_ROOT", "")
SOURCE = 8512

ONE_CUBE = """
import json, resource, sys, time
from pathlib import Path
from msa3d.observation.source import SourceTask
from msa3d.cubes.build import builder
from msa3d.observation.source import place_exposures
from msa3d.config import Dataset
from msa3d.pipeline.layout import Layout

root, name, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])


class Elsewhere(Layout):
    def cube_dir(self, source_id):
        return out


dataset, layout = Dataset.load("demo"), Elsewhere(root)
task = SourceTask(layout, dataset, int(sys.argv[4]), place_exposures(dataset, layout))
out.mkdir(parents=True, exist_ok=True)
start = time.process_time()
notes = builder(name).build(task)
seconds = time.process_time() - start
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"cpu_seconds": seconds, "memory_gb": memory, "exposures": notes["exposures"]}))
"""


def build(root: Path, name: str, out: Path) -> dict[str, float]:
    """Build a cube in a process of its own, whose memory is then its own, too."""
    command = [sys.executable, "-c", ONE_CUBE, str(root), name, str(out), str(SOURCE)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run of 63 exposures."""
    if ROOT:
        return Path(ROOT).absolute()
    layout = Layout(tmp_path_factory.mktemp("bench"))
    stepping = Stepping(rows=7, columns=9, ny=32, wave_um=wavelengths(2100))
    stepping.write(layout, blob(stepping.ra, stepping.dec))
    from msa3d.config import Dataset

    dataset = Dataset.load("demo").replaced(
        postprocess={"cosmic_rays": {"method": "none"}, "pathloss": {"source": "none"}}
    )
    spectra.run(dataset, layout, workers=1)
    assert len(list(layout.process.glob(f"exp_*/*{POST_SUFFIX}.fits"))) == 63
    return layout.root


@pytest.mark.parametrize(
    "name", ["paper", pytest.param("drizzle", marks=pytest.mark.skipif(not ROOT, reason="no run"))]
)
def test_cube_of_63_exposures(benchmark, root, tmp_path, capsys, name):
    cost = benchmark.pedantic(build, (root, name, tmp_path / name), rounds=1)
    benchmark.extra_info.update(cost)
    with capsys.disabled():
        print(f"{name}: {cost['cpu_seconds']:.1f} s of CPU, {cost['memory_gb']:.2f} GB")  # noqa: T201
    assert cost["exposures"] == 63
    assert cost["cpu_seconds"] < {"paper": 6.4, "drizzle": 60.0}[name]
    assert cost["memory_gb"] < 2.0
