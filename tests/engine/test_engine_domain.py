"""Domains with ghosts give what the whole periodic system gives."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from domain_tools import domain_of, whole_system
from model_tools import CUTOFF, ENSEMBLES, FEATURIZERS, assert_same, make_potential, rattled

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.engine.derivatives import predict
from pet_mlip.export.module import ExportedModel
from pet_mlip.network.blocks import Block
from pet_mlip.network.layer import GNNLayer

SKIN = 0.3


def crystal() -> Atoms:
    """Six atoms in a skewed cell that is smaller than the interaction range, moved a bit."""
    atoms = bulk("SiO", "zincblende", a=5.0) * (3, 1, 1)
    atoms.set_cell(
        atoms.cell.array @ [[1, 0.1, 0], [0, 1.05, 0], [0.05, 0, 0.95]], scale_atoms=True
    )
    return rattled(atoms, 2)


def drive(potential, domain, chunk_size=0, centroids=False):
    """The exported module, not scripted."""
    return ExportedModel(potential).drive(
        domain.points, domain.ends, *domain.lists, True, centroids, chunk_size
    )


def reference(potential, atoms):
    """Energies, forces and virial of the whole structure."""
    batch = batch_from_atoms([atoms], potential.cutoff)
    return predict(potential, batch.graph, batch.structure, 1)


@pytest.mark.parametrize("chunk_size", [0, 60])
@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_whole_system(ensemble, chunk_size):
    potential, atoms = make_potential(ensemble), crystal()
    expected = reference(potential, atoms)
    domain = whole_system(atoms, CUTOFF + SKIN)
    energies, forces, virial, of_atoms, _, n_frames, *_ = drive(potential, domain, chunk_size)
    assert_same(energies, expected.atomic_energies, 1e-11)
    assert_same(forces, expected.forces, 1e-11)
    assert_same(0.5 * (virial + virial.t()), expected.virial[0], 1e-10)
    assert_same(of_atoms.sum(dim=0), virial, 1e-10)
    assert torch.equal(n_frames, potential.count_frames(batch_from_atoms([atoms], CUTOFF).graph))


@pytest.mark.parametrize("chunk_size", [0, 200])
@pytest.mark.parametrize("featurizer", FEATURIZERS)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("ensemble", ["none", "closest_pairs"])
def test_domains_add_up(ensemble, layers, featurizer, chunk_size):
    potential = make_potential(ensemble, featurizer, num_gnn_layers=layers)
    atoms = crystal()
    expected = reference(potential, atoms)
    reach = potential.pet_hypers.interaction_range
    forces, virial = torch.zeros_like(expected.forces), torch.zeros(3, 3, dtype=torch.float64)
    for own in ([0, 3, 4], [1, 2], [5], []):
        domain = domain_of(atoms, own, CUTOFF + SKIN, reach, reach)
        energies, of_domain, of_edges, of_atoms, *_ = drive(potential, domain, chunk_size)
        assert_same(energies, expected.atomic_energies[own], 1e-11)
        assert_same(of_atoms.sum(dim=0), of_edges, 1e-10)
        forces.index_add_(0, domain.source, of_domain)
        virial += of_edges
    assert_same(forces, expected.forces, 1e-10)
    assert_same(0.5 * (virial + virial.t()), expected.virial[0], 1e-10)


@pytest.mark.parametrize("featurizer", FEATURIZERS)
def test_a_shell_too_thin_is_noticed(featurizer):
    potential = make_potential("closest_pairs", featurizer, num_gnn_layers=2)
    atoms = crystal()
    reach = potential.pet_hypers.interaction_range
    own = [0, 3, 4]
    domain = domain_of(atoms, own, CUTOFF, reach, reach - 1)
    energies, *_ = drive(potential, domain)
    difference = energies - reference(potential, atoms).atomic_energies[own]
    assert difference.abs().max() > 1e-9


def test_layers_are_evaluated_no_further_than_needed(monkeypatch):
    potential = make_potential("closest_pairs", "feedforward", num_gnn_layers=2)
    domain = domain_of(crystal(), [0], CUTOFF, 3, 3)
    sizes = {}
    forward = GNNLayer.forward

    def counted(layer, *arguments):
        block = next(a for a in arguments if isinstance(a, Block))
        sizes[layer] = sizes.get(layer, 0) + len(block.atoms)
        return forward(layer, *arguments)

    monkeypatch.setattr(GNNLayer, "forward", counted)
    drive(potential, domain)
    within = domain.graph.atoms_within
    assert list(sizes.values()) == [within[2], within[1]]
    assert 1 == within[0] < within[1] < within[2] < len(domain.points)


def test_atoms_may_move_within_the_skin():
    potential, atoms = make_potential(num_gnn_layers=2), crystal()
    reach = potential.pet_hypers.interaction_range
    domain = domain_of(atoms, list(range(6)), CUTOFF + SKIN, reach, reach)
    moved = rattled(atoms.copy(), 5)
    step = torch.tensor(moved.positions - atoms.positions)
    assert 0 < step.norm(dim=1).max() < SKIN / 2
    domain = domain._replace(points=domain.points + step[domain.source])
    energies, *_ = drive(potential, domain)
    assert_same(energies, reference(potential, moved).atomic_energies, 1e-11)


def test_a_domain_that_does_not_say_how_far_its_ghosts_are_is_refused():
    potential, atoms = make_potential(num_gnn_layers=2), crystal()
    reach = potential.pet_hypers.interaction_range
    domain = domain_of(atoms, [0], CUTOFF, reach, reach)
    for known in range(1, reach - 1):
        graph = domain.graph._replace(atoms_within=domain.graph.atoms_within[:known])
        with pytest.raises(IndexError):
            drive(potential, domain._replace(graph=graph))


def test_derivatives_are_refused_without_autograd():
    potential, atoms = make_potential(), crystal()
    domain = whole_system(atoms, CUTOFF)
    with torch.no_grad(), pytest.raises(RuntimeError, match="autograd is switched off"):
        drive(potential, domain)


def test_weights_of_a_domain():
    potential, atoms = make_potential(), crystal()
    domain = domain_of(atoms, [0, 1], CUTOFF, 3, 3)
    vectors = domain.graph.edge_vectors.clone().requires_grad_(True)
    graph = domain.graph._replace(edge_vectors=vectors)
    inputs = potential.preparation(graph)
    weights = torch.tensor([2.0, -1.0], dtype=torch.float64)
    chunked = potential.evaluate([vectors], inputs, weights, True, 20)[1][0]
    inputs = potential.preparation(graph)
    whole = potential.evaluate([vectors], inputs, weights, True, 0)[1][0]
    assert_same(whole, chunked, 1e-12)


def test_edges_end_where_the_images_are():
    """Images need not be where the cell would put them: a program may displace them."""
    potential, atoms = make_potential(num_gnn_layers=2), crystal()
    strain = torch.tensor([[1.01, 0, 0.02], [-0.01, 1, 0], [0, 0.02, 0.99]], dtype=torch.float64)
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ strain.numpy(), scale_atoms=True)
    domain = whole_system(atoms, CUTOFF + SKIN)
    energies, *_ = drive(potential, domain._replace(points=domain.points @ strain))
    assert_same(energies, reference(potential, strained).atomic_energies, 1e-11)


MODELS_OF_FLUX = [
    ("none", "residual", {"num_gnn_layers": 1}),
    ("closest_pairs", "feedforward", {"num_gnn_layers": 2}),
    ("closest_pairs", "residual", {"num_gnn_layers": 3}),
    ("none", "feedforward", {"num_gnn_layers": 1, "num_neighbors_adaptive": 4.0}),
]


@pytest.mark.parametrize(("ensemble", "featurizer", "options"), MODELS_OF_FLUX)
def test_centroid_virials_move_energy(ensemble, featurizer, options):
    """d/dt sum_k r_k E_k - sum_k v_k E_k = sum_j (W_j v_j + r_j (F_j v_j)) in a molecule."""
    potential = make_potential(ensemble, featurizer, **options)
    atoms = rattled(bulk("SiO", "zincblende", a=4.8) * (3, 1, 1), 1)
    atoms.pbc = False
    velocities = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    domain = whole_system(atoms, CUTOFF + SKIN)
    domain = domain._replace(ends=domain.graph.edge_index[1], points=domain.points[:6])

    def at(time):
        moved = domain.points + time * velocities
        return moved, *drive(potential, domain._replace(points=moved), centroids=True)

    def difference(step):
        (later, e_later, *_), (sooner, e_sooner, *_) = at(step), at(-step)
        return (later.t() @ e_later - sooner.t() @ e_sooner) / (2 * step)

    now, energies, forces, virial, _, of_centroids, *_ = at(0.0)
    # Of fourth order: the switches of the frames have large third derivatives.
    change = (4 * difference(1e-4) - difference(2e-4)) / 3
    power = (forces * velocities).sum(dim=1)
    expected = change - velocities.t() @ energies
    found = torch.einsum("jab,jb->a", of_centroids, velocities) - now.t() @ power
    assert_same(found, expected, 1e-6 * float(expected.abs().max()))
    assert_same(of_centroids.sum(dim=0), -virial, 1e-10)
    # Halves of the edges are something else.
    halves = -torch.einsum("jab,jb->a", at(0.0)[4], velocities) - now.t() @ power
    assert (halves - expected).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize(("ensemble", "featurizer", "options"), MODELS_OF_FLUX)
def test_centroid_virials_of_domains_add_up(ensemble, featurizer, options):
    """For a cell smaller than the range too, in blocks too."""
    potential, atoms = make_potential(ensemble, featurizer, **options), crystal()
    reach = potential.pet_hypers.interaction_range
    sums = []
    for parts, chunk_size in (([[0, 1, 2, 3, 4, 5]], 0), ([[0, 3, 4], [1, 2], [5]], 60)):
        total = torch.zeros(6, 3, 3, dtype=torch.float64)
        for own in parts:
            domain = domain_of(atoms, own, CUTOFF + SKIN, reach, reach)
            of_centroids = drive(potential, domain, chunk_size, centroids=True)[4]
            total.index_add_(0, domain.source, of_centroids)
        sums.append(total)
    assert_same(sums[0], sums[1], 1e-10)
    assert_same(
        sums[0].sum(dim=0),
        -drive(potential, domain_of(atoms, list(range(6)), CUTOFF + SKIN, reach, reach))[2],
        1e-10,
    )


def test_centroid_virials_with_images_are_refused():
    potential, atoms = make_potential(), crystal()
    domain = whole_system(atoms, CUTOFF)
    with pytest.raises(RuntimeError, match="images are atoms"):
        drive(potential, domain, centroids=True)
