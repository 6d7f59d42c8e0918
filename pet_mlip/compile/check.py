"""Comparison of a package with the model that it was compiled from."""

from torch import Tensor

from pet_mlip.errors import UserError
from pet_mlip.export.archive import LoadedModel
from pet_mlip.export.selfcheck import cluster_topology, random_cluster
from pet_mlip.inference.precision import Precision
from pet_mlip.model.graph import Graph

ENERGY_BOUND: dict[Precision, float] = {
    "float64": 1e-10,
    "float32": 1e-6,
    "tf32": 1e-3,
    "bf16-mixed": 1e-2,
}
"""Allowed difference of atomic energies in eV, or of their ratio to the largest one."""
FORCE_BOUND: dict[Precision, float] = {
    "float64": 1e-10,
    "float32": 1e-5,
    "tf32": 1e-2,
    "bf16-mixed": 1e-1,
}
"""The same of gradients, in eV/Å."""


def check_compiled(model: LoadedModel, compiled: LoadedModel) -> None:
    """Refuse a package that does not reproduce its model, for clusters of several sizes.

    Raises:
        UserError: If energies or forces differ by more than round-off.
    """
    for n_atoms in (1, 2, 3, 12, 40):
        positions, graph = random_cluster(
            model.metadata.species, model.metadata.cutoff, n_atoms=n_atoms
        )
        positions = positions.to(model.device)
        graph = Graph(*(x.to(model.device) for x in graph))
        for chunk_size in (0, 64):
            expected = model(*graph, chunk_size=chunk_size)
            found = compiled(*graph, chunk_size=chunk_size)
            _compare(n_atoms, found, expected, model.precision)
        topology = cluster_topology(graph, model.metadata.interaction_range)
        ends = graph.edge_index[1]
        _compare(
            n_atoms,
            compiled.drive(positions, ends, topology),
            model.drive(positions, ends, topology),
            model.precision,
        )


def _compare(
    n_atoms: int, found: tuple[Tensor, ...], expected: tuple[Tensor, ...], precision: Precision
) -> None:
    bounds = {"energies": ENERGY_BOUND[precision], "forces": FORCE_BOUND[precision]}
    for (what, bound), a, b in zip(bounds.items(), found, expected, strict=False):
        if b.numel() == 0:
            continue
        error, allowed = float((a - b).abs().max()), bound * max(1.0, float(b.abs().max()))
        if not error <= allowed:
            raise UserError(
                f"The compiled model's {what} of {n_atoms} atoms differ from the model's by "
                f"{error:.1e} (allowed {allowed:.1e}): nothing was written; please report this "
                "with the model."
            )
