"""The calculator of the multiplex gain."""

from dataclasses import fields

import pytest

from msa3d.observation.multiplex import ORIGINS, PUBLISHED_GAIN, Inputs, compare, published_gain_needs

FREE = {
    "exposure_overhead_s": 0.0, "specification_s": 0.0, "acquisition_s": 0.0, "configuration_s": 0.0, "slew_s": 0.0,
    "ifs_leakage_exposures": 0.0,
}  # fmt: skip


def test_without_overheads_the_gain_is_targets_over_steps():
    result = compare(noise_penalty=1.0, **FREE)
    assert result.gain == pytest.approx(43 / 9)
    assert result.slit_stepping_s == 63 * 1200.0


def test_factors_multiply_to_the_gain():
    result = compare(throughput_ratio=0.8)
    product = 1.0
    for factor in result.factors.values():
        product *= factor
    assert product == pytest.approx(result.gain)
    assert result.factors["throughput"] == pytest.approx(1.5625)


def test_the_published_gain_needs_a_less_efficient_unit():
    """More than 15 is not reached with equal throughput; it is where the unit passes four fifths of the light."""
    assert compare().gain == pytest.approx(10.54, abs=0.01)
    assert compare(throughput_ratio=0.8).gain > 15.0


@pytest.mark.parametrize("inputs", [None, Inputs(targets=30, noise_penalty=3.0, exposure_s=600.0)])
def test_what_the_published_gain_needs_gives_it(inputs):
    needed = published_gain_needs(inputs)
    assert compare(inputs, throughput_ratio=needed["throughput_ratio"]).gain == pytest.approx(PUBLISHED_GAIN)
    even = {"throughput_ratio": 1.0}
    assert compare(inputs, noise_penalty=needed["noise_penalty"], **even).gain == pytest.approx(PUBLISHED_GAIN)
    assert needed["gain"] == pytest.approx(compare(inputs, **even).gain)
    assert needed["gain_background"] < needed["gain"]


def test_each_default_has_an_origin():
    assert {field.name for field in fields(Inputs)} == set(ORIGINS)
    assert all(ORIGINS.values())


@pytest.mark.parametrize("name", ["targets", "steps", "exposure_s", "throughput_ratio"])
def test_impossible_inputs_are_refused(name):
    with pytest.raises(ValueError, match=name):
        compare(**{name: 0})
