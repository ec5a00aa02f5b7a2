"""What all sub-commands have in common: arguments, and how results and errors are said."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from msa3d.errors import Msa3dError

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout


class Sentences(TyperGroup):
    """A command group that says an `Msa3dError` as the one sentence it is, and ends with status 2."""

    def invoke(self, ctx: typer.Context) -> object:
        """Run the sub-command.

        Parameters
        ----------
        ctx : typer.Context
            What was given on the command line.

        Returns
        -------
        object
            What the sub-command returned.
        """
        try:
            return super().invoke(ctx)
        except Msa3dError as error:
            typer.echo(f"msa3d: {error}", err=True)
            raise typer.Exit(2) from error


def parse_workers(workers: str) -> int | str | None:
    """Read the `--workers` option.

    Parameters
    ----------
    workers : str
        A positive number, an address ``dask://host:port``, or blank.

    Returns
    -------
    int, str or None
        As `msa3d.pipeline.parallel.run_tasks` takes it; None means as many as cores and memory allow.

    Raises
    ------
    typer.BadParameter
        Where it is neither.
    """
    if not workers.strip():
        return None
    if workers.startswith("dask://"):
        return workers
    if workers.isdecimal() and int(workers) > 0:
        return int(workers)
    raise typer.BadParameter(f"{workers!r} is neither a number of processes nor an address dask://host:port")


Root = Annotated[
    Path | None,
    typer.Argument(help="Directory of the run, its rates and metafile at the top.  [default: runs/<dataset>]"),
]
RootOption = Annotated[Path | None, typer.Option("--root", help="The same, as an option.")]
DatasetName = Annotated[str, typer.Option("--dataset", "-d", help="A packaged dataset, or the path of a YAML file.")]
# Typer knows no union of types: None, int or str, as `parse_workers` returns it.
Workers = Annotated[
    Any,
    typer.Option(
        "--workers",
        "-w",
        parser=parse_workers,
        metavar="N",
        help="Processes, or dask://host:port.  [default: what fits]",
    ),
]


def locate(root: Path | None, root_option: Path | None, dataset_name: str) -> tuple[Dataset, Layout]:
    """Load the dataset and say where its run lies.

    Parameters
    ----------
    root, root_option : Path or None
        The directory as given by place and by option; at most one of them.
    dataset_name : str
        A packaged dataset, or the path of a YAML file.

    Returns
    -------
    Dataset, Layout
        The description, and its directory: ``runs/<name>`` below the working directory unless given.

    Raises
    ------
    typer.BadParameter
        Where two different directories are given.
    DatasetError
        Where the dataset is unknown or wrong.
    """
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout

    if root and root_option and root != root_option:
        raise typer.BadParameter(f"two directories are given, {root} and --root {root_option}")
    dataset = Dataset.load(dataset_name)
    return dataset, Layout(root or root_option or Path("runs") / Path(dataset_name).stem)


def show(report: object) -> None:
    """Print the table of a report.

    Parameters
    ----------
    report : object
        Anything with a method ``table() -> astropy.table.Table``.
    """
    table = report.table()
    typer.echo("\n".join(table.pformat(max_lines=-1, max_width=-1)) if len(table) else "nothing to do")
