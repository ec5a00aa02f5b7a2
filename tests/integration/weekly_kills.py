"""Thirty kills, spread over all steps: the final planes are those of a run that nobody disturbed.

Ten minutes; the weekly workflow runs it, `make test PYTESTARGS=tests/integration/weekly_kills.py` at any time.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from astropy.io import fits

from msa3d.pipeline.layout import Layout
from msa3d.pipeline.steps import STEPS

KILLS = 30
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
RUN = ("process", "calpost", "postprocess", "cubebuild")
#: Of the real jwst with one source: two exposures, both cubes.
DATASET = "extends: tiny\nname: pair\npattern: {rows: 1, columns: 2}\n"


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "msa3d.cli", *map(str, arguments)]


def planes(layout: Layout) -> dict[str, bytes]:
    """All data of all products, by file and extension."""
    found = {}
    for path in sorted(layout.reduction.rglob("*.fits")):
        with fits.open(path) as hdus:
            for number, hdu in enumerate(hdus):
                if hdu.data is not None and hdu.name not in ("ASDF", "HDRTAB"):
                    found[f"{path.relative_to(layout.root)}[{number}]"] = np.asarray(hdu.data).tobytes()
    return found


def leftovers(layout: Layout) -> list[Path]:
    return [path for path in layout.root.rglob(".*") if re.search(r"\.(old|lock|partial)(\.|$)", path.name)]


def orphans(layout: Layout) -> list[int]:
    """Processes of a run that are still there."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if str(layout.root) in " ".join(p.info["cmdline"] or ())]


def records(layout: Layout) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in layout.records.glob("*.json")}


@pytest.mark.timeout(3600)
def test_thirty_kills(tmp_path):
    dataset = tmp_path / "pair.yaml"
    dataset.write_text(DATASET)
    calm, killed = Layout(tmp_path / "calm"), Layout(tmp_path / "killed")
    subprocess.run(command("simulate", calm.root, "-d", dataset), check=True, capture_output=True)
    shutil.copytree(calm.root, killed.root)
    started = time.monotonic()
    subprocess.run(command("run", calm.root, "-d", dataset), check=True, capture_output=True)
    length = time.monotonic() - started
    wanted = planes(calm)

    rng = np.random.default_rng(2136)
    hit: Counter = Counter()
    log = tmp_path / "run.log"
    while hit.total() < KILLS:
        before = records(killed)
        with log.open("w") as stream:
            process = subprocess.Popen(
                command("run", killed.root, "-d", dataset), stdout=stream, stderr=stream, start_new_session=True,
                # A shell that was told to run this in the background lets INT be ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )  # fmt: skip
            try:
                process.wait(rng.uniform(0.02, 0.5) * length)
            except subprocess.TimeoutExpired:
                # The signal goes to the process alone, as `kill` does: its workers must end by themselves.
                os.kill(process.pid, SIGNALS[hit.total() % len(SIGNALS)])
                process.wait(60)
                told = [step for step in STEPS if f" {step}: " in log.read_text()]
                hit[told[-1] if told else "before the first step"] += 1
        deadline = time.monotonic() + 30
        while orphans(killed) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not orphans(killed)
        after = records(killed)
        assert {path: after.get(path) for path in before} == before, "something recorded was made again"
        if process.returncode == 0:
            # It ended before the kill: from a random step on, once more.
            names = RUN[rng.integers(len(RUN)) :]
            for path in after:
                if path.name.partition("_")[0] in names:
                    path.unlink()
    subprocess.run(command("run", killed.root, "-d", dataset), check=True, capture_output=True)
    assert planes(killed) == wanted
    assert not leftovers(killed)
    assert len(hit) >= 4, f"kills of a run of {length:.0f} s hit too few of the steps: {dict(hit)}"
