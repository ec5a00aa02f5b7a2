"""What is true of every figure: texts, letters, data, files, and panels that keep apart."""

from __future__ import annotations

from itertools import combinations

import matplotlib as mpl
import numpy as np
from astropy.table import Table
from matplotlib.cbook import is_math_text
from PIL import Image

from msa3d.figures import save, style

#: A formula that matplotlib does not know, what closes one, and what no font has a special meaning for.
HOSTILE = r"$\foo$ \$ $$ 5$ {x}_^ <b>"


def marks(figure) -> list[str]:
    return [text.get_text() for text in figure.texts if text.get_gid() == "simulated-mark"]


def check_texts(figure, *, simulated: bool = True) -> None:
    assert marks(figure) == ([style.SIMULATED_MARK] if simulated else [])
    assert len(figure.msa3d_alt) > 60 and len(figure.msa3d_caption) > 120
    assert figure.msa3d_caption.endswith((".", "\u2033.", ")"))
    for text in (figure.msa3d_alt, figure.msa3d_caption):
        assert "nan" not in text.split() and "  " not in text


def check_letters(figure) -> None:
    """No letter is smaller than what can be read at the width of the page."""
    figure.canvas.draw()
    small = {
        (text.get_text(), text.get_fontsize())
        for text in figure.findobj(mpl.text.Text)
        if text.get_text().strip() and text.get_visible() and text.get_fontsize() < style.LEAST_POINTS - 1e-6
    }
    assert not small


def check_panels(figure) -> None:
    """Panels with ticks, labels and titles keep apart; twins belong to their panel."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    seen = {}
    for axes in figure.axes:
        if axes.axison:
            seen.setdefault(tuple(np.round(axes.get_position().bounds, 4)), axes.get_tightbbox(renderer))
    for one, other in combinations(seen.values(), 2):
        wide = min(one.x1, other.x1) - max(one.x0, other.x0)
        high = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert wide < 2.5 or high < 2.5, f"panels at {one} and {other} overlap"


def check_names(figure) -> None:
    """A hostile name is shown as it is.

    Matplotlib shows text with an even number of plain dollar signs as a formula, and other text without backslashes
    before dollar signs.
    """
    texts = [text.get_text() for text in figure.findobj(mpl.text.Text)]
    shown = [text.replace(r"\$", "$") for text in texts if not is_math_text(text)]
    assert any(HOSTILE in text for text in shown), texts


def check_files(figure, folder) -> Table:
    """Picture, print and numbers are written, and the numbers can be read; they are returned."""
    saved = save(figure, folder, "one")
    assert sorted(path.name for path in folder.iterdir()) == ["one.ecsv", "one.pdf", "one.png"]
    with Image.open(saved.png) as image:
        assert image.info["Description"] == saved.alt
        pixels = np.asarray(image.convert("RGB"))
        assert abs(image.width - figure.get_figwidth() * style.PNG_DPI) <= 2
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert saved.pdf.read_bytes().startswith(b"%PDF")
    image, texts = saved._repr_png_()
    assert image == saved.png.read_bytes() and texts["caption"] == saved.caption and texts["alt"] == saved.alt
    assert str(folder) not in repr(saved)
    table = Table.read(saved.data, format="ascii.ecsv")
    assert table.meta["caption"] == saved.caption and len(table) and table.colnames[0] == "panel"
    return table
