"""Sub-commands for the notebooks and the book."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msa3d.commands.common import DatasetName, Root, RootOption, Workers, locate


def add_to(app: typer.Typer) -> None:
    """Add these sub-commands to a command.

    Parameters
    ----------
    app : typer.Typer
        The command.
    """
    notebook_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Execute the notebooks.")
    notebook_app.command("run")(run_notebook)
    notebook_app.command("all")(run_notebooks)
    app.add_typer(notebook_app, name="notebook")
    app.command()(book)


def run_notebook(
    name: Annotated[str, typer.Argument(help="01_process, or the path of a notebook.")],
    root: Root = None,
    dataset: DatasetName = "demo",
    root_option: RootOption = None,
    workers: Workers = None,
    file: Annotated[
        Path | None,
        typer.Option("--parameters", "-f", help="YAML file with more parameters of the notebook."),
    ] = None,
) -> None:
    """Execute a notebook into <root>/notebooks, unless it is current there."""
    _run([name], root, dataset, root_option, workers, file)


def run_notebooks(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Execute those notebooks of a run, in their order, that are not current."""
    from msa3d import notebook

    _run(notebook.all_names(), root, dataset, root_option, workers, None)


def _run(
    names: list[str],
    root: Path | None,
    dataset: str,
    root_option: Path | None,
    workers: int | str | None,
    file: Path | None,
) -> None:
    """Execute notebooks, and say of each where it is or that it is current."""
    from msa3d import notebook
    from msa3d.atomic import working

    description, layout = locate(root, root_option, dataset)
    # The parameters stand in the book: a path below the working directory is said without that.
    shown = layout.root.relative_to(Path.cwd()) if layout.root.is_relative_to(Path.cwd()) else layout.root
    parameters = {"dataset": dataset, "root": str(shown), "workers": workers} | notebook.read_parameters(file)
    with working(layout, "notebooks"):
        for name in names:
            path, done = notebook.run(name, layout, description, parameters)
            typer.echo(f"{path}{'' if done else ' is current'}")


def book(
    root: Root = None,
    dataset: DatasetName = "demo",
    root_option: RootOption = None,
    source: Annotated[Path, typer.Option("--source", help="The book's own pages.")] = Path("book"),
) -> None:
    """Bind the executed notebooks of a run into the book."""
    from msa3d import binding

    _, layout = locate(root, root_option, dataset)
    typer.echo(binding.bind(layout, source))
