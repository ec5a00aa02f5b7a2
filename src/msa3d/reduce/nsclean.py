"""The correlated noise of the detectors, subtracted with NSClean.

Where on the detector no light falls: the slits that are open, traced by their WCS, and those that failed open.

Correlated (1/f) noise taken out of count-rate images, before Spec2 (NS-MOS04 of the known issues).

The published code runs NSClean (Rauscher 2024, PASP 136, 015001) on the count-rate images; so does this module, with
the class that jwst 1.14.0 has of it, but with the pixels that the light of the open slits really falls on left out, as
the WCS of the exposure traces them, and those of failed-open shutters. jwst's own step ``nsclean`` of Spec2 leaves out
the bounding box of every slit: spectra are curved and tilted, and with some forty slitlets little is left between the
boxes. A dataset with ``process: {nsclean: true}`` has our mask and our fit within Spec2, which traces the slits
anyway; one with ``process: {nsclean: false, spec2: {nsclean: {skip: false}}}`` has jwst's own step. Images can be
cleaned into another root, too.

The algebra of the fit is that of jwst, written so that it takes less than a second instead of minutes. With weights w,
the normal matrix of the lowest Fourier components is Toeplitz, its elements and the right-hand side are Fourier
transforms of w and of w times the data; so all columns are solved at once. Results agree to rounding.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from astropy.io import fits
from scipy import fft

from msa3d.archive import crds
from msa3d.errors import ObservationError, ProductError
from msa3d.jwst_adapter import correlated_noise_correction, nsclean_step
from msa3d.observation.exposures import Observation
from msa3d.pipeline import products
from msa3d.pipeline.engine import Made, Record, Result, Step, Task
from msa3d.reduce import jwst_speed
from msa3d.reduce.jwst_log import pipeline_log

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


#: Rows of the fixed slits, which are always open; as in jwst.
FIXED_SLITS = slice(922, 1116)
#: Reference pixels at the left and at the right, which see no light; as in jwst.
REFERENCE_COLUMNS = (slice(0, 5), slice(-4, None))
#: Pixels added around the light of a slit: wings of the point spread function.
MARGIN = 3
#: Pixels that far above the median of the dark ones are outliers; as in jwst.
N_SIGMA = 5.0


def dark_pixels(rate: Path, metafile: Path, margin: int = MARGIN, store: Path | None = None) -> np.ndarray:
    """Say where on the detector no light falls through the MSA or the fixed slits.

    Parameters
    ----------
    rate : Path
        A count-rate image; only its headers matter.
    metafile : Path
        The MSA metafile.
    margin : int
        Pixels added around the light of each slit.
    store : Path, optional
        Directory where the masks of failed-open shutters are kept for other exposures.

    Returns
    -------
    ndarray of bool, shape (2048, 2048)
        True where it is dark, reference pixels included.
    """
    from jwst.assign_wcs import AssignWcsStep
    from jwst.assign_wcs.util import NoDataOnDetectorError
    from jwst.msaflagopen import MSAFlagOpenStep
    from stdatamodels.jwst import datamodels

    fast = jwst_speed.accelerated(("slit_wcs", "failed_open_mask"), store=store)
    with datamodels.open(rate) as model, fast:
        model.meta.instrument.msa_metadata_file = str(metafile)
        model.dq = np.zeros_like(model.dq)
        try:
            model = AssignWcsStep().run(model)
        except NoDataOnDetectorError:
            return _with_fixed(np.zeros((2048, 2048), bool))
        return dark_in_model(MSAFlagOpenStep().run(model), margin, store)


def dark_in_model(model: Any, margin: int = MARGIN, store: Path | None = None) -> np.ndarray:
    """Say the same of an image whose slits are traced and whose failed-open shutters are flagged.

    Parameters
    ----------
    model : `stdatamodels.jwst.datamodels.ImageModel`
        After jwst's steps ``assign_wcs`` and ``msa_flagging``.
    margin, store
        As in `dark_pixels`; where the light of the open slits falls is kept there as well, as it is the same in all
        exposures with the same slits and tilt of the grating.

    Returns
    -------
    ndarray of bool, shape (2048, 2048)
    """
    from stdatamodels.jwst.datamodels import dqflags

    slits = model.meta.wcs.get_transform("gwa", "slit_frame").slits
    references = {kind: item["name"] for kind, item in model.meta.ref_file.instance.items() if "name" in item}
    known = [jwst_speed.failed_open_key(model, {}, slits), sorted(references.items()), margin]
    key = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    path = store / f"lit_{key[:16]}.npz" if store else None
    if key not in _lit and path and path.exists():
        with np.load(path) as stored:
            _lit[key] = stored["packed"]
    if key not in _lit:
        _lit[key] = np.packbits(_traced(model, slits, margin))
        if path:
            with products.atomic_path(path) as partial, partial.open("wb") as stream:
                np.savez_compressed(stream, packed=_lit[key])
    shape = model.data.shape
    lit = np.unpackbits(_lit[key], count=shape[0] * shape[1]).astype(bool).reshape(shape)
    return _with_fixed(lit | ((model.dq & dqflags.pixel["MSA_FAILED_OPEN"]) > 0))


#: Where the light of the slits falls, by what decides it, packed into bits.
_lit: dict[str, np.ndarray] = {}


def _with_fixed(lit: np.ndarray) -> np.ndarray:
    """Dark pixels: those not lit, without the fixed slits, with the reference pixels."""
    lit[FIXED_SLITS] = True
    for columns in REFERENCE_COLUMNS:
        lit[:, columns] = False
    return ~lit


def _traced(model: Any, slits: list, margin: int) -> np.ndarray:
    """Where the light of the open slits falls, as their WCS traces it."""
    from gwcs.wcstools import grid_from_bounding_box
    from jwst.assign_wcs.nirspec import nrs_wcs_set_input
    from scipy.ndimage import binary_dilation

    lit = np.zeros(model.data.shape, bool)
    for slit in slits:
        wcs = nrs_wcs_set_input(model, slit.name)
        x, y = grid_from_bounding_box(wcs.bounding_box, step=(1, 1), center=True)
        inside = (x >= 0) & (x < lit.shape[1]) & (y >= 0) & (y < lit.shape[0])
        x, y = x[inside], y[inside]
        _, along, wave = wcs.get_transform("detector", "slit_frame")(x, y)
        # Half a shutter beyond the openings at either end is light of the wings.
        mine = (along > slit.ymin) & (along < slit.ymax) & np.isfinite(wave)
        lit[y[mine].astype(int), x[mine].astype(int)] = True
    return binary_dilation(lit, np.ones((2 * margin + 1, 2 * margin + 1), bool)) if margin else lit


def usable_pixels(image: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """Leave out of the dark pixels those that are not finite, and outliers.

    Parameters
    ----------
    image : ndarray, shape (2048, 2048)
        Count rates.
    dark : ndarray of bool
        From `dark_pixels`.

    Returns
    -------
    ndarray of bool
    """
    good = dark & np.isfinite(image)
    kept = image[good]
    # Of astropy's sigma_clipped_stats, which takes seconds for millions of pixels, the same.
    for _ in range(5):
        median, sigma = np.median(kept), kept.std(dtype=float)
        inside = np.abs(kept - median) <= 5.0 * sigma
        if inside.all():
            break
        kept = kept[inside]
    median, sigma = np.median(kept), kept.std(dtype=float)
    return good & (np.abs(np.where(good, image, median) - median) <= N_SIGMA * sigma)


log = logging.getLogger(__name__)

MODULES = ("msa3d.reduce.nsclean",)


@dataclass(frozen=True)
class Banding:
    """How much columns differ where no light falls.

    Attributes
    ----------
    columns : float
        Standard deviation over columns of the median of their dark pixels.
    expected : float
        What the noise of single pixels makes of it by itself.
    """

    columns: float
    expected: float


@dataclass(frozen=True)
class CleanTask:
    """One image to clean (picklable)."""

    rate: Path
    cleaned: Path
    metafile: Path
    masks: Path
    log: Path
    dataset: Dataset
    method: str


def columns(result: Result) -> dict[str, Any]:
    """Fraction of pixels used, and `Banding` before and after cleaning an image, DN/s."""
    return {name: result.notes[name] for name in ("used", "banding_before", "banding_after", "noise_alone")}


def tasks(
    dataset: Dataset, layout: Layout, into: Layout | None = None, method: Literal["fast", "jwst"] = "fast"
) -> list[Task]:
    """Make the tasks of this step: one a count-rate image, of which a cleaned one goes into another root.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    layout : Layout
        Where its count-rate images and metafile are; nothing there is changed.
    into : Layout
        Another root, which gets cleaned images of the same names, and the metafile: a run can start there.
    method : {"fast", "jwst"}
        Who fits: this module, or jwst's own step with the mask from here (the same result, in minutes an image).

    Returns
    -------
    list of Task

    Raises
    ------
    ObservationError
        Where both roots are one, or the observation is not complete.
    """
    if into is None or into.root == layout.root:
        raise ObservationError(f"{layout.root} holds the images to be cleaned: name another root for the cleaned ones.")
    crds.use_references(layout, dataset)
    observation = Observation.read(layout, dataset)
    observation.check()
    into.root.mkdir(parents=True, exist_ok=True)
    copy = into.metafile(observation.metafile.name)
    if not copy.exists():
        with products.atomic_path(copy) as partial:
            shutil.copyfile(observation.metafile, partial)
    if dataset.simulated and not into.crds_cache.exists():
        into.crds_cache.symlink_to(layout.crds_cache.resolve(), target_is_directory=True)
    return [_task(rate.path, observation.metafile, dataset, into, method) for rate in observation.rates]


def _task(rate: Path, metafile: Path, dataset: Dataset, cleaned: Layout, method: str) -> Task:
    parameters = {"margin": MARGIN, "n_sigma": N_SIGMA, "method": method}
    record = Record(cleaned, "nsclean", rate.stem, inputs=[rate, metafile], parameters=parameters, modules=MODULES)
    masks, log = cleaned.records / "failed_open", record.path.with_suffix(".log")
    return Task(rate.name, record, CleanTask(rate, cleaned.root / rate.name, metafile, masks, log, dataset, method))


def clean_rate(task: CleanTask) -> Made:
    """Clean one count-rate image.

    Parameters
    ----------
    task : CleanTask
        What to do.

    Returns
    -------
    Made
        The image; in the notes the fraction of pixels used and the banding before and after.

    Raises
    ------
    ProductError
        Where jwst cannot trace the slits.
    """
    task.log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pipeline_log(task.log):
            dark = dark_pixels(task.rate, task.metafile, store=task.masks)
    except Exception as error:
        raise ProductError(
            f"jwst cannot trace the slits of {task.rate.name} ({type(error).__name__}: {error}); its log is {task.log}."
        ) from error
    with fits.open(task.rate) as hdus:
        image, detector = np.array(hdus["SCI"].data, np.float32), hdus[0].header["DETECTOR"]
        usable = usable_pixels(image, dark)
        cleaned = clean(image, usable, detector) if task.method == "fast" else clean_by_jwst(task.rate, usable)
        hdus["SCI"].data = cleaned
        for keyword in ("S_NSCLEN", "S_CLNFNS"):  # of jwst 1.14.0, and of younger versions
            hdus[0].header[keyword] = ("COMPLETE", "correlated noise taken out by NSClean")
        products.stamp(hdus[0].header, dataset=task.dataset, inputs=[task.rate, task.metafile], step="nsclean")
        with products.atomic_path(task.cleaned) as partial:
            hdus.writeto(partial, checksum=True)
    return Made([task.cleaned], _told(image, cleaned, usable))


# --- cleaning


def clean(image: np.ndarray, usable: np.ndarray, detector: str, *, buff: bool = True) -> np.ndarray:
    """Fit the correlated noise on dark pixels, and subtract it everywhere.

    Parameters
    ----------
    image : ndarray, shape (2048, 2048) or a cut-out of whole columns
        Count rates, DN/s. NaN stays NaN.
    usable : ndarray of bool
        Pixels to fit, from `usable_pixels`.
    detector : {"NRS1", "NRS2"}
        Says which way it is read.
    buff : bool
        Smooth the fit over neighbouring columns (1.5 columns, as jwst does): it adds less noise, and removes less of
        what differs from column to column.

    Returns
    -------
    ndarray of float32
    """
    # As it is read: lines, which are columns of the image, one after the other.
    turned = (slice(None), slice(None, None, 1 if detector == "NRS1" else -1))
    mask = usable[turned].T
    model = _slow_background(np.where(mask, image[turned].T, np.float32(0)), mask)
    if buff:
        model = _buffed(model)
    return (image - model.T[turned]).astype(np.float32)


_BUFF_LINES = 1.5
_DENSITY_PIXELS = 32
_CLIP = 3.0
"""Of jwst: widths of the smoothing over lines and of that which measures the density of samples; limit of outliers."""
_EDGE_LINES = 4
"""Reference pixels at either end are not fitted, as in jwst."""


def _slow_background(lines: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fit the lowest Fourier components of each line, weighted by the inverse density of usable pixels."""
    n_lines, n = lines.shape
    # Half power at a period of 256 pixels, with a cosine roll-off, as in jwst.
    beyond = (fft.rfftfreq(n) - 1.0 / 256) * 1024
    taper = np.where(np.abs(beyond) <= 0.5, 0.5 - 0.5 * np.sin(np.pi * beyond), beyond < 0)
    taper = taper[taper > 0]
    lag = np.subtract.outer(np.arange(taper.size), np.arange(taper.size))
    fitted = mask.sum(axis=1) > 2 * taper.size  # A line with fewer pixels does not say how they vary.
    fitted[:_EDGE_LINES] = fitted[n_lines - _EDGE_LINES :] = False
    weights = _weights(mask)[fitted]
    values = _without_outliers(lines, mask, np.flatnonzero(fitted))[fitted]
    turn = np.exp(-2j * np.pi / n * np.outer(np.arange(n), np.arange(taper.size)))
    moments = _transformed(weights, turn)
    normal = np.where(lag >= 0, moments[:, np.abs(lag)], moments[:, np.abs(lag)].conj())
    weights *= values
    series = np.linalg.solve(normal, _transformed(weights, turn)[..., None])[..., 0] * taper
    series[:, 1:] *= 2.0
    model = np.zeros(lines.shape, np.float32)
    model[fitted] = series.real @ turn.real.T + series.imag @ turn.imag.T
    return model


def _transformed(rows: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Lowest Fourier components of rows; products of real matrices, as few components are wanted."""
    return rows @ np.ascontiguousarray(turn.real) + 1j * (rows @ np.ascontiguousarray(turn.imag))


def _weights(mask: np.ndarray) -> np.ndarray:
    """Squared inverse density of usable pixels along a line; as in jwst, that of the pixel, and of the line, before."""
    n = mask.shape[1]
    kernel = fft.rfft(fft.ifftshift(_gaussian(n, n // 2 + 1, _DENSITY_PIXELS))).astype(np.complex64)
    density = np.roll(fft.irfft(fft.rfft(mask.astype(np.float32), axis=1) * kernel, n, axis=1), 1, axis=0)
    weights = np.zeros(mask.shape)
    np.divide(1.0, density, out=weights, where=mask)
    return np.square(weights, out=weights)


def _without_outliers(lines: np.ndarray, mask: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Replace usable pixels that are far from the median of their line by it."""
    found = lines.copy()
    for line in fitted:
        there = mask[line]
        values = lines[line, there]
        middle = np.median(values)
        away = np.abs(values - middle)
        found[line, there] = np.where(away <= _CLIP * 1.4826 * np.median(away), values, middle)
    return found


def _buffed(model: np.ndarray) -> np.ndarray:
    """Smooth a background over neighbouring lines; in jwst, too, it comes out a line and a pixel later."""
    n_lines, n = model.shape
    kernel = fft.rfft(fft.ifftshift(_gaussian(n_lines, n // 2 + 1, _BUFF_LINES))).astype(np.complex64)
    smooth = fft.irfft(fft.rfft(model, axis=0) * kernel[:, None], n_lines, axis=0)
    return np.roll(smooth, 1, axis=1)


def _gaussian(n: int, middle: int, sigma: float) -> np.ndarray:
    """Normalised Gaussian on n pixels."""
    return np.exp(-0.5 * ((np.arange(n) - middle) / sigma) ** 2) / (sigma * np.sqrt(2.0 * np.pi))


def clean_by_jwst(rate: Path, usable: np.ndarray) -> np.ndarray:
    """Let jwst's own step clean an image, with a mask of ours in place of the boxes around the slits.

    Parameters
    ----------
    rate : Path
        A count-rate image.
    usable : ndarray of bool
        Pixels to fit, from `usable_pixels`.

    Returns
    -------
    ndarray of float32
    """
    from stdatamodels.jwst import datamodels

    with datamodels.open(rate) as model, tempfile.TemporaryDirectory() as scratch:
        mask = Path(scratch) / "mask.fits"
        with datamodels.ImageModel(data=usable.astype(np.float32)) as usable_model:
            usable_model.save(str(mask))
        step = nsclean_step()
        step.user_mask = str(mask)
        return np.array(step.run(model).data, np.float32)


def banding(image: np.ndarray, usable: np.ndarray) -> Banding:
    """Measure how much columns differ where it is dark.

    Parameters
    ----------
    image : ndarray
        Count rates, DN/s.
    usable : ndarray of bool
        From `usable_pixels`.

    Returns
    -------
    Banding
    """
    columns, mask = np.ascontiguousarray(image.T), usable.T.copy()
    mask[REFERENCE_COLUMNS[0]] = mask[REFERENCE_COLUMNS[1]] = False
    enough = np.flatnonzero(mask.sum(axis=1) > 50)
    medians = np.array([np.median(columns[i, mask[i]]) for i in enough])
    part = mask[enough]
    spread = 1.4826 * np.median(np.abs(columns[enough] - medians[:, None])[part])
    # The median of n values scatters 1.2533 times as much as their mean.
    expected = 1.2533 * spread / np.sqrt(part.sum(axis=1).mean())
    return Banding(float(medians.std()), float(expected))


@contextmanager
def within_spec2(store: Path | None = None) -> Iterator[dict[str, float]]:
    """Let jwst's step ``nsclean`` have the mask and the fit of this module.

    Parameters
    ----------
    store : Path, optional
        As in `dark_in_model`.

    Yields
    ------
    dict of str to float
        Filled when the step has run: see `columns`. It stays empty for an image that was cleaned before (S_NSCLEN).
    """
    theirs, step, nothing_else = correlated_noise_correction()
    notes: dict[str, float] = {}

    def do_correction(model: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        if getattr(model.meta.cal_step, step) == "COMPLETE":
            return model.copy(), *nothing_else
        cleaned = model.copy()
        usable = usable_pixels(model.data, dark_in_model(model, store=store))
        cleaned.data = clean(model.data, usable, model.meta.instrument.detector)
        setattr(cleaned.meta.cal_step, step, "COMPLETE")
        notes.update(_told(model.data, cleaned.data, usable))
        return cleaned, *nothing_else

    with jwst_speed.replaced(theirs, "do_correction", do_correction):
        yield notes


def _told(image: np.ndarray, cleaned: np.ndarray, usable: np.ndarray) -> dict[str, float]:
    """Notes of an image: see `columns`."""
    before, after = banding(image, usable), banding(cleaned, usable)
    bands = {"banding_before": before.columns, "banding_after": after.columns, "noise_alone": after.expected}
    return {"used": float(usable.mean()), **bands}


#: Most of the memory is jwst's trace of failed-open shutters.
STEP = Step("nsclean", tasks, clean_rate, columns, memory_gb=1.5, environment=crds.environment)
run = STEP.run
