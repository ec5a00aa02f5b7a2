"""MSA3D: JWST/NIRSpec slit-stepping observations, from count-rate images to cubes and figures.

What a user imports stands here and is loaded when first asked for, so that ``import msa3d`` itself is
light and has no side effects::

    from msa3d import open_run
    from msa3d import Dataset, Layout, Observation, run
    from msa3d import Ellipse, circle, extract, open_cube
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "Cube",
    "Dataset",
    "Ellipse",
    "Layout",
    "Mask",
    "Msa3dError",
    "MsaFile",
    "Observation",
    "Run",
    "__version__",
    "circle",
    "export",
    "extract",
    "open_cube",
    "open_run",
    "run",
]


__version__ = "0.2.0"

_PUBLIC = {
    "Cube": "msa3d.cubes.cube",
    "Dataset": "msa3d.config",
    "Ellipse": "msa3d.cubes.extract",
    "Layout": "msa3d.pipeline.layout",
    "Mask": "msa3d.cubes.extract",
    "MsaFile": "msa3d.observation.metafile",
    "Observation": "msa3d.observation.exposures",
    "Msa3dError": "msa3d.errors",
    "Run": "msa3d.runs",
    "circle": "msa3d.cubes.extract",
    "export": "msa3d.cubes.export",
    "extract": "msa3d.cubes.extract",
    "open_cube": "msa3d.cubes.cube",
    "open_run": "msa3d.runs",
    "run": "msa3d.run_msa3d",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'msa3d' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Names a user can import."""
    return sorted(__all__)
