"""Lines: flux and unit."""

import numpy as np
import pytest

from msa3d import constants
from msa3d.galaxy import lines
from msa3d.galaxy.lines import to_line_flux


def test_line_flux_is_the_integral_over_frequency():
    # 1 MJy/sr over 1 GHz is 1e-17 W-ish by definition: 1e-17 erg/s/cm2/Hz/sr x 1e9 Hz.
    wave = 1.3812
    width_um = 1e9 * wave**2 / (constants.C_KMS * 1e9)
    flux = to_line_flux(np.array(width_um), wave)
    assert flux == pytest.approx(1e-17 * 1e9 / lines.SQUARE_ARCSEC_PER_SR, rel=1e-12)
