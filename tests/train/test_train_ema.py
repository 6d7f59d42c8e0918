"""Averaged weights."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pet_mlip.train.ema import AveragedWeights


def walk(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn(parameter.shape, generator=generator)


def test_it_is_torchs_average_once_the_decay_has_risen() -> None:
    module = nn.Linear(3, 2)
    ours = AveragedWeights(module, 0.5)
    ours.updates = 1000
    theirs = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    theirs.update_parameters(module)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        walk(module, generator)
        ours.update(module)
        theirs.update_parameters(module)
    torch.testing.assert_close(ours.module.weight, theirs.module.weight)
    torch.testing.assert_close(ours.module.bias, theirs.module.bias)


def test_the_decay_rises() -> None:
    module = nn.Linear(1, 1, bias=False)
    ours = AveragedWeights(module, 0.999)
    before = ours.module.weight.clone()
    walk(module, torch.Generator().manual_seed(0))
    ours.update(module)
    expected = before + 0.9 * (module.weight.detach() - before)
    torch.testing.assert_close(ours.module.weight, expected)


def test_zero_decay_copies() -> None:
    module = nn.Linear(3, 2)
    ours = AveragedWeights(module, 0.0)
    walk(module, torch.Generator().manual_seed(0))
    ours.update(module)
    torch.testing.assert_close(ours.module.weight, module.weight.detach(), rtol=0, atol=1e-7)


def test_the_copy_never_trains() -> None:
    ours = AveragedWeights(nn.Sequential(nn.Linear(2, 2), nn.Dropout()), 0.9)
    ours.train()
    assert not ours.module.training
    assert not any(parameter.requires_grad for parameter in ours.parameters())
