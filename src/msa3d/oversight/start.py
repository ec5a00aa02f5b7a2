"""What to do next: for a person who opens a session in the middle of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msa3d.oversight.status import read_status

if TYPE_CHECKING:
    from msa3d.dataset import Dataset
    from msa3d.layout import Layout

NOTEBOOK_OF = {
    "preprocess": "01_process",
    "process": "01_process",
    "postprocess": "02_postprocess",
    "calpost": "02_postprocess",
    "cubebuild": "03_cubebuild",
}
"""The notebook that runs each step."""

LAST = "04_figures"


def next_step(dataset: Dataset, layout: Layout) -> str:
    """Say what is to be done next.

    Parameters
    ----------
    dataset : Dataset
        What the run is to do.
    layout : Layout
        Where it lies.

    Returns
    -------
    str
        A sentence or two of Markdown, with a link to the notebook whose turn it is.
    """
    if not layout.rates() and not dataset.simulated:
        return f"There are no count-rate files in `{layout.root}` yet: `msa3d fetch` brings them from the archive."
    for one in read_status(dataset, layout).steps:
        name = NOTEBOOK_OF[one.step]
        if one.running:
            names = ", ".join(one.running)
            return f"Somebody is at **{one.step}** now, with {names}: {len(one.done)} of {one.total} done."
        if one.failed:
            return (
                f"**{one.step}** failed for {', '.join(one.failed)}; why is in the logs beside the products. "
                f"[{name}]({name}.ipynb), run again, tries them once more."
            )
        if one.left:
            return f"Next is [{name}]({name}.ipynb): {one.left} of {one.total} are left to **{one.step}**."
    if not list(layout.science.glob("*")):
        return f"The cubes are there. Next is [{LAST}]({LAST}.ipynb)."
    return f"Everything is done. [{LAST}]({LAST}.ipynb) shows what came out; `make book` binds it."
