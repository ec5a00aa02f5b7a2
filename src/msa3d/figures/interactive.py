"""A page where a reader moves over the maps of a galaxy and sees the spectrum of the spaxel with its fit.

The page is static, works without the network, and needs no library: it draws by itself, and the numbers of each galaxy
are in a file beside it, read when the galaxy is chosen.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msa3d.config import Dataset, Target
from msa3d.constants import LINES
from msa3d.cubes.cube import Cube
from msa3d.figures import style
from msa3d.galaxy import metals
from msa3d.galaxy.fit import LineFit
from msa3d.galaxy.images import observed
from msa3d.galaxy.lines import bin_edges, line_spread_of, species_profile, to_line_flux, windows
from msa3d.pipeline.products import atomic_path

if TYPE_CHECKING:
    from msa3d.closure.truth import TrueLines
    from msa3d.galaxy.measure import Galaxy

log = logging.getLogger(__name__)

REACH_KMS = 1500.0
MISSING, MISSING_MODEL = -32768, -128
TEMPLATE = Path(__file__).with_name("interactive.html")
GREEK = {"Ha": "H\u03b1", "Hb": "H\u03b2", "Hg": "H\u03b3"}
FLUX_UNIT = "10\u207b\u00b9\u2077 erg s\u207b\u00b9 cm\u207b\u00b2 arcsec\u207b\u00b2"


def write_interactive(
    path: Path, dataset: Dataset, galaxies: Mapping[int, Galaxy], truths: Mapping[int, TrueLines | None]
) -> Path:
    """Write the page, and a file for each galaxy beside it.

    Parameters
    ----------
    path : pathlib.Path
        The page to write; the book shows ``layout.figures / "interactive" / "index.html"``.
    dataset : Dataset
        The observation; its case study is shown first.
    galaxies : mapping of int to Galaxy
        What was measured, by source id; cubes without errors are left out.
    truths : mapping of int to TrueLines or None
        What was injected, measured in the same spaxels and bins.

    Returns
    -------
    pathlib.Path
        The page.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = sorted(
        (i for i, galaxy in galaxies.items() if galaxy.cube.err is not None), key=lambda i: i != dataset.case_study
    )
    targets = [dataset.target(source_id) for source_id in shown]
    texts = {path: page_of([[t.source_id, f"{t.name or t.source_id}, z = {t.redshift:g}"] for t in targets])}
    for source_id in shown:
        data = galaxy_data(galaxies[source_id], dataset.target(source_id), truths.get(source_id))
        texts[path.with_name(f"{source_id}.js")] = f"galaxy({source_id},{_json(data)});\n"
    for stale in set(path.parent.glob("*.js")) - texts.keys():
        stale.unlink()
    for where, text in texts.items():
        with atomic_path(where) as partial:
            Path(partial).write_text(text, encoding="utf-8")
    log.info("wrote %s and the numbers of %d galaxies", path, len(shown))
    return path


def page_of(galaxies: list) -> str:
    """Put the list of galaxies into the page.

    Parameters
    ----------
    galaxies : list
        Source id and name of each. Names can be anybody's: none of them can end the script that holds them.

    Returns
    -------
    str
        HTML. Its content security policy names the hash of its one script, and lets it load files beside it alone.
    """
    before, _, after = TEMPLATE.read_text(encoding="utf-8").rpartition("<script>")
    script, _, end = after.partition("</script>")
    script = script.replace("__GALAXIES__", _json(galaxies))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return f"{before.replace('__HASH__', f'sha256-{digest}')}<script>{script}</script>{end}"


def _json(data: object) -> str:
    """JSON that can stand in a script."""
    content = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return content


def galaxy_data(galaxy: Galaxy, target: Target, true: TrueLines | None = None) -> dict:
    """Collect what the page shows of a galaxy.

    Parameters
    ----------
    galaxy : Galaxy
        What was measured.
    target : Target
        Where it is.
    true : TrueLines, optional
        What was injected.

    Returns
    -------
    dict
        Ready for JSON: places of the spaxels, maps (null where masked), and for each window of wavelengths the data
        of every observed spaxel as int16 times ``scale``, and models as int8 times ``span`` plus ``level`` of the
        spaxel, little endian, base64, in MJy/sr; ``error`` is the median error of a spaxel in the window.
    """
    cube = galaxy.cube
    seen = observed(cube)
    east, north = cube.offsets(target.ra, target.dec)
    # Axes of a map of pixels; drizzled cubes have north up and east to the left.
    places = {"east": np.nanmean(east, axis=0), "north": np.nanmean(north, axis=1)}
    index = np.full(cube.shape, -1)
    index[seen] = np.arange(int(seen.sum()))
    return {
        "simulated": cube.simulated,
        **{name: [round(float(v), 4) for v in values] for name, values in places.items()},
        "maps": _maps(galaxy, true, seen),
        "index": index.tolist(),
        "snr": _listed(np.where(seen, galaxy.lines.snr("Ha"), np.nan), 1),
        "windows": _windows(galaxy, true, seen),
    }


def _maps(galaxy: Galaxy, true: TrueLines | None, seen: np.ndarray) -> list[dict]:
    """Fluxes of all spaxels, however faint; velocity, dispersion and metallicity of the bins, chosen by the disc."""
    lines, binned, spread = galaxy.lines, galaxy.binned, galaxy.bins.spread
    found = []
    for name in sorted(lines.flux, key=lambda name: name != "Ha"):
        values, error = (np.where(seen, part[name] / 1e-17, np.nan) for part in (lines.flux, lines.flux_error))
        injected = None if true is None else np.where(seen, true.spaxels.flux[name] / 1e-17, np.nan)
        found.append(_map(_line(name), FLUX_UNIT, style.FLUX_MAP, values, error, injected, digits=2))
    snr = np.where(seen, lines.snr("Ha"), np.nan)
    found.insert(1, _map("S/N of H\u03b1", "", style.INTENSITY_MAP, snr, None, None, digits=1))
    for name, label, colours in (
        ("velocity", "velocity", style.SIGNED_MAP),
        ("sigma", "dispersion", style.DISPERSION_MAP),
    ):
        values, error = spread(getattr(binned, name)), spread(getattr(binned, f"{name}_error"))
        injected = None if true is None else spread(getattr(true.binned, name))
        found.append(_map(label, "km/s", colours, values, error, injected, digits=0))
    relation = galaxy.science.metallicity
    # No bin is left out for its own noise: one in which the ratio has no logarithm is masked.
    value, error = metals.metallicity(binned.flux, binned.flux_error, calibration=relation, snr=0.0)
    injected = None
    if true is not None:
        tiny = {name: np.full_like(flux, 1e-30) for name, flux in true.binned.flux.items()}
        injected = spread(metals.metallicity(true.binned.flux, tiny, calibration=relation)[0])
    label = f"12 + log(O/H), {relation.replace('_', ' ')}"
    found.append(_map(label, "", style.METALLICITY_MAP, spread(value), spread(error), injected, digits=2))
    return [each for each in found if each is not None]


def _map(
    name: str, unit: str, colours: str, values: np.ndarray, error: np.ndarray | None, injected: np.ndarray | None,
    *, digits: int,
) -> dict | None:  # fmt: skip
    """A map with its colours and limits; None where nothing is known."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = np.percentile(finite, [2, 98])
    if colours == style.SIGNED_MAP:
        high = max(abs(low), abs(high))
        low = -high
    stops = [[round(255 * part) for part in style.colour_map(colours)(at)[:3]] for at in np.linspace(0.0, 1.0, 17)]
    known = {"error": error, "truth": injected}
    return {
        "name": name, "unit": unit, "colours": stops, "low": float(low), "high": float(high), "digits": digits,
        "values": _listed(values, digits + 1),
        **{key: _listed(image, digits + 1) for key, image in known.items() if image is not None},
    }  # fmt: skip


def _line(name: str) -> str:
    """The name of a line as readers know it.

    >>> _line("[NII]6583")
    '[N II] 6583'
    """
    return GREEK.get(name) or re.sub(r"\[([A-Z][a-z]?)(I+)\](\d+)", r"[\1 \2] \3", name)


def _windows(galaxy: Galaxy, true: TrueLines | None, seen: np.ndarray) -> list[dict]:
    """Data and models around each group of lines."""
    cube, redshift = galaxy.cube, galaxy.redshift
    result = []
    for index, names in windows(cube.wave_um, redshift, tuple(galaxy.lines.flux), REACH_KMS):
        data, error = cube.data[index][:, seen].T, cube.err[index][:, seen].T
        scale = float(np.nanpercentile(np.abs(data), 99.95)) * 1.5 / 32000.0 or 1.0
        low, high = np.nanpercentile(data, [1.0, 99.0])
        span = cube.wave_um[index[0]], cube.wave_um[index[-1]]
        lines = [
            [_line(n), round(LINES[n] * (1 + redshift), 6)]
            for n in LINES
            if span[0] < LINES[n] * (1 + redshift) < span[1]
        ]
        entry = {
            "wave": [round(float(w), 6) for w in cube.wave_um[index]],
            "lines": sorted(lines, key=lambda line: line[1]),
            "scale": scale,
            "range": [round(float(low), 4), round(float(high), 4)],
            "error": [round(float(v), 4) if np.isfinite(v) else 0.0 for v in _median(error)],
            "data": _packed(data, scale),
            "level": {}, "span": {},
        }  # fmt: skip
        for name, fit in (("model", galaxy.lines), ("truth", true and true.spaxels)):
            if fit is not None:
                curves = spaxel_models(cube, redshift, fit, (index, names), seen)
                entry[name], entry["level"][name], entry["span"][name] = _packed_models(curves)
        result.append(entry)
    return result


def _median(values: np.ndarray) -> np.ndarray:
    """Median of each row, NaN for one without values."""
    return np.ma.median(np.ma.masked_invalid(values), axis=1).filled(np.nan)


def spaxel_models(
    cube: Cube, redshift: float, fit: LineFit, window: tuple[np.ndarray, list[str]], where: np.ndarray
) -> np.ndarray:
    """Lines of a fit on a straight continuum, in the unit of the cube.

    Parameters
    ----------
    cube : Cube
        The cube whose line-spread function and continuum the models have.
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


def _packed(values: np.ndarray, scale: float) -> str:
    """Turn floats into base64 of int16 with a mark for NaN."""
    finite = np.isfinite(values)
    whole = np.clip(np.round(np.where(finite, values, 0.0) / scale), -32767, 32767)
    return base64.b64encode(np.where(finite, whole, MISSING).astype("<i2").tobytes()).decode("ascii")


def _packed_models(values: np.ndarray) -> tuple[str, list[float], list[float]]:
    """Turn smooth curves, a row each, into base64 of int8, with the level and the step of each."""
    known = np.isfinite(values)
    low, high = (np.where(known.any(axis=1), reduce(np.where(known, values, fill), axis=1), 0.0)
                 for reduce, fill in ((np.min, np.inf), (np.max, -np.inf)))  # fmt: skip
    level, step = 0.5 * (low + high), np.maximum((high - low) / 254.0, 1e-12)
    whole = np.round((np.where(known, values, level[:, None]) - level[:, None]) / step[:, None])
    packed = np.where(known, np.clip(whole, -127, 127), MISSING_MODEL).astype("i1")
    texts = ([float(f"{v:.5g}") for v in part] for part in (level, step))
    return base64.b64encode(packed.tobytes()).decode("ascii"), *texts


def _listed(image: np.ndarray, digits: int) -> list:
    """Turn an image into nested lists with None for NaN."""
    return [[round(float(v), digits) if np.isfinite(v) else None for v in row] for row in image]
