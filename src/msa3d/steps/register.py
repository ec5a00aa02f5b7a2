"""The pointings of the exposures, measured on the post-processed slits of all targets together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msa3d import provenance
from msa3d.cube.registration import Registration, register, table_path
from msa3d.cube.source import calibrated_files, place_exposures
from msa3d.errors import ProductError

if TYPE_CHECKING:
    from msa3d.dataset import Dataset
    from msa3d.layout import Layout

log = logging.getLogger(__name__)

MODULES = ("msa3d.cube.registration",)


@provenance.one_run_a_root
def run(dataset: Dataset, layout: Layout) -> Registration:
    """Measure the offsets of all exposures and write their table, unless it is current.

    Parameters
    ----------
    dataset : Dataset
        Targets with their redshifts, and ``cubebuild.drizzle.registration``.
    layout : Layout
        Where things lie.

    Returns
    -------
    Registration

    Raises
    ------
    ProductError
        If there are no post-processed slits, or no source shows enough structure.
    """
    activities = [item.activity for item in place_exposures(dataset, layout)]
    files = [calibrated_files(layout, activity) for activity in activities]
    inputs = [path for paths in files for path in paths]
    if not inputs:
        raise ProductError(f"{layout.process}: no post-processed slits; run `msa3d process` and `msa3d postprocess`")
    settings = dataset.cubebuild.drizzle.registration
    sources = {target.source_id: target.redshift for target in dataset.targets}
    path = table_path(layout)
    record = provenance.Record(
        layout,
        "register",
        "offsets",
        inputs=inputs,
        parameters={"registration": settings.model_dump(mode="json", exclude={"method"}), "sources": sources},
        modules=MODULES,
    )
    if record.is_current():
        return Registration.read(path)
    if settings.reference is not None:
        settings = settings.model_copy(update={"reference": layout.root / settings.reference})
    found = register(activities, files, sources, settings)
    found.write(path)
    record.write([path])
    return found
