"""Figures: what they draw, the mark of simulated data, units, alternative text, files."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from synthetic import DEC, RA, REDSHIFT, write_run

from msa3d.dataset import Dataset
from msa3d.errors import ProductError
from msa3d.figures import collapsed, column, integrated, line_maps, save, sky, style
from msa3d.layout import Layout
from msa3d.science.cubefile import read_cube
from msa3d.science.lines import fit_halpha
from msa3d.science.validation import compare, on_spaxels

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(matplotlib|pyparsing)")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def dataset():
    return Dataset.load("tiny")


@pytest.fixture(scope="module")
def measured(run):
    cube = read_cube(run.cube_medians(8512))
    truth = on_spaxels(read_cube(run.truth / "truth_s08512.fits"), cube)
    return (
        cube,
        truth,
        fit_halpha(cube.wave_um, cube.data, REDSHIFT),
        fit_halpha(truth.wave_um, truth.data, REDSHIFT),
    )


def marks(figure):
    return [text for text in figure.texts if text.get_gid() == "simulated-mark"]


@pytest.fixture(params=["collapsed", "integrated", "line_maps", "column"])
def figure(request, run, dataset, measured):
    cube, truth, maps, true_maps = measured
    return {
        "collapsed": lambda: collapsed.plot(run, dataset, truth=truth),
        "integrated": lambda: integrated.plot(run, dataset, truth=truth),
        "line_maps": lambda: line_maps.plot(dataset, cube, maps, truth=true_maps),
        "column": lambda: column.plot(run, dataset),
    }[request.param]()


def test_every_figure_is_marked_described_and_saved(figure, tmp_path):
    assert [text.get_text() for text in marks(figure)] == [style.SIMULATED_MARK]
    saved = save(figure, tmp_path, "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pdf", "one.png"]
    with Image.open(saved.png) as image:
        assert image.info["Description"] == saved.alt
        assert len(saved.alt) > 60
        pixels = np.asarray(image.convert("RGB"))
        assert image.width == pytest.approx(figure.get_figwidth() * style.PNG_DPI, abs=2)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert saved.pdf.read_bytes().startswith(b"%PDF")
    assert saved._repr_png_() == saved.png.read_bytes()
    assert str(tmp_path) not in repr(saved)


def test_colour_bars_have_units(figure):
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    labels = [axes.get_ylabel() for axes in bars if axes.get_ylabel()]
    assert all("(" in label and ")" in label for label in labels)


def test_no_mark_on_real_data(tmp_path, dataset):
    real = write_run(tmp_path, simulated=False)
    assert marks(collapsed.plot(real, dataset)) == []


def test_the_same_data_give_the_same_files(run, dataset, tmp_path):
    first = save(collapsed.plot(run, dataset), tmp_path / "a", "x")
    second = save(collapsed.plot(run, dataset), tmp_path / "b", "x")
    assert first.png.read_bytes() == second.png.read_bytes()
    assert first.pdf.read_bytes() == second.pdf.read_bytes()


def test_a_figure_without_text_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="no text for readers"):
        save(style.new_figure(), tmp_path, "bare")
    with pytest.raises(ValueError, match="needs a text"):
        style.finish(style.new_figure(), simulated=False, alt="  ")


def test_the_maps_agree_with_the_truth(measured):
    _, _, maps, true_maps = measured
    good = maps.reliable()
    assert good.sum() > 200
    velocity = compare(
        maps.velocity, true_maps.velocity, quantity="velocity", unit="km/s", error=maps.velocity_error,
        where=good,
    )  # fmt: skip
    assert abs(velocity.median) < 1.0
    assert velocity.pull == pytest.approx(1.0, abs=0.2)
    flux = compare(maps.halpha, true_maps.halpha, quantity="flux", unit="", where=good)
    assert flux.ratio == pytest.approx(1.0, abs=0.03)
    assert np.isnan(maps.velocity[:2]).all()
    assert np.isnan(maps.velocity[:, 0]).all()


def test_a_map_is_drawn_where_it_is(measured):
    cube = measured[0]
    axes = style.new_figure().subplots()
    mesh = sky.draw_map(axes, cube, cube.data[0], (RA, DEC))
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners.reshape(-1, 2).mean(axis=0), 0.0, atol=1e-6)
    assert axes.get_xlim()[0] > axes.get_xlim()[1], "east must be to the left"


def test_missing_products_are_told(tmp_path, dataset):
    with pytest.raises(ProductError, match="cubebuild"):
        collapsed.plot(Layout(tmp_path), dataset)
    with pytest.raises(ProductError, match="no target 1"):
        collapsed.plot(Layout(tmp_path), dataset, 1)
