"""How much light a simulated galaxy was given in each line, from the numbers that it was made with.

Star formation follows an exponential disc; metallicity and attenuation are linear in the radius; and the calibrations
by which line ratios were assigned are linear in the logarithms: every line is an exponential disc again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msa3d.galaxy.disc import kpc_per_arcsec, luminosity_distance_cm
from msa3d.galaxy.dust import CASE_B, curve
from msa3d.galaxy.metals import metallicity_calibration, star_formation_calibration

LINES_GIVEN = ("Ha", "Hb", "[NII]6583", "[OIII]5007")


def line_discs(truth: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Flux and scale length of the lines of a simulated galaxy, as its dust lets them out.

    Parameters
    ----------
    truth : mapping of str to float
        ``redshift``, ``sfr``, ``scale_line`` (arcsec), ``metallicity_centre``, ``metallicity_gradient`` (per kpc),
        ``av_centre``, ``av_gradient`` (per kpc), as `report.injected` has them.

    Returns
    -------
    dict of str to tuple of float
        By line: total flux (erg s-1 cm-2) and scale length in the plane (arcsec).
    """
    per_arcsec = kpc_per_arcsec(truth["redshift"])
    metals = np.array([truth["metallicity_centre"], truth["metallicity_gradient"] * per_arcsec])
    dust = np.array([truth["av_centre"], truth["av_gradient"] * per_arcsec])
    luminosity = np.log10(truth["sfr"]) + star_formation_calibration("KE12_Ha").log_luminosity
    intrinsic = luminosity - np.log10(4.0 * np.pi * luminosity_distance_cm(truth["redshift"]) ** 2)
    n2, o3n2 = (_backwards(name, metals) for name in ("PP04_N2", "PP04_O3N2"))
    balmer = np.array([-np.log10(CASE_B), 0.0])
    # log10 of the ratio to Ha before dust: its value in the middle, and its change per arcsec.
    ratios = {"Ha": np.zeros(2), "Hb": balmer, "[NII]6583": n2, "[OIII]5007": balmer + n2 + o3n2}
    found = {}
    for name in LINES_GIVEN:
        middle, slope = ratios[name] - 0.4 * curve(name) * dust
        rate = 1.0 / truth["scale_line"] - np.log(10.0) * slope
        found[name] = float(10.0 ** (intrinsic + middle) / (rate * truth["scale_line"]) ** 2), float(1.0 / rate)
    return found


def _backwards(name: str, metals: np.ndarray) -> np.ndarray:
    """Logarithm of a ratio, middle and slope, from the metallicity's, for a relation that is a straight line."""
    constant, slope = metallicity_calibration(name).coefficients
    return (metals - np.array([constant, 0.0])) / slope
