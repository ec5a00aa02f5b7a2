"""Constants that several rooms use.

The speed of light and the emission lines: one table for the simulation, the analysis and the figures.
"""

from __future__ import annotations

C_KMS = 299_792.458
"""Speed of light, km/s (exact)."""

LINES = {
    "Hb": 0.48626830,
    "[OIII]4959": 0.49602950,
    "[OIII]5007": 0.50082400,
    "[NII]6548": 0.65498588,
    "Ha": 0.65646140,
    "[NII]6583": 0.65852696,
    "[SII]6716": 0.67182940,
    "[SII]6731": 0.67326740,
}
"""Rest-frame vacuum wavelengths of the lines that are simulated and measured, um (NIST Atomic Spectra Database; Balmer
lines as the mean over their fine structure)."""

OTHER_LINES = {
    "[OII]3726": 0.37270920,
    "[OII]3729": 0.37298750,
    "[NeIII]3869": 0.38698568,
    "H8": 0.38901660,
    "[NeIII]3967": 0.39685900,
    "He": 0.39712020,
    "Hd": 0.41028990,
    "Hg": 0.43416920,
    "[OIII]4363": 0.43644360,
    "HeI5876": 0.58772520,
    "[OI]6300": 0.63020460,
}
"""The same of lines that are kept out of the continuum only."""

LABELS = {
    "Hb": "H\u03b2",
    "[OIII]4959": "[O III] 4959",
    "[OIII]5007": "[O III] 5007",
    "[NII]6548": "[N II] 6548",
    "Ha": "H\u03b1",
    "[NII]6583": "[N II] 6583",
    "[SII]6716": "[S II] 6716",
    "[SII]6731": "[S II] 6731",
}
"""How the lines are written in figures (wavelengths in air, angstrom, as is the custom)."""
