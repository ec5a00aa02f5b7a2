"""Edits of the MSA metafile: on a small one, and on a real one as jwst itself reads it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest

from msa3d.config import Dataset
from msa3d.errors import MetafileError
from msa3d.observation import metafile_edit
from msa3d.observation.metafile import MsaFile

REAL = Path(__file__).parents[3] / "shared" / "data" / "jw02736007001_01_msa.fits"
needs_real = pytest.mark.skipif(not REAL.is_file(), reason=f"no real metafile at {REAL}")


def rows_of_slitlet(slitlet, source, columns, primary, row=100, points=(1, 2), quadrant=2):
    """Rows of one slitlet; `primary` is the column of the source, or one for each dither point, or None."""
    primaries = primary if isinstance(primary, tuple) else (primary,) * len(points)
    return [
        {
            "slitlet_id": slitlet, "msa_metadata_id": 1, "shutter_quadrant": quadrant, "shutter_row": row,
            "shutter_column": column, "source_id": source if column == at else 0,
            "background": "N" if column == at else "Y", "shutter_state": "OPEN",
            "estimated_source_in_shutter_x": 0.4 if column == at else np.nan,
            "estimated_source_in_shutter_y": 0.6 if column == at else np.nan, "dither_point_index": point,
            "primary_source": "Y" if column == at else "N",
        }
        for column in columns
        for point, at in zip(points, primaries, strict=True)
    ]  # fmt: skip


def source(number):
    return {
        "program": 2136, "source_id": number, "source_name": f"2136_{number}", "alias": "a", "ra": 215.0,
        "dec": 52.9, "preimage_id": "None", "stellarity": 0.1,
    }  # fmt: skip


def build(*slitlets, sources):
    rows = [row for slitlet in slitlets for row in slitlet]
    return MsaFile.from_tables(rows, [source(number) for number in sources], Dataset.load("tiny"))


@pytest.fixture
def small():
    """Slitlet 1 of five shutters on 8512, slitlet 2 of three on 29470, slitlet 3 of four without a source."""
    return build(
        rows_of_slitlet(1, 8512, range(50, 55), 52),
        rows_of_slitlet(2, 29470, range(60, 63), 61, row=200),
        rows_of_slitlet(3, 0, range(80, 84), None, row=300),
        sources=[8512, 29470],
    )


def columns_of(msa):
    return {one.slitlet_id: (one.source_id, *one.columns) for one in msa.slitlets()}


def test_every_edit_leaves_the_original_alone(small):
    before = small.shutters.tobytes(), small.sources.tobytes(), small.image.tobytes()
    for made in (
        metafile_edit.set_stellarity(small, {8512: 1.0}),
        metafile_edit.set_position(small, 8512, 0.1, 0.2),
        metafile_edit.set_background(small, 2),
        metafile_edit.lengthen_slitlets(small),
        metafile_edit.split_slitlets(small, own_sources=True),
        metafile_edit.one_slitlet_per_shutter(small, [1]),
        small.transform_ids(),
        small.select_sources([8512]),
    ):
        assert metafile_edit.changes(small, made)
        assert (small.shutters.tobytes(), small.sources.tobytes(), small.image.tobytes()) == before
    assert metafile_edit.changes(small, small) == []


def test_stellarity(small):
    made = metafile_edit.set_stellarity(small, {29470: 1.0})
    assert list(made.sources["stellarity"]) == [0.1, 1.0]
    assert metafile_edit.changes(small, made) == ["source 29470: stellarity 0.1 became 1.0"]
    with pytest.raises(MetafileError, match="has no source 7 "):
        metafile_edit.set_stellarity(small, {7: 1.0})
    for wrong in (1.5, np.nan):
        with pytest.raises(MetafileError, match="stellarity of source 8512 must be"):
            metafile_edit.set_stellarity(small, {8512: wrong})


def test_position(small):
    made = metafile_edit.set_position(small, 8512, 0.25, 0.75, dither_points=[2])
    rows = made.shutters[(made.shutters["source_id"] == 8512) & (made.shutters["primary_source"] == "Y")]
    assert [(p, float(x), float(y)) for p, x, y in rows[["dither_point_index", *rows.dtype.names[8:10]]]] == [
        (1, pytest.approx(0.4), pytest.approx(0.6)),
        (2, 0.25, 0.75),
    ]
    assert metafile_edit.changes(small, made) == ["slitlet 1: position in the shutter 0.400, 0.600 became 0.250, 0.750"]
    assert "(and 1 more rows)" in metafile_edit.changes(small, metafile_edit.set_position(small, 8512, 0.2, 0.2))[0]
    for arguments, match in (
        ((8512, 1.2, 0.5), "x of source 8512 must be from 0 to 1"),
        ((8512, 0.5, np.nan), "y of source 8512"),
        ((7, 0.5, 0.5), "no shutter whose primary source is 7"),
        ((8512, 0.5, 0.5, [9]), "no dither point 9 for source 8512"),
    ):
        with pytest.raises(MetafileError, match=match):
            metafile_edit.set_position(small, *arguments)


def test_background_of_one_shutter_and_of_all(small):
    freed = metafile_edit.set_background(small, 1, [53], background=False)
    assert metafile_edit.changes(small, freed) == ["slitlet 1: column 53 no longer background"]
    assert metafile_edit.changes(freed, metafile_edit.set_background(freed, 1, [53])) == [
        "slitlet 1: column 53 marked as background"
    ]
    whole = metafile_edit.set_background(small, 2)
    assert columns_of(whole)[2] == (0, 60, 61, 62)
    assert "source 29470 removed from SOURCE_INFO" in metafile_edit.changes(small, whole)
    assert whole.check() == []
    with pytest.raises(MetafileError, match="the primary source of slitlet 1 is in one of the columns 52"):
        metafile_edit.set_background(small, 1, [52])
    with pytest.raises(MetafileError, match="slitlet 1 has no shutter in column 9"):
        metafile_edit.set_background(small, 1, [9])
    with pytest.raises(MetafileError, match="has no slitlet 9"):
        metafile_edit.set_background(small, 9)


def test_longer_by_one_shutter_at_each_end(small):
    made = metafile_edit.lengthen_slitlets(small)
    assert columns_of(made) == {1: (8512, *range(49, 56)), 2: (29470, *range(59, 64)), 3: (0, *range(79, 85))}
    new = made.shutters[(made.shutters["slitlet_id"] == 1) & np.isin(made.shutters["shutter_column"], [49, 55])]
    assert set(new["background"]) == {"Y"}
    assert set(new["primary_source"]) == {"N"}
    assert set(new["shutter_state"]) == {"ADDED"}
    assert set(made.shutters["shutter_state"][: len(small.shutters)]) == {"OPEN"}
    assert np.isnan(new["estimated_source_in_shutter_x"]).all()
    assert made.image[365 + 99, 171 + 48] == 1
    assert made.check() == []
    assert columns_of(metafile_edit.lengthen_slitlets(small, 2, [2]))[2] == (29470, *range(58, 65))
    with pytest.raises(MetafileError, match="by 1 shutter or more"):
        metafile_edit.lengthen_slitlets(small, 0)


def test_no_longer_than_the_msa_and_the_neighbours_allow(caplog):
    msa = build(
        rows_of_slitlet(1, 8512, (1, 2), 1), rows_of_slitlet(2, 29470, (3, 4), 4), sources=[8512, 29470]
    )  # side by side at the edge
    with caplog.at_level(logging.WARNING):
        made = metafile_edit.lengthen_slitlets(msa)
    assert columns_of(made) == {1: (8512, 1, 2), 2: (29470, 3, 4, 5)}
    assert "1 beyond column 1; 1 beyond column 2; 2 beyond column 3" in caplog.text
    assert made.check() == []


def test_split_keeps_the_source_centred(small):
    made = metafile_edit.split_slitlets(small)
    assert columns_of(made) == {
        1: (8512, 51, 52, 53), 2: (29470, 60, 61, 62), 3: (0, 80, 81, 82), 4: (0, 50), 5: (0, 54), 6: (0, 83),
    }  # fmt: skip
    assert made.check() == []
    assert len(made.shutters) == len(small.shutters)
    told = metafile_edit.changes(small, made)
    assert "slitlet 1: quadrant 2, row 100, columns 50-54 became quadrant 2, row 100, columns 51-53" in told
    assert "slitlet 6 new (quadrant 2, row 300, columns 83, source ids 0)" in told


@pytest.mark.parametrize(
    "length, primary, longest, expected",
    [
        (7, 50, 3, [(50, 51, 52), (53, 54, 55), (56,)]),  # the source at one end
        (7, 56, 3, [(54, 55, 56), (51, 52, 53), (50,)]),
        (8, 53, 3, [(52, 53, 54), (50, 51), (55, 56, 57)]),
        (5, (51, 53), 3, [(51, 52, 53), (50,), (54,)]),  # one that moves
        (5, (53, 54), 2, [(53, 54), (51, 52), (50,)]),
        (4, 52, 1, [(52,), (51,), (50,), (53,)]),
        (5, 51, 4, [(50, 51, 52, 53), (54,)]),
    ],
)
def test_split_wherever_the_source_is(length, primary, longest, expected):
    msa = build(rows_of_slitlet(1, 8512, range(50, 50 + length), primary), sources=[8512])
    made = metafile_edit.split_slitlets(msa, longest)
    pieces = columns_of(made)
    assert pieces.pop(1) == (8512, *expected[0])
    assert sorted(pieces.values()) == sorted((0, *piece) for piece in expected[1:])
    assert not [problem for problem in made.check() if problem.level == "error"]


def test_a_source_that_moves_too_far_is_not_split():
    msa = build(rows_of_slitlet(1, 8512, range(50, 55), (50, 54)), sources=[8512])
    with pytest.raises(MetafileError, match="columns 50 to 54 at different dither points, which no slitlet of 3"):
        metafile_edit.split_slitlets(msa)


def test_pieces_with_sources_of_their_own(small):
    made = metafile_edit.split_slitlets(small, own_sources=True)
    assert columns_of(made)[4] == (29471, 50)
    assert columns_of(made)[5] == (29472, 54)
    assert columns_of(made)[6] == (0, 83)
    entry = made.sources[made.sources["source_id"] == 29472][0]
    assert (entry["ra"], entry["dec"]) == (215.0, 52.9)
    assert made.check() == []


def test_a_long_slit_as_one_slitlet_a_shutter(small):
    made = metafile_edit.one_slitlet_per_shutter(small, [1], first_source_id=85121)
    assert columns_of(made) == {
        2: (29470, 60, 61, 62), 3: (0, 80, 81, 82, 83), 4: (85121, 50), 5: (85122, 51), 6: (85123, 52),
        7: (85124, 53), 8: (85125, 54),
    }  # fmt: skip
    assert "source 8512 removed from SOURCE_INFO" in metafile_edit.changes(small, made)
    assert made.check() == []
    with pytest.raises(MetafileError, match="slitlet 3 has no source; give right ascension"):
        metafile_edit.one_slitlet_per_shutter(small, [3])
    named = metafile_edit.one_slitlet_per_shutter(small, [3], coordinates=(10.0, -20.0))
    assert named.check() == []
    assert set(named.sources["ra"]) == {215.0, 10.0}
    with pytest.raises(MetafileError, match="source id 29470 is taken"):
        metafile_edit.one_slitlet_per_shutter(small, [1], first_source_id=29468)
    with pytest.raises(MetafileError, match="name the slitlets"):
        metafile_edit.one_slitlet_per_shutter(small, [])


# --- the real file


@pytest.fixture(scope="module")
def real():
    return MsaFile.read(REAL)


EDITS = {
    "ids": metafile_edit.transform_ids,
    "keep": lambda msa: msa.select_sources([8140, 9922]),
    "stellarity": lambda msa: metafile_edit.set_stellarity(msa, {8140: 1.0}),
    "position": lambda msa: metafile_edit.set_position(msa, 8140, 0.5, 0.5),
    "background": lambda msa: metafile_edit.set_background(msa, 20),
    "split": lambda msa: metafile_edit.split_slitlets(msa, own_sources=True),
    "lengthen": lambda msa: metafile_edit.lengthen_slitlets(msa),
    "one per shutter": lambda msa: metafile_edit.one_slitlet_per_shutter(msa, [20, 75], coordinates=(110.8, -73.4)),
}


@needs_real
@pytest.mark.parametrize("edit", EDITS)
def test_real_edited_has_no_errors_and_is_untouched(real, tmp_path, edit):
    before = hashlib.sha256(REAL.read_bytes()).hexdigest()
    made = EDITS[edit](real)
    made.write(tmp_path / "copy_msa.fits")
    again = MsaFile.read(tmp_path / "copy_msa.fits")
    assert [p for p in again.check() if p.level == "error"] == []
    assert metafile_edit.changes(real, again) == metafile_edit.changes(real, made) != []
    assert hashlib.sha256(REAL.read_bytes()).hexdigest() == before
    rows = again.shutters[again.shutters["slitlet_id"] > 0]
    assert set(np.unique(again.image)) - {0} == set(rows["slitlet_id"])


@needs_real
def test_real_lengths(real):
    def lengths(msa):
        return [len(one.columns) for one in msa.slitlets()]

    assert max(lengths(real)) == 10
    assert max(lengths(metafile_edit.split_slitlets(real))) == 3
    longer = metafile_edit.lengthen_slitlets(real)
    assert sum(lengths(longer)) - sum(lengths(real)) == 2 * 74 - 3  # three ends have no room
    every = metafile_edit.split_slitlets(longer, own_sources=True)
    assert sum(lengths(every)) == sum(lengths(longer))


@needs_real
@pytest.mark.slow
def test_jwst_reads_the_edited_file(real, tmp_path):
    """The 5 shutters of a slitlet become 7 for jwst, its extent along the slit grows by one pitch at each end."""
    from jwst.assign_wcs import nirspec

    few = real.select_sources([9239, 8140])
    few.write(tmp_path / "few_msa.fits")
    metafile_edit.lengthen_slitlets(few).write(tmp_path / "longer_msa.fits")
    metafile_edit.split_slitlets(few, own_sources=True).write(tmp_path / "split_msa.fits")
    slits = {
        name: {slit.source_id: slit for slit in nirspec.get_open_msa_slits(str(tmp_path / f"{name}_msa.fits"), 1, 1)}
        for name in ("few", "longer", "split")
    }
    before, after = slits["few"][9239], slits["longer"][9239]
    assert (before.shutter_state, after.shutter_state) == ("11x11", "111x111")
    assert after.ymax - before.ymax == pytest.approx(1.15)
    assert before.ymin - after.ymin == pytest.approx(1.15)
    assert slits["split"][9239].shutter_state == "1x1"
    assert len(slits["split"]) == len(slits["few"]) + 2
