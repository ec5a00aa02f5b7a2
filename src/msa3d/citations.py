"""What to cite: the packages that a run really used and the calibrations that were chosen."""

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

METHOD = "barisic2024"
"""Key, in ``book/references.bib``, of the paper whose method this is."""
PACKAGES = {
    "astropy": "astropy2022", "numpy": "numpy2020", "scipy": "scipy2020", "matplotlib": "matplotlib2007",
    "emcee": "emcee2013", "numba": "numba2015", "jwst": "jwst2024",
    "dust_extinction": "dustextinction2024",
}  # fmt: skip
"""The same of packages that ask to be cited, by their module, which is also the name of their distribution."""


@cache
def _calibrations() -> dict[str, tuple[str, str]]:
    """Reference and bibcode of every calibration and attenuation law."""
    from msa3d.galaxy.dust import LAWS

    text = resources.files("msa3d.galaxy").joinpath("data/calibrations.yaml").read_text()
    items = [item for group in yaml.safe_load(text).values() for item in group.items() if isinstance(item[1], dict)]
    found = {name: (item.get("reference", ""), item.get("bibcode", "")) for name, item in items}
    return found | {name: (reference, bibcode) for name, (_, reference, bibcode) in LAWS.items()}


def used_packages(modules: Iterable[str] | None = None) -> dict[str, str]:
    """Find the packages of `PACKAGES` that were imported.

    Parameters
    ----------
    modules : iterable of str, optional
        Names of imported modules; without it those of this process.

    Returns
    -------
    dict of str to str
        Version by package.
    """
    loaded = {name.partition(".")[0] for name in (sys.modules if modules is None else modules)}
    found = {}
    for name in PACKAGES:
        if name in loaded:
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
        ``packages``: version by package, and ``calibrations``: names, as `acknowledgements` takes them.
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
    table, names = _calibrations(), list(calibrations)
    if unknown := [name for name in names if name not in table]:
        raise DatasetError(f"no calibration {unknown[0]!r} in calibrations.yaml: choose of {', '.join(sorted(table))}")
    return {name: table[name] for name in names}


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
    *first, last = [f"{name} {version}" for name, version in packages.items()] or ["no package that asks to be cited"]
    listed = f"{', '.join(first)} and {last}" if first else last
    text = (
        f"This work made use of {listed}. The data were reduced with msa3d, which carries out the method of "
        "Barišić et al. (2025, ApJ, doi:10.3847/1538-4357/ada617; arXiv:2408.08350)."
    )
    cited = [reference for reference, _ in dict.fromkeys(references(calibrations).values()) if reference]
    if cited:
        text += f" Line ratios and luminosities were turned into physical quantities by {'; '.join(cited)}."
    return text
