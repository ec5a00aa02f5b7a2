"""How pages of the book are dressed: folded code, numbered figures with captions and files, light pages.

Part of the Sphinx extension `msa3d_book`. A figure is described by the code that drew it: its name, caption and
alternative text travel in the metadata of the notebook's output, and its files lie in ``_extra/figures``.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64decode
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.utils.math import MathError, latex2mathml
from PIL import Image
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

NOTEBOOKS = "notebooks"
FIGURES = "figures"
"""Folder of the figures' files, below ``_extra`` among the pages and at the top of the book."""
DESCRIBED = re.compile(r"<(\w+): (.+)>", re.DOTALL)
"""What a figure shows as plain text: its name and its alternative text."""
FILES = {".pdf": "PDF", ".ecsv": "data (ECSV)"}
SETUP = {"parameters", "injected-parameters"}
"""Tags of cells that say which run it is: the same in all notebooks, and left out of the book."""


@dataclass(frozen=True)
class Shown:
    """A figure in an executed notebook.

    Attributes
    ----------
    name, caption, alt : str
        As the code that drew it has them; caption in Markdown, the alternative text where there is none.
    page : str
        The notebook's page.
    image : bytes
        The PNG.
    """

    name: str
    caption: str
    alt: str
    page: str
    image: bytes

    @property
    def digest(self) -> str:
        """Name, without ending, under which MyST-NB writes the image."""
        return hashlib.sha256(self.image).hexdigest()

    @property
    def label(self) -> str:
        """Where it can be referred to."""
        return f"fig-{self.name}".replace("_", "-")


def described(output: Any) -> dict[str, str] | None:
    """Name, caption and alternative text of a figure among outputs; None for an output that is none.

    A figure has them in the metadata of its image; one without has its name and alternative text as plain text.
    """
    data = output.get("data", {})
    if "image/png" not in data:
        return None
    known = output.get("metadata", {}).get("image/png", {})
    found = DESCRIBED.fullmatch(str(data.get("text/plain", "")).strip())
    name, alt = known.get("name") or (found[1] if found else ""), known.get("alt") or (found[2] if found else "")
    return {"name": name, "alt": alt, "caption": known.get("caption") or alt}


@lru_cache(maxsize=16)
def _shown(path: Path, _changed: int) -> tuple[Shown, ...]:
    found = []
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            if (told := described(output)) and told["name"]:
                found.append(Shown(**told, page=f"{NOTEBOOKS}/{path.stem}", image=b64decode(output.data["image/png"])))
    return tuple(found)


def shown(path: Path) -> tuple[Shown, ...]:
    """All figures of an executed notebook that say what they are, in their order."""
    return _shown(path, path.stat().st_mtime_ns) if path.is_file() else ()


def all_shown(folder: Path) -> list[Shown]:
    """Figures of all notebooks, each once, where it is first shown."""
    found: dict[str, Shown] = {}
    for path in sorted((folder / NOTEBOOKS).glob("*.ipynb")):
        for figure in shown(path):
            found.setdefault(figure.name, figure)
    return list(found.values())


# --- notebooks ----------------------------------------------------------------------------------------------


def dress(notebook: Any) -> None:
    """Fold the code of an executed notebook, and leave out cells that only say which run it is; in place."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        tags = set(cell.metadata.get("tags", ()))
        last = cell.source.strip().splitlines()[-1:] == ["run"]
        cell.metadata["tags"] = sorted(tags | ({"remove-cell"} if tags & SETUP or last else {"hide-input"}))


def dress_source(_app: Any, docname: str, source: list[str]) -> None:
    """The same for the text of a page, as Sphinx reads it."""
    if docname.startswith(f"{NOTEBOOKS}/"):
        notebook = nbformat.reads(source[0], as_version=4)
        dress(notebook)
        source[0] = nbformat.writes(notebook)


class Figures(SphinxTransform):
    """Images that notebooks show become figures: numbered, with caption, alternative text and files."""

    default_priority = 400

    def apply(self, **kwargs: Any) -> None:
        """Replace the images of a notebook's page."""
        if not self.env.docname.startswith(f"{NOTEBOOKS}/"):
            return
        folder = Path(self.env.srcdir)
        first = {figure.digest: figure for figure in all_shown(folder) if figure.page == self.env.docname}
        again = {figure.digest: figure for figure in shown(folder / f"{self.env.docname}.ipynb")}
        for image in list(self.document.findall(nodes.image)):
            digest = Path(image["uri"]).stem
            new = first.pop(digest, None)
            if figure := new or again.get(digest):
                image["alt"] = figure.alt
                # A figure that is drawn again, of another galaxy or in a cell to change, has no number of its own.
                label = new.label if new else ""
                image.parent.replace(image, _figure_node(self, figure, image.deepcopy(), label))


def _figure_node(reader: Any, figure: Shown, image: nodes.image, label: str) -> nodes.Element:
    """A figure with caption and files, numbered where it has a label; Sphinx numbers all that are figures to it."""
    document = reader.document if isinstance(reader, SphinxTransform) else reader.state.document
    caption = _inline(figure.caption, title=True)
    if label:
        node: nodes.Element = nodes.figure("", image, nodes.caption(figure.caption, "", *caption), classes=["msa3d"])
        node["names"].append(label)
        document.note_explicit_target(node)
    else:
        text = nodes.paragraph(figure.caption, "", *caption, classes=["caption"])
        node = nodes.container("", image, text, classes=["msa3d"])
    node += nodes.legend("", _files(reader, figure)) if label else _files(reader, figure)
    return node


def _files(reader: Any, figure: Shown) -> nodes.paragraph:
    """Links to all files of a figure that are there."""
    folder, up = Path(reader.env.srcdir), "../" * reader.env.docname.count("/")
    # The address of the image is known when the page is written.
    links = [f'<a class="png" href="{figure.digest}.png">PNG</a>']
    for end, text in FILES.items():
        if (folder / "_extra" / FIGURES / f"{figure.name}{end}").is_file():
            links.append(f'<a href="{up}{FIGURES}/{figure.name}{end}">{text}</a>')
    return nodes.paragraph("", "", nodes.raw("", " \u00b7 ".join(links), format="html"), classes=["files"])


FORMULA = re.compile(r"\$(.+?)\$")
SENTENCE = re.compile(r"(?<=[^.][a-z0-9)]\.)\s+(?=[A-Z(\d])")
"""Between the title of a caption and the rest."""


def _inline(text: str, *, title: bool = False) -> list[nodes.Node]:
    """A caption, its first sentence bold where it is a title; formulae stand between dollar signs."""
    if title:
        first, *others = SENTENCE.split(text.strip(), maxsplit=1)
        return [nodes.strong("", "", *_inline(first)), *(_inline(f" {others[0]}") if others else [])]
    found: list[nodes.Node] = []
    for number, part in enumerate(FORMULA.split(text)):
        found.append(_formula(part) if number % 2 else nodes.Text(part))
    return found


def _formula(text: str) -> nodes.Node:
    """A formula as matplotlib has it; an index without a base, as in ``A$_V$``, is one of the text before it."""
    lone = re.fullmatch(r"([_^])\{?([^{}\\]+)\}?", text)
    if lone:
        return (nodes.subscript if lone[1] == "_" else nodes.superscript)("", lone[2])
    try:
        latex2mathml.tex2mathml(text, as_block=False)
    except MathError:
        return nodes.Text(text)
    return nodes.math("", text)


class ShowFigure(SphinxDirective):
    """``msa3d-figure`` with the names of figures: the first that a notebook shows, with its caption.

    Where none is there, such as one of a truth that real data have not, nothing is shown.
    """

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir)
        known = {figure.name: figure for figure in all_shown(folder)}
        figure = next((known[name] for name in self.arguments[0].split() if name in known), None)
        if figure is None:
            return []
        self.env.note_dependency(str(folder / f"{figure.page}.ipynb"))
        # Where MyST-NB writes the images of notebooks, so that one file serves both pages.
        copy = Path(self.env.app.outdir).parent / "jupyter_execute" / f"{figure.digest}.png"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(figure.image)
        image = nodes.image(uri=f"/{copy.relative_to(folder).as_posix()}", alt=figure.alt)
        return [_figure_node(self, figure, image, "")]


class Concordance(SphinxDirective):
    """``msa3d-concordance``: lines ``topic | names of figures``, as a table that refers to those that are there."""

    has_content = True
    option_spec = {"header": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        known = {figure.name: figure for figure in all_shown(Path(self.env.srcdir))}
        rows: list[tuple[list[nodes.Node], list[nodes.Node]]] = []
        for line in self.content:
            topic, _, names = line.partition("|")
            parts: list[nodes.Node] = []
            for name in names.split():
                if name in known:
                    parts += [nodes.Text(", "), self._reference(known[name])]
            rows.append(([nodes.Text(topic.strip())], parts[1:] or [nodes.Text("\u2013")]))
        header = [[nodes.Text(text)] for text in self.options.get("header", "topic | figure").split(" | ")]
        return [table_of(header, rows)]

    def _reference(self, figure: Shown) -> nodes.Node:
        node = pending_xref("", nodes.inline("", "Fig. %s"), refdomain="std", reftype="numref", reftarget=figure.label,
                            refexplicit=False, refdoc=self.env.docname, refwarn=True)  # fmt: skip
        return node


class AllFigures(SphinxDirective):
    """``msa3d-figures``: every figure of the book with its number and the first sentence of its caption."""

    def run(self) -> list[nodes.Node]:
        rows = []
        for figure in all_shown(Path(self.env.srcdir)):
            first = SENTENCE.split(figure.caption.strip(), maxsplit=1)[0]
            rows.append(([Concordance._reference(self, figure)], _inline(first)))  # type: ignore[arg-type]
        return [table_of([[nodes.Text("figure")], [nodes.Text("what it shows")]], rows)]


def table_of(header: list[list[nodes.Node]], rows: Any) -> nodes.table:
    """Docutils table of cells with inline nodes."""
    group = nodes.tgroup(cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    for part, content in ((nodes.thead(), [header]), (nodes.tbody(), rows)):
        for line in content:
            row = nodes.row()
            row += [nodes.entry("", nodes.paragraph("", "", *cell)) for cell in line]
            part += row
        group += part
    return nodes.table("", group)


# --- what is written ----------------------------------------------------------------------------------------

ICONS = re.compile(r"\s*<script[^>]+fontawesome\.js[^>]*></script>")
"""The theme's drawings of icons, 1.5 MB for every page; its fonts hold the same."""
UNUSED = ("**/*.map", "**/fontawesome.js*", "**/webfonts/*.ttf", "locales/**/*.[mp]o")
"""Files of the theme that no page loads: maps of scripts, icons as a script and in an older font format, languages."""
IMAGE = re.compile(r'<img\b(?=[^>]*\bsrc="((?:\.\./)*_images/[^"]+\.png)")([^>]*?)/?>')
MINUS = re.compile(r"(<t[dh][^>]*>\s*(?:<p>)?\s*)-(?=\d)")


def lighten(page: str, folder: Path) -> str:
    """A written page without what it does not need, its images with their size and loaded when they are scrolled to.

    Parameters
    ----------
    page : str
        HTML.
    folder : Path
        Where it lies.
    """
    page = ICONS.sub("", page)
    count = 0

    def image(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        with Image.open(folder / match[1]) as picture:
            width, height = picture.size
        others = re.sub(r'\s(?:width|height|loading|style)="[^"]*"', "", match[2]).rstrip()
        # The first one is what a reader sees first.
        late = ' loading="lazy"' if count > 1 else ""
        return (
            f'<a class="whole" href="{match[1]}" title="whole size">'
            f'<img{others} width="{width}" height="{height}"{late} decoding="async"></a>'
        )

    page = IMAGE.sub(image, page)
    page = re.sub(r'href="([0-9a-f]{64}\.png)"', lambda found: f'href="{_images(page, found[1])}"', page)
    return MINUS.sub("\\1\u2212", page)


def _images(page: str, name: str) -> str:
    found = re.search(rf'src="([^"]*{name.removesuffix(".png")}\d*\.png)"', page)
    return found[1] if found else name


def finish(app: Any, exception: Exception | None) -> None:
    """Make the written book light: pages, no maps of scripts, notebooks to download without their outputs."""
    if exception is not None or app.builder.name != "html":
        return
    html = Path(app.outdir)
    for path in html.rglob("*.html"):
        if FIGURES not in path.relative_to(html).parts:
            path.write_text(lighten(path.read_text(encoding="utf-8"), path.parent), encoding="utf-8")
    for pattern in UNUSED:
        for path in html.glob(f"_static/{pattern}"):
            path.unlink()
    for path in html.glob(f"_sources/{NOTEBOOKS}/*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False), encoding="utf-8")
