"""The figures of the paper; `msa3d.figures.style` holds what they share.

Every figure is a function that reads products and returns a `matplotlib.figure.Figure`; nothing is
drawn or written at import. `msa3d.figures.style.save` writes the PDF and the PNG.
"""

from __future__ import annotations

from msa3d.figures.style import SavedFigure, save

__all__ = ["SavedFigure", "save"]
