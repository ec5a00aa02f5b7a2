"""Emission lines marked and named along the wavelength axis of a spectrum."""

from __future__ import annotations

from matplotlib.axes import Axes

from msa3d.constants import LABELS, LINES
from msa3d.figures import style

ZOOMS = (("Hb", "[OIII]5007"), ("[NII]6548", "[SII]6731"))
"""First and last line of the stretches of a spectrum that are worth a panel of their own."""


def name_line(axes: Axes, line: str, redshift: float, *, rotation: float = 90.0, fontsize: float = 6.5) -> None:
    """Write the name of a line above a panel, where it falls.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Panel with a vacuum wavelength axis, um.
    line : str
        Key of `msa3d.science.lines.LINES`.
    redshift : float
        Of the galaxy.
    rotation : float
        Of the text, deg.
    fontsize : float
        Of the text, points.
    """
    axes.annotate(
        LABELS[line], (LINES[line] * (1.0 + redshift), 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
        textcoords="offset points", ha="center", va="bottom", fontsize=fontsize, rotation=rotation,
    )  # fmt: skip


def mark_spectrum(axes: Axes, limits: tuple[float, float], redshift: float, *, names: bool) -> None:
    """Label the axes of a spectrum, and draw a dotted line where each emission line falls.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Panel of flux density in microjansky against vacuum wavelength in um.
    limits : tuple of float
        Wavelengths shown, um.
    redshift : float
        Of the galaxy.
    names : bool
        Whether the lines are named above the panel.
    """
    axes.set_xlim(*limits)
    axes.set_xlabel("vacuum wavelength (\u00b5m)")
    axes.set_ylabel("flux density (\u00b5Jy)")
    for line, rest in LINES.items():
        if limits[0] <= rest * (1.0 + redshift) <= limits[1]:
            axes.axvline(rest * (1.0 + redshift), color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
            if names:
                name_line(axes, line, redshift)
