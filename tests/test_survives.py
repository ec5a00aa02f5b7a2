"""Files that were damaged, or that somebody changed: none passes unnoticed, and none ends in a traceback.

Hundreds of mutations, from a seed, of all that a run reads. Each is told in a sentence, or makes the product be made
again, or changes nothing that is read. What no check can tell is named in the book: pixels of count rates and positions
of sources in the metafile, which have no checksum there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table

from msa3d.archive import crds
from msa3d.config import Dataset
from msa3d.errors import Msa3dError
from msa3d.observation.exposures import SAME_IN_ALL, SAME_IN_BOTH, Observation
from msa3d.observation.metafile import MsaFile
from msa3d.observation.reading import PRIMARY_KEYWORDS, SCI_KEYWORDS, read_headers
from msa3d.pipeline.engine import Made, Record, Step, Task
from msa3d.pipeline.layout import Layout
from msa3d.pipeline.overview import read_status
from msa3d.pipeline.products import atomic_path
from msa3d.pipeline.verify import verify

from .observation.test_exposures import metafile, rate

BOOK = Path(__file__).parents[1] / "book"

NAMED, AGAIN, HARMLESS = "named in a sentence", "made again", "changes nothing that is read"


@pytest.fixture(scope="module")
def counts():
    """How often each thing happened, by what was changed.

    How many are named and how many made again differs by a few with the length of paths and the digits of dates; how
    many there were does not. `MSA3D_SURVIVES` names the table to write: the book's is of one such run.
    """
    found: dict[str, Counter] = {}
    yield found
    if len(found) < len(CATEGORIES):
        return  # only some of the tests were chosen
    names = ("what was changed", "mutations", NAMED, AGAIN, HARMLESS)
    rows = [(what, each.total(), each[NAMED], each[AGAIN], each[HARMLESS]) for what, each in found.items()]
    table = Table(rows=rows, names=names)
    assert sum(table["mutations"]) >= 500
    if path := os.environ.get("MSA3D_SURVIVES"):
        table.write(path, format="ascii.csv", overwrite=True)
    known = Table.read(BOOK / "survives.csv", format="ascii.csv")
    for name in names[:2]:
        assert list(known[name]) == list(table[name])


CATEGORIES = ("count rates", "metafile", "dataset", "products", "records", "references")


def said(error: Msa3dError, *names: str) -> str:
    """Make sure that it is a sentence which names what it is about."""
    text = str(error)
    assert "Traceback" not in text and len(text) < 3000
    assert any(name in text for name in names), text
    return NAMED


def damaged(content: bytes, rng: np.random.Generator, low: int = 0, high: int | None = None) -> bytes:
    """Flip a bit, cut the end off, or blank a stretch, somewhere between two bytes."""
    place = int(rng.integers(low, high or len(content)))
    kind = rng.integers(4)
    if kind == 0:
        return content[:place]
    if kind == 1:
        length = min(int(rng.integers(1, 400)), len(content) - place)
        return content[:place] + bytes(length) + content[place + length :]
    changed = bytearray(content)
    changed[place] ^= 1 << int(rng.integers(8))
    return bytes(changed)


# --- count rates


@pytest.fixture(scope="module")
def dataset():
    return Dataset.load("tiny")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, dataset):
    root = tmp_path_factory.mktemp("whole")
    for index in range(dataset.pattern.n_exposures):
        activity = dataset.simulation.activity(index)
        for detector in dataset.detectors:
            path = root / dataset.rate_name(activity, detector)
            rate(path, dataset, activity, detector, index, index % 2)
            fits.setval(path, "FILENAME", value=path.name)
    metafile(root / dataset.metafile, dataset)
    Observation.read(Layout(root), dataset).check()
    return root


def header_bytes(path: Path) -> list[tuple[int, int]]:
    """Where the headers of a FITS file lie."""
    with fits.open(path, disable_image_compression=True) as hdus:
        infos = [hdu.fileinfo() for hdu in hdus]
    return [(info["hdrLoc"], info["datLoc"]) for info in infos]


def values_read(path: Path) -> dict:
    """All that the path reads of a count-rate file."""
    headers = read_headers(path)
    names = [str(header.get("EXTNAME", "")).strip() for header in headers]
    sci = headers[names.index("SCI")]
    values = {key: headers[0].get(key) for key in PRIMARY_KEYWORDS} | {key: sci.get(key) for key in SCI_KEYWORDS}
    return {key: value.strip() if isinstance(value, str) else value for key, value in values.items()}


#: Within which two values of a keyword are one: as the checks allow it, of an exposure among its like.
ALIKE = {
    "RA_REF": 0.05 / 3600 / 0.6, "DEC_REF": 0.05 / 3600, "ROLL_REF": 0.03, **SAME_IN_ALL,
    "GWA_XTIL": 2e-4, "GWA_YTIL": 2e-4, **SAME_IN_BOTH,
}  # fmt: skip


def alike(key: str, one, two) -> bool:
    if key in ("FILENAME", "ENGQLPTG") or one == two:
        return True  # a name that is none of a rate tells nothing
    numbers = [isinstance(value, int | float) for value in (one, two)]
    return all(numbers) and abs(one - two) <= ALIKE.get(key, 0)


def try_rates(root: Path, dataset: Dataset, path: Path, before: dict) -> str:
    try:
        Observation.read(Layout(root), dataset).check()
    except Msa3dError as error:
        return said(error, path.name, path.stem.split("_")[1], root.name)
    after = values_read(path)
    assert all(alike(key, before[key], after[key]) for key in before), (path, before, after)
    return HARMLESS


def test_count_rates(whole, tmp_path, dataset, counts):
    root = shutil.copytree(whole, tmp_path / "run")
    rng = np.random.default_rng(1)
    found = counts.setdefault("count rates", Counter())
    rates = sorted(root.glob("*_rate.fits"))
    for _ in range(220):
        path = rates[rng.integers(len(rates))]
        content, before = path.read_bytes(), values_read(path)
        low, high = header_bytes(path)[int(rng.integers(2))]
        path.write_bytes(damaged(content, rng, low, high))
        found[try_rates(root, dataset, path, before)] += 1
        path.write_bytes(content)
    for _ in range(30):
        path, other = rng.choice(rates, 2, replace=False)
        content, before = path.read_bytes(), values_read(path)
        shutil.copyfile(other, path)
        outcome = try_rates(root, dataset, path, before)
        assert outcome == NAMED, (path, other)
        found[outcome] += 1
        path.write_bytes(content)
    Observation.read(Layout(root), dataset).check()


# --- metafile


#: Columns whose every value is a good one; and those that jwst 1.14.0 does not read.
FREE = {"estimated_source_in_shutter_x", "estimated_source_in_shutter_y"}


@pytest.mark.filterwarnings("ignore:The following header keyword is invalid")
def test_metafile(whole, tmp_path, dataset, counts, caplog):
    root = shutil.copytree(whole, tmp_path / "run")
    path = root / dataset.metafile
    content, before = path.read_bytes(), MsaFile.read(path)
    rng = np.random.default_rng(2)
    found = counts.setdefault("metafile", Counter())

    def outcome(change: str) -> str:
        caplog.clear()
        try:
            Observation.read(Layout(root), dataset).check()
        except Msa3dError as error:
            return said(error, path.name)
        after = MsaFile.read(path)
        if after.check():
            return NAMED  # as a warning of `msa3d msa check`
        for name in set(before.shutters.dtype.names) - FREE:
            assert np.array_equal(before.shutters[name], after.shutters[name]), (change, name)
        for name in ("source_id", "ra", "dec"):
            good = np.isclose(before.sources[name], after.sources[name], rtol=0, atol=0 if name == "source_id" else 400)
            assert good.all(), (change, name)
        return HARMLESS

    with fits.open(path) as hdus:
        table, columns = hdus["SHUTTER_INFO"].data.copy(), hdus["SHUTTER_INFO"].columns
    numbers = [name for name in columns.names if table[name].dtype.kind in "iu"]
    for turn in range(110):
        kind = turn % 3
        if kind == 0:
            change = "damaged"
            low, high = header_bytes(path)[2]
            path.write_bytes(damaged(content, rng, low if turn % 2 else 0, high if turn % 2 else None))
        else:
            with fits.open(path, mode="update") as hdus:
                rows = hdus["SHUTTER_INFO"].data
                row = int(rng.integers(len(rows)))
                if kind == 1:
                    change = f"row {row} lost"
                    hdus["SHUTTER_INFO"].data = rows[np.arange(len(rows)) != row]
                else:
                    name = str(rng.choice(numbers))
                    bit = int(rng.integers(8))
                    change = f"{name} of row {row}, bit {bit}"
                    rows[name][row] ^= 1 << bit
        found[outcome(change)] += 1
        path.write_bytes(content)


# --- dataset


BAD = (
    None,
    True,
    -1,
    0,
    1e30,
    float("nan"),
    float("inf"),
    "",
    "x" * 3000,
    "../../x",
    [],
    [1],
    {},
    {"a": 1},
    "$(id)",
    2**70,
)


def leaves(values, place=()):
    """Places of all keys of nested mappings."""
    for key, value in values.items():
        yield (*place, key)
        if isinstance(value, dict):
            yield from leaves(value, (*place, key))


def put(values: dict, place: tuple, value) -> dict:
    changed = dict(values)
    changed[place[0]] = value if len(place) == 1 else put(values[place[0]], place[1:], value)
    return changed


def test_dataset(tmp_path, counts):
    rng = np.random.default_rng(3)
    found = counts.setdefault("dataset", Counter())
    path = tmp_path / "mine.yaml"
    original = Dataset.load("tiny")
    values = original.model_dump(mode="json")
    places = list(leaves(values))
    for turn in range(120):
        if turn % 4 == 0:
            text = yaml.safe_dump(values).encode()
            path.write_bytes(damaged(text, rng))
        elif turn % 4 == 1:
            place = places[rng.integers(len(places))]
            key = place[-1]
            other = str(key) + "x" if rng.integers(2) else str(key).upper()
            path.write_text(yaml.safe_dump(put(values, (*place[:-1], other), 1)))
        else:
            place = places[rng.integers(len(places))]
            path.write_text(yaml.safe_dump(put(values, place, BAD[rng.integers(len(BAD))])))
        try:
            given = yaml.safe_load(path.read_bytes())
        except (yaml.YAMLError, UnicodeDecodeError, ValueError):
            given = None
        try:
            read = Dataset.load(path)
        except Msa3dError as error:
            found[said(error, str(path))] += 1
            continue
        # What is accepted is what was given, nothing else.
        assert Dataset.from_mapping(given) == read
        assert (read == original) == (Dataset.from_mapping(values) == Dataset.from_mapping(given))
        found[HARMLESS] += 1


# --- products and records


def write_product(job):
    path, value = job
    with atomic_path(path) as partial:
        data = np.full((40, 40), value, np.float32)
        fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(data, name="SCI")]).writeto(partial, checksum=True)
    return Made([path])


def read_product(job):
    source, path = job
    with fits.open(source) as hdus:
        value = float(hdus["SCI"].data.mean())
    return write_product((path, value))


class Chain:
    """Two steps, the second of which reads what the first wrote."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root)
        self.first, self.second = self.layout.reduction / "a_cal.fits", self.layout.reduction / "cube.fits"
        one = Record(self.layout, "process", "0311n", parameters={"value": 3})
        self.steps = [
            Step("process", lambda d, lay: [Task("a", self.record("process"), (self.first, 3.0))], write_product),
            Step(
                "cubebuild",
                lambda d, lay: [Task("b", self.record("cubebuild"), (self.first, self.second))],
                read_product,
            ),
        ]
        self.records = [one.path, self.record("cubebuild").path]

    def record(self, step: str) -> Record:
        inputs = [self.first] if step == "cubebuild" else []
        return Record(self.layout, step, "0311n", inputs=inputs, parameters={"value": 3})

    def run(self) -> list[str]:
        return [step.run(None, self.layout, workers=1).results[0].status for step in self.steps]

    def value(self) -> float:
        return float(fits.getdata(self.second, "SCI").mean())


@pytest.fixture
def chain(tmp_path):
    made = Chain(tmp_path / "run")
    made.layout.root.mkdir()
    assert made.run() == ["done", "done"]
    return made


def look(chain: Chain) -> None:
    """As `msa3d verify` and `msa3d status` do: whatever lies there, they have something to say."""
    verify(chain.layout, Dataset.load("tiny")).table()
    read_status(Dataset.load("tiny"), chain.layout).table()


def test_products(chain, counts):
    rng = np.random.default_rng(4)
    found = counts.setdefault("products", Counter())
    for turn in range(60):
        path = (chain.first, chain.second)[turn % 2]
        content = path.read_bytes()
        path.write_bytes(damaged(content, rng))
        if path.read_bytes() == content:
            found[HARMLESS] += 1
            continue
        look(chain)
        if turn % 4 == 0:
            # The second step alone: it must not build from it.
            with pytest.raises(Msa3dError) as caught:
                chain.steps[1].run(None, chain.layout, workers=1)
            found[said(caught.value, path.name)] += 1
            assert chain.value() == 3.0
            chain.run()
        else:
            assert "done" in chain.run()
            found[AGAIN] += 1
        assert chain.value() == 3.0
        assert chain.run() == ["current", "current"]


def mutated(value, rng):
    """JSON with something in it replaced, lost or renamed."""
    if isinstance(value, dict) and value and rng.integers(4):
        key = list(value)[rng.integers(len(value))]
        changed = dict(value)
        kind = rng.integers(4)
        if kind == 0:
            del changed[key]
        elif kind == 1:
            changed[f"{key}x"] = changed.pop(key)
        else:
            changed[key] = mutated(value[key], rng)
        return changed
    return [None, [], {}, -1, "x", 1.5, True, [[]], {"a": None}, "0" * 64][rng.integers(10)]


def test_records(chain, counts):
    rng = np.random.default_rng(5)
    found = counts.setdefault("records", Counter())
    whole = [json.loads(path.read_text()) for path in chain.records]
    for turn in range(80):
        path, known = chain.records[turn % 2], whole[turn % 2]
        if turn % 5 == 0:
            path.write_bytes(damaged(path.read_bytes(), rng))
        else:
            path.write_text(json.dumps(mutated(known, rng)))
        look(chain)
        try:
            states = chain.run()
        except Msa3dError as error:
            # The record says of the file what the file is not: both are made again.
            found[said(error, chain.first.name, path.stem)] += 1
            if "one root, one pipeline" in str(error):
                # A record that lost its version of jwst is one of 1.14.0: with another version the user decides.
                path.write_text(json.dumps(known))
                continue
            assert "done" in chain.run()
            whole = [json.loads(path.read_text()) for path in chain.records]
            continue
        if "done" in states:
            found[AGAIN] += 1
        else:
            # Then it says of all that counts what it said before.
            after = json.loads(path.read_text())
            for key in ("step", "name", "code", "parameters", "inputs", "products", "references"):
                assert after[key] == known[key] or key in ("inputs", "products"), key
            for key in ("inputs", "products"):
                for name, was in after[key].items():
                    assert (
                        was["sha256"] == known[key][name]["sha256"] or was["mtime_ns"] == known[key][name]["mtime_ns"]
                    )
            found[HARMLESS] += 1
        assert chain.value() == 3.0
        for each in chain.steps:
            each.run(None, chain.layout, workers=1)
        whole = [json.loads(path.read_text()) for path in chain.records]


# --- references


def test_references(tmp_path, counts, monkeypatch):
    rng = np.random.default_rng(6)
    found = counts.setdefault("references", Counter())
    cache = tmp_path / "cache"
    folder = cache / "references" / "jwst" / "nirspec"
    folder.mkdir(parents=True)
    monkeypatch.setenv("CRDS_PATH", str(cache))
    layout = Layout(tmp_path / "run")
    product = layout.reduction / "a_cal.fits"
    path = folder / "jwst_nirspec_fflat_0001.fits"
    write_product((path, 1.0))
    write_product((product, 2.0))
    record = Record(layout, "process", "0311n")
    record.write([product], [path])
    content = path.read_bytes()
    for _ in range(60):
        path.write_bytes(damaged(content, rng))
        changed = path.read_bytes() != content
        try:
            crds.check_whole(path)
        except Msa3dError as error:
            found[said(error, path.name)] += 1
        else:
            # Whole, and another one: what was made with it is made again.
            assert (record.reason() != "") == changed
            found[AGAIN if changed else HARMLESS] += 1
        path.write_bytes(content)
    assert record.is_current()
