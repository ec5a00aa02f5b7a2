"""The point-spread function and the slit losses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from msa3d_sim import psf


def test_the_pupil_has_the_telescopes_area_and_wavefront_error():
    axis, amplitude, wavefront = psf.pupil()
    area = np.sum(amplitude**2) * (axis[1] - axis[0]) ** 2
    assert area == pytest.approx(25.4, rel=0.04)
    weight = amplitude**2 / np.sum(amplitude**2)
    assert np.sqrt(np.sum(weight * wavefront**2)) == pytest.approx(psf.WAVEFRONT_RMS_UM, rel=1e-6)


@pytest.mark.parametrize("wave", [1.0, 1.4, 1.85])
def test_the_core_is_as_wide_as_diffraction_says(wave):
    image = psf.psf_image(wave, 0.003, 121)
    width = 0.003 * 2 * np.sqrt((image > image.max() / 2).sum() / np.pi)
    assert width == pytest.approx(1.03 * wave * 1e-6 / psf.DIAMETER_M / psf.ARCSEC_RAD, rel=0.04)


@pytest.mark.parametrize("wave", [1.0, 1.4, 1.85])
@pytest.mark.parametrize("rotation", [0.0, 37.0])
def test_images_are_whole_positive_and_centred(wave, rotation):
    image = psf.psf_image(wave, 0.05, 101, rotation)
    assert image.shape == (101, 101)
    assert image.sum() == pytest.approx(1)
    assert image.min() >= 0
    assert np.array(center_of_mass(image)) == pytest.approx([50, 50], abs=0.02)  # 1 mas
    assert not image.flags.writeable


def test_a_coarse_image_is_the_binned_fine_one():
    fine = psf.psf_image(1.4, 0.01, 305)
    coarse = psf.psf_image(1.4, 0.05, 61)
    binned = fine.reshape(61, 5, 61, 5).sum(axis=(1, 3))
    assert coarse == pytest.approx(binned, abs=1e-12)


def test_rotation_goes_from_up_to_the_left():
    straight, turned = psf.psf_image(1.4, 0.05, 41), psf.psf_image(1.4, 0.05, 41, 90.0)
    # Row numbers grow upwards, so that numpy's clockwise turn is one from up to the left.
    assert turned == pytest.approx(np.rot90(straight, -1), abs=1e-12)


def test_an_even_size_has_no_middle():
    with pytest.raises(ValueError, match="odd"):
        psf.psf_image(1.4, 0.05, 100)


def test_point_transmission_is_the_light_in_the_open_area():
    passed = psf.point_transmission(1.4, np.array([0.0, 0.2]), np.array([0.0, 0.3, 1.0]), 3)
    image = psf.psf_image(1.4, 0.01, 601)
    offset = (np.arange(601) - 300) * 0.01

    def inside(position, width):
        """Covered part of every 0.01" cell of an opening that the source is `position` away from."""
        low, high = -width / 2 - position, width / 2 - position
        return np.clip(np.minimum(offset + 0.005, high) - np.maximum(offset - 0.005, low), 0, None) / 0.01

    for column, x in enumerate((0.0, 0.2)):
        for row, y in enumerate((0.0, 0.3, 1.0)):
            along = inside(x * psf.PITCH_ARCSEC[0], psf.OPEN_ARCSEC[0])
            across = sum(inside((y - k) * psf.PITCH_ARCSEC[1], psf.OPEN_ARCSEC[1]) for k in (-1, 0, 1))
            expected = across @ image @ along * psf.aperture_transmission(1.4, 3)
            assert passed[row, column] == pytest.approx(expected, rel=1e-6)
    assert psf.point_transmission(1.4, np.array([0.0]), np.array([0.0]), 1)[0, 0] > 0.7
    assert psf.point_transmission(1.4, np.array([3.0]), np.array([0.0]), 1)[0, 0] < 0.02


def test_diffraction_loss_grows_as_the_wavelength():
    """Wings of the slit's diffraction pattern: a loss in proportion to wave over width, none at zero."""
    loss = [1 - psf.aperture_transmission(wave, 3) for wave in (0.45, 0.9, 1.8)]
    assert loss[0] < 0.03
    assert loss[1] / loss[0] == pytest.approx(2, rel=0.1)
    assert loss[2] / loss[1] == pytest.approx(2, rel=0.1)
