"""Figure: the 2-D spectrum of one galaxy from the detector to a column of its cube."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from matplotlib.figure import Figure

from msa3d.constants import LINES
from msa3d.cube import open_cube
from msa3d.cube.grid import read_spectrum
from msa3d.dataset import Dataset
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.figures.linemarks import name_line
from msa3d.figures.sky import draw_spectrum
from msa3d.figures.slit_stepping import target_of
from msa3d.layout import POST_SUFFIX, Layout
from msa3d.provenance import is_simulated

log = logging.getLogger(__name__)

MARKED = ("Ha", "[NII]6583")


@dataclass(frozen=True)
class Panel:
    """One image of the figure: data ``[y, wave]``, its wavelengths (um) or None, title and unit."""

    title: str
    data: np.ndarray
    wave_um: np.ndarray
    unit: str


@style.house_style()
def plot(
    layout: Layout,
    dataset: Dataset,
    source_id: int | None = None,
    *,
    half_width_um: float = 0.02,
) -> Figure:
    """Draw the neighbourhood of Ha through the steps, in the middle exposure.

    Parameters
    ----------
    layout : Layout
        Where the products are.
    dataset : Dataset
        The observation.
    source_id : int, optional
        The source; the case study without it.
    half_width_um : float
        How much to show to each side of Ha, um.

    Returns
    -------
    matplotlib.figure.Figure
        One panel a step, from count rates to the median of a column's dithers.

    Raises
    ------
    ProductError
        If a product of the steps is missing.
    """
    target = target_of(dataset, source_id)
    middle = LINES["Ha"] * (1 + target.redshift)
    panels, simulated = collect(layout, dataset, target.source_id, middle)
    figure = style.new_figure(style.FULL_WIDTH, 1.15 * len(panels) + 0.5)
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for letter, axes, panel in zip("abcdef", rows, panels, strict=False):
        shown = np.abs(panel.wave_um - middle) <= half_width_um
        if not shown.any():
            raise ProductError(f"{panel.title}: Ha of source {target.source_id} at {middle:.4f} um is not covered")
        low, high = style.percentile_limits(panel.data[:, shown], 5.0, 99.5)
        image = draw_spectrum(
            axes, panel.wave_um[shown], panel.data[:, shown], cmap=style.colour_map(style.INTENSITY_MAP), vmin=low,
            vmax=high,
        )  # fmt: skip
        axes.set_title(f"{letter}  {panel.title}")
        axes.set_ylabel("row")
        style.colour_bar(figure, image, axes, panel.unit, fraction=0.03)
    for name in MARKED:
        name_line(rows[0], name, target.redshift, rotation=0.0, fontsize=7)
    rows[-1].set_xlabel("vacuum wavelength (\u00b5m)")
    alt = (
        f"{len(panels)} two-dimensional spectra of source {target.source_id} around H-alpha, one under the "
        "other: " + "; ".join(panel.title for panel in panels) + "."
    )
    return style.finish(figure, simulated=simulated, alt=alt)


def collect(layout: Layout, dataset: Dataset, source_id: int, middle_um: float) -> tuple[list[Panel], bool]:
    """Read the images of all steps for the middle exposure.

    Parameters
    ----------
    layout, dataset : Layout, Dataset
        The run.
    source_id : int
        The source.
    middle_um : float
        Wavelength that decides which of the detectors is shown, um.

    Returns
    -------
    tuple
        The panels in the order of the steps, and whether the data are simulated.
    """
    activities = layout.activities()
    if not activities:
        raise ProductError(f"{layout.process} holds no exposure: run `msa3d process` first")
    middle = len(activities) // 2
    activity = activities[middle]
    panels = _slit_panels(layout, activity, source_id, middle_um)
    spectrum = read_spectrum(layout.s2d(activity, source_id))
    panels.append(Panel("Both detectors rectified (s2d)", _blank(spectrum.data), spectrum.wave_um, "MJy/sr"))
    cleaned = read_spectrum(layout.s2d(activity, source_id, POST_SUFFIX))
    panels.append(Panel("After cosmic rays and path loss", _blank(cleaned.data), cleaned.wave_um, "MJy/sr"))
    column = dataset.pattern.place(middle)[1] + 1
    path = layout.column_median(source_id, column)
    if path.is_file():
        cube = open_cube(layout.cube_medians(source_id))
        with fits.open(path) as hdus:
            data = next(h.data for h in hdus if h.is_image and h.header.get("NAXIS") == 2)
        image = np.asarray(data, dtype=float)
        image = image if image.shape[1] == cube.wave_um.size else image.T
        panels.append(Panel(f"Median of the dithers of column {column}", _blank(image), cube.wave_um, "MJy/sr"))
    return panels, is_simulated(spectrum.primary)


def _slit_panels(layout: Layout, activity: str, source_id: int, middle_um: float) -> list[Panel]:
    """Count rates and calibrated pixels of the slit, on the detector that saw the wavelength."""
    for cal in sorted(layout.process_dir(activity).glob("*_nrs[12]_cal.fits")):
        with fits.open(cal) as hdus:
            number = _slit_number(hdus, source_id)
            if number is None:
                continue
            sci, wave = hdus["SCI", number], hdus["WAVELENGTH", number].data
            wave = np.nanmedian(np.where(wave > 0, wave, np.nan), axis=0)
            if not np.nanmin(wave) <= middle_um <= np.nanmax(wave):
                continue
            keep = np.isfinite(wave)
            x, y, (height, width) = sci.header["SLTSTRT1"], sci.header["SLTSTRT2"], sci.data.shape
            calibrated = _blank(np.asarray(sci.data, dtype=float)[:, keep])
        rate = _rate_of(layout, cal)
        with fits.open(rate) as hdus:
            cutout = np.asarray(hdus["SCI"].data[y - 1 : y - 1 + height, x - 1 : x - 1 + width], dtype=float)
        detector = cal.name.split("_")[-2].upper()
        return [
            Panel(f"Count rates, {detector}", cutout[:, keep], wave[keep], "DN/s"),
            Panel("Calibrated pixels of the slit (cal)", calibrated, wave[keep], "MJy/sr"),
        ]
    log.warning("no detector of exposure %s saw source %s at %.4f um", activity, source_id, middle_um)
    return []


def _slit_number(hdus: fits.HDUList, source_id: int) -> int | None:
    """EXTVER of the slit of a source in a cal file."""
    for hdu in hdus:
        if hdu.name == "SCI" and int(hdu.header.get("SOURCEID", -1)) == source_id:
            return hdu.ver
    return None


def _rate_of(layout: Layout, cal: Path) -> Path:
    """Count-rate file that a cal file was made from."""
    return layout.root / cal.name.replace("_cal.fits", "_rate.fits")


def _blank(image: np.ndarray) -> np.ndarray:
    """Exact zeros, which jwst writes where it has no data, as NaN."""
    return np.where(image == 0, np.nan, image)
