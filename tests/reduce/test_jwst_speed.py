"""Accelerations of jwst: all together, and each by itself, leave every plane and every keyword as it is."""

from __future__ import annotations

import gc
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from msa3d.archive import crds
from msa3d.config import Dataset
from msa3d.errors import DatasetError
from msa3d.observation.exposures import Observation
from msa3d.pipeline.layout import GEOMETRY, Layout
from msa3d.reduce import calibrate, exposure, jwst_speed
from msa3d.reduce.geometry import SLITGEOM, read_geometries, read_rectified

# Times of writing, and the line that says when.
CHANGING = {"DATE", "HISTORY", "COMMENT", "CHECKSUM", "DATASUM", ""}

Reduce = Callable[..., Path]


@pytest.fixture(scope="module")
def reduce(pristine_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Reduce:
    """Reduce the first exposure with given accelerations and detectors; returns the directory of products."""
    base = tmp_path_factory.mktemp("speed")
    text = base / "pair.yaml"
    text.write_text("extends: tiny\nname: pair\npattern: {rows: 1, columns: 2}\n")
    dataset = Dataset.load(text)
    done: dict[tuple, Path] = {}

    def run(names: tuple[str, ...], detectors: tuple[str, ...] = ("nrs1",)) -> Path:
        if (names, detectors) in done:
            return done[names, detectors]
        # Every run has its own root, but the same names in it.
        layout = Layout(base / f"run{len(done)}")
        layout.root.mkdir()
        for path in pristine_root.iterdir():
            (layout.root / path.name).symlink_to(path.resolve())
        context = crds.use_references(layout, dataset)
        observation = Observation.read(layout, dataset)
        metafile = calibrate.write_metafile_copy(dataset, layout, observation)
        task = calibrate._task(observation.exposures[0], dataset, layout, metafile, names, context, True).job
        for detector in set(task.rates) - set(detectors):
            del task.rates[detector]
        exposure.process_exposure(task)
        done[names, detectors] = layout.process_dir("03101")
        return layout.process_dir("03101")

    return run


def assert_same_products(one: Path, other: Path, *, absent: str = "") -> None:
    """Compare all planes, tables and keywords of the FITS files of two directories, bit by bit."""
    names = sorted(path.name for path in one.glob("*.fits") if not (absent and path.match(absent)))
    assert names
    assert names == sorted(path.name for path in other.glob("*.fits"))
    for name in names:
        with fits.open(one / name) as first, fits.open(other / name) as second:
            assert [(h.name, h.ver) for h in first] == [(h.name, h.ver) for h in second]
            for left, right in zip(first, second, strict=True):
                if left.name == "ASDF":
                    continue
                where = f"{name} {left.name} {left.ver}"
                assert_same_header(left.header, right.header, where)
                assert_same_data(left.data, right.data, where)
        assert_same_wcs(one / name, other / name)


def assert_same_header(left: fits.Header, right: fits.Header, where: str) -> None:
    assert set(left) - CHANGING == set(right) - CHANGING, where
    for keyword in set(left) - CHANGING:
        assert left[keyword] == right[keyword], f"{where} {keyword}"


def assert_same_data(left: np.ndarray | None, right: np.ndarray | None, where: str) -> None:
    if left is None:
        assert right is None, where
    elif left.dtype.names:
        for column in set(left.dtype.names) - CHANGING:
            assert left[column].tobytes() == right[column].tobytes(), f"{where} {column}"
    else:
        assert left.dtype == right.dtype, where
        assert left.tobytes() == right.tobytes(), where


def assert_same_wcs(left: Path, right: Path) -> None:
    """Compare the WCS objects of the ASDF extension where they are evaluated."""
    from stdatamodels.jwst import datamodels

    with datamodels.open(left) as first, datamodels.open(right) as second:
        pairs = zip(getattr(first, "slits", [first]), getattr(second, "slits", [second]), strict=True)
        for one, other in pairs:
            x, y = np.meshgrid(np.linspace(0, one.data.shape[1] - 1, 40), np.linspace(1, one.data.shape[0] - 2, 7))
            assert one.meta.wcs.bounding_box == other.meta.wcs.bounding_box
            np.testing.assert_array_equal(one.meta.wcs(x, y), other.meta.wcs(x, y))


@pytest.mark.slow
@pytest.mark.parametrize("name", jwst_speed.chosen("all"))
def test_switching_one_acceleration_changes_nothing(reduce: Reduce, name: str) -> None:
    # With the others on: that is three times faster than each alone, and all together are compared with none below.
    jwst_speed._failed_open_masks.clear()
    others = tuple(other for other in jwst_speed.chosen("all") if other != name)
    absent = "newoutput_s*_cal.fits" if name == "no_source_cal" else ""
    assert_same_products(reduce(others), reduce(jwst_speed.chosen("all")), absent=absent)


@pytest.mark.slow
def test_all_accelerations_together_change_nothing(reduce: Reduce) -> None:
    jwst_speed._failed_open_masks.clear()
    both = ("nrs1", "nrs2")
    plain, fast = reduce((), both), reduce(jwst_speed.chosen("all"), both)
    assert len(list(fast.glob("*.fits"))) == 3
    assert_same_products(plain, fast, absent="newoutput_s*_cal.fits")
    # Nothing stays patched.
    from asdf import AsdfFile, yamlutil
    from jwst.msaflagopen import msaflag_open
    from stdatamodels import model_base

    assert msaflag_open.flag.__module__ == "jwst.msaflagopen.msaflag_open"
    assert AsdfFile._validate.__module__ == "asdf._asdf"
    assert model_base.mschema.__name__ == "stdatamodels.schema"
    assert yamlutil.schema.__name__ == "asdf.schema"


@pytest.mark.slow
def test_masks_are_kept_on_disk_and_read_again(reduce: Reduce, monkeypatch: pytest.MonkeyPatch) -> None:
    from jwst.msaflagopen import msaflag_open

    jwst_speed._failed_open_masks.clear()
    made = reduce(jwst_speed.chosen("all"))
    masks = sorted((made.parents[1] / "records" / "failed_open").glob("*.npz"))
    assert len(masks) == 1
    jwst_speed._failed_open_masks.clear()
    again = made.parents[3] / "again"
    shutil.copytree(masks[0].parent, again)

    def unexpected(*arguments):
        raise AssertionError("the mask was computed again")

    monkeypatch.setattr(msaflag_open, "flag", unexpected)
    with fits.open(next(made.glob("*_cal.fits"))) as hdus:
        flagged = (hdus["DQ"].data & msaflag_open.FAILEDOPENFLAG) > 0
    with jwst_speed.accelerated(["failed_open_mask"], store=again):
        (key,) = [str(np.load(path)["key"]) for path in again.glob("*.npz")]
        packed = jwst_speed._read_mask(key)
    lit = np.unpackbits(packed).reshape(2048, 2048).astype(bool)
    assert lit.any()
    assert flagged.sum() <= lit.sum()


@pytest.mark.slow
def test_shared_schemas_stay_as_they_were_loaded(reduce: Reduce) -> None:
    from asdf import schema as asdf_schema
    from stdatamodels import schema as model_schema

    reduce(jwst_speed.chosen("all"))
    assert jwst_speed._schemas
    for url, merged in jwst_speed._schemas.items():
        fresh = model_schema.merge_property_trees(asdf_schema.load_schema(url, resolve_references=True))
        assert merged == fresh, url


def test_names_are_checked_and_ordered() -> None:
    assert jwst_speed.chosen("none") == ()
    assert jwst_speed.chosen(["schemas_once", "failed_open_mask"]) == ("failed_open_mask", "schemas_once")
    with pytest.raises(DatasetError, match="no 'warp_drive'"):
        jwst_speed.chosen(["warp_drive"])


def test_the_table_of_versions_names_accelerations_in_their_order() -> None:
    assert jwst_speed.HOLDS["1.14.0"] == tuple(jwst_speed.ACCELERATIONS)
    for names in jwst_speed.HOLDS.values():
        assert names == tuple(name for name in jwst_speed.ACCELERATIONS if name in names)


@pytest.mark.usefixtures("jwst_loaded")
def test_patches_are_undone_after_an_error() -> None:
    import stpipe.step
    from jwst.msaflagopen import msaflag_open

    before = msaflag_open.flag, stpipe.step.gc
    with pytest.raises(ZeroDivisionError), jwst_speed.accelerated(jwst_speed.chosen("all")):
        assert msaflag_open.flag is not before[0]
        raise ZeroDivisionError
    assert (msaflag_open.flag, stpipe.step.gc) == before


@pytest.mark.usefixtures("jwst_loaded")
def test_other_versions_of_jwst_run_without(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    from jwst.msaflagopen import msaflag_open

    before, names = msaflag_open.flag, jwst_speed.chosen("all")
    assert names
    monkeypatch.setattr(jwst_speed, "jwst_version", lambda: "1.20.2")
    assert jwst_speed.chosen("all") == jwst_speed.chosen(["failed_open_mask"]) == ()
    assert "1.20.2 runs without failed_open_mask" in caplog.text
    with jwst_speed.accelerated(names):
        assert msaflag_open.flag is before


@pytest.mark.usefixtures("jwst_loaded")
def test_a_bad_keyword_value_is_refused_every_time() -> None:
    from stdatamodels.jwst import datamodels
    from stdatamodels.validate import ValidationWarning

    with jwst_speed.schemas_once(), jwst_speed.scalars_once():
        model = datamodels.ImageModel((2, 2))
        for _ in range(2):
            with pytest.warns(ValidationWarning):
                model.meta.instrument.detector = "NRS3"
        model.meta.instrument.detector = "NRS1"
        assert model.meta.instrument.detector == "NRS1"


@pytest.mark.usefixtures("jwst_loaded")
def test_a_wcs_is_not_looked_into_but_what_stands_beside_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from gwcs import WCS
    from stdatamodels import validate
    from stdatamodels.jwst import datamodels
    from stdatamodels.validate import ValidationWarning

    if "no_wcs_validation" not in jwst_speed.chosen("all"):
        pytest.skip("not used with this version of jwst")
    seen = []
    convert = validate.yamlutil.custom_tree_to_tagged_tree
    monkeypatch.setattr(
        validate.yamlutil, "custom_tree_to_tagged_tree", lambda tree, *more: seen.append(tree) or convert(tree, *more)
    )
    wcs = WCS([("detector", None)])
    with jwst_speed.no_wcs_validation():
        model = datamodels.ImageModel((2, 2))
        model.meta.wcs = wcs
        assert model.meta.wcs is wcs
        model.validate()
        assert seen
        assert all("WCS" not in repr(tree) for tree in seen)
        model.meta._instance["exposure"] = {"nints": "many"}
        with pytest.warns(ValidationWarning, match="many"):
            model.validate()
    assert model.meta.wcs is wcs


def test_cards_are_found_where_they_are_without_looking_through_all() -> None:
    draw = random.Random(15)
    plain, fast = fits.Header(), fits.Header()
    for number in range(400):
        position, kind = draw.randrange(len(plain) + 1), draw.randrange(5)
        for header in (plain, fast):
            with jwst_speed.accelerated(["header_ends"] if header is fast else []):
                if kind == 0:
                    header.insert(position, (f"I{number}", number))
                elif kind == 1 and position < len(header):
                    del header[position]
                elif kind == 2:
                    header["COMMENT"] = f"remark {number}"
                elif kind == 3 and len(header):
                    del header[len(header) - 1]
                else:
                    header[f"K{number}"] = number
        assert fast._keyword_indices == plain._keyword_indices
    assert fast.tostring() == plain.tostring()


def test_garbage_is_collected_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with jwst_speed.rare_collections():
        assert gc.get_threshold() == jwst_speed.RARELY
    assert gc.get_threshold() == before


@pytest.mark.slow
def test_the_geometry_taken_from_memory_is_that_of_the_file(reduce: Reduce, tmp_path: Path) -> None:
    """To the last bit, of calibrated slits and of rectified spectra."""
    files = sorted(reduce(jwst_speed.chosen("all"), ("nrs1",)).glob("*.fits"))
    assert {path.stem.rpartition("_")[2] for path in files} >= {"cal", "s2d"}
    for path in files:
        with fits.open(path) as hdus:
            kept = [hdu for hdu in hdus if hdu.name not in (GEOMETRY, SLITGEOM)]
            assert len(kept) == len(hdus) - 1
            fits.HDUList(kept).writeto(tmp_path / path.name)
        read = read_rectified if path.name.endswith("_s2d.fits") else lambda path: read_geometries(path)[1]
        quick, slow = read(path), read(tmp_path / path.name)
        for name in type(quick).__dataclass_fields__:
            left, right = (np.asarray(getattr(one, name)) for one in (quick, slow))
            assert left.tobytes() == right.tobytes(), f"{path.name} {name}"
