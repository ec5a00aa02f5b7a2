"""What to cite, generated from the packages that were really used and the calibrations that were chosen."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

import yaml
from astropy.io import fits

from msa3d.errors import DatasetError

if TYPE_CHECKING:
    from msa3d.galaxy.measure import Galaxy
    from msa3d.pipeline.layout import Layout


_MODULES = {"dust-extinction": "dust_extinction"}
"""Distributions whose name is not that of their module."""


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(resources.files("msa3d").joinpath("data/citations.yaml").read_text())


@cache
def _calibrations() -> dict[str, dict[str, Any]]:
    text = resources.files("msa3d.galaxy").joinpath("data/calibrations.yaml").read_text()
    groups = yaml.safe_load(text).values()
    found = {name: item for group in groups for name, item in group.items() if isinstance(item, dict)}
    from msa3d.galaxy.dust import LAWS

    return found | {name: {"reference": told, "bibcode": bibcode} for name, (_, told, bibcode) in LAWS.items()}


def used_packages(modules: Iterable[str] | None = None) -> dict[str, str]:
    """Find the packages that have an entry and were imported in this process.

    Parameters
    ----------
    modules : iterable of str, optional
        Names of imported modules; without it those of this process.

    Returns
    -------
    dict of str to str
        Version by package, in the order of the table.
    """
    loaded = {name.partition(".")[0] for name in (sys.modules if modules is None else modules)}
    found = {}
    for name in _table()["packages"]:
        if _MODULES.get(name, name) in loaded:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                # A module of the name is there, but not as a package that can be cited by version.
                continue
    return found


def used(layout: Layout, galaxies: Iterable[Galaxy] = ()) -> dict[str, Any]:
    """Find what a run has used, for its acknowledgements.

    Parameters
    ----------
    layout : Layout
        The run. Calibrated exposures say whether, and in which version, jwst made them: it works in other processes.
    galaxies : iterable of Galaxy
        What was measured: by which calibrations, with which attenuation law.

    Returns
    -------
    dict
        ``packages``: version by package, and ``calibrations``: names, as `acknowledgements` and `bibtex` take them.
    """
    packages = {name: version for name, version in used_packages().items() if name != "jwst"}
    for path in sorted(layout.process.glob("exp_*/*_cal.fits"))[:1]:
        header = fits.getheader(path)
        if header.get("S_FLAT") == "COMPLETE":
            packages["jwst"] = str(header["CAL_VER"])
    names: dict[str, None] = {}
    for galaxy in galaxies:
        # A star formation rate says how it was made: its calibration, and the law, or that there was no dust in it.
        made_by = galaxy.star_formation.method.split(", ")
        names |= dict.fromkeys([*galaxy.metallicity, *(name for name in made_by if name in _calibrations())])
    return {"packages": packages, "calibrations": list(names)}


def references(calibrations: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Look up calibrations in the table of calibrations.

    Parameters
    ----------
    calibrations : iterable of str
        Their names, as ``PP04_N2``; attenuation laws are known as well.

    Returns
    -------
    dict of str to (str, str)
        Reference and bibcode by name.

    Raises
    ------
    msa3d.errors.DatasetError
        For a name that is not in the table.
    """
    table, result = _calibrations(), {}
    for name in calibrations:
        if name not in table:
            raise DatasetError(f"no calibration {name!r} in calibrations.yaml: choose of {', '.join(sorted(table))}")
        result[name] = str(table[name].get("reference", "")), str(table[name].get("bibcode", ""))
    return result


def bibtex(packages: Iterable[str] | None = None, calibrations: Iterable[str] = ()) -> str:
    """Write BibTeX entries.

    Parameters
    ----------
    packages : iterable of str, optional
        Names of distributions; without it `used_packages`. Those without an entry are left out.
    calibrations : iterable of str
        Names of calibrations.

    Returns
    -------
    str
        The paper whose method this is, then one entry each, a blank line between; calibrations under their bibcode.
    """
    table = _table()["packages"]
    entries = [_table()["method"].strip()]
    entries += [table[name]["entry"].strip() for name in (packages or used_packages()) if name in table]
    # A key may stand once only: several equations of a paper are one entry.
    places: dict[str, list[str]] = {}
    for reference, bibcode in dict.fromkeys(references(calibrations).values()):
        if bibcode:
            places.setdefault(bibcode, []).append(reference.replace("&", r"\&"))
    for bibcode, notes in places.items():
        url = f"https://ui.adsabs.harvard.edu/abs/{bibcode.replace('&', '%26')}"
        note = "; ".join(notes)
        entries.append(f"@misc{{{bibcode},\n  note = {{{note}}}, year = {{{bibcode[:4]}}}, url = {{{url}}}\n}}")
    return "\n\n".join(entries) + "\n"


def acknowledgements(packages: dict[str, str] | None = None, calibrations: Iterable[str] = ()) -> str:
    """Write a paragraph of acknowledgements.

    Parameters
    ----------
    packages : dict of str to str, optional
        Version by package; without it `used_packages`.
    calibrations : iterable of str
        Names of calibrations.

    Returns
    -------
    str
        Plain text.
    """
    packages = used_packages() if packages is None else packages
    listed = [f"{name} {version}" for name, version in packages.items()]
    text = _table()["text"].format(packages=_enumerated(listed) if listed else "no package that asks to be cited")
    cited = [reference for reference, _ in dict.fromkeys(references(calibrations).values()) if reference]
    return f"{text} {_table()['calibrations'].format(references='; '.join(cited))}" if cited else text


def _enumerated(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
