"""Maps on the sky (north up, east to the left), 2-D spectra, and what is marked on them.

Scale bar, point-spread function and compass stand on a blank strip below the spaxels, so that they cover none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from msa3d.config import Dataset, Target
from msa3d.constants import LABELS, LINES
from msa3d.cubes.cube import Cube
from msa3d.cubes.psf import FWHM_PER_SIGMA
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.galaxy.disc import kpc_per_arcsec

EAST_LABEL = "east (arcsec)"
NORTH_LABEL = "north (arcsec)"


def target_of(dataset: Dataset, source_id: int | None) -> Target:
    """Return the target of an id, the case study without one."""
    return dataset.target(dataset.case_study if source_id is None else source_id)


def draw_map(axes: Axes, cube: Cube, image: np.ndarray, centre: tuple[float, float], **kwargs) -> QuadMesh:
    """Draw one value per spaxel, each spaxel with its true shape.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    cube : Cube
        Whose spaxels they are.
    image : ndarray, shape (n_y, n_x)
        The values; NaN is left out.
    centre : tuple of float
        ICRS place of the origin, deg.
    **kwargs
        Passed on to `matplotlib.axes.Axes.pcolormesh`: ``cmap``, ``vmin``, ``vmax``.

    Returns
    -------
    matplotlib.collections.QuadMesh
        What a colour bar needs.
    """
    east, north = cube.offsets(*centre, corners=True)
    mesh = axes.pcolormesh(east, north, image, shading="flat", rasterized=True, **kwargs)
    axes.set_aspect("equal")
    pad = 0.1
    axes.set_xlim(np.nanmax(east) + pad, np.nanmin(east) - pad)
    axes.set_ylim(np.nanmin(north) - pad, np.nanmax(north) + pad)
    axes.set_facecolor("white")
    return mesh


def map_height(cube: Cube, centre: tuple[float, float], panel_width: float, *, least: float, most: float) -> float:
    """Return how high a panel of a given width must be for a map, within limits; inch."""
    east, north = cube.offsets(*centre, corners=True)
    return float(np.clip(panel_width * np.ptp(north) / np.ptp(east), least, most))


def map_bar(figure: Figure, mesh: ScalarMappable, axes: Axes, label: str, extend: str = "neither") -> Colorbar:
    """Draw a colour bar as high as the map beside it; `extend` names the ends beyond which values lie."""
    high, wide = np.ptp(axes.get_ylim()), np.ptp(axes.get_xlim())
    bar = figure.colorbar(mesh, cax=axes.inset_axes([1.04, 0.0, 0.05 * max(1.0, high / wide), 1.0]), extend=extend)
    bar.set_label(label)
    bar.ax.tick_params(direction="in", length=2)
    return bar


def draw_spectrum(axes: Axes, wave_um: np.ndarray, image: np.ndarray, **kwargs) -> QuadMesh:
    """Draw a 2-D spectrum over its wavelengths, with the gap between the detectors left blank.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    wave_um : ndarray, shape (n_wave,)
        Wavelengths of the columns, um, increasing.
    image : ndarray, shape (n_rows, n_wave)
        The spectrum; NaN is left blank.
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
    rows = np.arange(image.shape[0] + 1) - 0.5
    return axes.pcolormesh(pixel_edges(wave), rows, filled, rasterized=True, **kwargs)


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
STRIP = 0.26
"""Height of the strip, as a fraction of the height of the map."""


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


def mark_map(axes: Axes, cube: Cube, redshift: float, *, fontsize: float = 6.5, others: Sequence[Axes] = ()) -> None:
    """Put scale bar, point-spread function at Ha and compass on a strip below a map.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        A panel that `draw_map` has drawn.
    cube : Cube
        Whose map it is.
    redshift : float
        Of the galaxy.
    fontsize : float
        Size of the letters, point.
    others : sequence of matplotlib.axes.Axes
        Panels of the same map that share its limits; all but the compass is drawn there as well.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wide, high = left - right, top - bottom
    strip = STRIP * max(high, 0.75 * wide)
    shape = psf_ellipse(cube, LINES["Ha"] * (1.0 + redshift))
    kpc = kpc_per_arcsec(redshift)
    for panel in (axes, *others):
        panel.set_ylim(bottom - strip, top)
        _draw_marks(panel, (left, right, bottom, strip), shape, kpc, fontsize, compass=panel is axes)


def _draw_marks(axes, box, shape, kpc, fontsize, *, compass) -> None:
    """Draw the marks of one panel on the strip below the height `bottom`."""
    left, right, bottom, strip = box
    wide = left - right
    # A zoomed map may have grey spaxels here.
    axes.axhspan(bottom - strip, bottom, facecolor="white", edgecolor="none", zorder=2)
    axes.axhline(bottom, color=style.GREY, linewidth=0.4)
    letters = {"fontsize": fontsize, "ha": "center", "color": style.BLACK, "zorder": 5}
    length = _round_length(0.35 * wide)
    centre = 0.5 * (left + right)
    y = bottom - 0.40 * strip
    axes.plot([centre - length / 2, centre + length / 2], [y, y], color=style.BLACK, linewidth=1.6, zorder=5)
    axes.text(centre, y + 0.08 * strip, f'{length:g}"', va="bottom", **letters)
    axes.text(centre, y - 0.10 * strip, f"{length * kpc:.1f} kpc", va="top", **letters)
    if shape is not None:
        # Matplotlib turns from +x (which is east, drawn to the left) towards +y (north).
        place = (left - 0.13 * wide, bottom - 0.36 * strip)
        axes.add_patch(
            Ellipse(place, shape[0], shape[1], angle=90.0 - shape[2], facecolor=style.GREY, edgecolor="none", zorder=5)
        )
        axes.text(place[0], bottom - 0.86 * strip, "PSF", va="bottom", **letters)
    if compass:
        _compass(axes, right + 0.10 * wide, bottom - 0.74 * strip, 0.36 * strip, letters)


def _round_length(most: float) -> float:
    """Return the largest of the usual lengths of a scale bar that is not over a limit, arcsec."""
    return max((a for a in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0) if a <= most), default=0.1)


def _compass(axes: Axes, x: float, y: float, arm: float, letters: dict) -> None:
    """Arrows to the north (up) and to the east (left, where offsets grow)."""
    look = {
        "arrowstyle": "-|>",
        "color": style.BLACK,
        "linewidth": 0.7,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 5,
    }
    for name, tip, place, align in (
        ("N", (x, y + arm), (0, 1), {"ha": "center", "va": "bottom"}),
        ("E", (x + arm, y), (-1, 0), {"ha": "right", "va": "center"}),
    ):
        axes.annotate("", tip, (x, y), arrowprops=look, zorder=5)
        axes.annotate(name, tip, place, textcoords="offset points", **{**letters, **align})


ZOOMS = (("Hb", "[OIII]5007"), ("[NII]6548", "[SII]6731"))
"""First and last line of the stretches of a spectrum that are worth a panel of their own."""


def name_line(axes: Axes, line: str, redshift: float, *, rotation: float = 90.0, fontsize: float = 6.5) -> None:
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
