"""What differs between versions of jwst: the forms that the adapter looks for, and that of the one installed."""

from __future__ import annotations

import pytest

from msa3d import jwst_adapter


def step(types: str = "", skip: bool = False, **parameters: str) -> type:
    """Stand in for a step of jwst."""
    spec = {"skip": f"boolean(default={skip})", **parameters}
    return type("Step", (), {"load_spec_file": lambda: spec, "reference_file_types": types.split()})


def pipeline(**steps: type) -> type:
    return type("Pipeline", (), {"step_defs": steps, "load_spec_file": lambda: {"skip": "boolean(default=False)"}})


OLD = pipeline(
    nsclean=step(skip=True, n_sigma="float", mask_spectral_regions="boolean"),
    extract_2d=step("wavelengthrange", slit_name="string"),
    mrs_imatch=step(),
)
NEW = pipeline(
    clean_flicker_noise=step("flat", skip=True, n_sigma="float", mask_science_regions="boolean"),
    extract_2d=step("wavelengthrange", slit_names="force_list"),
    master_background_mos=pipeline(photom=step("photom area"), pixel_replace=step("never", skip=True)),
)


def test_what_this_version_has_stays_as_it_is():
    asked = {
        "nsclean": {"skip": False, "n_sigma": 4.0},
        "extract_2d": {"slit_name": "12"},
        "mrs_imatch": {"skip": True},
    }
    assert jwst_adapter.translated(OLD, asked) == asked
    asked = {"clean_flicker_noise": {"skip": False}, "extract_2d": {"slit_names": ["12"]}}
    assert jwst_adapter.translated(NEW, asked) == asked


def test_old_names_are_translated_and_what_is_skipped_anyway_may_be_missing():
    asked = {
        "nsclean": {"skip": False, "n_sigma": 4.0, "mask_spectral_regions": False},
        "extract_2d": {"slit_name": "12"},
        "mrs_imatch": {"skip": True},
    }
    before = str(asked)
    assert jwst_adapter.translated(NEW, asked) == {
        "clean_flicker_noise": {
            "skip": False, "n_sigma": 4.0, "mask_science_regions": False, "fit_method": "fft",
            "background_method": "None",
        },
        "extract_2d": {"slit_names": "12"},
    }  # fmt: skip
    assert str(asked) == before


def test_a_step_that_is_wanted_and_missing_is_left_for_the_pipeline_to_refuse():
    assert jwst_adapter.translated(NEW, {"mrs_imatch": {"skip": False}}) == {"mrs_imatch": {"skip": False}}
    assert jwst_adapter.translated(OLD, {"clean_flicker_noise": {"n_sigma": 2.0}}) == {
        "clean_flicker_noise": {"n_sigma": 2.0}
    }


def test_types_are_those_of_steps_that_run():
    assert jwst_adapter.reference_types(OLD, {}) == {"wavelengthrange"}
    assert jwst_adapter.reference_types(NEW, {}) == {"wavelengthrange", "photom", "area"}
    assert jwst_adapter.reference_types(NEW, {"master_background_mos": {"skip": True}}) == {"wavelengthrange"}
    # By its old name.
    assert "flat" in jwst_adapter.reference_types(NEW, {"nsclean": {"skip": False}})


@pytest.mark.usefixtures("jwst_loaded")
@pytest.mark.parametrize("name", ["Detector1Pipeline", "Spec2Pipeline", "Spec3Pipeline"])
def test_published_parameters_hold_in_the_jwst_that_is_installed(name):
    """Of every pipeline: steps are its own after the translation, and it takes them."""
    import jwst.pipeline

    from msa3d.config import Dataset
    from msa3d.reduce.exposure import configured

    settings = Dataset.load("tiny").process
    kind = getattr(jwst.pipeline, name)
    asked = {"Detector1Pipeline": settings.detector1, "Spec2Pipeline": settings.spec2, "Spec3Pipeline": settings.spec3}
    parameters = asked[name] | ({"nsclean": {"skip": False}} if name == "Spec2Pipeline" else {})
    made = configured(kind, parameters)
    translated = jwst_adapter.translated(kind, parameters)
    assert set(translated) <= set(kind.step_defs)
    for one, values in translated.items():
        for key, value in values.items():
            found = getattr(getattr(made, one), key)
            assert (str(found) if isinstance(value, str) else found) == value, (one, key)


@pytest.mark.usefixtures("jwst_loaded")
def test_reference_types_of_the_simulated_cache_are_enough(crds_cache):
    """Whatever steps run, in whichever version: a type that the context does not know is an error of CRDS."""
    import jwst.pipeline

    text = next((crds_cache / "mappings" / "jwst").glob("*.imap")).read_text()
    for kind in (jwst.pipeline.Detector1Pipeline, jwst.pipeline.Spec2Pipeline, jwst.pipeline.Spec3Pipeline):
        every = {name: {"skip": False} for name in kind.step_defs}
        assert [one for one in jwst_adapter.reference_types(kind, every) if f"'{one}'" not in text] == []


@pytest.mark.usefixtures("jwst_loaded")
def test_one_class_and_one_step_of_nsclean():
    import numpy as np

    mask = np.ones((64, 64), bool)
    cleaner = jwst_adapter.nsclean_class()("NRS1", mask)
    assert cleaner.p_matrix.shape == (64, 64)
    assert np.isfinite(cleaner.p_matrix).all()
    assert jwst_adapter.nsclean_step().skip is False


def test_history_of_a_reference(jwst_loaded, tmp_path):
    import asdf
    from stdatamodels.jwst import datamodels

    with datamodels.ImageModel((2, 2)) as model:
        jwst_adapter.add_history(model, "Simulated.")
        model.to_asdf(tmp_path / "a.asdf")
    with asdf.open(tmp_path / "a.asdf") as file:
        assert [entry["description"] for entry in file.get_history_entries()] == ["Simulated."]
