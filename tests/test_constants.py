"""Rest-frame wavelengths: one table for what is simulated and what is measured, and right."""

from __future__ import annotations

import pytest

from msa3d import constants
from msa3d.constants import C_KMS, LINES, OTHER_LINES
from msa3d_sim import spectrum

#: Wavelengths in air, angstrom (NIST Atomic Spectra Database; of Balmer lines the blend that is observed).
AIR = {
    "Hb": 4861.33, "[OIII]4959": 4958.911, "[OIII]5007": 5006.843, "[NII]6548": 6548.05, "Ha": 6562.81,
    "[NII]6583": 6583.45, "[SII]6716": 6716.440, "[SII]6731": 6730.815, "[OII]3726": 3726.032, "[OII]3729": 3728.815,
    "[NeIII]3869": 3868.76, "H8": 3889.064, "[NeIII]3967": 3967.47, "He": 3970.07, "Hd": 4101.74, "Hg": 4340.47,
    "[OIII]4363": 4363.21, "HeI5876": 5875.62, "[OI]6300": 6300.304,
}  # fmt: skip


def in_vacuum(air: float) -> float:
    """Morton (2000, ApJS 130, 403), equation 8, of standard air; angstrom."""
    square = (1e4 / air) ** 2
    return air * (1.0 + 8.06051e-5 + 2.480990e-2 / (132.274 - square) + 1.74557e-4 / (39.32957 - square))


@pytest.mark.parametrize("name", AIR)
def test_wavelengths_are_those_in_vacuum(name):
    """The components of a line of hydrogen or helium are weighted in more than one way."""
    vacuum_um = (LINES | OTHER_LINES)[name]
    # Of the last digit given in air.
    tolerance = 0.25 if name.startswith("[") else 1.0
    assert abs(vacuum_um / (in_vacuum(AIR[name]) * 1e-4) - 1.0) * C_KMS < tolerance


def test_every_line_has_been_compared():
    assert AIR.keys() == (LINES | OTHER_LINES).keys()


def test_what_is_simulated_is_what_is_measured():
    assert [species.rest_um for species in spectrum.LINES] == list(LINES.values())
    assert constants.LINES is LINES
    assert {species.name for species in spectrum.LINES} == set(spectrum.line_ratios_to_halpha(8.6))
