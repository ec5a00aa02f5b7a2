"""The `msa3d` command: data and steps, cubes, real observations, notebooks and the book."""

from __future__ import annotations

import logging
import os
import warnings
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from msa3d import __version__, cli_metafile
from msa3d.errors import DatasetError, Msa3dError

if TYPE_CHECKING:
    from msa3d.config import Dataset
    from msa3d.cubes.cube import Cube
    from msa3d.cubes.extract import Aperture
    from msa3d.pipeline.layout import Layout


class Sentences(TyperGroup):
    """A command group that says an `Msa3dError` as the one sentence it is, and ends with status 2."""

    def invoke(self, ctx: typer.Context) -> object:
        """Run the sub-command that the context names, and return what it returns."""
        try:
            return super().invoke(ctx)
        except Msa3dError as error:
            typer.echo(f"msa3d: {error}", err=True)
            raise typer.Exit(2) from error


def parse_workers(workers: str) -> int | str | None:
    """Read a positive number, an address ``dask://host:port``, or a blank: as many as cores and memory allow."""
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


def locate(root: Path | None, dataset_name: str) -> tuple[Dataset, Layout]:
    """Load the dataset, and say where its run lies: ``runs/<name>`` below the working directory unless given."""
    from msa3d.config import Dataset
    from msa3d.pipeline.layout import Layout

    dataset = Dataset.load(dataset_name)
    return dataset, Layout(root or Path("runs") / Path(dataset_name).stem)


def show(report: Any) -> None:
    """Print the table of a report."""
    table = report.table()
    typer.echo("\n".join(table.pformat(max_lines=-1, max_width=-1)) if len(table) else "nothing to do")


def datasets(
    template: Annotated[
        bool, typer.Option("--template", help="Print a commented dataset to start one's own from.")
    ] = False,
) -> None:
    """List the packaged datasets."""
    from msa3d.config import Dataset, available

    if template:
        text = resources.files("msa3d").joinpath("datasets", "template.yaml").read_text(encoding="utf-8")
        typer.echo(text, nl=False)
        return
    for name in available():
        typer.echo(f"{name:10s} {Dataset.load(name).title}")


def simulate(root: Root = None, dataset: DatasetName = "demo", workers: Workers = None) -> None:
    """Make a simulated observation: count-rate images, metafile, CRDS cache and the truth."""
    description, layout = locate(root, dataset)
    if not description.simulated:
        raise DatasetError(
            f"The dataset {description.name} is a real observation and cannot be simulated; "
            f"put its rates and metafile into {layout.root} and check them with `msa3d check`."
        )
    from msa3d_sim.observe import simulate as make

    report = make(description, layout, workers=workers)
    typer.echo(f"{report.made} rate files made, {report.current} were there, in {report.seconds:.0f} s.")


def data(root: Root = None, dataset: DatasetName = "demo", workers: Workers = None) -> None:
    """Simulate a simulated dataset; fetch the files of a real one, where they are not there, and check them."""
    description, layout = locate(root, dataset)
    if description.simulated:
        simulate(root, dataset, workers)
        return
    # References are the user's own affair where CRDS is set up already.
    own = bool(os.environ.get("CRDS_PATH") and os.environ.get("CRDS_SERVER_URL"))
    fetch_all(description, layout, [], files=not is_here(description, layout), references=not own)
    if description.process.run_stage1:
        preprocess(root, dataset, workers)
    check(root, dataset)


def check(root: Root = None, dataset: DatasetName = "demo") -> None:
    """Check exposures, pattern, metafile and disk space before anything long starts."""
    description, layout = locate(root, dataset)
    from msa3d.observation.exposures import Observation

    observation = Observation.read(layout, description)
    observation.check()
    kind = "simulated" if observation.simulated else "real"
    typer.echo(
        f"{layout.root}: {len(observation.exposures)} exposures of {len(observation.source_ids)} sources, "
        f"a {kind} observation, complete."
    )


def preprocess(root: Root = None, dataset: DatasetName = "demo", workers: Workers = None) -> None:
    """Stage 1, where a run starts from ramps (uncal): Detector1 of jwst, ramp by ramp."""
    _run_steps(["preprocess"], *locate(root, dataset), workers=workers)


def nsclean(
    root: Root = None,
    to: Annotated[Path | None, typer.Option(help="Root for the cleaned images.  [default: <root>_nsclean]")] = None,
    by_jwst: Annotated[bool, typer.Option("--by-jwst", help="Fit with jwst's own step: the same, slower.")] = False,
    dataset: DatasetName = "demo",
    workers: Workers = None,
) -> None:
    """Take correlated noise out of the count rates (NS-MOS04), into another root from which a run can start."""
    description, layout = locate(root, dataset)
    from msa3d.pipeline.layout import Layout
    from msa3d.reduce.nsclean import STEP

    cleaned = Layout(to or layout.root.with_name(f"{layout.root.name}_nsclean"))
    method = "jwst" if by_jwst else "fast"
    show(STEP.run(description, layout, into=cleaned, method=method, workers=workers))
    typer.echo(f"Go on with: msa3d run {cleaned.root} -d {dataset}")


def process(
    root: Root = None,
    dataset: DatasetName = "demo",
    workers: Workers = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Only the exposure of this name (0311n, say, or 0311n-00002); may be repeated."),
    ] = None,
) -> None:
    """Step 1: Spec2 and Spec3 of jwst, exposure by exposure."""
    _run_steps(["process"], *locate(root, dataset), workers=workers, only=only or ())


def postprocess(root: Root = None, dataset: DatasetName = "demo", workers: Workers = None) -> None:
    """Step 2: path loss, bars and cosmic rays, in calibrated slits and rectified spectra."""
    description, layout = locate(root, dataset)
    from msa3d.pipeline.steps import post_steps

    _run_steps(post_steps(description), description, layout, workers=workers)


def register(root: Root = None, dataset: DatasetName = "demo") -> None:
    """Measure the pointing offsets of the exposures; the cubes use them with registration.method = apply."""
    description, layout = locate(root, dataset)
    from msa3d.pointing import offsets

    show(offsets.run(description, layout))


def cubebuild(root: Root = None, dataset: DatasetName = "demo", workers: Workers = None) -> None:
    """Step 3: the cubes of every source."""
    _run_steps(["cubebuild"], *locate(root, dataset), workers=workers)


def _run_steps(names: list[str], description: Dataset, layout: Layout, **options: Any) -> None:
    """Run steps one after the other, and show what each reports."""
    from msa3d.pipeline.steps import step

    for name in names:
        show(step(name).run(description, layout, **options))


def run(root: Root = None, dataset: DatasetName = "demo", workers: Workers = None) -> None:
    """Run steps 1 to 3, one after the other."""
    for step in (process, postprocess, cubebuild):
        step(root, dataset, workers)


CubeFile = Annotated[Path, typer.Argument(metavar="CUBE", help="A cube (s3d); it is never written to.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The file to write.  [default: beside the cube, under a name of its own]"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another file of that name.")]


def export(
    cube: CubeFile,
    to: Annotated[str, typer.Option(help="mpdaf, or plain: no more than FITS, no NaN.")] = "plain",
    out: Out = None,
    unit: Annotated[str, typer.Option(help="Of the wavelengths: Angstrom, nm, um or m.")] = "Angstrom",
    keep_nan: Annotated[bool, typer.Option("--keep-nan", help="Leave NaN in a plain copy.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Copy a cube into a file for mpdaf, or for programs that know plain FITS only."""
    from msa3d.cubes.export import export as write

    written = write(cube, to, out, unit=unit, keep_nan=keep_nan, overwrite=overwrite)
    typer.echo(f"{written}: written")


def extract(
    cube: CubeFile,
    ra: Annotated[float | None, typer.Option(help="Centre, deg.  [default: the middle of the brightest]")] = None,
    dec: Annotated[float | None, typer.Option(help="Centre, deg.")] = None,
    radius: Annotated[float | None, typer.Option(help="Radius, or semi-major axis (Re, say), arcsec.")] = None,
    axis_ratio: Annotated[float | None, typer.Option(help="Minor over major axis.")] = None,
    inclination: Annotated[float | None, typer.Option(help="Instead of it: inclination of a disc, deg.")] = None,
    pa: Annotated[float, typer.Option(help="Position angle of the major axis, deg east of north.")] = 0.0,
    mask: Annotated[Path | None, typer.Option(help="Instead of all that: a FITS image, 0 to 1 a spaxel.")] = None,
    srctype: Annotated[
        str, typer.Option(help="What readers show: POINT, the flux; EXTENDED, the brightness.")
    ] = "POINT",
    out: Out = None,
    overwrite: Overwrite = False,
) -> None:
    """Take the spectrum of a circle, an ellipse or a mask, with errors that know the covariance (x1d)."""
    if mask is not None and (ra, dec, radius, axis_ratio, inclination) != (None,) * 5:
        raise typer.BadParameter("--mask is an aperture of its own: give no centre and no size with it")
    if mask is None and radius is None:
        raise typer.BadParameter("give the aperture: --radius, or --mask")
    if (ra is None) != (dec is None):
        raise typer.BadParameter("--ra and --dec go together")
    if axis_ratio is not None and inclination is not None:
        raise typer.BadParameter("--axis-ratio and --inclination say the same twice: give one")
    if srctype not in ("POINT", "EXTENDED"):
        raise typer.BadParameter("--srctype is POINT or EXTENDED")
    from msa3d.cubes.cube import open_cube
    from msa3d.cubes.extract import extract as take
    from msa3d.errors import ProductError

    out = out or cube.with_name(f"{cube.stem.removesuffix('_s3d')}_x1d.fits")
    if out.exists() and (out.samefile(cube) or not overwrite):
        raise ProductError(f"{out} exists: give the spectrum another name (--out), or say --overwrite")
    opened = open_cube(cube)
    aperture = _aperture(opened, mask, (ra, dec), radius, (axis_ratio, inclination, pa))
    spectrum = take(opened, aperture)
    typer.echo(f"{spectrum.write(out, srctype)}: {spectrum.aperture}, {spectrum.weights.sum():.1f} spaxels")


def _aperture(
    cube: Cube,
    mask: Path | None,
    centre: tuple[float | None, float | None],
    radius: float | None,
    shape: tuple[float | None, float | None, float],
) -> Aperture:
    """Make the aperture that the options describe."""
    from msa3d.cubes.extract import Ellipse, Mask, brightest

    if mask is not None:
        return Mask.read(mask)
    ra, dec = brightest(cube) if centre[0] is None else centre
    axis_ratio, inclination, pa = shape
    if inclination is not None:
        return Ellipse.inclined(ra, dec, radius, inclination, pa)
    return Ellipse(ra, dec, radius, 1.0 if axis_ratio is None else axis_ratio, pa)


class Product(StrEnum):
    """What can be fetched."""

    rate = "rate"
    metafile = "metafile"
    uncal = "uncal"


def fetch(
    root: Root = None,
    dataset: DatasetName = "go2136",
    product: Annotated[
        list[Product] | None, typer.Option(help="May be repeated.  [default: rate and metafile; uncal for stage 1]")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="A list of files (YAML) to use instead of asking.")] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the archive for its list anew.")] = False,
    references: Annotated[bool, typer.Option(help="Also the references, from CRDS.")] = True,
) -> None:
    """Fetch a real observation from MAST and its references from CRDS; complete files are not requested again."""
    description, layout = locate(root, dataset)
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
    """Fetch files (by default what the dataset starts from, and the metafile), then references; say what happened."""
    start = "uncal" if description.process.run_stage1 else "rate"
    if files:
        from msa3d.archive.fetch import fetch_observation

        report = fetch_observation(
            description, layout, products=products or [start, "metafile"], manifest=manifest, refresh=refresh
        )
        show(report)
    if references:
        from msa3d.archive.crds import prefetch
        from msa3d.observation.reading import spectra

        paths = sorted(layout.root.glob("jw*_uncal.fits")) if start == "uncal" else layout.rates()
        done = prefetch(description, layout, spectra(paths))
        typer.echo(f"{len(done['files'])} references of {done['context']} are verified in {done['path']}.")


def is_here(description: Dataset, layout: Layout) -> bool:
    """Whether all count rates and the metafile are there and complete; False for one that starts from ramps."""
    from msa3d.errors import ObservationError
    from msa3d.observation.exposures import Observation

    if description.process.run_stage1:
        return False
    try:
        observation = Observation.read(layout, description)
    except ObservationError:
        return False
    wanted = description.pattern.n_exposures * len(description.detectors)
    return len(observation.rates) >= wanted and observation.metafile.is_file()


def plan(root: Root = None, dataset: DatasetName = "demo", workers: Workers = None) -> None:
    """Say what a run will need: exposures, pattern as found, sources, disk, memory, time on this machine."""
    from msa3d.pipeline.overview import make_plan

    description, layout = locate(root, dataset)
    made = make_plan(description, layout, workers=workers if isinstance(workers, int) else None)
    for row in made.table():
        typer.echo(f"{row['what']:15s} {row['value']}")
    for problem in made.problems:
        typer.echo(f"problem: {problem}")


def status(root: Root = None, dataset: DatasetName = "demo") -> None:
    """Say how far a run is: done, running, failed, left; may be asked while it runs."""
    from msa3d.pipeline.engine import other_pipeline
    from msa3d.pipeline.overview import read_status

    description, layout = locate(root, dataset)
    show(read_status(description, layout))
    if sentence := other_pipeline(layout):
        typer.echo(sentence)


def verify(
    root: Root = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Compare also with today's description of the dataset.")
    ] = None,
) -> None:
    """Recompute the checksums of a run; tell which products are stale or damaged, and why. Status 1 where any is."""
    from msa3d.pipeline.verify import verify as look

    description, layout = locate(root, dataset or "demo")
    found = look(layout, description if dataset else None)
    show(found)
    for stranger in found.strangers:
        typer.echo(f"no record of {stranger}")
    typer.echo(f"{sum(one.state == 'holds' for one in found.verdicts)} of {len(found.verdicts)} hold")
    if not found.holds:
        raise typer.Exit(1)


def run_notebook(
    name: Annotated[str, typer.Argument(help="01_process, or the path of a notebook.")],
    root: Root = None,
    dataset: DatasetName = "demo",
    workers: Workers = None,
    file: Annotated[
        Path | None,
        typer.Option("--parameters", "-f", help="YAML file with more parameters of the notebook."),
    ] = None,
) -> None:
    """Execute a notebook into <root>/notebooks, unless it is current there."""
    _run_notebooks([name], root, dataset, workers, file)


def run_notebooks(root: Root = None, dataset: DatasetName = "demo", workers: Workers = None) -> None:
    """Execute those notebooks of a run, in their order, that are not current."""
    from msa3d.pipeline import notebooks

    _run_notebooks(notebooks.all_names(), root, dataset, workers, None)


def _run_notebooks(
    names: list[str],
    root: Path | None,
    dataset: str,
    workers: int | str | None,
    file: Path | None,
) -> None:
    """Execute notebooks, and say of each where it is or that it is current."""
    from msa3d.pipeline import notebooks
    from msa3d.pipeline.products import working

    description, layout = locate(root, dataset)
    # The parameters stand in the book: a path below the working directory is said without that.
    shown = layout.root.relative_to(Path.cwd()) if layout.root.is_relative_to(Path.cwd()) else layout.root
    parameters = {"dataset": dataset, "root": str(shown), "workers": workers} | notebooks.read_parameters(file)
    with working(layout, "notebooks"):
        for name in names:
            path, done = notebooks.run(name, layout, description, parameters)
            typer.echo(f"{path}{'' if done else ' is current'}")


def book(
    root: Root = None,
    dataset: DatasetName = "demo",
    source: Annotated[Path, typer.Option("--source", help="The book's own pages.")] = Path("book"),
) -> None:
    """Bind the executed notebooks of a run into the book."""
    from msa3d.pipeline import notebooks

    _, layout = locate(root, dataset)
    typer.echo(notebooks.bind(layout, source))


app = typer.Typer(
    cls=Sentences,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Data cubes from JWST/NIRSpec slit-stepping observations (Barisic et al. 2024).",
)
# In the order of ``msa3d --help``.
for command in (
    datasets, simulate, data, check, preprocess, nsclean, process, postprocess, register, cubebuild, run,
    export, extract, fetch, plan, status, verify, book,
):  # fmt: skip
    app.command()(command)
app.add_typer(cli_metafile.app, name="msa")
notebook = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Execute the notebooks.")
notebook.command("run")(run_notebook)
notebook.command("all")(run_notebooks)
app.add_typer(notebook, name="notebook")


def show_version(wanted: bool) -> None:
    """Print the version and stop, where it is asked for."""
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
