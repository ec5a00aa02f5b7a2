"""Figure: where the slitlet of one galaxy lay on the sky in each exposure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from msa3d.cube.grid import SlitSpectrum, read_spectrum
from msa3d.cube.product import tangent_offsets
from msa3d.dataset import Dataset, Target
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.figures.sky import EAST_LABEL, NORTH_LABEL
from msa3d.layout import Layout
from msa3d.provenance import is_simulated


@style.house_style()
def plot(layout: Layout, dataset: Dataset, source_id: int | None = None) -> Figure:
    """Draw the slitlet of a source in every exposure, and the order of the exposures.

    The slitlet is drawn from the first to the last row of the exposure's rectified spectrum, and as wide as
    the step across the slit (the open width of a shutter).

    Parameters
    ----------
    layout : Layout
        Where the products are.
    dataset : Dataset
        The observation: pattern, targets, case study.
    source_id : int, optional
        The source; the case study without it.

    Returns
    -------
    matplotlib.figure.Figure
        Left: slitlets by column; right: middles of the slitlets in observing order.

    Raises
    ------
    ProductError
        If step 1 has not been run.
    """
    target = target_of(dataset, source_id)
    spectra = _spectra(layout, target.source_id)
    centres, ends = _lines(spectra, target)
    figure = style.new_figure(style.FULL_WIDTH, 3.6)
    left, right = figure.subplots(1, 2)
    _draw_slitlets(left, dataset, ends)
    _draw_order(right, centres)
    left.set_title(f"a  Slitlets of {style.literal(target.name or target.source_id)}")
    right.set_title("b  Order of the exposures")
    rows, columns = dataset.pattern.rows, dataset.pattern.columns
    alt = (
        f"Two maps of the sky around {target.name or target.source_id}. Left: the outline of its slitlet in "
        f"{len(spectra)} exposures, coloured by column; {columns} columns lie side by side. Right: the "
        f"middles of the slitlets, joined in observing order, through {rows} rows."
    )
    return style.finish(figure, simulated=any(is_simulated(s.primary) for s in spectra), alt=alt)


def target_of(dataset: Dataset, source_id: int | None) -> Target:
    """Return the target with an id (the case study without one); a ProductError if there is none."""
    wanted = dataset.case_study if source_id is None else source_id
    for target in dataset.targets:
        if target.source_id == wanted:
            return target
    raise ProductError(f"dataset {dataset.name} has no target {wanted}")


def _spectra(layout: Layout, source_id: int) -> list[SlitSpectrum]:
    """All rectified spectra of a source in observing order."""
    paths = [layout.s2d(activity, source_id) for activity in layout.activities()]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise ProductError(f"{layout.process} holds no spectrum of source {source_id}: run `msa3d process` first")
    return [read_spectrum(path) for path in found]


def _lines(spectra: list[SlitSpectrum], target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Middles (n, 2) and ends (n, 2, 2: which end, east and north) of the slitlets, arcsec."""
    ends = []
    for spectrum in spectra:
        east, north = tangent_offsets(*spectrum.geometry.ends.T, target.ra, target.dec)
        ends.append(np.column_stack([east, north]))
    ends = np.array(ends)
    return ends.mean(axis=1), ends


def _draw_slitlets(axes: Axes, dataset: Dataset, ends: np.ndarray) -> None:
    """Outline of each slitlet, coloured by its column."""
    pattern = dataset.pattern
    colours = style.colour_map("cividis")(np.linspace(0.0, 0.85, pattern.columns))
    half = 0.5 * pattern.column_step_arcsec
    for index, (first, last) in enumerate(ends):
        along = (last - first) / np.hypot(*(last - first))
        across = half * np.array([-along[1], along[0]])
        corners = [first - across, first + across, last + across, last - across]
        row, column = pattern.place(index)
        label = f"{column + 1}" if row == 0 else None
        axes.add_patch(
            Polygon(corners, closed=True, fill=True, alpha=0.12, facecolor=colours[column], edgecolor="none")
        )
        axes.add_patch(Polygon(corners, closed=True, fill=False, linewidth=0.6, edgecolor=colours[column], label=label))
    axes.plot(0, 0, "+", color=style.VERMILION, markersize=9, markeredgewidth=1.5)
    axes.autoscale_view()
    axes.set_aspect("equal", adjustable="datalim")
    axes.invert_xaxis()
    axes.set_xlabel(EAST_LABEL)
    axes.set_ylabel(NORTH_LABEL)
    handles, labels = axes.get_legend_handles_labels()
    order = np.argsort([int(label) for label in labels])
    axes.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        title="column",
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        handlelength=1.0,
        borderpad=0.2,
    )


def _draw_order(axes: Axes, centres: np.ndarray) -> None:
    """Middles of the slitlets joined in observing order, first and last numbered."""
    axes.plot(centres[:, 0], centres[:, 1], "-", color=style.GREY, linewidth=0.7)
    axes.plot(centres[:, 0], centres[:, 1], "o", color=style.BLUE, markersize=3)
    step = 1 if len(centres) <= 12 else 9
    shown = sorted({0, len(centres) - 1, *range(0, len(centres), step)})
    for index in shown:
        axes.annotate(str(index + 1), centres[index], xytext=(3, 3), textcoords="offset points", fontsize=6.5)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    axes.invert_xaxis()
    axes.set_xlabel(EAST_LABEL)
    axes.set_ylabel(NORTH_LABEL)
