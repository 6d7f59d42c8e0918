"""Any module in the frames of an ensemble: exactly covariant, local, smooth, differentiable."""

import ase.build
import ecse_paths
import pytest
import torch
from ase import Atoms
from ecse_paths import assert_no_jump
from ecse_tools import CUTOFF, KINDS, random_vectors
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetrized_tools import RANKS, RandomNet, graph_of, outputs_of, symmetrized_net, turned

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse import SymmetrizationHypers, Symmetrized
from pet_mlip.ecse.training import random_rotations

environments = st.builds(
    random_vectors, st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 10**6)
)
seeds = st.integers(0, 10**6)
quick = settings(max_examples=10)
THROUGH_SWITCHES = [
    ecse_paths.crossing_the_cutoff,
    ecse_paths.leaving_alone,
    ecse_paths.two_equal_neighbours_leaving,
    ecse_paths.trading_places,
    ecse_paths.straightening_alone,
    ecse_paths.through_a_plane,
]
LINEAR = {
    "dimer": torch.tensor([[0.3, -0.8, 1.1]], dtype=torch.float64),
    "linear": torch.tensor([[0.3, -0.8, 1.1], [-0.36, 0.96, -1.32]], dtype=torch.float64),
}


def assert_same(found, expected, tolerance=1e-10):
    for name in RANKS:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=tolerance)


@quick
@given(batch=st.lists(environments, min_size=1, max_size=4), seed=seeds)
def test_covariant_under_every_operation(batch, seed):
    model = symmetrized_net()
    plain = outputs_of(model, batch)
    special = torch.diag_embed(torch.tensor([[-1.0, -1, -1], [1, 1, -1], [-1, -1, 1]]))
    operations = torch.cat([special.to(torch.float64), random_rotations(seed + torch.arange(3))])
    for operation in operations:
        found = outputs_of(model, [vectors @ operation for vectors in batch])
        assert_same(found, turned(plain, operation))


def test_the_plain_backbone_is_not_covariant():
    hypers = SymmetrizationHypers(ensemble="none", train="structure")
    model = Symmetrized(RandomNet(), CUTOFF, RANKS, symmetrization=hypers).eval()
    vectors = random_vectors("random", 5, 0)
    rotation = random_rotations(torch.arange(1))[0]
    plain = turned(outputs_of(model, [vectors]), rotation)
    found = outputs_of(model, [vectors @ rotation])
    for name in RANKS:
        assert (found[name] - plain[name]).abs().max() > 0.1


@quick
@given(vectors=environments, seed=seeds)
def test_independent_of_the_order_of_neighbours(vectors, seed):
    model = symmetrized_net()
    graph = graph_of([vectors])
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))
    shuffled = graph._replace(
        edge_index=graph.edge_index[:, order], edge_vectors=graph.edge_vectors[order]
    )
    assert_same(model(shuffled), model(graph), 1e-12)


@quick
@given(batch=st.lists(environments, min_size=2, max_size=4))
def test_environments_do_not_see_each_other_padding_or_what_is_beyond_the_cutoff(batch):
    model = symmetrized_net()
    far = torch.tensor([[0.0, CUTOFF + 1e-9, 0.0], [3.0, 4.0, 5.0]], dtype=torch.float64)
    together = outputs_of(model, [torch.cat([vectors, far]) for vectors in batch])
    for place, vectors in enumerate(batch):
        alone = outputs_of(model, [vectors])
        assert_same({key: found[place : place + 1] for key, found in together.items()}, alone)


@pytest.mark.parametrize("kind", LINEAR)
def test_a_linear_environment_has_axial_outputs(kind):
    vectors = LINEAR[kind]
    axis = vectors[0] / vectors[0].norm()
    found = outputs_of(symmetrized_net(), [vectors])
    along = torch.outer(axis, axis)
    dipole, tensor = found["dipole"][0], found["polarizability"][0]
    torch.testing.assert_close(dipole, (dipole @ axis)[:, None] * axis, rtol=0, atol=1e-12)
    parallel = torch.einsum("a,cab,b->c", axis, tensor, axis)[:, None, None]
    perpendicular = (torch.einsum("caa->c", tensor)[:, None, None] - parallel) / 2
    expected = parallel * along + perpendicular * (torch.eye(3, dtype=torch.float64) - along)
    torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-12)
    assert dipole.abs().max() > 1e-3
    assert (perpendicular - parallel).abs().max() > 1e-3
    assert perpendicular.abs().max() > 1e-3


def test_an_isolated_atom_is_isotropic():
    model = symmetrized_net()
    found = model(batch_from_atoms([Atoms("OC", [(0, 0, 0), (0, 0, 9)])], CUTOFF).graph)
    assert (found["dipole"] == 0).all()
    tensor = found["polarizability"]
    third = torch.einsum("ncaa->nc", tensor)[..., None, None] / 3
    torch.testing.assert_close(tensor, third * torch.eye(3, dtype=torch.float64))
    assert third.abs().min() > 1e-3
    assert (third[0] - third[1]).abs().max() > 1e-3


@given(batch=st.lists(environments, min_size=1, max_size=4))
@quick
def test_fading_axes_keep_a_distribution_and_leave_full_environments_alone(batch):
    model, graph = symmetrized_net(), graph_of(batch)
    environment = model.neighbourhood(graph).environment
    frames, faded = model.ensemble(environment), model.layer_frames(graph)
    n_atoms = len(graph.species)
    total = torch.zeros(n_atoms, dtype=torch.float64).index_add(0, faded.atom, faded.weight)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-14)
    assert (faded.atom.diff() >= 0).all()
    full = environment.switch.sum(dim=1) >= 0.5
    assert torch.equal(faded.matrix[full[faded.atom]], frames.matrix[full[frames.atom]])
    assert torch.equal(faded.weight[full[faded.atom]], frames.weight[full[frames.atom]])


def test_a_vector_vanishes_with_the_last_neighbour_because_axes_fade(monkeypatch):
    model = symmetrized_net()
    vectors = (CUTOFF - 0.05) * torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)
    faded = outputs_of(model, [vectors])["dipole"].abs().max()
    monkeypatch.setattr("pet_mlip.ecse.symmetrized.fade_out_axes", lambda frames, _: frames)
    kept = outputs_of(model, [vectors])["dipole"].abs().max()
    assert kept > 0.1
    assert faded < 0.01 * kept


@pytest.mark.parametrize("output", ["dipole", "polarizability"])
@pytest.mark.parametrize("path", THROUGH_SWITCHES, ids=lambda path: path.__name__)
def test_no_jump_along_a_path(output, path):
    model = symmetrized_net()
    # A generic component: those of planar environments may be zero by symmetry.
    weight = torch.tensor([0.3, -0.8, 0.5], dtype=torch.float64)

    def component(vectors):
        values = outputs_of(model, vectors)[output][:, 0]
        while values.dim() > 1:
            values = values @ weight
        return values

    assert_no_jump(component, path)


@pytest.mark.parametrize("kind", KINDS)
def test_first_and_second_derivatives(kind):
    model = symmetrized_net()
    vectors = random_vectors(kind, 3, 5).requires_grad_(True)

    def function(moved):
        found = outputs_of(model, [moved])
        return found["energy"][0], found["dipole"][0], found["polarizability"][0]

    assert torch.autograd.gradcheck(function, vectors, atol=1e-5, rtol=1e-4, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, vectors, atol=1e-4, rtol=1e-3, fast_mode=True)


def test_float32_is_covariant_to_its_own_precision():
    model = symmetrized_net()
    batch = [random_vectors(kind, 6, seed) for seed, kind in enumerate(KINDS)]
    exact = outputs_of(model, batch)
    model.float()
    plain = outputs_of(model, batch)
    assert plain["dipole"].dtype == torch.float64
    assert_same(plain, exact, 1e-5)
    rotation = random_rotations(torch.arange(1))[0]
    found = outputs_of(model, [vectors @ rotation for vectors in batch])
    assert_same(found, turned(plain, rotation), 1e-5)


def test_structures_in_a_batch_are_those_alone():
    structures = [ase.build.molecule(name) for name in ("CH3CH2OH", "CO2", "H2O")]
    structures += [Atoms("C"), ase.build.bulk("C", "diamond", a=3.57)]
    model = symmetrized_net()
    batch = batch_from_atoms(structures, CUTOFF)
    together = model(batch.graph)
    for index, atoms in enumerate(structures):
        mine = batch.structure == index
        alone = model(batch_from_atoms([atoms], CUTOFF).graph)
        assert_same({name: values[mine] for name, values in together.items()}, alone, 1e-12)
    assert together["polarizability"].shape == (len(batch.structure), 2, 3, 3)


def test_a_crystal_has_the_tensors_of_its_point_group():
    atoms = ase.build.bulk("C", "diamond", a=3.57)
    found = symmetrized_net()(batch_from_atoms([atoms], CUTOFF).graph)
    tensor = found["polarizability"]
    third = torch.einsum("ncaa->nc", tensor)[..., None, None] / 3
    assert found["dipole"].abs().max() < 1e-10
    torch.testing.assert_close(
        tensor, third * torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-10
    )
