"""Path loss of the published post-processing: one aperture of the CRDS reference, for a uniform source."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from msa3d import references
from msa3d.cube.grid import read_geometry
from msa3d.errors import ProductError, UnlitSlitError
from msa3d.ratefile import spectra

if TYPE_CHECKING:
    from msa3d.cube.source import Placed
    from msa3d.dataset import Dataset
    from msa3d.layout import Layout

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PathlossVector:
    """Transmission of the reference file, and its values at the wavelengths of one source.

    Attributes
    ----------
    reference_um, reference : numpy.ndarray, shape (m,)
        The reference's own table.
    at : numpy.ndarray, shape (nx,)
        Interpolated to the first row of the source's middle exposure.
    """

    reference_um: np.ndarray
    reference: np.ndarray
    at: np.ndarray


def uniform_pathloss(reference: Path, aperture: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the uniform-source path loss of one aperture.

    Parameters
    ----------
    reference : pathlib.Path
        CRDS reference of type ``pathloss``.
    aperture : str
        ``MOS1x3`` or another aperture of the file, in any case.

    Returns
    -------
    wave_um, transmission : numpy.ndarray of float32, shape (m,)

    Raises
    ------
    ProductError
        If the file has no such aperture; it names those that it has.
    """
    from jwst.pathloss.pathloss import calculate_pathloss_vector
    from stdatamodels.jwst import datamodels

    with datamodels.PathlossModel(str(reference)) as model:
        names = [entry.name for entry in model.apertures]
        for entry in model.apertures:
            if entry.name.upper() == aperture.upper():
                data = np.array(entry.uniform_data)
                wave_m, transmission, _ = calculate_pathloss_vector(data, entry.uniform_wcs, 0.0, 0.0)
                # In float32, as the published code divides.
                return wave_m / np.float32(1e-6), transmission
    raise ProductError(
        f"{reference}: no aperture {aperture!r}; choose postprocess.pathloss.aperture among {', '.join(names)}"
    )


def pathloss_vectors(
    dataset: Dataset, layout: Layout, exposures: tuple[Placed, ...], sources: Mapping[int, list[Placed]]
) -> tuple[Path | None, dict[int, PathlossVector]]:
    """Read the path loss, and interpolate it for every source to the wavelengths of its middle exposure.

    Parameters
    ----------
    dataset : Dataset
        Which path loss (``postprocess.pathloss``).
    layout : Layout
        Where things lie.
    exposures : tuple of Placed
        All exposures in observing order; the middle one has the index ceil(N/2) - 1, as published.
    sources : mapping of int to list of Placed
        The sources, and the exposures that have a 2-D spectrum of each.

    Returns
    -------
    reference : pathlib.Path or None
        The CRDS reference; None where no correction is wanted.
    vectors : dict of int to PathlossVector
        By source id. Where the middle exposure lacks a source, the nearest exposure gives its wavelengths; none of a
        source that lights hardly any column in all exposures.
    """
    settings = dataset.postprocess.pathloss
    if settings.source == "none":
        return None, {}
    references.use_references(layout, dataset)
    middle = exposures[(len(exposures) + 1) // 2 - 1]
    product = dataset.process.product
    header_of = next(spectra(layout.rates()), None)
    if header_of is None:
        source_id, seen = next(iter(sources.items()))
        header_of = layout.s2d(seen[0].activity, source_id, "", product)
    reference = references.reference_for(header_of, "pathloss")
    wave_um, transmission = uniform_pathloss(reference, settings.aperture)
    vectors = {}
    for source_id, seen in sources.items():
        for chosen in sorted(seen, key=lambda item: _distance(item, middle, exposures)):
            try:
                geometry = read_geometry(layout.s2d(chosen.activity, source_id, "", product))
                break
            except UnlitSlitError as error:
                log.warning("source %d, exposure %s: %s", source_id, chosen.activity, error)
        else:
            continue  # Post-processing leaves it out everywhere.
        if chosen is not middle:
            log.warning(
                "source %d has no 2-D spectrum in the middle exposure %s: its path loss is made from %s",
                source_id, middle.activity, chosen.activity,
            )  # fmt: skip
        at = np.interp(geometry.wave_um, wave_um, transmission)
        vectors[source_id] = PathlossVector(wave_um, transmission, at)
    return reference, vectors


def _distance(one: Placed, other: Placed, exposures: tuple[Placed, ...]) -> int:
    return abs(exposures.index(one) - exposures.index(other))


def matching(vector: PathlossVector, spectrum: Path | str, wave_um: np.ndarray, *, own: bool = False) -> np.ndarray:
    """Give the vector for one spectrum: that of the middle exposure, or its own where the widths differ.

    Parameters
    ----------
    vector : PathlossVector
        The source's.
    spectrum : path
        The 2-D spectrum, for the warning.
    wave_um : numpy.ndarray, shape (width,)
        Its wavelengths, um.
    own : bool
        Whether its own wavelengths are to be used in any case.

    Returns
    -------
    numpy.ndarray, shape (width,)
    """
    if own:
        return np.interp(wave_um, vector.reference_um, vector.reference)
    if vector.at.size == wave_um.size:
        return vector.at
    log.warning("%s: not as wide as the middle exposure; its own wavelengths give its path loss", spectrum)
    return np.interp(wave_um, vector.reference_um, vector.reference)
