"""Evaluation on structures: errors, rotational errors, and a size that does not grow."""

import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from pet_mlip.data.structure import Source, Structure
from pet_mlip.errors import UserError
from pet_mlip.evaluate import RotationalErrors, evaluate, rotational_errors
from pet_mlip.evaluate.equivariance import net_torque, random_operations, transformed
from pet_mlip.evaluate.evaluation import grouped


def structures(n, calculator, noise=0.0):
    """Labelled by a calculator, with noise on the energies."""
    rng = np.random.default_rng(0)
    for k in range(n):
        atoms = molecule("CH3OH") if k % 2 else bulk("SiC", "zincblende", a=4.4)
        atoms.rattle(0.05, rng=rng)
        found = calculator.compute_batch([atoms], ("energy", "forces"))[0]
        yield Structure(
            atoms.numbers,
            atoms.positions,
            atoms.cell.array,
            atoms.pbc,
            energy=found["energy"] + noise * (1 if k % 3 else -1),
            forces=found["forces"],
            config_type="molecule" if k % 2 else "crystal",
            source=Source("data.xyz", k),
        )


def test_errors_are_those_of_the_labels(morse):
    found = evaluate(morse, structures(7, morse, noise=0.012), max_atoms=10).to_dict()
    errors = found["errors"]["all"]
    assert found["structures"] == 7
    assert found["atoms"] == 4 * 2 + 3 * 6
    assert found["mean_frames"] == found["max_frames"] == 1
    assert errors["energy"]["mae"] == pytest.approx(12.0, rel=1e-9)
    assert errors["forces"]["max"] < 1e-9
    assert set(found["errors"]["groups"]) == {"molecule", "crystal"}
    assert set(found["errors"]["elements"]) == {"C", "H", "O", "Si"}
    assert found["rotational_error"] is None


def test_results_are_handed_on_in_order(morse):
    seen = []

    def on_result(structure, prediction):
        seen.append((structure.source.frame, prediction["energy"] - structure.energy))
        assert {"energy", "forces", "n_frames"} <= set(prediction)

    evaluate(morse, structures(5, morse), max_atoms=8, on_result=on_result)
    assert [frame for frame, _ in seen] == [0, 1, 2, 3, 4]
    assert max(abs(error) for _, error in seen) < 1e-12


def test_the_evaluation_does_not_grow(morse):
    few, many = (evaluate(morse, structures(n, morse), rotations=1, rotated=3) for n in (200, 600))
    for evaluation in (few, many):
        for sample in evaluation.samples.values():
            assert len(sample.pairs) <= sample.size
        evaluation.samples.clear()
    assert len(pickle.dumps(many)) == pytest.approx(len(pickle.dumps(few)), rel=0.05)


def test_structures_are_read_when_they_are_needed(morse):
    """A group is evaluated before the next one is read."""
    alive = []

    def stream():
        for k, structure in enumerate(structures(6, morse)):
            alive.append(k)
            yield structure

    lags = []

    def on_result(structure, _):
        lags.append(len(alive) - structure.source.frame)

    evaluate(morse, stream(), max_atoms=1, on_result=on_result)
    assert max(lags) <= 2


def test_energies_alone_need_no_gradient(morse):
    labelled = list(structures(3, morse))
    for structure in labelled:
        structure.forces = None
    asked = []
    original = morse.compute_batch

    def spy(batch, properties, max_atoms):
        asked.append(properties)
        return original(batch, properties, max_atoms)

    morse.compute_batch = spy
    evaluate(morse, labelled)
    assert asked == [["energy"]]


def test_an_unknown_element_names_file_and_frame(morse):
    bad = Structure(np.array([26]), np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, bool))
    bad.source = Source("iron.xyz", 12)
    with pytest.raises(UserError, match=r"iron.xyz, frame 12 is Fe"):
        evaluate(morse, [bad])


def test_an_invariant_model_has_no_rotational_error(morse):
    found = evaluate(morse, structures(4, morse), rotations=5).to_dict()["rotational_error"]
    assert found["structures"] == 4
    assert found["molecules"] == 2
    for name in ("energy_per_atom_std", "forces_std", "torque_per_atom"):
        assert found[name]["max"] < 1e-9


def test_a_plain_model_has_one_and_it_is_reproducible(plain):
    found = [evaluate(plain, structures(4, plain), rotations=5).to_dict() for _ in range(2)]
    a, b = (summary["rotational_error"] for summary in found)
    assert a == b
    assert a["energy_per_atom_std"]["rms"] > 1e-3
    assert a["forces_std"]["rms"] > 1e-2
    assert a["torque_per_atom"]["rms"] > 1e-2
    assert a["forces_std"]["max"] >= a["forces_std"]["rms"]


def test_rotational_error_of_known_predictions():
    errors = RotationalErrors()
    forces = np.array([[[1.0, 0, 0]], [[3.0, 0, 0]]])
    errors.add(np.array([0.1, 0.3]), forces, np.array([0.0, 0.2]))
    errors.add(np.array([0.0, 0.0]), np.zeros((2, 1, 3)), None)
    found = errors.to_dict()
    assert found["energy_per_atom_std"]["rms"] == pytest.approx(1000 * np.sqrt(0.1**2 / 2))
    assert found["energy_per_atom_std"]["max"] == pytest.approx(100.0)
    assert found["forces_std"]["rms"] == pytest.approx(1000 * np.sqrt(1.0 / 6))
    assert found["forces_std"]["max"] == pytest.approx(1000.0)
    assert found["torque_per_atom"]["rms"] == pytest.approx(1000 * np.sqrt(0.02))
    assert found["structures"], found["molecules"] == (2, 1)


def test_crystals_have_no_torque(morse):
    errors = RotationalErrors()
    rotational_errors(morse, bulk("Si"), random_operations(2, np.random.default_rng(0)), errors)
    assert errors.to_dict()["torque_per_atom"] is None


def test_operations_are_orthogonal_and_of_both_kinds():
    operations = random_operations(50, np.random.default_rng(0))
    assert np.allclose(operations @ operations.transpose(0, 2, 1), np.eye(3), atol=1e-14)
    signs = np.sign(np.linalg.det(operations))
    assert 10 < (signs > 0).sum() < 40


def test_transformed_structures_keep_all_distances():
    atoms = bulk("Si", cubic=True)
    (q,) = random_operations(1, np.random.default_rng(1))
    turned = transformed(atoms, q)
    expected = atoms.get_all_distances(mic=True)
    assert np.allclose(turned.get_all_distances(mic=True), expected)
    assert np.allclose(turned.positions, atoms.positions @ q.T)


def test_torque_does_not_depend_on_the_origin():
    atoms = Atoms("H2", [[0, 0, 0], [1, 0, 0]])
    forces = np.array([[0, 1.0, 0], [0, -1.0, 0]])
    expected = net_torque(atoms, forces)
    assert np.allclose(expected, [0, 0, -1])
    atoms.positions += 100
    assert np.allclose(net_torque(atoms, forces), expected)


def test_groups_are_bounded():
    stream = (Structure(np.ones(n), *[None] * 3) for n in (4, 4, 9, 2, 2, 2))
    sizes = [[s.n_atoms for s in group] for group in grouped(stream, 8)]
    assert sizes == [[4, 4], [9], [2, 2, 2]]
