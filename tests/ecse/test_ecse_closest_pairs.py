"""What only the closest-pairs ensemble does: the level of costs, few frames in crystals."""

import ase.build
import pytest
import torch
from ecse_tools import CUTOFF, environment
from torch.autograd import gradcheck, gradgradcheck

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse.closest_pairs import ClosestPairs, adaptive_level
from pet_mlip.ecse.frames import count_frames
from pet_mlip.ecse.hypers import ClosestPairsHypers
from pet_mlip.ecse.switches import quintic


def rows(n_atoms: int, per_atom: int, spread: float, seed: int) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    cost = 3 + spread * torch.rand(n_atoms, per_atom, dtype=torch.float64, generator=draw)
    count = torch.rand(n_atoms, per_atom, dtype=torch.float64, generator=draw) ** 3
    atom = torch.repeat_interleave(torch.arange(n_atoms), per_atom)
    return cost.flatten(), count.flatten(), atom


@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 6.0])
@pytest.mark.parametrize("per_atom", [1, 4, 300])
def test_level_solves_its_equation(spread, per_atom):
    cost, count, atom = rows(50, per_atom, spread, 0)
    level = adaptive_level(cost, count, atom, 51, 0.4, 10.0)
    held = (level / 10) ** 3
    held = held.index_add(0, atom, count * quintic((level[atom] - cost) / 0.4))
    torch.testing.assert_close(held, torch.ones_like(held), rtol=0, atol=1e-13)
    assert level[50] == 10.0  # it has no rows


def test_derivatives_of_the_level_are_exact():
    cost, count, atom = rows(3, 5, 0.6, 1)

    def level(c: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return adaptive_level(c, n, atom, 3, 0.4, 10.0)

    inputs = (cost.requires_grad_(True), count.requires_grad_(True))
    assert gradcheck(level, inputs, rtol=1e-6, atol=1e-7)
    assert gradgradcheck(level, inputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("crystal, most", [("Cu", 240), ("Si", 24), ("W", 240)])
def test_few_frames_in_perfect_crystals(crystal, most):
    """No fewer than the operations of the site (48, 24, 48) are exact; smooth ones are more."""
    atoms = ase.build.bulk(crystal)
    graph = batch_from_atoms([atoms], CUTOFF).graph
    centre = graph.edge_index[0]
    env = environment([graph.edge_vectors[centre == i] for i in range(len(atoms))])
    counts = count_frames(ClosestPairs(CUTOFF, ClosestPairsHypers())(env), len(atoms))
    assert counts.max() <= most
