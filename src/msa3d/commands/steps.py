"""Sub-commands for the data and the steps: datasets, simulate, data, check, preprocess, process, ..., run."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from msa3d.commands.common import DatasetName, Root, RootOption, Workers, locate, show
from msa3d.errors import DatasetError


def add_to(app: typer.Typer) -> None:
    """Add these sub-commands to a command.

    Parameters
    ----------
    app : typer.Typer
        The command.
    """
    for command in (
        datasets,
        simulate,
        data,
        check,
        preprocess,
        nsclean,
        process,
        postprocess,
        register,
        cubebuild,
        run,
    ):
        app.command()(command)


def datasets(
    template: Annotated[
        bool, typer.Option("--template", help="Print a commented dataset to start one's own from.")
    ] = False,
) -> None:
    """List the packaged datasets."""
    from msa3d.dataset import Dataset, available

    if template:
        text = resources.files("msa3d").joinpath("datasets", "template.yaml").read_text(encoding="utf-8")
        typer.echo(text, nl=False)
        return
    for name in available():
        typer.echo(f"{name:10s} {Dataset.load(name).title}")


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


def data(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Simulate a simulated dataset; fetch the files of a real one, where they are not there, and check them."""
    from msa3d.commands.real import fetch_all, is_here

    description, layout = locate(root, root_option, dataset)
    if description.simulated:
        simulate(root, dataset, root_option, workers)
        return
    # References are the user's own affair where CRDS is set up already.
    own = bool(os.environ.get("CRDS_PATH") and os.environ.get("CRDS_SERVER_URL"))
    fetch_all(description, layout, [], files=not is_here(description, layout), references=not own)
    if description.process.run_stage1:
        preprocess(root, dataset, root_option, workers)
    check(root, dataset, root_option)


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


def preprocess(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Stage 1, where a run starts from ramps (uncal): Detector1 of jwst, ramp by ramp."""
    description, layout = locate(root, root_option, dataset)
    from msa3d.steps import preprocess as step

    show(step.run(description, layout, workers=workers))


def nsclean(
    root: Root = None,
    to: Annotated[Path | None, typer.Option(help="Root for the cleaned images.  [default: <root>_nsclean]")] = None,
    by_jwst: Annotated[bool, typer.Option("--by-jwst", help="Fit with jwst's own step: the same, slower.")] = False,
    dataset: DatasetName = "demo",
    root_option: RootOption = None,
    workers: Workers = None,
) -> None:
    """Take correlated noise out of the count rates (NS-MOS04), into another root from which a run can start."""
    description, layout = locate(root, root_option, dataset)
    from msa3d.layout import Layout
    from msa3d.steps import nsclean as step

    cleaned = Layout(to or layout.root.with_name(f"{layout.root.name}_nsclean"))
    method = "jwst" if by_jwst else "fast"
    show(step.run(description, layout, cleaned, method=method, workers=workers))
    typer.echo(f"Go on with: msa3d run {cleaned.root} -d {dataset}")


def process(
    root: Root = None,
    dataset: DatasetName = "demo",
    root_option: RootOption = None,
    workers: Workers = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only the exposure of this name (0311n, say, or 0311n-00002); may be repeated."),
    ] = None,
) -> None:
    """Step 1: Spec2 and Spec3 of jwst, exposure by exposure."""
    description, layout = locate(root, root_option, dataset)
    from msa3d.steps import process as step

    show(step.run(description, layout, workers=workers, **({"only": only} if only else {})))


def postprocess(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Step 2: path loss, bars and cosmic rays, in calibrated slits and rectified spectra."""
    description, layout = locate(root, root_option, dataset)
    from msa3d.steps import post_steps

    for step in post_steps(description):
        show(step.run(description, layout, workers=workers))


def register(root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None) -> None:
    """Measure the pointing offsets of the exposures; the cubes use them with registration.method = apply."""
    description, layout = locate(root, root_option, dataset)
    from msa3d.steps import register as step

    show(step.run(description, layout))


def cubebuild(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Step 3: the cubes of every source."""
    description, layout = locate(root, root_option, dataset)
    from msa3d.steps import cubebuild as step

    show(step.run(description, layout, workers=workers))


def run(
    root: Root = None, dataset: DatasetName = "demo", root_option: RootOption = None, workers: Workers = None
) -> None:
    """Run steps 1 to 3, one after the other."""
    for step in (process, postprocess, cubebuild):
        step(root, dataset, root_option, workers)
