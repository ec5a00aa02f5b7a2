"""A quantity as a map and against the radius: what the figures of metallicity and attenuation share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.constants import LINES
from msa3d.cube import Cube
from msa3d.dataset import Dataset
from msa3d.figures import style
from msa3d.figures.sky import draw_map, label_sky, map_bar, map_height
from msa3d.figures.skymarks import mark_map
from msa3d.figures.slit_stepping import target_of
from msa3d.science.cosmology import kpc_per_arcsec
from msa3d.science.gradient import Gradient


@dataclass(frozen=True)
class Points:
    """A quantity in rings.

    Attributes
    ----------
    radius_kpc, value, error : ndarray, shape (n,)
        Radius in the plane of the disc, kpc; the quantity and 1 sigma. NaN is not drawn.
    """

    radius_kpc: np.ndarray
    value: np.ndarray
    error: np.ndarray


@dataclass(frozen=True)
class Quantity:
    """How a quantity is named and coloured.

    Attributes
    ----------
    name : str
        In running text.
    label : str
        On axes, with its unit.
    slope_unit : str
        Unit of its gradient.
    colours : str
        Name of a colour map.
    """

    name: str
    label: str
    slope_unit: str
    colours: str


@style.house_style()
def plot(
    quantity: Quantity,
    dataset: Dataset,
    cube: Cube,
    image: np.ndarray,
    points: Points,
    gradient: Gradient | None,
    *,
    injected: tuple[float, float] | None = None,
    published: tuple[float, float] | None = None,
    limits: tuple[float, float] | None = None,
    source_id: int | None = None,
) -> Figure:
    """Draw map and gradient of a quantity.

    Parameters
    ----------
    quantity : Quantity
        What it is.
    dataset : Dataset
        The observation.
    cube : Cube
        Whose spaxels the map has.
    image : ndarray, shape (n_y, n_x)
        The map; NaN where it is not known.
    points : Points
        The quantity in rings.
    gradient : Gradient or None
        The fit; its error is shaded.
    injected : tuple of float, optional
        Value at the centre and change for each kpc of what was put in.
    published : tuple of float, optional
        Published gradient and its error, for each kpc; drawn through the fit at the middle radius, as the published
        value at the centre is not at hand.
    limits : tuple of float, optional
        Of the colours; without it the range of the rings, half as wide again to either side.
    source_id : int, optional
        The source; the case study without it.

    Returns
    -------
    matplotlib.figure.Figure
        Map to the left, gradient to the right.
    """
    target = target_of(dataset, source_id)
    centre = (target.ra, target.dec)
    height = map_height(cube, centre, 2.1, least=1.9, most=2.9)
    figure = style.new_figure(style.FULL_WIDTH, height + 1.3)
    left, right = figure.subplots(1, 2, width_ratios=[1.0, 1.6])
    low, high = limits or _limits(points.value if np.isfinite(points.value).sum() > 1 else image)
    mesh = draw_map(left, cube, image, centre, cmap=style.colour_map(quantity.colours), vmin=low, vmax=high)
    label_sky(left)
    wave = LINES["Ha"] * (1 + target.redshift)
    mark_map(left, cube, kpc_per_arcsec=kpc_per_arcsec(target.redshift), wave_um=wave)
    known = image[np.isfinite(image)]
    beyond = bool((known < low).any()), bool((known > high).any())
    extend = {(True, False): "min", (False, True): "max", (True, True): "both"}.get(beyond, "neither")
    map_bar(figure, mesh, left, quantity.label, extend)
    left.set_title(f"a  {quantity.name}")
    _profile(right, quantity, points, gradient, injected, published)
    right.set_title("b  against radius")
    name = target.name or str(target.source_id)
    figure.suptitle(style.literal(name), fontsize=9)
    told = "" if gradient is None else f"; its gradient is {_signed(gradient.slope, gradient.slope_error, quantity)}"
    alt = f"{quantity.name.capitalize()} of {name}: a map, and the mean in rings against the radius in the disc{told}."
    return style.finish(figure, simulated=cube.simulated, alt=alt)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Range of the finite values, half as wide again to either side."""
    low, high = style.percentile_limits(values, 0.0, 100.0)
    return low - 0.5 * (high - low), high + 0.5 * (high - low)


def _signed(slope: float, error: float | None, quantity: Quantity) -> str:
    text = f"{slope:+.3f}" + ("" if error is None else f" \u00b1 {error:.3f}")
    return text.replace("-", "\u2212") + f" {quantity.slope_unit}"


def _profile(axes: Axes, quantity: Quantity, points: Points, gradient, injected, published) -> None:
    good = np.isfinite(points.value) & np.isfinite(points.error)
    radius, value, error = points.radius_kpc[good], points.value[good], points.error[good]
    end = 1.08 * float(radius.max()) if radius.size else 8.0
    grid = np.linspace(0.0, end, 100)
    shown = [value, value - error, value + error]
    if gradient is not None:
        line, band = gradient.at(grid)
        axes.fill_between(grid, line - band, line + band, color=style.SKY, alpha=0.5, linewidth=0, zorder=1)
        label = f"fit: {_signed(gradient.slope, gradient.slope_error, quantity)}"
        axes.plot(grid, line, color=style.RESULT_COLOUR, label=label)
        shown.append(line)
        if published is not None:
            pivot = 0.5 * end
            through = gradient.at(pivot)[0] + published[0] * (grid - pivot)
            label = f"published: {_signed(*published, quantity)}"
            axes.plot(grid, through, color=style.PUBLISHED_COLOUR, linestyle=":", linewidth=1.6, label=label)
            shown.append(through)
    if injected is not None:
        label = f"put in: {_signed(injected[1], None, quantity)}"
        line = injected[0] + injected[1] * grid
        axes.plot(grid, line, color=style.TRUTH_COLOUR, linestyle="--", linewidth=1.4, label=label)
        shown.append(line)
    axes.errorbar(
        radius, value, error, fmt="o", color=style.BLACK, markersize=3, elinewidth=0.8, capsize=1.5,
        label="rings, as observed", zorder=4,
    )  # fmt: skip
    every = np.concatenate([np.atleast_1d(a) for a in shown])
    low, high = (every.min(), every.max()) if every.size else (0.0, 1.0)
    spread = max(high - low, 1e-3, float(np.median(error)) if error.size else 0.0)
    # Room above for the legend, so that it covers no point.
    axes.set_ylim(low - 0.1 * spread, high + 0.65 * spread)
    axes.set_xlim(0.0, end)
    axes.set_xlabel("radius in the disc (kpc)")
    axes.set_ylabel(quantity.label)
    axes.legend(loc="upper right")
