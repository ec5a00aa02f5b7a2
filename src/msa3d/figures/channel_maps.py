"""Figure: the channels of a cube across a line, continuum taken off, one plane of the cube a panel."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from msa3d.constants import C_KMS, LINES
from msa3d.cube import Cube
from msa3d.dataset import Dataset
from msa3d.errors import ProductError
from msa3d.figures import style
from msa3d.figures.sky import draw_map, label_sky, map_height
from msa3d.figures.skymarks import mark_map
from msa3d.figures.slit_stepping import target_of
from msa3d.science.cosmology import kpc_per_arcsec
from msa3d.science.spectra import observed

CONTINUUM_KMS = ((-2400.0, -1100.0), (1500.0, 2600.0))
"""Free of Ha and [N II], to either side."""


def line_planes(cube: Cube, wave_um: float, windows_kms=CONTINUUM_KMS) -> tuple[np.ndarray, np.ndarray]:
    """Planes around a line with a straight continuum taken off.

    Parameters
    ----------
    cube : Cube
        The cube.
    wave_um : float
        Where the line lies, as observed, um.
    windows_kms : sequence of pairs
        Where there is continuum only, km/s from the line.

    Returns
    -------
    velocity : ndarray, shape (n,)
        Of the planes between the two windows, km/s.
    planes : ndarray, shape (n, n_y, n_x)
        MJy/sr; NaN where nothing was observed or the continuum is not known.

    Raises
    ------
    msa3d.errors.ProductError
        If the cube does not cover both windows.
    """
    velocity = (cube.wave_um / wave_um - 1.0) * C_KMS
    sides = [np.flatnonzero((velocity >= low) & (velocity <= high)) for low, high in windows_kms]
    if min(side.size for side in sides) < 3:
        raise ProductError(
            f"{cube.name} does not cover the continuum on both sides of {wave_um:.4f} um; check redshift"
        )
    level = []
    for side in sides:
        part = cube.data[side]
        known = np.isfinite(part) & (part != 0)
        enough = known.mean(axis=0) > 0.5
        # Medians are not moved by a cosmic ray; spaxels without data stay NaN without a warning of numpy's.
        filled = np.where(known, part, np.nan)
        filled[:, ~enough] = 0.0
        level.append(np.where(enough, np.nanmedian(filled, axis=0), np.nan))
    at = [float(velocity[side].mean()) for side in sides]
    inside = (velocity > windows_kms[0][1]) & (velocity < windows_kms[1][0])
    share = ((velocity[inside] - at[0]) / (at[1] - at[0]))[:, None, None]
    continuum = level[0] + share * (level[1] - level[0])
    return velocity[inside], np.where(observed(cube), cube.data[inside] - continuum, np.nan)


@style.house_style()
def plot(
    dataset: Dataset,
    cube: Cube,
    *,
    line: str = "Ha",
    channels: int = 12,
    source_id: int | None = None,
) -> Figure:
    """Draw the planes of a cube that lie nearest to a line.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    cube : Cube
        The cube.
    line : str
        Key of `lines.LINES`.
    channels : int
        How many planes.
    source_id : int, optional
        The source; the case study without it.

    Returns
    -------
    matplotlib.figure.Figure
        Four panels a row, all on one scale, from approaching to receding.

    Raises
    ------
    msa3d.errors.ProductError
        If the cube does not cover the line.
    """
    target = target_of(dataset, source_id)
    wave = LINES[line] * (1.0 + target.redshift)
    velocity, planes = line_planes(cube, wave)
    nearest = np.sort(np.argsort(np.abs(velocity))[:channels])
    velocity, planes = velocity[nearest], planes[nearest]
    centre = (target.ra, target.dec)
    columns, width = 4, 1.5
    rows = int(np.ceil(velocity.size / columns))
    height = map_height(cube, centre, width, least=1.1, most=2.6)
    figure = style.new_figure(style.FULL_WIDTH, rows * (height + 0.15) + 1.0, "compressed")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    finite = planes[np.isfinite(planes)]
    limit = float(np.percentile(finite, 99.7)) if finite.size else 1.0
    floor = -0.25 * limit
    panels = grid.ravel()
    for index, axes in enumerate(panels):
        if index >= velocity.size:
            axes.set_axis_off()
            continue
        scale = {"cmap": style.colour_map(style.FLUX_MAP), "vmin": floor, "vmax": limit}
        mesh = draw_map(axes, cube, planes[index], centre, **scale)
        below = index + columns >= velocity.size
        label_sky(axes, east=below, north=index % columns == 0)
        axes.set_title(f"{velocity[index]:+.0f} km/s".replace("-", "\u2212"))
    scale, others = kpc_per_arcsec(target.redshift), list(panels[1 : velocity.size])
    mark_map(panels[0], cube, kpc_per_arcsec=scale, wave_um=wave, fontsize=5.5, others=others)
    style.colour_bar(
        figure, mesh, list(panels), f"{_NAMES.get(line, line)} less continuum (MJy/sr)", fraction=0.03, extend="both"
    )
    name = target.name or str(target.source_id)
    step = float(np.median(np.diff(velocity)))
    figure.suptitle(f"{style.literal(name)}, channels of {step:.0f} km/s around {_NAMES.get(line, line)}", fontsize=9)
    alt = (
        f"{velocity.size} maps of {name}, one for each plane of the cube from {velocity[0]:.0f} to "
        f"{velocity[-1]:.0f} km/s around {line}, continuum taken off: the bright side of the disc moves across "
        "the galaxy from one plane to the next."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


_NAMES = {"Ha": "H\u03b1", "Hb": "H\u03b2", "[OIII]5007": "[O III] 5007"}
