"""The network is what a slow and obvious one is, with its derivatives."""

import pytest
import torch
from golden_models import ARCHITECTURES, make_potential, make_structures
from model_tools import ENSEMBLES, dense_crystal
from reference_pet import reference_energies

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.engine.derivatives import predict

LOSSES = [
    "default",
    "residual",
    "post_norm_layer",
    "pre_norm_layer",
    "wide",
    "adaptive",
    "few_directions",
    "wide_cutoff",
    "wide_adaptive",
    "density",
    "density_bounded",
    "density_residual",
]
CASES = [("ethanol", 0), ("skewed", 30), ("slab", 0), ("atom", 0)]


def graph_of(potential, atoms):
    graph = batch_from_atoms([atoms], potential.cutoff).graph
    if potential.pet_hypers.system_conditioning:
        graph = graph._replace(electronic=graph.electronic + torch.tensor([1, 1]))
    return graph._replace(edge_vectors=graph.edge_vectors.requires_grad_(True))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("structure", "block_size"), CASES)
def test_energies_and_gradient(architecture, ensemble, structure, block_size):
    potential = make_potential(architecture, ensemble)
    graph = graph_of(potential, make_structures()[structure])
    expected = reference_energies(potential, graph)
    (gradient,) = torch.autograd.grad(
        expected.sum(), graph.edge_vectors, materialize_grads=True, allow_unused=True
    )
    inputs = potential.preparation(graph)
    weights = torch.ones_like(expected).detach()
    found, (found_gradient,), *_ = potential.evaluate(
        [graph.edge_vectors], inputs, weights, True, block_size
    )
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize(
    ("architecture", "name"),
    [("default", "dense")] + [(name, "ethanol") for name in LOSSES],
)
def test_gradients_of_a_loss_of_forces(architecture, name, ensemble):
    """Once through forward and vjp, as training does, and twice through autograd."""
    potential = make_potential(architecture, ensemble)
    atoms = dense_crystal() if name == "dense" else make_structures()[name]
    graph = graph_of(potential, atoms)
    structure = torch.zeros(len(atoms), dtype=torch.int64)
    draw = torch.randn(len(atoms), 3, generator=torch.Generator().manual_seed(0)).double()

    def loss(energies, forces):
        return (0.3 * energies.sum() ** 2 + ((forces - draw) ** 2).sum()) / 100

    parameters = [p for p in potential.pet.parameters() if p.requires_grad and p.numel() > 0]
    expected = reference_energies(potential, graph)
    (gradient,) = torch.autograd.grad(expected.sum(), graph.edge_vectors, create_graph=True)
    centre, neighbour = graph.edge_index
    forces = torch.zeros(len(atoms), 3).double()
    forces = forces.index_add(0, centre, gradient).index_add(0, neighbour, -gradient)
    wanted = torch.autograd.grad(loss(expected, forces), parameters, allow_unused=True)
    found = predict(potential, graph, structure, 1, training=True)
    grads = torch.autograd.grad(
        loss(found.atomic_energies, found.forces), parameters, allow_unused=True
    )
    assert not any(g is None for g in grads)
    for a, b in zip(grads, wanted, strict=True):
        size = float(b.abs().max())
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9 * max(size, 1.0))


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_graph_of_the_gradient_is_refused(architecture, ensemble):
    """It would lack what torch's own once_differentiable lets pass, and be wrong."""
    potential = make_potential(architecture, ensemble)
    graph = graph_of(potential, make_structures()["ethanol"])
    with pytest.raises(RuntimeError, match="cannot differentiate this network twice"):
        torch.autograd.grad(potential(graph).sum(), graph.edge_vectors, create_graph=True)
