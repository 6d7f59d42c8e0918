"""The frames of each training mode."""

import ase.build
import pytest
import torch

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse.frames import Frames, count_frames, identity_frames
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.ecse.random_numbers import normal, uniform
from pet_mlip.ecse.training import random_rotations, sample_frames, training_frames
from pet_mlip.engine.derivatives import forces_from_edge_gradient, predict
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.graph import Graph
from pet_mlip.graph.hypers import PETHypers

PET = PETHypers(d_pet=8, d_node=8, d_head=8, d_feedforward=8, num_heads=2)


def seeded(seed: int = 0, n: int = 2) -> torch.Tensor:
    """Keys of n structures."""
    return 1000 * seed + torch.arange(n)


def potential_with(ensemble: str = "closest_pairs") -> Potential:
    torch.manual_seed(0)
    mode = "structure" if ensemble == "none" else "full"
    return Potential([1, 6, 8], PET, SymmetrizationHypers(ensemble=ensemble, train=mode))


@pytest.fixture
def batch() -> tuple[Graph, torch.Tensor]:
    """Ethanol and methane."""
    both = batch_from_atoms([ase.build.molecule(name) for name in ("CH3CH2OH", "CH4")], 4.5)
    return both.graph, both.structure


def test_random_rotations_are_uniform_in_o3():
    rotations = random_rotations(seeded(n=4000))
    eye = torch.eye(3, dtype=torch.float64).expand(4000, 3, 3)
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), eye)
    assert abs(torch.linalg.det(rotations).mean()) < 0.06
    assert rotations.mean(dim=0).abs().max() < 0.04
    # Haar measure: every element squared averages to 1/3, its fourth power to 1/5.
    torch.testing.assert_close((rotations**2).mean(dim=0), eye[0] * 0 + 1 / 3, atol=0.02, rtol=0)
    torch.testing.assert_close((rotations**4).mean(dim=0), eye[0] * 0 + 0.2, atol=0.02, rtol=0)


def test_identity_and_counts():
    frames = identity_frames(3, torch.device("cpu"))
    assert count_frames(frames, 4).tolist() == [1, 1, 1, 0]
    assert (frames.matrix == torch.eye(3)).all()


def test_sampling_follows_the_weights():
    weight = torch.tensor([0.7, 0.05, 0.25, 1.0, 0.4, 0.0, 0.6], dtype=torch.float64)
    atom = torch.tensor([0, 0, 0, 1, 2, 2, 2])
    label = torch.arange(7, dtype=torch.float64)
    frames = Frames(atom, label[:, None, None].expand(7, 3, 3), weight)
    n_draws = 3000
    draws = uniform(seeded(n=n_draws), 3)
    drawn = torch.stack([sample_frames(frames, draw).matrix[:, 0, 0] for draw in draws])
    count = torch.bincount(drawn.to(torch.int64).flatten(), minlength=7).to(torch.float64)
    assert count[5] == 0
    assert count[3] == n_draws
    free = torch.tensor([0, 1, 2, 4, 6])
    expected = n_draws * weight[free]
    chi_square = float(((count[free] - expected) ** 2 / expected).sum())
    assert chi_square < 16.3  # 3 degrees of freedom: exceeded with probability 0.001


def test_sampling_stays_in_its_atom_despite_round_off():
    n_atoms, per_atom = 20000, 3
    weight = uniform(seeded(n=n_atoms), per_atom)
    weight = (weight / weight.sum(dim=1, keepdim=True)) * (1 - 1e-13)
    atom = torch.repeat_interleave(torch.arange(n_atoms), per_atom)
    matrix = atom.to(torch.float64)[:, None, None].expand(-1, 3, 3)
    drawn = sample_frames(
        Frames(atom, matrix, weight.flatten()), uniform(seeded(1, n_atoms), 1)[:, 0]
    )
    assert (drawn.matrix[:, 0, 0] == torch.arange(n_atoms)).all()


def drawn_frames(mode, potential, graph, structure, keys):
    return training_frames(mode, lambda: potential.layer_frames(graph), structure, keys)


def test_structure_draws_one_rotation_per_structure(batch):
    graph, structure = batch
    frames = drawn_frames("structure", potential_with("none"), graph, structure, seeded())
    assert (frames.weight == 1).all()
    for s in (0, 1):
        of_one = frames.matrix[structure == s]
        assert (of_one == of_one[0]).all()
    assert (frames.matrix[0] - frames.matrix[-1]).abs().max() > 1e-3


def test_environment_draws_one_rotation_per_atom(batch):
    graph, structure = batch
    frames = drawn_frames("environment", potential_with(), graph, structure, seeded())
    assert frames.atom.tolist() == list(range(len(structure)))
    assert len(torch.unique(frames.matrix.flatten(1), dim=0)) == len(structure)
    assert (frames.weight == 1).all()


def test_sample_draws_from_the_ensemble(batch):
    graph, structure = batch
    potential = potential_with()
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    whole = potential.layer_frames(graph)
    moving = graph._replace(edge_vectors=vectors)
    frames = drawn_frames("sample", potential, moving, structure, seeded())
    assert frames.atom.tolist() == list(range(len(structure)))
    assert (frames.weight == 1).all()
    for i, matrix in enumerate(frames.matrix):
        distance = (whole.matrix[whole.atom == i] - matrix).abs().amax(dim=(1, 2))
        assert distance.min() < 1e-14
    (through_frames,) = torch.autograd.grad(frames.matrix.sum(), vectors)
    assert through_frames.abs().max() > 0
    assert torch.isfinite(through_frames).all()


def test_full_is_the_inference_ensemble(batch):
    graph, structure = batch
    potential = potential_with()
    frames = drawn_frames("full", potential, graph, structure, seeded())
    torch.testing.assert_close(potential(graph, frames), potential(graph), rtol=0, atol=0)


def test_forces_of_training_go_through_the_frames(batch):
    """Frames that are given or found: the forces are the derivative of the same energy."""
    graph, structure = batch
    potential = potential_with().set_dtype(torch.float64)
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    moving = graph._replace(edge_vectors=vectors)
    frames = drawn_frames("full", potential, moving, structure, seeded())
    (given,) = torch.autograd.grad(potential(moving, frames).sum(), vectors)
    fixed = Frames(frames.atom, frames.matrix.detach(), frames.weight.detach())
    (without,) = torch.autograd.grad(potential(moving, fixed).sum(), vectors)
    found = predict(potential, graph, structure, 2, training=True)
    forces = forces_from_edge_gradient(given, graph.edge_index, len(structure))
    torch.testing.assert_close(found.forces.detach(), forces, rtol=0, atol=1e-12)
    assert (without - given).abs().max() > 1e-4


@pytest.mark.parametrize("mode", ["ensemble", "given"])
def test_a_batch_is_prepared_once(batch, mode, monkeypatch):
    graph, structure = batch
    potential = potential_with()
    frames = None
    if mode == "given":
        frames = drawn_frames("structure", potential, graph, structure, seeded())
    calls = []
    prepare, find = potential.preparation.forward, potential.ensemble.find
    monkeypatch.setattr(potential.preparation, "forward", lambda g: calls.append("p") or prepare(g))
    monkeypatch.setattr(potential.ensemble, "find", lambda e: calls.append("e") or find(e))
    predict(potential, graph, structure, 2, frames, training=True)
    assert calls == (["p"] if mode == "given" else ["p", "e"])


DRAWN = pytest.mark.parametrize(
    "mode, ensemble",
    [("structure", "none"), ("environment", "closest_pairs"), ("sample", "closest_pairs")],
)


@DRAWN
def test_keys_reproduce(batch, mode, ensemble):
    potential = potential_with(ensemble)
    first, again, other = (drawn_frames(mode, potential, *batch, seeded(s)) for s in (1, 1, 2))
    assert (first.matrix == again.matrix).all()
    assert (first.matrix - other.matrix).abs().max() > 1e-3


@DRAWN
def test_frames_do_not_depend_on_the_rest_of_the_batch(batch, mode, ensemble):
    potential, (graph, structure) = potential_with(ensemble), batch
    together = drawn_frames(mode, potential, graph, structure, seeded())
    alone = batch_from_atoms([ase.build.molecule("CH4")], 4.5).graph
    one = torch.zeros(5, dtype=torch.int64)
    apart = drawn_frames(mode, potential, alone, one, seeded()[1:])
    torch.testing.assert_close(together.matrix[structure == 1], apart.matrix, rtol=0, atol=1e-14)


def test_random_numbers_are_random():
    draws = uniform(seeded(n=200), 300)
    assert 0 <= draws.min() < 1e-3 < 1 - 1e-3 < draws.max() < 1
    counts = torch.histc(draws, bins=50, min=0, max=1)
    assert ((counts - 1200) ** 2 / 1200).sum() < 86  # 49 degrees of freedom: exceeded in 1 of 1000
    for a, b in ((draws[1:], draws[:-1]), (draws[:, 1:], draws[:, :-1])):
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(correlation) < 4 / 60000**0.5
    values = normal(seeded(n=100), 300)
    moments = [float((values**k).mean()) for k in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=0.15)


@pytest.mark.parametrize("mode, ensemble", [("full", "none"), ("structure", "closest_pairs")])
def test_impossible_combinations_are_refused(mode, ensemble):
    with pytest.raises(ValueError, match="choose"):
        SymmetrizationHypers(ensemble=ensemble, train=mode)


@pytest.mark.parametrize("mode", ["environment", "sample"])
def test_modes_of_any_module_are_none_of_pet(mode):
    with pytest.raises(ValueError, match="full"):
        SymmetrizationHypers(train=mode)
