"""The `msa3d` command, put together from the groups of sub-commands in `msa3d.commands`."""

from __future__ import annotations

import logging
import warnings
from typing import Annotated

import typer

from msa3d import __version__
from msa3d.commands import book, cubes, msa, real, steps
from msa3d.commands.common import Sentences

#: Groups of sub-commands, in the order of ``msa3d --help``; each module has ``add_to(app)``.
GROUPS = (steps, cubes, real, msa, book)

app = typer.Typer(
    cls=Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Data cubes from JWST/NIRSpec slit-stepping observations (Barisic et al. 2024).",
)
for group in GROUPS:
    group.add_to(app)


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


if __name__ == "__main__":
    app()
