"""One file over a network that does what networks do."""

from __future__ import annotations

import hashlib

import pytest
import requests

from msa3d.archive.download import Manners, download, partial_path
from msa3d.errors import FetchError, SizeChangedError

NAME = "jw02136001001_03101_00001_nrs1_rate.fits"
QUICK = Manners(retries=3, wait_s=0.0, timeout_s=0.4)


@pytest.fixture
def get(mast, tmp_path):
    """Fetch the one file; what it should be is in `mast.files`."""
    mast.add(NAME)

    def fetch(**options):
        url = f"{mast.url}/api/v0.1/Download/file?uri=mast:JWST/product/{NAME}"
        with requests.Session() as session:
            return download(session, url, tmp_path / NAME, manners=QUICK, **options)

    return fetch


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "faults, requests_sent, told",
    [
        ([], 1, ""),
        (["break"], 2, "broke off"),
        (["break", "break", "break", "break", "break"], 6, "broke off"),
        (["stall"], 2, "fell silent for 0.4 s"),
        (["html"], 2, "web page instead of the file"),
        (["garbage"], 2, "not a FITS file"),
        (["503", "429"], 3, "503"),
        (["break", "refuse"], 2, "broke off"),
        (["break", "shifted"], 3, "another part than asked for"),
        (["break", "416"], 3, "no byte"),
    ],
)
def test_whatever_happens_the_file_comes_whole(get, mast, tmp_path, faults, requests_sent, told, known):
    mast.faults[NAME] = list(faults)
    content = mast.files[NAME]
    done = get(size=len(content) if known else None)
    assert (tmp_path / NAME).read_bytes() == content
    assert done.sha256 == hashlib.sha256(content).hexdigest()
    assert done.size == len(content)
    assert done.requests == len(mast.asked(NAME)) == requests_sent
    assert told in "; ".join(done.troubles)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_it_goes_on_where_it_broke_off(get, mast):
    mast.faults[NAME] = ["break", "break"]
    content = mast.files[NAME]
    done = get(size=len(content))
    starts = [request["range"] for request in mast.asked(NAME)]
    half = len(content) // 2
    assert starts == [None, f"bytes={half}-", f"bytes={half + (len(content) - half) // 2}-"]
    assert done.received == len(content)  # no byte twice


def test_it_goes_on_in_another_process(get, mast, tmp_path):
    content = mast.files[NAME]
    partial_path(tmp_path / NAME).write_bytes(content[:5000])
    done = get(size=len(content))
    assert mast.asked(NAME)[0]["range"] == "bytes=5000-"
    assert (done.resumed_from, done.received) == (5000, len(content) - 5000)
    assert (tmp_path / NAME).read_bytes() == content


def test_all_its_bytes_but_not_yet_its_name(get, mast, tmp_path):
    content = mast.files[NAME]
    partial_path(tmp_path / NAME).write_bytes(content)
    assert get(size=len(content)).requests == 0
    assert not mast.requests


def test_a_server_without_ranges_or_tags(get, mast, tmp_path):
    mast.ranges = mast.tags = False
    content = mast.files[NAME]
    partial_path(tmp_path / NAME).write_bytes(content[:5000])
    mast.faults[NAME] = ["break"]
    done = get(size=len(content))
    assert (tmp_path / NAME).read_bytes() == content
    assert done.requests == 2


def test_a_file_that_changed_in_between_is_not_glued_together(get, mast, tmp_path, serialised):
    """Half of the old one is there; the server has another of the same length, which its tag tells."""
    new = serialised("another")
    assert len(new) == len(mast.files[NAME])
    mast.faults[NAME] = ["break", "503", "503", "503"]
    with pytest.raises(FetchError, match="503"):
        get()
    assert partial_path(tmp_path / NAME).stat().st_size > 0
    mast.files[NAME] = new
    assert get().requests == 1
    assert (tmp_path / NAME).read_bytes() == new


def test_more_there_than_should_be(get, mast, tmp_path):
    content = mast.files[NAME]
    partial_path(tmp_path / NAME).write_bytes(content + b"more")
    assert get(size=len(content)).size == len(content)


@pytest.mark.parametrize(
    "faults, options, error, match",
    [
        (["html"] * 3, {}, FetchError, r"cannot be fetched: the server sent a web page .* \(3 requests"),
        (["503"] * 3, {}, FetchError, "503 Service Unavailable"),
        (["404"], {}, FetchError, "is not in the archive"),
        (["403"], {}, FetchError, "is not public .* MAST_API_TOKEN"),
        (["400"], {}, FetchError, "400 Bad Request"),
        ([], {"size": 2880}, SizeChangedError, "has 14400 bytes at the server, but 2880 in its list"),
        (["changed"], {"size": 14400}, SizeChangedError, "has 17280 bytes at the server, but 14400 in its list"),
        ([], {"sha256": "0" * 64}, FetchError, "came with SHA-256 .* but its list says 0000"),
    ],
)
def test_what_is_not_to_be_had_is_one_sentence(get, mast, tmp_path, faults, options, error, match):
    assert len(mast.files[NAME]) == 14400
    mast.faults[NAME] = list(faults)
    with pytest.raises(error, match=match):
        get(**options)
    assert not (tmp_path / NAME).exists()


def test_a_short_file_at_the_server_is_not_taken(get, mast, tmp_path):
    mast.files[NAME] = mast.files[NAME][:-100]
    with pytest.raises(FetchError, match="not a complete FITS file"):
        get()
    assert not list(tmp_path.iterdir())


def test_nobody_there(tmp_path):
    with requests.Session() as session, pytest.raises(FetchError, match=r"may be offline\. Check the network"):
        download(session, "http://localhost:9/file?uri=x", tmp_path / NAME, manners=Manners(2, 0.0, 0.0, 0.4))
