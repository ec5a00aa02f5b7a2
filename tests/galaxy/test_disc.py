"""Discs: where places lie in the plane, and how fast they recede."""

from __future__ import annotations

import astropy.units as u
import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM

from msa3d.galaxy.disc import Disc, kpc_per_arcsec, luminosity_distance_cm


def test_the_receding_half_lies_at_the_position_angle():
    disc = Disc(pa_deg=30.0, inclination_deg=40.0, v_sin_i=100.0, r_turn=0.2, systemic=5.0)
    east, north = np.sin(np.radians(30.0)), np.cos(np.radians(30.0))
    fast = 100.0 * 2 / np.pi * np.arctan(1.0 / 0.2)
    assert disc.velocity(east, north) == pytest.approx(5.0 + fast)
    assert disc.velocity(-east, -north) == pytest.approx(5.0 - fast)
    assert disc.velocity(north, -east) == pytest.approx(5.0)


def test_a_freeman_disc_peaks_at_2_15_scale_lengths_and_then_falls_like_a_point_mass():
    disc = Disc(0.0, 0.0, 80.0, 0.4, curve="freeman")
    radius = np.linspace(0.0, 4.0, 4001)
    speed = disc.rotation(radius)
    assert speed.max() == pytest.approx(80.0, rel=1e-6)
    assert radius[speed.argmax()] / 0.4 == pytest.approx(2.15, abs=0.01)
    assert speed[0] == 0.0
    # Far out all the mass acts as a point: Freeman (1970), with M = 2 pi h^2 Sigma.
    far = 40.0
    kepler = 80.0 / 0.43991215 / 2.0 * np.sqrt(0.4 * 2.0 / far)
    assert disc.rotation(far) == pytest.approx(kepler, rel=2e-3)


def test_the_centre_moves_the_field():
    moved = Disc(10.0, 30.0, 50.0, 0.1, x0=0.2, y0=-0.1)
    still = Disc(10.0, 30.0, 50.0, 0.1)
    assert moved.velocity(0.5, 0.4) == pytest.approx(still.velocity(0.3, 0.5))


@pytest.mark.parametrize("wrong", [{"curve": "flat"}, {"inclination_deg": 90.0}])
def test_what_is_no_disc_is_refused(wrong):
    with pytest.raises(ValueError, match=r"rotation curve|inclination"):
        Disc(**({"pa_deg": 0.0, "inclination_deg": 10.0, "v_sin_i": 1.0, "r_turn": 1.0} | wrong))


def test_distances_are_those_of_astropy():
    other = FlatLambdaCDM(H0=67.0, Om0=0.32)
    assert luminosity_distance_cm(1.0, other) == pytest.approx(other.luminosity_distance(1.0).to_value(u.cm))
    # Etherington: d_L = (1 + z)^2 d_A.
    angular = kpc_per_arcsec(1.0) * 206264.806 * 3.0856776e21
    assert luminosity_distance_cm(1.0) == pytest.approx(4.0 * angular, rel=1e-6)
