"""What only the pair ensemble does: mirrors as a choice, pruning, and the paper's counts."""

import ase.build
import pytest
import torch
from ecse_tools import CUTOFF, environment, random_vectors, symmetrized

from pet_mlip.data.batch import graph_from_atoms
from pet_mlip.ecse.frames import count_frames
from pet_mlip.ecse.hypers import PairsHypers
from pet_mlip.ecse.pairs import Pairs
from pet_mlip.ecse.training import random_rotations
from pet_mlip.model.environment import Environment


def environments_of(atoms: ase.Atoms) -> Environment:
    graph = graph_from_atoms(atoms, CUTOFF)
    centre = graph.edge_index[0]
    return environment([graph.edge_vectors[centre == i] for i in range(len(atoms))])


@pytest.mark.parametrize(
    "atoms, frames",
    [
        (ase.build.molecule("CO2"), [2, 1, 1]),
        (ase.build.molecule("H2O"), [2, 2, 2]),
        (ase.build.molecule("CH4"), [12] * 5),
        (ase.build.bulk("Si"), [12, 12]),
        (ase.build.bulk("Cu"), [120]),
    ],
    ids=str,
)
def test_as_many_frames_as_the_papers_code(atoms, frames):
    env = environments_of(atoms)
    ensemble = Pairs(CUTOFF, PairsHypers(mirrors=False))
    assert count_frames(ensemble(env), len(atoms)).tolist() == frames
    with_mirrors = count_frames(Pairs(CUTOFF, PairsHypers())(env), len(atoms))
    if frames[-1] > 1:
        assert with_mirrors.tolist() == [2 * n for n in frames]


def test_without_mirrors_only_rotations_are_exact():
    ensemble = Pairs(CUTOFF, PairsHypers(mirrors=False))
    vectors = random_vectors("random", 6, 3)
    rotation = random_rotations(torch.arange(1))[0]
    rotation = rotation * torch.linalg.det(rotation)
    seen = symmetrized(ensemble, [vectors, vectors @ rotation, -vectors])
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=1e-12)
    assert (seen[2] - seen[0]).abs().max() > 1e-3


def test_pruning_keeps_the_best_pairs():
    env = environment([random_vectors("equal distances", 8, seed) for seed in range(20)])
    everything = Pairs(CUTOFF, PairsHypers())(env)
    pruned = Pairs(CUTOFF, PairsHypers(pruning_rounds=4))(env)
    assert len(pruned.atom) < 0.9 * len(everything.atom)
    assert (count_frames(pruned, 20) >= 4).all()


def test_the_inner_radius_holds_the_best_pair():
    """Were it smaller, its frames would have no weight and the fallback would enter."""
    env = environment([random_vectors("random", 7, seed) for seed in range(200)])
    # Right angles only make sure that some pair counts fully, and none is near the cutoff.
    ensemble = Pairs(CUTOFF, PairsHypers(collinear=0.001, collinear_width=0.001))
    unit = env.vectors / env.distance.unsqueeze(2)
    second_nearest = env.distance.sort(dim=1).values[:, 1]
    best = ensemble.score_pairs(unit, env).flatten(1).max(dim=1).values
    assert best[second_nearest < CUTOFF - 0.5].min() > 0.99
