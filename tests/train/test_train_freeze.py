"""Frozen parts of the network: which, and what the optimisers do with them."""

from __future__ import annotations

import pytest
import torch
from train_tools import TINY

from pet_mlip.config import TrainingConfig
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.network.hypers import PETHypers
from pet_mlip.train.freeze import count_parameters, freeze, part_of
from pet_mlip.train.optimizer import make_optimizer


def make_potential() -> Potential:
    hypers = PETHypers(**{**TINY, "num_gnn_layers": 2})
    return Potential([1, 8], hypers, SymmetrizationHypers())


def test_every_parameter_belongs_to_a_part() -> None:
    potential = make_potential()
    parts = {name: part_of(name, potential) for name, _ in potential.pet.named_parameters()}
    embeddings = {name for name, part in parts.items() if part == "embeddings"}
    assert embeddings == {
        "edge_embedder.weight",
        "node_embedders.0.weight",
        "layers.0.neighbor_embedder.weight",
        "layers.1.neighbor_embedder.weight",
    }
    assert parts["layers.0.edge_embedder.weight"] == "layers"
    assert parts["combination_mlps.1.0.weight"] == "layers"
    assert parts["node_heads.0.last.bias"] == parts["edge_heads.0.mlp.0.weight"] == "heads"
    assert set(parts.values()) == {"embeddings", "layers", "heads"}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    ("parts", "trained"),
    [
        (["backbone"], {"heads"}),
        (["layers", "heads"], {"embeddings"}),
        (["embeddings"], {"layers", "heads"}),
    ],
)
def test_steps_leave_frozen_parts_alone(
    optimizer: str, parts: list[str], trained: set[str]
) -> None:
    """Also with weight decay, and although something else gave them a gradient."""
    potential = make_potential()
    freeze(potential, parts)
    before = {name: p.clone() for name, p in potential.pet.named_parameters() if p.numel()}
    config = TrainingConfig(epochs=1, optimizer=optimizer, weight_decay=0.5, learning_rate=0.01)
    stepper = make_optimizer(potential, config)
    for p in potential.pet.parameters():
        p.grad = torch.ones_like(p)
    stepper.step()
    after = dict(potential.pet.named_parameters())
    changed = {part_of(n, potential) for n, old in before.items() if not torch.equal(old, after[n])}
    unchanged = {part_of(n, potential) for n, old in before.items() if torch.equal(old, after[n])}
    assert changed == trained
    assert not unchanged & trained


def test_counts() -> None:
    potential = make_potential()
    assert count_parameters(potential) == (potential.n_parameters(), 0)
    freeze(potential, ["heads"])
    in_heads = sum(
        p.numel()
        for module in (potential.pet.node_heads, potential.pet.edge_heads)
        for p in module.parameters()
    )
    assert count_parameters(potential) == (potential.n_parameters() - in_heads, in_heads)


def test_something_has_to_be_trained() -> None:
    with pytest.raises(UserError, match="backbone, heads leaves nothing to train"):
        freeze(make_potential(), ["backbone", "heads"])
