"""Frozen parts of the network: which, and what the optimisers do with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from train_tools import TINY

from pet_mlip.config import TrainingConfig
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.train.freeze import count_parameters, freeze, parts_by_name
from pet_mlip.train.optimizer import make_optimizer, split_parameters


def make_potential(**changes: Any) -> Potential:
    hypers = PETHypers(**{**TINY, "num_gnn_layers": 2, **changes})
    return Potential([1, 8], hypers, SymmetrizationHypers())


def test_every_parameter_belongs_to_a_part() -> None:
    potential = make_potential(system_conditioning=True, featurizer_type="feedforward")
    parts = parts_by_name(potential)
    assert parts.keys() == {name for name, _ in potential.pet.named_parameters()}
    embeddings = {name for name, part in parts.items() if part == "embeddings"}
    assert embeddings == {
        "edge_embedder.weight",
        "node_embedders.0.weight",
        "layers.0.neighbor_embedder.weight",
        "layers.1.neighbor_embedder.weight",
        "conditioning.charge_embedding.weight",
        "conditioning.spin_multiplicity_embedding.weight",
    }
    assert parts["layers.0.edge_embedder.weight"] == "layers"
    assert parts["exchanges.1.mixing.w_in.weight"] == "layers"
    heads = {name for name, part in parts.items() if part == "heads"}
    assert heads == {name for name in parts if name.startswith("readouts.")}
    assert {"readouts.0.node_head.last.bias", "readouts.0.edge_head.first.weight"} <= heads
    assert set(parts.values()) == {"embeddings", "layers", "heads"}


@pytest.mark.parametrize("featurizer", ["residual", "feedforward"])
def test_matrices_between_hidden_features(featurizer: str) -> None:
    """Only these decay, and are orthogonalised."""
    potential = make_potential(featurizer_type=featurizer, d_node=16, system_conditioning=True)
    matrices, others = split_parameters(potential)
    names = {parameter: name for name, parameter in potential.pet.named_parameters()}
    assert len(matrices) + len(others) == sum(p.requires_grad for p in names)
    in_transformer = ("attention.input_linear", "attention.output_linear", "mlp.w_in", "mlp.w_out")
    in_transformer += ("center.contraction", "center.expansion", "center.mlp.w_in")
    in_transformer += ("center.mlp.w_out",)
    parts = [f"layers.0.{part}" for part in in_transformer] + ["compress_in", "compress_out"]
    parts += ["density.collect", "density.spread"]
    expected = {f"layers.{k}.{part}.weight" for k in range(2) for part in parts}
    expected |= {"conditioning.project.0.weight", "conditioning.project.2.weight"}
    if featurizer == "feedforward":
        expected |= {
            f"exchanges.{k}.mixing.{w}.weight" for k in range(2) for w in ("w_in", "w_out")
        }
    for k in range(len(potential.pet.readouts)):
        expected |= {
            f"readouts.{k}.{what}_head.{which}.weight"
            for what in ("node", "edge")
            for which in ("first", "second")
        }
    assert {names[p] for p in matrices} == expected


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
    part_of = parts_by_name(potential)
    changed = {part_of[n] for n, old in before.items() if not torch.equal(old, after[n])}
    unchanged = {part_of[n] for n, old in before.items() if torch.equal(old, after[n])}
    assert changed == trained
    assert not unchanged & trained


def test_counts() -> None:
    potential = make_potential()
    assert count_parameters(potential) == (potential.n_parameters(), 0)
    freeze(potential, ["heads"])
    in_heads = sum(p.numel() for p in potential.pet.readouts.parameters())
    assert count_parameters(potential) == (potential.n_parameters() - in_heads, in_heads)


def test_something_has_to_be_trained() -> None:
    with pytest.raises(UserError, match="backbone, heads leaves nothing to train"):
        freeze(make_potential(), ["backbone", "heads"])
