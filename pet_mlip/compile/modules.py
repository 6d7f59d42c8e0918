"""What stands in for the expensive parts of the network: calls of compiled functions.

Compiled functions take any sizes from two on; smaller ones, such as a single neighbour, are left to
the part itself. Weights are among the inputs, so that all parts of one shape share a function.
"""

from typing import cast

import torch
from torch import Tensor, nn

from pet_mlip.inference.encoder import Encoder
from pet_mlip.inference.exchange import Exchange, LearnedMixing
from pet_mlip.inference.network import Network
from pet_mlip.inference.readout import Head, Readout
from pet_mlip.inference.sweep import LayerSweep


class Weight(nn.Module):
    """One tensor."""

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)


class Part(nn.Module):
    """A part of the network whose forward and vjp are compiled.

    Args:
        part: The part itself; its weights are shared, not copied.
        package: Identifies the functions.
        function: Their common name.
    """

    def __init__(self, part: nn.Module, package: str, function: str) -> None:
        super().__init__()
        self.part = part
        self.weights = nn.ModuleList(Weight(w) for w in weights_of(part).values())
        self.package = package
        self.forward_name = f"{function}_forward"
        self.vjp_name = f"{function}_vjp"

    def call(self, name: str, inputs: list[Tensor]) -> list[Tensor]:
        """What a compiled function returns for inputs and weights."""
        arguments = [x.contiguous() for x in inputs]
        for weight in self.weights:
            arguments.append(weight.value)  # type: ignore[arg-type]
        return torch.ops.pet_mlip.call(self.package, name, arguments)


class CompiledEncoder(Part):
    """See `Encoder`."""

    def forward(
        self, nodes: Tensor, tokens: Tensor, log_switch: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """See `Encoder.forward`."""
        if tokens.shape[0] < 2 or tokens.shape[1] < 2:
            return self.part(nodes, tokens, log_switch)
        found = self.call(self.forward_name, [nodes, tokens, log_switch])
        return found[0], found[1], found[2], found[3:]

    def vjp(
        self, of_nodes: Tensor, of_edges: Tensor, of_hidden: Tensor, saved: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Encoder.vjp`."""
        if of_edges.shape[0] < 2 or of_edges.shape[1] < 2:
            return self.part.vjp(of_nodes, of_edges, of_hidden, saved)  # type: ignore[operator]
        inputs = [of_nodes, of_edges, of_hidden]
        inputs.extend(saved)
        found = self.call(self.vjp_name, inputs)
        return found[0], found[1], found[2]

    def close(self, edges: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
        """See `Encoder.close`."""
        return self.part.close(edges, hidden, weight)  # type: ignore[operator]

    def close_vjp(self, of_edges: Tensor, averaging: bool) -> tuple[Tensor, Tensor]:
        """See `Encoder.close_vjp`."""
        return self.part.close_vjp(of_edges, averaging)  # type: ignore[operator]


class CompiledMixing(Part):
    """See `LearnedMixing`."""

    def forward(
        self, messages: Tensor, edges: Tensor, reverse: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """See `LearnedMixing.forward`."""
        if messages.shape[0] < 2:
            return self.part(messages, edges, reverse)
        found = self.call(self.forward_name, [messages, edges, reverse])
        return found[0], found[1:]

    def vjp(self, given: Tensor, saved: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """See `LearnedMixing.vjp`."""
        if given.shape[0] < 2:
            return self.part.vjp(given, saved)  # type: ignore[operator]
        found = self.call(self.vjp_name, [given] + saved)  # noqa: RUF005 (TorchScript)
        return found[0], found[1], found[2]


class CompiledHead(Part):
    """See `Head`."""

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `Head.forward`."""
        if features.shape[0] < 2:
            return self.part(features)
        found = self.call(self.forward_name, [features])
        return found[0], found[1:]

    def vjp(self, given: Tensor, saved: list[Tensor]) -> Tensor:
        """See `Head.vjp`."""
        if given.shape[0] < 2:
            return self.part.vjp(given, saved)  # type: ignore[operator]
        return self.call(self.vjp_name, [given] + saved)[0]  # noqa: RUF005 (TorchScript)


STAND_INS: dict[type[nn.Module], type[Part]] = {
    Encoder: CompiledEncoder,
    LearnedMixing: CompiledMixing,
    Head: CompiledHead,
}


def weights_of(part: nn.Module) -> dict[str, Tensor]:
    """All tensors of a part by name."""
    return {**dict(part.named_parameters()), **dict(part.named_buffers())}


def find_parts(network: Network) -> dict[str, list[tuple[nn.Module, str]]]:
    """Parts to compile: for each function, who holds the parts, and under which attribute."""
    places: list[tuple[nn.Module, str]] = []
    for sweep in network.layers:
        places.append((cast(LayerSweep, sweep).layer, "encoder"))
    for exchange in network.exchanges:
        if isinstance(cast(Exchange, exchange).mixing, LearnedMixing):
            places.append((exchange, "mixing"))
    for readout in network.readouts:
        assert isinstance(readout, Readout)
        places += [(readout, "node_head"), (readout, "edge_head")]
    names: dict[tuple[object, ...], str] = {}
    found: dict[str, list[tuple[nn.Module, str]]] = {}
    for owner, attribute in places:
        part = getattr(owner, attribute)
        shapes = tuple((name, w.shape) for name, w in weights_of(part).items())
        name = names.setdefault((type(part), shapes), f"{attribute}_{len(names)}")
        found.setdefault(name, []).append((owner, attribute))
    return found


def replace_parts(network: Network, package: str) -> None:
    """Put calls of compiled functions in the places of the parts."""
    for function, places in find_parts(network).items():
        for owner, attribute in places:
            part = getattr(owner, attribute)
            setattr(owner, attribute, STAND_INS[type(part)](part, package, function))
