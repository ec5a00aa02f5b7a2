"""Figures of the science: made from a small galaxy, with units, marks, and nothing on top of anything else."""

from dataclasses import replace
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from matplotlib.cbook import is_math_text

from msa3d.config import Dataset
from msa3d.errors import ProductError
from msa3d.figures import cube as figures_cube
from msa3d.figures import galaxy, overview, save, style
from msa3d.figures import maps as figures_maps
from msa3d.figures.galaxy import Points
from msa3d.galaxy.disc import Disc
from msa3d.galaxy.fit import fit_lines
from msa3d.galaxy.profiles import Gradient

from ..fixtures.run_on_disk import DEC, RA, REDSHIFT, small_cube

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(matplotlib|pyparsing)")

NOISE = 0.05


@pytest.fixture(scope="module")
def dataset():
    return Dataset.load("tiny")


@pytest.fixture(scope="module")
def cube():
    return small_cube(NOISE)


@pytest.fixture(scope="module")
def lines(cube):
    return fit_lines(cube.between(1.36, 1.43), REDSHIFT, names=("Ha", "[NII]6583"))


@pytest.fixture(scope="module")
def disc():
    return Disc(90.0, 30.0, 90.0, 0.2)


@pytest.fixture(scope="module")
def maps(cube, lines, disc):
    model = disc.velocity(*cube.offsets(RA, DEC))
    return {
        "observed_velocity": lines.velocity,
        "observed_velocity_error": lines.velocity_error,
        "observed_sigma": lines.sigma,
        "velocity": model,
        "sigma": np.full(cube.shape, 65.0),
        "snr": lines.snr(),
        "used": lines.reliable(3.0),
    }


def gradient(centre, slope):
    return Gradient.of((centre, slope), np.diag([1e-2, 1e-3]) ** 2, unit="dex", method="test")


def profile(height):
    radius = np.arange(0.1, 1.0, 0.2)
    value = height * np.exp(-radius / 0.4)
    return galaxy.Profile(radius, value, 0.1 * value, 0.4, 0.02, height, 0.41)


def report(shift):
    injected = np.array([1.104, 36.0, -0.02])
    error = np.array([1e-5, 3.0, 0.004])
    found = injected + shift * error
    columns = {"quantity": ["redshift", "sigma0", "metallicity_gradient"], "unit": ["", "km/s", "dex/kpc"]}
    columns |= {"published": [1.104, 36.0, -0.02], "injected": injected, "recovered": found, "error": error}
    return Table({**columns, "pull": (found - injected) / error})


POINTS = Points(np.arange(1.0, 8.0, 1.5), 8.6 - 0.02 * np.arange(1.0, 8.0, 1.5), np.full(5, 0.02))
NAMES = (
    "channel_maps", "atlas", "kinematics", "metallicity", "attenuation", "sfr_profile",
    "multiplex", "recovered",
)  # fmt: skip


#: A formula that matplotlib does not know, what closes one, and what no font has a special meaning for.
HOSTILE = r"$\foo$ \$ $$ 5$ {x}_^ <b>"


@pytest.fixture(scope="module", params=["plain", HOSTILE], ids=["plain", "hostile"])
def named(request, dataset):
    """The dataset with names of this kind."""
    if request.param == "plain":
        return dataset
    targets = [{**target.model_dump(), "name": HOSTILE} for target in dataset.targets]
    return dataset.replaced(title=HOSTILE, targets=targets)


@pytest.fixture(scope="module", params=NAMES)
def figure(request, named, cube, lines, maps, disc):
    dataset = named
    rotation = galaxy.Rotation.from_draws(
        ("v_sin_i", "r_turn"), np.array([[80.0, 0.2], [90.0, 0.2], [100.0, 0.2]]), disc, np.linspace(0, 0.9, 20)
    )
    target = dataset.target(dataset.case_study)
    image = np.where(lines.reliable(), 8.6, np.nan)
    drawn = {
        "channel_maps": lambda: figures_cube.plot_channel_maps(dataset, cube),
        "atlas": lambda: overview.plot_atlas(
            dataset, [overview.Entry(target, cube, lines.velocity), overview.Entry(target, cube)]
        ),
        "kinematics": lambda: galaxy.draw_kinematics(
            dataset, cube, maps, disc, rotation, injected=disc, published=(0.5, 60.0, 5.0)
        ),
        "metallicity": lambda: galaxy.draw_radial(
            galaxy.METALLICITY,
            dataset,
            cube,
            image,
            POINTS,
            gradient(8.7, -0.02),
            injected=(8.7, -0.02),
            published=(-0.02, 0.002),
        ),
        "attenuation": lambda: galaxy.draw_radial(galaxy.ATTENUATION, dataset, cube, image - 8, POINTS, None),
        "sfr_profile": lambda: galaxy.draw_sfr_profile(dataset, profile(0.05), profile(0.3)),
        "multiplex": overview.plot_multiplex,
        "recovered": lambda: overview.plot_recovered({dataset.target(8512).name: report(0.5), "two": report(-1.0)}),
    }
    return request.param, drawn[request.param]()


def test_marked_described_and_saved(figure, tmp_path):
    name, drawn = figure
    marks = [text.get_text() for text in drawn.texts if text.get_gid() == "simulated-mark"]
    assert marks == ([] if name == "multiplex" else [style.SIMULATED_MARK])
    saved = save(drawn, tmp_path, name)
    assert len(saved.alt) > 60
    assert saved.pdf.read_bytes().startswith(b"%PDF")


def test_names_are_shown_as_they_are(figure, named):
    name, drawn = figure
    if name == "multiplex" or named.title != HOSTILE:
        return
    # Matplotlib shows text with an even number of plain dollar signs as a formula, and other text without backslashes
    # before dollar signs.
    texts = [text.get_text() for text in drawn.findobj(mpl.text.Text)]
    shown = [text.replace(r"\$", "$") for text in texts if not is_math_text(text)]
    assert any(HOSTILE in text for text in shown), texts


def test_panels_and_their_labels_do_not_overlap(figure):
    """Panels with ticks, labels and titles keep apart; twins and colour bars belong to their panel."""
    _, drawn = figure
    drawn.canvas.draw()
    renderer = drawn.canvas.get_renderer()
    seen = {}
    for axes in drawn.axes:
        where = tuple(np.round(axes.get_position().bounds, 4))
        seen.setdefault(where, axes.get_tightbbox(renderer))
    for one, other in combinations(seen.values(), 2):
        wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        high = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert wide < 2.0 or high < 2.0, f"panels at {one} and {other} overlap"


def test_axes_name_quantity_and_unit(figure):
    name, drawn = figure
    labels = [axes.get_xlabel() for axes in drawn.axes] + [axes.get_ylabel() for axes in drawn.axes]
    wanted = {
        "channel_maps": "(MJy/sr)",
        "atlas": "(\u00b5m)",
        "kinematics": "(km/s)",
        "metallicity": "(dex)",
        "attenuation": "(mag)",
        "sfr_profile": "(kpc)",
        "multiplex": "targets",
        "recovered": "error",
    }[name]
    assert any(wanted in label for label in labels)


def test_the_psf_is_wider_across_the_slit(cube):
    """A slit at 20 deg: the long axis of the ellipse stands across it, wherever the 90 deg are counted from."""
    long, short, angle = figures_maps.psf_ellipse(cube, 1.38)
    assert 0.1 < short < long < 0.5
    assert abs((angle - 20.0 + 90.0) % 180.0 - 90.0) > 60.0
    assert figures_maps.psf_ellipse(replace(cube, header=fits.Header()), 1.38) is None


def test_channels_move_with_the_galaxy(cube):
    velocity, planes = figures_cube.line_planes(cube, 0.656461 * (1 + REDSHIFT))
    east, _ = cube.offsets(RA, DEC)
    near = [int(np.argmin(np.abs(velocity - v))) for v in (-60.0, 60.0)]
    middle = [np.nansum(np.clip(planes[k], 0, None) * east) / np.nansum(np.clip(planes[k], 0, None)) for k in near]
    assert middle[1] - middle[0] > 0.2
    with pytest.raises(ProductError, match="redshift"):
        figures_cube.line_planes(cube, 1.449)


def test_observed_velocities_are_turned_to_the_receding_half(cube, maps, disc):
    # Both halves of an exact disc, and one fit that ran away.
    observed = disc.velocity(*cube.offsets(RA, DEC))
    observed[10, 12] = 499.0
    exact = {"observed_velocity": observed, "observed_velocity_error": np.full(cube.shape, 5.0), "used": maps["used"]}
    radius, value, error = galaxy.major_axis_points(cube, (RA, DEC), exact, disc, 0.1)
    assert radius.size >= 3
    np.testing.assert_allclose(value, disc.rotation(radius), atol=1.5)
    assert np.all(error > 0)


def test_pages_of_an_atlas(dataset, cube):
    target = dataset.target(dataset.case_study)
    assert len(list(overview.pages([overview.Entry(target, cube)] * (overview.ROWS + 1)))) == 2
    with pytest.raises(ValueError, match="needs a galaxy"):
        overview.plot_atlas(dataset, [])


def test_nothing_to_compare():
    empty = report(1.0)
    empty["pull"] = np.nan
    assert overview.plot_recovered({"one": empty}) is None
