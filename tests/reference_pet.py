"""PET with the average over frames in its embedding, atom by atom, by plain autograd.

Slow and obvious: what `pet_mlip.network` is compared with. It shares nothing with it but the
parameters, and takes edges, cutoff function and frames from the package.
"""

import torch
from torch.nn.functional import layer_norm, linear, rms_norm, silu


def legendre(x, degree):
    """P_0 to P_L of x, by Bonnet's recursion."""
    found = [torch.ones_like(x), x]
    for n in range(1, degree):
        found.append(((2 * n + 1) * x * found[n] - n * found[n - 1]) / (n + 1))
    return found[: degree + 1]


def reference_energies(potential, graph):
    """Atomic energies in eV, (N,), differentiable as often as the frames are."""
    hypers = potential.pet_hypers
    inputs = potential.preparation(graph)
    frames = potential.layer_frames(graph)
    weights = potential.pet.state_dict(keep_vars=True)
    n_atoms = len(inputs.species)
    residual = hypers.featurizer_type == "residual"

    directed = max(round(hypers.direction_share * hypers.d_pet), 1)

    def affine(name, x):
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name, x, kind=hypers.normalization):
        weight = weights[f"{name}.weight"]
        if kind == "LayerNorm":
            return layer_norm(x, x.shape[-1:], weight, weights[f"{name}.bias"])
        return rms_norm(x, x.shape[-1:], weight)

    def mlp(name, x):
        x = affine(f"{name}.w_in", x)
        if hypers.activation == "SwiGLU":
            value, gate = x.chunk(2, dim=-1)
            return affine(f"{name}.w_out", value * torch.sigmoid(gate))
        return affine(f"{name}.w_out", silu(x))

    def head(name, x):
        x = silu(affine(f"{name}.second", silu(affine(f"{name}.first", x))))
        return affine(f"{name}.last", x)[..., 0]

    def attention(name, tokens, switch):
        shape = (len(tokens), 3, hypers.num_heads, hypers.d_pet // hypers.num_heads)
        query, key, value = affine(f"{name}.input_linear", tokens).reshape(shape).unbind(1)
        scores = torch.einsum("ihd,jhd->hij", query, key) / shape[-1] ** 0.5
        scores = scores / hypers.attention_temperature
        exponential = switch * torch.exp(scores - scores.amax(dim=2, keepdim=True))
        mixing = exponential / exponential.sum(dim=2, keepdim=True)
        mixed = torch.einsum("hij,jhd->ihd", mixing, value).reshape(len(tokens), -1)
        return affine(f"{name}.output_linear", mixed)

    def transform(name, node, edges, switch):
        wide = hypers.d_node != hypers.d_pet
        center = affine(f"{name}.center.contraction", node) if wide else node
        tokens = torch.cat([center[None], edges])
        if hypers.transformer_type == "PreLN":
            mixed = attention(f"{name}.attention", norm(f"{name}.norm_attention", tokens), switch)
            center, edges = mixed[0], edges + mixed[1:]
            edges = edges + mlp(f"{name}.mlp", norm(f"{name}.norm_mlp", edges))
        else:
            tokens = tokens + attention(f"{name}.attention", tokens, switch)
            tokens = norm(f"{name}.norm_attention", tokens)
            tokens = norm(f"{name}.norm_mlp", tokens + mlp(f"{name}.mlp", tokens))
            center, edges = tokens[0], tokens[1:]
        if not wide:
            return center, edges
        node = node + affine(f"{name}.center.expansion", center)
        return node + mlp(f"{name}.center.mlp", norm(f"{name}.center.norm", node)), edges

    def density(name, hidden, own):
        """What each edge is told of the others, pair by pair of edges."""
        if hypers.density_channels == 0:
            return 0.0
        functions = affine(f"{name}.density.collect", silu(hidden))
        of_other, of_own = functions.chunk(2, dim=1)
        unit = inputs.vectors[own] / torch.linalg.vector_norm(inputs.vectors[own], dim=1)[:, None]
        polynomials = torch.stack(legendre(unit @ unit.T, hypers.density_degree), dim=2)
        seen = torch.einsum("k,kc,jkl->jcl", inputs.switch[own], of_other, polynomials)
        found = affine(f"{name}.density.spread", (of_own[:, :, None] * seen).flatten(1))
        if hypers.density_bound is None:
            return found
        return found / torch.sqrt(
            1 + (found**2).mean(dim=1, keepdim=True) / hypers.density_bound**2
        )

    def embed(name, first, atom, own, messages):
        """Tokens of the atom's edges: the only place where directions enter, angles apart."""
        species, distance = inputs.neighbor_species[own], inputs.distance[own, None]
        radial = potential.radial(inputs.distance[own]) @ weights[f"{name}.radial_embedder"].T

        def before_activation(coordinates):
            parts = [affine(f"{name}.edge_embedder", torch.cat([coordinates, distance], dim=1))]
            parts[0] = parts[0] + radial
            if not first:
                parts.append(weights[f"{name}.neighbor_embedder.weight"][species])
            parts.append(messages[own])
            return affine(f"{name}.compress_in", torch.cat(parts, dim=1))

        without_directions = before_activation(torch.zeros_like(inputs.vectors[own]))
        of_angles = density(name, without_directions, own)
        hidden = 0.0
        for frame in torch.nonzero(frames.atom == atom)[:, 0]:
            coordinates = inputs.vectors[own] @ frames.matrix[frame]
            inside = before_activation(coordinates)
            inside = torch.cat([inside[:, :directed], without_directions[:, directed:]], dim=1)
            token = silu(inside + of_angles)
            hidden = hidden + frames.weight[frame] * token
        return affine(f"{name}.compress_out", hidden)

    def readout(k, nodes, edges):
        of_edges = inputs.switch * head(f"readouts.{k}.edge_head", edges)
        of_nodes = head(f"readouts.{k}.node_head", nodes)
        return potential.scale * of_nodes.index_add(0, inputs.centre, of_edges)

    energies = potential.composition[inputs.species] + inputs.repulsion
    messages = weights["edge_embedder.weight"][inputs.neighbor_species]
    nodes = weights["node_embedders.0.weight"][inputs.species]
    for k in range(hypers.num_gnn_layers):
        if residual:
            nodes = weights[f"node_embedders.{k}.weight"][inputs.species]
        new_nodes, edges = [], torch.zeros_like(messages)
        for atom in range(n_atoms):
            own = torch.nonzero(inputs.centre == atom)[:, 0]
            switch = torch.cat([torch.ones(1, dtype=torch.float64), inputs.switch[own]])
            node = nodes[atom]
            tokens = embed(f"layers.{k}", k == 0, atom, own, messages)
            for m in range(hypers.num_attention_layers):
                node, tokens = transform(f"layers.{k}.layers.{m}", node, tokens, switch)
            new_nodes.append(node)
            edges = edges.index_copy(0, own, tokens)
        nodes = potential.pet.conditioning(torch.stack(new_nodes), inputs.electronic)
        if residual:
            energies = energies + readout(k, nodes, edges)
            messages = 0.5 * (messages + edges[inputs.reverse])
        else:
            both = torch.cat([edges, edges[inputs.reverse]], dim=1)
            mixing = f"exchanges.{k}.mixing"
            both = silu(affine(f"{mixing}.w_in", norm(f"{mixing}.norm", both, "LayerNorm")))
            messages = messages + edges + affine(f"{mixing}.w_out", both)
    return energies if residual else energies + readout(0, nodes, messages)
