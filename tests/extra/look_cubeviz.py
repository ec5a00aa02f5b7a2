"""Load a cube into jdaviz's Cubeviz as a user does, and write down what it has made of it.

Run by tests/integration/test_viewers.py in the environment of requirements-viewers.lock:
``python look_cubeviz.py cube.fits spectrum.fits found.npz``.
"""

from __future__ import annotations

import socket
import sys
import warnings

import numpy as np


def stay_here() -> None:
    """Let nothing reach beyond this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise OSError(f"no connection to {address} is wanted")
        connect(self, address)

    socket.socket.connect = guarded


def pointed_at(cubeviz: object, x: float, y: float) -> list[str]:
    """What Cubeviz says below the mouse: value, pixel, sky."""
    info = cubeviz._app.session.application._tools["g-coords-info"]
    viewer = cubeviz._app.get_viewer("flux-viewer")
    info._viewer_mouse_event(viewer, {"event": "mousemove", "domain": {"x": x, "y": y}})
    return list(info.as_text())


def main(cube: str, spectrum: str, out: str) -> None:
    import jdaviz
    import specutils

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Cubeviz is deprecated", category=DeprecationWarning)
        cubeviz = jdaviz.Cubeviz()
    cubeviz.load(cube)
    found = {"version": jdaviz.__version__}
    for data in cubeviz._app.data_collection:
        # Labels are the file's name, and what is in brackets behind it.
        kind = data.label.partition("[")[2].rstrip("]") or ("SUM" if "(sum)" in data.label else "FLUX")
        for component in data.main_components:
            values = data.get_component(component)
            found[f"{kind}.{component}"] = np.asarray(values.data)
            found[f"{kind}.{component}.unit"] = str(values.units)
        if kind == "FLUX":
            read = data.get_object(statistic=None)
            found["wave"], found["wave.unit"] = read.spectral_axis.value, str(read.spectral_axis.unit)
            found["axis"] = read.spectral_axis_index
            pixels = np.array([0, 12, 5.5, 3]), np.array([0, 16, 8, 11])
            found["sky"] = np.array(data.meta["_orig_spatial_wcs"].pixel_to_world_values(*pixels))
    slicing = cubeviz.plugins["Spectral Slice"]
    slicing.value = found["wave"][15]
    found["slice"] = slicing.value
    found["mouse"] = pointed_at(cubeviz, 7, 9)
    read = specutils.Spectrum.read(spectrum)
    found["x1d.wave"], found["x1d.flux"] = read.spectral_axis.to_value("um"), read.flux.to_value("Jy")
    found["x1d.error"] = read.uncertainty.array
    np.savez(out, **found)


if __name__ == "__main__":
    stay_here()
    main(*sys.argv[1:])
