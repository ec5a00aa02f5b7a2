"""Correlated noise: the published fit done faster, banding before and after, and line fluxes left alone."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from astropy.io import fits
from stdatamodels.jwst import datamodels

from msa3d.config import Dataset
from msa3d.errors import ObservationError
from msa3d.jwst_adapter import nsclean_class
from msa3d.pipeline.layout import Layout
from msa3d.reduce import calibrate, nsclean
from msa3d_sim import noise

SIZE = 512
SIGMA = float(np.sqrt(noise.read_variance(16)))


@pytest.fixture(scope="module")
def scene():
    """Four spectra with one emission line each, read noise, and drifting columns; where it is dark."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:SIZE, :SIZE]
    light, dark = np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE), bool)
    for centre in range(60, 480, 130):
        profile = np.exp(-0.5 * ((y - centre) / 6.0) ** 2)
        light += 3 * SIGMA * profile * (1 + 8 * np.exp(-0.5 * ((x - 256) / 1.2) ** 2))
        dark[centre - 30 : centre + 30] = False
    bands = noise.banding(rng, np.full((SIZE, SIZE), SIGMA**2), along=False)
    image = light + bands + rng.normal(0, SIGMA, light.shape)
    return image.astype(np.float32), light, bands, dark


def columns(image, dark):
    """Scatter of the medians of dark columns."""
    return np.std([np.median(image[dark[:, i], i]) for i in range(image.shape[1])])


def line_flux(image, dark):
    """Flux of the emission lines above the light beside them."""
    lit = ~dark
    beside = np.median(np.concatenate([image[:, 228:243], image[:, 269:284]], axis=1), axis=1)
    return ((image[:, 248:265] - beside[:, None]) * lit[:, 248:265]).sum()


@pytest.mark.usefixtures("jwst_loaded")
@pytest.mark.parametrize("detector", ["NRS1", "NRS2"])
def test_the_fit_is_that_of_jwst(scene, detector):
    image, _, _, dark = scene
    with np.errstate(divide="ignore", invalid="ignore"):
        theirs = nsclean_class()(detector, dark).clean(image.copy(), buff=True)
    np.testing.assert_allclose(nsclean.clean(image, dark, detector), theirs, atol=1e-4 * SIGMA)


@pytest.mark.usefixtures("jwst_loaded")
def test_banding_goes_and_lines_stay(scene):
    image, light, bands, dark = scene
    cleaned = nsclean.clean(image, dark, "NRS1")
    alone = 1.2533 * SIGMA / np.sqrt(dark[:, 0].sum())
    before = np.sqrt(columns(image, dark) ** 2 - alone**2)
    after = np.sqrt(columns(cleaned, dark) ** 2 - alone**2)
    assert before == pytest.approx(bands.std(), rel=0.1)
    assert after < 0.65 * before  # of 272 dark pixels a column; whole frames have more
    wanted = line_flux(light, dark)
    # 4 spectra of 60 rows: their columns' offsets are what cleaning takes out of the flux's error.
    assert abs(line_flux(cleaned, dark) / wanted - 1) < 0.02
    assert abs(line_flux(cleaned, dark) - wanted) < abs(line_flux(image, dark) - wanted)


@pytest.mark.usefixtures("jwst_loaded")
def test_light_alone_is_not_touched(scene):
    """Without noise there is nothing to fit: what is cleaned off a spectrum is nothing."""
    _, light, _, dark = scene
    flat = np.where(dark, 0.0, light).astype(np.float32)
    np.testing.assert_allclose(nsclean.clean(flat, dark, "NRS2"), flat, atol=1e-6 * SIGMA)


@pytest.mark.usefixtures("jwst_loaded")
def test_missing_pixels_stay_missing(scene):
    image, _, _, dark = scene
    image = image.copy()
    image[5:8, 100:103] = np.nan
    cleaned = nsclean.clean(image, nsclean.usable_pixels(image, dark), "NRS1")
    assert np.isnan(cleaned[5:8, 100:103]).all()
    assert np.isfinite(cleaned).sum() == image.size - 9


def test_outliers_are_not_fitted(scene):
    image, _, _, dark = scene
    image = image.copy()
    image[0, 7] = 100.0
    image[1, 7] = -100.0
    image[2, 7] = np.nan
    usable = nsclean.usable_pixels(image, dark)
    assert not usable[:3, 7].any()
    assert usable.sum() > 0.999 * dark.sum()


def test_banding_is_measured(scene):
    image, _, bands, dark = scene
    found = nsclean.banding(image, nsclean.usable_pixels(image, dark))
    assert np.hypot(bands.std(), found.expected) == pytest.approx(found.columns, rel=0.1)
    assert found.expected == pytest.approx(1.2533 * SIGMA / np.sqrt(dark[:, 0].sum()), rel=0.05)


def test_the_images_are_not_cleaned_in_place(root, dataset):
    with pytest.raises(ObservationError, match="name another root"):
        nsclean.run(dataset, Layout(root), into=Layout(root))


@pytest.fixture(scope="module")
def observed(tmp_path_factory, crds_cache):
    """One exposure of a line that fills the slit: noiseless, and the same with noise and drifting columns."""
    from msa3d_sim.geometry import Pointing
    from msa3d_sim.noise import spoil
    from msa3d_sim.observe import simulate, write_rate
    from msa3d_sim.plan import science_header

    off = dict.fromkeys(
        (
            "noise",
            "banding",
            "noisy_pixels",
            "cosmic_rays",
            "bad_pixels",
            "saturation",
            "failed_shutters",
            "background",
        ),
        False,
    )
    dataset = Dataset.load("tiny").replaced(
        pattern={"rows": 1, "columns": 1}, simulation=off | {"scene": "line", "line_flux": 2e-14}
    )
    clean, noisy = (Layout(tmp_path_factory.mktemp(name)) for name in ("clean", "noisy"))
    for layout in (clean, noisy):
        (layout.root / "crds_cache").symlink_to(crds_cache)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        simulate(dataset, clean, workers=1)
    noisy.metafile(dataset.metafile).write_bytes(clean.metafile(dataset.metafile).read_bytes())
    settings = dataset.simulation.model_copy(update={"noise": True, "banding": True, "noisy_pixels": True})
    for path in clean.rates():
        with fits.open(path) as hdus:
            primary = hdus[0].header
            planes = spoil(hdus["SCI"].data.astype(float), primary["DETECTOR"], 0, settings)
            pointing = Pointing(*(hdus["SCI"].header[key] for key in ("RA_REF", "DEC_REF", "ROLL_REF")))
            write_rate(noisy.root / path.name, planes, primary, science_header(pointing), exact=False)
    return dataset, clean, noisy


@pytest.mark.slow
@pytest.mark.usefixtures("jwst_loaded")
def test_a_whole_observation_is_cleaned_into_another_root(observed, tmp_path):
    dataset, clean, noisy = observed
    cleaned = Layout(tmp_path / "cleaned")
    report = nsclean.run(dataset, noisy, into=cleaned, workers=1)
    assert nsclean.run(dataset, noisy, into=cleaned, workers=1).results[0].status == "current"
    assert cleaned.metafile(dataset.metafile).read_bytes() == noisy.metafile(dataset.metafile).read_bytes()
    for row in (result.notes for result in report.results):
        excess = {key: np.sqrt(max(row[key] ** 2 - row["noise_alone"] ** 2, 0.0)) for key in row if "banding" in key}
        # 0.2 of the read noise was put in.
        assert excess["banding_before"] == pytest.approx(noise.BANDING_FRACTION * SIGMA, rel=0.15)
        # What differs between neighbouring columns stays: jwst smooths the fit over 1.5 columns.
        assert excess["banding_after"] < 0.65 * excess["banding_before"]
        assert row["used"] > 0.7
    for path in cleaned.rates():
        with fits.open(path) as hdus:
            after, header = hdus["SCI"].data, hdus[0].header
        truth, before = (fits.getdata(folder.root / path.name, "SCI") for folder in (clean, noisy))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what jwst says of shutters whose light misses the detector
            dark = nsclean.dark_pixels(noisy.root / path.name, noisy.metafile(dataset.metafile))
        # No light of the slits is taken for dark; the simulator lets it fall on reference pixels too, which see none.
        dark[:, :5] = dark[:, -4:] = False
        assert truth[dark].max() < 0.02 * truth.max()
        assert header["S_NSCLEN"] == "COMPLETE"
        # The line: all pixels brighter than a tenth of it, against the same pixels without noise.
        line = truth > 0.1 * truth.max()
        line[:, :5] = line[:, -4:] = False
        flux = {name: image[line].sum() / truth[line].sum() for name, image in (("before", before), ("after", after))}
        assert flux["after"] == pytest.approx(1.0, abs=max(3 * SIGMA * np.sqrt(line.sum()) / truth[line].sum(), 0.003))


@pytest.mark.slow
@pytest.mark.usefixtures("jwst_loaded")
def test_images_are_cleaned_on_their_way_through_spec2(observed):
    """Calibrated slits against those of the images without noise: less scatter, the same line."""
    dataset, clean, noisy = observed
    assert dataset.process.nsclean  # Of all packaged datasets.
    notes, cal = {}, {}
    for name, layout, on in (("truth", clean, False), ("before", noisy, False), ("after", noisy, True)):
        chosen = dataset.replaced(cubebuild={"also": []}, process={"nsclean": on, "rectify": False})
        (result,) = calibrate.run(chosen, layout, workers=1).results
        assert result.status == "done"
        notes[name] = result.notes["nsclean"]
        pixels = []
        for path in sorted(layout.process.glob("exp_*/*_cal.fits")):
            with datamodels.open(path) as model:
                pixels += [np.ravel(slit.data) for slit in model.slits]
        cal[name] = np.concatenate(pixels)
    assert not notes["truth"] and not notes["before"]
    assert set(notes["after"]) == {"nrs1", "nrs2"}
    for found in notes["after"].values():
        assert found["noise_alone"] < found["banding_after"] < 0.75 * found["banding_before"]
    known = np.isfinite(cal["truth"])
    line = known & (cal["truth"] > 0.1 * np.nanmax(cal["truth"]))
    dark = known & (np.abs(cal["truth"]) < 1e-3 * np.nanmax(cal["truth"]))
    noise = {name: np.nanstd(cal[name][dark]) for name in ("before", "after")}
    assert noise["after"] < noise["before"]
    ratio = cal["after"][line].sum() / cal["truth"][line].sum()
    error = noise["before"] * np.sqrt(line.sum()) / cal["truth"][line].sum()
    assert ratio == pytest.approx(1.0, abs=max(3 * error, 0.003))
    # An image that was cleaned elsewhere is left alone.
    with nsclean.within_spec2() as told, datamodels.ImageModel((8, 8)) as model:
        from jwst.nsclean import nsclean as theirs

        model.meta.cal_step.nsclean = "COMPLETE"
        assert theirs.do_correction(model, True, 5.0, False, None)[1] is None
        assert not told
