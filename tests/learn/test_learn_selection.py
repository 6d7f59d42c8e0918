"""Farthest structures first, whatever their order and orientation."""

import numpy as np
import pytest
from ase.build import molecule
from model_tools import make_potential
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.evaluate.equivariance import random_operations
from pet_mlip.export import load_model, save_model
from pet_mlip.learn.selection import farthest_structures


@pytest.fixture(scope="module")
def calculator(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, with_uncertainty(make_potential()), dtype="float64")
    return PETCalculator(load_model(path))


def structures(n, seed):
    rng = np.random.default_rng(seed)
    found = [molecule(("CH3OH", "H2O", "CH3CH2OH")[k % 3]) for k in range(n)]
    for atoms in found:
        atoms.positions += 0.1 * rng.standard_normal(atoms.positions.shape)
    return found


def distance(calculator, atoms, others):
    """Of the farthest atom from the nearest one of its element, one after the other."""
    features = calculator.compute_features([atoms, *others])
    farthest = 0.0
    for k, z in enumerate(atoms.numbers):
        nearest = np.inf
        for other, vectors in zip(others, features[1:], strict=True):
            for m in np.flatnonzero(other.numbers == z):
                nearest = min(nearest, float(np.linalg.norm(features[0][k] - vectors[m])))
        farthest = max(farthest, nearest)
    return farthest


def test_each_is_the_farthest_from_all_before(calculator):
    known, candidates = structures(4, 0), structures(9, 1)
    chosen = farthest_structures(calculator, known, candidates, 4)
    assert len(set(chosen)) == 4
    for k, place in enumerate(chosen):
        before = known + [candidates[m] for m in chosen[:k]]
        rest = [m for m in range(9) if m not in chosen[:k]]
        far = {m: distance(calculator, candidates[m], before) for m in rest}
        assert far[place] == pytest.approx(max(far.values()), rel=1e-9)


def test_copies_of_what_is_known_are_never_chosen(calculator):
    known = structures(3, 0)
    rng = np.random.default_rng(0)
    copies = [atoms.copy() for atoms in known]
    for atoms in copies:
        atoms.positions = atoms.positions @ random_operations(1, rng)[0] + 1.0
    new = structures(2, 5)
    far = min(distance(calculator, atoms, known) for atoms in new)
    assert all(distance(calculator, atoms, known) < 1e-5 * far for atoms in copies)
    assert set(farthest_structures(calculator, known, [*copies, *new], 2)) == {3, 4}


def test_features_are_what_the_last_layer_knows_without_growth(calculator):
    """Far atoms would be the farther from each other, the farther they are from the data."""
    atoms, vectors = structures(1, 3)[0], []
    for output in calculator._outputs_of([atoms], ["energies_uncertainty"], 0):
        vectors.append(output.uncertainty.vectors)
    (features,) = calculator.compute_features([atoms])
    grown, plain = (np.linalg.norm(part, axis=1) for part in (vectors[0], features))
    module = calculator._model.model.module.potential
    typical = module.uncertainty.typical[module.preparation.species_index[atoms.numbers]].numpy()
    assert np.allclose(grown, plain * np.sqrt(1 + plain**2 / typical), rtol=1e-10)
    assert np.all(grown > 1.05 * plain)


def test_another_element_is_the_farthest_of_all(calculator):
    known = [a for a in structures(9, 0) if 6 not in a.numbers]
    candidates = structures(3, 1)
    assert farthest_structures(calculator, known, candidates, 1)[0] in (0, 2)


def test_fewer_candidates_than_wanted_are_all_taken(calculator):
    known, candidates = structures(2, 0), structures(3, 1)
    assert sorted(farthest_structures(calculator, known, candidates, 10)) == [0, 1, 2]
    assert farthest_structures(calculator, known, [], 10) == []
