"""The metallicity gradient of the galaxies of `demo` as a regression of spaxels, and how far its error can be trusted.

Takes a finished run of ``demo``, whose root MSA3D_DEMO names, and a few minutes. The table is printed, and written
where MSA3D_REGRESSION says:
``MSA3D_REGRESSION=book/regression.csv pytest -o python_files='bench_*.py' tests/benchmarks/bench_regression.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from msa3d.config import Dataset
from msa3d.cubes.cube import open_cube
from msa3d.galaxy import report
from msa3d.galaxy.disc import kpc_per_arcsec
from msa3d.galaxy.injected import line_discs
from msa3d.galaxy.profiles import Geometry
from msa3d.pipeline.layout import Layout
from msa3d.published import for_analysis

from ..fixtures.tables import show
from .regression import Regression, repeated

TRIED = 45
"""Wavelengths; more than half of them are clear of lines, gaps and ends."""
ROOT = os.environ.get("MSA3D_DEMO", "")

pytestmark = pytest.mark.skipif(not ROOT, reason="MSA3D_DEMO names no finished run of demo")


def of_galaxy(dataset: Dataset, layout: Layout, source_id: int) -> Regression:
    """Inclination and position angle are those injected: they are no part of the question."""
    target, truth = dataset.target(source_id), report.injected(dataset, source_id)
    cube = open_cube(layout.cube_medians(source_id))
    place = (target.ra, target.dec, truth["inclination"], truth["pa_deg"], kpc_per_arcsec(target.redshift))
    return repeated(
        cube,
        for_analysis.prepared(cube, target.redshift),
        target.redshift,
        Geometry(*place),
        for_analysis.spread_of(cube, dataset.science.line_spread),
        line_discs(truth),
        sigma_kms=truth["sigma0"],
        number=TRIED,
    )


def test_formal_errors_against_the_scatter_of_repetitions(capsys):
    dataset, layout = Dataset.load("demo"), Layout(Path(ROOT))
    found = {one: of_galaxy(dataset, layout, one) for one in dataset.source_ids}
    rows = [
        {
            "galaxy": source_id,
            "spaxels": one.spaxels,
            "gradient": f"{one.slope:+.4f}",
            "formal error": f"{one.formal:.4f}",
            "injected": f"{report.injected(dataset, source_id)['metallicity_gradient']:+.3f}",
            "repetitions": one.slopes.size,
            "their mean": f"{one.slopes.mean():+.4f}",
            "their scatter": f"{one.scatter:.4f}",
            "their formal error": f"{np.median(one.formals):.4f}",
            "scatter over formal error": f"{one.ratio:.1f}",
        }
        for source_id, one in found.items()
    ]
    show(Table(rows=rows), "MSA3D_REGRESSION", capsys)
    for source_id, one in found.items():
        assert one.slopes.size >= 10, source_id
        # What the page says: spaxels of a published cube are not independent.
        assert one.ratio > 1.0, source_id
        # What goes in comes out, up to what the PSF flattens and the choice of spaxels moves.
        assert abs(one.slopes.mean() - one.injected) < 5.0 * one.scatter, source_id
