"""What a simulated observation was made with: each value is published, follows from published ones, or is ours."""

from msa3d.closure import inputs
from msa3d.config import Dataset, Simulation


def test_values_say_where_they_come_from():
    dataset = Dataset.load("demo")
    table = inputs.galaxies(dataset)
    first = dict(zip(table["injected"], table["MSA-3D 8512"], strict=True))
    assert first["velocity dispersion of the gas (km/s)"] == "36.0"
    assert first["metallicity gradient (dex/kpc)"] == "\u22120.020"
    # Published in kpc, injected in arcsec; published deprojected.
    assert first["the same (\u2033)"].endswith(inputs.DERIVED)
    assert first[r"the same as seen, $V \sin i$ (km/s)"].endswith(inputs.DERIVED)
    assert first["$A_V$ at the centre (mag)"].endswith(inputs.OURS)
    assert table.colnames[1] == "MSA-3D 8512" and len(table.colnames) == 4
    assert len(inputs.galaxies(dataset, most=1).colnames) == 2


def test_a_value_that_is_not_the_published_one_is_ours():
    dataset = Dataset.load("demo")
    sources = [s.model_copy(update={"sigma0_kms": s.sigma0_kms * 1.02}) for s in dataset.simulation.sources]
    changed = dataset.model_copy(update={"simulation": dataset.simulation.model_copy(update={"sources": sources})})
    column = dict(zip(*(inputs.galaxies(changed)[name] for name in ("injected", "MSA-3D 8512")), strict=True))
    assert column["velocity dispersion of the gas (km/s)"] == f"36.7{inputs.OURS}"


def test_the_setup_is_that_of_the_dataset():
    dataset = Dataset.load("demo")
    rows = dict(zip(*(inputs.setup(dataset)[name] for name in ("what", "value")), strict=True))
    assert rows["steps across the slit"].startswith(f"{dataset.pattern.columns} of")
    assert "cosmic rays" in rows["simulated"]
    off = dataset.model_copy(update={"simulation": dataset.simulation.model_copy(update={"cosmic_rays": False})})
    assert "cosmic rays" in dict(zip(*(inputs.setup(off)[name] for name in ("what", "value")), strict=True))["left out"]


def test_every_switch_of_the_simulation_is_told():
    switches = {name for name, field in Simulation.model_fields.items() if field.annotation is bool}
    assert switches == set(inputs.INGREDIENTS)


def test_nothing_was_injected_into_the_real_observation():
    assert inputs.galaxies(Dataset.load("go2136")) is None and inputs.setup(Dataset.load("go2136")) is None
