"""Figures of a measured galaxy show the numbers that were measured, and what was injected and published beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from msa3d.closure.truth import TrueLines
from msa3d.config import Dataset
from msa3d.figures import atlas, kinematics
from msa3d.figures import galaxy as radial
from msa3d.figures import lines as figures_lines
from msa3d.galaxy.measure import Galaxy, measure

from ..fixtures.cubes import DEC, RA, REDSHIFT
from ..fixtures.galaxies import GEOMETRY, noiseless, noisy
from .checks import HOSTILE, check_files, check_letters, check_names, check_panels, check_texts

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(matplotlib|pyparsing)")


@pytest.fixture(scope="module")
def galaxy() -> Galaxy:
    return measure(noisy(noiseless(), 0.1, 5), REDSHIFT, replace(GEOMETRY, pa_deg=0.0), source_id=8512, sample=False)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """The case study, moved to where the synthetic galaxy lies."""
    return moved("")


def moved(name: str) -> Dataset:
    whole = Dataset.load("tiny")
    change = {"ra": RA, "dec": DEC, "redshift": REDSHIFT} | ({"name": name} if name else {})
    update = {"targets": [whole.targets[0].model_copy(update=change)]} | ({"title": name} if name else {})
    return whole.model_copy(update=update)


DRAWN = {
    "line_maps": lambda d, g: figures_lines.plot_line_maps(d, g, TrueLines(g.lines, g.binned)),
    "line_ratios": figures_lines.plot_line_ratios,
    "kinematics": kinematics.plot_kinematics,
    "position_velocity": kinematics.plot_position_velocity,
    "disc_posterior": kinematics.plot_disc_posterior,
    "metallicity": radial.plot_metallicity,
    "attenuation": radial.plot_attenuation,
    "sfr_profile": radial.plot_sfr_profile,
    "atlas": lambda d, g: atlas.plot_atlas(d, [g, g]),
}


@pytest.fixture(scope="module", params=DRAWN)
def drawn(request, dataset: Dataset, galaxy: Galaxy) -> tuple[str, Figure]:
    return request.param, DRAWN[request.param](dataset, galaxy)


def test_every_figure_is_marked_described_and_saved(drawn, tmp_path):
    _, figure = drawn
    check_texts(figure)
    check_letters(figure)
    check_panels(figure)
    table = check_files(figure, tmp_path)
    numbers = [column for column in table.itercols() if column.dtype.kind == "f"]
    assert len(numbers) >= 3 and all(np.isfinite(np.ma.filled(column, np.nan)).any() for column in numbers)


def test_names_are_shown_as_they_are(galaxy: Galaxy, tmp_path):
    figure = radial.plot_sfr_profile(moved(HOSTILE), galaxy)
    check_names(figure)
    check_files(figure, tmp_path)


def panel(figure: Figure, title: str):
    """Axes whose title begins so."""
    return next(
        axes for axes in figure.findobj(lambda a: hasattr(a, "get_legend_handles_labels"))
        if axes.get_title().startswith(title) or axes.get_title("left").startswith(title)
    )  # fmt: skip


def test_curves_are_those_of_the_fitted_disc(dataset: Dataset, galaxy: Galaxy):
    figure = kinematics.plot_kinematics(dataset, galaxy)
    curve = panel(figure, "i")
    lines = {line.get_label(): line for line in curve.lines}
    kpc, speed = lines["disc, intrinsic (68%)"].get_data()
    # From one end to the other: odd about the centre.
    np.testing.assert_allclose(speed, -speed[::-1], atol=1e-9)
    expected = galaxy.kinematics.rotation(kpc[kpc > 0] / GEOMETRY.kpc_per_arcsec)[0]
    assert np.abs(speed[kpc > 0] - expected)[10:] == pytest.approx(0.0, abs=3.0 * galaxy.kinematics.error["v_sin_i"])
    assert {"injected", "disc, convolved"} <= lines.keys()
    cells = kinematics.axis_cells(galaxy)
    assert cells.offset_arcsec.size >= 5
    # Cells see what the disc shows through the PSF, and recede on the positive side.
    pull = (cells.velocity - cells.model_velocity) / cells.velocity_error
    assert np.sqrt(np.mean(pull**2)) < 2.0
    assert np.all(cells.velocity[cells.offset_arcsec > 0.3] > 0) and np.all(
        cells.velocity[cells.offset_arcsec < -0.3] < 0
    )


def test_regions_of_a_line_have_the_errors_that_noise_gives_them(galaxy: Galaxy):
    """The same region with other noise: the scatter of its mean is the error of one."""
    mask = galaxy.geometry.radius(galaxy.cube) < 0.3
    truth = noiseless()
    found, errors = [], []
    for seed in range(12):
        cube = noisy(truth, 0.1, 100 + seed).between(1.37, 1.40)
        fit = figures_lines_fit(cube, galaxy)
        mean, error = figures_lines.region_flux(replace(galaxy, lines=fit, cube=cube), "Ha", mask)
        found.append(mean)
        errors.append(error / figures_lines.noise_scale(replace(galaxy, lines=fit, cube=cube), "Ha"))
    # Twelve draws: their scatter is known to a fifth.
    assert np.std(found, ddof=1) / np.mean(errors) == pytest.approx(1.0, abs=0.6)


def figures_lines_fit(cube, galaxy: Galaxy):
    from msa3d.galaxy.fit import fit_lines

    return fit_lines(cube, REDSHIFT, names=("Ha", "[NII]6583"), velocity=galaxy.kinematics.maps["velocity"],
                     sigma=galaxy.kinematics.maps["sigma"])  # fmt: skip


def test_what_is_displayed_is_not_selected_by_its_noise(galaxy: Galaxy):
    """Noise in [N II] and Hb, many seeds: bins are the same, and the mean pull of all that is displayed is zero."""
    rng = np.random.default_rng(3)
    pulls, bins = [], []
    for _ in range(120):
        noise = {n: rng.normal(size=galaxy.cube.shape) * galaxy.lines.flux_error[n] for n in ("[NII]6583", "Hb")}
        lines = replace(galaxy.lines, flux=galaxy.lines.flux | noise)
        empty = replace(galaxy, lines=lines)
        for name, faint in noise.items():
            chosen = figures_lines.line_bins(empty, name, 4.0)
            bins.append((name, chosen.labels.tobytes()))
            for mask in chosen.masks[::4]:
                mean, _ = figures_lines.region_flux(empty, name, mask)
                sigma = np.sqrt((galaxy.lines.flux_error[name][mask] ** 2).sum()) / mask.sum()
                assert mean == pytest.approx(float(faint[mask].mean()))
                pulls.append(mean / sigma)
    assert len(set(bins)) == 2, "bins follow the noise"
    assert abs(np.mean(pulls)) < 0.2


def test_limits_are_upper_limits(galaxy: Galaxy):
    lines = replace(galaxy.lines, flux=galaxy.lines.flux | {"[NII]6583": np.zeros(galaxy.cube.shape)})
    masks = [galaxy.geometry.radius(galaxy.cube) < 0.3]
    value, error, limit = radial.abundances(replace(galaxy, lines=lines), "PP04_N2", masks)
    ha, sigma = (figures_lines.region_flux(galaxy, name, masks[0])[k] for name, k in (("Ha", 0), ("[NII]6583", 1)))
    assert limit.all() and np.isnan(error).all()
    assert value[0] == pytest.approx(8.90 + 0.57 * np.log10(2.0 * sigma / ha), abs=1e-6)


def test_attenuation_is_linear_in_the_ratio(dataset: Dataset, galaxy: Galaxy):
    figure = radial.plot_attenuation(dataset, galaxy)
    table = figure.msa3d_data
    around = table[table["panel"] == "b"]
    radius = galaxy.geometry.radius(galaxy.cube)
    ring = galaxy.rings["Hb"]
    mask = (radius >= ring.low[0]) & (radius < ring.high[0])
    expected = figures_lines.region_flux(galaxy, "Hb", mask)[0] / figures_lines.region_flux(galaxy, "Ha", mask)[0]
    assert around["Hb/Ha"][0] == pytest.approx(expected)
    assert radial.plot_attenuation(dataset, replace(galaxy, av=None)) is None


def test_faint_hb_is_shown_in_two_apertures_with_limits(dataset: Dataset, galaxy: Galaxy):
    error = {"Hb": 30.0 * galaxy.lines.flux_error["Hb"]}
    lines = replace(galaxy.lines, flux=galaxy.lines.flux | {"Hb": np.zeros(galaxy.cube.shape)},
                    flux_error=galaxy.lines.flux_error | error)  # fmt: skip
    figure = radial.plot_attenuation(dataset, replace(galaxy, lines=lines))
    assert panel(figure, "a").get_title("left") == "a  two apertures"
    written = [text.get_text() for text in panel(figure, "a").texts]
    assert sum("> " in text and "2\u03c3" in text for text in written) == 2


def test_star_formation(dataset: Dataset, galaxy: Galaxy):
    figure = radial.plot_sfr_profile(dataset, galaxy)
    told = " ".join(text.get_text() for text in figure.axes[0].get_legend().get_texts())
    for disc in (galaxy.discs["Ha"], galaxy.stars):
        assert f"h = {disc.scale_arcsec * GEOMETRY.kpc_per_arcsec:.2f}" in told
    assert "injected" in told


def test_maps_of_all_lines_and_their_pulls(dataset: Dataset, galaxy: Galaxy):
    figure = figures_lines.plot_line_maps(dataset, galaxy, TrueLines(galaxy.lines, galaxy.binned))
    assert "pull" in figure.msa3d_data.colnames
    np.testing.assert_allclose(np.asarray(figure.msa3d_data["pull"], dtype=float), 0.0, atol=1e-12)
    assert set(figure.msa3d_data["panel"]) == {figures_lines.LINE_LABELS[name] for name in figures_lines.SHOWN}
    alone = figures_lines.plot_line_maps(dataset, galaxy)
    assert "pull" not in alone.msa3d_data.colnames
    meshes = [mesh for axes in alone.axes for mesh in axes.collections if isinstance(mesh, QuadMesh)]
    # Flux and error of a line have one scale.
    assert len({mesh.get_clim() for mesh in meshes[:2]}) <= 2


def test_pages_of_an_atlas(dataset: Dataset, galaxy: Galaxy):
    assert len(list(atlas.pages([galaxy] * (atlas.ROWS + 1)))) == 2
    with pytest.raises(ValueError, match="needs a galaxy"):
        atlas.plot_atlas(dataset, [])
