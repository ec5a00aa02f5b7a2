"""Acknowledgements of a run as pages of the book, and its DOIs as links that can be followed: a Sphinx extension."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from msa3d.science import citations

if TYPE_CHECKING:
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
