"""Stamps, atomic writes, and when a product has to be made again."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from astropy.io import fits

import msa3d
from msa3d import codeversion, provenance
from msa3d.dataset import Dataset
from msa3d.errors import ProductError
from msa3d.layout import Layout
from msa3d.provenance import SIMULATED_HISTORY, SIMULATED_KEYWORD, Record, atomic_path, code_version


def history(header):
    return "".join(str(line).ljust(72) for line in header["HISTORY"])


# --- stamps


def test_mark_is_made_once_and_read_back():
    header = fits.Header()
    assert not provenance.is_simulated(header)
    for _ in range(3):
        provenance.mark_simulated(header)
    assert provenance.is_simulated(header)
    assert history(header).count(SIMULATED_HISTORY) == 1
    assert "not an observation" in SIMULATED_HISTORY


def test_stamp_says_what_made_it(monkeypatch):
    monkeypatch.setenv("CRDS_CONTEXT", "jwst_9999.pmap")
    dataset = Dataset.load("tiny")
    header = fits.Header()
    provenance.stamp(
        header,
        dataset=dataset,
        inputs=["/a/b_rate.fits"],
        references={"pathloss": "/c/loss.fits"},
        step="process",
    )
    assert header["MSA3DVER"] == msa3d.__version__
    assert header["MSA3DSET"] == "tiny"
    assert dataset.digest.startswith(header["MSA3DCFG"])
    assert len(header["MSA3DCFG"]) == 32
    assert header["CRDS_CTX"] == "jwst_9999.pmap"
    assert header["CAL_VER"]
    assert header["MSA3DGIT"]
    assert header[SIMULATED_KEYWORD] is True
    text = history(header)
    for part in ("process", "input: b_rate.fits", "reference: pathloss loss.fits", SIMULATED_HISTORY):
        assert part in text


def test_stamp_keeps_what_jwst_wrote_and_never_unmarks():
    header = fits.Header([("CAL_VER", "1.14.0"), ("CRDS_CTX", "jwst_1237.pmap"), (SIMULATED_KEYWORD, True)])
    provenance.stamp(header, dataset=Dataset.load("go2136"), simulated=False)
    assert (header["CAL_VER"], header["CRDS_CTX"]) == ("1.14.0", "jwst_1237.pmap")
    assert provenance.is_simulated(header)


def test_stamp_does_not_mark_real_data():
    header = fits.Header()
    provenance.stamp(header, dataset=Dataset.load("go2136"))
    assert SIMULATED_KEYWORD not in header


def test_many_inputs_are_told_in_one_line():
    header = fits.Header()
    provenance.stamp(header, inputs=[f"jw{i:03d}_rate.fits" for i in range(126)])
    assert "126 files, jw000_rate.fits to jw125_rate.fits" in history(header)
    assert len(header["HISTORY"]) < 5


def test_stamp_file_changes_the_primary_header_only(tmp_path):
    path = tmp_path / "a.fits"
    image = np.arange(12, dtype=np.int16).reshape(3, 4)
    table = fits.BinTableHDU.from_columns([fits.Column("x", "D", array=np.linspace(0, 1, 5))], name="ASDF")
    scaled = fits.ImageHDU(image, name="SCI")
    scaled.scale("int16", bzero=32768)
    fits.HDUList([fits.PrimaryHDU(), scaled, fits.CompImageHDU(image, name="DQ"), table]).writeto(path)
    with fits.open(path, disable_image_compression=True, do_not_scale_image_data=True) as hdus:
        before = [(repr(hdu.header), hdu.data.tobytes()) for hdu in hdus[1:]]
    provenance.stamp_file(path, dataset=Dataset.load("tiny"), inputs=[f"{i}.fits" for i in range(10)])
    with fits.open(path, disable_image_compression=True, do_not_scale_image_data=True) as hdus:
        assert [(repr(hdu.header), hdu.data.tobytes()) for hdu in hdus[1:]] == before
        assert hdus[0].header["MSA3DSET"] == "tiny"
        assert provenance.is_simulated(hdus[0].header)


def test_git_revision_of_an_image(monkeypatch, tmp_path):
    monkeypatch.setattr(codeversion, "_PACKAGE_DIR", tmp_path)
    provenance.git_revision.cache_clear()
    monkeypatch.setenv("MSA3D_GIT_REVISION", "abc123")
    assert provenance.git_revision() == "abc123"
    provenance.git_revision.cache_clear()


# --- atomic writes


def test_atomic_path_renames_when_whole(tmp_path):
    final = tmp_path / "deep" / "cube.fits"
    with atomic_path(final) as partial:
        assert partial.suffix == ".fits"
        assert partial.parent == final.parent
        partial.write_text("new")
        assert not final.exists()
    assert final.read_text() == "new"
    assert list(final.parent.iterdir()) == [final]


def test_atomic_path_keeps_the_old_on_error(tmp_path):
    final = tmp_path / "cube.fits"
    final.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(final) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert final.read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_atomic_path_of_nothing(tmp_path):
    with pytest.raises(ProductError, match="was not written"), atomic_path(tmp_path / "a.fits"):
        pass


def test_atomic_directory_replaces_a_directory(tmp_path):
    final = tmp_path / "cache"
    for text in ("old", "new"):
        with atomic_path(final) as partial:
            partial.mkdir()
            (partial / text).write_text(text)
    assert [path.name for path in final.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [final]


# --- code version


def test_code_version_follows_code_not_words(tmp_path, monkeypatch):
    package = tmp_path / "msa3d"
    (package / "steps").mkdir(parents=True)
    for name in ("__init__", "steps/__init__", "layout"):
        (package / f"{name}.py").write_text("")
    (package / "tool.py").write_text("VALUE = 1\n")
    (package / "other.py").write_text("OTHER = 1\n")
    step = package / "steps" / "process.py"
    step.write_text('"""Doc."""\nfrom .. import tool\nfrom msa3d.layout import Layout\n')
    monkeypatch.setattr(codeversion, "_PACKAGE_DIR", package)

    def version():
        codeversion._parsed.cache_clear()
        codeversion._face.cache_clear()
        return code_version("msa3d.steps.process")

    first = version()
    step.write_text('"""Other words."""\nfrom .. import tool  # why\nfrom msa3d.layout import Layout\n')
    (package / "layout.py").write_text("CHANGED = 1\n")
    (package / "other.py").write_text("OTHER = 2\n")
    assert version() == first
    (package / "tool.py").write_text("VALUE = 2\n")
    second = version()
    assert second != first
    step.write_text('"""Doc."""\nfrom .. import tool\nfrom msa3d.layout import Layout\nX = 1\n')
    assert version() not in (first, second)
    codeversion._parsed.cache_clear()


def test_code_version_of_unknown_module():
    with pytest.raises(ValueError, match=r"no module 'msa3d.nothing'"):
        code_version("msa3d.nothing")


# --- records


@pytest.fixture
def made(tmp_path):
    """A record of one product made from two inputs."""
    layout = Layout(tmp_path)
    inputs = [tmp_path / "a_rate.fits", tmp_path / "b_rate.fits"]
    for path in inputs:
        path.write_text(path.name)
    product = tmp_path / "reduction" / "out.fits"

    def record(**changes):
        values = {"inputs": inputs, "parameters": {"x": 1, "y": [1.5, None]}, "modules": ("msa3d.msafile",)}
        return Record(layout, "process", "0311n", **(values | changes))

    first = record()
    assert first.reason() == "never made"
    product.parent.mkdir()
    product.write_text("result")
    first.write([product], seconds=3.5)
    return record, inputs, product


def test_current(made):
    record, _, product = made
    assert record().is_current()
    assert record().is_current([product])
    assert record().notes() == {"seconds": 3.5}
    assert record(parameters={"y": [1.5, None], "x": 1}).is_current()


def test_product_gone_or_cut(made):
    record, _, product = made
    product.write_text("resul")
    assert "out.fits is missing or has another size" in record().reason()
    product.unlink()
    assert not record().is_current()


def test_product_that_was_not_recorded(made, tmp_path):
    record, _, _ = made
    assert "not among the products" in record().reason([tmp_path / "reduction" / "other.fits"])


def test_parameters_changed(made):
    record, _, _ = made
    assert record(parameters={"x": 2, "y": [1.5, None]}).reason() == "parameters have changed"


def test_code_changed(made):
    record, _, _ = made
    assert record(modules=("msa3d.workers",)).reason() == "the code has changed"


def test_inputs_changed(made, tmp_path):
    record, inputs, _ = made
    assert record(inputs=inputs[:1]).reason() == "other inputs"
    inputs[0].write_text("A_rate.fits")  # same size
    assert record().reason() == "input a_rate.fits has changed"
    inputs[0].unlink()
    assert not record().is_current()


def test_touched_input_is_the_same_input(made):
    record, inputs, _ = made
    os.utime(inputs[0], ns=(1, 1))
    assert record().is_current()


def test_run_can_be_moved(made, tmp_path):
    _, inputs, _ = made
    new = tmp_path.with_name(tmp_path.name + "_moved")
    tmp_path.rename(new)
    moved = Record(
        Layout(new),
        "process",
        "0311n",
        inputs=[new / path.name for path in inputs],
        parameters={"x": 1, "y": [1.5, None]},
        modules=("msa3d.msafile",),
    )
    assert moved.reason() == ""
    new.rename(tmp_path)


def test_input_that_changes_meanwhile(made):
    record, inputs, product = made
    now = record()
    inputs[1].write_text("something else")
    with pytest.raises(ProductError, match=r"b_rate.fits changed or vanished while process 0311n"):
        now.write([product])


def test_product_never_written(made, tmp_path):
    record, _, _ = made
    with pytest.raises(ProductError, match="was not written"):
        record().write([tmp_path / "absent.fits"])


def test_broken_record_is_no_record(made):
    record, _, _ = made
    record().path.write_text('{"step": ')
    assert record().reason() == "never made"


def test_record_is_plain_json(made):
    record, _, _ = made
    text = json.loads(record().path.read_text())
    assert text["products"] == {"reduction/out.fits": 6}
    assert set(text["inputs"]) == {"a_rate.fits", "b_rate.fits"}
