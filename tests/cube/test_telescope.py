"""The telescope's image: all the light, the right core, and wings as the length of the pupil's edges has them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from msa3d.cube.sky import ARCSEC_PER_RADIAN
from msa3d.cube.telescope import telescope_image

SCALE = 0.02


def encircled(image: np.ndarray, radius: float) -> float:
    offset = (np.arange(len(image)) - (len(image) - 1) / 2) * SCALE
    return float(image[np.hypot(offset[:, None], offset[None, :]) <= radius].sum())


def test_nearly_all_light_is_near():
    image = telescope_image(301, 1.4, SCALE)
    assert 0.98 < image.sum() < 1.0
    assert image.argmax() == image.size // 2
    assert_allclose(image, image.T, rtol=1e-10)
    assert_allclose(image, image[::-1], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("wave", [1.0, 1.4, 1.8])
def test_the_core_is_as_wide_as_diffraction(wave: float):
    image = telescope_image(41, wave, SCALE)
    cut = image[20] / image[20, 20]
    outer = int(np.argmax(cut[20:] < 0.5)) + 20
    half = outer - 20 - (0.5 - cut[outer]) / (cut[outer - 1] - cut[outer])
    # A ring of obscuration 0.52 has a core 0.93 as wide as a full circle of the same diameter.
    expected = 0.95 * wave * 1e-6 / 6.5 * ARCSEC_PER_RADIAN
    assert_allclose(2.0 * half * SCALE, expected, rtol=0.12)


def test_the_wings_hold_what_the_edges_of_the_pupil_say():
    image = telescope_image(601, 1.4, SCALE)
    radius = 1.5
    angle = radius / ARCSEC_PER_RADIAN
    strehl = np.exp(-((2 * np.pi * 0.065 / 1.4) ** 2))
    edges = strehl * 4 / (6.5 * 0.48) + (1 - strehl) * 4 / 1.39
    outside = 1.4e-6 * edges / (2 * np.pi**2 * angle)
    assert_allclose(1.0 - encircled(image, radius), outside, rtol=0.08)
