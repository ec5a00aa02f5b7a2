"""A run as one object: what notebooks and sessions work with.

`open_run` gives a `Run`. Its methods do the steps, each a task an exposure or a galaxy that is left alone where it is
current; hand out cubes, truths and galaxies; draw the figures; and show tables and sentences with numbers in them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from msa3d.config import Dataset, Target
from msa3d.errors import ProductError
from msa3d.pipeline.layout import Layout

if TYPE_CHECKING:
    from astropy.table import Table

    from msa3d.closure.builders import BuilderComparison
    from msa3d.closure.truth import TrueLines
    from msa3d.cubes.cube import Cube
    from msa3d.figures import SavedFigure
    from msa3d.galaxy.measure import Galaxy
    from msa3d.observation.exposures import Observation

FIGURES = {
    "survey": "msa3d.figures.overview",
    "detectors": "msa3d.figures.observation",
    "slit_stepping": "msa3d.figures.observation",
    "spectrum_steps": "msa3d.figures.spectra",
    "postprocess_effect": "msa3d.figures.spectra",
    "column": "msa3d.figures.spectra",
    "collapsed": "msa3d.figures.cube",
    "integrated": "msa3d.figures.cube",
    "line_maps": "msa3d.figures.lines",
    "line_ratios": "msa3d.figures.lines",
    "kinematics": "msa3d.figures.kinematics",
    "position_velocity": "msa3d.figures.kinematics",
    "disc_posterior": "msa3d.figures.kinematics",
    "metallicity": "msa3d.figures.galaxy",
    "attenuation": "msa3d.figures.galaxy",
    "sfr_profile": "msa3d.figures.galaxy",
    "turbulence": "msa3d.figures.overview",
    "recovered": "msa3d.figures.overview",
    "two_builders": "msa3d.figures.builders",
    "builder_costs": "msa3d.figures.builders",
    "multiplex": "msa3d.figures.overview",
}
"""Module of each figure; its function is called ``plot_<name>``."""
GIVES = {
    "cube": "cube",
    "truth": "truth",
    "galaxy": "galaxy",
    "true": "true_lines",
    "tables": "reports",
    "comparison": "builders",
}
"""Method of `Run` that gives each argument of these functions, beside layout, dataset and source id."""
UNKNOWN = "\u2013"
"""What tables show for a number that is not known."""


def open_run(dataset: str | Path | Dataset = "demo", root: str | Path = "", workers: int | str | None = None) -> Run:
    """Open a run; nothing is read or written yet.

    Parameters
    ----------
    dataset : str, Path or Dataset
        A packaged dataset (``demo``, ``tiny``, ``survey``, ``go2136``), or the path of a YAML file.
    root : str or Path
        Directory of the run, count rates and metafile at its top; without it ``runs/<dataset>``, below the working
        directory or, for one called ``notebooks``, beside it.
    workers : int or str, optional
        Processes, or the address of a dask scheduler; as many as cores and memory allow without it.

    Returns
    -------
    Run

    Examples
    --------
    >>> run = open_run("tiny", "runs/tiny")
    >>> run.dataset.pattern.n_exposures
    9
    >>> run.target().name
    'MSA-3D 8512'
    """
    described = dataset if isinstance(dataset, Dataset) else Dataset.load(dataset)
    here = Path("..") if Path.cwd().name == "notebooks" else Path()
    return Run(described, Layout(Path(root) if root else here / "runs" / described.name), workers)


@dataclass(frozen=True, eq=False)
class Run:
    """An observation with its description, its files, and what was measured so far.

    Attributes
    ----------
    dataset : Dataset
        The observation and all parameters of its reduction.
    layout : Layout
        Where everything lies.
    workers : int, str or None
        As in `open_run`.
    """

    dataset: Dataset = field(repr=False)
    layout: Layout
    workers: int | str | None = None
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def _repr_markdown_(self) -> str:
        return f"**{self.dataset.title or self.dataset.name}**, in `{self.layout.root.name}`"

    def target(self, source_id: int | None = None) -> Target:
        """A galaxy of the dataset; the case study without an id."""
        return self.dataset.target(self.dataset.case_study if source_id is None else source_id)

    # --- what there is

    def status(self) -> Table:
        """How far each step is, read from the disk."""
        from msa3d.pipeline import overview

        return overview.read_status(self.dataset, self.layout).table()

    def next_step(self) -> str:
        """What to do next, as Markdown."""
        from msa3d.pipeline import overview

        return overview.next_step(self.dataset, self.layout)

    def plan(self) -> Table:
        """What the run needs: exposures as found, disk, memory, time on this machine."""
        from msa3d.pipeline import overview

        workers = self.workers if isinstance(self.workers, int) else None
        return overview.make_plan(self.dataset, self.layout, workers=workers).table()

    def observation(self) -> Observation:
        """The exposures as their headers tell of them, checked as a whole; ObservationError where they do not fit."""
        from msa3d.observation.exposures import Observation

        found = Observation.read(self.layout, self.dataset)
        found.check()
        return found

    def exposures(self) -> Table:
        """Activity, row and column in the pattern (from 1), and pointing (ICRS, deg) of each exposure."""
        from astropy.table import Table

        rows = [(e.activity, e.row + 1, e.column + 1, e.ra, e.dec) for e in self.observation().exposures]
        table = Table(
            rows=rows, names=("exposure", "row", "column", "RA", "Dec"), units=(None, None, None, "deg", "deg")
        )
        for name in ("RA", "Dec"):
            table[name].info.format = ".7f"
        return table

    def exposure_times(self) -> Table:
        """Number of exposures, readout, groups, and time: per exposure, per sky position, and in total."""
        from astropy.table import Table

        found = self.observation()
        first, seconds = found.rates[0].primary, [exposure.seconds for exposure in found.exposures]
        median, pattern = sorted(seconds)[len(seconds) // 2], self.dataset.pattern
        rows = [
            ("exposures", f"{len(seconds)}: {pattern.columns} steps across the slit, {pattern.rows} dithers along it"),
            ("readout", f"{first.get('READPATT', UNKNOWN)}, {first.get('NGROUPS', UNKNOWN)} groups"),
            ("time per exposure", f"{median:.0f} s"),
            ("time per sky position", f"{median * pattern.rows / 1e3:.1f} ks"),
            ("time in total", f"{sum(seconds) / 3600:.1f} h"),
        ]
        return Table(rows=rows, names=("observation", "value"))

    def parameters(self, *sections: str) -> Table:
        """Parameters of the dataset, a row each: ``section``, ``parameter``, ``value``.

        Parameters
        ----------
        *sections : str
            Parts of the description, such as ``process.spec2`` or ``cubebuild.drizzle``; all without any.
        """
        from astropy.table import Table

        rows: list[tuple[str, str, str]] = []
        everything = self.dataset.model_dump(mode="json", exclude={"targets", "simulation", "source"})
        for section in sections or (key for key, value in everything.items() if isinstance(value, Mapping)):
            part: Any = everything
            for key in section.split("."):
                part = part[key]
            rows += [(section, *row) for row in _flat(part)]
        return Table(rows=rows, names=("section", "parameter", "value"))

    # --- the steps

    def data(self) -> Table:
        """Make the count rates of a simulated observation, unless they are there; count those of a real one."""
        from astropy.table import Table

        if not self.dataset.simulated:
            return Table(rows=[{"count-rate files": len(self.layout.rates())}])
        from msa3d_sim.observe import simulate

        made = simulate(self.dataset, self.layout, workers=self.workers)
        return Table(rows=[{"made now": made.made, "already there": made.current}])

    def process(self) -> Table:
        """Spec2 and Spec3 of every exposure: what each took."""
        from msa3d.reduce import calibrate

        return calibrate.run(self.dataset, self.layout, workers=self.workers).table()

    def calpost(self) -> Table:
        """Path loss and bar shadow of the calibrated slits, for the drizzle builder."""
        from msa3d.reduce import slits

        return slits.run(self.dataset, self.layout, workers=self.workers).table()

    def postprocess(self) -> Table:
        """Cosmic rays and path loss of the rectified spectra, as published: examined and replaced pixels a spectrum."""
        from msa3d.published import spectra

        return spectra.statistics(spectra.run(self.dataset, self.layout, workers=self.workers))

    def cubebuild(self) -> Table:
        """The cubes of all targets, by the builders that the dataset names."""
        from msa3d.cubes import build

        return build.run(self.dataset, self.layout, workers=self.workers).table()

    def outliers(self, source_id: int | None = None) -> Table:
        """Pixels judged and rejected as the drizzled cube was built, a row an exposure and detector."""
        from astropy.table import Table

        path = self.layout.outliers(self.target(source_id).source_id)
        if not path.is_file():
            raise ProductError(f"{path} is not there: it is made with a drizzled cube, by `msa3d cubebuild`")
        return Table.read(path, "STATISTICS")

    # --- products and measurements

    def cube(self, source_id: int | None = None, builder: str | None = None) -> Cube:
        """A galaxy's cube, by the dataset's own builder or by ``drizzle`` or ``paper``."""
        from msa3d.cubes.cube import open_cube
        from msa3d.observation.source import cube_path

        target, builder = self.target(source_id), builder or self.dataset.cubebuild.builder
        paper = builder == "paper"
        path = self.layout.cube_medians(target.source_id) if paper else cube_path(
            self.layout, self.dataset, target.source_id
        )  # fmt: skip
        return self._keep(("cube", path), lambda: open_cube(path))

    def truth(self, source_id: int | None = None) -> Cube | None:
        """What was injected, on the spaxels of the galaxy's cube and through its slit; None for a real observation."""
        if not self.dataset.simulated:
            return None
        from msa3d.closure.truth import on_spaxels
        from msa3d.cubes.cube import open_cube

        target = self.target(source_id)
        path = self.layout.truth / f"truth_s{target.source_id:05d}.fits"
        return self._keep(("truth", path), lambda: on_spaxels(open_cube(path), self.cube(target.source_id)))

    def galaxies(self, builder: str | None = None) -> dict[int, Galaxy]:
        """All galaxies, measured in the cubes of a builder and written; those too faint are left out.

        In the cubes of the dataset's own builder the posterior of the case study's kinematics is sampled; all other
        errors come from the curvature.
        """
        from msa3d.galaxy import measure

        own = self.dataset.cubebuild.builder
        builder = builder or own
        return self._keep(
            ("galaxies", builder),
            lambda: measure.measure_targets(
                self.layout, self.dataset, builder, sample=builder == own, workers=self.workers
            ),
        )

    def galaxy(self, source_id: int | None = None) -> Galaxy:
        """A galaxy as measured in its cube; ProductError for one that is too faint."""
        target = self.target(source_id)
        if target.source_id not in self.galaxies():
            raise ProductError(f"galaxy {target.source_id} is not measured: the log of the measurement says why")
        return self.galaxies()[target.source_id]

    def true_lines(self, source_id: int | None = None) -> TrueLines | None:
        """The truth measured like the galaxy, in the same spaxels and bins; None for a real observation."""
        from msa3d.closure import truth

        known = self.truth(source_id)
        if known is None:
            return None
        make = lambda: truth.true_lines(known, self.galaxy(source_id))  # noqa: E731
        return self._keep(("lines", self.target(source_id).source_id), make)

    def builders(self, source_id: int | None = None) -> BuilderComparison:
        """Both builders on a galaxy, and each weakness of the published one switched off alone; written."""
        from msa3d.closure import builders

        target = self.target(source_id)
        truth = self.layout.truth / f"truth_s{target.source_id:05d}.fits" if self.dataset.simulated else None

        def compare() -> BuilderComparison:
            found = builders.compare(self.dataset, self.layout, target.source_id, truth=truth)
            found.write(self.layout.science)
            return found

        return self._keep(("builders", target.source_id), compare)

    # --- tables of numbers

    def report(self, source_id: int | None = None) -> Table:
        """Every number of a galaxy: published, injected (if simulated), recovered, error, and pull."""
        from msa3d.galaxy import report

        galaxy = self.galaxy(source_id)
        rows = report.rows(galaxy, self.dataset)
        return _without_truth(
            report.report_table(rows, galaxy.source_id, simulated=self.dataset.simulated), self.dataset
        )

    def reports(self, source_id: int | None = None) -> dict[str, Table]:
        """The reports of all galaxies that were measured, or of one, by id."""
        return {str(one): self.report(one) for one in self.galaxies() if source_id in (None, one)}

    def headline(self, *quantities: str) -> Table | None:
        """The case study: published, injected, recovered by each builder; None if it is too faint.

        Parameters
        ----------
        *quantities : str
            As in the report; all of the headline without any, or ``six`` for those of the book's first page.
        """
        from msa3d.closure import side_by_side

        found = {builder: self.galaxies(builder) for builder in self.dataset.cubebuild.builders}
        return side_by_side.headline(found, self.dataset, side_by_side.SIX if quantities == ("six",) else quantities)

    def numbers(self) -> Table | None:
        """The same quantities of all galaxies, with their pulls; None where none could be measured."""
        from msa3d.closure import side_by_side

        return side_by_side.all_galaxies(self.galaxies(), self.dataset)

    def injected(self) -> Table | None:
        """What the simulated galaxies were made with and where it comes from; None for a real observation."""
        from msa3d.closure import inputs

        return inputs.galaxies(self.dataset)

    def simulated_setup(self) -> Table | None:
        """Instrument, pattern and noise of a simulated observation; None for a real one."""
        from msa3d.closure import inputs

        return inputs.setup(self.dataset)

    def line_spreads(self, source_id: int | None = None) -> Table | None:
        """Dispersion of a galaxy by the line-spread function that is removed; None if it is too faint."""
        from msa3d.galaxy import report

        if self.target(source_id).source_id not in self.galaxies():
            return None
        galaxy = self.galaxy(source_id)
        make = lambda: report.line_spreads(galaxy, self.dataset)  # noqa: E731
        return _without_truth(self._keep(("spreads", galaxy.source_id), make), self.dataset)

    def offsets(self) -> Table:
        """Centres of the starlight minus positions of the catalogue, averaged over all galaxies."""
        from msa3d.galaxy import measure

        return measure.common_offset(self.galaxies().values())

    def closure(self, source_id: int | None = None) -> Table | None:
        """Maps of lines and velocity against the truth: see `msa3d.closure.truth.compared`; None without one."""
        from msa3d.closure import truth

        if self.target(source_id).source_id not in self.galaxies():
            return None
        true = self.true_lines(source_id)
        return None if true is None else truth.compared(self.galaxy(source_id), true)

    def side_by_side(self) -> Table:
        """The reports of all galaxies in the cubes of all builders of the dataset."""
        from msa3d.closure import side_by_side

        found = {builder: self.galaxies(builder) for builder in self.dataset.cubebuild.builders}
        return self._keep("sides", lambda: side_by_side.compared(found, self.dataset))

    def best_side_by_side(self) -> Table | None:
        """Rows of `side_by_side` for the galaxy whose Ha is best measured; None where there is nothing to compare."""
        from msa3d.closure import side_by_side

        return side_by_side.of_best(self.side_by_side(), self.galaxies()) if len(self.side_by_side()) else None

    def pulls(self) -> Table | None:
        """Pulls of all galaxies and quantities by builder; None where there is nothing to compare."""
        from msa3d.closure import side_by_side

        return side_by_side.summary(self.side_by_side()) if len(self.side_by_side()) else None

    def combined_pulls(self) -> Table | None:
        """Mean pull of each quantity over all galaxies, by builder; None where there is nothing to compare."""
        from msa3d.closure import side_by_side

        return side_by_side.combined(self.side_by_side()) if len(self.side_by_side()) else None

    def survey_efficiency(self) -> dict[str, float]:
        """Gain over the integral-field unit, and what the published one needs: see `multiplex.published_gain_needs`."""
        from msa3d.observation.multiplex import published_gain_needs

        return published_gain_needs()

    def used(self) -> Table:
        """Packages behind the numbers, with their versions; the book's acknowledgements are made of them."""
        from astropy.table import Table
        from myst_nb import glue

        from msa3d import citations

        used = citations.used(self.layout, self.galaxies().values())
        glue("used", used, display=False)
        return Table(rows=list(used["packages"].items()), names=("package", "version"))

    # --- figures

    def figure(self, name: str, source_id: int | None = None, **options: Any) -> SavedFigure | Sentence:
        """Draw a figure, write it as PDF and PNG with a table of its numbers, and show it.

        Parameters
        ----------
        name : str
            One of `FIGURES`.
        source_id : int, optional
            The galaxy; the case study without it.
        **options
            What else the figure's function takes, such as ``centre_um`` of ``spectrum_steps``.

        Returns
        -------
        SavedFigure or Sentence
            A sentence that says why there is no figure, for a galaxy that could not be measured.
        """
        from msa3d.figures import save

        if name not in FIGURES:
            raise ProductError(f"there is no figure {name!r}; there are {', '.join(FIGURES)}")
        plot = getattr(import_module(FIGURES[name]), f"plot_{name}")
        takes = inspect.signature(plot).parameters
        if "galaxy" in takes and self.target(source_id).source_id not in self.galaxies():
            return Sentence(f"There is no {name}: galaxy {self.target(source_id).source_id} is too faint.")
        values: dict[str, Any] = {"layout": self.layout, "dataset": self.dataset, "source_id": source_id}
        values = {parameter: value for parameter, value in values.items() if parameter in takes}
        for parameter in takes.keys() & GIVES.keys() - options.keys():
            values[parameter] = getattr(self, GIVES[parameter])(source_id)
        if (drawn := plot(**values, **options)) is None:
            return Sentence(f"There is no {name}: nothing that it shows was measured.")
        own = source_id is None
        return save(drawn, self.layout.figures, name if own else f"{name}_{source_id}")

    def atlas(self) -> list[SavedFigure]:
        """Draw all galaxies that were measured, some to a page: maps of one size and scale, and a spectrum."""
        from msa3d.figures import atlas, save

        galaxies = list(self.galaxies().values())
        return [
            save(atlas.plot_atlas(self.dataset, page), self.layout.figures, f"atlas_{number}")
            for number, page in enumerate(atlas.pages(galaxies), 1)
        ]

    def sample(self) -> Table:
        """The published table of the survey, a row a galaxy."""
        from msa3d.galaxy import report

        return report.survey()["ID", "z", "logMstar", "SFR", "incl", "Re_disk_kpc", "sigma0", "Vrot_Re", "vsig"]

    def interactive(self) -> Path:
        """Write the page on which a reader points at spaxels of all galaxies that were measured."""
        from msa3d.figures import interactive

        page = self.layout.figures / "interactive" / "index.html"
        found = self.galaxies()
        return interactive.write_interactive(page, self.dataset, found, {i: self.true_lines(i) for i in found})

    # --- words

    def tell(self, text: str | Table | None, name: str = "", /, *, otherwise: str = "", **numbers: float | str) -> None:
        """Show a sentence with numbers, or a table, as Markdown.

        Parameters
        ----------
        text : str, Table or None
            A sentence with fields as of `str.format`, or a table.
        name : str
            Under which a page of the book can show it, too (directive ``msa3d-told``).
        otherwise : str
            What is said without a table, or where a number is not finite: running text never says nan.
        **numbers : float or str
            Fill the fields.
        """
        from IPython.display import Markdown, display

        if isinstance(text, str):
            known = all(math.isfinite(value) for value in numbers.values() if isinstance(value, float))
            shown = _Minus().format(text, **numbers) if known else otherwise
        else:
            shown = otherwise if text is None else markdown(text)
        if name:
            from myst_nb import glue

            glue(name, Markdown(shown or UNKNOWN))
        elif shown:
            display(Markdown(shown))

    def _keep(self, key: Any, make: Any) -> Any:
        """What was made under a key, now or before."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclass(frozen=True)
class Sentence:
    """A sentence in place of a figure; shows itself in a notebook."""

    text: str

    def _repr_markdown_(self) -> str:
        return self.text


class _Minus(Formatter):
    """Fields of a sentence with the minus sign of typography."""

    def format_field(self, value: Any, format_spec: str) -> str:
        told = super().format_field(value, format_spec)
        return told if isinstance(value, str) else told.replace("-", "\u2212")


def markdown(table: Table, columns: Sequence[str] = ()) -> str:
    """A table as Markdown, numbers in the format of their columns; what is not known is a dash.

    >>> from astropy.table import Table
    >>> print(markdown(Table({"a": [1.0, float("nan")], "b": ["x", "y"]})))
    | a | b |
    | --- | --- |
    | 1.0 | x |
    | – | y |
    """
    names = list(columns or table.colnames)
    texts = []
    for name in names:
        shown = [str(value).strip() for value in table[name].pformat(show_name=False, show_unit=False, max_lines=-1)]
        numbers = table[name].dtype.kind in "fi"
        shown = [value.replace("-", "\u2212") if numbers else value for value in shown]
        texts.append([UNKNOWN if value in ("nan", "\u2212\u2212", "--", "") else value for value in shown])
    head = [name if table[name].unit is None else f"{name} ({table[name].unit})" for name in names]
    lines = [head, ["---"] * len(names), *zip(*texts, strict=True)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines)


def _flat(part: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Dotted names and values of nested mappings."""
    if not isinstance(part, Mapping):
        return [(prefix, str(part))]
    return [row for key, value in part.items() for row in _flat(value, f"{prefix}.{key}" if prefix else str(key))]


def _without_truth(table: Table, dataset: Dataset) -> Table:
    """The same without the columns of injected values where nothing was injected."""
    if not dataset.simulated:
        table.remove_columns([name for name in ("injected", "pull") if name in table.colnames])
    return table
