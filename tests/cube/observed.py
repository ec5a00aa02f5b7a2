"""Noiseless simulated observations through the real Spec2, for figures of merit with known truth."""

from __future__ import annotations

from pathlib import Path

from msa3d.dataset import CalpostSettings, Dataset
from msa3d.layout import Layout

QUIET = ("noise", "banding", "cosmic_rays", "bad_pixels", "saturation", "failed_shutters", "background")


def dataset_of(base: str, scene: str, rows: int, columns: int, *, detectors=("NRS2",), step=None, **simulation):
    """Make a dataset of a test scene, without noise or defects unless told otherwise, and without Spec3."""
    whole = Dataset.load(base)
    pattern = {"rows": rows, "columns": columns} | ({} if step is None else {"column_step_arcsec": step})
    # What is not put in is not corrected either.
    calpost = {
        "pathloss": {"source": "uniform" if simulation.get("pathloss", True) else "none"},
        "barshadow": {"method": "apply" if simulation.get("bars", True) else "none"},
    }
    switches = dict.fromkeys(QUIET, False) | {"scene": scene, "pointing_error_arcsec": 0.0} | simulation
    return whole.model_copy(
        update={
            "detectors": list(detectors),
            "pattern": whole.pattern.model_copy(update=pattern),
            "process": whole.process.model_copy(update={"rectify": False}),
            "calpost": CalpostSettings(**calpost),
            "cubebuild": whole.cubebuild.model_copy(update={"also": []}),
            "simulation": whole.simulation.model_copy(update=switches),
        }
    )


def observe(root: Path, dataset: Dataset, workers: int = 1) -> Layout:
    """Simulate, calibrate and post-process an observation."""
    from msa3d.simulate.observe import simulate
    from msa3d.steps import calpost, process

    layout = Layout(root)
    simulate(dataset, layout, workers=workers)
    process.run(dataset, layout, workers=workers)
    calpost.run(dataset, layout, workers=workers)
    return layout
