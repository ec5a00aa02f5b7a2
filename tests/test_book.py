"""The book: what keeps a notebook out of it, its status tables, its formulae, and that it builds."""

import csv
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

import msa3d_book as book
import msa3d_pages
from msa3d.errors import ProductError
from msa3d.pipeline import notebooks
from msa3d.pipeline.layout import Layout
from msa3d.pipeline.products import jwst_version

from .fixtures import standin

PROJECT = Path(__file__).parents[1]


def notebook_of(*cells):
    return nbformat.v4.new_notebook(cells=list(cells))


def cell_of(source, outputs=(), **metadata):
    cell = nbformat.v4.new_code_cell(source, execution_count=1, outputs=list(outputs))
    cell.metadata.update(metadata)
    return cell


def image():
    return nbformat.v4.new_output("execute_result", data={"image/png": standin.PIXEL}, execution_count=1)


def test_a_whole_notebook_has_no_problem():
    good = notebook_of(
        cell_of("x = 1"),
        cell_of("save(f)", [standin.figure("galaxy")], tags=["figure"]),
        nbformat.v4.new_markdown_cell("text"),
    )
    assert book.problems(good) == []


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (cell_of("report.table()"), "cell 0 ends in a value and shows nothing"),
        (
            cell_of("print('')", [nbformat.v4.new_output("stream", name="stdout", text="\n")]),
            "cell 0 ends in a value and shows nothing",
        ),
        (cell_of("x = 1", tags=["figure"]), "cell 0 should show a figure and shows none"),
        (cell_of("save(f)", [image()], tags=["figure"]), "cell 0 shows a figure without alternative text"),
        (
            cell_of("x", [nbformat.v4.new_output("error", ename="KeyError", evalue="no", traceback=[])]),
            "cell 0 failed with KeyError: no",
        ),
    ],
)
def test_what_keeps_a_notebook_out(cell, message):
    assert any(problem.startswith(message) for problem in book.problems(notebook_of(cell)))


def test_status_says_what_each_notebook_took(tmp_path):
    source = PROJECT / "notebooks" / "01_process.ipynb"
    standin.execute(source, tmp_path)
    bare = nbformat.v4.new_notebook()
    nbformat.write(bare, tmp_path / "02_bare.ipynb")
    assert book.status_rows(tmp_path) == [
        ("01_process", "2026-01-02 03:04:05", "12", "1.23"),
        ("02_bare", "\u2013", "\u2013", "\u2013"),
    ]


def test_versions_name_the_pipeline():
    versions = dict(book.version_rows())
    assert versions["jwst"] == jwst_version()
    assert versions["Python"].startswith("3.11.")
    assert versions["git revision"]


def test_formulae_become_mathml():
    inline = book.to_mathml(r"\sigma_0^2", block=False)
    assert inline.startswith("<math") and "<msubsup>" in inline and "\u03c3" in inline
    assert 'display="block"' in book.to_mathml("x", block=True)
    with pytest.raises(ValueError, match="cannot be drawn"):
        book.to_mathml(r"\nosuchcommand{x}", block=False)


def test_captions_have_a_title_and_formulae():
    first, rest, index, end = msa3d_pages._inline("Dust of MSA-3D 8512. (a) A$_V$ of 10% in M*.", title=True)
    assert first.astext() == "Dust of MSA-3D 8512." and first.tagname == "strong"
    assert (rest.astext(), index.tagname, index.astext(), end.astext()) == (
        " (a) A",
        "subscript",
        "V",
        " of 10% in M*.",
    )
    # What the browser cannot draw is text, and no reason to stop.
    assert [n.tagname for n in msa3d_pages._inline(r"a $\sigma_0$ b $\nosuchcommand$")][1::2] == ["math", "#text"]
    assert msa3d_pages.SENTENCE.split("Maps of H. II regions at 0.5 arcsec. (a) Flux.")[-1] == "(a) Flux."


@pytest.fixture
def pages(tmp_path):
    """A copy of the book's own pages, so that nothing is built in the source tree."""
    copy = tmp_path / "book"
    shutil.copytree(PROJECT / "book", copy, ignore=shutil.ignore_patterns("_build", "notebooks"))
    return copy


@pytest.fixture
def run(tmp_path):
    layout = Layout(tmp_path / "run")
    layout.truth.mkdir(parents=True)
    layout.figures.mkdir(parents=True)
    (layout.figures / "multiplex.pdf").write_bytes(b"%PDF")
    (layout.figures / "interactive").mkdir()
    (layout.figures / "interactive" / "index.html").write_text("<title>a map</title>")
    for source in sorted((PROJECT / "notebooks").glob("0[1-4]_*.ipynb")):
        standin.execute(source, layout.notebooks)
    return layout


@pytest.mark.slow
def test_the_book_builds_with_warnings_as_errors(pages, run, monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "somebody/msa3d")
    # As `make book` names the pages: from where it is called.
    monkeypatch.chdir(pages.parent)
    first = notebooks.bind(run, Path(pages.name), PROJECT / "notebooks").absolute()
    html = first.parent
    assert first.is_file()
    text = {path.stem: path.read_text() for path in [*html.glob("*.html"), *html.glob("notebooks/*.html")]}
    for page in ("intro", "simulated", "method", "validation", "references", "status", "01_process", "04_figures"):
        assert page in text
    assert "closure test" in text["intro"] and "simulated" in text["intro"]
    assert "<p>1.5</p>" in text["validation"] and "<p>1.5</p>" in text["two_builders"]
    assert jwst_version() in text["status"] and "01_process" in text["status"]
    assert "<math" in text["method"]
    # What stands before a heading stays there.
    assert text["headline"].index("<em>Pull</em> is recovered") < text["headline"].index("<h2>How to read it")
    # Where it is known who publishes it, a reader can open the notebook itself, not its executed copy.
    binder = "https://mybinder.org/v2/gh/somebody/msa3d/HEAD?urlpath=lab/tree/notebooks/01_process.ipynb"
    assert binder in unquote(text["01_process"])
    assert "https://github.com/somebody/msa3d/edit/HEAD/book/method.md" in text["method"]
    assert "https://github.com/somebody/msa3d/edit/HEAD/notebooks/01_process.ipynb" in text["01_process"]
    for page in text.values():
        # No page may ask a server for a script, a style or a font when it is opened.
        assert not re.findall(r'<(?:script|img|iframe)[^>]+src="https?:', page)
        assert not re.findall(r'<link[^>]+stylesheet[^>]+href="https?:', page)
        # The machine that made it is nobody's business.
        assert str(run.root) not in page
    # Numbered, described, with its files, and of known size, so that nothing moves as pages are loaded.
    page = text["04_figures"]
    assert re.search(r'<img alt="what is seen in the stand-in of multiplex"[^>]* width="1" height="1"', page)
    assert re.search(r'caption-number">Fig\. \d+ ', page) and 'href="../figures/multiplex.pdf"' in page
    assert (html / "figures" / "multiplex.pdf").is_file()
    assert re.search(r">Fig\. \d+</span></a>", text["figures"])
    # Cells that say which run it is are not in the book; all other code is folded.
    assert "papermill" not in page.lower().split("<article")[1].split("</article")[0]
    for path in html.glob("_sources/notebooks/*.ipynb"):
        assert not any(cell.get("outputs") for cell in nbformat.read(path, as_version=4).cells)
    assert not [*html.rglob("*.map"), *html.rglob("fontawesome.js")] and "fontawesome.js" not in page
    # The figure of the first page is the file of its notebook.
    assert len([*html.glob("_images/*.png")]) == len({path.read_bytes() for path in html.glob("_images/*.png")})


@pytest.mark.slow
def test_a_book_of_real_data_has_nothing_that_needs_a_truth(pages, run):
    run.truth.rmdir()
    html = notebooks.bind(run, pages, PROJECT / "notebooks").parent
    assert not (html / "simulated.html").exists()
    for page in ("intro", "validation", "two_builders"):
        assert "injected" not in (html / f"{page}.html").read_text().split("<article")[1].split("</article")[0]


def test_who_publishes_the_book_is_told_by_the_service(monkeypatch):
    for name in ("GITHUB_REPOSITORY", "GITHUB_SERVER_URL", "READTHEDOCS_GIT_CLONE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert book.repository() is None
    monkeypatch.setenv("READTHEDOCS_GIT_CLONE_URL", "https://github.com/somebody/msa3d.git")
    assert book.repository() == "https://github.com/somebody/msa3d"


@pytest.mark.slow
def test_a_broken_reference_stops_the_build(pages, run):
    page = pages / "validation.md"
    page.write_text(page.read_text() + "\n```{msa3d-told} 04_figures no_such_table\n```\n")
    with pytest.raises(ProductError, match="could not be built"):
        notebooks.bind(run, pages, PROJECT / "notebooks")


def test_a_notebook_without_its_figure_is_not_bound(pages, run):
    path = run.notebooks / "04_figures.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "figure" in cell.metadata.get("tags", ()):
            cell.outputs = []
    nbformat.write(notebook, path)
    with pytest.raises(ProductError, match="should show a figure and shows none"):
        notebooks.bind(run, pages, PROJECT / "notebooks")


@pytest.mark.parametrize(
    ("must", "aim", "measured", "told"),
    [
        ("1e-4", "1e-6", "1.2e-06", "must only"),
        ("2%", "1%", "-2.5%", "neither"),
        ("5", "2", "+0.6", "must and aim"),
        # More is better where the aim is above the least.
        ("95%", "99%", "97.0%", "must only"),
        ("95%", "99%", "100.0%", "must and aim"),
        ("95%", "99%", "94.0%", "neither"),
    ],
)
def test_a_figure_of_merit_says_which_limit_it_meets(must, aim, measured, told):
    assert book.met(must, aim, measured) == told


def test_figures_of_merit_of_the_book_meet_what_they_must():
    """A row whose limits cannot be read, or a figure that fails, would show on the page."""
    with (PROJECT / "book" / "figures_of_merit.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) > 5
    assert {book.met(row["must"], row["aim"], row["measured"]) for row in rows} <= {"must and aim", "must only"}
