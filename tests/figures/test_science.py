"""Figures of all galaxies together, the point-spread function on a map, and the interactive page."""

import base64
import hashlib
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from msa3d.config import Dataset
from msa3d.figures import interactive, overview
from msa3d.figures import maps as figures_maps
from msa3d.galaxy.fit import fit_lines
from msa3d.observation.multiplex import compare

from ..fixtures.run_on_disk import REDSHIFT, small_cube
from .checks import HOSTILE, check_files, check_letters, check_names, check_panels, check_texts

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(matplotlib|pyparsing)")

NOISE = 0.05


@pytest.fixture(scope="module")
def dataset():
    return Dataset.load("demo")


@pytest.fixture(scope="module")
def cube():
    return small_cube(NOISE)


@pytest.fixture(scope="module")
def lines(cube):
    return fit_lines(cube.between(1.36, 1.43), REDSHIFT, names=("Ha", "[NII]6583"))


def report(shift):
    injected = np.array([6.1, 36.0, -0.02])
    error = np.array([0.9, 3.0, 0.004])
    found = injected + shift * error
    columns = {"quantity": ["v_over_sigma", "sigma0", "metallicity_gradient"], "unit": ["", "km/s", "dex/kpc"]}
    columns |= {"published": [6.1, 36.0, -0.02], "injected": injected, "recovered": found, "error": error}
    return Table({**columns, "pull": (found - injected) / error})


DRAWN = {
    "survey": overview.plot_survey,
    "multiplex": lambda _: overview.plot_multiplex(),
    "recovered": lambda _: overview.plot_recovered({HOSTILE: report(0.5), "two": report(-1.0)}),
    "turbulence": lambda d: overview.plot_turbulence(d, {"8512": report(0.5), "12015": report(-1.0)}),
}


@pytest.fixture(params=DRAWN)
def drawn(request, dataset):
    return request.param, DRAWN[request.param](dataset)


def test_every_figure_is_marked_described_and_saved(drawn, tmp_path):
    name, figure = drawn
    check_texts(figure, simulated=name in ("recovered", "turbulence"))
    check_letters(figure)
    check_panels(figure)
    if name == "recovered":
        check_names(figure)
    check_files(figure, tmp_path)


def test_the_survey_marks_the_galaxies_of_the_run(dataset):
    figure = overview.plot_survey(dataset)
    assert len(figure.msa3d_data) == 30
    marked = figure.axes[2].lines[1].get_xydata()
    assert len(marked) == len(dataset.source_ids) == 3
    assert {round(x, 4) for x, _ in marked} == {round(target.ra, 4) for target in dataset.targets}


def test_the_main_sequence_is_that_of_its_paper():
    """Speagle et al. (2014): 10^10.5 solar masses form 1.9 solar masses a year today, and some thirty at z = 1.5."""
    today, early = (float(overview.main_sequence(np.array(10.5), z)) for z in (1e-3, 1.5))
    assert today == pytest.approx((0.84 - 0.026 * 13.47) * 10.5 - (6.51 - 0.11 * 13.47), abs=0.02)
    assert 1.2 < early < 1.7


def test_quantities_that_follow_from_others_count_once():
    figure = overview.plot_recovered({"one": report(1.0)})
    assert sorted(figure.msa3d_data["quantity"]) == ["metallicity_gradient", "sigma0"]


def test_no_single_number_is_the_gain(dataset):
    figure = overview.plot_multiplex()
    table = figure.msa3d_data
    part = table[table["panel"] == "a"]
    assert np.all(part["low"] <= part["gain"]) and np.all(part["gain"] <= part["high"])
    at = 43
    low, high = (compare(targets=at, noise_penalty=p, throughput_ratio=t).gain
                 for p, t in zip(overview.PENALTIES, overview.THROUGHPUTS[::-1], strict=True))  # fmt: skip
    assert low < overview.PUBLISHED_GAIN < high
    assert f"{low:.1f} to {high:.1f}" in figure.msa3d_caption


def test_the_psf_is_wider_across_the_slit(cube):
    """A slit at 20 deg: the long axis of the ellipse stands across it, wherever the 90 deg are counted from."""
    long, short, angle = figures_maps.psf_ellipse(cube, 1.38)
    assert 0.1 < short < long < 0.5
    assert abs((angle - 20.0 + 90.0) % 180.0 - 90.0) > 60.0
    assert figures_maps.psf_ellipse(replace(cube, header=fits.Header()), 1.38) is None


def test_nothing_to_compare(dataset):
    empty = report(1.0)
    empty["pull"] = np.nan
    assert overview.plot_recovered({"one": empty}) is None
    assert overview.plot_turbulence(dataset, {}) is None


def test_the_interactive_page_holds_spectra_and_fits(dataset, cube, lines):
    part = cube.between(1.36, 1.43)
    data = interactive.page_data(part, dataset.target(dataset.case_study), lines)
    json.dumps(data, allow_nan=False)
    index = np.array(data["index"])
    assert (index[:2] == -1).all() and index.max() == (index >= 0).sum() - 1
    window = data["windows"][0]
    assert [name for name, _ in window["lines"]].count("Ha") == 1
    spectra, models = (
        np.frombuffer(base64.b64decode(window[k]), "<i2").reshape(index.max() + 1, -1) for k in ("data", "model")
    )
    row = index[11, 8]
    inside = (part.wave_um >= window["wave"][0] - 1e-6) & (part.wave_um <= window["wave"][-1] + 1e-6)
    np.testing.assert_allclose(spectra[row] * window["scale"], part.data[inside, 11, 8], atol=window["scale"])
    left = (spectra[row].astype(float) - models[row]) * window["scale"]
    assert np.std(left) == pytest.approx(NOISE, rel=0.25)


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&amp; \u2028__HASH__ __DATA__"


class Page(HTMLParser):
    """What a browser makes of a page: its tags, and what stands in its scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.policy = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append("")
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            assert not self.scripts, "the policy comes after a script, which it does not bind"
            self.policy = dict(attrs)["content"]

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data


def test_no_name_breaks_out_of_the_interactive_page(dataset, cube, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(interactive, "cube_path", lambda *_: tmp_path)
    monkeypatch.setattr(interactive, "open_cube", lambda _: cube.between(1.36, 1.43))
    pages = []
    for name in ("plain", EVIL):
        target = dataset.target(dataset.case_study).model_copy(update={"name": name})
        named = dataset.model_copy(update={"targets": [target]})
        path = interactive.write_interactive(None, named, tmp_path / "page" / "index.html", fit=lines)
        pages.append(Page(path.read_text(encoding="utf-8")))
    plain, evil = pages
    assert evil.tags == plain.tags and "img" not in evil.tags
    assert len(evil.scripts) == 2
    first = evil.scripts[1].partition("const D = ")[2].partition(";\n")[0]
    assert json.loads(first)["title"].startswith(EVIL)


def test_the_interactive_page_has_a_policy(dataset, cube, lines, tmp_path, monkeypatch):
    """Its own script runs, by its hash, and plotly's; nothing else does, and nothing is fetched."""
    monkeypatch.setattr(interactive, "cube_path", lambda *_: tmp_path)
    monkeypatch.setattr(interactive, "open_cube", lambda _: cube.between(1.36, 1.43))
    page = Page(interactive.write_interactive(None, dataset, tmp_path / "index.html", fit=lines).read_text("utf-8"))
    rules = {words[0]: words[1:] for words in (rule.split() for rule in page.policy.split(";"))}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    assert rules["script-src"] == ["'self'", "file:", f"'sha256-{digest}'"]
    assert not {"*", "https:", "http:"} & {word for words in rules.values() for word in words}


def test_the_interactive_page_needs_no_network(dataset, cube, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(interactive, "cube_path", lambda *_: tmp_path)
    monkeypatch.setattr(interactive, "open_cube", lambda _: cube.between(1.36, 1.43))
    page = interactive.write_interactive(None, dataset, tmp_path / "page" / "index.html", fit=lines)
    text = page.read_text()
    assert "http:" not in text and "https:" not in text
    assert f'src="{interactive.SCRIPT}"' in text
    assert sum(path.stat().st_size for path in page.parent.iterdir()) < 6e6
