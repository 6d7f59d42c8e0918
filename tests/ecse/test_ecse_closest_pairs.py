"""How many frames the closest-pairs ensemble has in crystals, and that none is missed."""

import ase.build
import pytest
import torch
from ecse_tools import CUTOFF, ENSEMBLE, KINDS, environment, random_vectors

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse.frames import count_frames


@pytest.mark.parametrize("crystal, most", [("Cu", 240), ("Si", 24), ("W", 240)])
def test_few_frames_in_perfect_crystals(crystal, most):
    """No fewer than the operations of the site (48, 24, 48) are exact; smooth ones are more."""
    atoms = ase.build.bulk(crystal)
    graph = batch_from_atoms([atoms], CUTOFF).graph
    centre = graph.edge_index[0]
    env = environment([graph.edge_vectors[centre == i] for i in range(len(atoms))])
    counts = count_frames(ENSEMBLE(env), len(atoms))
    assert counts.max() <= most


@pytest.mark.parametrize("kind", KINDS)
def test_a_look_at_the_nearest_neighbours_misses_no_pair(kind):
    """Nor adds one to those that a table of all pairs holds."""
    alone = [[random_vectors(kind, n, seed)] for seed in range(4) for n in range(17, 31, 3)]
    batch = [random_vectors(kind, n, n) for n in (0, 1, 2, 7, 16, 17, 30, 60)]
    for vectors in [*alone, batch]:
        env = environment(vectors)
        n_atoms, n_places = env.distance.shape
        unit = env.vectors / env.distance.unsqueeze(2)
        asymmetry = ENSEMBLE.asymmetry(unit, env)
        every = torch.arange(n_places).expand(n_atoms, -1)
        cost, count = ENSEMBLE.pair_costs(unit, asymmetry, env, every)
        below = (count > 0.0) & (cost < ENSEMBLE.bound(cost, count)[:, None, None])
        atom, first, second = ENSEMBLE.candidates(unit, asymmetry, env)
        assert torch.equal(atom, atom.sort()[0])
        assert torch.equal(atom, first // n_places)
        found = n_places * first + second - n_places * atom
        assert torch.equal(found.sort()[0], torch.nonzero(below.flatten()).squeeze(1))


def test_no_atoms_have_no_frames():
    env = environment([random_vectors("random", 20, 0)])
    none = type(env)(*[value[:0] for value in env])
    assert ENSEMBLE(none).matrix.shape == (0, 3, 3)
