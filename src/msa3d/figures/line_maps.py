"""Figure: Ha flux and velocity of one galaxy, beside the truth when there is one."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.cube import Cube
from msa3d.dataset import Dataset
from msa3d.figures import style
from msa3d.figures.sky import draw_map, label_sky, map_bar, map_height
from msa3d.figures.slit_stepping import target_of
from msa3d.science.lines import LineMaps

FLUX_UNIT = 1e-17
FLUX_LABEL = "H$\\alpha$ surface brightness\n(10$^{-17}$ erg s$^{-1}$ cm$^{-2}$ arcsec$^{-2}$)"
VELOCITY_LABEL = "velocity (km/s)"


@style.house_style()
def plot(
    dataset: Dataset,
    cube: Cube,
    maps: LineMaps,
    *,
    truth: LineMaps | None = None,
    snr: float = 5.0,
    source_id: int | None = None,
) -> Figure:
    """Draw the maps of Ha flux and velocity.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    cube : Cube
        The cube that the maps were measured on.
    maps : LineMaps
        The measurement.
    truth : LineMaps, optional
        The same measured on a noiseless cube on the same spaxels.
    snr : float
        Velocities are shown where Ha is at least that significant.
    source_id : int, optional
        The source; the case study without it.

    Returns
    -------
    matplotlib.figure.Figure
        Flux above, velocity below; with a truth three columns: result, truth, difference.
    """
    target = target_of(dataset, source_id)
    shown = maps.reliable(snr)
    columns = 1 if truth is None else 3
    place = (cube, (target.ra, target.dec))
    height = map_height(*place, 1.5, least=1.6, most=2.9)
    figure = style.new_figure(style.FULL_WIDTH if columns > 1 else 3.4, 2 * height + 1.1, "compressed")
    grid = figure.subplots(2, columns, sharex=True, sharey=True, squeeze=False)
    flux = [maps.halpha / FLUX_UNIT]
    velocity = [np.where(shown, maps.velocity, np.nan)]
    if truth is not None:
        flux += [truth.halpha / FLUX_UNIT, (maps.halpha - truth.halpha) / FLUX_UNIT]
        velocity += [
            np.where(shown, truth.velocity, np.nan),
            np.where(shown, maps.velocity - truth.velocity, np.nan),
        ]
    _row(figure, list(grid[0]), place, flux, FLUX_LABEL, signed=False)
    _row(figure, list(grid[1]), place, velocity, VELOCITY_LABEL, signed=True)
    for index, axes in enumerate(grid[1]):
        label_sky(axes, north=index == 0)
    for axes in grid[0]:
        label_sky(axes, east=False, north=axes is grid[0][0])
    name = target.name or str(target.source_id)
    figure.suptitle(style.literal(name), fontsize=9)
    for letter, axes, title in zip("abc", grid[0], ("result", "truth", "result \u2212 truth"), strict=False):
        axes.set_title(f"{letter}  {title}")
    alt = (
        f"Maps of {name}: above the surface brightness of H-alpha, below the line-of-sight velocity where "
        f"H-alpha exceeds {snr:g} sigma, {_range(velocity[0])}."
        + (" Beside each the truth on the same spaxels and the difference." if truth is not None else "")
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


def _range(image: np.ndarray) -> str:
    """Say between which values most of a velocity map lies."""
    finite = image[np.isfinite(image)]
    if not finite.size:
        return "nowhere in this map"
    low, high = np.percentile(finite, [5, 95])
    return f"between {low:.0f} and {high:.0f} km/s in nine of ten spaxels"


def _row(figure: Figure, panels: list[Axes], place: tuple, images: list, label: str, *, signed: bool) -> None:
    """Draw result and truth on one scale, and the difference on a signed scale of its own."""
    cube, centre = place
    both = np.concatenate([image[np.isfinite(image)] for image in images[:2]])
    if signed:
        limit = style.symmetric_limit(both)
        scale = {"cmap": style.colour_map(style.SIGNED_MAP), "vmin": -limit, "vmax": limit}
    else:
        limits = style.percentile_limits(both, 1.0, 99.5)
        scale = {"cmap": style.colour_map(style.FLUX_MAP), "vmin": min(0.0, limits[0]), "vmax": limits[1]}
    for axes, image in zip(panels[:2], images[:2], strict=False):
        mesh = draw_map(axes, cube, image, centre, **scale)
        map_bar(figure, mesh, axes, label if axes is panels[len(images[:2]) - 1] else "")
    if len(images) == 3:
        limit = style.symmetric_limit(images[2])
        difference = {"cmap": style.colour_map(style.SIGNED_MAP), "vmin": -limit, "vmax": limit}
        mesh = draw_map(panels[2], cube, images[2], centre, **difference)
        map_bar(figure, mesh, panels[2], "difference (same unit)")
