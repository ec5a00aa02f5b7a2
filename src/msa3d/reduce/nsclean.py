"""The correlated noise of the detectors, subtracted with NSClean.

Where on the detector no light falls: the slits that are open, traced by their WCS, and those that failed open.

Correlated (1/f) noise taken out of count-rate images, before Spec2 (NS-MOS04 of the known issues).

The published code runs NSClean (Rauscher 2024, PASP 136, 015001) on the count-rate images; so does this module, with
the class that jwst 1.14.0 has of it, but with the pixels that the light of the open slits really falls on left out, as
the WCS of the exposure traces them, and those of failed-open shutters. jwst's own step ``nsclean`` of Spec2 leaves out
the bounding box of every slit: spectra are curved and tilted, and with some forty slitlets little is left between the
boxes. It can be switched on in a dataset (``process: {spec2: {nsclean: {skip: false}}}``), or run here with our mask.

The algebra of the fit is that of jwst, written so that it takes seconds instead of minutes: a diagonal matrix of
2000 x 2000 is not multiplied out. Results agree to rounding.
"""

from __future__ import annotations

import functools
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from astropy.io import fits

from msa3d.archive import crds
from msa3d.errors import ObservationError, ProductError
from msa3d.jwst_adapter import nsclean_class, nsclean_step
from msa3d.observation.exposures import Observation
from msa3d.pipeline import products
from msa3d.pipeline.engine import Made, Record, Result, Step, Task
from msa3d.reduce import jwst_speed
from msa3d.reduce.exposure import pipeline_log

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

    flag = datamodels.dqflags.pixel["MSA_FAILED_OPEN"]
    fast = jwst_speed.accelerated(("slit_wcs", "failed_open_mask"), store=store)
    with datamodels.open(rate) as model, fast:
        model.meta.instrument.msa_metadata_file = str(metafile)
        model.dq = np.zeros_like(model.dq)
        try:
            model = AssignWcsStep().run(model)
            lit = _traced(model, margin)
            lit |= (MSAFlagOpenStep().run(model).dq & flag) > 0
        except NoDataOnDetectorError:
            lit = np.zeros((2048, 2048), bool)
    lit[FIXED_SLITS] = True
    for columns in REFERENCE_COLUMNS:
        lit[:, columns] = False
    return ~lit


def _traced(model: Any, margin: int) -> np.ndarray:
    """Where the light of the open slits falls, as their WCS traces it."""
    from gwcs.wcstools import grid_from_bounding_box
    from jwst.assign_wcs.nirspec import nrs_wcs_set_input
    from scipy.ndimage import binary_dilation

    lit = np.zeros(model.data.shape, bool)
    for slit in model.meta.wcs.get_transform("gwa", "slit_frame").slits:
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
    from astropy.stats import sigma_clipped_stats

    good = dark & np.isfinite(image)
    _, median, sigma = sigma_clipped_stats(image, mask=~good, sigma=5.0)
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
        before, after = banding(image, dark), banding(cleaned, dark)
        hdus["SCI"].data = cleaned
        hdus[0].header["S_NSCLEN"] = ("COMPLETE", "correlated noise taken out by NSClean")
        products.stamp(hdus[0].header, dataset=task.dataset, inputs=[task.rate, task.metafile], step="nsclean")
        with products.atomic_path(task.cleaned) as partial:
            hdus.writeto(partial, checksum=True)
    bands = {"banding_before": before.columns, "banding_after": after.columns, "noise_alone": after.expected}
    return Made([task.cleaned], {"used": float(usable.mean()), **bands})


# --- cleaning


@functools.cache
def _cleaner_class() -> type:
    """Make NSClean of jwst with a faster fit; made when first needed, since importing jwst takes seconds."""

    class Cleaner(nsclean_class()):
        """NSClean, its weights applied row by row instead of as a matrix."""

        def fit(self, data: np.ndarray) -> np.ndarray:
            """Fit the background, line by line, as ``NSClean.fit`` does."""
            model = np.zeros((self.ny, self.nx), np.float32)
            waves = np.arange(self.nvec)[None, :]
            for y in range(4, self.ny - 4):
                there = np.flatnonzero(self.mask[y])
                if not there.size:
                    continue
                values, weights = data[y][there], self.p_matrix[y][there]
                middle = np.median(values)
                spread = 1.4826 * np.median(np.abs(values - middle))
                values = np.where(np.abs(values - middle) <= self.sigrej * spread, values, middle)
                basis = np.exp(2j * np.pi * there[:, None] * waves / self.nx) / there.size
                weighted = weights[:, None] * basis
                normal = weighted.conj().T @ weighted
                series = np.zeros(self.nx // 2 + 1, np.complex128)
                series[: self.nvec] = np.linalg.solve(normal, weighted.conj().T @ (weights * values))
                series *= self.nx / there.size
                if self.kill_width > 0:
                    series[: self.nvec] *= self.apodizer[: self.nvec]
                model[y] = np.fft.irfft(series, self.nx)
            return model

    return Cleaner


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
        Smooth what was fitted over neighbouring columns (1.5 columns, as jwst does): less noise is put in, and less of
        what differs from column to column is taken out.

    Returns
    -------
    ndarray of float32
    """
    missing = ~np.isfinite(image)
    filled = np.where(missing, np.float32(0), image).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        cleaned = _cleaner_class()(detector, usable).clean(filled.copy(), buff=buff)
    return np.where(missing, np.float32(np.nan), cleaned).astype(np.float32)


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


def banding(image: np.ndarray, dark: np.ndarray) -> Banding:
    """Measure how much columns differ where it is dark.

    Parameters
    ----------
    image : ndarray
        Count rates, DN/s.
    dark : ndarray of bool
        Where no light falls.

    Returns
    -------
    Banding
    """
    good = usable_pixels(image, dark)
    good[:, REFERENCE_COLUMNS[0]] = good[:, REFERENCE_COLUMNS[1]] = False
    enough = good.sum(axis=0) > 50
    part = np.where(good, image, np.nan)[:, enough]
    medians = np.nanmedian(part, axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(part - medians))
    # The median of n values scatters 1.2533 times as much as their mean.
    expected = 1.2533 * spread / np.sqrt(good.sum(axis=0)[enough].mean())
    return Banding(float(medians.std()), float(expected))


#: Most of the memory is jwst's trace of failed-open shutters.
STEP = Step("nsclean", tasks, clean_rate, columns, memory_gb=1.5, environment=crds.environment)
run = STEP.run
