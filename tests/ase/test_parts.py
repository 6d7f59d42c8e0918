"""Plain part and correction add up to the model, and are refused where they mean nothing."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
from ase.build import bulk, molecule
from model_files import nearly_invariant_potential, small_potential

from pet_mlip import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export import save_model

PROPERTIES = ["energy", "energies", "forces", "stress", "stresses"]


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A model that averages over the frames of each environment, and its network alone."""
    folder = tmp_path_factory.mktemp("parts")
    potential = nearly_invariant_potential()
    save_model(folder / "model.pt", potential, dtype="float64")
    plain = small_potential("none", zbl=True)
    plain.set_dtype(next(potential.pet.parameters()).dtype)
    plain.load_state_dict(potential.state_dict())
    save_model(folder / "plain.pt", plain, dtype="float64")
    return folder


@pytest.fixture
def crystal():
    atoms = bulk("Si") * (2, 1, 1)
    atoms.rattle(0.1, seed=1)
    return atoms


def properties(calculator, atoms):
    (found,) = calculator.compute_batch([atoms], PROPERTIES)
    return found


@pytest.mark.parametrize(
    ("file", "symmetrization"),
    [("model.pt", None), ("plain.pt", "structure"), ("plain.pt", "quadrature:1")],
)
def test_parts_add_up(averaged, crystal, file, symmetrization):
    whole = PETCalculator(averaged / file, symmetrization=symmetrization)
    parts = [whole.clone(part=name) for name in ("plain", "correction")]
    expected = properties(whole, crystal)
    plain, correction = (properties(part, crystal) for part in parts)
    for name in PROPERTIES:
        assert np.abs(correction[name]).max() > 1e-6
        np.testing.assert_allclose(
            plain[name] + correction[name], expected[name], rtol=1e-13, atol=1e-12
        )


def test_plain_part_is_the_network_alone(averaged, crystal):
    part = PETCalculator(averaged / "model.pt", part="plain")
    alone = PETCalculator(averaged / "plain.pt")
    for atoms in (crystal, molecule("CH3CH2OH")):
        for calculator in (part, alone):
            atoms.calc = calculator
            calculator.found = atoms.get_potential_energy(), atoms.get_forces()
        assert part.found[0] == pytest.approx(alone.found[0], abs=1e-11)
        np.testing.assert_allclose(part.found[1], alone.found[1], rtol=0, atol=1e-12)
    assert part.info["max_frames"] == 1


@pytest.mark.parametrize("part", ["plain", "correction"])
def test_parts_have_exact_derivatives(averaged, crystal, part):
    crystal.calc = PETCalculator(averaged / "model.pt", part=part)
    forces = crystal.get_forces()
    step = 1e-4
    energies = []
    for sign in (1, -1):
        crystal.positions[1, 2] += sign * step
        energies.append(crystal.get_potential_energy())
        crystal.positions[1, 2] -= sign * step
    numerical = (energies[1] - energies[0]) / (2 * step)
    assert forces[1, 2] == pytest.approx(numerical, abs=1e-7)


def test_copies_are_of_the_same_part(averaged, crystal):
    calculator = PETCalculator(averaged / "model.pt", part="correction")
    expected = properties(calculator, crystal)["energy"]
    for copy in (deepcopy(calculator), pickle.loads(pickle.dumps(calculator)), calculator.clone()):
        assert copy.part == "correction"
        assert properties(copy, crystal)["energy"] == expected
    whole = calculator.clone(part="all")
    assert whole._model.model is calculator._model.model
    assert properties(whole, crystal)["energy"] != expected


def test_a_clone_forgets_the_results_of_another_part(averaged, crystal):
    crystal.calc = PETCalculator(averaged / "model.pt")
    energy = crystal.get_potential_energy()
    plain = crystal.calc.clone(part="plain")
    assert plain.get_potential_energy(crystal) != energy
    assert crystal.get_potential_energy() == energy


def test_the_correction_costs_one_evaluation_more(averaged, crystal):
    whole = PETCalculator(averaged / "plain.pt", symmetrization="structure")
    cost, both = whole.cost(crystal), whole.clone(part="correction").cost(crystal)
    assert both.evaluations == cost.evaluations + 1
    assert both.relative == pytest.approx(cost.relative + 1)
    assert whole.clone(part="plain").cost(crystal).relative == 1.0


@pytest.mark.parametrize("train", ["full", "sample"])
def test_models_trained_in_their_frames_only_have_no_parts(tmp_path, train):
    potential = small_potential()
    trained = potential.symmetrization.model_copy(update={"train": train})
    potential.symmetrization = trained
    save_model(tmp_path / "model.pt", potential)
    for part in ("plain", "correction"):
        with pytest.raises(UserError, match=rf"train: {train}.*train: environment"):
            PETCalculator(tmp_path / "model.pt", part=part)


def test_without_an_average_there_is_no_correction(averaged):
    assert PETCalculator(averaged / "plain.pt", part="plain").part == "plain"
    with pytest.raises(UserError, match="without any average"):
        PETCalculator(averaged / "plain.pt", part="correction")
    with pytest.raises(UserError, match="no fixed correction"):
        PETCalculator(averaged / "plain.pt", part="correction", symmetrization="random")


def test_unknown_parts(averaged):
    with pytest.raises(UserError, match="'half' is not one of all, plain, correction"):
        PETCalculator(averaged / "model.pt", part="half")
