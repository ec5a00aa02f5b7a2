"""What an edit of the code makes stale, and what it does not: steps, notebooks and the book."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import msa3d
from msa3d.config import Dataset
from msa3d.cubes import drizzle
from msa3d.observation.source import Placed, SourceTask
from msa3d.pipeline import codeversion, notebooks
from msa3d.pipeline.layout import Layout
from msa3d.pointing import offsets
from msa3d.published import cube, spectra
from msa3d.reduce import calibrate, detector1, nsclean, slits
from msa3d_sim import observe

PROJECT = Path(__file__).parents[2]
NAMES = ("01_process", "02_postprocess", "03_cubebuild", "04_figures")

# What each step is made by, with the settings of a dataset.
STEPS = ("simulate", "preprocess", "nsclean", "metafile", "process", "calpost", "postprocess", "drizzle", "paper")
STEPS = (*STEPS, "register")
NOTHING = frozenset()
ALL_NOTEBOOKS = frozenset(NAMES)

# An edit, as the file and what is added to it, or replaced in it; and what it makes stale.
LINE = "\nEDITED = 1\n"
EDITS = {
    "the outlier test": ("cubes/outliers.py", LINE, {"drizzle", "03_cubebuild"}),
    # Apertures on a cube overlap its spaxels in the same way, and all notebooks draw or measure one.
    "the overlap of pixels and voxels": ("cubes/overlap.py", LINE, {"drizzle", "book", *ALL_NOTEBOOKS}),
    "the operator of the drizzled cube": ("cubes/operator.py", LINE, {"drizzle", "03_cubebuild"}),
    "the median of the published algorithm": ("published/cube.py", LINE, {"paper", "03_cubebuild"}),
    "the geometry of a slit": (
        "reduce/geometry.py", LINE,
        {"preprocess", "process", "calpost", "postprocess", "drizzle", "paper", "register", *NAMES},
    ),
    "a calibrated slit": (
        "reduce/slit.py", LINE, {"calpost", "postprocess", "drizzle", "register", *ALL_NOTEBOOKS}
    ),
    "the registration, which is off": ("pointing/fit.py", LINE, {"register", "03_cubebuild"}),
    # The third notebook compares builders with the published corrections on and off.
    "corrections of calibrated slits": ("reduce/corrections.py", LINE, {"calpost", *ALL_NOTEBOOKS}),
    "cosmic rays in calibrated slits, which is off": ("reduce/cosmics.py", LINE, {"02_postprocess"}),
    "the background of calibrated slits, which is off": ("reduce/background.py", LINE, {"02_postprocess"}),
    "the published path loss": ("published/spectra.py", LINE, {"postprocess", *NAMES[1:3]}),
    "stage 1, which is off": ("reduce/detector1.py", LINE, {"preprocess"}),
    "the fit of correlated noise": ("reduce/nsclean.py", LINE, {"nsclean", "process", "01_process"}),
    "an acceleration of jwst": (
        "reduce/jwst_speed.py", LINE, {"preprocess", "nsclean", "process", "01_process"}
    ),
    "reading and writing metafiles": ("observation/metafile.py", LINE, {"metafile", "01_process"}),
    "splitting slitlets": ("observation/metafile_edit.py", LINE, {"metafile", "01_process"}),
    "the simulated noise": ("../msa3d_sim/noise.py", LINE, {"simulate", "01_process"}),
    "figures of the simulated optics": (
        "../msa3d_sim/data/nirspec_optics.yaml", "\nedited: 1\n", {"simulate", "01_process"}
    ),
    "the table of lines": (
        "constants.py", LINE, {"simulate", "register", "book", *ALL_NOTEBOOKS}
    ),
    "the fit of H-alpha": ("galaxy/lines.py", LINE, ALL_NOTEBOOKS),
    "a calibration of metallicities": ("galaxy/data/calibrations.yaml", "\n# edited\n", {*NAMES[2:], "book"}),
    "published values": ("galaxy/data/published.yaml", "\n# edited\n", {*NAMES[2:]}),
    "figures of exposures": ("figures/observation.py", LINE, ALL_NOTEBOOKS),
    "the look of all figures": ("figures/style.py", LINE, ALL_NOTEBOOKS),
    "the page that can be turned": ("figures/interactive.html", "<!-- -->\n", {"04_figures"}),
    "the binding of the book": ("pipeline/notebooks.py", LINE, {"book"}),
    "a comment": ("cubes/outliers.py", "# why\n", NOTHING),
    "settings": ("config.py", LINE, NOTHING),
    "settings of the cube": ("cubes/settings.py", "\nfrom msa3d.cubes import outliers\n", NOTHING),
    "the description of datasets": ("config.py", "\nfrom msa3d.observation import metafile\n", NOTHING),
    "the choice of steps": ("pipeline/steps.py", "\nfrom msa3d.reduce import nsclean\n", NOTHING),
    "how a step runs": ("pipeline/products.py", LINE, NOTHING),
    "messages": ("errors.py", LINE, NOTHING),
    "paths": ("pipeline/layout.py", LINE, NOTHING),
    "workers": ("pipeline/parallel.py", LINE, NOTHING),
    "what picks the exposures": ("observation/exposures.py", LINE, NOTHING),
    "which references are used": ("archive/crds.py", LINE, NOTHING),
    "commands": ("cli.py", LINE, NOTHING),
}  # fmt: skip


def modules() -> dict[str, tuple[str, ...]]:
    """Modules that each product of tiny names as its makers."""
    dataset, layout = Dataset.load("tiny"), Layout("nowhere")
    source = SourceTask(layout, dataset, 8512, ())
    exposure = Placed("0311n", 0, 0)
    named = {
        "simulate": observe._record(dataset, layout, 0, "NRS1").modules,
        "preprocess": detector1.MODULES,
        "nsclean": nsclean.MODULES,
        "metafile": ("msa3d.observation.metafile_edit",),
        "process": calibrate.modules(dataset.process),
        "calpost": slits._task("0311n", [], dataset, layout, dataset.calpost, None, None).record.modules,
        "postprocess": spectra._task(exposure, dataset, layout, {}, {}, (None, None)).record.modules,
        "drizzle": drizzle.modules(source),
        "paper": cube.modules(source),
        "register": offsets.MODULES,
        "book": notebooks.MODULES,
    }
    paths = {name: PROJECT / "notebooks" / f"{name}.ipynb" for name in NAMES}
    return named | {name: notebooks._record(path, layout, {}).modules for name, path in paths.items()}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package, the modules that make each product, and the versions of their code."""
    copy = tmp_path_factory.mktemp("source") / "msa3d"
    for name in ("msa3d", "msa3d_sim"):
        source = Path(msa3d.__file__).parents[1] / name
        shutil.copytree(source, copy.with_name(name), ignore=shutil.ignore_patterns("__pycache__"))
    named = modules()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codeversion, "_PACKAGE_DIR", copy)
        codeversion._parsed.cache_clear()
        yield SimpleNamespace(folder=copy, named=named, versions=versions(named))
    codeversion._parsed.cache_clear()


def versions(named: dict[str, tuple[str, ...]]) -> dict[str, str]:
    return {name: codeversion.code_version(*makers) for name, makers in named.items()}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_makes_stale_what_depends_on_it_and_no_more(package, monkeypatch, what):
    file, text, stale = EDITS[what]
    path = (package.folder / file).resolve()
    before = path.read_bytes()
    # Only what lies in the folder of the edit is parsed anew.
    beside = path.parent.parent if path.parent.name == "data" else path.parent
    known, fresh = codeversion._parsed, codeversion._parsed.__wrapped__

    def parsed(module):
        return fresh(module) if codeversion._module_file(module).parent == beside else known(module)

    monkeypatch.setattr(codeversion, "_parsed", parsed)
    try:
        path.write_bytes(before + text.encode())
        found = versions(package.named)
    finally:
        path.write_bytes(before)
    # Notebooks read what steps make by their records; a notebook whose step is stale is one that is run again.
    assert {name for name in found if found[name] != package.versions[name]} == set(stale)


def test_every_module_that_decides_nothing_is_there():
    assert all(codeversion._module_file(name) for name in codeversion.DECIDES_NOTHING)


def test_imports_for_type_checking_do_not_count():
    text = (
        "if TYPE_CHECKING:\n    from msa3d.observation import metafile_edit\nfrom msa3d.observation import metafile\n"
    )
    assert codeversion.msa3d_imports(ast.parse(text)) == {"msa3d.observation.metafile"}


def test_the_face_of_a_package_is_seen_through():
    text = "from msa3d.figures import save, cube\n"
    wanted = {"msa3d.figures.style", "msa3d.figures.cube"}
    assert codeversion.msa3d_imports(ast.parse(text)) == wanted


# --- settings count as values

STATE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from msa3d.pipeline import notebooks
from msa3d.config import Dataset
from msa3d.pipeline.engine import digest
from msa3d.pipeline.layout import Layout
from msa3d.cubes import drizzle
from msa3d.published import cube
from msa3d.observation.source import Placed
from msa3d.observation.source import SourceTask
from msa3d_sim import observe
from msa3d.reduce import slits
from msa3d.published import spectra
dataset, layout = Dataset.load("tiny"), Layout("nowhere")
source, exposure = SourceTask(layout, dataset, 8512, ()), Placed("0311n", 0, 0)
records = {
    "simulate": observe._record(dataset, layout, 0, "NRS1").parameters,
    "process": [dataset.process.spec2, dataset.process.spec3, dataset.process.product],
    "calpost": slits._task("0311n", [], dataset, layout, dataset.calpost, None, None).record.parameters,
    "postprocess": spectra._task(exposure, dataset, layout, {}, {}, (None, None)).record.parameters,
    "drizzle": drizzle.parameters(source),
    "paper": cube.parameters(source),
    "notebooks": dataset.model_dump(mode="json"),
}
print(json.dumps({name: digest(value) for name, value in records.items()}))
"""


def state(folder: Path) -> dict[str, str]:
    command = [sys.executable, "-c", STATE, str(folder)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("file", "old", "new", "stale"),
    [
        # A new option has a value, which belongs to what it is an option of.
        ("cubes/settings.py", "    snr: Positive", "    hidden: int = 1\n    snr: Positive", {"drizzle"}),
        ("cubes/settings.py", "snr: Positive = 4.0", "snr: Positive = 5.0", {"drizzle"}),
        ("datasets/base.yaml", "source: uniform, aperture: MOS1x3", "source: none, aperture: MOS1x3", {"postprocess"}),
        # A setting of no step at all still is one of the dataset that the notebooks show.
        ("datasets/demo.yaml", "title:", "title: An edited", set()),
    ],
)
def test_values_of_settings(tmp_path, file, old, new, stale):
    copy = tmp_path / "msa3d"
    for name in ("msa3d", "msa3d_sim"):
        source = Path(msa3d.__file__).parents[1] / name
        shutil.copytree(source, copy.with_name(name), ignore=shutil.ignore_patterns("__pycache__"))
    before = state(tmp_path)
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    after = state(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    # The title of demo is not that of tiny, which extends it and has its own.
    assert changed == (stale | {"notebooks"} if stale else set())
