"""Energies and their gradient: geometry and frames by autograd, the network by its own."""

import torch
from torch import Tensor, nn

from pet_mlip.ecse.axis_plane import Plain
from pet_mlip.ecse.frames import Frames, count_frames, identity_frames
from pet_mlip.inference.gradient import GeometryGradient
from pet_mlip.inference.network import Network
from pet_mlip.model.chunks import Chunk, slice_edges, split
from pet_mlip.model.environment import build_environment
from pet_mlip.model.graph import count_each, pad_edges
from pet_mlip.model.inputs import Inputs
from pet_mlip.model.layer import GNNLayer
from pet_mlip.model.potential import Potential

BLOCK_SIZE_CPU = 2048
"""Tokens that fit into the caches at the usual widths, and keep several cores busy."""
BLOCK_SIZE_GPU = 131072
"""Tokens that keep a GPU busy."""
PIECE_SIZE_CPU = 16384
"""Centres and neighbours whose frames are found at once."""
PIECE_SIZE_GPU = 131072


class Evaluator(nn.Module):
    """Evaluates a `Potential` whose network has been made ready for inference."""

    composition: Tensor
    scale: Tensor

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        first = potential.pet.layers[0]
        assert isinstance(first, GNNLayer)
        self.radial = first.radial
        self.ensemble = potential.ensemble
        self.plain = isinstance(potential.ensemble, Plain)
        self.network = Network(potential.pet)
        self.block_size_cpu = BLOCK_SIZE_CPU
        self.block_size_gpu = BLOCK_SIZE_GPU
        self.piece_size_cpu = PIECE_SIZE_CPU
        self.piece_size_gpu = PIECE_SIZE_GPU
        self.register_buffer("composition", potential.composition.clone())
        self.register_buffer("scale", potential.scale.clone())

    def forward(
        self,
        leaves: list[Tensor],
        inputs: Inputs,
        weights: Tensor,
        compute_gradient: bool,
        chunk_size: int,
        plain: bool = False,
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Atomic energies (N,), the gradient of sum_i w_i E_i, frames of the centres.

        Args:
            leaves: What ``inputs`` were made from, and the gradient is taken over; they require
                grad if it is to be computed.
            inputs: The graph within the cutoff.
            weights: w_i of the N atoms or, in a domain, of its own atoms, float64.
            compute_gradient: Whether to compute it; zeros otherwise.
            chunk_size: Largest number of tokens (frames x (neighbours + 1), summed over atoms)
                whose activations are held at once; 0 for all.
            plain: Evaluate the plain model: one frame per atom, the identity.
        """
        plain = plain or self.plain
        pieces = self.split(inputs, plain)
        frames = self.find_frames(inputs, pieces, plain)
        radial = self.radial_features(inputs.distance)
        block_size = self.block_size_gpu if radial.is_cuda else self.block_size_cpu
        if chunk_size > 0:
            block_size = min(block_size, chunk_size)
        with torch.no_grad():
            energies, gradient = self.network(
                inputs,
                radial.detach(),
                Frames(frames.atom, frames.matrix.detach(), frames.weight.detach()),
                plain,
                weights * self.scale,
                compute_gradient,
                chunk_size,
                block_size,
            )
            of_species = self.composition.index_select(0, inputs.species[: weights.shape[0]])
            energies = self.scale * energies + of_species + inputs.repulsion.detach()
        n_frames = count_frames(frames, inputs.reach.atoms[0])
        if not compute_gradient:
            return energies, chain([], [], leaves), n_frames
        outputs = [inputs.repulsion, radial, inputs.distance]
        of_distance = torch.zeros_like(inputs.distance)
        given = [weights, gradient.radial, of_distance]
        if len(pieces) == 1:
            outputs += [frames.matrix, frames.weight]
            given += [gradient.matrix, gradient.weight]
        else:
            self.add_through_frames(inputs, pieces, frames, gradient, of_distance)
        outputs += [inputs.vectors, inputs.switch]
        given += [gradient.vectors, gradient.switch]
        return energies, chain(outputs, given, leaves), n_frames

    def split(self, inputs: Inputs, plain: bool) -> list[Chunk]:
        """Centres whose frames are found together."""
        n_atoms = inputs.reach.atoms[0]
        if plain or n_atoms == 0:
            return [Chunk(0, n_atoms, 0, inputs.centre.shape[0])]
        n_neighbors = count_each(inputs.centre, n_atoms)
        first_edge = torch.cat([torch.zeros_like(n_neighbors[:1]), n_neighbors.cumsum(0)])
        piece_size = self.piece_size_gpu if n_neighbors.is_cuda else self.piece_size_cpu
        return split(n_neighbors + 1, first_edge, piece_size)

    def find_frames(self, inputs: Inputs, pieces: list[Chunk], plain: bool) -> Frames:
        """Frames of all centres; differentiable if they are found in one piece."""
        if plain:
            return identity_frames(inputs.reach.atoms[0], inputs.vectors.device)
        if len(pieces) == 1:
            return self.frames_of(
                pieces[0], inputs.centre, inputs.vectors, inputs.distance, inputs.switch
            )
        atom: list[Tensor] = []
        matrix: list[Tensor] = []
        weight: list[Tensor] = []
        with torch.no_grad():
            for piece in pieces:
                found = self.frames_of(
                    piece,
                    slice_edges(inputs.centre, piece),
                    slice_edges(inputs.vectors, piece),
                    slice_edges(inputs.distance, piece),
                    slice_edges(inputs.switch, piece),
                )
                atom.append(found.atom)
                matrix.append(found.matrix)
                weight.append(found.weight)
        return Frames(torch.cat(atom), torch.cat(matrix), torch.cat(weight))

    def frames_of(
        self, piece: Chunk, centre: Tensor, vectors: Tensor, distance: Tensor, switch: Tensor
    ) -> Frames:
        """Frames of some centres from their edges."""
        padding = pad_edges(centre - piece.atom_start, piece.atom_end - piece.atom_start)
        frames = self.ensemble(build_environment(vectors, distance, switch, padding))
        return Frames(frames.atom + piece.atom_start, frames.matrix, frames.weight)

    def add_through_frames(
        self,
        inputs: Inputs,
        pieces: list[Chunk],
        frames: Frames,
        gradient: GeometryGradient,
        of_distance: Tensor,
    ) -> None:
        """Add what comes through the frames to the gradient over vectors, distance and switch."""
        ends = torch.tensor([piece.atom_end for piece in pieces]).to(frames.atom.device)
        frame_ends: list[int] = torch.searchsorted(frames.atom, ends).tolist()
        start = 0
        for piece, end in zip(pieces, frame_ends):  # noqa: B905 (TorchScript)
            vectors = slice_edges(inputs.vectors, piece).detach().requires_grad_(True)
            distance = slice_edges(inputs.distance, piece).detach().requires_grad_(True)
            switch = slice_edges(inputs.switch, piece).detach().requires_grad_(True)
            centre = slice_edges(inputs.centre, piece)
            found = self.frames_of(piece, centre, vectors, distance, switch)
            through = chain(
                [found.matrix, found.weight],
                [gradient.matrix[start:end], gradient.weight[start:end]],
                [vectors, distance, switch],
            )
            slice_edges(gradient.vectors, piece).add_(through[0])
            slice_edges(of_distance, piece).add_(through[1])
            slice_edges(gradient.switch, piece).add_(through[2])
            start = end

    def radial_features(self, distance: Tensor) -> Tensor:
        """Distance and radial functions of each edge, (E, 1 + size), in the network's dtype."""
        features = distance.unsqueeze(1)
        if self.radial.size > 0:
            features = torch.cat([features, self.radial(distance)], dim=1)
        return features.to(self.network.first_messages.dtype)


def chain(outputs: list[Tensor], given: list[Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """The given gradient over the outputs, taken back to the leaves; zeros where there is none."""
    gradient = [torch.zeros_like(leaf) for leaf in leaves]
    kept: list[Tensor] = []
    kept_given: list[Tensor | None] = []
    for output, of_output in zip(outputs, given):  # noqa: B905 (TorchScript)
        if output.requires_grad:
            kept.append(output)
            kept_given.append(of_output)
    if len(kept) > 0:
        found = torch.autograd.grad(kept, leaves, kept_given, allow_unused=True)
        for k, of_leaf in enumerate(found):
            if of_leaf is not None:
                gradient[k] = of_leaf
    return gradient
