"""What an ensemble is: weights that sum to one and transform with the environment."""

import torch
from ecse_tools import (
    CUTOFF,
    ENSEMBLE,
    KINDS,
    average,
    environment,
    gradient,
    random_vectors,
    symmetrized,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from pet_mlip.ecse.training import random_rotations

environments = st.builds(
    random_vectors, st.sampled_from(KINDS), st.integers(1, 9), st.integers(0, 10**6)
)
quick = settings(max_examples=15)


@given(batch=st.lists(environments, min_size=1, max_size=4))
@quick
def test_weights_are_a_distribution(batch):
    frames = ENSEMBLE(environment(batch))
    assert (frames.weight >= 0).all()
    assert (frames.atom.diff() >= 0).all()
    total = torch.zeros(len(batch), dtype=torch.float64).index_add(0, frames.atom, frames.weight)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-14)


@given(vectors=environments)
@quick
def test_frames_are_orthogonal_or_projectors(vectors):
    matrix = ENSEMBLE(environment([vectors])).matrix
    gram = matrix.transpose(1, 2) @ matrix
    rank = gram.diagonal(dim1=1, dim2=2).sum(dim=1).round()
    wanted = torch.diag_embed((torch.arange(3) < rank[:, None]).to(torch.float64))
    torch.testing.assert_close(gram, wanted, rtol=0, atol=1e-12)
    assert set(rank.tolist()) <= {0.0, 1.0, 3.0}


@given(vectors=environments, seed=st.integers(0, 10**6))
@quick
def test_covariant_under_rotations_and_mirrors(vectors, seed):
    plain = symmetrized([vectors])
    rotations = random_rotations(seed + torch.arange(6))
    rotated = symmetrized([vectors @ r for r in rotations])
    torch.testing.assert_close(rotated, plain.expand_as(rotated), rtol=0, atol=1e-11)
    torch.testing.assert_close(
        gradient(vectors @ rotations[0]),
        gradient(vectors) @ rotations[0],
        rtol=1e-9,
        atol=1e-9,
    )


@given(vectors=environments, seed=st.integers(0, 10**6))
@quick
def test_independent_of_the_order_of_neighbours(vectors, seed):
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))
    both = symmetrized([vectors, vectors[order]])
    torch.testing.assert_close(both[1], both[0], rtol=0, atol=1e-12)


@given(batch=st.lists(environments, min_size=2, max_size=4))
@quick
def test_atoms_do_not_see_each_other_or_padding(batch):
    alone = torch.cat([symmetrized([vectors]) for vectors in batch])
    torch.testing.assert_close(symmetrized(batch), alone, rtol=0, atol=1e-12)


@given(vectors=environments)
@quick
def test_neighbours_beyond_the_cutoff_are_invisible(vectors):
    far = torch.tensor([[0.0, CUTOFF + 1e-9, 0.0], [3.0, 4.0, 5.0]], dtype=torch.float64)
    seen = symmetrized([vectors, torch.cat([vectors, far])])
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=1e-12)


def test_scripted_equals_eager():
    env = environment([random_vectors(kind, 6, seed) for seed, kind in enumerate(KINDS)])
    scripted = average(torch.jit.script(ENSEMBLE)(env), env)
    torch.testing.assert_close(scripted, average(ENSEMBLE(env), env), rtol=0, atol=1e-13)


def test_without_any_edge():
    env = environment([torch.zeros(0, 3, dtype=torch.float64)] * 3)
    frames = ENSEMBLE(env)
    assert frames.atom.tolist() == [0, 1, 2]
    assert frames.weight.tolist() == [1.0, 1.0, 1.0]
    assert (frames.matrix == 0).all()
