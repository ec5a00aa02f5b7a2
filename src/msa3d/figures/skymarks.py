"""What a map needs to be read: scale bar in arcsec and kpc, the point-spread function, and a compass.

They stand on a blank strip below the spaxels, so that they cover none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

from msa3d.cube import Cube
from msa3d.errors import ProductError
from msa3d.figures import style

FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))
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
        Full widths at half maximum (arcsec) of the Gaussian with the second moments of its core, along its long and
        short axis, and the position angle of the long one (deg, from north through east); None where the cube does
        not tell.
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


def mark_map(
    axes: Axes,
    cube: Cube,
    *,
    kpc_per_arcsec: float = np.nan,
    wave_um: float | None = None,
    fontsize: float = 6.5,
    others: Sequence[Axes] = (),
) -> None:
    """Put scale bar, point-spread function and compass on a strip below a map.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        A panel that `sky.draw_map` has drawn: north up, east to the left.
    cube : Cube
        Whose map it is.
    kpc_per_arcsec : float
        Scale; without it the bar is in arcsec alone.
    wave_um : float, optional
        Wavelength of the point-spread function; none is drawn without it.
    fontsize : float
        Size of the letters, point.
    others : sequence of matplotlib.axes.Axes
        Panels of the same map that share its limits; all but the compass is drawn there as well.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    wide, high = left - right, top - bottom
    strip = STRIP * max(high, 0.75 * wide)
    shape = psf_ellipse(cube, wave_um) if wave_um is not None else None
    for panel in (axes, *others):
        panel.set_ylim(bottom - strip, top)
        _draw_marks(panel, (left, right, bottom, strip), shape, kpc_per_arcsec, fontsize, compass=panel is axes)


def _draw_marks(axes, box, shape, kpc_per_arcsec, fontsize, *, compass) -> None:
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
    kpc = f"{length * kpc_per_arcsec:.1f} kpc" if np.isfinite(kpc_per_arcsec) else ""
    axes.text(centre, y + 0.08 * strip, f'{length:g}"', va="bottom", **letters)
    axes.text(centre, y - 0.10 * strip, kpc, va="top", **letters)
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
