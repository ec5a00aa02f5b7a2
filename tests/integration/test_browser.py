"""Every page of the book in a real browser: wide and on a phone, light and dark; the map under the mouse."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from msa3d.config import Dataset
from msa3d.figures import interactive
from msa3d.galaxy.bins import BinMap, stacked
from msa3d.galaxy.fit import fit_lines
from msa3d.galaxy.images import observed
from msa3d.pipeline import notebooks
from msa3d.pipeline.layout import Layout

from ..fixtures import extraenv, run_on_disk, standin

PROJECT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SPAXELS = [[11, 8], [14, 10]]


def toc_pages() -> list[str]:
    toc = yaml.safe_load((PROJECT / "book" / "_toc.yml").read_text())
    return [toc["root"], *(page["file"] for part in toc["parts"] for page in part["chapters"])]


@pytest.fixture(scope="module")
def cube():
    return run_on_disk.small_cube().between(1.36, 1.43)


def galaxy_of(cube):
    """As much of a measured galaxy as the page shows, in one bin."""
    labels = np.where(observed(cube), 0, -1)
    bins = BinMap(labels, np.array([10.0]))
    lines, binned = (fit_lines(each, run_on_disk.REDSHIFT, names=("Ha", "[NII]6583")) for each in
                     (cube, stacked(cube, bins.masks)))  # fmt: skip
    return SimpleNamespace(
        source_id=8512, cube=cube, lines=lines, bins=bins, binned=binned, redshift=run_on_disk.REDSHIFT,
        science=Dataset.load("tiny").science,
    )  # fmt: skip


@pytest.fixture(scope="module")
def html(tmp_path_factory, cube):
    """A book as `make book` binds it, of stand-in notebooks, with a really measured map; or that of MSA3D_BOOK."""
    if given := os.environ.get("MSA3D_BOOK"):
        return Path(given).resolve()
    place = tmp_path_factory.mktemp("bound")
    shutil.copytree(PROJECT / "book", place / "book", ignore=shutil.ignore_patterns("_build", "notebooks"))
    layout = Layout(place / "run")
    for source in sorted((PROJECT / "notebooks").glob("0[1-4]_*.ipynb")):
        standin.execute(source, layout.notebooks)
    layout.truth.mkdir()
    page = layout.figures / "interactive" / "index.html"
    interactive.write_interactive(page, Dataset.load("tiny"), {8512: galaxy_of(cube)}, {})
    return notebooks.bind(layout, place / "book", PROJECT / "notebooks").parent


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of the requests."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(html):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def seen(html, served, tmp_path_factory):
    """What the browser found on every page."""
    browser = os.environ.get("MSA3D_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed, and no lock can bring one; MSA3D_BROWSER names one")
    python = extraenv.python_of("browser", extraenv.EXTRA / "requirements-browser.lock")
    place = tmp_path_factory.mktemp("seen")
    alone = (html / "figures" / "interactive" / "index.html").as_uri()
    wanted = {
        "pages": [f"{page}.html" for page in toc_pages()],
        "map": "interactive.html", "alone": alone, "spaxels": SPAXELS,
    }  # fmt: skip
    (place / "pages.json").write_text(json.dumps(wanted))
    command = [python, extraenv.EXTRA / "look_book.py", browser, served, place / "pages.json", place / "seen.json"]
    if shots := os.environ.get("MSA3D_SCREENSHOTS"):
        Path(shots).mkdir(parents=True, exist_ok=True)
        command.append(Path(shots).resolve())
    # What a browser keeps goes away with the test.
    environment = {**os.environ, "HOME": str(place), "XDG_CONFIG_HOME": str(place), "XDG_CACHE_HOME": str(place)}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((place / "seen.json").read_text())


def test_every_page_was_opened_at_two_widths_in_light_and_dark(seen):
    assert set(seen["pages"]) == {
        f"{page}.html {width} {scheme}"
        for page in toc_pages()
        for width in ("wide", "phone")
        for scheme in ("light", "dark")
    }


def test_nothing_fails_and_nothing_is_asked_of_other_servers(seen, served):
    for name, page in seen["pages"].items():
        assert page["console"] == [], name
        assert page["failed"] == [], name
        assert [url for url in page["asked"] if not url.startswith((served, "data:", "blob:"))] == [], name


def test_every_image_is_there_and_described(seen):
    images = [(name, image) for name, page in seen["pages"].items() for image in page["images"]]
    assert images
    for name, image in images:
        assert image["width"] > 0, (name, image["src"])
        assert image["alt"].strip(), (name, image["src"])


def test_pages_fit_on_a_phone(seen):
    """Only tables, code and figures are wider, in boxes that scroll by themselves."""
    for name, page in seen["pages"].items():
        assert page["scroll"] <= page["width"] + 1, (name, page["wide"])
        assert page["wide"] == [], name


def test_dark_is_dark_and_all_text_is_legible(seen):
    for name, page in seen["pages"].items():
        dark = name.endswith("dark")
        assert page["theme"] == ("dark" if dark else "light"), name
        assert (sum(page["ground"]) < 200) == dark, name
        assert page["faint"] == [], name


def test_the_button_switches_the_theme(seen):
    assert {"light", "dark"} <= set(seen["themes"])


@pytest.mark.skipif(bool(os.environ.get("MSA3D_BOOK")), reason="the cube of that book is not known here")
@pytest.mark.parametrize("where", ["map", "alone"])
def test_the_map_shows_the_spectrum_of_the_spaxel_under_the_mouse(seen, cube, where):
    """In the book, and opened from the disk by itself."""
    first, *hovered, stepped = seen[where]
    for spaxel, one in zip(SPAXELS, hovered, strict=True):
        assert one["spaxel"] == spaxel
        assert one["said"] != first["said"]
        wave = np.array(one["wave"])
        true = cube.data[:, *spaxel][np.abs(cube.wave_um[:, None] - wave).argmin(axis=0)]
        spectrum = np.array(one["spectrum"], dtype=float)
        np.testing.assert_allclose(spectrum, true, atol=2e-4 * np.abs(cube.data[np.isfinite(cube.data)]).max())
        east, north = cube.offsets(run_on_disk.RA, run_on_disk.DEC)
        assert one["place"] == pytest.approx([east[*spaxel], north[*spaxel]], abs=0.02)
    assert stepped["focus"] == "map"
    assert stepped["spaxel"] == [SPAXELS[-1][0] + 1, SPAXELS[-1][1]]
