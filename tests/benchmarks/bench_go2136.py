"""The real programme in shape: 63 exposures, 59 slitlets, two exposures really reduced, the rest represented.

`python -m pytest -o python_files='bench_*.py' tests/benchmarks/bench_go2136.py -s` prints what the commands say.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from astropy.io import fits

from msa3d.config import Dataset
from msa3d.pipeline.layout import Layout

REDUCED = (0, 31)


def header_only_rate(dataset, exposure, detector: str, path: Path) -> None:
    """Write a rate that is whole as FITS and has all its keywords, but no pixels."""
    from msa3d_sim.plan import primary_header, science_header

    planes = [fits.ImageHDU(header=science_header(exposure.nominal))]
    planes += [fits.ImageHDU(name=name) for name in ("ERR", "DQ", "VAR_POISSON", "VAR_RNOISE")]
    fits.HDUList([fits.PrimaryHDU(header=primary_header(dataset, exposure, detector)), *planes]).writeto(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tree as go2136 has it, made of the simulated survey under constant light."""
    from msa3d.archive import crds
    from msa3d_sim import observe
    from msa3d_sim.plan import plan_observation, rate_name, write_metafile

    survey = Dataset.load("survey").replaced(simulation={"scene": "uniform"})
    layout = Layout(tmp_path_factory.mktemp("go2136") / "root")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Two exposures of the pattern with their neighbours' metafile: simulate them, keep the pixels.
        small = survey.replaced(pattern={"rows": 1, "columns": 2})
        observe.simulate(small, layout, workers=1)
        crds.use_references(layout, survey)
        plan = plan_observation(survey)
    write_metafile(survey, plan, layout.metafile(survey.metafile))
    pixels = {}
    for path in layout.rates():
        kept = path.with_suffix(".kept")
        path.rename(kept)
        pixels["_03101_" in path.name, path.name.split("_")[3].upper()] = kept
    for exposure in plan.exposures:
        for detector in ("NRS1", "NRS2"):
            path = layout.root / rate_name(survey, exposure.activity, detector)
            if exposure.index in REDUCED:
                represent(survey, exposure, detector, pixels[exposure.index == 0, detector], path)
            else:
                header_only_rate(survey, exposure, detector, path)
    shutil.rmtree(layout.truth)
    return layout.root


def represent(dataset, exposure, detector: str, full: Path, path: Path) -> None:
    """Give the pixels of a simulated exposure the headers of another place of the pattern."""
    from msa3d_sim.plan import primary_header, science_header

    with fits.open(full, disable_image_compression=True) as hdus:
        hdus[0].header.update(primary_header(dataset, exposure, detector))
        hdus[1].header.update(science_header(exposure.nominal))
        hdus.writeto(path, overwrite=True)


def test_plan_check_process_of_two_status(benchmark, root, capsys):
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "CRDS_PATH": str(root / "crds_cache"), "CRDS_CONTEXT": "jwst_9136.pmap",
        "CRDS_SERVER_URL": "https://crds-serverless-mode.stsci.edu",
        "CRDS_CONFIG_URI": "none", "CRDS_READONLY_CACHE": "1",
    }  # fmt: skip

    def msa3d(command: str, *options: str) -> str:
        line = [sys.executable, "-m", "msa3d.cli", command, str(root), "-d", "go2136", *options]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        with capsys.disabled():
            print(f"$ msa3d {command} {' '.join(options)}\n{done.stdout}{done.stderr[-2000:]}")  # noqa: T201
        assert done.returncode == 0
        return done.stdout

    plan = msa3d("plan")
    assert "63 of 63 here, 0 done" in plan
    assert "7 x 9, serpentine" in plan
    assert "31 wanted, 59 slitlets" in plan
    assert "63 exposures of 31 sources, a simulated observation, complete." in msa3d("check")
    names = sorted(path.name.split("_")[1] for path in root.glob("*nrs1_rate.fits"))
    chosen = [word for index in REDUCED for word in ("--only", names[index])]
    benchmark.pedantic(msa3d, ("process", "-w", "1", *chosen), rounds=1)
    status = msa3d("status").splitlines()
    process = next(line for line in status if line.split()[0] == "process").split()
    assert process[1:6] == ["2", "0", "0", "61", "63"]
    spectra = list((root / "reduction" / "process").glob("exp_*_nobar/newoutput_s*_s2d.fits"))
    assert len({path.name for path in spectra}) >= 40
    assert "2 done" in msa3d("plan")
    assert "hold" in msa3d("verify")
