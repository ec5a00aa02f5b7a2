"""One look for all figures: sizes, fonts, colours, the mark of simulated data, and saving.

Colours are those of Okabe & Ito (2008), told apart by readers with any of the common colour-vision
deficiencies; maps use perceptually uniform scales (`viridis`, `magma`) and, for signed quantities,
the diverging blue-white-red `RdBu_r` centred on zero.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from astropy.table import Table, vstack
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from msa3d.config import Target
from msa3d.pipeline.products import atomic_path

log = logging.getLogger(__name__)

BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
VERMILION = "#D55E00"
SKY = "#56B4E9"
PURPLE = "#CC79A7"
YELLOW = "#F0E442"
BLACK = "#000000"
GREY = "#7F7F7F"
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)

INTENSITY_MAP = "viridis"
FLUX_MAP = "magma"
SIGNED_MAP = "RdBu_r"
DISPERSION_MAP = "viridis"
METALLICITY_MAP = "cividis"
ATTENUATION_MAP = "YlOrBr"
RESULT_COLOUR, TRUTH_COLOUR, PUBLISHED_COLOUR = BLUE, ORANGE, GREEN
"""What was measured here, what was injected, and what the paper reports: the same in all figures."""

EMPTY_COLOUR = "#D9D9D9"
HATCH_COLOURS = "#F5F5F5", "#CFCFCF"
"""Ground and lines of spaxels that were observed but are not shown."""
TRUTH_TEXT = "#8F5F00"
"""The colour of what was injected, dark enough to be read as text on white (contrast 5:1)."""

SIMULATED_MARK = "SIMULATED \u2013 msa3d"
FULL_WIDTH = 7.5
"""Width of a figure across both columns of a journal page, inch."""
LEAST_POINTS = 8.0
"""No letter of a figure is smaller."""
PNG_DPI = 200

_RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.7,
    "axes.prop_cycle": mpl.cycler(color=list(CYCLE)),
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "hatch.linewidth": 0.5,
    "lines.linewidth": 1.0,
    "image.origin": "lower",
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
    "savefig.dpi": PNG_DPI,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the style of the figures inside the block and restore what was set before."""
    with mpl.rc_context(_RC):
        yield


def new_figure(width: float = FULL_WIDTH, height: float = 3.0, layout: str = "constrained") -> Figure:
    """Make a figure that lays itself out and is not registered with pyplot.

    Parameters
    ----------
    width, height : float
        Size, inch.
    layout : {"constrained", "compressed"}
        How panels share the room; ``compressed`` for maps, whose panels keep their shape.

    Returns
    -------
    matplotlib.figure.Figure
        Empty, with an Agg canvas.
    """
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def literal(text: object) -> str:
    """Return a name from data with its dollar signs escaped, so that a figure shows it as it is.

    Matplotlib takes what stands between two dollar signs for a formula, and raises when the figure is saved where it
    is none.
    """
    return str(text).replace("$", r"\$")


def colour_map(name: str) -> mpl.colors.Colormap:
    """Return a copy of a colour map in which missing values (NaN) are transparent: what lies below says why."""
    return mpl.colormaps[name].with_extremes(bad=(0.0, 0.0, 0.0, 0.0))


def scale(colours: str, low: float, high: float) -> dict:
    """Colour map, by name, and limits of a map, as matplotlib takes them."""
    return {"cmap": colour_map(colours), "vmin": low, "vmax": high}


def signed_scale(limit: float) -> dict:
    """The same of a signed map, centred on zero."""
    return scale(SIGNED_MAP, -limit, limit)


def heading(figure: Figure, target: Target) -> str:
    """Write the name of a target above a figure, and return it: its id where it has none."""
    name = target.name or str(target.source_id)
    figure.suptitle(literal(name), fontsize=9.5)
    return name


def signed(value: float, form: str = ".3f") -> str:
    """Write a number with its sign, a real minus.

    >>> signed(-0.02)
    '\u22120.020'
    """
    return f"{value:+{form}}".replace("-", "\u2212")


def number(value: float, error: float | None = None, form: str = ".2f") -> str:
    """Write a number, with its error if it has one, with a real minus.

    >>> number(-1.5, 0.25)
    '\u22121.50 \u00b1 0.25'
    """
    told = f"{value:{form}}" if error is None else f"{value:{form}} \u00b1 {error:{form}}"
    return told.replace("-", "\u2212")


def colour_bar(figure: Figure, image: ScalarMappable, axes: Axes | list[Axes], label: str, **kwargs) -> Colorbar:
    """Draw a colour bar that names its quantity, with the unit in brackets; `kwargs` go to `Figure.colorbar`."""
    bar = figure.colorbar(image, ax=axes, **{"pad": 0.02, "fraction": 0.05, **kwargs})
    bar.set_label(label)
    bar.ax.tick_params(direction="in", length=2)
    return bar


def percentile_limits(values: np.ndarray, low: float = 1.0, high: float = 99.5) -> tuple[float, float]:
    """Colour limits from percentiles of the finite values; (0, 1) where nothing is finite."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    lower, upper = (float(v) for v in np.percentile(finite, [low, high]))
    return (lower, upper) if upper > lower else (lower - 0.5, upper + 0.5)


def symmetric_limit(values: np.ndarray, percentile: float = 98.0) -> float:
    """Largest absolute value worth showing in a signed map: a percentile of ``abs(values)``, never 0."""
    finite = np.abs(values[np.isfinite(values)])
    limit = float(np.percentile(finite, percentile)) if finite.size else 1.0
    return limit if limit > 0 else 1.0


def finish(figure: Figure, *, simulated: bool, alt: str, caption: str, data: Mapping[str, Mapping]) -> Figure:
    """Put the mark of simulated data, the texts of a figure, and the numbers that it shows.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    simulated : bool
        Whether any of the data come from a simulation (`msa3d.pipeline.products.is_simulated`).
    alt : str
        What is seen, in a sentence or two, for readers who cannot see it.
    caption : str
        What the figure shows, to be read alone: a title that ends with a full stop, then the panels.
    data : mapping of str to mapping
        What is drawn, by panel: columns by name, with the unit in square brackets, as ``radius [kpc]``; all of
        equal length.

    Returns
    -------
    matplotlib.figure.Figure
        The same figure.

    Raises
    ------
    ValueError
        If a text is empty.
    """
    if not caption.strip():
        raise ValueError("a figure needs a caption")
    if not alt.strip():
        raise ValueError("a figure needs a text for readers who cannot see it")
    if simulated:
        figure.text(
            0.995,
            0.005,
            SIMULATED_MARK,
            ha="right",
            va="bottom",
            fontsize=LEAST_POINTS,
            color=VERMILION,
            fontweight="bold",
            in_layout=False,
            gid="simulated-mark",
        )
        # Room under the lowest axis labels, so that the mark covers nothing.
        engine = figure.get_layout_engine()
        if engine is not None:
            engine.set(rect=(0.0, 0.18 / figure.get_figheight(), 1.0, 1.0 - 0.18 / figure.get_figheight()))
    figure.msa3d_alt, figure.msa3d_caption = (" ".join(text.split()) for text in (alt, caption))
    figure.msa3d_data = data_table(data, simulated=simulated)
    return figure


def data_table(data: Mapping[str, Mapping], *, simulated: bool) -> Table:
    """Numbers of all panels as one table.

    Parameters
    ----------
    data : mapping of str to mapping
        As in `finish`.
    simulated : bool
        Whether the numbers come from a simulation; goes into the table's description.

    Returns
    -------
    astropy.table.Table
        ``panel`` and the columns of all panels, masked where a panel does not have them.
    """
    parts = []
    for panel, columns in data.items():
        part = Table()
        for name, values in columns.items():
            plain, _, unit = name.partition(" [")
            part[plain] = np.ravel(np.ma.filled(np.ma.asarray(values), np.nan) if _is_number(values) else values)
            if unit:
                part[plain].unit = unit.removesuffix("]")
        if len(part):
            part.add_column([panel] * len(part), name="panel", index=0)
            parts.append(part)
    table = vstack(parts, metadata_conflicts="silent") if parts else Table(names=("panel",), dtype=(str,))
    table.meta["simulated"] = simulated
    return table


def _is_number(values: object) -> bool:
    return np.asarray(values).dtype.kind in "fiub"


@dataclass(frozen=True)
class SavedFigure:
    """Where a figure and its numbers were written, and its texts; shows itself in a notebook.

    Attributes
    ----------
    name : str
        File name without ending.
    png, pdf, data : pathlib.Path
        The figure, twice, and the table of what it shows (ECSV; caption and alternative text in its ``meta``).
    alt, caption : str
        What is seen, for readers who cannot see it; what it shows, to be read alone.
    """

    name: str
    png: Path
    pdf: Path
    data: Path
    alt: str
    caption: str

    def __repr__(self) -> str:
        """Return the alternative text: what a reader without images gets."""
        return f"<{self.name}: {self.alt}>"

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        # The texts go with the image: the book takes them from the output's metadata.
        return self.png.read_bytes(), {"name": self.name, "alt": self.alt, "caption": self.caption}


def save(figure: Figure, folder: Path, name: str) -> SavedFigure:
    """Write a figure as PDF and PNG, and its numbers as ECSV, each whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        A figure that went through `finish`.
    folder : pathlib.Path
        Where to write, made when missing (``layout.figures``).
    name : str
        File name without ending.

    Returns
    -------
    SavedFigure
        Shows the PNG when it is the last value of a notebook's cell.

    Raises
    ------
    ValueError
        If the figure has no text for readers who cannot see it.
    """
    alt, caption = getattr(figure, "msa3d_alt", ""), getattr(figure, "msa3d_caption", "")
    if not alt:
        raise ValueError(f"figure {name} was not finished: it has no text for readers who cannot see it")
    folder.mkdir(parents=True, exist_ok=True)
    saved = SavedFigure(name, *(folder / f"{name}.{kind}" for kind in ("png", "pdf", "ecsv")), alt, caption)
    # No dates in the files: the same data give the same bytes.
    metadata = {
        saved.png: {"Description": alt, "Software": "msa3d"},
        saved.pdf: {"Subject": alt, "Creator": "msa3d", "CreationDate": None},
    }
    with house_style():
        for path, entries in metadata.items():
            with atomic_path(path) as partial:
                figure.savefig(partial, metadata=entries, dpi=PNG_DPI)
                if path == saved.png:
                    _without_alpha(partial)
    table = figure.msa3d_data.copy()
    table.meta |= {"figure": name, "caption": caption, "alt": alt}
    for column in table.itercols():
        if column.dtype.kind == "f":
            column[:] = _shortened(column)
    with atomic_path(saved.data) as partial:
        table.write(partial, format="ascii.ecsv")
    log.info("wrote %s, %s and %s", saved.png, saved.pdf.name, saved.data.name)
    return saved


def _without_alpha(path: Path) -> None:
    """Write a PNG again without its opacity, which is 1 everywhere: the same colours, a tenth fewer bytes."""
    with Image.open(path) as image:
        texts = PngInfo()
        for key, text in image.text.items():
            texts.add_text(key, text)
        image.convert("RGB").save(path, format="PNG", optimize=True, pnginfo=texts, dpi=image.info["dpi"])


def _shortened(values: np.ndarray) -> np.ma.MaskedArray:
    """Round to six digits of what varies: coordinates a second of arc apart keep theirs, whatever they begin with."""
    known = np.ma.masked_invalid(values)
    spread = float(np.ptp(known.compressed())) if known.count() else 0.0
    constant = np.log10(np.abs(known).max()) - np.log10(spread) if spread else 0.0
    digits = 6 + int(np.clip(constant, 0, 9))
    rounded = [float(f"{value:.{digits}g}") for value in np.ma.getdata(values)]
    return np.ma.masked_array(rounded, np.ma.getmaskarray(values))
