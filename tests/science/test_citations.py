"""What is cited is what was used."""

from __future__ import annotations

from importlib import metadata

import pytest

from msa3d.errors import DatasetError
from msa3d.science import citations


def test_packages_are_those_imported():
    found = citations.used_packages(["numpy", "astropy.io.fits", "json"])
    assert found == {"astropy": metadata.version("astropy"), "numpy": metadata.version("numpy")}
    assert "numpy" in citations.used_packages()


def test_every_entry_is_whole():
    text = citations.bibtex(list(citations._table()["packages"]))
    assert text.count("{") == text.count("}")
    assert text.count("@") == len(citations._table()["packages"])
    for item in citations._table()["packages"].values():
        assert f"{{{item['key']}," in item["entry"]


def test_calibrations_are_cited_once():
    text = citations.bibtex(["numpy"], ["PP04_N2", "KE12_Ha", "PP04_N2"])
    assert text.count("2004MNRAS.348L..59P,") == 1
    assert "numpy2020" in text
    paragraph = citations.acknowledgements({"numpy": "1.0", "scipy": "2.0"}, ["PP04_N2"])
    assert "numpy 1.0 and scipy 2.0" in paragraph
    assert "Pettini & Pagel 2004" in paragraph
    assert "2408.08350" in paragraph


def test_an_unknown_calibration_is_named():
    with pytest.raises(DatasetError, match="XX99"):
        citations.references(["XX99"])
