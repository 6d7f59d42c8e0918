"""Energies and gradient with bounded memory: one chunk of atoms at a time, layer by layer.

Only the features between layers are kept. The backward pass walks the layers in reverse and
evaluates each chunk once more, so that a chunk's activations are the only ones alive.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pet_mlip.ecse.frames import count_frames
from pet_mlip.model.chunks import Chunk, add_to, extend, leading_chunks, slice_edges, split
from pet_mlip.model.environment import build_environment
from pet_mlip.model.graph import pad_edges
from pet_mlip.model.inputs import Inputs
from pet_mlip.model.potential import Potential


class EdgeGradient(NamedTuple):
    """Gradient over what the layers read of each edge, summed up in place."""

    vectors: Tensor
    """(E, 3)."""
    switch: Tensor
    """(E,)."""


class ChunkedPotential(nn.Module):
    """Evaluates a `Potential` without ever holding all attention tokens at once."""

    def __init__(self, potential: Potential) -> None:
        super().__init__()
        self.potential = potential

    def forward(
        self, inputs: Inputs, weights: Tensor, compute_gradient: bool, chunk_size: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Atomic energies (N,), the gradient of sum_i w_i E_i, and frames per atom.

        The gradient is over the vectors (E, 3) and the switch (E,) of ``inputs``, as if they were
        independent.

        Args:
            inputs: The graph within the cutoff.
            weights: w_i of the N atoms or, in a domain, of its own atoms, float64.
            compute_gradient: Whether to compute it; zeros otherwise.
            chunk_size: Largest number of tokens (frames x (neighbours + 1), summed over atoms)
                evaluated at once; an atom that alone has more is evaluated alone.
        """
        reach = inputs.reach
        n_neighbors = torch.bincount(inputs.centre, minlength=reach.atoms[0])
        first_edge = torch.cat([torch.zeros_like(n_neighbors[:1]), n_neighbors.cumsum(0)])
        n_frames = self.count_frames(inputs, n_neighbors, first_edge, chunk_size)
        all_chunks = split(n_frames * (n_neighbors + 1), first_edge, chunk_size)
        chunks = [
            leading_chunks(all_chunks, n_atoms, n_edges)
            for n_atoms, n_edges in zip(reach.atoms, reach.edges)  # noqa: B905 (TorchScript)
        ]

        nodes_in: list[Tensor] = []
        messages_in: list[Tensor] = []
        edges_out: list[Tensor] = []
        nodes = self.potential.pet.embed_nodes(0, inputs.species)
        messages = self.potential.pet.embed_messages(inputs.neighbor_species)
        energies = self.potential.composition[inputs.species[: reach.atoms[-1]]]
        energies = energies + inputs.repulsion.detach()
        n_layers = self.potential.num_layers
        residual = self.potential.residual
        gradients: list[Tensor] = []
        gradient = EdgeGradient(
            torch.zeros_like(inputs.vectors.detach()), torch.zeros_like(inputs.switch.detach())
        )
        for layer in range(n_layers):
            if residual:
                nodes = self.potential.pet.embed_nodes(layer, inputs.species)
            nodes, messages = nodes[: reach.atoms[layer]], messages[: reach.edges[layer]]
            nodes_in.append(nodes)
            messages_in.append(messages)
            nodes, edges = self.run_layer(layer, inputs, nodes, messages, chunks[layer])
            edges_out.append(edges)
            if residual:
                part, of_nodes, of_edges = self.run_readout(
                    layer,
                    inputs,
                    nodes,
                    edges,
                    weights,
                    chunks[-1],
                    compute_gradient,
                    gradient,
                )
                energies = energies + part
                gradients += [of_nodes, of_edges]
            if not residual or layer + 1 < n_layers:
                messages = self.run_exchange(layer, inputs, messages, edges, chunks[layer + 1])
        if not residual:
            part, of_nodes, of_edges = self.run_readout(
                0, inputs, nodes, messages, weights, chunks[-1], compute_gradient, gradient
            )
            energies = energies + part
            gradients += [of_nodes, of_edges]

        if compute_gradient:
            self.backpropagate(
                inputs, nodes_in, messages_in, edges_out, gradients, chunks, gradient
            )
        return energies, gradient.vectors, gradient.switch, n_frames

    def count_frames(
        self, inputs: Inputs, n_neighbors: Tensor, first_edge: Tensor, chunk_size: int
    ) -> Tensor:
        """Frames of each atom, (N,) int64."""
        counts: list[Tensor] = [torch.zeros_like(n_neighbors[:0])]
        with torch.no_grad():
            for chunk in split(n_neighbors + 1, first_edge, chunk_size):
                n_atoms = chunk.atom_end - chunk.atom_start
                vectors, switch = (
                    slice_edges(inputs.vectors, chunk),
                    slice_edges(inputs.switch, chunk),
                )
                centre = slice_edges(inputs.centre, chunk) - chunk.atom_start
                environment = build_environment(vectors, switch, pad_edges(centre, n_atoms))
                counts.append(count_frames(self.potential.ensemble(environment), n_atoms))
        return torch.cat(counts)

    def chunk_layer(
        self,
        layer: int,
        inputs: Inputs,
        nodes: Tensor,
        messages: Tensor,
        vectors: Tensor,
        switch: Tensor,
        c: Chunk,
    ) -> tuple[Tensor, Tensor]:
        """One layer on one chunk; nodes, messages, vectors and switch are the chunk's own."""
        centre = slice_edges(inputs.centre, c) - c.atom_start
        padding = pad_edges(centre, c.atom_end - c.atom_start)
        environment = build_environment(vectors, switch, padding)
        nodes, edges = self.potential.pet.apply_layer(
            layer,
            nodes,
            messages,
            slice_edges(inputs.neighbor_species, c),
            environment,
            self.potential.ensemble(environment),
        )
        electronic = inputs.electronic[c.atom_start : c.atom_end]
        return self.potential.pet.condition(nodes, electronic), edges

    def run_layer(
        self, layer: int, inputs: Inputs, nodes: Tensor, messages: Tensor, chunks: list[Chunk]
    ) -> tuple[Tensor, Tensor]:
        """One layer on all atoms, without gradient."""
        all_nodes: list[Tensor] = [nodes[:0]]
        all_edges: list[Tensor] = [messages[:0]]
        with torch.no_grad():
            for c in chunks:
                n, e = self.chunk_layer(
                    layer,
                    inputs,
                    nodes[c.atom_start : c.atom_end],
                    slice_edges(messages, c),
                    slice_edges(inputs.vectors, c),
                    slice_edges(inputs.switch, c),
                    c,
                )
                all_nodes.append(n)
                all_edges.append(e)
        return torch.cat(all_nodes), torch.cat(all_edges)

    def run_exchange(
        self, layer: int, inputs: Inputs, messages: Tensor, edges: Tensor, chunks: list[Chunk]
    ) -> Tensor:
        """Messages into the next layer, without gradient."""
        parts: list[Tensor] = [messages[:0]]
        with torch.no_grad():
            for c in chunks:
                own = slice_edges(edges, c)
                other = edges.index_select(0, slice_edges(inputs.reverse, c))
                parts.append(
                    self.potential.pet.exchange(layer, slice_edges(messages, c), own, other)
                )
        return torch.cat(parts)

    def run_readout(
        self,
        index: int,
        inputs: Inputs,
        nodes: Tensor,
        edges: Tensor,
        weights: Tensor,
        chunks: list[Chunk],
        compute_gradient: bool,
        gradient: EdgeGradient,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies of one readout and the gradient over the nodes and edges that it reads.

        The gradient over the cutoff switch is added to ``gradient`` in place.
        """
        energies: list[Tensor] = [torch.zeros_like(weights[:0])]
        n_atoms, n_edges = inputs.reach.atoms[-1], inputs.reach.edges[-1]
        of_nodes, of_edges = torch.zeros_like(nodes[:n_atoms]), torch.zeros_like(edges[:n_edges])
        for c in chunks:
            n = nodes[c.atom_start : c.atom_end].detach().requires_grad_(compute_gradient)
            e = slice_edges(edges, c).detach().requires_grad_(compute_gradient)
            s = slice_edges(inputs.switch, c).detach().requires_grad_(compute_gradient)
            centre = slice_edges(inputs.centre, c) - c.atom_start
            energy = self.potential.readout(index, n, e, s, centre)
            energies.append(energy.detach())
            if compute_gradient:
                total = (energy * weights[c.atom_start : c.atom_end]).sum()
                grads = torch.autograd.grad([total], [n, e, s], allow_unused=True)
                add_to(of_nodes, grads[0], c.atom_start, c.atom_end)
                add_to(of_edges, grads[1], c.edge_start, c.edge_end)
                add_to(gradient.switch, grads[2], c.edge_start, c.edge_end)
        return torch.cat(energies), of_nodes, of_edges

    def backpropagate(
        self,
        inputs: Inputs,
        nodes_in: list[Tensor],
        messages_in: list[Tensor],
        edges_out: list[Tensor],
        gradients: list[Tensor],
        chunks: list[list[Chunk]],
        gradient: EdgeGradient,
    ) -> None:
        """Add the gradient through the layers to ``gradient``.

        Args:
            inputs: The graph.
            nodes_in: Node features into each layer.
            messages_in: Messages into each layer.
            edges_out: Edge features out of each layer.
            gradients: Gradient over the nodes and edges of each readout, in order.
            chunks: The chunks of each layer, then those of the readout.
            gradient: Changed in place.
        """
        n_layers = self.potential.num_layers
        residual = self.potential.residual
        of_nodes = gradients[-2]
        of_messages = gradients[-1]
        for step in range(n_layers):
            layer = n_layers - 1 - step
            of_edges = torch.zeros_like(edges_out[layer])
            if residual:
                of_nodes = gradients[2 * layer]
                of_edges[: inputs.reach.edges[-1]] += gradients[2 * layer + 1]
            if not residual or step > 0:
                of_messages = self.exchange_vjp(
                    layer,
                    inputs,
                    messages_in[layer],
                    edges_out[layer],
                    of_messages,
                    of_edges,
                    chunks[layer + 1],
                )
            else:
                of_messages = torch.zeros_like(messages_in[layer])
            of_nodes, through_layer = self.layer_vjp(
                layer,
                inputs,
                nodes_in[layer],
                messages_in[layer],
                extend(of_nodes, inputs.reach.atoms[layer]),
                of_edges,
                chunks[layer],
                gradient,
            )
            of_messages = of_messages + through_layer

    def exchange_vjp(
        self,
        layer: int,
        inputs: Inputs,
        messages: Tensor,
        edges: Tensor,
        of_output: Tensor,
        of_edges: Tensor,
        chunks: list[Chunk],
    ) -> Tensor:
        """Gradient over the messages in; that over the edges is added to ``of_edges`` in place."""
        of_messages = torch.zeros_like(messages)
        for c in chunks:
            reverse = slice_edges(inputs.reverse, c)
            m = slice_edges(messages, c).detach().requires_grad_(True)
            own = slice_edges(edges, c).detach().requires_grad_(True)
            other = edges.index_select(0, reverse).detach().requires_grad_(True)
            out = self.potential.pet.exchange(layer, m, own, other)
            given: list[Tensor | None] = [slice_edges(of_output, c)]
            grads = torch.autograd.grad([out], [m, own, other], given, allow_unused=True)
            add_to(of_messages, grads[0], c.edge_start, c.edge_end)
            add_to(of_edges, grads[1], c.edge_start, c.edge_end)
            of_other = grads[2]
            if of_other is not None:
                of_edges.index_add_(0, reverse, of_other)
        return of_messages

    def layer_vjp(
        self,
        layer: int,
        inputs: Inputs,
        nodes: Tensor,
        messages: Tensor,
        of_nodes_out: Tensor,
        of_edges_out: Tensor,
        chunks: list[Chunk],
        gradient: EdgeGradient,
    ) -> tuple[Tensor, Tensor]:
        """Gradient over the nodes and messages into a layer, evaluated once more."""
        of_nodes, of_messages = torch.zeros_like(nodes), torch.zeros_like(messages)
        for c in chunks:
            n = nodes[c.atom_start : c.atom_end].detach().requires_grad_(True)
            m = slice_edges(messages, c).detach().requires_grad_(True)
            v = slice_edges(inputs.vectors, c).detach().requires_grad_(True)
            s = slice_edges(inputs.switch, c).detach().requires_grad_(True)
            n_out, e_out = self.chunk_layer(layer, inputs, n, m, v, s, c)
            given: list[Tensor | None] = [
                of_nodes_out[c.atom_start : c.atom_end],
                slice_edges(of_edges_out, c),
            ]
            grads = torch.autograd.grad([n_out, e_out], [n, m, v, s], given, allow_unused=True)
            add_to(of_nodes, grads[0], c.atom_start, c.atom_end)
            add_to(of_messages, grads[1], c.edge_start, c.edge_end)
            add_to(gradient.vectors, grads[2], c.edge_start, c.edge_end)
            add_to(gradient.switch, grads[3], c.edge_start, c.edge_end)
        return of_nodes, of_messages
