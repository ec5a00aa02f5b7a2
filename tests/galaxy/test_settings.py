"""The science part of a dataset: another line, dust law, calibration or ring is a word of YAML."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from msa3d.config import Dataset
from msa3d.errors import DatasetError
from msa3d.figures import galaxy as figures_galaxy
from msa3d.galaxy import dust, measure, metals, report
from msa3d.galaxy.lines import CURVES, SPECIES
from msa3d.galaxy.settings import Line, LineSpreadName, Metallicity, ScienceSettings

from ..fixtures.cubes import REDSHIFT
from ..fixtures.galaxies import GEOMETRY, noiseless, noisy


def test_the_choices_are_those_of_the_tables():
    fields = ScienceSettings.model_fields
    assert set(get_args(Line)) == set(SPECIES) == set(fields["lines"].default)
    assert set(get_args(Metallicity)) == set(metals.names())
    assert get_args(LineSpreadName) == CURVES
    assert set(get_args(fields["star_formation"].annotation)) == set(metals.names("star_formation"))
    assert set(get_args(fields["dust_law"].annotation)) == set(dust.LAWS)
    defaults = ScienceSettings()
    assert defaults.metallicity == metals.DEFAULT_METALLICITY and defaults.dust_law == dust.DEFAULT_LAW
    assert defaults.star_formation == metals.DEFAULT_STAR_FORMATION


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lines": ["Hb"]}, "Ha must be among them"),
        ({"lines": ["Ha", "Hg"]}, "lines"),
        ({"continuum_rest_um": [0.6, 0.5]}, "the first wavelength must be shorter"),
        ({"ring_arcsec": 0.5}, "three rings at least"),
        ({"dust_law": "CCM98"}, "CCM89"),
        ({"resolution": "slit"}, "it is called line_spread now"),
        ({"line_spread": "box"}, "pre-flight"),
        ({"dust": "CCM89"}, "did you mean 'dust_law'"),
    ],
)
def test_what_cannot_be_measured_is_told(change, told):
    with pytest.raises(DatasetError, match=told):
        Dataset.load("tiny").replaced(science=change)


@pytest.fixture(scope="module")
def cube():
    return noisy(noiseless(), 0.1, 5)


def measured(cube, **science):
    dataset = Dataset.load("tiny").replaced(science=science)
    place = replace(GEOMETRY, pa_deg=0.0)
    galaxy = measure.measure(cube, REDSHIFT, place, source_id=8512, sample=False, science=dataset.science)
    return dataset, galaxy, {row.quantity: row for row in report.rows(galaxy, dataset)}


def test_other_relations_and_lines(cube):
    _, _, before = measured(cube)
    chosen = {"dust_law": "SMC", "metallicity": "M13_N2", "star_formation": "K98_Ha", "ring_arcsec": 0.3}
    lines = ["Ha", "[NII]6583", "Hb"]
    dataset, galaxy, after = measured(cube, lines=lines, **chosen)
    # A_V from the same decrement is as steep as the law is flat between the two lines.
    steep = [dust.curve("Hb", law) - dust.curve("Ha", law) for law in ("CCM89", "SMC")]
    ratio = after["av_gradient"].recovered / before["av_gradient"].recovered
    assert ratio == pytest.approx(steep[0] / steep[1], rel=0.05)
    assert "SMC" in after["av_gradient"].note and "K98_Ha" in after["sfr"].note
    # The gradient goes with the slope of the calibration; the injected one is not in its scale.
    slope = [metals.metallicity_calibration(name).slope(-0.4) for name in ("PP04_N2", "M13_N2")]
    ratio = after["metallicity_gradient"].recovered / before["metallicity_gradient"].recovered
    assert ratio == pytest.approx(float(slope[1] / slope[0]), rel=0.05)
    assert np.isnan(after["metallicity_gradient"].pull) and np.isfinite(before["metallicity_gradient"].pull)
    assert after["metallicity_gradient_PP04_N2"].recovered == pytest.approx(
        before["metallicity_gradient"].recovered, abs=0.1 * before["metallicity_gradient"].error
    )
    assert set(galaxy.rings) <= set(lines) and not [name for name in after if "OIII" in name]
    np.testing.assert_allclose(np.diff(galaxy.rings["Ha"].low), 0.3)
    target = dataset.targets[0].model_copy(update={"ra": GEOMETRY.ra, "dec": GEOMETRY.dec, "redshift": REDSHIFT})
    figure = figures_galaxy.plot_metallicity(dataset.model_copy(update={"targets": [target]}), galaxy)
    assert f"{abs(galaxy.metallicity['M13_N2'].slope):.3f}" in figure.msa3d_caption
    told = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert not any("injected" in text for text in told)
