"""The optimiser and its groups of parameters."""

from __future__ import annotations

import torch
from torch import nn

from pet_mlip.config import TrainingConfig
from pet_mlip.engine.potential import Potential
from pet_mlip.network.layer import GNNLayer
from pet_mlip.network.readout import Head
from pet_mlip.train.freeze import embeddings
from pet_mlip.train.muon import Muon


def make_optimizer(potential: Potential, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW or Muon, with weight decay on the matrices between hidden features only.

    Each group has a ``factor`` by which its learning rate differs from the schedule's.
    """
    matrices, others = split_parameters(potential)
    muon = config.optimizer == "muon"
    decay = {"weight_decay": config.weight_decay, "factor": 1.0}
    keep = {"weight_decay": 0.0, "factor": config.muon_other_rate if muon else 1.0}
    if muon:
        groups = [
            {"params": matrices, "matrix": True, **decay},
            {"params": others, "matrix": False, **keep},
        ]
        return Muon(groups, lr=config.largest_rate, betas=config.betas)
    groups = [{"params": matrices, **decay}, {"params": others, **keep}]
    return torch.optim.AdamW(groups, lr=config.largest_rate, betas=config.betas, fused=True)


def split_parameters(potential: Potential) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices between hidden features, and everything else, without what is frozen.

    The latter are embeddings of what the model reads, the last layers, biases and norms.
    """
    outer = embeddings(potential.pet)
    for module in potential.pet.modules():
        if isinstance(module, GNNLayer):
            outer |= {module.edge_embedder.weight, module.radial_embedder}
        elif isinstance(module, Head):
            outer.add(module.last.weight)
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in potential.parameters():
        if parameter.requires_grad:
            hidden = parameter.ndim == 2 and parameter not in outer
            (matrices if hidden else others).append(parameter)
    return matrices, others
