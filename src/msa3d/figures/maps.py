"""Maps on the sky (north up, east to the left), 2-D spectra, and what is marked on them.

Maps end where the observation ends. What was observed and is not shown is hatched.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import Normal, Stroke

from msa3d.config import Dataset, Target
from msa3d.constants import LABELS, LINES
from msa3d.cubes.cube import Cube
from msa3d.cubes.psf import FWHM_PER_SIGMA
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.galaxy.disc import kpc_per_arcsec
from msa3d.galaxy.images import observed

EAST_LABEL = "\u0394\u03b1 cos \u03b4 (\u2033)"
NORTH_LABEL = "\u0394\u03b4 (\u2033)"
Place = tuple[float, float]
"""ICRS place of the origin of a map, deg."""
HALF_ARCSEC = 1.3
"""Maps of a galaxy reach so far from its centre, unless its slitlets end before."""
SNR_LEVELS = (3.0, 5.0, 10.0)


def target_of(dataset: Dataset, source_id: int | None) -> Target:
    """Return the target of an id, the case study without one."""
    return dataset.target(dataset.case_study if source_id is None else source_id)


def draw_map(axes: Axes, cube: Cube, image: np.ndarray, centre: Place, *, half: float = np.inf, **kwargs) -> QuadMesh:
    """Draw one value per spaxel, each spaxel with its true shape; observed spaxels without a value are hatched.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw; its limits become those of the observed spaxels.
    cube : Cube
        Whose spaxels they are.
    image : ndarray, shape (n_y, n_x)
        The values; NaN is left out.
    centre : tuple of float
        ICRS place of the origin, deg.
    half : float
        How far the map reaches from its origin at most, arcsec.
    **kwargs
        Passed on to `matplotlib.axes.Axes.pcolormesh`: ``cmap``, ``vmin``, ``vmax``.

    Returns
    -------
    matplotlib.collections.QuadMesh
        What a colour bar needs.
    """
    east, north = cube.offsets(*centre, corners=True)
    seen = observed(cube) | np.isfinite(image)
    cells = _cells(east, north)
    _hatch(axes, cells[seen & ~np.isfinite(image)])
    mesh = axes.pcolormesh(east, north, image, shading="flat", rasterized=True, zorder=1.5, **kwargs)
    axes.add_collection(
        LineCollection(_outline(np.stack([east, north], axis=-1), seen), colors=style.GREY, linewidths=0.5, zorder=1.8)
    )
    axes.set_aspect("equal")
    (right, left), (bottom, top) = _limits(cells[seen] if seen.any() else cells, half)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_facecolor("white")
    return mesh


def _cells(east: np.ndarray, north: np.ndarray) -> np.ndarray:
    """Corners of each spaxel, (n_y, n_x, 4, 2), from those of the grid."""
    corners = np.stack([east, north], axis=-1)
    return np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, 1:], corners[1:, :-1]], axis=2)


def _hatch(axes: Axes, cells: np.ndarray) -> None:
    """Hatch cells (n, 4, 2) lightly."""
    if not len(cells):
        return
    closed = np.concatenate([cells, cells[:, :1]], axis=1).reshape(-1, 2)
    codes = np.tile([Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY], len(cells))
    ground, lines = style.HATCH_COLOURS
    patch = PathPatch(Path(closed, codes), facecolor=ground, edgecolor=lines, linewidth=0.0, hatch="/////", zorder=1)
    axes.add_patch(patch)


def _outline(corners: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Edges between spaxels with data and those without, (n, 2, 2)."""
    wide = np.pad(seen, 1)
    upright = np.argwhere(wide[1:-1, 1:] != wide[1:-1, :-1])
    level = np.argwhere(wide[1:, 1:-1] != wide[:-1, 1:-1])
    segments = [(corners[j, i], corners[j + 1, i]) for j, i in upright]
    return np.array([*segments, *((corners[j, i], corners[j, i + 1]) for j, i in level)]).reshape(-1, 2, 2)


def _limits(cells: np.ndarray, half: float) -> np.ndarray:
    """Least and greatest offset of some cells, east and north, not beyond a distance; arcsec."""
    flat = cells.reshape(-1, 2)
    return np.clip(np.array([flat.min(axis=0), flat.max(axis=0)]), -half, half).T


def draw_contours(axes: Axes, cube: Cube, snr: np.ndarray, centre: Place, colour: str = style.BLACK) -> None:
    """Draw contours of signal to noise at `SNR_LEVELS`, the wider the higher, where the map reaches them."""
    if np.nanmax(snr, initial=0.0) > SNR_LEVELS[0]:
        east, north = cube.offsets(*centre)
        look = {"colors": colour, "linewidths": (0.6, 1.0, 1.5), "zorder": 2.5}
        axes.contour(east, north, np.nan_to_num(snr), levels=SNR_LEVELS, **look)


def map_shape(cube: Cube, centre: Place, half: float = np.inf) -> float:
    """Height of a map over its width."""
    cells, seen = _cells(*cube.offsets(*centre, corners=True)), observed(cube)
    (right, left), (bottom, top) = _limits(cells[seen] if seen.any() else cells, half)
    return float((top - bottom) / (left - right))


def map_table(cube: Cube, centre: Place, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of a map for `style.finish`: a row a spaxel in which any image has a value."""
    some = np.any([np.isfinite(image) for image in images.values()], axis=0)
    y, x = np.nonzero(some)
    east, north = (offset[some] for offset in cube.offsets(*centre))
    return {"x": x, "y": y, "east [arcsec]": east, "north [arcsec]": north} | {
        name: image[some] for name, image in images.items()
    }


def map_bar(figure: Figure, mesh: ScalarMappable, axes: Axes, label: str, extend: str = "neither") -> Colorbar:
    """Draw a colour bar as high as the map beside it; `extend` names the ends beyond which values lie."""
    high, wide = np.ptp(axes.get_ylim()), np.ptp(axes.get_xlim())
    bar = figure.colorbar(mesh, cax=axes.inset_axes([1.04, 0.0, 0.05 * max(1.0, high / wide), 1.0]), extend=extend)
    bar.ax.locator_params(nbins=5)
    bar.set_label(label)
    bar.ax.tick_params(direction="in", length=2)
    return bar


def draw_spectrum(axes: Axes, wave_um: np.ndarray, image: np.ndarray, offset_arcsec: np.ndarray, **kwargs) -> QuadMesh:
    """Draw a 2-D spectrum over its wavelengths, with the gap between the detectors left blank.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    wave_um : ndarray, shape (n_wave,)
        Wavelengths of the columns, um, increasing.
    image : ndarray, shape (n_rows, n_wave)
        The spectrum; NaN is left blank.
    offset_arcsec : ndarray, shape (n_rows,)
        Where its rows lie along the slit.
    **kwargs
        Passed on to `matplotlib.axes.Axes.pcolormesh`.

    Returns
    -------
    matplotlib.collections.QuadMesh
        What a colour bar needs.
    """
    steps = np.diff(wave_um)
    step = np.median(steps)
    before_gap = np.flatnonzero(steps > 3.0 * step)
    # A column of NaN from just behind the last pixel to just before the next one.
    wave = np.insert(wave_um, before_gap + 1, wave_um[before_gap] + step)
    filled = np.insert(image.astype(float), before_gap + 1, np.nan, axis=1)
    for number, index in enumerate(before_gap):
        wave = np.insert(wave, index + 2 + 2 * number, wave_um[index + 1] - step)
        filled = np.insert(filled, index + 2 + 2 * number, np.nan, axis=1)
    return axes.pcolormesh(pixel_edges(wave), pixel_edges(offset_arcsec), filled, rasterized=True, **kwargs)


def label_sky(axes: Axes, *, east: bool = True, north: bool = True) -> None:
    """Name the axes of a map; those of inner panels can be left bare."""
    axes.set_xlabel(EAST_LABEL if east else "")
    axes.set_ylabel(NORTH_LABEL if north else "")
    axes.tick_params(labelbottom=east, labelleft=north)


def pixel_edges(centres: np.ndarray) -> np.ndarray:
    """Return the edges of pixels, halfway between their centres, shape (n + 1,)."""
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


CORE = 0.03
"""Where the point-spread function is brighter than that, relative to its maximum, it is core."""


def psf_ellipse(cube: Cube, wave_um: float) -> tuple[float, float, float] | None:
    """Effective point-spread function of a cube as an ellipse on the sky.

    Parameters
    ----------
    cube : Cube
        The cube.
    wave_um : float
        Wavelength, um.

    Returns
    -------
    tuple of float, or None
        Full widths at half maximum (arcsec) of the Gaussian with the second moments of the core, long and short axis,
        and position angle of the long one (deg, from north through east); None where the cube does not say.
    """
    try:
        kernel = cube.psf(wave_um)
    except ProductError:
        return None
    half = kernel.shape[0] // 2
    place = np.stack([axis.ravel() - half for axis in np.indices(kernel.shape)[::-1]])
    # Of the core alone: the wings have no end, and hardly bear on the width at half maximum.
    weight = np.where(kernel >= CORE * kernel.max(), kernel, 0.0).ravel()
    moments = (place * weight) @ place.T / weight.sum()
    east, north = cube.offsets(*cube.wcs.wcs.crval)
    # How far one spaxel along x and along y leads to the east and to the north.
    turn = np.array([[a[0, 1] - a[0, 0], a[1, 0] - a[0, 0]] for a in (east, north)])
    values, vectors = np.linalg.eigh(turn @ moments @ turn.T)
    angle = float(np.degrees(np.arctan2(vectors[0, 1], vectors[1, 1])))
    return FWHM_PER_SIGMA * float(np.sqrt(values[1])), FWHM_PER_SIGMA * float(np.sqrt(values[0])), angle


def mark_map(axes: Axes, cube: Cube, redshift: float, *, compass: bool = False) -> None:
    """Put the scale bar and the point-spread function at Ha into the lower corners of a map.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        A panel that `draw_map` has drawn.
    cube : Cube
        Whose map it is.
    redshift : float
        Of the galaxy.
    compass : bool
        Draw arrows to the north and to the east, too.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wide, high = left - right, top - bottom
    letters = {"ha": "center", "zorder": 5, "path_effects": HALO}
    length = _round_length(0.35 * wide)
    middle, y = right + 0.05 * wide + 0.5 * length, bottom + 0.05 * high
    axes.plot([middle - length / 2, middle + length / 2], [y, y], color=style.BLACK, linewidth=1.8, zorder=5,
              path_effects=HALO, solid_capstyle="butt")  # fmt: skip
    told = f"{length:g}\u2033 = {length * kpc_per_arcsec(redshift):.1f} kpc"
    axes.text(right + 0.03 * wide, y + 0.035 * high, told, va="bottom", **{**letters, "ha": "right"})
    shape = psf_ellipse(cube, LINES["Ha"] * (1.0 + redshift))
    if shape is not None:
        # Matplotlib turns from +x (which is east, drawn to the left) towards +y (north).
        place = (left - 0.04 * wide - 0.5 * shape[0], bottom + 0.04 * high + 0.5 * shape[0])
        look = {"facecolor": style.GREY, "edgecolor": "white", "linewidth": 0.8, "zorder": 5}
        axes.add_patch(Ellipse(place, shape[0], shape[1], angle=90.0 - shape[2], **look))
    if compass:
        _compass(axes, right + 0.08 * wide, top - 0.30 * high, 0.2 * min(wide, high))


HALO = [Stroke(linewidth=2.0, foreground="white", alpha=0.85), Normal()]
"""A white rim, which keeps letters and lines on a map readable."""


def _round_length(most: float) -> float:
    """Return the largest of the usual lengths of a scale bar that is not over a limit, arcsec."""
    return max((a for a in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if a <= most), default=0.1)


def _compass(axes: Axes, x: float, y: float, arm: float) -> None:
    """Arrows to the north (up) and to the east (left, where offsets grow)."""
    look = {"arrowstyle": "-|>", "color": style.BLACK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    for name, tip, place, align in (
        ("N", (x, y + arm), (0, 1), {"ha": "center", "va": "bottom"}),
        ("E", (x + arm, y), (-1, 0), {"ha": "right", "va": "center"}),
    ):
        axes.annotate("", tip, (x, y), arrowprops={**look, "mutation_scale": 6}, zorder=5)
        axes.annotate(name, tip, place, textcoords="offset points", path_effects=HALO, zorder=5, **align)


ZOOMS = (("Hb", "[OIII]5007"), ("[NII]6548", "[SII]6731"))
"""First and last line of the stretches of a spectrum that are worth a panel of their own."""


def name_line(axes: Axes, line: str, redshift: float, *, rotation: float = 90.0, fontsize: float = 8.0) -> None:
    """Write the name of a line (key of `msa3d.constants.LINES`) above a panel over vacuum wavelength (um)."""
    axes.annotate(
        LABELS[line], (LINES[line] * (1.0 + redshift), 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
        textcoords="offset points", ha="center", va="bottom", fontsize=fontsize, rotation=rotation,
    )  # fmt: skip


def mark_spectrum(axes: Axes, limits: tuple[float, float], redshift: float, *, names: bool) -> None:
    """Label the axes of a spectrum (uJy against um); draw emission lines dotted, with their names if asked."""
    axes.set_xlim(*limits)
    axes.set_xlabel("vacuum wavelength (\u00b5m)")
    axes.set_ylabel("flux density (\u00b5Jy)")
    for line, rest in LINES.items():
        if limits[0] <= rest * (1.0 + redshift) <= limits[1]:
            axes.axvline(rest * (1.0 + redshift), color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
            if names:
                name_line(axes, line, redshift)
