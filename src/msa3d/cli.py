"""The `msa3d` command: one sub-command a step.

Modules of the steps are imported inside the commands, so that ``msa3d --help`` does not wait for jwst.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from msa3d import __version__
from msa3d.errors import DatasetError, Msa3dError

if TYPE_CHECKING:
    from msa3d.dataset import Dataset
    from msa3d.layout import Layout


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
        As `msa3d.workers.run_tasks` takes it; None means as many as cores and memory allow.

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


app = typer.Typer(
    cls=Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Data cubes from JWST/NIRSpec slit-stepping observations (Barisic et al. 2024).",
)
notebook_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Execute the notebooks.")
app.add_typer(notebook_app, name="notebook")

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
    from msa3d.dataset import Dataset
    from msa3d.layout import Layout

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


def show_version(wanted: bool) -> None:
    """Print the version and stop.

    Parameters
    ----------
    wanted : bool
        Whether ``--version`` was given.
    """
    if wanted:
        from importlib.metadata import version

        typer.echo(f"msa3d {__version__} (jwst {version('jwst')})")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also what jwst says, step by step.")] = False,
) -> None:
    """Set up logging for all sub-commands."""
    # Our own messages once, whatever handlers stpipe puts on the root logger when it is imported.
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    ours = logging.getLogger("msa3d")
    ours.handlers, ours.propagate = [handler], False
    ours.setLevel(logging.INFO)
    # To this logger stpipe delegates what jwst says outside a step.
    logging.getLogger("stpipe").addFilter(lambda record: verbose or record.levelno >= logging.ERROR)
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")


@app.command()
def datasets() -> None:
    """List the packaged datasets."""
    from msa3d.dataset import Dataset, available

    for name in available():
        typer.echo(f"{name:10s} {Dataset.load(name).title}")


@app.command()
def simulate(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Make a simulated observation: count-rate images, metafile, CRDS cache and the truth."""
    description, layout = locate(root, root_option, dataset)
    if not description.simulated:
        raise DatasetError(
            f"The dataset {description.name} is a real observation and cannot be simulated; "
            f"put its rates and metafile into {layout.root} and check them with `msa3d check`."
        )
    from msa3d.simulate.observe import simulate as make

    report = make(description, layout, workers=workers)
    typer.echo(f"{report.made} rate files made, {report.current} were there, in {report.seconds:.0f} s.")


@app.command()
def data(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Simulate a simulated dataset; check the files of a real one."""
    from msa3d.dataset import Dataset

    if Dataset.load(dataset).simulated:
        simulate(root, dataset, root_option, workers)
    else:
        check(root, dataset, root_option)


@app.command()
def check(root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None) -> None:
    """Check exposures, pattern, metafile and disk space before anything long starts."""
    description, layout = locate(root, root_option, dataset)
    from msa3d.observation import Observation

    observation = Observation.read(layout, description)
    observation.check()
    kind = "simulated" if observation.simulated else "real"
    typer.echo(
        f"{layout.root}: {len(observation.exposures)} exposures of {len(observation.source_ids)} sources, "
        f"a {kind} observation, complete."
    )


@app.command()
def process(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Step 1: Spec2 and Spec3 of jwst, exposure by exposure."""
    description, layout = locate(root, root_option, dataset)
    from msa3d.steps import process as step

    show(step.run(description, layout, workers=workers))


@app.command()
def postprocess(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Step 2: cosmic rays and path loss."""
    description, layout = locate(root, root_option, dataset)
    from msa3d.steps import postprocess as step

    show(step.run(description, layout, workers=workers))


@app.command()
def cubebuild(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Step 3: a cube of every source."""
    description, layout = locate(root, root_option, dataset)
    from msa3d.steps import cubebuild as step

    show(step.run(description, layout, workers=workers))


@app.command()
def run(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Run steps 1 to 3, one after the other."""
    for step in (process, postprocess, cubebuild):
        step(root, dataset, root_option, workers)


@app.command()
def metafile(
    path: Annotated[Path, typer.Argument(help="An MSA metafile (jw*_msa.fits).")],
    transform: Annotated[
        Path | None,
        typer.Option("--transform", help="Write a copy here, its source ids as the paper has them."),
    ] = None,
) -> None:
    """Read and check an MSA metafile; the original is never written to."""
    from msa3d.msafile import MsaFile

    msa = MsaFile.read(path)
    problems = msa.check()
    typer.echo(f"{path}: {len(msa.shutters)} shutter rows, {len(msa.sources)} sources, {len(problems)} problems")
    for problem in problems:
        typer.echo(f"  {problem}")
    if transform is not None:
        msa.transform_ids().write(transform)
        typer.echo(f"{transform}: written")


@notebook_app.command("run")
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
    """Execute a notebook into <root>/notebooks."""
    from msa3d import notebook

    _, layout = locate(root, root_option, dataset)
    # The parameters stand in the book: a path below the working directory is said without that.
    shown = layout.root.relative_to(Path.cwd()) if layout.root.is_relative_to(Path.cwd()) else layout.root
    parameters = {"dataset": dataset, "root": str(shown), "workers": workers}
    typer.echo(notebook.execute(name, layout, parameters | notebook.read_parameters(file)))


@app.command()
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


if __name__ == "__main__":
    app()
