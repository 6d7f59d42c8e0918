"""Each block's vjp is the derivative of its forward, and both can be differentiated once."""

import pytest
import torch
from torch.autograd import gradcheck

from pet_mlip.graph.hypers import PETHypers
from pet_mlip.network.attention import Attention
from pet_mlip.network.density import Density
from pet_mlip.network.exchange import LearnedExchange, MeanExchange
from pet_mlip.network.feedforward import FeedForward
from pet_mlip.network.frame_average import average_frames, average_frames_vjp
from pet_mlip.network.functions import gate, gate_vjp, normalise, normalise_vjp, silu, silu_vjp
from pet_mlip.network.linear import Norm
from pet_mlip.network.readout import Head
from pet_mlip.network.rotation import rotate_places, rotate_places_vjp
from pet_mlip.network.tiles import split_frames
from pet_mlip.network.transformer import TransformerLayer

SIZES = {"d_pet": 6, "d_feedforward": 5, "num_heads": 2}


def draw(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def random_weights(module):
    """The module in float64 with random biases and norms."""
    module.double()
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            generator = torch.Generator().manual_seed(k)
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator).double()
    return module


def compare(forward, vjp, inputs, outputs=1):
    """Compare vjp with autograd of forward, with and without autograd recording.

    Args:
        forward: Of the inputs; returns outputs, then what is saved.
        vjp: Of gradients over the outputs, then what is saved; returns gradients.
        inputs: Tensors.
        outputs: How many outputs there are.
    """
    leaves = [x.clone().requires_grad_(True) for x in inputs]
    found = forward(*leaves)
    given = [draw(*y.shape) for y in found[:outputs]]
    expected = torch.autograd.grad(found[:outputs], leaves, given, retain_graph=True)
    recorded = vjp(*(g.clone() for g in given), *found[outputs:])
    with torch.no_grad():
        again = forward(*(x.clone() for x in inputs))
        silent = vjp(*(g.clone() for g in given), *again[outputs:])
    for gradients in (recorded, silent):
        gradients = (gradients,) if isinstance(gradients, torch.Tensor) else gradients
        for a, b in zip(gradients, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_functions(layer_norm):
    x, grad = draw(3, 6).requires_grad_(True), draw(3, 6).flip(0).requires_grad_(True)
    compare(lambda x: (silu(x), x), silu_vjp, [x.detach()])
    compare(lambda x: gate(x), gate_vjp, [x.detach()])
    compare(
        lambda x: (normalise(x, layer_norm)[0], *normalise(x, layer_norm)),
        lambda g, n, r: normalise_vjp(g, n, r, layer_norm),
        [x.detach()],
    )
    assert gradcheck(silu_vjp, (grad, x))
    assert gradcheck(lambda x: gate(x)[0], (x,))
    assert gradcheck(gate_vjp, (grad[:, :3], x))
    assert gradcheck(lambda x: normalise(x, layer_norm), (x,))
    pair = lambda g, x: normalise_vjp(g, *normalise(x, layer_norm), layer_norm)  # noqa: E731
    assert gradcheck(pair, (grad, x))


@pytest.mark.parametrize("kind", ["LayerNorm", "RMSNorm"])
def test_norms(kind):
    norm = random_weights(Norm(kind, 6))
    compare(norm, norm.vjp, [draw(2, 3, 6)])


@pytest.mark.parametrize("activation", ["SiLU", "SwiGLU"])
def test_feed_forward(activation):
    block = random_weights(FeedForward(6, 5, activation))
    compare(block, block.vjp, [draw(2, 3, 6)])


def test_attention():
    block = random_weights(Attention(6, 2, 1.3))
    compare(block, block.vjp, [draw(3, 4, 6), draw(3, 4)])


@pytest.mark.parametrize("bound", [None, 0.5])
def test_density(bound):
    hypers = PETHypers(density_channels=2, density_degree=1, density_bound=bound, **SIZES)
    block = random_weights(Density(hypers))
    hidden, logs, harmonics = draw(3, 5, 6), draw(3, 5), draw(3, 5, 4)

    def forward(hidden, logs, harmonics):
        switch = logs.exp().unsqueeze(2)
        found, saved = block(hidden, switch, harmonics)
        return found, switch, harmonics, saved

    compare(forward, block.vjp, [hidden, logs, harmonics])


def test_what_the_density_tells_is_bounded_and_small_values_are_left_alone():
    size = {"density_channels": 2, "density_degree": 1, **SIZES}
    free, bounded = (Density(PETHypers(density_bound=b, **size)) for b in (None, 3.0))
    bounded.double().load_state_dict(random_weights(free).state_dict())
    harmonics, switch = draw(3, 5, 4), draw(3, 5, 1).abs()
    for scale in (1e-2, 1.0, 1e4):
        hidden = scale * draw(3, 5, 6)
        told, told_free = (
            block(hidden, switch, harmonics)[0] - hidden for block in (bounded, free)
        )
        size_free = told_free.square().mean(dim=2, keepdim=True).sqrt()
        assert told.square().mean(dim=2).max() < 9.0 + 1e-6
        torch.testing.assert_close(told, told_free / (1 + size_free**2 / 9.0).sqrt())
    assert size_free.max() > 1e6


def test_heads():
    head = random_weights(Head(6, 5))
    compare(head, head.vjp, [draw(4, 6)])


@pytest.mark.parametrize("make", [MeanExchange, lambda: LearnedExchange(6)])
def test_exchanges(make):
    block = random_weights(make())

    def forward(*inputs):
        messages, saved = block(*inputs)
        # The mean does not read the edges' own features.
        return messages + 0.0 * inputs[1], saved

    compare(forward, block.vjp, [draw(4, 6), draw(4, 6).flip(0), draw(4, 6).flip(1)])


@pytest.mark.parametrize("d_node", [6, 8])
@pytest.mark.parametrize("normalization", ["RMSNorm", "LayerNorm"])
@pytest.mark.parametrize("transformer_type", ["PreLN", "PostLN"])
def test_transformer_layers(transformer_type, normalization, d_node):
    hypers = PETHypers(
        transformer_type=transformer_type, normalization=normalization, d_node=d_node, **SIZES
    )
    layer = random_weights(TransformerLayer(hypers))
    inputs = [draw(3, d_node), draw(3, 4, 6), draw(3, 5)]

    def forward(*given):
        nodes, edges, saved = layer(*given)
        # A narrow centre forgets the nodes but through attention.
        return nodes + 0.0 * given[0], edges, saved

    compare(forward, layer.vjp, inputs, outputs=2)


@pytest.mark.parametrize("n_rows", [1, 2, 100])
@pytest.mark.parametrize("spread", [1, 70])
def test_averages_over_frames(n_rows, spread):
    """In tiles of any size; with few atoms in a tile, and with many."""
    owner = torch.tensor([0, 0, 0, 1, 2, 2]).repeat_interleave(1)
    owner = torch.cat([owner + 3 * k for k in range(spread)])
    n_atoms, n_frames = 3 * spread, len(owner)
    tiles = split_frames(owner, n_frames, n_atoms, n_rows)
    shared, coordinates = draw(n_atoms, 2, 3), draw(3, 3)
    rotated, weight = draw(n_frames * 2, 3), draw(n_frames).abs()

    def average(*tensors):
        return average_frames(*tensors, owner, tiles, False)

    leaves = [x.clone().requires_grad_(True) for x in (shared, coordinates, rotated, weight)]
    found = average(*leaves)
    rows = leaves[0][owner] + (leaves[2] @ leaves[1]).view(n_frames, 2, 3)
    terms = leaves[3][:, None, None] * torch.nn.functional.silu(rows)
    expected = torch.zeros_like(shared).index_add(0, owner, terms)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    given = draw(*shared.shape)
    wanted = torch.autograd.grad(expected, leaves, given, create_graph=True)
    gradients = torch.autograd.grad(found, leaves, given)
    for a, b in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)

    # What training differentiates once more.
    grad = given.clone().requires_grad_(True)
    of_network = [grad, leaves[0], leaves[1]]
    through = average_frames_vjp(grad, *leaves, owner, tiles, False)
    wanted = list(torch.autograd.grad(expected, [leaves[0], *leaves[2:]], grad, create_graph=True))
    wanted[1] = wanted[1].t()
    directions = [draw(*x.shape).flip(0) for x in through]
    torch.testing.assert_close(list(through), wanted, rtol=1e-11, atol=1e-11)
    found = torch.autograd.grad(through, of_network, directions)
    expected = torch.autograd.grad(wanted, of_network, directions)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n_places", [0, 1, 4])
@pytest.mark.parametrize("spread", [1, 100])
def test_rotates_neighbours_into_frames(n_places, spread):
    """Few, and many."""
    owner = torch.cat([torch.tensor([0, 0, 0, 1, 2, 2]) + 3 * k for k in range(spread)])
    leaves = [draw(3 * spread, n_places, 3), draw(len(owner), 3, 3)]
    leaves = [x.requires_grad_(True) for x in leaves]
    found = rotate_places(leaves[0], owner, leaves[1], torch.float64)
    expected = (leaves[0][owner] @ leaves[1]).view(-1, 3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    grad = draw(*found.shape).requires_grad_(True)
    wanted = torch.autograd.grad(expected, leaves, grad, create_graph=True)
    by_autograd = torch.autograd.grad(found, leaves, grad, retain_graph=True)
    torch.testing.assert_close(by_autograd, wanted, rtol=1e-12, atol=1e-12)
    through = rotate_places_vjp(grad.t(), leaves[0].detach(), owner, leaves[1].detach())
    torch.testing.assert_close(through, wanted, rtol=1e-12, atol=1e-12)
    directions = [draw(*x.shape) for x in through]
    (found,) = torch.autograd.grad(through, grad, directions)
    (expected,) = torch.autograd.grad(wanted, grad, directions)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
