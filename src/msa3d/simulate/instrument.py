"""Public face of the simulated instrument: optics, shutters, throughput.

`optics` holds the geometry, `throughput` the radiometry; both are what the reference files in the
simulated CRDS cache (`crds_cache`) are written from, so that simulator and pipeline cannot disagree.
"""

from __future__ import annotations

from msa3d.simulate.optics import (
    InstrumentModel,
    ShutterGeometry,
    failed_closed,
    failed_open,
    shutter_geometry,
)
from msa3d.simulate.psf import SPECTROGRAPH_SIGMA_PX
from msa3d.simulate.throughput import (
    GAIN_E_PER_DN,
    pixel_area_arcsec2,
    relative_throughput,
    surface_brightness_factor,
    total_throughput,
    uniform_pathloss,
)

__all__ = [
    "GAIN_E_PER_DN",
    "SPECTROGRAPH_SIGMA_PX",
    "InstrumentModel",
    "ShutterGeometry",
    "failed_closed",
    "failed_open",
    "msa_model",
    "pixel_area_arcsec2",
    "relative_throughput",
    "shutter_geometry",
    "surface_brightness_factor",
    "total_throughput",
    "uniform_pathloss",
]


def msa_model() -> InstrumentModel:
    """The optical model (the same object at every call)."""
    return InstrumentModel.load()
