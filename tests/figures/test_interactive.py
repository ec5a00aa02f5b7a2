"""The page of spaxels: its numbers are the galaxy's, it needs nothing but its own files, and names are only names."""

import base64
import hashlib
import json
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from msa3d.config import Dataset
from msa3d.figures import interactive
from msa3d.galaxy.bins import BinMap, stacked
from msa3d.galaxy.fit import fit_lines
from msa3d.galaxy.images import observed

from ..fixtures.run_on_disk import REDSHIFT, small_cube

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
def galaxy(cube, lines, dataset):
    """As much of a measured galaxy as the interactive page shows: three bins along the declination."""
    part = cube.between(1.36, 1.43)
    labels = np.where(observed(part), np.indices(part.shape)[0] * 3 // part.shape[0], -1)
    bins = BinMap(labels, np.full(3, 10.0))
    binned = fit_lines(stacked(part, bins.masks), REDSHIFT, names=("Ha", "[NII]6583"))
    return SimpleNamespace(
        source_id=dataset.case_study, cube=part, lines=lines, bins=bins, binned=binned, redshift=REDSHIFT,
        science=dataset.science,
    )  # fmt: skip


def test_the_interactive_page_holds_spectra_and_fits(dataset, cube, galaxy):
    true = SimpleNamespace(spaxels=galaxy.lines, binned=galaxy.binned)
    data = interactive.galaxy_data(galaxy, dataset.target(dataset.case_study), true)
    json.dumps(data, allow_nan=False)
    index = np.array(data["index"])
    assert (index[:2] == -1).all() and index.max() == (index >= 0).sum() - 1
    window = data["windows"][0]
    assert [name for name, _ in window["lines"]].count("H\u03b1") == 1
    row = index[11, 8]
    spectra, models, injected = (
        np.frombuffer(base64.b64decode(window[k]), kind).reshape(index.max() + 1, -1)
        for k, kind in (("data", "<i2"), ("model", "i1"), ("truth", "i1"))
    )
    inside = (cube.wave_um >= window["wave"][0] - 1e-6) & (cube.wave_um <= window["wave"][-1] + 1e-6)
    values = spectra[row] * window["scale"]
    np.testing.assert_allclose(values, cube.data[inside, 11, 8], atol=window["scale"])
    model = window["level"]["model"][row] + window["span"]["model"][row] * models[row].astype(float)
    assert np.std(values - model) == pytest.approx(NOISE, rel=0.25)
    np.testing.assert_array_equal(injected, models)
    assert window["error"][row] == pytest.approx(NOISE, rel=0.1)


def test_the_interactive_page_has_maps_with_errors_and_what_was_injected(dataset, galaxy):
    true = SimpleNamespace(spaxels=galaxy.lines, binned=galaxy.binned)
    maps = {m["name"]: m for m in interactive.galaxy_data(galaxy, dataset.target(dataset.case_study), true)["maps"]}
    assert {"H\u03b1", "[N II] 6583", "S/N of H\u03b1", "velocity", "dispersion"} <= maps.keys()
    assert any(name.startswith("12 + log(O/H)") for name in maps)
    velocity = np.array(maps["velocity"]["values"], dtype=float)
    # What was not observed is masked, not zero.
    assert maps["velocity"]["values"][0][0] is None and np.isfinite(velocity).sum() == (galaxy.bins.labels >= 0).sum()
    np.testing.assert_allclose(velocity[galaxy.bins.labels == 1], galaxy.binned.velocity[0, 1], atol=0.06)
    assert maps["velocity"]["low"] == -maps["velocity"]["high"]
    assert maps["velocity"]["truth"] == maps["velocity"]["values"]
    bare = interactive.galaxy_data(galaxy, dataset.target(dataset.case_study))
    assert not any("truth" in each for each in [*bare["maps"], *bare["windows"]])


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


def written(dataset, galaxy, folder):
    return interactive.write_interactive(folder / "index.html", dataset, {galaxy.source_id: galaxy}, {})


def test_no_name_breaks_out_of_the_interactive_page(dataset, galaxy, tmp_path):
    pages = []
    for name in ("plain", EVIL):
        target = dataset.target(dataset.case_study).model_copy(update={"name": name})
        named = dataset.model_copy(update={"targets": [target]})
        pages.append(Page(written(named, galaxy, tmp_path / "page").read_text(encoding="utf-8")))
    plain, evil = pages
    assert evil.tags == plain.tags and "img" not in evil.tags
    assert len(evil.scripts) == 1
    first = evil.scripts[0].partition("const GALAXIES = ")[2].partition(";\n")[0]
    assert json.loads(first)[0][1].startswith(EVIL)


def test_the_interactive_page_has_a_policy(dataset, galaxy, tmp_path):
    """Its own script runs, by its hash, and files beside it; nothing else does, and nothing is fetched."""
    page = Page(written(dataset, galaxy, tmp_path).read_text("utf-8"))
    rules = {words[0]: words[1:] for words in (rule.split() for rule in page.policy.split(";"))}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert rules["script-src"] == ["'self'", "file:", f"'sha256-{digest}'"]
    assert not {"*", "https:", "http:"} & {word for words in rules.values() for word in words}


def test_the_interactive_page_needs_no_network(dataset, galaxy, tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "1.js").write_text("of a galaxy that is no longer there")
    page = written(dataset, galaxy, tmp_path / "page")
    assert {path.name for path in page.parent.iterdir()} == {"index.html", f"{galaxy.source_id}.js"}
    for path in page.parent.iterdir():
        text = path.read_text()
        assert "http:" not in text and "https:" not in text
        assert len(text) < 1.5e6


def test_an_interactive_page_without_galaxies_says_so(dataset, tmp_path):
    page = interactive.write_interactive(tmp_path / "index.html", dataset, {}, {})
    assert "const GALAXIES = []" in page.read_text() and len(list(tmp_path.iterdir())) == 1
