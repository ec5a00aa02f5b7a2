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
from msa3d import binding, codeversion, notebook
from msa3d.cube import drizzle, paper
from msa3d.cube.source import Placed, SourceTask
from msa3d.dataset import Dataset
from msa3d.layout import Layout
from msa3d.simulate import observe
from msa3d.steps import calpost, nsclean, postprocess, preprocess, process, register

PROJECT = Path(__file__).parents[1]
NAMES = ("01_process", "02_postprocess", "03_cubebuild", "04_figures")

# What each step is made by, with the settings of a dataset.
STEPS = ("simulate", "preprocess", "nsclean", "metafile", "process", "calpost", "postprocess", "drizzle", "paper")
STEPS = (*STEPS, "register")
NOTHING = frozenset()
ALL_NOTEBOOKS = frozenset(NAMES)

# An edit, as the file and what is added to it, or replaced in it; and what it makes stale.
LINE = "\nEDITED = 1\n"
EDITS = {
    "the outlier test": ("cube/outliers.py", LINE, {"drizzle", "03_cubebuild"}),
    # Apertures on a cube overlap its spaxels in the same way, and all notebooks draw or measure one.
    "the overlap of pixels and voxels": ("cube/overlap.py", LINE, {"drizzle", "book", *ALL_NOTEBOOKS}),
    "the operator of the drizzled cube": ("cube/operator.py", LINE, {"drizzle", "03_cubebuild"}),
    "the median of the published algorithm": ("cube/median.py", LINE, {"paper", "03_cubebuild"}),
    "the stack of the published algorithm": ("cube/stack.py", LINE, {"paper", "03_cubebuild"}),
    "the geometry of a slit": (
        "cube/slitgeometry.py", LINE, {"calpost", "postprocess", "drizzle", "register", *NAMES[1:3]}
    ),
    "the registration, which is off": ("cube/registration_fit.py", LINE, {"register", "03_cubebuild"}),
    # The third notebook compares builders with the published corrections on and off.
    "corrections of calibrated slits": ("steps/calcorrections.py", LINE, {"calpost", *NAMES[1:3]}),
    "cosmic rays in calibrated slits, which is off": ("steps/calcosmics.py", LINE, {"02_postprocess"}),
    "the background of calibrated slits, which is off": ("steps/calbackground.py", LINE, {"02_postprocess"}),
    "the published path loss": ("steps/pathloss.py", LINE, {"postprocess", *NAMES[1:3]}),
    "stage 1, which is off": ("steps/preprocess.py", LINE, {"preprocess"}),
    "NSClean, which is off": ("steps/nsclean.py", LINE, {"nsclean"}),
    "an acceleration of jwst": (
        "steps/speed_pipeline.py", LINE, {"preprocess", "nsclean", "process", "01_process"}
    ),
    "reading and writing metafiles": ("msafile.py", LINE, {"metafile", "01_process"}),
    "splitting slitlets": ("msaedit.py", LINE, {"metafile", "01_process"}),
    "the simulated noise": ("simulate/noise.py", LINE, {"simulate", "01_process"}),
    "figures of the simulated optics": (
        "simulate/data/nirspec_optics.yaml", "\nedited: 1\n", {"simulate", "01_process"}
    ),
    "the table of lines": ("constants.py", LINE, {"simulate", "register", "book", NAMES[0], *NAMES[2:]}),
    "the fit of H-alpha": ("science/lines.py", LINE, {"book", *NAMES[2:]}),
    "a calibration of metallicities": ("science/data/calibrations.yaml", "\n# edited\n", {"04_figures", "book"}),
    "published values": ("science/data/published.yaml", "\n# edited\n", {"04_figures"}),
    "a figure of the first notebook": ("figures/detectors.py", LINE, {"01_process"}),
    "a figure of the second notebook": ("figures/postprocess_effect.py", LINE, {"02_postprocess"}),
    "the look of all figures": ("figures/style.py", LINE, ALL_NOTEBOOKS),
    "the page that can be turned": ("figures/interactive.html", "<!-- -->\n", {"04_figures"}),
    "the binding of the book": ("binding.py", LINE, {"book"}),
    "a comment": ("cube/outliers.py", "# why\n", NOTHING),
    "settings": ("settings.py", LINE, NOTHING),
    "settings of the cube": ("settings_cube.py", "\nfrom msa3d.cube import outliers\n", NOTHING),
    "the description of datasets": ("dataset.py", "\nfrom msa3d import msafile\n", NOTHING),
    "the choice of steps": ("steps/__init__.py", "\nfrom msa3d.steps import nsclean\n", NOTHING),
    "how a step runs": ("steps/outdated.py", LINE, NOTHING),
    "messages": ("errors.py", LINE, NOTHING),
    "paths": ("layout.py", LINE, NOTHING),
    "workers": ("workers.py", LINE, NOTHING),
    "what picks the exposures": ("observation.py", LINE, NOTHING),
    "which references are used": ("references.py", LINE, NOTHING),
    "commands": ("commands/steps.py", LINE, NOTHING),
}  # fmt: skip


def modules() -> dict[str, tuple[str, ...]]:
    """Modules that each product of tiny names as its makers."""
    dataset, layout = Dataset.load("tiny"), Layout("nowhere")
    source = SourceTask(layout, dataset, 8512, ())
    exposure = Placed("0311n", 0, 0)
    named = {
        "simulate": observe._record(dataset, layout, 0, "NRS1").modules,
        "preprocess": preprocess.MODULES,
        "nsclean": nsclean.MODULES,
        "metafile": ("msa3d.msaedit",),
        "process": process.MODULES,
        "calpost": calpost._task("0311n", [], dataset, layout, dataset.calpost, None, None).record.modules,
        "postprocess": postprocess._task(exposure, dataset, layout, {}, {}, (None, None)).record.modules,
        "drizzle": drizzle.modules(source),
        "paper": paper.modules(source),
        "register": register.MODULES,
        "book": binding.MODULES,
    }
    paths = {name: PROJECT / "notebooks" / f"{name}.ipynb" for name in NAMES}
    return named | {name: notebook._record(path, layout, {}).modules for name, path in paths.items()}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A copy of the package, the modules that make each product, and the versions of their code."""
    copy = tmp_path_factory.mktemp("source") / "msa3d"
    shutil.copytree(Path(msa3d.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
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
    path = package.folder / file
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
    text = "if TYPE_CHECKING:\n    from msa3d import msaedit\nfrom msa3d import msafile\n"
    assert codeversion.msa3d_imports(ast.parse(text)) == {"msa3d.msafile"}


def test_the_face_of_a_package_is_seen_through():
    text = "from msa3d.cube import open_cube\nfrom msa3d.figures import save, column\n"
    wanted = {"msa3d.cube.cubefile", "msa3d.figures.style", "msa3d.figures.column"}
    assert codeversion.msa3d_imports(ast.parse(text)) == wanted


# --- settings count as values

STATE = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from msa3d import notebook
from msa3d.dataset import Dataset
from msa3d.records import digest
from msa3d.layout import Layout
from msa3d.cube import drizzle, paper
from msa3d.cube.source import Placed, SourceTask
from msa3d.simulate import observe
from msa3d.steps import calpost, postprocess
dataset, layout = Dataset.load("tiny"), Layout("nowhere")
source, exposure = SourceTask(layout, dataset, 8512, ()), Placed("0311n", 0, 0)
records = {
    "simulate": observe._record(dataset, layout, 0, "NRS1").parameters,
    "process": [dataset.process.spec2, dataset.process.spec3, dataset.process.product],
    "calpost": calpost._task("0311n", [], dataset, layout, dataset.calpost, None, None).record.parameters,
    "postprocess": postprocess._task(exposure, dataset, layout, {}, {}, (None, None)).record.parameters,
    "drizzle": drizzle.parameters(source),
    "paper": paper.parameters(source),
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
        ("settings_cube.py", "    snr: Positive", "    hidden: int = 1\n    snr: Positive", {"drizzle"}),
        ("settings_cube.py", "snr: Positive = 4.0", "snr: Positive = 5.0", {"drizzle"}),
        ("datasets/base.yaml", "source: uniform, aperture: MOS1x3", "source: none, aperture: MOS1x3", {"postprocess"}),
        # A setting of no step at all still is one of the dataset that the notebooks show.
        ("datasets/demo.yaml", "title:", "title: An edited", set()),
    ],
)
def test_values_of_settings(tmp_path, file, old, new, stale):
    copy = tmp_path / "msa3d"
    shutil.copytree(Path(msa3d.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    before = state(tmp_path)
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    after = state(tmp_path)
    changed = {name for name in after if after[name] != before[name]}
    # The title of demo is not that of tiny, which extends it and has its own.
    assert changed == (stale | {"notebooks"} if stale else set())
