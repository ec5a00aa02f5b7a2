"""The comparison of builders on a small synthetic observation."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from msa3d.archive import crds
from msa3d.closure import builders
from msa3d.config import Dataset
from msa3d.constants import LINES
from msa3d.cubes.cube import open_cube
from msa3d.errors import ProductError
from msa3d.figures import builders as figures_builders
from msa3d.galaxy.lines import to_line_flux
from msa3d.observation.source import SourceTask, place_exposures
from msa3d.pipeline.layout import Layout
from msa3d.published import cube, settings, spectra
from msa3d.reduce import corrections

from ..fixtures.stepping import Stepping, blob
from ..fixtures.tables import numbers
from .test_images import sky_wcs

LINE_UM = LINES["Ha"] * 2.104
SIGMA_UM = 4.2e-4
CHOSEN = tuple(
    item for item in builders.VARIANTS if item.name in ("published", "exact_offsets", "own_pathloss", "bars")
)


@pytest.fixture(scope="module")
def dataset():
    return Dataset.load("tiny").replaced(
        pattern={"rows": 3, "columns": 4}, postprocess={"pathloss": {"source": "none"}}, cubebuild={"builder": "paper"}
    )


@pytest.fixture(scope="module")
def stepping(dataset):
    target = dataset.targets[0]
    wave = 1.305 + 2.35e-4 * np.arange(640)
    return Stepping(rows=3, columns=4, ny=18, ra=target.ra, dec=target.dec, wave_um=wave)


@pytest.fixture(scope="module")
def observed(tmp_path_factory, dataset, stepping):
    """A post-processed observation of a round source in H-alpha, 0.5 arcsec wide, in faint noise, and its truth."""
    layout = Layout(tmp_path_factory.mktemp("run"))
    source = blob(stepping.ra, stepping.dec, fwhm_arcsec=0.5)
    rng = np.random.default_rng(3)

    def sky(ra, dec, wave):
        line = np.exp(-0.5 * ((wave - LINE_UM) / SIGMA_UM) ** 2)
        return 0.2 + source(ra, dec, wave) * line + 1e-4 * rng.normal(size=wave.shape)

    stepping.write(layout, sky)
    spectra.run(dataset, layout, workers=1)
    wcs = sky_wcs((80, 80), 0.05, 0.05)
    wcs.wcs.crval = [stepping.ra, stepping.dec]
    y, x = np.mgrid[:80, :80]
    image = to_line_flux(source(*wcs.pixel_to_world_values(x, y), None) * SIGMA_UM * np.sqrt(2 * np.pi), LINE_UM)
    header = wcs.to_header()
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image, header, name="OBS_Ha")]).writeto(layout.root / "truth.fits")
    return layout


@pytest.fixture(scope="module")
def compared(dataset, stepping, observed):
    cube.build(SourceTask(observed, dataset, 8512, place_exposures(dataset, observed)))
    published = open_cube(observed.cube_medians(8512))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crds, "use_references", lambda *_: "")
        patch.setattr(crds, "reference_for", lambda *_: "none")
        # A shadow over everything: half of the light.
        half = SimpleNamespace(transmission=lambda state, at, wave: np.full(wave.shape, 0.5))
        patch.setattr(corrections.BarShadows, "read", lambda path: half)
        patch.setattr(builders, "corrected", with_state(spectra.corrected))
        return builders.compare(
            dataset,
            observed,
            8512,
            truth=observed.root / "truth.fits",
            variants=CHOSEN,
            drizzled={"drizzle": published},
        )


def with_state(function):
    """Say in the header, which the synthetic spectra lack, that all is open."""

    def wrapped(hdus, *args, **kwargs):
        hdus["SCI"].header["SHUTSTA"] = "1111x1111"
        return function(hdus, *args, **kwargs)

    return wrapped


def test_a_row_a_variant(compared):
    assert list(compared.table["name"]) == [*(item.name for item in CHOSEN), "drizzle"]
    assert compared.source_id == 8512
    published = compared.row("published")
    # Samples at the middles of pixels, not averages over the slit, which the truth is: hence less wide.
    assert published["flux_ratio"] == pytest.approx(1.0, abs=0.06)
    assert published["centroid_mas"] < 20
    # Wider than the sampled light by a spaxel and the linear interpolation along the slit.
    assert 0.03 < published["along"] < 0.2
    assert 0.03 < published["fwhm"] < 0.2
    assert published["noise_ratio"] == 1.0
    # The noise is faint: it hardly moves or blurs the image.
    assert 0 < published["centroid_error"] < 1.0
    assert published["fwhm_error"] < 0.02
    assert np.isnan(compared.row("bars")["centroid_error"])


def test_built_in_memory_it_is_the_cube_of_the_builder(compared):
    """The drizzled cube of this test is the published one from its file."""
    ours, filed = compared.images["published"][1], compared.images["drizzle"][1]
    # The wavelengths of the file come from its linear WCS, rounded differently.
    np.testing.assert_allclose(ours, filed, rtol=1e-9)
    for name in ("flux", "noise", "area", "along"):
        assert compared.row("published")[name] == pytest.approx(compared.row("drizzle")[name], rel=1e-6)


def test_switches_reach_the_cubes(compared):
    assert compared.row("bars")["flux_ratio"] == pytest.approx(2 * compared.row("published")["flux_ratio"], rel=1e-3)
    assert compared.row("own_pathloss")["flux_ratio"] == compared.row("published")["flux_ratio"]
    assert compared.row("exact_offsets")["centroid_mas"] != compared.row("published")["centroid_mas"]


def test_tables(compared, tmp_path):
    path = compared.write(tmp_path)
    assert path.name == builders.TABLE
    assert Table.read(path)["label"].tolist() == compared.table["label"].tolist()
    assert np.isfinite(compared.noise["published"]).all()
    assert compared.profiles["truth"][0] > compared.profiles["truth"][5] > 0


def test_what_is_not_known_is_not_told(compared):
    """A small field has no room for the larger circles: their noise, and the error of the flux, are not known."""
    table = compared.table.copy()
    for name in ("noise", "noise_ratio", "noise_ratio_error"):
        table[name] = np.nan
    told = replace(compared, table=table).quoted()
    assert f"noise, {builders.RADIUS_ARCSEC:g}\u2033" not in told.colnames
    assert list(told["flux over truth"]) == [f"{value:.3f}" for value in table["flux_ratio"]]
    assert all("\u00b1" in text and "nan" not in text for text in compared.quoted()["flux over truth"])


def test_the_tables_stay_what_they_were(compared, ndarrays_regression):
    """Every cube's numbers, noise and profile.

    Where a search for shift and blur stops depends on the processor. Shift and blur are therefore held to 1% of a pixel
    of 0.1 arcsec, the blur across the columns, of which the samples have none and to which a width adds in
    quadrature, to 2.5% of a column of 0.2 arcsec, and their errors to 5%, which is less than an error is known.
    """
    values = numbers(cubes=compared.table, noise=compared.noise, profiles=compared.profiles)
    searched = {
        **{name: {"rtol": 0.0, "atol": 1e-3} for name in ("cubes_fwhm", "cubes_along")},
        "cubes_across": {"rtol": 0.0, "atol": 5e-3},
        "cubes_centroid_mas": {"rtol": 0.0, "atol": 1.0},
        **{name: {"rtol": 0.05, "atol": 0.0} for name in ("cubes_centroid_error", "cubes_fwhm_error")},
    }
    # Exactly equal cubes have ratios with errors of nothing but rounding.
    ratios = {
        name: {"rtol": 2e-3, "atol": 1e-9}
        for name in values
        if name.endswith("_error") and ("ratio" in name or "relative" in name)
    }
    ndarrays_regression.check(values, tolerances={**searched, **ratios}, default_tolerance={"rtol": 2e-3, "atol": 0.0})


def test_figures(compared, dataset):
    maps = figures_builders.plot_two_builders(dataset, compared)
    costs = figures_builders.plot_builder_costs(dataset, compared)
    texts = [text.get_text() for text in costs.findobj(match=lambda item: hasattr(item, "get_text"))]
    assert any("bar shadow corrected" in text for text in texts)
    for figure in (maps, costs):
        assert figure.msa3d_alt and figure.msa3d_caption


def test_a_source_without_spectra(dataset, observed):
    with pytest.raises(ProductError, match="no 2-D spectrum of source 8513"):
        builders.PaperRun(dataset, observed, 8513)


def test_every_variant_differs_in_known_switches():
    names = [item.name for item in builders.VARIANTS]
    assert len(set(names)) == len(names)
    assert not builders.VARIANTS[0].build
    assert not builders.VARIANTS[0].post
    for item in builders.VARIANTS[1:]:
        changed = {
            **settings.PaperSettings(**item.build).model_dump(),
            **settings.PaperPostprocess(**item.post).model_dump(),
        }
        usual = {**settings.PaperSettings().model_dump(), **settings.PaperPostprocess().model_dump()}
        assert sum(changed[key] != usual[key] for key in usual) == len(item.build) + len(item.post) > 0
