"""What the book needs beyond Jupyter Book: a Sphinx extension.

Acknowledgements of a run as pages of the book, and its DOIs as links that can be followed: a Sphinx extension.

What the book needs beyond Jupyter Book: a Sphinx extension.

It adds the directive ``msa3d-status`` (what each notebook took, which versions made the book), draws
formulae as MathML, so that no page asks a server for a script, and warns of executed notebooks that are
not fit to be bound. The book is built with warnings as errors, so each of these stops the build.
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from msa3d import citations
from msa3d.pipeline import codeversion, notebooks

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from sphinx.application import Sphinx


NOTEBOOK = "notebooks/04_figures.ipynb"
"""Executed notebook that says what was used."""

NAME = "used"
"""Name under which it is glued."""

_RECORD = "application/papermill.record/text/plain"
_DOI = "https://doi.org/"


def glued(path: Path, name: str = NAME) -> dict[str, Any] | None:
    """Read a dictionary that an executed notebook has glued.

    Parameters
    ----------
    path : Path
        The executed notebook.
    name : str
        Its name.

    Returns
    -------
    dict or None
        None where the notebook, or the name in it, is not there.
    """
    if not path.is_file():
        return None
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
                return ast.literal_eval(output.data[_RECORD])
    return None


def registered(address: str) -> str:
    """Address at which it can be asked whether a DOI is registered.

    Parameters
    ----------
    address : str
        Of any link.

    Returns
    -------
    str
        That of the register for a DOI, as publishers turn away programmes that follow links; others as they are.
    """
    return f"{_DOI}api/handles/{address.removeprefix(_DOI)}" if address.startswith(_DOI) else address


def setup_acknowledgements(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx.

    Parameters
    ----------
    app : Sphinx
        The application that builds the book.

    Returns
    -------
    dict
        Metadata of the extension.
    """
    app.add_directive("msa3d-credits", _directive())
    # The event is there only where links are checked.
    app.setup_extension("sphinx.builders.linkcheck")
    app.connect("linkcheck-process-uri", lambda app, address: registered(address))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _directive() -> type:
    """Return the class of the directive; made here so that msa3d can be imported without Sphinx."""
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

    class Credits(SphinxDirective):
        """``msa3d-credits`` with ``acknowledgements`` or ``bibtex`` as its argument."""

        required_arguments = 1

        def run(self) -> list[nodes.Node]:
            path = Path(self.env.srcdir) / NOTEBOOK
            self.env.note_dependency(str(path))
            used = glued(path)
            if used is None:
                raise self.error(f"{NOTEBOOK} does not say what was used: it glues no {NAME!r}")
            if self.arguments[0] == "acknowledgements":
                return [nodes.paragraph(text=citations.acknowledgements(**used))]
            if self.arguments[0] == "bibtex":
                text = citations.bibtex(**used)
                return [nodes.literal_block(text, text, language="bibtex")]
            raise self.error(f"msa3d-credits knows acknowledgements and bibtex, not {self.arguments[0]!r}")

    return Credits


NOTEBOOKS = "notebooks"

PACKAGES = (
    "msa3d", "jwst", "crds", "stdatamodels", "stcal", "gwcs", "asdf", "drizzle", "astropy", "astroscrappy",
    "numpy", "scipy", "matplotlib", "papermill", "jupyter-book", "sphinx",
)  # fmt: skip
"""Packages whose versions the status page lists."""

BINDER = "https://mybinder.org"

STATUS_COLUMNS = ("notebook", "finished (UTC)", "wall time (s)", "peak memory (GB)")


def silent_cells(notebook: NotebookNode) -> list[str]:
    """List cells that end in a value and show none.

    Parameters
    ----------
    notebook : NotebookNode
        An executed notebook.

    Returns
    -------
    list of str
        A sentence each; empty for a notebook whose every cell shows what it ends in.
    """
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
    """List cells with a figure but without a text for readers who cannot see it.

    Parameters
    ----------
    notebook : NotebookNode
        A notebook, executed or not.

    Returns
    -------
    list of str
        A sentence each.
    """
    return [
        f"cell {number} shows a figure without alternative text (metadata mystnb.image.alt)"
        for number, cell in enumerate(notebook.cells)
        if "figure" in cell.metadata.get("tags", ())
        and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "").strip()
    ]


def problems(notebook: NotebookNode) -> list[str]:
    """List all that keeps an executed notebook out of the book.

    Parameters
    ----------
    notebook : NotebookNode
        As nbformat reads it.

    Returns
    -------
    list of str
        Failed, silent, figureless or undescribed cells; empty for a notebook that can be bound.
    """
    return [*notebooks.faults(notebook), *silent_cells(notebook), *undescribed_figures(notebook)]


def status_rows(folder: Path) -> list[tuple[str, ...]]:
    """What each executed notebook took.

    Parameters
    ----------
    folder : Path
        The executed notebooks.

    Returns
    -------
    list of tuple of str
        Name, end, wall time and peak memory (`STATUS_COLUMNS`), sorted by name; a dash for what is unknown.
    """
    rows = []
    for path in sorted(folder.glob("*.ipynb")):
        metadata = nbformat.read(path, as_version=4).metadata
        cost = metadata.get(notebooks.METADATA, {})
        end = metadata.get("papermill", {}).get("end_time") or ""
        rows.append(
            (
                path.stem,
                end[:19].replace("T", " ") or "\u2013",
                _number(cost.get("seconds"), ".0f"),
                _number(cost.get("peak_memory_gb"), ".2f"),
            )
        )
    return rows


def _number(value: float | None, form: str) -> str:
    return "\u2013" if value is None else format(value, form)


def version_rows() -> list[tuple[str, str]]:
    """Versions of what made the book: Python, the packages of the chain, the revision of the source.

    Returns
    -------
    list of tuple of str
        Name and version.
    """
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


def to_mathml(formula: str, *, block: bool) -> str:
    """Turn a formula into MathML, which browsers draw by themselves.

    Parameters
    ----------
    formula : str
        In LaTeX's notation.
    block : bool
        Whether it stands on a line of its own.

    Returns
    -------
    str
        A ``math`` element. An attribute keeps the source, for copying.

    Raises
    ------
    ValueError
        Where the formula uses what cannot be turned.
    """
    from docutils.utils.math import MathError, latex2mathml

    try:
        return str(latex2mathml.tex2mathml(formula, as_block=block))
    except MathError as error:
        raise ValueError(f"the formula {formula!r} cannot be drawn: {error}") from error


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension with Sphinx.

    Parameters
    ----------
    app : Sphinx
        The application that builds the book.

    Returns
    -------
    dict
        Metadata of the extension.
    """
    setup_acknowledgements(app)
    app.add_directive("msa3d-status", _status_directive())
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    app.connect("config-inited", _offer_binder)
    app.connect("builder-inited", _check_notebooks)
    # After all that add scripts.
    app.connect("html-page-context", _leave_thebe_out, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def repository() -> str | None:
    """Address of the repository that the book is published from, where the service that builds it tells."""
    name = os.environ.get("GITHUB_REPOSITORY")
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com")
    return f"{server}/{name}" if name else os.environ.get("READTHEDOCS_GIT_CLONE_URL", "").removesuffix(".git") or None


def _offer_binder(app: Sphinx, config: Any) -> None:
    """Let a reader of a published notebook open it in Binder: as it is in the repository, not executed."""
    if address := repository():
        config.html_theme_options |= {
            "repository_url": address,
            "repository_branch": "HEAD",
            "path_to_docs": "",
            "launch_buttons": {"binderhub_url": BINDER, "notebook_interface": "jupyterlab"},
        }


def _leave_thebe_out(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Take out the scripts of Thebe, which Jupyter Book declares twice, an error in the browser's console."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes.get('body', '')}".lower()
    ]


def _check_notebooks(app: Sphinx) -> None:
    """Warn of every executed notebook that is not fit to be bound."""
    from sphinx.util import logging

    logger = logging.getLogger(__name__)
    folder = Path(app.srcdir) / NOTEBOOKS
    paths = sorted(folder.glob("*.ipynb"))
    if not paths:
        logger.warning("there are no executed notebooks in %s", folder)
    for path in paths:
        for problem in problems(nbformat.read(path, as_version=4)):
            logger.warning("%s: %s", path.name, problem)


def _visit_math(translator: Any, node: Any) -> None:
    from docutils import nodes

    translator.body.append(to_mathml(node.astext(), block=False))
    raise nodes.SkipNode


def _visit_math_block(translator: Any, node: Any) -> None:
    from docutils import nodes

    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    translator.body.append(to_mathml(node.astext(), block=True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def _status_directive() -> type:
    """Return the class of the directive; made here so that msa3d can be imported without Sphinx."""
    from docutils import nodes
    from sphinx.util.docutils import SphinxDirective

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

    return Status


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> Any:
    """Docutils table of plain text."""
    from docutils import nodes

    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    for part, content in ((nodes.thead(), [header]), (nodes.tbody(), rows)):
        for line in content:
            row = nodes.row()
            row += [nodes.entry("", nodes.paragraph(text=text)) for text in line]
            part += row
        group += part
    return nodes.table("", group)
