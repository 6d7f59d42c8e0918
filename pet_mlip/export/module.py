"""The exported contract: tensors in, energies and their derivatives out."""

import torch
from torch import Tensor, nn

from pet_mlip.engine.derivatives import forces_from_edge_gradient
from pet_mlip.engine.potential import Evaluation, Potential
from pet_mlip.graph.graph import Graph, electronic_state, sort_edges


class ExportedModel(nn.Module):
    """What `model.pt` holds. Every tensor lives on the module's device.

    `forward` takes edges and gives the derivative over them; `drive` takes positions and gives
    forces, for programs that keep a neighbour list while atoms move.

    TorchScript cannot switch autograd on: call it with grad mode enabled, and never in inference
    mode, if derivatives are asked for (`pet_mlip.export.LoadedModel` sees to that); it raises
    otherwise.
    """

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(
        self,
        species: Tensor,
        edge_index: Tensor,
        edge_vectors: Tensor,
        edge_shifts: Tensor,
        electronic: Tensor | None = None,
        weights: Tensor | None = None,
        compute_gradient: bool = True,
        chunk_size: int = 0,
        reverse: Tensor | None = None,
        uncertainty: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]:
        """Energies, their gradient, the results that are not energies, and uncertainties.

        Args:
            species: Atomic numbers, (N,) int64; all known to the model.
            edge_index: Centre and neighbour of each directed edge, (2, E) int64.
            edge_vectors: r_j - r_i + shift @ cell in Å, (E, 3), evaluated in float64; edges beyond
                the cutoff are allowed.
            edge_shifts: Cell shifts, (E, 3) int64; not read if the reverse edges are given.
            electronic: Total charge and spin multiplicity of each atom's structure, (N, 2) int64,
                for models that depend on them; neutral singlets by default.
            weights: w_i of the energy to differentiate, (N,) float64; ones by default.
            compute_gradient: Whether to compute the gradient; zeros are returned otherwise.
            chunk_size: Largest number of attention tokens, neighbours + 1 summed over atoms, whose
                activations are held at once; 0 holds all.
            reverse: The edge (j, i, -S) of each edge, (E,) int64, for callers who keep a list: the
                edges are then ordered by centre, and neither sorted nor searched.
            uncertainty: 1 for those of energies, 2 for those of the gradient too.

        Returns:
            Atomic energies E_i in eV, (N,) float64; d(sum_i w_i E_i)/d(edge_vectors) in eV/Å,
            (E, 3) float64; number of frames of each atom, (N,) int64; other results of each atom by
            name, (N,), (N, 3) or (N, 3, 3) float64; vectors a_i in eV, (N, D) float64, whose
            norms are the uncertainties of E_i, and the norm of whose sum is that of a sum of
            energies; and by how much K members deviate from that gradient, whatever the weights, in
            eV/Å, (K, E, 3) float64, scaled such that their mean square is a variance. The last two
            are empty if not asked for.

        Raises:
            RuntimeError: Autograd is off, the model does not know its uncertainty, or that of the
                gradient is asked for without it.
        """
        require_autograd(compute_gradient)
        self.require_uncertainty(uncertainty)
        if uncertainty > 1 and not compute_gradient:
            raise RuntimeError("the uncertainty of a gradient needs compute_gradient")
        vectors = edge_vectors.detach().to(torch.float64).requires_grad_(compute_gradient)
        if electronic is None:
            electronic = electronic_state(species.shape[0]).to(species.device)
        if reverse is None:
            cutoff = self.potential.cutoff
            graph = sort_edges(species, edge_index, vectors, edge_shifts, electronic, cutoff)
        else:
            within = [species.shape[0]]
            graph = Graph(species, edge_index, vectors, reverse, electronic, within)
        inputs = self.potential.preparation(graph)
        if weights is None:
            weights = torch.ones_like(species, dtype=torch.float64)
        found = self.potential.evaluate(
            [vectors], inputs, weights, compute_gradient, chunk_size, None, False, uncertainty
        )
        return (
            found.energies,
            found.gradient[0],
            found.n_frames,
            found.results,
            self.vectors(found, species, uncertainty),
            stack_gradients(found.of_members, vectors),
        )

    @torch.jit.export
    def evaluate_domain(
        self,
        edge_vectors: Tensor,
        edge_distances: Tensor,
        species: Tensor,
        edge_index: Tensor,
        reverse: Tensor,
        atoms_within: list[int],
        electronic: Tensor | None = None,
        compute_gradient: bool = True,
        chunk_size: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Energies of some atoms only, from as much of their surroundings as they depend on.

        Args:
            edge_vectors: In Å, (E, 3) float64; possibly projected.
            edge_distances: Lengths in Å before any projection, (E,) float64.
            species: Atomic numbers, (N,) int64; the atoms asked for come first.
            edge_index: As in `drive`.
            reverse: As in `drive`.
            atoms_within: As in `drive`.
            electronic: As in `forward`.
            compute_gradient: As in `forward`.
            chunk_size: As in `forward`.

        Returns:
            Their energies in eV, (atoms_within[0],); the derivatives of the sum of them over
            vectors (E, 3) and distances (E,) in eV/Å, float64; frames of each evaluated atom.
        """
        require_autograd(compute_gradient)
        if electronic is None:
            electronic = electronic_state(species.shape[0]).to(species.device)
        vectors = edge_vectors.detach().requires_grad_(compute_gradient)
        distances = edge_distances.detach().requires_grad_(compute_gradient)
        graph = Graph(species, edge_index, vectors, reverse, electronic, atoms_within)
        inputs = self.potential.preparation(graph, distances)
        weights = torch.ones_like(species[: atoms_within[0]], dtype=torch.float64)
        found = self.potential.evaluate(
            [vectors, distances], inputs, weights, compute_gradient, chunk_size
        )
        return found.energies, found.gradient[0], found.gradient[1], found.n_frames

    @torch.jit.export
    def drive(
        self,
        points: Tensor,
        ends: Tensor,
        species: Tensor,
        edge_index: Tensor,
        reverse: Tensor,
        atoms_within: list[int],
        atomic_virials: bool = False,
        centroid_virials: bool = False,
        chunk_size: int = 0,
        charge: int = 0,
        spin_multiplicity: int = 1,
        uncertainty: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]:
        """Energies, forces and virials of a domain of a molecular dynamics simulation.

        The domain's own atoms come first, then ghosts in the order of how many edges away they
        are; a whole periodic system has no ghosts. Edges lead to points: the atoms, and images of
        them that are no atoms of their own. Everything but the points stays the same as long as
        the neighbour list does.

        Two divisions of the virial among the atoms are known. The atomic virials share each edge
        equally between its two atoms. The centroid virials are those that the heat flux needs,

            W_j = sum_k (r_k - r_j) (x) dE_k/dr_j ,

        so that sum_k r_k dE_k/dt is sum_j W_j v_j plus what the forces do to kinetic energies.
        They take three more derivatives, those of sum_k r_k^a E_k for a = x, y, z, and need a
        domain without images: r_k - r_j is that of the atom and the image it acts on.

        Args:
            points: Where the N atoms are and, after them, those images, in Å, (P, 3) float64.
            ends: Point at which each edge ends: the neighbour or one of its images, (E,) int64.
            species: Atomic numbers, (N,) int64; all known to the model.
            edge_index: Directed edges of all atoms but the farthest ghosts, ordered by centre,
                (2, E) int64; those beyond the cutoff have no effect.
            reverse: The edge back of each edge, (E,) int64; -1 if j is a farthest ghost.
            atoms_within: How many atoms are at most 0, 1, ... (the model's interaction range less
                one) edges away from the domain's own.
            atomic_virials: Whether to compute atomic virials.
            centroid_virials: Whether to compute centroid virials.
            chunk_size: As in `forward`.
            charge: Total charge of the whole system, for models that depend on it.
            spin_multiplicity: 2S + 1 of the whole system, for models that depend on it.
            uncertainty: As in `forward`.

        Returns:
            Atomic energies of the domain's own atoms in eV, (atoms_within[0],); minus the gradient
            of their sum over all atoms in eV/Å, (N, 3); its virial sum r_ij (x) dE/dr_ij in
            eV, (3, 3); atomic virials of the same sign, (N, 3, 3) or (0, 3, 3); centroid virials
            W_j of the opposite sign, that of r (x) F, (N, 3, 3) or (0, 3, 3); all float64; the
            number of frames of each evaluated atom, int64; other results of the domain's own atoms
            by name, as in `forward`; g_i a_i of these atoms, (atoms_within[0], D); and by how much
            the forces of K members deviate, (K, N, 3) in eV/Å, to be summed over domains before
            they are squared.

        Raises:
            RuntimeError: Autograd is off, centroid virials are asked for with images, or the model
                does not know its uncertainty.
        """
        require_autograd(True)
        self.require_uncertainty(uncertainty)
        state = electronic_state(species.shape[0], charge, spin_multiplicity).to(species.device)
        n_atoms, n_own = species.shape[0], atoms_within[0]
        centre, neighbor = edge_index[0], edge_index[1]
        points = points.detach()
        vectors = points.index_select(0, ends) - points.index_select(0, centre)
        graph = Graph(species, edge_index, vectors, reverse, state, atoms_within)
        weights = torch.ones_like(species[:n_own], dtype=torch.float64)
        found = self.differentiate(graph, weights, chunk_size, uncertainty)
        gradient = found.gradient[0]
        forces = forces_from_edge_gradient(gradient, edge_index, n_atoms)
        virial = vectors.t() @ gradient
        of_members = [
            forces_from_edge_gradient(member[0], edge_index, n_atoms) for member in found.of_members
        ]
        deviations = forces.new_zeros(0, n_atoms, 3)
        if len(of_members) > 0:
            deviations = torch.stack(of_members)
        none = torch.zeros(0, 3, 3, dtype=torch.float64, device=points.device)
        of_atoms, of_centroids = none, none
        if atomic_virials:
            outer = 0.5 * vectors.unsqueeze(2) * gradient.unsqueeze(1)
            of_atoms = torch.zeros(n_atoms, 3, 3, dtype=outer.dtype, device=outer.device)
            of_atoms = of_atoms.index_add(0, centre, outer).index_add(0, neighbor, outer)
        if centroid_virials:
            if not torch.equal(ends, neighbor):
                raise RuntimeError("centroid virials need a domain whose images are atoms")
            # Products with positions stay small if these are measured from the domain's middle.
            positions = points[:n_atoms] - points[:n_own].mean(dim=0)
            moments: list[Tensor] = []
            for axis in range(3):
                of_moment = self.differentiate(graph, positions[:n_own, axis], chunk_size, 0)
                moments.append(of_moment.gradient[0])
            # sum_k (r_k - r_i) (x) dE_k/dr_e of the edge e from i to j; then r_k - r_j.
            of_edges = torch.stack(moments, dim=1)
            of_edges = of_edges - positions.index_select(0, centre).unsqueeze(
                2
            ) * gradient.unsqueeze(1)
            at_neighbor = of_edges - vectors.unsqueeze(2) * gradient.unsqueeze(1)
            of_centroids = torch.zeros(n_atoms, 3, 3, dtype=vectors.dtype, device=vectors.device)
            of_centroids = of_centroids.index_add(0, neighbor, at_neighbor)
            of_centroids = of_centroids.index_add(0, centre, -of_edges)
        return (
            found.energies,
            forces,
            virial,
            of_atoms,
            of_centroids,
            found.n_frames,
            found.results,
            self.vectors(found, species, uncertainty),
            deviations,
        )

    def require_uncertainty(self, uncertainty: int) -> None:
        """Raise if it is asked for and not known."""
        if uncertainty > 0 and not self.potential.uncertainty.known():
            raise RuntimeError(
                "the model does not know its uncertainty: see `pet-mlip uncertainty`"
            )

    def vectors(self, found: Evaluation, species: Tensor, uncertainty: int) -> Tensor:
        """Compute the vectors g_i a_i whose norms are uncertainties; nothing if not asked for."""
        last = found.last
        if uncertainty == 0:
            return last
        own = self.potential.preparation.species_index[species[: last.shape[0]]]
        return self.potential.uncertainty(last, own)

    def differentiate(
        self, graph: Graph, weights: Tensor, chunk_size: int, uncertainty: int
    ) -> Evaluation:
        """Evaluate a domain's own atoms, with d(sum_i w_i E_i)/d(vectors)."""
        vectors = graph.edge_vectors.detach().requires_grad_(True)
        moving = Graph(
            graph.species,
            graph.edge_index,
            vectors,
            graph.reverse,
            graph.electronic,
            graph.atoms_within,
        )
        inputs = self.potential.preparation(moving)
        return self.potential.evaluate(
            [vectors], inputs, weights, True, chunk_size, None, False, uncertainty
        )


def stack_gradients(gradients: list[list[Tensor]], leaf: Tensor) -> Tensor:
    """Return the gradients over the only leaf (E, 3), one row each; (0, E, 3) without any."""
    if len(gradients) == 0:
        return torch.zeros_like(leaf).unsqueeze(0)[:0]
    return torch.stack([gradient[0] for gradient in gradients])


def require_autograd(compute_gradient: bool) -> None:
    """Raise where the gradient would silently be zero."""
    if compute_gradient and not torch.is_grad_enabled():
        raise RuntimeError("the gradient was asked for, but autograd is switched off")
