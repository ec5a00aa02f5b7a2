"""The observation: everything that can be wrong is said in one sentence before anything is written."""

from __future__ import annotations

import hashlib
import re
import shutil

import numpy as np
import pytest
from astropy.io import fits

from msa3d.config import Dataset
from msa3d.errors import ObservationError
from msa3d.observation import exposures
from msa3d.observation.exposures import Observation
from msa3d.observation.metafile import MsaFile
from msa3d.observation.reading import read_headers
from msa3d.observation.source import place_exposures
from msa3d.pipeline.layout import Layout
from msa3d.pipeline.products import mark_simulated

SOURCE = 8512


def rate(path, dataset, activity, detector, index, compressed=False):
    """A tiny file with the headers of a rate."""
    primary = fits.Header()
    primary.update(
        INSTRUME="NIRSPEC", DETECTOR=detector, FILTER="F100LP", GRATING="G140H", EXP_TYPE="NRS_MSASPEC",
        MSAMETFL=dataset.metafile, MSAMETID=1, PATT_NUM=index + 1, EXPSTART=60032.0 + index / 50,
        EFFEXPTM=1167.0, GWA_XTIL=0.3604, GWA_YTIL=0.133,
    )  # fmt: skip
    mark_simulated(primary)
    science = fits.Header()
    row, column = dataset.pattern.place(index)
    ra, dec = 215.02 + 0.2 * column / 3600 / np.cos(np.radians(52.925)), 52.925 + 0.075 * row / 3600
    science.update(RA_REF=ra, DEC_REF=dec, ROLL_REF=12.0, V2_REF=378.5, V3_REF=-428.4)
    kind = fits.CompImageHDU if compressed else fits.ImageHDU
    image = np.random.default_rng(index).normal(size=(64, 64)).astype(np.float32)
    extensions = [kind(image, header=science, name="SCI"), kind(np.abs(image), name="ERR")]
    extensions.append(fits.ImageHDU(np.zeros((64, 64), np.int32), name="DQ"))
    fits.HDUList([fits.PrimaryHDU(header=primary), *extensions]).writeto(path, overwrite=True)


def metafile(path, dataset, sources=(SOURCE,)):
    """A metafile of one slitlet of five shutters a source."""
    shutters = [
        {
            "slitlet_id": number, "msa_metadata_id": 1, "shutter_quadrant": 3, "shutter_row": 100 + 9 * number,
            "shutter_column": 80 + k, "source_id": source if k == 2 else 0,
            "background": "N" if k == 2 else "Y", "shutter_state": "OPEN",
            "estimated_source_in_shutter_x": 0.5 if k == 2 else np.nan,
            "estimated_source_in_shutter_y": 0.5 if k == 2 else np.nan,
            "dither_point_index": point, "primary_source": "Y" if k == 2 else "N",
        }
        for point in range(1, dataset.pattern.n_exposures + 1)
        for number, source in enumerate(sources, 1)
        for k in range(5)
    ]  # fmt: skip
    entries = [
        {
            "program": 2136, "source_id": source, "source_name": f"2136_{source}", "alias": str(source),
            "ra": 215.05, "dec": 52.938, "preimage_id": "None", "stellarity": 0.0,
        }
        for source in sources
    ]  # fmt: skip
    MsaFile.from_tables(shutters, entries, dataset).write(path)


@pytest.fixture(scope="module")
def dataset():
    return Dataset.load("tiny")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, dataset):
    """A complete observation of tiny files; tests take copies."""
    root = tmp_path_factory.mktemp("whole")
    for index in range(dataset.pattern.n_exposures):
        activity = dataset.simulation.activity(index)
        for detector in dataset.detectors:
            rate(root / dataset.rate_name(activity, detector), dataset, activity, detector, index, index % 2)
    metafile(root / dataset.metafile, dataset)
    return root


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def state(root):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*") if path.is_file()}


def fault(root, dataset, match):
    """One sentence, as given, and nothing written."""
    before = state(root)
    with pytest.raises(ObservationError, match=match) as caught:
        Observation.read(Layout(root), dataset).check()
    assert "\n" not in str(caught.value)
    assert state(root) == before
    return str(caught.value)


def nth(root, dataset, index, detector="NRS1"):
    return root / dataset.rate_name(dataset.simulation.activity(index), detector)


def edit(path, extension=0, **cards):
    with fits.open(path, mode="update", disable_image_compression=True) as hdus:
        for keyword, value in cards.items():
            if value is None:
                del hdus[extension].header[keyword]
            else:
                hdus[extension].header[keyword] = value


def test_whole_observation(root, dataset):
    found = Observation.read(Layout(root), dataset)
    found.check()
    assert [exposure.activity for exposure in found.exposures] == [
        "03101", "03103", "03105", "03107", "03109", "0310b", "0310d", "0310f", "0310h",
    ]  # fmt: skip
    places = [(exposure.row, exposure.column) for exposure in found.exposures]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0), (2, 0), (2, 1), (2, 2)]
    assert found.at(1, 0).index == 5
    assert found.middle.index == 4
    assert found.simulated
    assert found.source_ids == [SOURCE]
    first = found.exposures[0]
    assert (first.ra, first.dec, first.roll, first.patt_num) == (215.02, 52.925, 12.0, 1)
    assert set(first.rates) == {"NRS1", "NRS2"}
    assert all(path.is_file() for path in first.rates.values())


def test_order_is_base_36(root, dataset):
    # 0310z comes before 03111: as text and as numbers alike, but not as decimal numbers
    assert [dataset.simulation.activity(i) for i in (4, 5, 17, 18, 31, 62)] == [
        "03109", "0310b", "0310z", "03111", "0311r", "0313h",
    ]  # fmt: skip


def test_missing_detector(root, dataset):
    path = nth(root, dataset, 3, "NRS2")
    path.unlink()
    assert path.name in fault(root, dataset, "Exposure 03107 has no NRS2")


def test_missing_metafile(root, dataset):
    (root / dataset.metafile).unlink()
    fault(root, dataset, f"MSA metafile .*{dataset.metafile} is missing")


@pytest.mark.parametrize("index", [0, 1], ids=["plain", "compressed"])
@pytest.mark.parametrize("left", [0.99999, 0.97, 0.5, 0.05, 0])
def test_truncated(root, dataset, index, left):
    path = nth(root, dataset, index)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    fault(root, dataset, f"{re.escape(path.name)} is (truncated|empty)")


def test_cut_between_extensions(root, dataset):
    path = nth(root, dataset, 0)
    with fits.open(path) as hdus:
        hdus.pop("DQ")
        hdus.writeto(path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)
    fault(root, dataset, "not a whole count-rate file: it has no extension DQ")


def test_not_fits(root, dataset):
    path = nth(root, dataset, 2)
    path.write_text("<html>404</html>" * 1000)
    fault(root, dataset, "not a FITS file")


def test_truncated_metafile(root, dataset):
    path = root / dataset.metafile
    path.write_bytes(path.read_bytes()[:-9000])
    fault(root, dataset, f"{dataset.metafile} is truncated")


@pytest.mark.parametrize("keyword, value", [("GRATING", "G235H"), ("FILTER", "F170LP")])
def test_other_setup(root, dataset, keyword, value):
    for detector in dataset.detectors:
        edit(nth(root, dataset, 4, detector), **{keyword: value})
    sentence = fault(root, dataset, f"^{keyword} is {value} in .*03109.* and 1 more, but .* the other 16 and in")
    assert "dataset tiny" in sentence


@pytest.mark.parametrize("kind", ["NRS_MSATA", "NRS_TACONFIRM", "NRS_LAMP"])
def test_what_is_no_spectrum_is_left_out(root, dataset, kind, caplog):
    """Target acquisition lacks most keywords of a spectrum, and has names like one."""
    names = [dataset.rate_name("02101", detector) for detector in dataset.detectors]
    for name in names:
        header = fits.Header({"EXP_TYPE": kind, "DETECTOR": name[-14:-10].upper(), "MSA3DSIM": True})
        fits.HDUList([fits.PrimaryHDU(header=header), fits.ImageHDU(np.zeros((8, 8)), name="SCI")]).writeto(root / name)
    observation = Observation.read(Layout(root), dataset)
    observation.check()
    assert len(observation.exposures) == dataset.pattern.n_exposures
    assert "02101" not in {exposure.activity for exposure in observation.exposures}
    # jwst's own logger, once imported, hands each record on a second time.
    (said,) = {record.message for record in caplog.records if "EXP_TYPE" in record.message}
    assert kind in said
    assert names[0] in said


def test_nothing_but_target_acquisition(tmp_path, dataset):
    header = fits.Header({"EXP_TYPE": "NRS_WATA"})
    fits.PrimaryHDU(header=header).writeto(tmp_path / dataset.rate_name("02101", "NRS1"))
    with pytest.raises(ObservationError, match="has EXP_TYPE NRS_MSASPEC; they have NRS_WATA"):
        Observation.read(Layout(tmp_path), dataset)


def point(root, dataset, index, **change):
    """Change the SCI header of both detectors of an exposure."""
    for detector in dataset.detectors:
        with fits.open(nth(root, dataset, index, detector), mode="update") as hdus:
            for keyword, value in change.items():
                hdus["SCI"].header[keyword] = value(hdus["SCI"].header[keyword]) if callable(value) else value


def test_planned_pointing(root, dataset):
    for detector in dataset.detectors:
        edit(nth(root, dataset, 4, detector), ENGQLPTG="PLANNED")
    fault(root, dataset, r"^ENGQLPTG is PLANNED in .*03109_.*nrs1.* and 1 more: their pointing was not measured")
    Observation.read(Layout(root), dataset.replaced(ignore_problems=["planned pointing"])).check()


def test_a_pointing_that_was_calculated_passes(root, dataset):
    for index in range(dataset.pattern.n_exposures):
        for detector in dataset.detectors:
            edit(nth(root, dataset, index, detector), ENGQLPTG="CALCULATED_TR_202105")
    Observation.read(Layout(root), dataset).check()


@pytest.mark.parametrize("index", [0, 4, 8])
@pytest.mark.parametrize("arcsec", [0.08, -2.0])
def test_an_attitude_that_is_off(root, dataset, index, arcsec):
    point(root, dataset, index, DEC_REF=lambda value: value + arcsec / 3600)
    name = dataset.simulation.activity(index)
    found = f"_{name}_.* are {abs(arcsec):.2f} arcsec off the 3 x 3 pattern of the other exposures"
    fault(root, dataset, found)
    Observation.read(Layout(root), dataset.replaced(ignore_problems=["pointing off the pattern"])).check()


def test_guiding_within_tens_of_milliarcsec_passes(root, dataset):
    rng = np.random.default_rng(3)
    for index in range(dataset.pattern.n_exposures):
        off = rng.normal(0.0, 0.007 / 3600)
        point(root, dataset, index, DEC_REF=lambda value, off=off: value + off, ROLL_REF=lambda value: value + 0.001)
    Observation.read(Layout(root), dataset).check()


def test_a_roll_that_is_off(root, dataset):
    point(root, dataset, 5, ROLL_REF=13.0)
    fault(root, dataset, r"ROLL_REF of .*0310b.* is 13.0000, 1.000 degrees from the median")


def test_a_roll_on_both_sides_of_north_passes(root, dataset):
    """An even number of exposures, half of them at 359.999 degrees: 180 is no median of these."""
    short = dataset.replaced(pattern={"rows": 2})
    for index in range(short.pattern.n_exposures, dataset.pattern.n_exposures):
        for detector in dataset.detectors:
            nth(root, dataset, index, detector).unlink()
    for index in range(short.pattern.n_exposures):
        point(root, short, index, ROLL_REF=(359.999, 0.001)[index % 2])
    (root / short.metafile).unlink()
    metafile(root / short.metafile, short)
    Observation.read(Layout(root), short).check()
    point(root, short, 5, ROLL_REF=359.9)
    fault(root, short, r"^ROLL_REF of .*0310b.* is 359.9000, 0.099 degrees from the median")


@pytest.mark.parametrize(
    "keyword, change, told",
    [
        ("RA_REF", 2.0 / 3600 / np.cos(np.radians(52.925)), "RA_REF and DEC_REF .* differ by 2.00 arcsec"),
        ("DEC_REF", -0.08 / 3600, "RA_REF and DEC_REF .* differ by 0.08 arcsec"),
        ("ROLL_REF", 0.05, "ROLL_REF .* differs by 0.050 degrees"),
    ],
)
def test_detectors_of_an_exposure_that_point_apart(root, dataset, keyword, change, told):
    """Both detectors are exposed at once: the pointing of the second is checked as well as that of the first."""
    with fits.open(nth(root, dataset, 4, "NRS2"), mode="update") as hdus:
        hdus["SCI"].header[keyword] += change
    found = fault(root, dataset, f"^{told}")
    assert all(nth(root, dataset, 4, detector).name in found for detector in dataset.detectors)
    Observation.read(Layout(root), dataset.replaced(ignore_problems=["pointing off the pattern"])).check()


def test_all_at_one_place(root, dataset):
    for index in range(dataset.pattern.n_exposures):
        point(root, dataset, index, RA_REF=215.02, DEC_REF=52.925)
    fault(root, dataset, r"All 9 exposures have the same RA_REF and DEC_REF")


def test_all_of_another_grating(root, dataset):
    for path in root.glob("*_rate.fits"):
        edit(path, GRATING="G235H")
    fault(root, dataset, "GRATING is G235H in .* and 17 more, but G140H in dataset tiny")


def test_unequal_tilt(root, dataset):
    edit(nth(root, dataset, 6), GWA_XTIL=0.37)
    fault(root, dataset, "GWA_XTIL, .* differs: 0.3604 in .*, 0.37 in .*0310d")


def test_missing_tilt(root, dataset):
    edit(nth(root, dataset, 6), GWA_YTIL=None)
    fault(root, dataset, "GWA_YTIL is missing in .*0310d")


def test_missing_keyword(root, dataset):
    edit(nth(root, dataset, 6), PATT_NUM=None)
    fault(root, dataset, "0310d_00001_nrs1_rate.fits lacks PATT_NUM in its primary header")
    edit(nth(root, dataset, 0), extension=1, RA_REF=None)
    fault(root, dataset, "lacks RA_REF in its SCI header")


def test_missing_exposure(root, dataset):
    for detector in dataset.detectors:
        nth(root, dataset, 5, detector).unlink()
    fault(root, dataset, r"has 8 exposures, but .* 3 x 3 = 9 \(no PATT_NUM 6\)")


def test_too_many_exposures(root, dataset):
    small = dataset.replaced(pattern={"rows": 2})
    fault(root, small, "has 9 exposures, but .* 2 x 3 = 6;")


def several(root, dataset, order):
    """Rename the rates: exposure by exposure the activity and the exposure number, as nods and dithers have them."""
    for index, (activity, number) in enumerate(order):
        for detector in dataset.detectors:
            path = nth(root, dataset, index, detector)
            path.rename(root / ("new_" + dataset.rate_name(activity, detector, number)))
    for path in root.glob("new_*"):
        path.rename(path.with_name(path.name.removeprefix("new_")))


THREE_EACH = [(activity, number) for activity in ("03101", "03103", "0310a") for number in (1, 2, 3)]
MIXED = [("03101", 1), ("03103", 1), ("03103", 2), ("03103", 3), ("03105", 1), ("03107", 2), ("03109", 1),
         ("03109", 12), ("0310b", 1)]  # fmt: skip


@pytest.mark.parametrize(
    "order, names",
    [
        (THREE_EACH, [f"{activity}-{number:05d}" for activity, number in THREE_EACH]),
        (MIXED, ["03101", "03103-00001", "03103-00002", "03103-00003", "03105", "03107", "03109-00001", "03109-00012",
                 "0310b"]),
    ],
)  # fmt: skip
def test_several_exposures_of_an_activity(root, dataset, order, names):
    several(root, dataset, order)
    observation = Observation.read(Layout(root), dataset)
    observation.check()
    assert [exposure.activity for exposure in observation.exposures] == names
    assert [exposure.patt_num for exposure in observation.exposures] == list(range(1, 10))
    assert all(set(exposure.rates) == set(dataset.detectors) for exposure in observation.exposures)
    placed = place_exposures(dataset, Layout(root))
    assert [item.activity for item in placed] == names
    assert [(item.row, item.column) for item in placed] == [dataset.pattern.place(index) for index in range(9)]


def test_a_detector_of_one_of_several_exposures_is_missing(root, dataset):
    several(root, dataset, THREE_EACH)
    (root / dataset.rate_name("03103", "NRS2", 2)).unlink()
    fault(root, dataset, "Exposure 03103-00002 has no NRS2: .*_03103_00002_nrs2_rate.fits is missing")


def test_target_acquisition_is_no_place_of_the_pattern(root, dataset):
    header = fits.Header({"EXP_TYPE": "NRS_MSATA", "MSA3DSIM": True})
    fits.PrimaryHDU(header=header).writeto(root / dataset.rate_name("02101", "NRS1"))
    assert len(place_exposures(dataset, Layout(root))) == 9


def test_wrong_order(root, dataset):
    for detector in dataset.detectors:
        edit(nth(root, dataset, 5, detector), EXPSTART=60000.0)
    fault(root, dataset, "Exposure 0310b starts .* before exposure 03109")


def test_detector_contradicts_name(root, dataset):
    edit(nth(root, dataset, 5), DETECTOR="NRS2")
    fault(root, dataset, "says DETECTOR NRS2, which its name contradicts")


def test_other_metafile_in_one_header(root, dataset):
    edit(nth(root, dataset, 5), MSAMETFL="jw02136001001_02_msa.fits")
    fault(root, dataset, "MSAMETFL differs")


@pytest.mark.parametrize("name", ["../../x_msa.fits", "/etc/x_msa.fits", "a/b_msa.fits", ".."])
def test_a_header_cannot_name_a_metafile_elsewhere(root, dataset, name):
    (root.parent / "x_msa.fits").write_bytes(b"")
    for path in root.glob("*_rate.fits"):
        edit(path, MSAMETFL=name)
    by_header = dataset.model_copy(update={"metafile": None})
    with pytest.raises(ObservationError, match=r"MSAMETFL of the rates.*a plain name is wanted") as caught:
        Observation.read(Layout(root), by_header)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)


def test_dither_point_not_in_metafile(root, dataset):
    for detector in dataset.detectors:
        edit(nth(root, dataset, 5, detector), PATT_NUM=99)
    fault(root, dataset, "Exposure 0310b has PATT_NUM 99 and MSAMETID 1, for which .* has no rows")


def test_target_without_slitlet(root, dataset):
    more = {"source_id": 4391, "redshift": 1.08, "ra": 215.0676, "dec": 52.9232}
    target = dataset.model_dump(mode="json")["targets"][0]
    source = dataset.model_dump(mode="json")["simulation"]["sources"][0]
    changed = dataset.replaced(targets=[target, more], simulation={"sources": [source, source | more]})
    fault(root, changed, "Source 4391 of dataset tiny has no slitlet")


def rewrite(root, dataset, change):
    path = root / dataset.metafile
    msa = MsaFile.read(path)
    path.unlink()
    change(msa).write(path)


def test_source_entry_without_slitlet(root, dataset, caplog):
    def change(msa):
        extra = msa.sources.copy()
        extra["source_id"] = 777
        return MsaFile.from_tables(msa.shutters, np.concatenate([msa.sources, extra]), msa.header)

    rewrite(root, dataset, change)
    caplog.set_level("INFO")
    Observation.read(Layout(root), dataset).check()
    assert any("source 777 of SOURCE_INFO has no slitlet" in record.message for record in caplog.records)


def test_target_loses_its_slitlet(root, dataset):
    def change(msa):
        shutters = msa.shutters.copy()
        shutters["slitlet_id"] = -1
        return MsaFile.from_tables(shutters, msa.sources, msa.header)

    rewrite(root, dataset, change)
    fault(root, dataset, "Source 8512 of dataset tiny has no slitlet")


def test_duplicate_slitlets(root, dataset):
    def change(msa):
        twin = msa.shutters.copy()
        twin["slitlet_id"] = 7
        twin["source_id"], twin["primary_source"], twin["background"] = 0, "N", "Y"
        return MsaFile.from_tables(np.concatenate([msa.shutters, twin]), msa.sources, msa.header)

    rewrite(root, dataset, change)
    fault(root, dataset, "slitlets 1 and 7 are duplicates")


def test_no_rates(tmp_path, dataset):
    with pytest.raises(ObservationError, match=r"no count-rate files jw02136001001.*msa3d simulate"):
        Observation.read(Layout(tmp_path), dataset)


def test_other_visits_are_left_out(root, dataset, caplog):
    path = nth(root, dataset, 5)
    shutil.copy(path, path.with_name(path.name.replace("jw02136001001", "jw02136002001")))
    found = Observation.read(Layout(root), dataset)
    found.check()
    assert len(found.exposures) == 9
    assert "jw02136002001" in caplog.text


def test_real_file_among_simulated(root, dataset):
    edit(nth(root, dataset, 5), MSA3DSIM=None)
    fault(root, dataset, "Simulated and real files lie together")


def test_real_files_for_a_simulated_dataset(root, dataset):
    for path in root.glob("*_rate.fits"):
        edit(path, MSA3DSIM=None)
    fault(root, dataset, "tiny is simulated, but .* are not")


def test_too_little_disk(root, dataset, monkeypatch):
    free = shutil._ntuple_diskusage(10**12, 10**12, 10**7)
    monkeypatch.setattr(exposures.shutil, "disk_usage", lambda path: free)
    fault(root, dataset, "has 0.0 GB free, but 1 slitlets in 9 exposures need about 0.1 GB")


def test_several_problems_a_line_each(root, dataset):
    (root / dataset.metafile).unlink()
    nth(root, dataset, 3, "NRS2").unlink()
    with pytest.raises(ObservationError) as caught:
        Observation.read(Layout(root), dataset).check()
    assert len(str(caught.value).splitlines()) == 2


def test_walk_reads_no_data(tmp_path):
    """A file of 4 GB (sparse) is read in its headers only, and its truncation seen."""
    path = tmp_path / "big.fits"
    header = fits.Header([("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 2), ("NAXIS1", 28800), ("NAXIS2", 36000)])
    with path.open("wb") as stream:
        stream.write(header.tostring().encode())
        stream.truncate(2880 + 4 * 28800 * 36000)
    assert read_headers(path)[0]["NAXIS2"] == 36000
    with path.open("rb+") as stream:
        stream.truncate(2880 + 4 * 28800 * 36000 - 1)
    with pytest.raises(ObservationError, match="truncated"):
        read_headers(path)


# --- types, ranges, names


@pytest.mark.parametrize(
    ("extension", "keyword", "value"),
    [
        (0, "PATT_NUM", "x"), (0, "PATT_NUM", True), (0, "PATT_NUM", 0), (0, "PATT_NUM", 1.5), (0, "MSAMETID", 1.5),
        (0, "MSAMETID", -3), (0, "MSAMETFL", 12), (0, "EXPSTART", "2023-03-29"), (0, "EXPSTART", 1e9),
        (0, "EFFEXPTM", -1.0), (0, "EFFEXPTM", "long"), (0, "GWA_XTIL", 1e5), (0, "GRATING", 140), (0, "FILENAME", 3),
        (1, "RA_REF", 1e9), (1, "RA_REF", "14:20:04"), (1, "DEC_REF", -91.0), (1, "ROLL_REF", 1e5), (1, "V2_REF", True),
        (1, "V3_REF", "x"),
    ],
)  # fmt: skip
def test_a_keyword_of_another_type_or_out_of_range(root, dataset, extension, keyword, value):
    path = nth(root, dataset, 3)
    edit(path, extension, **{keyword: value})
    found = fault(
        root, dataset, rf": {keyword} is .* in its (primary|SCI) header, but must be (a text|a number|an integer)"
    )
    assert found.startswith(str(path)) and repr(value) in found


def test_a_card_that_cannot_be_read(root, dataset):
    path = nth(root, dataset, 3)
    content = path.read_bytes()
    place = content.index(b"PATT_NUM=")
    path.write_bytes(content[:place] + b"PATT_NUM= 4'4".ljust(80) + content[place + 80 :])
    fault(root, dataset, f"{path}: PATT_NUM in its primary header cannot be read; the file is damaged")


def test_a_header_that_does_not_say_how_long_its_data_are(root, dataset):
    path = nth(root, dataset, 3)
    content = path.read_bytes()
    place = content.index(b"BITPIX  =", 2880)
    path.write_bytes(content[:place] + b"BITPIX  = 'x'".ljust(80) + content[place + 80 :])
    fault(root, dataset, f"{path} is damaged: header 1 does not say what follows it")


@pytest.mark.parametrize(
    ("keyword", "value"), [("EXPSTART", 60032.085), ("EFFEXPTM", 1177.0), ("PATT_NUM", 4), ("MSAMETID", 2)]
)
def test_detectors_of_an_exposure_that_differ(root, dataset, keyword, value):
    first, second = (nth(root, dataset, 4, detector) for detector in ("NRS1", "NRS2"))
    edit(second, **{keyword: value})
    found = fault(root, dataset, f"^{keyword} of {first.name} and {second.name} differs .*though they are one exposure")
    assert str(value) in found


def test_another_file_under_the_right_name(root, dataset):
    for index in range(dataset.pattern.n_exposures):
        for detector in dataset.detectors:
            path = nth(root, dataset, index, detector)
            edit(path, FILENAME=path.name)
    Observation.read(Layout(root), dataset).check()
    other, path = nth(root, dataset, 5, "NRS2"), nth(root, dataset, 4, "NRS2")
    shutil.copy(other, path)
    with pytest.raises(ObservationError, match=rf"{path} says FILENAME {other.name}, which its name contradicts"):
        Observation.read(Layout(root), dataset).check()


def test_a_slitlet_that_loses_a_shutter(root, dataset):
    path = root / dataset.metafile
    with fits.open(path, mode="update") as hdus:
        table = hdus["SHUTTER_INFO"].data
        hdus["SHUTTER_INFO"].data = table[[number for number in range(len(table)) if number != 7]]
    fault(root, dataset, "slitlet 1 lacks shutter quadrant 3, row 109, column 82 at dither point 2 of configuration 1")
