"""The MSA metafile: the real one, and faults planted in a small one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from msa3d.config import Dataset
from msa3d.errors import MetafileError
from msa3d.jwst_adapter import open_msa_slits
from msa3d.observation.metafile import MsaFile
from msa3d.observation.metafile_tables import SHUTTER_FORMATS
from msa3d.pipeline.products import is_simulated

REAL = Path(__file__).parents[3] / "shared" / "data" / "jw02736007001_01_msa.fits"
needs_real = pytest.mark.skipif(not REAL.is_file(), reason=f"no real metafile at {REAL}")


def shutter(slitlet, column, source=0, primary=False, point=1, row=100, quadrant=2, state="OPEN"):
    return {
        "slitlet_id": slitlet, "msa_metadata_id": 1, "shutter_quadrant": quadrant, "shutter_row": row,
        "shutter_column": column, "source_id": source, "background": "N" if primary else "Y",
        "shutter_state": state, "estimated_source_in_shutter_x": 0.4 if primary else np.nan,
        "estimated_source_in_shutter_y": 0.6 if primary else np.nan, "dither_point_index": point,
        "primary_source": "Y" if primary else "N",
    }  # fmt: skip


def source(number, ra=215.0, dec=52.9):
    return {
        "program": 2136, "source_id": number, "source_name": f"2136_{number}", "alias": "a",
        "ra": ra, "dec": dec, "preimage_id": "None", "stellarity": 0.1,
    }  # fmt: skip


def slitlet(number, source_id, points=(1, 2), first=50, **where):
    """Three shutters, the source in the middle one."""
    return [
        shutter(number, first + k, source_id if k == 1 else 0, k == 1, point, **where)
        for point in points
        for k in range(3)
    ]


@pytest.fixture
def rows():
    return slitlet(1, 8512), slitlet(2, 29470, row=200), [source(8512), source(29470)]


def build(*parts, sources):
    return MsaFile.from_tables([row for part in parts for row in part], sources, Dataset.load("tiny"))


@pytest.fixture
def small(rows):
    first, second, sources = rows
    return build(first, second, sources=sources)


def errors(msa):
    return [(problem.kind, problem.message) for problem in msa.check() if problem.level == "error"]


# --- the real file


@pytest.fixture(scope="module")
def real():
    return MsaFile.read(REAL)


@needs_real
def test_real_is_read_and_has_no_errors(real):
    assert (len(real.shutters), len(real.sources)) == (1318, 119)
    assert real.dither_points == [(1, 1), (1, 2), (1, 3), (76, 1), (76, 2), (76, 3)]
    assert errors(real) == []
    kinds = {problem.kind for problem in real.check()}
    assert kinds == {"several sources", "shutter of another source"}
    assert any("holds sources 102730, 102738" in problem.message for problem in real.check())


@needs_real
def test_real_comes_back_as_it_was(real, tmp_path):
    path = tmp_path / "copy_msa.fits"
    real.write(path)
    with fits.open(REAL) as before, fits.open(path) as after:
        for hdu in after:
            del hdu.header["CHECKSUM"], hdu.header["DATASUM"]
        difference = fits.FITSDiff(before, after)
    assert difference.identical, difference.report()


@needs_real
def test_real_built_from_its_rows_gives_its_image(real):
    again = MsaFile.from_tables(real.shutters, real.sources, real.header)
    assert np.array_equal(again.image, real.image)
    assert again.image.dtype == np.int16


@needs_real
def test_real_transformed_and_untouched(tmp_path):
    before = hashlib.sha256(REAL.read_bytes()).hexdigest()
    original = MsaFile.read(REAL)
    rows = original.shutters.copy()
    new = original.transform_ids()
    new.write(tmp_path / "new_msa.fits")
    with pytest.raises(MetafileError, match="is the original MSA metafile and is not written over"):
        new.write(REAL, overwrite=True)
    assert original.shutters.tobytes() == rows.tobytes()
    assert hashlib.sha256(REAL.read_bytes()).hexdigest() == before

    read = MsaFile.read(tmp_path / "new_msa.fits")
    owners = original.owners()
    for row in read.shutters:
        key = (int(row["msa_metadata_id"]), int(row["slitlet_id"]))
        if key in owners:
            assert row["source_id"] == owners[key]
    for name in SHUTTER_FORMATS:
        if name != "source_id":
            assert read.shutters[name].tobytes() == original.shutters[name].tobytes(), name
    # slitlets of virtual and background sources keep what they have
    unowned = [(int(r["msa_metadata_id"]), int(r["slitlet_id"])) not in owners for r in rows]
    assert (read.shutters["source_id"][unowned] == rows["source_id"][unowned]).all()
    assert sum(unowned) > 0


@needs_real
def test_real_ids_are_never_shortened_into_each_other(real):
    with pytest.raises(MetafileError, match=r"would collide .*102730, 102738, .* to 102"):
        real.transform_ids(shorten="last")
    new = real.shortened_ids("first")
    assert new[102730] == 730
    assert len(set(new.values())) == len(new)
    assert not set(new.values()) & set(real.source_ids)
    assert 730 in real.transform_ids(shorten="first").source_ids
    assert 102730 in real.transform_ids().source_ids


@needs_real
@pytest.mark.slow
def test_jwst_reads_the_transformed_file_alike(real, tmp_path):
    path = tmp_path / "new_msa.fits"
    real.transform_ids().write(path)
    # One dither point of six: jwst takes most of a minute to read them all. It has slitlets of several sources.
    for meta, point in [(1, 3)]:
        before = {slit.name: slit for slit in open_msa_slits(str(REAL), meta, point)}
        after = {slit.name: slit for slit in open_msa_slits(str(path), meta, point)}
        assert before.keys() == after.keys()
        for name, slit in before.items():
            assert after[name].shutter_id == slit.shutter_id
            if slit.source_id in real.owners().values():
                assert after[name].source_id == real.owners()[meta, name]


# --- format


def test_format_is_the_archives(small, tmp_path):
    path = tmp_path / "a_msa.fits"
    small.write(path)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "SHUTTER_IMAGE", "SHUTTER_INFO", "SOURCE_INFO"]
        assert hdus[1].data.shape == (730, 342)
        assert hdus[1].header["BITPIX"] == 16
        assert hdus[2].columns.formats == ["I", "I", "I", "I", "I", "J", "1A", "6A", "E", "E", "I", "1A"]
        assert hdus[3].columns.formats == ["J", "J", "20A", "31A", "D", "D", "30A", "D"]
        primary = hdus[0].header
        for keyword in (
            "ORIGIN", "TELESCOP", "INSTRUME", "DATE", "FILENAME", "PPSDBVER", "PROGRAM", "VISIT", "OBSERVTN",
            "VISIT_ID", "MSACFG10", "MSACFG36",
        ):  # fmt: skip
            assert keyword in primary
        assert primary["VISIT_ID"] == "02136001001"
        assert is_simulated(primary)


def test_shutter_image_places(small):
    y, x = np.nonzero(small.image == 1)
    # quadrant 2, row 100, columns 50 to 52
    assert set(zip(y, x, strict=True)) == {(365 + 99, 171 + 49), (365 + 99, 171 + 50), (365 + 99, 171 + 51)}


def test_slitlets(small):
    first, second = small.slitlets()
    assert (first.slitlet_id, first.source_id, first.quadrant, first.row) == (1, 8512, 2, 100)
    assert first.columns == (50, 51, 52)
    assert second.source_id == 29470
    assert small.source_ids == [8512, 29470]
    assert small.check() == []


def test_transform(small):
    new = small.transform_ids()
    assert set(new.shutters["source_id"][new.shutters["slitlet_id"] == 1]) == {8512}
    assert set(new.shutters["source_id"][new.shutters["slitlet_id"] == 2]) == {29470}
    assert 0 in small.shutters["source_id"]
    assert new.transform_ids().shutters.tobytes() == new.shutters.tobytes()


def test_select_sources(small):
    one = small.select_sources([29470])
    assert [s.source_id for s in one.slitlets()] == [29470]
    assert list(one.sources["source_id"]) == [29470]
    assert set(np.unique(one.image)) == {0, 2}
    with pytest.raises(MetafileError, match=r"no slitlet for source ids \[7\]"):
        small.select_sources([7])


def test_longer_names_than_usual(rows, tmp_path):
    first, second, sources = rows
    sources[0]["source_name"] = "x" * 40
    path = tmp_path / "a.fits"
    build(first, second, sources=sources).write(path)
    assert MsaFile.read(path).sources["source_name"][0] == "x" * 40


# --- faults


@pytest.mark.parametrize(
    "change, kind, match",
    [
        (
            {"shutter_row": 366},
            "invalid row",
            "row 2 of SHUTTER_INFO .* has shutter_row 366, which must be 1 to 365",
        ),
        ({"shutter_column": 0}, "invalid row", "has shutter_column 0, which must be 1 to 171"),
        ({"shutter_quadrant": 5}, "invalid row", "has shutter_quadrant 5, which must be 1 to 4"),
        ({"shutter_state": "AJAR"}, "invalid row", "has shutter_state 'AJAR', which must be OPEN or CLOSED or ADDED"),
        ({"background": "?"}, "invalid row", "has background"),
        ({"dither_point_index": 0}, "invalid row", "has dither_point_index 0"),
        ({"background": "Y"}, "primary source in background", "slitlet 1 has a primary source in a shutter"),
        ({"source_id": 77}, "source without entry", "source 77 has a slitlet but no entry"),
    ],
)
def test_invalid_rows(small, change, kind, match):
    for name, value in change.items():
        small.shutters[name][1] = value
    found = errors(small)
    assert kind in [k for k, _ in found]
    assert any(re.search(match, message) for _, message in found)


def test_two_slitlets_with_the_same_shutters(rows):
    first, second, sources = rows
    twin = [row | {"slitlet_id": 9, "primary_source": "N", "background": "Y", "source_id": 0} for row in first]
    ((kind, message),) = errors(build(first, second, twin, sources=sources))
    assert kind == "duplicate slitlets"
    assert message.startswith("slitlets 1 and 9 are duplicates: both hold shutter quadrant 2, row 100, column 50")


def test_one_slitlet_id_given_to_two_sources(rows):
    first, second, sources = rows
    same = [row | {"slitlet_id": 1} for row in second]
    kinds = [kind for kind, _ in errors(build(first, same, sources=sources))]
    assert kinds == ["several primary sources", "slitlet in several rows"]


def test_one_source_in_two_slitlets(rows):
    first, second, sources = rows
    other = slitlet(3, 8512, row=300)
    ((kind, message),) = errors(build(first, second, other, sources=sources))
    assert kind == "source in two slitlets"
    assert "source 8512 is the primary source of slitlets 1 and 3 at dither point 1" in message


@pytest.mark.parametrize("ra, dec", [(np.nan, 52.9), (215.0, np.nan), (400.0, 52.9), (215.0, -91.0), (0.0, 0.0)])
def test_source_without_coordinates(rows, ra, dec):
    first, second, sources = rows
    ((kind, message),) = errors(build(first, second, sources=[source(8512, ra, dec), sources[1]]))
    assert kind == "source without coordinates"
    assert "source 8512 " in message


def test_source_without_slitlet(rows):
    first, _, sources = rows
    msa = build(first, sources=sources)
    assert errors(msa) == []
    (problem,) = msa.check()
    assert problem.kind == "source without slitlet"
    assert "source 29470 of SOURCE_INFO has no slitlet" in problem.message


def test_virtual_source_without_slitlet_is_a_warning(rows):
    first, second, sources = rows
    msa = build(first, second, sources=[*sources, source(-5)])
    assert errors(msa) == []
    assert [problem.kind for problem in msa.check()] == ["source without slitlet"]


def test_source_given_twice(rows):
    first, second, sources = rows
    ((kind, _),) = errors(build(first, second, sources=[*sources, sources[0]]))
    assert kind == "duplicate source"


def test_warnings(rows):
    first, second, sources = rows
    gap = [row for row in second if row["shutter_column"] != 50] + [shutter(2, 54, point=p, row=200) for p in (1, 2)]
    unled = [row | {"primary_source": "N"} for row in first]
    msa = build(unled, gap, sources=sources)
    assert errors(msa) == []
    assert {problem.kind for problem in msa.check()} == {"no primary source", "gap in slitlet"}
    assert str(msa.check()[0]).startswith("warning: ")


def test_slitlet_minus_one_is_ignored_as_in_jwst(rows):
    first, second, sources = rows
    msa = build(first, second, [shutter(-1, 50), shutter(-1, 51)], sources=sources)
    assert msa.check() == []
    assert [s.slitlet_id for s in msa.slitlets()] == [1, 2]


# --- reading and writing


def test_missing(tmp_path):
    with pytest.raises(MetafileError, match="There is no MSA metafile"):
        MsaFile.read(tmp_path / "a.fits")


def test_not_a_metafile(tmp_path):
    path = tmp_path / "a.fits"
    path.write_text("nothing")
    with pytest.raises(MetafileError, match="not a FITS file"):
        MsaFile.read(path)
    fits.PrimaryHDU().writeto(path, overwrite=True)
    with pytest.raises(MetafileError, match="has no extension SHUTTER_IMAGE"):
        MsaFile.read(path)


def test_truncated(small, tmp_path):
    path = tmp_path / "a.fits"
    small.write(path)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(MetafileError, match="truncated"):
        MsaFile.read(path)


def test_missing_column(small, tmp_path):
    path = tmp_path / "a.fits"
    small.write(path)
    with fits.open(path) as hdus:
        kept = fits.ColDefs([column for column in hdus[2].columns if column.name != "primary_source"])
        table = fits.BinTableHDU.from_columns(kept, name="SHUTTER_INFO")
        fits.HDUList([hdus[0], hdus[1], table, hdus[3]]).writeto(path, overwrite=True)
    with pytest.raises(MetafileError, match="SHUTTER_INFO lacks primary_source"):
        MsaFile.read(path)


def test_rows_must_have_the_columns(rows):
    first, _, sources = rows
    del first[0]["background"]
    with pytest.raises(MetafileError, match=r"must have the columns .* see background"):
        build(first, sources=sources)


def test_rows_outside_the_msa(rows):
    first, _, sources = rows
    first[0]["shutter_row"] = 400
    with pytest.raises(MetafileError, match="no shutter at row 400, column 50"):
        build(first, sources=sources)


def test_nothing_is_written_over(small, tmp_path):
    path = tmp_path / "a.fits"
    small.write(path)
    with pytest.raises(MetafileError, match="exists and is not written over"):
        small.write(path)
    small.write(path, overwrite=True)
    with pytest.raises(MetafileError, match="is the original"):
        MsaFile.read(path).write(path, overwrite=True)


def test_a_galaxy_that_left_its_slitlet_keeps_it_in_all_configurations():
    """As in GO-2136: a configuration an exposure; at the outer steps ids are 0, or negative with primary_source Y."""
    dataset = Dataset.load("tiny")
    shutters = []
    for meta in range(1, 64):
        for slitlet, source in ((1, 8512), (2, 12015), (3, 0)):
            left = {0: 0, 1: -slitlet}.get(meta % 9, source) if source else 0
            for k in range(5):
                shutters.append(
                    {
                        "slitlet_id": slitlet, "msa_metadata_id": meta, "shutter_quadrant": 3,
                        "shutter_row": 100 + 9 * slitlet, "shutter_column": 80 + k, "source_id": left if k == 2 else 0,
                        "background": "N" if k == 2 and left else "Y", "shutter_state": "OPEN",
                        "estimated_source_in_shutter_x": 0.5 if k == 2 else np.nan,
                        "estimated_source_in_shutter_y": 0.5 if k == 2 else np.nan,
                        "dither_point_index": 1, "primary_source": "Y" if k == 2 and left else "N",
                    }
                )  # fmt: skip
    # The number of a slitlet, given to other shutters, says nothing of its source.
    shutters += [{**row, "msa_metadata_id": 64, "shutter_row": 300, "source_id": 0} for row in shutters[:5]]
    entries = [
        {
            "program": 2136, "source_id": source, "source_name": f"2136_{source}", "alias": str(source),
            "ra": 215.05, "dec": 52.938, "preimage_id": "None", "stellarity": 0.0,
        }
        for source in (8512, 12015)
    ]  # fmt: skip
    changed = MsaFile.from_tables(shutters, entries, dataset).transform_ids().shutters
    for slitlet, source in ((1, 8512), (2, 12015), (3, 0)):
        mine = changed[(changed["slitlet_id"] == slitlet) & (changed["msa_metadata_id"] < 64)]
        assert len(mine) == 63 * 5
        assert set(mine["source_id"]) == {source}
    assert set(changed["source_id"][changed["msa_metadata_id"] == 64]) == {0}
    first_only = MsaFile.from_tables(shutters, entries, dataset).select_sources([8512]).shutters
    assert set(first_only["msa_metadata_id"]) == set(range(1, 64))


# --- as the archive has them


def jwst_slits(msa, path, metadata_id=1, point=1):
    """{slitlet: (source id, name, x, y)} as jwst reads them, from the middle of the shutter."""
    msa.write(path, overwrite=True)
    slits = open_msa_slits(str(path), metadata_id, point)
    return {int(s.name): (int(s.source_id), s.source_name, s.source_xpos, s.source_ypos) for s in slits}


def with_column(path, name, form, values):
    """Add a column at the end of SHUTTER_INFO."""
    with fits.open(path) as hdus:
        table = hdus["SHUTTER_INFO"]
        columns = [*table.columns, fits.Column(name, form, array=values(table.data))]
        hdus["SHUTTER_INFO"] = fits.BinTableHDU.from_columns(columns, name="SHUTTER_INFO")
        hdus.writeto(path.with_name("more_msa.fits"))
    return path.with_name("more_msa.fits")


def test_rows_of_fixed_slits_are_named_and_left_out(small, tmp_path):
    small.write(tmp_path / "a_msa.fits")
    path = with_column(tmp_path / "a_msa.fits", "fixed_slit", "6A", lambda t: ["S200A1"] + ["NONE"] * (len(t) - 1))
    msa = MsaFile.read(path)
    assert msa.shutters.dtype.names == (*SHUTTER_FORMATS, "fixed_slit")
    assert len(msa.shutters) == len(small.shutters) - 1
    assert ("rows left out", "1 rows of fixed slits (S200A1) are left out") in [
        (p.kind, p.message) for p in msa.check()
    ]
    slits = jwst_slits(msa, tmp_path / "copy_msa.fits", point=2)
    assert {slitlet: found[0] for slitlet, found in slits.items()} == {1: 8512, 2: 29470}
    assert list(fits.getdata(tmp_path / "copy_msa.fits", "SHUTTER_INFO")["fixed_slit"]) == ["NONE"] * len(msa.shutters)


def test_columns_in_another_order_are_refused(small, tmp_path):
    small.write(tmp_path / "a_msa.fits")
    with fits.open(tmp_path / "a_msa.fits") as hdus:
        columns = list(hdus["SHUTTER_INFO"].columns)
        hdus["SHUTTER_INFO"] = fits.BinTableHDU.from_columns(columns[1:] + columns[:1], name="SHUTTER_INFO")
        hdus.writeto(tmp_path / "b_msa.fits")
    with pytest.raises(MetafileError, match=r"SHUTTER_INFO has the columns msa_metadata_id, .*expected, in this order"):
        MsaFile.read(tmp_path / "b_msa.fits")


def test_closed_shutters_do_not_count_as_open(rows, tmp_path):
    first, second, sources = rows
    closed = [row | {"shutter_state": "CLOSED"} if row["shutter_column"] == 50 else row for row in first]
    msa = build(closed, second, sources=sources)
    assert [s.columns for s in msa.slitlets()] == [(51, 52), (50, 51, 52)]
    assert "2 rows of shutters that are CLOSED (slitlets 1) do not count as open" in [p.message for p in msa.check()]
    msa.write(tmp_path / "a_msa.fits")
    assert [s.shutter_state for s in open_msa_slits(str(tmp_path / "a_msa.fits"), 1, 1)] == ["x1", "1x1"]


@pytest.mark.parametrize("number", [40_000, 70_000, 113_852, 3_000_000_000])
def test_large_ids_do_not_wrap(rows, tmp_path, number):
    _, second, sources = rows
    msa = build(slitlet(1, number), second, sources=[source(number), sources[1]])
    msa.write(tmp_path / "a_msa.fits")
    again = MsaFile.read(tmp_path / "a_msa.fits")
    assert again.source_ids == sorted((number, 29470))
    again.write(tmp_path / "b_msa.fits")
    assert MsaFile.read(tmp_path / "b_msa.fits").source_ids == again.source_ids


def test_unsigned_and_narrow_columns(small, tmp_path):
    """As tools other than the archive's write them: 16 bits are enough for a slitlet, not for an id."""
    small.write(tmp_path / "a_msa.fits")
    with fits.open(tmp_path / "a_msa.fits") as hdus:
        ids = np.where(hdus["SHUTTER_INFO"].data["source_id"] > 0, 40_000, 0).astype(np.uint16)
        columns = [
            c if c.name != "source_id" else fits.Column("source_id", "I", bzero=32768, array=ids)
            for c in hdus["SHUTTER_INFO"].columns
        ]
        hdus["SHUTTER_INFO"] = fits.BinTableHDU.from_columns(columns, name="SHUTTER_INFO")
        hdus.writeto(tmp_path / "b_msa.fits")
    msa = MsaFile.read(tmp_path / "b_msa.fits")
    assert msa.source_ids == [40_000]
    msa.write(tmp_path / "c_msa.fits")
    assert MsaFile.read(tmp_path / "c_msa.fits").source_ids == [40_000]


def test_a_source_that_left_its_slitlet_keeps_it(rows, tmp_path):
    """At the second dither point all rows of slitlet 1 are background: jwst would invent the id 29471."""
    first, second, sources = rows
    for row in first:
        if row["dither_point_index"] == 2:
            row |= shutter(1, row["shutter_column"], point=2)
    msa = build(first, second, sources=sources)
    # The largest id plus one (jwst 1.14), or the number of the slitlet (jwst 3).
    assert jwst_slits(msa, tmp_path / "a_msa.fits", point=2)[1][0] in (29471, 1)
    slits = jwst_slits(msa.repaired().transform_ids(), tmp_path / "a_msa.fits", point=2)
    assert slits[1] == (8512, "2136_8512", 0.0, 0.0)
    assert slits[2] == pytest.approx((29470, "2136_29470", -0.1, 0.1))


def test_background_slitlets_get_no_id_that_is_a_source_s(rows, tmp_path):
    """jwst calls a slitlet without a source by the largest id plus one, or by its own number: both may be taken."""
    first, _, sources = rows
    other = slitlet(3, 7, row=200)
    empty = [shutter(7, 50 + k, row=300, point=p) for p in (1, 2) for k in range(3)]
    msa = build(first, other, empty, sources=[*sources, source(8513), source(7)])
    assert jwst_slits(msa, tmp_path / "a_msa.fits")[7][0] in (8513, 7)
    slits = jwst_slits(msa.repaired().transform_ids(), tmp_path / "a_msa.fits")
    assert slits[7] == (-7, "background_7", 0.0, 0.0)
    assert (slits[1][0], slits[3][0]) == (8512, 7)
    assert msa.repaired().source_ids == [7, 8512]


def test_every_version_of_jwst_names_slitlets_without_a_source_alike(rows, tmp_path):
    """Background, virtual sources with and without an entry in the catalogue, and slitlet -1."""
    first, _, sources = rows
    empty = [shutter(7, 50 + k, row=300, point=p) for p in (1, 2) for k in range(3)]
    virtual, known = slitlet(8, -3, row=310), slitlet(9, -4, row=320)
    ignored = [shutter(-1, 50, row=330), shutter(-1, 51, row=330)]
    msa = build(first, empty, virtual, known, ignored, sources=[*sources, source(-4)])
    slits = jwst_slits(msa.repaired().transform_ids(), tmp_path / "a_msa.fits")
    assert {number: found[:2] for number, found in slits.items()} == {
        1: (8512, "2136_8512"),
        7: (-7, "background_7"),
        8: (-3, "background_8"),
        9: (-4, "2136_-4"),
    }
    again = msa.repaired().repaired()
    assert again.sources.tobytes() == msa.repaired().sources.tobytes()
    assert set(msa.shutters["slitlet_id"]) - set(again.shutters["slitlet_id"]) == {-1}


def test_repaired_background_does_not_share_an_id(rows):
    first, _, sources = rows
    planned = slitlet(2, -7, row=200)
    empty = [shutter(7, 50 + k, row=300, point=p) for p in (1, 2) for k in range(3)]
    new = build(first, planned, empty, sources=sources).repaired().shutters
    assert {int(i) for i in new["source_id"][new["slitlet_id"] == 7]} == {-8, 0}


def test_unknown_positions_are_the_middle_of_the_shutter(rows, tmp_path):
    first, second, sources = rows
    for row in first:
        row |= {"estimated_source_in_shutter_y": np.nan}
    msa = build(first, second, sources=sources)
    assert errors(msa) == []
    (said,) = [p for p in msa.check() if p.kind == "no source position"]
    assert said.message == (
        "slitlet 1 does not say where its source 8512 is, the middle is taken at dither point 1 of configuration 1 "
        "(and 1 more)"
    )
    assert jwst_slits(msa.repaired(), tmp_path / "a_msa.fits")[1] == pytest.approx((8512, "2136_8512", -0.1, 0.0))


def test_repaired_leaves_a_good_file_alone(small):
    assert small.repaired().shutters.tobytes() == small.shutters.tobytes()


@needs_real
def test_real_repaired_gives_jwst_an_id_for_every_slitlet(real, tmp_path):
    """In each configuration and at each dither point, slitlets of a source have it, the others none of any source."""
    copy = real.repaired().transform_ids()
    catalogue = {int(i) for i in real.sources["source_id"]}
    for meta, point in real.dither_points:
        slits = jwst_slits(copy, tmp_path / "a_msa.fits", meta, point)
        mine = real.shutters[
            (real.shutters["msa_metadata_id"] == meta) & (real.shutters["dither_point_index"] == point)
        ]
        assert set(slits) == {int(i) for i in mine["slitlet_id"] if i > 0}
        for slitlet_id, (source_id, *_) in slits.items():
            owner = copy.owners().get((meta, slitlet_id))
            assert source_id == owner if owner else source_id < 0 and source_id in catalogue | {-slitlet_id}
        assert len({found[0] for found in slits.values()}) == len(slits)


@needs_real
@pytest.mark.parametrize("with_image", [True, False])
def test_every_row_that_the_real_one_loses_is_named(real, with_image):
    """A row lost at one dither point of several; and, where the image knows, at all."""
    table, tried = real.shutters, 0
    for number in range(5, len(table), 61):
        row = table[number]
        mine = np.ones(len(table), bool)
        for name in ("slitlet_id", "msa_metadata_id", "dither_point_index", "shutter_column"):
            mine &= table[name] == row[name]
        if mine.sum() > 1 and not with_image:
            continue  # a slitlet with two sources has two rows a shutter
        tried += 1
        gone = np.zeros(len(table), bool)
        gone[number] = True
        if with_image:
            gone |= (
                (table["shutter_quadrant"] == row["shutter_quadrant"])
                & (table["shutter_row"] == row["shutter_row"])
                & (table["shutter_column"] == row["shutter_column"])
            )
        kinds = {problem.kind for problem in replace(real, shutters=table[~gone]).check() if problem.level == "error"}
        assert "shutter missing" in kinds, number
    assert tried > 15


@needs_real
def test_the_real_one_has_lost_nothing(real):
    assert not [problem for problem in real.check() if problem.level == "error"]
