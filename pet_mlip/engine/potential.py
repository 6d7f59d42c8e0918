"""The potential: PET in the frames of an ensemble, plus the composition baseline."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pet_mlip.ecse.closest_pairs import ClosestPairs, Saved
from pet_mlip.ecse.frames import Frames, count_frames, identity_frames
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.pull_back import pull_back
from pet_mlip.graph.chunks import Chunk, slice_edges, split
from pet_mlip.graph.environment import Environment, build_environment, edges_of_gradient
from pet_mlip.graph.graph import Graph, check_order, count_each, pad_edges
from pet_mlip.graph.harmonics import Harmonics
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.graph.inputs import Inputs
from pet_mlip.graph.preparation import Preparation
from pet_mlip.graph.radial import RadialBasis
from pet_mlip.network.gradient import GeometryGradient
from pet_mlip.network.pet import PET, NetworkOutput
from pet_mlip.network.uncertainty import LastLayerUncertainty

BLOCK_SIZE_CPU = 2048
"""Tokens that fit into the caches at the usual widths, and keep several cores busy."""
BLOCK_SIZE_GPU = 131072
"""Tokens that keep a GPU busy."""
PIECE_SIZE_CPU = 16384
"""Centres and neighbours whose frames are found at once."""
PIECE_SIZE_GPU = 131072


class Evaluation(NamedTuple):
    """What `Potential.evaluate` found of N atoms (or, in a domain, of its own atoms)."""

    energies: Tensor
    """Atomic energies in eV, (N,) float64."""
    gradient: list[Tensor]
    """Of sum_i w_i E_i over the leaves; zeros if it was not asked for."""
    n_frames: Tensor
    """Frames of each evaluated atom, int64."""
    results: dict[str, Tensor]
    """Other results of each atom by name, (N,), (N, 3) or (N, 3, 3) float64."""
    last: Tensor
    """Last features of each atom, (N, D) float64, if they were asked for."""
    of_members: list[list[Tensor]]
    """Gradients of the members' deviations from the energy, if they were asked for."""


class Potential(nn.Module):
    """Atomic energies of a graph, E_i = composition(species_i) + scale * PET_i (+ ZBL_i), in eV.

    Geometry, frames, baselines and sums are float64; the network has its own dtype (`set_dtype`).

    Args:
        species: Atomic numbers the potential knows.
        pet: Architecture.
        symmetrization: Frame ensemble and training mode.
        subtracted: What the energies lack, since it was subtracted from the labels (as in
            d3(PBE, d3bj)). Calculators add it.
    """

    composition: Tensor
    scale: Tensor
    result_names: list[str]
    result_baselines: Tensor
    result_scales: Tensor

    def __init__(
        self,
        species: list[int],
        pet: PETHypers,
        symmetrization: SymmetrizationHypers,
        subtracted: str | None = None,
    ) -> None:
        super().__init__()
        self.species: list[int] = sorted(set(species))
        self.pet_hypers = pet
        self.symmetrization = symmetrization
        self.subtracted = subtracted
        self.preparation = Preparation(self.species, pet)
        self.cutoff = self.preparation.cutoff
        self.radial = RadialBasis(pet.num_radial, pet.cutoff)
        self.harmonics = Harmonics(pet.density_degree if pet.density_channels > 0 else -1)
        self.pet = PET(pet, len(self.species))
        self.uncertainty = LastLayerUncertainty()
        self.ensemble = ClosestPairs(pet.cutoff, symmetrization.closest_pairs)
        self.plain = symmetrization.ensemble == "none"
        """Whether the identity is every atom's only frame."""
        self.block_size_cpu = BLOCK_SIZE_CPU
        self.block_size_gpu = BLOCK_SIZE_GPU
        self.piece_size_cpu = PIECE_SIZE_CPU
        self.piece_size_gpu = PIECE_SIZE_GPU
        self.register_buffer("composition", torch.zeros(len(self.species), dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.result_names = list(pet.results)
        n_results = len(pet.results)
        baselines = torch.zeros(n_results, len(self.species), dtype=torch.float64)
        scales = torch.ones(n_results, dtype=torch.float64)
        self.register_buffer("result_baselines", baselines, persistent=n_results > 0)
        self.register_buffer("result_scales", scales, persistent=n_results > 0)

    @torch.jit.unused
    def forward(self, graph: Graph, frames: Frames | None = None) -> Tensor:
        """Compute atomic energies in eV, (N,) float64, differentiable once in the edge vectors.

        Args:
            graph: Atoms and edges; the gradient is one over ``graph.edge_vectors``.
            frames: Of every atom; by default the ensemble's.

        Raises:
            UserError: Edges are not ordered by centre.
        """
        check_order(graph)
        return self.record(graph, frames, False).energies

    def record(self, graph: Graph, frames: Frames | None, compute_last: bool) -> Evaluation:
        """Evaluate energies and other results, for autograd to differentiate any of them.

        This is for callers who differentiate by autograd, and holds all activations; `evaluate` has
        the gradient of one weighted sum of the energies. The first two derivatives are right in
        TorchScript, the first one in Python.

        Args:
            graph: Atoms and edges; the results are differentiable in ``graph.edge_vectors``.
            frames: Of every atom; None for the ensemble's.
            compute_last: Whether to return last features.
        """
        inputs = self.preparation(graph)
        pieces = [Chunk(0, inputs.reach.atoms[0], 0, inputs.centre.shape[0])]
        plain = self.plain and frames is None
        if frames is None:
            frames, _ = self.find_frames(inputs, pieces)
        weights = torch.ones_like(inputs.repulsion)
        radial = self.radial_features(inputs.distance)
        size = self._block_size(radial, 0)
        harmonics = self.harmonics(inputs.vectors, inputs.distance, radial.dtype, size)
        found: NetworkOutput = self.pet(
            inputs,
            radial,
            harmonics,
            frames,
            plain,
            weights,
            False,
            0,
            size,
            compute_last,
            self.uncertainty.posterior(False),
        )
        n_frames = count_frames(frames, inputs.reach.atoms[0])
        energies = self._add_baseline(found.energies, inputs)
        results = self._in_units(found.results, inputs)
        no_gradient: list[Tensor] = []
        of_members: list[list[Tensor]] = []
        return Evaluation(energies, no_gradient, n_frames, results, found.last, of_members)

    def evaluate(
        self,
        leaves: list[Tensor],
        inputs: Inputs,
        weights: Tensor,
        compute_gradient: bool,
        chunk_size: int,
        frames: Frames | None = None,
        training: bool = False,
        uncertainty: int = 0,
    ) -> Evaluation:
        """Evaluate energies and other results of atoms, and the gradient of sum_i w_i E_i.

        Args:
            leaves: What ``inputs`` were made from, and the gradient is taken over; they require
                grad if it is to be computed.
            inputs: The graph within the cutoff.
            weights: w_i of the N atoms or, in a domain, of its own atoms, float64.
            compute_gradient: Whether to compute it; zeros otherwise.
            chunk_size: Largest number of tokens (neighbours + 1, summed over atoms) whose
                activations are held at once; 0 for all.
            frames: Of every atom, constants; by default the ensemble's.
            training: Whether energies and gradient can be differentiated over the weights of the
                network; only outside TorchScript.
            uncertainty: 1 for last features, 2 for the members' gradients too.
        """
        radial = self.radial_features(inputs.distance)
        # What the network reads is constant for it: it has a derivative of its own.
        fixed, fixed_radial = detach(inputs), radial.detach()
        found = frames is None and not self.plain
        plain = frames is None and self.plain
        pieces = self.split(fixed, not found)
        saved: list[Saved] = []
        if frames is None:
            frames, saved = self.find_frames(fixed, pieces)
        else:
            frames = Frames(frames.atom, frames.matrix.detach(), frames.weight.detach())
        if training:
            output = self.run_network(
                fixed, fixed_radial, frames, plain, weights, compute_gradient, 0, 0
            )
        else:
            with torch.no_grad():
                output = self.run_network(
                    fixed,
                    fixed_radial,
                    frames,
                    plain,
                    weights,
                    compute_gradient,
                    chunk_size,
                    uncertainty,
                )
        n_frames = count_frames(frames, inputs.reach.atoms[0])
        energies = self._add_baseline(output.energies, fixed)
        results = self._in_units(output.results, fixed)
        of_leaves: list[list[Tensor]] = []
        if not compute_gradient:
            nothing = [torch.zeros_like(leaf) for leaf in leaves]
            return Evaluation(energies, nothing, n_frames, results, output.last, of_leaves)
        block_size = self._block_size(radial, chunk_size)
        # Only the energy itself has a repulsion.
        of_repulsion = [weights]
        of_repulsion += [torch.zeros_like(weights)] * (len(output.gradients) - 1)
        for k, gradient in enumerate(output.gradients):
            of_directions, of_lengths = self.harmonics.vjp(
                gradient.harmonics, fixed.vectors, fixed.distance, block_size
            )
            of_vectors = gradient.vectors + of_directions
            outputs = [inputs.repulsion, radial, inputs.switch]
            given = [of_repulsion[k], gradient.radial, gradient.switch]
            if found:
                through = self.pull_through_frames(fixed, pieces, frames, saved, gradient)
                of_vectors, of_lengths = of_vectors + through[0], of_lengths + through[1]
                outputs.append(inputs.frame_switch)
                given.append(through[2])
            outputs += [inputs.vectors, inputs.distance]
            given += [of_vectors, of_lengths]
            more = k + 1 < len(output.gradients)
            of_leaves.append(pull_back(outputs, given, leaves, training, more))
        return Evaluation(energies, of_leaves[0], n_frames, results, output.last, of_leaves[1:])

    def run_network(
        self,
        inputs: Inputs,
        radial: Tensor,
        frames: Frames,
        plain: bool,
        weights: Tensor,
        compute_gradient: bool,
        chunk_size: int,
        uncertainty: int,
    ) -> NetworkOutput:
        """Evaluate the network, without baselines; see `evaluate`."""
        block_size = self._block_size(radial, chunk_size)
        found: NetworkOutput = self.pet(
            inputs,
            radial,
            self.harmonics(inputs.vectors, inputs.distance, radial.dtype, block_size),
            frames,
            plain,
            weights * self.scale,
            compute_gradient,
            chunk_size,
            block_size,
            uncertainty > 0,
            self.uncertainty.posterior(uncertainty > 1),
        )
        return found

    def _add_baseline(self, energies: Tensor, inputs: Inputs) -> Tensor:
        of_species = self.composition.index_select(0, inputs.species[: energies.shape[0]])
        return self.scale * energies + of_species + inputs.repulsion

    def _in_units(self, results: dict[str, Tensor], inputs: Inputs) -> dict[str, Tensor]:
        """Scale the results and add their baselines, to scalars and to the diagonals of tensors."""
        found: dict[str, Tensor] = {}
        for k, name in enumerate(self.result_names):
            value = results[name] * self.result_scales[k]
            baseline = self.result_baselines[k].index_select(0, inputs.species[: value.shape[0]])
            if value.dim() == 1:
                value = value + baseline
            elif value.dim() == 3:
                value = value + torch.diag_embed(baseline.unsqueeze(1).expand(-1, 3))
            found[name] = value
        return found

    def _block_size(self, radial: Tensor, chunk_size: int) -> int:
        size = self.block_size_gpu if radial.is_cuda else self.block_size_cpu
        return min(size, chunk_size) if chunk_size > 0 else size

    def split(self, inputs: Inputs, whole: bool) -> list[Chunk]:
        """Share out the centres whose frames are found together."""
        n_atoms = inputs.reach.atoms[0]
        if whole or n_atoms == 0:
            return [Chunk(0, n_atoms, 0, inputs.centre.shape[0])]
        n_neighbors = count_each(inputs.centre, n_atoms)
        first_edge = torch.cat([torch.zeros_like(n_neighbors[:1]), n_neighbors.cumsum(0)])
        piece_size = self.piece_size_gpu if n_neighbors.is_cuda else self.piece_size_cpu
        return split(n_neighbors + 1, first_edge, piece_size)

    def find_frames(self, inputs: Inputs, pieces: list[Chunk]) -> tuple[Frames, list[Saved]]:
        """Find the frames of all centres, differentiable if the inputs are.

        What their derivative needs is larger than they are: it is kept only if there is one piece.
        """
        saved: list[Saved] = []
        if self.plain:
            return identity_frames(inputs.reach.atoms[0], inputs.vectors.device), saved
        if len(pieces) == 1:
            frames, of_piece = self.ensemble.find(environment_of(inputs, pieces[0]))
            saved.append(of_piece)
            return frames, saved
        atom: list[Tensor] = []
        matrix: list[Tensor] = []
        weight: list[Tensor] = []
        for piece in pieces:
            found = self.ensemble(environment_of(inputs, piece))
            atom.append(found.atom + piece.atom_start)
            matrix.append(found.matrix)
            weight.append(found.weight)
        return Frames(torch.cat(atom), torch.cat(matrix), torch.cat(weight)), saved

    def pull_through_frames(
        self,
        inputs: Inputs,
        pieces: list[Chunk],
        frames: Frames,
        saved: list[Saved],
        gradient: GeometryGradient,
    ) -> list[Tensor]:
        """Compute what comes through the frames of the gradient over vectors, distance, switch."""
        if len(saved) == 1:
            return self.edge_gradient(gradient.matrix, gradient.weight, saved[0])
        ends = torch.tensor([piece.atom_end for piece in pieces]).to(frames.atom.device)
        frame_ends: list[int] = torch.searchsorted(frames.atom, ends).tolist()
        found: list[list[Tensor]] = []
        start = 0
        for piece, end in zip(pieces, frame_ends):  # noqa: B905 (TorchScript)
            _, of_piece = self.ensemble.find(environment_of(inputs, piece))
            matrix, weight = gradient.matrix[start:end], gradient.weight[start:end]
            found.append(self.edge_gradient(matrix, weight, of_piece))
            start = end
        return [torch.cat([of_piece[k] for of_piece in found]) for k in range(3)]

    def edge_gradient(self, grad_matrix: Tensor, grad_weight: Tensor, saved: Saved) -> list[Tensor]:
        """Take a gradient over frames to vectors, distance and switch of the edges."""
        of_environment = self.ensemble.vjp(grad_matrix, grad_weight, saved)
        return edges_of_gradient(of_environment, saved.environment.padding)

    def radial_features(self, distance: Tensor) -> Tensor:
        """Distance and radial functions of each edge, (E, 1 + size), in the network's dtype."""
        features = distance.unsqueeze(1)
        if self.radial.size > 0:
            features = torch.cat([features, self.radial(distance)], dim=1)
        return features.to(self.pet.edge_embedder.weight.dtype)

    @torch.jit.unused
    def set_baseline(self, composition: dict[int, float], scale: float) -> None:
        """Set the energy of each species (eV per atom) and the scale of the network (eV)."""
        values = [composition[z] for z in self.species]
        self.composition.copy_(torch.tensor(values, dtype=torch.float64))
        self.scale.fill_(scale)

    @torch.jit.unused
    def set_result_baseline(self, name: str, baseline: dict[int, float], scale: float) -> None:
        """Set a result's value of each species and the scale of its readout, in its unit."""
        k = self.result_names.index(name)
        values = [baseline[z] for z in self.species]
        self.result_baselines[k] = torch.tensor(values, dtype=torch.float64)
        self.result_scales[k] = scale

    @torch.jit.unused
    def scales_of_results(self) -> dict[str, float]:
        """Return the scale of each result that is no energy, in its unit."""
        return dict(zip(self.result_names, self.result_scales.tolist(), strict=True))

    @torch.jit.unused
    def set_dtype(self, dtype: torch.dtype) -> "Potential":
        """Cast the network; geometry, frames and baselines stay float64."""
        self.pet.to(dtype)
        return self

    @torch.jit.unused
    def n_parameters(self) -> int:
        """Count the weights of the network."""
        return sum(p.numel() for p in self.pet.parameters())

    @torch.jit.unused
    def count_frames(self, graph: Graph) -> Tensor:
        """Count the frames of each atom, (N,) int64."""
        with torch.no_grad():
            return count_frames(self.layer_frames(graph), graph.species.shape[0])

    @torch.jit.unused
    def layer_frames(self, graph: Graph) -> Frames:
        """Find the ensemble of every atom, differentiable in the edge vectors."""
        inputs = self.preparation(graph)
        whole = Chunk(0, inputs.reach.atoms[0], 0, inputs.centre.shape[0])
        return self.find_frames(inputs, [whole])[0]

    @torch.jit.unused
    def config(self) -> dict[str, Any]:
        """Describe everything but the numbers, as plain JSON types."""
        return {
            "species": self.species,
            "pet": self.pet_hypers.model_dump(),
            "symmetrization": self.symmetrization.model_dump(),
            "subtracted": self.subtracted,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Potential":
        """Build the architecture that `config` describes; load the numbers with a state dict."""
        return cls(
            config["species"],
            PETHypers(**config["pet"]),
            SymmetrizationHypers(**config["symmetrization"]),
            config["subtracted"],
        )


def environment_of(inputs: Inputs, piece: Chunk) -> Environment:
    """Gather the environments of some centres."""
    centre = slice_edges(inputs.centre, piece) - piece.atom_start
    return build_environment(
        slice_edges(inputs.vectors, piece),
        slice_edges(inputs.distance, piece),
        slice_edges(inputs.frame_switch, piece),
        pad_edges(centre, piece.atom_end - piece.atom_start),
    )


def detach(inputs: Inputs) -> Inputs:
    """The same numbers as constants."""
    return Inputs(
        inputs.species,
        inputs.electronic,
        inputs.centre,
        inputs.neighbor_species,
        inputs.reverse,
        inputs.vectors.detach(),
        inputs.distance.detach(),
        inputs.switch.detach(),
        inputs.frame_switch.detach(),
        inputs.repulsion.detach(),
        inputs.reach,
    )
