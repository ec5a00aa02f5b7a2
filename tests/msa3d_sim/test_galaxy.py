"""The intrinsic maps of simulated galaxies hold the numbers that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import trapezoid

from msa3d.config import SimulatedSource
from msa3d_sim import spectrum
from msa3d_sim.galaxy import RE_OVER_SCALE_LENGTH, DiscGalaxy, TangentGrid

SEED = 2136
FINE = TangentGrid(150.0, 2.0, 0.02, 260)


def source(**changes) -> SimulatedSource:
    settings = {
        "source_id": 8512,
        "ra": 150.0,
        "dec": 2.0,
        "redshift": 1.104,
        "re_arcsec": 0.35,
        "inclination_deg": 0.0,
        "av_centre": 0.0,
        "av_gradient_mag_kpc": 0.0,
        "metallicity_centre": 8.6,
    }
    return SimulatedSource(**(settings | changes))


def on_polar_grid(galaxy, which):
    """Structure on radii and azimuths that are not the nodes of the internal table."""
    radius = np.linspace(0.01, 4.0, 97)[:, None] * galaxy.stellar_scale_arcsec
    azimuth = (np.arange(2880) + 0.3) * 2.0 * np.pi / 2880
    radius, azimuth = np.broadcast_arrays(radius, azimuth[None, :])
    return galaxy.structure(which, radius, azimuth)


@pytest.mark.parametrize("morphology", ["spiral", "clumps", "smooth"])
@pytest.mark.parametrize("which", ["stars", "sfr"])
def test_structure_has_unit_azimuthal_mean_at_every_radius(morphology, which):
    values = on_polar_grid(DiscGalaxy(source(morphology=morphology), SEED), which)
    np.testing.assert_allclose(values.mean(axis=1), 1.0, atol=1e-6)
    assert values.min() > 0.0


def test_spirals_and_clumps_have_structure_and_smooth_discs_none():
    contrast = {
        kind: on_polar_grid(DiscGalaxy(source(morphology=kind), SEED), "sfr")[30:].std()
        for kind in ("spiral", "clumps", "smooth")
    }
    assert contrast["spiral"] > 0.5
    assert contrast["clumps"] > 0.2
    assert contrast["smooth"] == 0.0


def test_structure_depends_on_seed_and_source_and_on_nothing_else():
    first = on_polar_grid(DiscGalaxy(source(), SEED), "sfr")
    np.testing.assert_array_equal(first, on_polar_grid(DiscGalaxy(source(sfr_msun_yr=9.0), SEED), "sfr"))
    assert np.abs(first - on_polar_grid(DiscGalaxy(source(), SEED + 1), "sfr")).max() > 0.5
    assert np.abs(first - on_polar_grid(DiscGalaxy(source(source_id=7), SEED), "sfr")).max() > 0.5


@pytest.mark.parametrize("morphology", ["spiral", "smooth"])
@pytest.mark.parametrize("inclination", [0.0, 55.0])
def test_halpha_of_the_whole_galaxy_is_that_of_its_star_formation(morphology, inclination):
    galaxy = DiscGalaxy(source(morphology=morphology, inclination_deg=inclination, sfr_msun_yr=3.0), SEED)
    maps = galaxy.intrinsic_maps(FINE, [1.4])
    flux = maps["lines"]["HA"].sum() * FINE.pixel_arcsec**2
    luminosity = 3.0 * 10.0**41.27
    expected = luminosity / (4.0 * np.pi * spectrum.luminosity_distance_cm(1.104) ** 2)
    assert flux == pytest.approx(expected, rel=1e-3)
    sfr = maps["sfr"].sum() * (FINE.pixel_arcsec * galaxy.kpc_per_arcsec) ** 2 / galaxy.cos_inclination
    assert sfr == pytest.approx(3.0, rel=1e-3)


def test_attenuated_flux_is_the_integral_of_the_injected_profile():
    galaxy = DiscGalaxy(source(av_centre=1.2, av_gradient_mag_kpc=-0.06, inclination_deg=40.0), SEED)
    flux = galaxy.intrinsic_maps(FINE, [])["lines"]["HA"].sum() * FINE.pixel_arcsec**2
    h = 0.35 / RE_OVER_SCALE_LENGTH
    r = np.linspace(0.0, 20.0 * h, 40001)
    av = np.maximum(1.2 - 0.06 * r * galaxy.kpc_per_arcsec, 0.0)
    profile = np.exp(-r / h) / (2.0 * np.pi * h**2) * 10.0 ** (-0.4 * spectrum.ccm89(0.656461) * av)
    total = galaxy.source.sfr_msun_yr * 10.0**41.27 / (4.0 * np.pi * galaxy.distance_cm**2)
    assert flux == pytest.approx(total * trapezoid(2.0 * np.pi * r * profile, r), rel=1e-3)


def test_profiles_on_the_sky_are_the_injected_exponentials():
    galaxy = DiscGalaxy(source(inclination_deg=45.0, pa_deg=30.0, sfr_scale_ratio=0.8), SEED)
    # Fine enough for a ring of pixels to be a fair sample of a ring with clumps.
    grid = TangentGrid(150.0, 2.0, 0.0075, 340)
    maps = galaxy.intrinsic_maps(grid, [1.4], subsamples=1)
    radius, _ = galaxy.disc_coordinates(grid.dx_east_arcsec[None, :], grid.dy_north_arcsec[:, None])
    for image, scale in ((maps["sfr"], 0.8), (maps["continuum"][0], 1.0)):
        h = scale * 0.35 / RE_OVER_SCALE_LENGTH
        edges = np.linspace(0.1, 1.2, 12)
        ring = np.digitize(radius, edges)
        mean = np.array([image[ring == k].mean() for k in range(1, edges.size)])
        expected = np.array([np.exp(-radius[ring == k] / h).mean() for k in range(1, edges.size)])
        ratio = mean / expected
        np.testing.assert_allclose(ratio / ratio.mean(), 1.0, atol=0.02)


def test_half_of_the_starlight_is_within_the_half_light_radius():
    galaxy = DiscGalaxy(source(), SEED)
    image = galaxy.intrinsic_maps(FINE, [1.4])["continuum"][0]
    radius, _ = galaxy.disc_coordinates(FINE.dx_east_arcsec[None, :], FINE.dy_north_arcsec[:, None])
    assert image[radius < 0.35].sum() / image.sum() == pytest.approx(0.5, abs=0.01)


def test_line_ratios_give_back_metallicity_and_attenuation_everywhere():
    galaxy = DiscGalaxy(source(metallicity_gradient_dex_kpc=-0.02, av_centre=1.0, av_gradient_mag_kpc=-0.05), SEED)
    maps = galaxy.intrinsic_maps(FINE, [])
    lines = maps["lines"]
    middle = slice(100, 160)
    k_ha, k_hb = spectrum.ccm89(0.656461), spectrum.ccm89(0.486269)
    av = 2.5 / (k_hb - k_ha) * np.log10(lines["HA"] / lines["HB"] / 2.86)
    np.testing.assert_allclose(av[middle, middle], maps["av"][middle, middle], atol=0.01)
    k_nii = spectrum.ccm89(0.658528)
    n2 = np.log10(lines["NII6583"] / lines["HA"]) + 0.4 * av * (k_nii - k_ha)
    metallicity = 8.90 + 0.57 * n2
    np.testing.assert_allclose(metallicity[middle, middle], maps["metallicity"][middle, middle], atol=2e-3)


def test_metallicity_gradient_is_the_one_injected():
    galaxy = DiscGalaxy(source(metallicity_centre=8.7, metallicity_gradient_dex_kpc=-0.02), SEED)
    r_arcsec = np.array([0.0, 10.0]) / galaxy.kpc_per_arcsec
    np.testing.assert_allclose(galaxy.metallicity(r_arcsec), [8.7, 8.5])
    assert galaxy.metallicity(100.0) == spectrum.METALLICITY_RANGE[0]


def test_attenuation_never_falls_below_zero():
    galaxy = DiscGalaxy(source(av_centre=0.5, av_gradient_mag_kpc=-0.1), SEED)
    np.testing.assert_allclose(galaxy.av(np.array([0.0, 2.5, 50.0]) / galaxy.kpc_per_arcsec), [0.5, 0.25, 0.0])


def test_the_receding_side_lies_at_the_position_angle():
    galaxy = DiscGalaxy(source(inclination_deg=30.0, pa_deg=70.0, v_rot_kms=200.0, r_turn_arcsec=0.1), SEED)
    pa = np.radians(70.0)
    radius, azimuth = galaxy.disc_coordinates(0.8 * np.sin(pa), 0.8 * np.cos(pa))
    assert radius == pytest.approx(0.8)
    expected = 200.0 * np.arctan(8.0) / np.arctan(galaxy.source.re_arcsec / 0.1) * 0.5
    assert galaxy.velocity(radius, azimuth) == pytest.approx(expected)
    _, behind = galaxy.disc_coordinates(-0.8 * np.sin(pa), -0.8 * np.cos(pa))
    assert galaxy.velocity(radius, behind) == pytest.approx(-expected)
    r_minor, a_minor = galaxy.disc_coordinates(0.3 * np.cos(pa), -0.3 * np.sin(pa))
    assert r_minor == pytest.approx(0.3 / np.cos(np.radians(30.0)))
    assert galaxy.velocity(r_minor, a_minor) == pytest.approx(0.0, abs=1e-9)


def test_dust_reddens_the_stars():
    clear, dusty = (DiscGalaxy(source(av_centre=av), SEED) for av in (0.0, 2.0))
    ratio = [float(dusty.continuum_profile(w, 0.1) / clear.continuum_profile(w, 0.1)) for w in (1.0, 1.8)]
    assert ratio[0] < ratio[1] < 1.0
    rest = 1.0 / 2.104
    expected = 10.0 ** (-0.4 * spectrum.calzetti2000(rest) * 2.0 / 3.1 * 0.44 * 4.05)
    assert ratio[0] == pytest.approx(expected)


def test_grid_has_east_on_the_left_and_knows_its_pixels():
    grid = TangentGrid(10.0, 0.0, 0.05, 104)
    assert grid.dx_east_arcsec[0] > 0.0 > grid.dx_east_arcsec[-1]
    assert grid.dy_north_arcsec[0] < 0.0 < grid.dy_north_arcsec[-1]
    np.testing.assert_allclose(grid.columns(grid.dx_east_arcsec), np.arange(104), atol=1e-9)
    np.testing.assert_allclose(grid.rows(grid.dy_north_arcsec), np.arange(104), atol=1e-9)
    assert grid.half_size_arcsec == pytest.approx(2.6)
