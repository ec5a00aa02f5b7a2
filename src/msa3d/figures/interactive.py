"""A page where a reader moves over the map of a galaxy and sees the spectrum of the spaxel with its fit.

The page is static and works without the network: numbers are in it, and plotly's script lies beside it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from pathlib import Path

import numpy as np
from matplotlib.colors import to_hex

from msa3d.config import Dataset, Target
from msa3d.constants import LINES
from msa3d.cubes.cube import Cube, open_cube
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.figures.maps import target_of
from msa3d.galaxy.fit import LineFit, fit_lines
from msa3d.galaxy.images import observed
from msa3d.galaxy.lines import bin_edges, line_spread_of, species_profile, to_line_flux, windows
from msa3d.observation.source import cube_path
from msa3d.pipeline.layout import Layout
from msa3d.pipeline.products import atomic_path

log = logging.getLogger(__name__)

SCRIPT = "plotly.min.js"
REACH_KMS = 1000.0
MISSING = -32768
TEMPLATE = Path(__file__).with_name("interactive.html")

_LEAST_SNR = 3.0
_MAPS = (
    ("H\u03b1 surface brightness", "1e-17 erg/s/cm2/arcsec2", style.FLUX_MAP, False),
    ("velocity", "km/s", style.SIGNED_MAP, True),
    ("dispersion", "km/s", style.DISPERSION_MAP, False),
)


def write_interactive(
    layout: Layout, dataset: Dataset, path: str | Path, *, source_id: int | None = None, fit: LineFit | None = None
) -> Path:
    """Write the page, and plotly's script beside it.

    Parameters
    ----------
    layout : Layout
        Where the cube is.
    dataset : Dataset
        The observation.
    path : str or pathlib.Path
        The page to write; the book shows ``layout.figures / "interactive" / "index.html"``.
    source_id : int, optional
        The source; the case study without it.
    fit : LineFit, optional
        Fit of all lines of the cube; made here without it.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    msa3d.errors.ProductError
        If there is no cube, or plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ProductError("the interactive page needs plotly: pip install plotly, or leave the page out") from error
    target = target_of(dataset, source_id)
    cube = open_cube(cube_path(layout, dataset, target.source_id))
    fit = fit or fit_lines(cube, target.redshift)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = page_of(page_data(cube, target, fit))
    for where, text in ((path.with_name(SCRIPT), get_plotlyjs()), (path, page)):
        with atomic_path(where) as partial:
            Path(partial).write_text(text, encoding="utf-8")
    log.info("wrote %s (%.1f MB) and %s", path, path.stat().st_size / 1e6, SCRIPT)
    return path


def page_of(data: dict) -> str:
    """Put data into the page.

    Parameters
    ----------
    data : dict
        As `page_data` gives it. Names in it can be anybody's: none of them can end the script that holds them.

    Returns
    -------
    str
        HTML. Its content security policy names the hash of its one script, and lets it fetch nothing but plotly's.
    """
    content = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    before, _, after = TEMPLATE.read_text(encoding="utf-8").rpartition("<script>")
    script, _, end = after.partition("</script>")
    script = script.replace("__DATA__", content)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    head = before.replace("__SCRIPT__", SCRIPT).replace("__HASH__", f"sha256-{digest}")
    return f"{head}<script>{script}</script>{end}"


def page_data(cube: Cube, target: Target, fit: LineFit) -> dict:
    """Collect what the page shows.

    Parameters
    ----------
    cube : Cube
        The cube.
    target : Target
        The galaxy.
    fit : LineFit
        Fit of its lines.

    Returns
    -------
    dict
        Ready for JSON: places of the spaxels, maps (null where unknown), and for each window of wavelengths data and
        model of every observed spaxel as int16, little endian, base64, times `scale` in MJy/sr.
    """
    seen = observed(cube)
    east, north = cube.offsets(target.ra, target.dec)
    # Axes of a map of pixels; drizzled cubes have north up and east to the left.
    places = {"east": np.nanmean(east, axis=0), "north": np.nanmean(north, axis=1)}
    with np.errstate(invalid="ignore"):
        good = seen & fit.reliable(_LEAST_SNR)
    images = (
        np.where(seen, fit.flux["Ha"] / 1e-17, np.nan),
        np.where(good, fit.velocity, np.nan),
        np.where(good, fit.sigma, np.nan),
    )
    maps = []
    for (name, unit, colours, signed), image in zip(_MAPS, images, strict=True):
        finite = image[np.isfinite(image)]
        low, high = np.percentile(finite, [2, 98]) if finite.size else (0.0, 1.0)
        high = max(abs(low), abs(high)) if signed else high
        low = -high if signed else low
        maps.append(
            {"name": name, "unit": unit, "colours": _stops(colours), "low": float(low), "high": float(high)}
            | {"values": _listed(image, 2)}
        )
    index = np.full(cube.shape, -1)
    index[seen] = np.arange(int(seen.sum()))
    error = {name: _listed(values, 2) for name, values in {"snr": fit.snr("Ha"), "dv": fit.velocity_error}.items()}
    return {
        "title": f"{target.name or target.source_id}, z = {target.redshift:g}",
        "simulated": cube.simulated,
        **{name: [round(float(v), 4) for v in values] for name, values in places.items()},
        "maps": maps,
        "index": index.tolist(),
        **error,
        "windows": _windows(cube, target.redshift, fit, seen, good),
    }


def _windows(cube: Cube, redshift: float, fit: LineFit, seen: np.ndarray, good: np.ndarray) -> list[dict]:
    """Data and model around each group of lines."""
    result = []
    for index, names in windows(cube.wave_um, redshift, tuple(fit.flux), REACH_KMS):
        data = cube.data[index][:, seen].T
        model = spaxel_models(cube, redshift, fit, (index, names), seen)
        model[~good[seen]] = np.nan
        scale = float(np.nanpercentile(np.abs(data), 99.95)) * 1.5 / 32000.0 or 1.0
        lines = [n for n in LINES if cube.wave_um[index[0]] < LINES[n] * (1 + redshift) < cube.wave_um[index[-1]]]
        result.append(
            {
                "wave": [round(float(w), 6) for w in cube.wave_um[index]],
                "lines": [[n, round(LINES[n] * (1 + redshift), 6)] for n in lines],
                "scale": scale,
                "data": _packed(data, scale),
                "model": _packed(model, scale),
            }
        )
    return result


def spaxel_models(
    cube: Cube, redshift: float, fit: LineFit, window: tuple[np.ndarray, list[str]], where: np.ndarray
) -> np.ndarray:
    """Lines of a fit on a straight continuum, in the unit of the cube.

    Parameters
    ----------
    cube : Cube
        The cube that was fitted.
    redshift : float
        What velocities refer to.
    fit : LineFit
        The fit.
    window : tuple
        Indices of the wavelengths, and the species among them (`lines.windows`).
    where : ndarray of bool, shape (n_y, n_x)
        Which spaxels.

    Returns
    -------
    ndarray, shape (n, n_wave)
        MJy/sr; NaN for spaxels that could not be fitted.
    """
    index, names = window
    spread = line_spread_of(cube.header, step_um=float(np.median(np.diff(cube.wave_um))))
    edges = bin_edges(cube.wave_um[index])
    velocity, sigma = fit.velocity[where], fit.sigma[where]
    known = np.isfinite(velocity) & np.isfinite(sigma)
    lines = np.zeros((int(where.sum()), index.size))
    for name in names:
        amplitude = fit.flux[name][where] / to_line_flux(1.0, LINES[name] * (1 + redshift))
        profile = species_profile(name, edges, redshift, velocity[known], sigma[known], spread)
        lines[known] += np.nan_to_num(amplitude[known])[:, None] * profile
    left = cube.data[index][:, where].T - lines
    ramp = np.linspace(-0.5, 0.5, index.size)
    use = np.isfinite(left).astype(float)
    # Straight lines by the normal equations of all spaxels at once.
    s0, s1, s2 = use.sum(axis=1), use @ ramp, use @ ramp**2
    t0, t1 = np.nansum(left, axis=1), np.nansum(left * ramp, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        det = s0 * s2 - s1**2
        level, slope = (s2 * t0 - s1 * t1) / det, (s0 * t1 - s1 * t0) / det
    model = lines + level[:, None] + slope[:, None] * ramp
    model[~known] = np.nan
    return model


def _stops(name: str) -> list:
    """Give a colour map of the figures as places and colours, as plotly takes them."""
    return [[float(at), to_hex(style.colour_map(name)(at))] for at in np.linspace(0.0, 1.0, 13)]


def _packed(values: np.ndarray, scale: float) -> str:
    """Turn floats into base64 of int16 with a mark for NaN."""
    finite = np.isfinite(values)
    whole = np.clip(np.round(np.where(finite, values, 0.0) / scale), -32767, 32767)
    return base64.b64encode(np.where(finite, whole, MISSING).astype("<i2").tobytes()).decode("ascii")


def _listed(image: np.ndarray, digits: int) -> list:
    """Turn an image into nested lists with None for NaN."""
    return [[round(float(v), digits) if np.isfinite(v) else None for v in row] for row in image]
