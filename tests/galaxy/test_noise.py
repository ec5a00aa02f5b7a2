"""Errors from the cube itself: images of a line, and of the continuum, where there is noise alone."""

import numpy as np
import pytest

from msa3d.galaxy.fit import fit_lines
from msa3d.galaxy.noise import blank_images, continuum_image

from ..fixtures.cubes import REDSHIFT, SPREAD, add_lines, empty, wavelengths


def test_blank_images_have_the_noise_of_the_line():
    cube = empty(8, wavelengths(1.25, 1.45), sigma=0.05, seed=8)
    add_lines(cube, {"Ha": 5e-17}, 0.0, 40.0)
    given = {"velocity": np.zeros((8, 8)), "sigma": np.full((8, 8), 40.0), "spread": SPREAD}
    fit = fit_lines(cube, REDSHIFT, names=("Ha",), **given)
    blanks = blank_images(cube, REDSHIFT, fit, "Ha", spread=SPREAD, number=30)
    assert len(blanks) > 10
    assert (blanks / fit.flux_error["Ha"]).std() == pytest.approx(1.0, abs=0.1)
    assert abs(np.mean(blanks)) < 0.1 * np.mean(fit.flux_error["Ha"])


def test_continuum_image_and_its_noise():
    cube = empty(10, wavelengths(1.1, 1.2), sigma=0.1, seed=9)
    cube.data[...] += 0.3
    cube.data[:, 0, 0] = np.nan
    image, error, blanks = continuum_image(cube, 1.11, 1.19)
    assert np.isnan(image[0, 0])
    assert np.nanmean(image) == pytest.approx(0.3, abs=0.003)
    np.testing.assert_allclose(error[1:], 0.1 / np.sqrt(cube.between(1.11, 1.19).wave_um.size))
    assert np.nanstd(image) == pytest.approx(error[1, 1], rel=0.3)
    assert np.sqrt(np.nansum(blanks**2) / blanks.shape[0] / 99) == pytest.approx(error[1, 1], rel=0.1)
