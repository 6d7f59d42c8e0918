"""Comparison of an exported model with the eager one it was made from."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pet_mlip.engine.derivatives import forces_from_edge_gradient
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.graph.graph import Graph, electronic_state, find_reverse
from pet_mlip.network.uncertainty import offsets

if TYPE_CHECKING:
    from pet_mlip.export.archive import LoadedModel

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}


class Expected(NamedTuple):
    """What the eager model says of a cluster of atoms."""

    positions: Tensor
    """In Å, (N, 3) float64."""
    graph: Graph
    energies: Tensor
    """In eV, (N,)."""
    gradient: Tensor
    """Of their sum over the edge vectors in eV/Å, (E, 3)."""
    forces: Tensor
    """In eV/Å, (N, 3)."""
    size: float
    """The largest energy that is the network's own, and not the baseline's."""


def expect(eager: Potential) -> Expected:
    """Evaluate a random cluster of the model's elements by autograd."""
    positions, graph = random_cluster(eager.species, eager.cutoff)
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    with torch.enable_grad():
        energies = eager(graph._replace(edge_vectors=vectors))
        (gradient,) = torch.autograd.grad(energies.sum(), vectors)
    energies = energies.detach()
    baseline = eager.composition[eager.preparation.species_index[graph.species]]
    forces = forces_from_edge_gradient(gradient, graph.edge_index, len(positions))
    return Expected(positions, graph, energies, gradient, forces, _largest(energies - baseline))


def check_exported(eager: Potential, exported: "LoadedModel") -> None:
    """Refuse an exported model that differs from the eager one, in one piece or in chunks.

    Raises:
        UserError: If energies, gradients or other results differ by more than round-off.
    """
    positions, graph, energies, gradient, forces, size = expect(eager)
    vectors = graph.edge_vectors.clone().requires_grad_(True)
    level = 2 if eager.uncertainty.known() else 0
    with torch.enable_grad():
        evaluation = eager.evaluate(
            [vectors],
            eager.preparation(graph._replace(edge_vectors=vectors)),
            torch.ones_like(energies),
            True,
            0,
            uncertainty=level,
        )
    results = evaluation.results
    own = eager.preparation.species_index[graph.species]
    of_edges = [gradient[0] for gradient in evaluation.of_members]
    of_atoms, rounded = _uncertainties(eager, evaluation.last, own)
    found, found_gradient = _evaluate_in_another_order(graph, exported)
    compare("energies", found, energies, size, exported.dtype)
    compare("forces", found_gradient, gradient, _largest(gradient), exported.dtype)
    for chunk_size in (0, 64):
        found, found_gradient, _, others, found_vectors, deviations = exported(
            graph, chunk_size=chunk_size, uncertainty=level
        )
        if level > 0:
            size_of_atoms = rounded * _largest(of_atoms)
            compare("uncertainties", found_vectors, of_atoms, size_of_atoms, exported.dtype)
            expected = torch.stack(of_edges)
            what = "uncertainties of forces"
            compare(what, deviations, expected, rounded * _largest(expected), exported.dtype)
        compare("energies", found, energies, size, exported.dtype)
        compare("forces", found_gradient, gradient, _largest(gradient), exported.dtype)
        for name, expected in results.items():
            compare(name, others[name], expected, _largest(expected), exported.dtype)

    n_atoms = len(graph.species)
    found, found_forces, *_, others, found_vectors, deviations = exported.drive(
        positions, graph.edge_index[1], graph, uncertainty=level
    )
    if level > 0:
        size_of_atoms = rounded * _largest(of_atoms)
        compare("uncertainties", found_vectors, of_atoms, size_of_atoms, exported.dtype)
        expected = torch.stack(
            [forces_from_edge_gradient(g, graph.edge_index, n_atoms) for g in of_edges]
        )
        what = "uncertainties of forces"
        compare(what, deviations, expected, rounded * _largest(expected), exported.dtype)
    for name, expected in results.items():
        compare(name, others[name], expected, _largest(expected), exported.dtype)
    compare("energies", found, energies, size, exported.dtype)
    compare("forces", found_forces, forces, _largest(gradient), exported.dtype)


def _evaluate_in_another_order(graph: Graph, exported: "LoadedModel") -> tuple[Tensor, Tensor]:
    """Energies and gradient by edges that are not sorted, without their reverse ones."""
    n_edges = graph.edge_index.shape[1]
    order = torch.randperm(n_edges, generator=torch.Generator().manual_seed(0))
    with torch.enable_grad(), torch.jit.optimized_execution(False):
        energies, gradient, *_ = exported.module(
            graph.species,
            graph.edge_index[:, order],
            graph.edge_vectors[order],
            torch.zeros(n_edges, 3, dtype=torch.int64),
        )
    return energies, gradient[torch.argsort(order)]


def _uncertainties(eager: Potential, last: Tensor, species: Tensor) -> tuple[Tensor, float]:
    """Vectors g_i a_i of atoms, and how many times larger than round-off their error may be.

    What the training data fix only weakly is a small difference of large products, and it counts
    twice where g_i grows with it.
    """
    if not eager.uncertainty.known():
        return last, 1.0
    posterior = eager.uncertainty.posterior(False)
    offset = offsets(posterior, last, species)
    terms = (last - posterior.mean[species]).abs() @ posterior.whitening.abs().t()
    return eager.uncertainty(last, species), 2.0 * _largest(terms) / max(_largest(offset), 1e-30)


def _largest(values: Tensor) -> float:
    return float(values.abs().max())


def compare(what: str, found: Tensor, expected: Tensor, size: float, dtype: torch.dtype) -> None:
    """Refuse numbers that differ by more than round-off.

    Args:
        what: Name of the numbers.
        found: The exported model's.
        expected: The eager model's.
        size: What the difference is measured against.
        dtype: Of the network.

    Raises:
        UserError: If they do.
    """
    error = float((found - expected).abs().max())
    bound = TOLERANCE[dtype] * max(size, 1e-3)
    if not error <= bound:
        raise UserError(
            f"The exported model's {what} differ from the eager model's by {error:.1e} (allowed "
            f"{bound:.1e}): nothing was written; please report this with the checkpoint."
        )


def random_cluster(species: list[int], cutoff: float, n_atoms: int = 12) -> tuple[Tensor, Graph]:
    """Positions of atoms on a jittered grid, none closer than 0.3 cutoffs; every pair as edges."""
    generator = torch.Generator().manual_seed(0)
    cell = torch.arange(n_atoms)
    grid = torch.stack([cell % 3, (cell // 3) % 3, cell // 9], dim=1).to(torch.float64)
    jitter = torch.rand(n_atoms, 3, generator=generator, dtype=torch.float64) - 0.5
    positions = (grid + 0.4 * jitter) * 0.45 * cutoff
    drawn = torch.randint(len(species), (n_atoms,), generator=generator)
    pairs = torch.nonzero(~torch.eye(n_atoms, dtype=torch.bool)).t().contiguous()
    return positions, Graph(
        torch.tensor(species)[drawn],
        pairs,
        positions[pairs[1]] - positions[pairs[0]],
        find_reverse(pairs, torch.zeros(pairs.shape[1], 3, dtype=torch.int64), n_atoms),
        electronic_state(n_atoms),
        [n_atoms],
    )
