"""Sub-commands for real observations and long runs: fetch, plan, status, verify."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from msa3d.commands.common import DatasetName, Root, RootOption, Workers, locate, show
from msa3d.errors import DatasetError

if TYPE_CHECKING:
    from msa3d.dataset import Dataset
    from msa3d.layout import Layout


def add_to(app: typer.Typer) -> None:
    """Add these sub-commands to a command.

    Parameters
    ----------
    app : typer.Typer
        The command.
    """
    for command in (fetch, plan, status, verify):
        app.command()(command)


class Product(StrEnum):
    """What can be fetched."""

    rate = "rate"
    metafile = "metafile"
    uncal = "uncal"


def fetch(
    root: Root = None,
    dataset: DatasetName = "go2136",
    root_option: RootOption = None,
    product: Annotated[
        list[Product] | None, typer.Option(help="May be repeated.  [default: rate and metafile; uncal for stage 1]")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="A list of files (YAML) to use instead of asking.")] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the archive for its list anew.")] = False,
    references: Annotated[bool, typer.Option(help="Also the references, from CRDS.")] = True,
) -> None:
    """Fetch a real observation from MAST and its references from CRDS; what is whole is not asked for again."""
    description, layout = locate(root, root_option, dataset)
    if description.simulated:
        raise DatasetError(f"The dataset {description.name} is simulated: `msa3d simulate` makes it.")
    products = [one.value for one in product or ()]
    fetch_all(description, layout, products, manifest, refresh, references=references)


def fetch_all(
    description: Dataset,
    layout: Layout,
    products: list[str],
    manifest: Path | None = None,
    refresh: bool = False,
    files: bool = True,
    references: bool = True,
) -> None:
    """Fetch files, then references, and say what happened.

    Parameters
    ----------
    description : Dataset
        The observation.
    layout : Layout
        Where to.
    products : list of str
        What; by default what the dataset starts from, and the metafile.
    manifest : Path, optional
        List of files.
    refresh : bool
        Ask the archive anew.
    files, references : bool
        Whether files, and references, are fetched.
    """
    start = "uncal" if description.process.run_stage1 else "rate"
    if files:
        from msa3d.fetch import fetch_observation

        report = fetch_observation(
            description, layout, products=products or [start, "metafile"], manifest=manifest, refresh=refresh
        )
        show(report)
    if references:
        from msa3d.fetch.references import prefetch
        from msa3d.ratefile import spectra

        paths = sorted(layout.root.glob("jw*_uncal.fits")) if start == "uncal" else layout.rates()
        done = prefetch(description, layout, spectra(paths))
        typer.echo(f"{len(done['files'])} references of {done['context']} are verified in {done['path']}.")


def is_here(description: Dataset, layout: Layout) -> bool:
    """Whether all count rates and the metafile are there and whole, however they came.

    Parameters
    ----------
    description : Dataset
        The observation.
    layout : Layout
        Its root.

    Returns
    -------
    bool
        False also for one that starts from ramps.
    """
    from msa3d.errors import ObservationError
    from msa3d.observation import Observation

    if description.process.run_stage1:
        return False
    try:
        observation = Observation.read(layout, description)
    except ObservationError:
        return False
    wanted = description.pattern.n_exposures * len(description.detectors)
    return len(observation.rates) >= wanted and observation.metafile.is_file()


def plan(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Say what a run will need: exposures, pattern as found, sources, disk, memory, time on this machine."""
    from msa3d.oversight.plan import make_plan

    description, layout = locate(root, root_option, dataset)
    made = make_plan(description, layout, workers=workers if isinstance(workers, int) else None)
    for row in made.table():
        typer.echo(f"{row['what']:15s} {row['value']}")
    for problem in made.problems:
        typer.echo(f"problem: {problem}")


def status(root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None) -> None:
    """Say how far a run is: done, running, failed, left; may be asked while it runs."""
    from msa3d.oversight.status import read_status

    show(read_status(*locate(root, root_option, dataset)))


def verify(
    root: Root = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Compare also with today's description of the dataset.")
    ] = None,
    root_option: RootOption = None,
) -> None:
    """Recompute the checksums of a run; tell which products are stale or damaged, and why. Status 1 where any is."""
    from msa3d.oversight.verify import verify as look

    description, layout = locate(root, root_option, dataset or "demo")
    found = look(layout, description if dataset else None)
    show(found)
    for stranger in found.strangers:
        typer.echo(f"no record of {stranger}")
    typer.echo(f"{sum(one.state == 'holds' for one in found.verdicts)} of {len(found.verdicts)} hold")
    if not found.holds:
        raise typer.Exit(1)
