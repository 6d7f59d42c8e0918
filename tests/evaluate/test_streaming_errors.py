"""Streaming errors are those of all numbers at once."""

import json

import numpy as np
import pytest
from ase.stress import full_3x3_to_voigt_6_stress
from hypothesis import given
from hypothesis import strategies as st

from pet_mlip.data.structure import Structure
from pet_mlip.evaluate.errors import Errors, ErrorTable
from pet_mlip.evaluate.sample import Reservoir, Sample


@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=10),
    offset=st.sampled_from([0.0, -1e6]),
    seed=st.integers(0, 2**32),
)
def test_errors_of_portions_are_those_of_the_whole(sizes, offset, seed):
    rng = np.random.default_rng(seed)
    reference = offset + rng.normal(size=sum(sizes))
    predicted = reference + rng.normal(size=sum(sizes))
    errors = Errors()
    for part in np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]):
        errors.add(predicted[part], reference[part])
    error = predicted - reference
    assert errors.count == len(error)
    if len(error) == 0:
        assert np.isnan(errors.mae) and np.isnan(errors.rmse) and np.isnan(errors.reference_std)
        return
    assert errors.mae == pytest.approx(np.abs(error).mean())
    assert errors.rmse == pytest.approx(np.sqrt((error**2).mean()))
    assert errors.largest == np.abs(error).max()
    assert errors.reference_std == pytest.approx(reference.std(), rel=1e-6, abs=1e-9)


def structure(species, group=None, **labels):
    species = np.array(species)
    cell = 3.0 * np.eye(3) if "stress" in labels else np.zeros((3, 3))
    pbc = np.full(3, "stress" in labels)
    return Structure(species, np.zeros((len(species), 3)), cell, pbc, config_type=group, **labels)


def prediction(n, energy, force=0.0, stress=0.0):
    return {"energy": energy, "forces": np.full((n, 3), force), "stress": np.full(6, stress)}


def test_quantities_and_units():
    table = ErrorTable()
    labels = {"energy": -10.0, "forces": np.zeros((2, 3)), "stress": np.zeros((3, 3))}
    table.add(structure([1, 8], **labels), prediction(2, -9.0, 0.01, -0.003))
    found = table.to_dict()
    assert found["all"]["energy"]["mae"] == pytest.approx(1000.0)
    assert found["all"]["energy_per_atom"]["rmse"] == pytest.approx(500.0)
    assert found["all"]["forces"]["mae"] == pytest.approx(10.0)
    assert found["all"]["forces"]["count"] == 6
    assert found["all"]["stress"]["max"] == pytest.approx(3.0)
    assert found["all"]["stress"]["count"] == 6
    assert found["units"] == {
        "energy_per_atom": "meV/atom",
        "energy": "meV",
        "forces": "meV/Å",
        "stress": "meV/Å^3",
    }
    json.dumps(found, allow_nan=False)


def test_stress_components_are_matched():
    stress = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    table = ErrorTable()
    found = prediction(1, 0.0) | {"stress": full_3x3_to_voigt_6_stress(stress)}
    table.add(structure([1], stress=stress), found)
    assert table.all["stress"].largest == 0.0


def test_missing_labels_do_not_count():
    table = ErrorTable()
    table.add(structure([1]), {"energy": 1.0})
    assert table.to_dict() == {"units": {}, "all": {}, "elements": {}, "groups": {}}
    table.add(structure([1], energy=0.0), {"energy": 1.0})
    assert set(table.all) == {"energy", "energy_per_atom"}


def test_elements():
    table = ErrorTable()
    forces = np.array([[0.0] * 3, [1.0] * 3, [1.0] * 3])
    table.add(structure([8, 1, 1], forces=forces), prediction(3, 0.0, 0.5))
    table.add(structure([8], forces=np.zeros((1, 3))), prediction(1, 0.0, 0.3))
    assert table.elements["O"]["forces"].mae == pytest.approx(0.4)
    assert table.elements["H"]["forces"].count == 6
    assert list(table.to_dict()["elements"]) == ["H", "O"]


def test_groups():
    table = ErrorTable()
    for group, energy in (("a", 1.0), ("b", 2.0), ("a", 3.0), (None, 9.0)):
        table.add(structure([1], group, energy=0.0), {"energy": energy})
    assert table.groups["a"]["energy"].mae == 2.0
    assert table.groups["b"]["energy"].count == 1
    assert table.all["energy"].count == 4


def test_a_sample_is_bounded_and_uniform():
    sample = Sample(size=500)
    for start in range(0, 20_000, 100):
        values = np.arange(start, start + 100)
        sample.add(values + 0.5, values)
    assert sample.pairs.shape == (500, 2)
    assert np.array_equal(sample.pairs[:, 1], sample.pairs[:, 0] + 0.5)
    assert len(np.unique(sample.pairs[:, 0])) == 500
    # The mean of 500 of 20,000 uniform numbers has a standard deviation of 258.
    assert sample.pairs[:, 0].mean() == pytest.approx(10_000, abs=1000)


def test_a_reservoir_is_bounded_and_uniform():
    reservoir = Reservoir(500, np.random.default_rng(0))
    for item in range(20_000):
        reservoir.add(item)
    assert len(set(reservoir.items)) == 500
    assert np.mean(reservoir.items) == pytest.approx(10_000, abs=1000)
