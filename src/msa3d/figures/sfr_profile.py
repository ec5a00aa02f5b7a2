"""Figure: surface density of star formation against the stellar continuum, with their exponential discs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from msa3d.dataset import Dataset
from msa3d.figures import style
from msa3d.figures.slit_stepping import target_of
from msa3d.science.cosmology import kpc_per_arcsec


@dataclass(frozen=True)
class Profile:
    """A brightness in rings and the exponential disc fitted to it.

    Attributes
    ----------
    radius_arcsec, value, error : ndarray, shape (n,)
        Rings: radius in the plane of the disc, the quantity and 1 sigma. NaN is not drawn.
    scale_arcsec, scale_error : float
        Scale length of the disc.
    centre : float
        Value of the disc at radius 0, in the unit of `value`, before the point-spread function.
    injected_arcsec : float
        Scale length that was put in; NaN where there is none.
    """

    radius_arcsec: np.ndarray
    value: np.ndarray
    error: np.ndarray
    scale_arcsec: float
    scale_error: float
    centre: float
    injected_arcsec: float = np.nan


SFR_LABEL = "$\\Sigma_{\\mathrm{SFR}}$ (M$_\\odot$ yr$^{-1}$ kpc$^{-2}$)"


@style.house_style()
def plot(
    dataset: Dataset,
    star_formation: Profile,
    continuum: Profile,
    *,
    source_id: int | None = None,
    simulated: bool = True,
) -> Figure:
    """Draw both profiles on logarithmic scales that span the same factor, so that equal slopes look equal.

    Parameters
    ----------
    dataset : Dataset
        The observation.
    star_formation : Profile
        Msun/yr/kpc2 (free of attenuation or not, as the caller says).
    continuum : Profile
        Stellar continuum, MJy/sr.
    source_id : int, optional
        The source; the case study without it.
    simulated : bool
        Whether the data are from a simulation.

    Returns
    -------
    matplotlib.figure.Figure
        Left: the two profiles; right: each over its value at the centre.
    """
    target = target_of(dataset, source_id)
    scale = kpc_per_arcsec(target.redshift)
    figure = style.new_figure(style.FULL_WIDTH, 3.1)
    left, right = figure.subplots(1, 2)
    figure.get_layout_engine().set(wspace=0.08)
    other = left.twinx()
    rows = (
        (left, star_formation, style.VERMILION, "o", "H\u03b1 star formation", SFR_LABEL),
        (other, continuum, style.PURPLE, "s", "stellar continuum", "surface brightness (MJy/sr)"),
    )
    end = 1.1 * scale * max(p.radius_arcsec[np.isfinite(p.value)].max() for p in (star_formation, continuum))
    grid = np.linspace(0.0, end, 100)
    for axes, profile, colour, marker, name, label in rows:
        disc = np.exp(-grid / (profile.scale_arcsec * scale))
        radius = profile.radius_arcsec * scale
        look = {"color": colour, "fmt": marker, "markersize": 3, "elinewidth": 0.8}
        axes.errorbar(radius, profile.value, profile.error, **look)
        axes.plot(grid, profile.centre * disc, color=colour, linewidth=1.0)
        # Both scales span a factor of 120 round their own disc.
        axes.set_yscale("log")
        axes.set_ylim(profile.centre * 0.025, profile.centre * 3.0)
        axes.set_ylabel(label, color=colour)
        axes.tick_params(axis="y", colors=colour, which="both")
        told = f"{name}: h = {profile.scale_arcsec * scale:.2f} \u00b1 {profile.scale_error * scale:.2f} kpc"
        right.errorbar(radius, profile.value / profile.centre, profile.error / profile.centre, **look, label=told)
        right.plot(grid, disc, color=colour, linewidth=1.0)
        if np.isfinite(profile.injected_arcsec):
            true = profile.injected_arcsec * scale
            right.plot(
                grid,
                np.exp(-grid / true),
                color=colour,
                linestyle="--",
                linewidth=0.9,
                label=f"put in: h = {true:.2f} kpc",
            )
    left.tick_params(axis="y", which="both", right=False)
    other.tick_params(axis="y", which="both", left=False)
    right.set_yscale("log")
    right.set_ylim(0.025, 12.0)
    right.set_ylabel("over the centre of the disc")
    right.legend(loc="upper right", fontsize=6)
    for axes, title in ((left, "a  rings and discs"), (right, "b  the same, scaled")):
        axes.set_xlim(0.0, end)
        axes.set_xlabel("radius in the disc (kpc)")
        axes.set_title(title)
    name = target.name or str(target.source_id)
    figure.suptitle(style.literal(name), fontsize=9)
    alt = (
        f"Surface density of star formation and stellar continuum of {name} against radius: discs with scale "
        f"lengths of {star_formation.scale_arcsec * scale:.2f} and {continuum.scale_arcsec * scale:.2f} kpc."
    )
    return style.finish(figure, simulated=simulated, alt=alt)
