"""The optimiser and its groups of parameters."""

from __future__ import annotations

import torch
from torch import nn

from pet_mlip.config import TrainingConfig
from pet_mlip.train.muon import Muon


def make_optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW or Muon, with weight decay on the matrices between hidden features only.

    Each group has a ``factor`` by which its learning rate differs from the schedule's.
    """
    matrices, others = split_parameters(module)
    muon = config.optimizer == "muon"
    decay = {"weight_decay": config.weight_decay, "factor": 1.0}
    keep = {"weight_decay": 0.0, "factor": config.muon_other_rate if muon else 1.0}
    if muon:
        groups = [
            {"params": matrices, "matrix": True, **decay},
            {"params": others, "matrix": False, **keep},
        ]
        return Muon(groups, lr=config.learning_rate, betas=config.betas)
    groups = [{"params": matrices, **decay}, {"params": others, **keep}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices between hidden features, and everything else, without what is frozen.

    The latter are embeddings of what the model reads, the last layers, biases and norms.
    """
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        outer = "embedder" in name or ".last." in name
        (matrices if parameter.ndim == 2 and not outer else others).append(parameter)
    return matrices, others
