"""What is cited is what was used."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from astropy.io import fits
from pybtex.database import parse_file, parse_string

import msa3d_book
from msa3d import citations
from msa3d.errors import DatasetError
from msa3d.pipeline.layout import Layout

BIBLIOGRAPHY = Path(__file__).parents[1] / "book" / "references.bib"


def test_packages_are_those_imported():
    found = citations.used_packages(["numpy", "astropy.io.fits", "json"])
    assert found == {"astropy": metadata.version("astropy"), "numpy": metadata.version("numpy")}
    assert "numpy" in citations.used_packages()


def test_every_package_and_calibration_has_an_entry():
    text = msa3d_book.bibtex(BIBLIOGRAPHY, citations.PACKAGES, citations._calibrations())
    entries = parse_string(text, "bibtex").entries
    assert next(iter(entries)) == citations.METHOD
    assert set(citations.PACKAGES.values()) <= set(entries)
    bibcodes = {bibcode for _, bibcode in citations._calibrations().values()}
    assert {entry.fields["bibcode"] for entry in entries.values() if "bibcode" in entry.fields} == bibcodes
    # LaTeX is neither lost nor escaped once more.
    bibliography = parse_file(str(BIBLIOGRAPHY)).entries
    assert all(entry == bibliography[key] for key, entry in entries.items())


def test_the_bibliography_is_valid_latex():
    text = BIBLIOGRAPHY.read_text()
    # Every accent is written in LaTeX, which needs no package for it.
    assert text.isascii()
    for key, entry in parse_file(str(BIBLIOGRAPHY)).entries.items():
        assert re.fullmatch(r"[A-Za-z0-9:.-]+", key)
        for name, value in entry.fields.items():
            # No style prints a bibcode; everything else is typeset.
            assert name == "bibcode" or not re.search(r"(?<!\\)[&%#_]", value), (key, name)
            assert value.count("{") == value.count("}"), (key, name)


def test_calibrations_are_cited_once():
    text = msa3d_book.bibtex(BIBLIOGRAPHY, ["numpy"], ["PP04_N2", "KE12_Ha", "PP04_O3N2", "PP04_N2"])
    assert list(parse_string(text, "bibtex").entries) == ["barisic2024", "numpy2020", "pettini2004", "kennicutt2012"]
    paragraph = citations.acknowledgements({"numpy": "1.0", "scipy": "2.0"}, ["PP04_N2"])
    assert "numpy 1.0 and scipy 2.0" in paragraph
    assert "Pettini & Pagel 2004" in paragraph
    assert "2408.08350" in paragraph


def test_what_a_run_used_is_read_from_it(tmp_path):
    layout = Layout(tmp_path)
    galaxy = SimpleNamespace(metallicity={"PP04_N2": None}, star_formation=SimpleNamespace(method="KE12_Ha, CCM89"))
    dustless = SimpleNamespace(metallicity={}, star_formation=SimpleNamespace(method="KE12_Ha, no dust"))
    found = citations.used(layout, [galaxy, dustless])
    assert found["calibrations"] == ["PP04_N2", "KE12_Ha", "CCM89"]
    assert "numpy" in found["packages"]
    # That jwst is installed, or imported, is not that it made anything.
    assert "jwst" not in found["packages"]
    path = layout.process_dir("03101") / "jw02136001001_03101_00001_nrs1_cal.fits"
    path.parent.mkdir(parents=True)
    header = fits.Header({"CAL_VER": "9.8.7", "S_FLAT": "COMPLETE"})
    fits.PrimaryHDU(header=header).writeto(path)
    assert citations.used(layout)["packages"]["jwst"] == "9.8.7"
    assert "Cardelli" in citations.acknowledgements({}, found["calibrations"])


def test_an_unknown_calibration_is_named():
    with pytest.raises(DatasetError, match="XX99"):
        citations.references(["XX99"])
