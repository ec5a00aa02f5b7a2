"""What the book needs beyond Jupyter Book: a Sphinx extension.

Directives for the status page and the acknowledgements, formulae as MathML (no page asks a server for a script), and
warnings, which stop the build, of executed notebooks that are not fit to be bound.
"""

from __future__ import annotations

import ast
import csv
import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from pybtex.database import Entry, parse_file
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import msa3d_pages as pages
from msa3d import citations
from msa3d.pipeline import codeversion, notebooks

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from sphinx.application import Sphinx

NOTEBOOKS = pages.NOTEBOOKS
USED, NAME = f"{NOTEBOOKS}/04_figures.ipynb", "used"
"""Executed notebook that says what was used, and the name under which it is glued."""
PREFIX = "application/papermill.record/"
"""Of what is glued without being shown."""
BIBLIOGRAPHY = "references.bib"
PACKAGES = (
    "msa3d", "jwst", "crds", "stdatamodels", "stcal", "gwcs", "asdf", "drizzle", "astropy", "astroscrappy",
    "numpy", "scipy", "matplotlib", "papermill", "jupyter-book", "sphinx",
)  # fmt: skip
"""Packages whose versions the status page lists."""
STATUS_COLUMNS = ("notebook", "finished (UTC)", "wall time (s)", "peak memory (GB)")
DOI = "https://doi.org/"
BINDER = "https://mybinder.org"
UNKNOWN = "\u2013"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx."""
    app.add_directive("msa3d-status", Status)
    app.add_directive("msa3d-credits", Credits)
    app.add_directive("msa3d-told", Told)
    app.add_directive("msa3d-when", When)
    app.add_directive("msa3d-csv", Csv)
    app.add_directive("msa3d-figure", pages.ShowFigure)
    app.add_directive("msa3d-figures", pages.AllFigures)
    app.add_directive("msa3d-concordance", pages.Concordance)
    app.add_transform(pages.Figures)
    app.connect("source-read", pages.dress_source)
    # After all that copy files into the book.
    app.connect("build-finished", pages.finish, priority=900)
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    # Who publishes the book: the one setting behind all links to repository, source, Binder and JupyterHub.
    app.add_config_value("msa3d_repository", None, "html")
    app.add_config_value("msa3d_jupyterhub", None, "html")
    app.connect("config-inited", _offer_repository)
    app.connect("html-page-context", _place_of_source, priority=100)
    app.connect("builder-inited", _check_notebooks)
    # After all that add scripts.
    app.connect("html-page-context", _leave_thebe_out, priority=900)
    # The event is there only where links are checked.
    app.setup_extension("sphinx.builders.linkcheck")
    app.connect("linkcheck-process-uri", lambda app, address: registered(address))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def registered(address: str) -> str:
    """Address at which a DOI's register tells of it, as publishers turn away programmes that follow links."""
    return f"{DOI}api/handles/{address.removeprefix(DOI)}" if address.startswith(DOI) else address


# --- acknowledgements ---------------------------------------------------------------------------------------


def glued(path: Path, name: str) -> dict[str, str] | None:
    """What an executed notebook has glued, by kind; None where the notebook, or the name, is not there."""
    if not path.is_file():
        return None
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
                return {kind.removeprefix(PREFIX): text for kind, text in output.data.items()}
    return None


class Told(SphinxDirective):
    """``msa3d-told`` with the name of a notebook and of a sentence or table that it tells, by ``Run.tell``."""

    required_arguments = 2

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / NOTEBOOKS / f"{self.arguments[0]}.ipynb"
        self.env.note_dependency(str(path))
        found = glued(path, self.arguments[1])
        if found is None or "text/markdown" not in found:
            raise self.error(f"{path.name} tells no {self.arguments[1]!r}")
        shown = self.parse_text_to_nodes(found["text/markdown"])
        for table in (table for node in shown for table in node.findall(nodes.table)):
            last = next(iter(table.findall(nodes.thead))).children[0].children[-1].astext()
            # On a phone the pull stays in sight.
            table["classes"] += ["told", *(["pull-last"] if last == "pull" else [])]
        return shown


class When(SphinxDirective):
    """``msa3d-when`` with ``simulated`` or ``real``: what it holds is in the books of such observations alone."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        kinds = ("real", "simulated")
        if self.arguments[0] not in kinds:
            raise self.error(f"msa3d-when knows {' and '.join(kinds)}, not {self.arguments[0]!r}")
        # A heading opens a section of the page, and what comes before it would end up behind it.
        if any(line.startswith("## ") for line in list(self.content)[1:] if "## " not in self.content[0]):
            raise self.error("msa3d-when begins with a heading or holds none")
        if self.arguments[0] != kinds[os.environ.get(notebooks.SIMULATED, "1") == "1"]:
            return []
        return self.parse_content_to_nodes(allow_section_headings=True)


def met(must: str, aim: str, measured: str) -> str:
    """Say which of two limits a figure of merit meets: ``must and aim``, ``must only`` or ``neither``.

    A limit holds for the size of the figure; it is a least one where the aim is above what must be.
    """
    least, wanted, found = (abs(float(text.strip("%"))) for text in (must, aim, measured))
    reached = [found >= limit if wanted > least else found <= limit for limit in (least, wanted)]
    return ("neither", "must only", "must and aim")[sum(reached)]


class Csv(SphinxDirective):
    """``msa3d-csv`` with the name of a table among the pages; nothing where it is not there.

    A table of figures of merit (``must``, ``aim``, ``measured``) gets a column that says which is met.
    """

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / self.arguments[0]
        self.env.note_dependency(str(path))
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as lines:
            header, *rows = [tuple(row) for row in csv.reader(line for line in lines if not line.startswith("#"))]
        if {"must", "aim", "measured"} <= set(header):
            limits = [header.index(name) for name in ("must", "aim", "measured")]
            rows = [(*row, met(*(row[k] for k in limits))) for row in rows]
            header = (*header, "met")
        return [_table(header, rows)]


def bibtex(path: Path, packages: Iterable[str], calibrations: Iterable[str]) -> str:
    """Entries of a bibliography for the method, for packages, and for calibrations, these by their bibcode."""
    entries: dict[str, Entry] = parse_file(str(path)).entries
    by_bibcode = {entry.fields["bibcode"]: key for key, entry in entries.items() if "bibcode" in entry.fields}
    keys = [citations.METHOD, *(citations.PACKAGES[name] for name in packages if name in citations.PACKAGES)]
    keys += [by_bibcode[bibcode] for _, bibcode in citations.references(calibrations).values()]
    return "\n\n".join(_entry(key, entries[key]) for key in dict.fromkeys(keys)) + "\n"


def _entry(key: str, entry: Entry) -> str:
    """An entry as it is in the bibliography: pybtex would escape its LaTeX once more."""
    people = {role: " and ".join(map(str, persons)) for role, persons in entry.persons.items()}
    fields = [f"  {name} = {{{value}}}" for name, value in (people | dict(entry.fields)).items()]
    return ",\n".join([f"@{entry.type}{{{key}", *fields]) + "\n}"


class Credits(SphinxDirective):
    """``msa3d-credits`` with ``acknowledgements`` or ``bibtex`` as its argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir)
        self.env.note_dependency(str(folder / USED))
        found = glued(folder / USED, NAME)
        if found is None:
            raise self.error(f"{USED} does not say what was used: it glues no {NAME!r}")
        used = ast.literal_eval(found["text/plain"])
        if self.arguments[0] == "acknowledgements":
            return [nodes.paragraph(text=citations.acknowledgements(**used))]
        if self.arguments[0] == "bibtex":
            text = bibtex(folder / BIBLIOGRAPHY, **used)
            return [nodes.literal_block(text, text, language="bibtex")]
        raise self.error(f"msa3d-credits knows acknowledgements and bibtex, not {self.arguments[0]!r}")


# --- status -------------------------------------------------------------------------------------------------


def status_rows(folder: Path) -> list[tuple[str, ...]]:
    """What each executed notebook took, as `STATUS_COLUMNS`, sorted by name; a dash for what is unknown."""
    rows = []
    for path in sorted(folder.glob("*.ipynb")):
        metadata = nbformat.read(path, as_version=4).metadata
        cost = metadata.get(notebooks.METADATA, {})
        end = (metadata.get("papermill", {}).get("end_time") or "")[:19].replace("T", " ")
        numbers = [f"{cost[key]:{form}}" if key in cost else UNKNOWN for key, form in
                   (("seconds", ".0f"), ("peak_memory_gb", ".2f"))]  # fmt: skip
        rows.append((path.stem, end or UNKNOWN, *numbers))
    return rows


def version_rows() -> list[tuple[str, str]]:
    """Versions of what made the book: Python, the packages of the chain, the revision of the source."""
    rows = [
        ("Python", platform.python_version()),
        ("platform", f"{platform.system()} {platform.machine()}"),
        ("git revision", codeversion.git_revision()),
    ]
    for name in PACKAGES:
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "not installed"))
    return rows


class Status(SphinxDirective):
    """``msa3d-status`` with ``notebooks`` or ``versions`` as its argument."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        kind = self.arguments[0]
        if kind == "notebooks":
            folder = Path(self.env.srcdir) / NOTEBOOKS
            for path in folder.glob("*.ipynb"):
                self.env.note_dependency(str(path))
            return [_table(STATUS_COLUMNS, status_rows(folder))]
        if kind == "versions":
            return [_table(("software", "version"), version_rows())]
        raise self.error(f"msa3d-status knows notebooks and versions, not {kind!r}")


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> nodes.table:
    """Docutils table of plain text."""
    first, *others = [[[nodes.Text(text)] for text in line] for line in (header, *rows)]
    return pages.table_of(first, others)


# --- notebooks ----------------------------------------------------------------------------------------------


def silent_cells(notebook: NotebookNode) -> list[str]:
    """Cells that end in a value and show none, a sentence each."""
    found = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        try:
            body = ast.parse(cell.source).body
        except SyntaxError:
            continue  # an IPython magic: nothing can be told
        ends_in_value = bool(body) and isinstance(body[-1], ast.Expr)
        shown = [output for output in cell.outputs if output.output_type != "stream" or output.text.strip()]
        if ends_in_value and not shown:
            found.append(f"cell {number} ends in a value and shows nothing")
    return found


def undescribed_figures(notebook: NotebookNode) -> list[str]:
    """Cells with a figure that has no text for readers who cannot see it, a sentence each."""
    return [
        f"cell {number} shows a figure without alternative text"
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", ())
        if (told := pages.described(output)) is not None and not told["alt"].strip()
    ]


def problems(notebook: NotebookNode) -> list[str]:
    """All that keeps an executed notebook out of the book: failed, silent, figureless or undescribed cells."""
    return [*notebooks.faults(notebook), *silent_cells(notebook), *undescribed_figures(notebook)]


def _check_notebooks(app: Sphinx) -> None:
    """Warn of every executed notebook that is not fit to be bound."""
    logger = logging.getLogger(__name__)
    folder = Path(app.srcdir) / NOTEBOOKS
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        logger.warning("there are no executed notebooks in %s", folder)
    for path in paths:
        for problem in problems(nbformat.read(path, as_version=4)):
            logger.warning("%s: %s", path.name, problem)


# --- pages --------------------------------------------------------------------------------------------------


def repository() -> str | None:
    """Address of the repository that the book is published from, where the service that builds it tells."""
    name = os.environ.get("GITHUB_REPOSITORY")
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    return f"{server}/{name}" if name else os.environ.get("READTHEDOCS_GIT_CLONE_URL", "").removesuffix(".git") or None


def _offer_repository(app: Sphinx, config: Any) -> None:
    """Links to repository and source, and notebooks opened in Binder: as in the repository, not executed."""
    if address := config.msa3d_repository or repository():
        hub = {"jupyterhub_url": config.msa3d_jupyterhub} if config.msa3d_jupyterhub else {}
        config.html_theme_options |= {
            "repository_url": address,
            "repository_branch": "HEAD",
            "path_to_docs": "",
            "use_repository_button": True,
            "use_edit_page_button": True,
            "launch_buttons": {"binderhub_url": BINDER, "notebook_interface": "jupyterlab", **hub},
        }


def _place_of_source(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Notebooks lie at the top of the repository, all other pages in its folder of the book."""
    context["doc_path"] = "" if page.startswith(f"{NOTEBOOKS}/") else "book"


def _leave_thebe_out(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Take out the scripts of Thebe, which Jupyter Book declares twice, an error in the browser's console."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes.get('body', '')}".lower()
    ]


def to_mathml(formula: str, *, block: bool) -> str:
    """Turn a formula of LaTeX into MathML, which browsers draw by themselves; ValueError where that is not possible."""
    try:
        return str(latex2mathml.tex2mathml(formula, as_block=block))
    except MathError as error:
        raise ValueError(f"the formula {formula!r} cannot be drawn: {error}") from error


def _visit_math(translator: Any, node: Any) -> None:
    translator.body.append(to_mathml(node.astext(), block=False))
    raise nodes.SkipNode


def _visit_math_block(translator: Any, node: Any) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    translator.body.append(to_mathml(node.astext(), block=True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode
