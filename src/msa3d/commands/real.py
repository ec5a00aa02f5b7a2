"""Sub-commands for real observations and long runs: fetch, plan, status, verify."""

from __future__ import annotations

import typer


def add_to(app: typer.Typer) -> None:
    """Add these sub-commands to a command.

    Parameters
    ----------
    app : typer.Typer
        The command.
    """
