"""Every address within the book leads somewhere: to a file, and to a place in it.

Links that leave the book are followed by the weekly workflow, which needs the network. ``MSA3D_BOOK`` names the html
of a book that is there already; without it one is built of stand-in notebooks.
"""

from __future__ import annotations

import os
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import msa3d_book as book
from msa3d.pipeline import notebooks
from msa3d.pipeline.layout import Layout

from .fixtures import standin

PROJECT = Path(__file__).parents[1]
WANTED = {"a": "href", "link": "href", "img": "src", "script": "src", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """Addresses that a page names, and places in it that can be named."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: set[str] = set()
        self.places: set[str] = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.places |= {value for name in ("id", "name") if (value := given.get(name))}
        address = given.get(WANTED.get(tag, ""))
        if address:
            self.addresses.add(address)


def pages_of(html: Path) -> list[Path]:
    """All pages, without the templates that the theme leaves among its files."""
    return [path.resolve() for path in html.rglob("*.html") if not path.name.endswith("webpack-macros.html")]


def dead_links(html: Path) -> list[str]:
    """Addresses of all pages that lead nowhere within the book."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in pages_of(html)}
    dead = []
    for path, page in pages.items():
        for address in sorted(page.addresses):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            if not there.is_file() or not there.is_relative_to(html.resolve()):
                dead.append(f"{path.name}: {address}: no such file")
            elif there in pages and unquote(parts.fragment) not in pages[there].places:
                dead.append(f"{path.name}: {address}: no such place")
    return dead


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    if given := os.environ.get("MSA3D_BOOK"):
        return Path(given)
    folder = tmp_path_factory.mktemp("bound")
    pages = folder / "book"
    shutil.copytree(PROJECT / "book", pages, ignore=shutil.ignore_patterns("_build", "notebooks"))
    layout = Layout(folder / "run")
    for source in sorted((PROJECT / "notebooks").glob("0[1-4]_*.ipynb")):
        standin.execute(source, layout.notebooks)
    layout.truth.mkdir()
    # What the page of the map frames is written by the last notebook.
    frame = layout.figures / "interactive" / "index.html"
    frame.parent.mkdir(parents=True)
    frame.write_text("<title>a map</title>")
    return notebooks.bind(layout, pages, PROJECT / "notebooks").parent


@pytest.mark.slow
def test_no_link_within_the_book_is_dead(html):
    assert dead_links(html) == []


@pytest.mark.slow
def test_every_page_can_be_reached(html):
    """By links alone, from the first page."""
    reached, waiting = set(), [(html / "intro.html").resolve()]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        for address in Page(path.read_text(encoding="utf-8")).addresses:
            parts = urlsplit(address)
            if not parts.scheme and not parts.netloc and parts.path.endswith(".html"):
                waiting.append((path.parent / unquote(parts.path)).resolve())
    made_by_sphinx = {(html / name).resolve() for name in ("index.html", "genindex.html", "search.html")}
    assert set(pages_of(html)) - reached - made_by_sphinx == set()


def test_a_dead_link_is_seen(tmp_path):
    (tmp_path / "one.html").write_text(
        '<a href="two.html#here">good</a><a href="two.html#gone">bad</a><img src="none.png"><a href="https://x.org">out</a>'
    )
    (tmp_path / "two.html").write_text('<p id="here">text</p>')
    assert dead_links(tmp_path) == ["one.html: none.png: no such file", "one.html: two.html#gone: no such place"]


@pytest.mark.slow
def test_the_acknowledgements_are_those_of_the_notebook(html):
    """The page has the versions and the calibrations that the executed notebook found, not those of this process."""
    text = " ".join((html / "acknowledgements.html").read_text(encoding="utf-8").split())
    if "MSA3D_BOOK" not in os.environ:
        assert "numpy 1.2.3" in text and "astropy" not in text.split("<article")[1].split("BibTeX")[0]
    assert "Pettini" in text and "2004MNRAS.348L..59P" in text and "barisic2024" in text


def test_a_notebook_that_says_nothing_says_nothing(tmp_path):
    source = PROJECT / "notebooks" / "01_process.ipynb"
    assert book.glued(standin.execute(source, tmp_path), book.NAME) is None
    assert book.glued(tmp_path / "none.ipynb", book.NAME) is None


def test_of_a_doi_the_register_is_asked():
    assert book.registered("https://doi.org/10.1086/323894") == "https://doi.org/api/handles/10.1086/323894"
    assert book.registered("https://arxiv.org/abs/2408.08350") == "https://arxiv.org/abs/2408.08350"
