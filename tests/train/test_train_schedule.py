"""Progress and learning rate."""

from __future__ import annotations

from typing import Any

import pytest

from pet_mlip.config import TrainingConfig
from pet_mlip.train.schedule import Progress, learning_rate
from pet_mlip.train.setup import default_learning_rate


def test_the_learning_rate_rises_linearly_and_falls_to_zero() -> None:
    config = TrainingConfig(epochs=1, learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(config, x) for x in (0, 0.05, 0.1, 0.55, 1.0)]
    assert rates == pytest.approx([0, 1, 2, 1, 0])


def test_no_warmup() -> None:
    config = TrainingConfig(epochs=1, learning_rate=2.0, warmup=0)
    assert learning_rate(config, 0.0) == 2.0


def test_progress_follows_what_is_ahead() -> None:
    config = TrainingConfig(epochs=10, max_time=100)
    assert Progress(epoch=2, batch=1).fraction(config, 4) == pytest.approx(0.225)
    assert Progress(epoch=2, elapsed=60).fraction(config, 4) == pytest.approx(0.6)
    assert Progress(elapsed=200).fraction(config, 4) == 1
    only_time = TrainingConfig(max_time=100)
    assert Progress(epoch=1000, elapsed=60).fraction(only_time, 4) == pytest.approx(0.6)


def test_when_a_training_is_finished() -> None:
    config = TrainingConfig(epochs=3, max_time=100)
    assert not Progress(epoch=2, elapsed=99).finished(config)
    assert Progress(epoch=3).finished(config)
    assert Progress(elapsed=100).finished(config)
    assert Progress(stopped=True).finished(config)


def test_the_last_validation_may_take_longer_than_those_before() -> None:
    config = TrainingConfig(max_time=100)
    progress = Progress(elapsed=84, validation_seconds=10, step_seconds=0.1, best_epoch=1)
    assert not progress.finished(config)
    progress.elapsed = 85
    assert progress.finished(config) and not progress.must_end(config)
    progress.elapsed += 14  # instead of ten seconds
    assert not progress.must_end(config)


@pytest.mark.parametrize(
    ("settings", "atoms", "rate"),
    [
        ({}, 300, 4e-3),
        ({"optimizer": "adamw"}, 300, 1e-3),
        ({"init_from": "a.ckpt"}, 2000, 1e-3),
        ({"init_from": "a.ckpt"}, 1999, 5e-4),
        ({"init_from": "a.ckpt", "optimizer": "adamw"}, 2000, 2.5e-4),
    ],
)
def test_the_learning_rate_follows_optimizer_start_and_data(
    settings: dict[str, Any], atoms: int, rate: float
) -> None:
    config = TrainingConfig(epochs=1, **settings)
    assert default_learning_rate(config, atoms) == pytest.approx(rate)


def test_progress_survives_a_checkpoint() -> None:
    progress = Progress(epoch=3, batch=2, step=11, elapsed=1.5, best_score=0.25)
    assert Progress(**progress.to_dict()) == progress
