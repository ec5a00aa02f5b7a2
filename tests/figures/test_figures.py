"""Figures: what they draw, the mark of simulated data, units, alternative text, files."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from matplotlib.patches import Polygon
from PIL import Image

from msa3d.closure.truth import on_spaxels
from msa3d.config import Dataset
from msa3d.cubes.cube import open_cube
from msa3d.errors import DatasetError, ProductError
from msa3d.figures import cube as figures_cube
from msa3d.figures import maps, observation, save, spectra, style
from msa3d.galaxy.images import observed
from msa3d.pipeline.layout import POST_SUFFIX, Layout
from msa3d.pipeline.products import mark_simulated
from msa3d.published.rectified import RectifiedGeometry, SlitSpectrum

from ..fixtures.run_on_disk import DEC, RA, write_run
from .checks import HOSTILE, check_files, check_letters, check_panels, check_texts, marks

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(matplotlib|pyparsing)")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def dataset():
    return Dataset.load("tiny")


@pytest.fixture(scope="module")
def measured(run):
    cube = open_cube(run.cube_medians(8512))
    return cube, on_spaxels(open_cube(run.truth / "truth_s08512.fits"), cube)


ACTIVITIES = ("03101", "03102", "03103", "03104", "03105", "03106", "03107", "03108", "03109")


@pytest.fixture(scope="module")
def exposures(run):
    """Rates, calibrated slits and rectified spectra of nine exposures, bare but for what the figures read."""
    rng = np.random.default_rng(2)
    wave = np.linspace(1.3, 1.45, 400)
    height = 30
    line = np.exp(-0.5 * ((wave - 1.3812) / 4e-4) ** 2) * np.hanning(height)[:, None]
    for activity in ACTIVITIES:
        stem = f"jw02136001001_{activity}_00001_nrs1"
        primary = fits.PrimaryHDU()
        mark_simulated(primary.header)
        rate = rng.normal(0, 0.1, (256, 512))
        rate[100 : 100 + height, 50:450] += line
        hdus = fits.HDUList([primary, fits.ImageHDU(rate, name="SCI")])
        hdus.writeto(run.root / f"{stem}_rate.fits")
        sci = fits.ImageHDU(line + rng.normal(0, 0.1, line.shape), name="SCI", ver=1)
        sci.header.update({"SLTSTRT1": 51, "SLTSTRT2": 101, "SOURCEID": 8512})
        wavelengths = fits.ImageHDU(np.broadcast_to(wave, line.shape).copy(), name="WAVELENGTH", ver=1)
        run.process_dir(activity).mkdir(parents=True)
        fits.HDUList([primary, sci, wavelengths]).writeto(run.process_dir(activity) / f"{stem}_cal.fits")
        before = line + rng.normal(0, 0.1, line.shape)
        after = before / 0.9
        mask = np.zeros(line.shape, dtype=np.uint8)
        mask[5, 7] = 1
        for suffix, image in (("", before), (POST_SUFFIX, after)):
            content = [primary, fits.ImageHDU(image, name="SCI"), fits.ImageHDU(mask, name="CRMASK")]
            fits.HDUList(content).writeto(run.s2d(activity, 8512, suffix))
    return wave


@pytest.fixture
def rectified(exposures, monkeypatch):
    """Read spectra without the WCS that only jwst can write."""

    def read(path):
        index = ACTIVITIES.index(path.parent.name[4:9])
        row, column = Dataset.load("tiny").pattern.place(index)
        ra = RA + 0.2 * (column - 1) / 3600 / np.cos(np.deg2rad(DEC))
        dec = DEC + 0.075 * row / 3600
        ends = np.array([[ra, dec - 1.5 / 3600], [ra, dec + 1.5 / 3600]])
        with fits.open(path) as hdus:
            data, primary, sci = hdus["SCI"].data.astype(float), hdus[0].header, hdus["SCI"].header
        return SlitSpectrum(path, data, RectifiedGeometry(exposures, ends, ends), primary, sci)

    for module in (observation, spectra):
        monkeypatch.setattr(module, "read_spectrum", read)


NAMES = (
    "collapsed", "integrated", "column", "detectors", "slit_stepping", "spectrum_steps",
    "postprocess_effect",
)  # fmt: skip


@pytest.fixture(params=["plain", HOSTILE], ids=["plain", "hostile"])
def named(request, dataset):
    """The dataset with names of this kind."""
    if request.param == "plain":
        return dataset
    targets = [{**target.model_dump(), "name": HOSTILE} for target in dataset.targets]
    return dataset.replaced(title=HOSTILE, targets=targets)


@pytest.fixture(params=NAMES)
def figure(request, run, named, measured, rectified):
    dataset = named
    _, truth = measured
    return {
        "collapsed": lambda: figures_cube.plot_collapsed(run, dataset),
        "integrated": lambda: figures_cube.plot_integrated(run, dataset, truth=truth),
        "column": lambda: spectra.plot_column(run, dataset),
        "detectors": lambda: observation.plot_detectors(run, dataset, "03105"),
        "slit_stepping": lambda: observation.plot_slit_stepping(run, dataset),
        "spectrum_steps": lambda: spectra.plot_spectrum_steps(run, dataset),
        "postprocess_effect": lambda: spectra.plot_postprocess_effect(run, dataset),
    }[request.param]()


def test_every_figure_is_marked_described_and_saved(figure, tmp_path):
    check_texts(figure)
    check_letters(figure)
    check_panels(figure)
    check_files(figure, tmp_path)


def test_colour_bars_have_units(figure):
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    labels = [axes.get_ylabel() for axes in bars if axes.get_ylabel()]
    assert all(any(unit in label for unit in ("MJy sr", "DN s", "(", "snr", "cgs")) for label in labels)


def test_no_mark_on_real_data(tmp_path, dataset):
    real = write_run(tmp_path, simulated=False)
    assert marks(figures_cube.plot_collapsed(real, dataset)) == []


def test_the_same_data_give_the_same_files(run, dataset, tmp_path):
    first = save(figures_cube.plot_collapsed(run, dataset), tmp_path / "a", "x")
    second = save(figures_cube.plot_collapsed(run, dataset), tmp_path / "b", "x")
    assert first.png.read_bytes() == second.png.read_bytes()
    assert first.pdf.read_bytes() == second.pdf.read_bytes()


def test_numbers_are_written_with_the_digits_that_vary(tmp_path):
    """Files a book offers: seventeen digits of noise are half their weight."""
    columns = {
        "ra [deg]": np.array([215.04978061234, 215.03231512345, 215.04]),
        "flux": np.ma.masked_array([1.23456789e-20, 5.0, np.nan], [False, True, False]),
        "same": np.full(3, 1 / 3),
        "tiny": np.array([1.0, 1.0 + 2**-52, 1.0]),
    }
    figure = style.new_figure()
    saved = save(style.finish(figure, simulated=False, alt="a", caption="c", data={"a": columns}), tmp_path, "x")
    rows = [line.split() for line in saved.data.read_text().splitlines() if not line.startswith("#")]
    assert rows[1] == ["a", "215.0497806", "1.23457e-20", "0.333333", "1.0"]
    table = Table.read(saved.data, format="ascii.ecsv")
    np.testing.assert_allclose(table["ra"], columns["ra [deg]"], rtol=0, atol=1e-7)


def test_a_picture_has_no_opacity_and_keeps_its_resolution(run, dataset, tmp_path):
    saved = save(figures_cube.plot_collapsed(run, dataset), tmp_path, "x")
    with Image.open(saved.png) as image:
        assert image.mode == "RGB"
        assert image.info["dpi"] == pytest.approx((style.PNG_DPI, style.PNG_DPI), abs=0.1)


def test_a_figure_without_text_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="no text for readers"):
        save(style.new_figure(), tmp_path, "bare")
    with pytest.raises(ValueError, match="needs a text"):
        style.finish(style.new_figure(), simulated=False, alt="  ", caption="Something.", data={})
    with pytest.raises(ValueError, match="needs a caption"):
        style.finish(style.new_figure(), simulated=False, alt="Something", caption="", data={})


def test_a_map_is_drawn_where_it_is(measured):
    cube = measured[0]
    axes = style.new_figure().subplots()
    mesh = maps.draw_map(axes, cube, cube.data[0], (RA, DEC))
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners.reshape(-1, 2).mean(axis=0), 0.0, atol=1e-6)
    assert axes.get_xlim()[0] > axes.get_xlim()[1], "east must be to the left"


def test_slitlets_are_where_the_spectra_say(run, dataset, rectified):
    figure = observation.plot_slit_stepping(run, dataset)
    left, right = figure.axes
    outlines = [patch.get_xy() for patch in left.patches if isinstance(patch, Polygon)]
    assert len(outlines) == 9
    assert {round(float(np.ptp(outline[:, 0])), 3) for outline in outlines} == {0.2}
    steps = np.diff(right.lines[0].get_xydata(), axis=0)
    # The slit points to the north: east is to the left of it.
    np.testing.assert_allclose(np.abs(steps[[0, 1, 3, 4], 0]), 0.2, atol=1e-3)
    assert np.sign(steps[0, 0]) == -np.sign(steps[3, 0])
    np.testing.assert_allclose(steps[[2, 5], 1], 0.075, atol=1e-3)
    assert left.xaxis_inverted()
    table = figure.msa3d_data
    assert list(table["exposure"]) == list(range(1, 10)) and set(table["column"]) == {1, 2, 3}


def test_what_was_observed_and_is_not_shown_is_hatched(measured):
    cube = measured[0]
    image = np.where(observed(cube), 1.0, np.nan)
    image[20, 4] = np.nan
    axes = style.new_figure().subplots()
    mesh = maps.draw_map(axes, cube, image, (RA, DEC))
    (patch,) = (patch for patch in axes.patches if patch.get_hatch())
    east, north = (offset[20, 4] for offset in cube.offsets(RA, DEC))
    assert len(patch.get_path().vertices) == 5
    np.testing.assert_allclose(patch.get_path().vertices[:4].mean(axis=0), (east, north), atol=1e-6)
    assert mesh.cmap(np.ma.masked)[3] == 0.0
    # Nothing of the map lies beyond the spaxels that were observed.
    right, left = sorted(axes.get_xlim())
    corners = np.stack(cube.offsets(RA, DEC, corners=True))
    assert right >= corners[0].min() and left < corners[0].max() - 0.05


def test_a_spectrum_is_shown_in_all_its_stages(run, dataset, rectified):
    panels, simulated = spectra._collect(run, dataset, dataset.target(8512), 1.3812, tuple(spectra.STAGES), None)
    assert simulated
    titles = [panel.title for panel in panels]
    assert titles[0].startswith("count rates, NRS1")
    assert len(titles) == 5
    for panel in panels[:4]:
        brightest = panel.wave_um[np.nanargmax(np.nanmean(panel.data, axis=0))]
        assert brightest == pytest.approx(1.3812, abs=1e-3)
    figure = spectra.plot_spectrum_steps(run, dataset, stages=("cal", "post"), activity="03102", half_um=0.01)
    assert [axes.get_title("left") for axes in figure.axes if axes.get_title("left")] == [
        f"a  {spectra.STAGES['cal']}", f"b  {spectra.STAGES['post']}",
    ]  # fmt: skip
    with pytest.raises(ProductError, match="no stage colour; there are rate, cal"):
        spectra.plot_spectrum_steps(run, dataset, stages=("colour",))
    with pytest.raises(ProductError, match="no exposure 09999; it has 03101 to 03109"):
        spectra.plot_spectrum_steps(run, dataset, activity="09999")


def test_path_loss_is_read_off_the_spectra(run, dataset, rectified):
    figure = spectra.plot_postprocess_effect(run, dataset)
    panel = next(axes for axes in figure.axes if axes.get_ylabel() == "before / after")
    _, loss = panel.lines[-1].get_data()
    np.testing.assert_allclose(loss, 0.9)


def test_missing_products_are_told(tmp_path, dataset):
    with pytest.raises(ProductError, match="cubebuild"):
        figures_cube.plot_collapsed(Layout(tmp_path), dataset)
    with pytest.raises(DatasetError, match="no target 1"):
        figures_cube.plot_collapsed(Layout(tmp_path), dataset, 1)
