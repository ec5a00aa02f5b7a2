"""Figure: the spectrum of a whole galaxy, its lines named."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msa3d.constants import LINES
from msa3d.cube import Cube, cube_path, open_cube
from msa3d.dataset import Dataset
from msa3d.figures import style
from msa3d.figures.linemarks import ZOOMS, mark_spectrum
from msa3d.figures.slit_stepping import target_of
from msa3d.layout import Layout
from msa3d.science.spectra import integrated_spectrum


@style.house_style()
def plot(
    layout: Layout,
    dataset: Dataset,
    source_id: int | None = None,
    *,
    radius_arcsec: float = 0.8,
    truth: Cube | None = None,
) -> Figure:
    """Draw the spectrum of a circular aperture, whole and around the lines.

    Parameters
    ----------
    layout : Layout
        Where the products are.
    dataset : Dataset
        The observation.
    source_id : int, optional
        The source; the case study without it.
    radius_arcsec : float
        Radius of the aperture round the target's place.
    truth : Cube, optional
        A noiseless cube on the same spaxels; its spectrum is drawn over the result.

    Returns
    -------
    matplotlib.figure.Figure
        Above the whole spectrum, below the neighbourhoods of Hb and Ha.

    Raises
    ------
    ProductError
        If there is no cube.
    """
    target = target_of(dataset, source_id)
    cube = open_cube(cube_path(layout, dataset, target.source_id))
    spectrum = integrated_spectrum(cube, target.ra, target.dec, radius_arcsec)
    curves = [(spectrum.wave_um, spectrum.flux_ujy, style.BLUE, "cube")]
    if truth is not None:
        true = integrated_spectrum(truth, target.ra, target.dec, radius_arcsec)
        scale = spectrum.n_spaxels / true.n_spaxels
        curves.append((true.wave_um, true.flux_ujy * scale, style.ORANGE, "truth, no sky"))
    figure = style.new_figure(style.FULL_WIDTH, 4.4)
    grid = figure.subplot_mosaic([["whole", "whole"], ["blue", "red"]])
    whole = grid["whole"]
    _draw(whole, curves, (cube.wave_um[0], cube.wave_um[-1]), target.redshift, names=False)
    name = target.name or str(target.source_id)
    whole.set_title(f'a  {style.literal(name)}, within {radius_arcsec:g}" ({spectrum.n_spaxels} spaxels)')
    if truth is not None:
        whole.legend(loc="upper left", ncols=2)
    for letter, key, (first, last) in zip("bc", ("blue", "red"), ZOOMS, strict=True):
        low, high = (LINES[n] * (1 + target.redshift) for n in (first, last))
        margin = 0.35 * (high - low) + 0.004
        _draw(grid[key], curves, (low - margin, high + margin), target.redshift, names=True)
        grid[key].set_title(letter)
    alt = (
        f"Spectrum of {name} within {radius_arcsec:g} arcsec from {cube.wave_um[0]:.2f} to "
        f"{cube.wave_um[-1]:.2f} micrometre: continuum and emission lines. Two enlarged panels name H-beta "
        "and [O III], and H-alpha with [N II] and [S II]."
    )
    return style.finish(figure, simulated=cube.simulated, alt=alt)


def _draw(axes: Axes, curves: list, limits: tuple[float, float], redshift: float, *, names: bool) -> None:
    """Draw curves over a range with the lines marked, and named when asked."""
    shown = []
    for wave, flux, colour, label in curves:
        inside = (wave >= limits[0]) & (wave <= limits[1])
        below = label.startswith("truth")
        look = {"linewidth": 2.4, "alpha": 0.6, "zorder": 2} if below else {"linewidth": 0.8, "zorder": 3}
        axes.step(wave[inside], flux[inside], where="mid", color=colour, label=label, **look)
        shown.append(flux[inside])
    values = np.concatenate(shown) if shown else np.array([])
    values = values[np.isfinite(values)]
    if values.size:
        low, high = np.percentile(values, [0.5, 100.0 if names else 99.95])
        axes.set_ylim(min(0.0, low) - 0.02 * (high - low), high + 0.12 * (high - low))
    mark_spectrum(axes, limits, redshift, names=names)
