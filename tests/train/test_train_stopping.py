"""A training ends when it must, and whatever ends it loses little."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from train_tools import tiny_config

from pet_mlip.config import Config
from pet_mlip.train import run_training
from pet_mlip.train.callbacks import TrainingInterrupted
from pet_mlip.train.checkpoint import read_checkpoint
from pet_mlip.train.module import TrainingModule
from pet_mlip.train.output import MetricsTable
from pet_mlip.train.schedule import Progress

pytestmark = pytest.mark.usefixtures("without_report")


def slow_validation(patch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let each part of a validation take longer."""
    predict = TrainingModule._predict_average

    def slowly(self: TrainingModule, batch: Any) -> Any:
        time.sleep(seconds)
        return predict(self, batch)

    patch.setattr(TrainingModule, "_predict_average", slowly)


@pytest.mark.parametrize("every", [1, 1000])
def test_max_time_includes_validations(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Also the last one, whose length is known from its first batch or the one before."""
    slow_validation(monkeypatch, 0.5)  # two batches of them
    config = tiny_config(data, epochs=None, max_time=6, validate_every=every, batch_size=3)
    start = time.monotonic()
    run_training(config, tmp_path)
    assert time.monotonic() - start < 12  # a slow machine's reading and writing
    last = MetricsTable(tmp_path / "metrics.csv").rows()[-1]
    assert 3 < last["elapsed"] <= 6.1
    assert math.isfinite(last["val_loss"])
    assert last["lr"] < 1e-3


def test_a_validation_longer_than_max_time_is_broken_off(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_validation(monkeypatch, 2.0)
    config = tiny_config(data, epochs=None, max_time=3, batch_size=2)
    start = time.monotonic()
    run_training(config, tmp_path)
    assert time.monotonic() - start < 9
    assert "errors are not known" in (tmp_path / "train.log").read_text()
    assert read_checkpoint(tmp_path / "best.ckpt")["progress"]["best_epoch"] > 0


def signal_after(seconds: float, number: int) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    return timer


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read_checkpoint(folder / "last.ckpt")["weights"]
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_acted_on_within_a_validation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The validation is done first thing after the restart, and nothing is different."""
    config = tiny_config(data, epochs=2, batch_size=3)
    run_training(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        validate = TrainingModule.validate

        def signalled(self: TrainingModule) -> Any:
            signal_after(0.3, number)
            return validate(self)

        slow_validation(patch, 20.0)
        patch.setattr(TrainingModule, "validate", signalled)
        start = time.monotonic()
        with pytest.raises(TrainingInterrupted) as caught:
            run_training(config, tmp_path / "parts")
        assert caught.value.signal == number
        assert time.monotonic() - start < 15
    progress = read_checkpoint(tmp_path / "parts" / "last.ckpt")["progress"]
    assert (progress["epoch"], progress["batch"]) == (1, 0)
    assert progress["pending"]["epoch"] == 1
    assert MetricsTable(tmp_path / "parts" / "metrics.csv").rows() == []
    run_training(config, tmp_path / "parts", resume=True)
    tables = [MetricsTable(tmp_path / name / "metrics.csv").rows() for name in ("whole", "parts")]
    for one, other in zip(*tables, strict=True):
        for key in ("epoch", "train_loss", "val_loss", "forces_rmse"):
            assert one[key] == other[key]
    whole, parts = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_signal_need_not_wait_for_a_structure(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes minutes to validate is left in its midst."""
    slow_validation(monkeypatch, 20.0)
    validate = TrainingModule.validate

    def signalled(self: TrainingModule) -> Any:
        signal_after(0.3, signal.SIGTERM)
        return validate(self)

    monkeypatch.setattr(TrainingModule, "validate", signalled)
    start = time.monotonic()
    with pytest.raises(TrainingInterrupted):
        run_training(tiny_config(data, epochs=1), tmp_path)
    assert time.monotonic() - start < 10
    assert read_checkpoint(tmp_path / "last.ckpt")["progress"]["pending"]["epoch"] == 1


def test_a_signal_need_not_wait_for_a_step_in_parts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is left between two parts, and repeated by the continuation."""
    config = tiny_config(data, epochs=2, memory_gb=1e-6)  # a part for each structure
    run_training(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        loss_of, parts = TrainingModule._loss_of, []

        def signalled(self: TrainingModule, part: Any) -> Any:
            parts.append(part)
            if len(parts) == 12:  # the second of the third step
                os.kill(os.getpid(), signal.SIGTERM)
            return loss_of(self, part)

        patch.setattr(TrainingModule, "_loss_of", signalled)
        with pytest.raises(TrainingInterrupted):
            run_training(config, tmp_path / "parts")
        assert len(parts) == 12
    assert read_checkpoint(tmp_path / "parts" / "last.ckpt")["progress"]["step"] == 2
    run_training(config, tmp_path / "parts", resume=True)
    whole, parts_too = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts_too[name]) for name in whole)
    tables = [MetricsTable(tmp_path / name / "metrics.csv").rows() for name in ("whole", "parts")]
    for one, other in zip(*tables, strict=True):
        assert one["train_loss"] == other["train_loss"]


def saved_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Steps and times of all writings of last.ckpt from now on."""
    from pet_mlip.train import run

    found: list[tuple[int, float]] = []
    write = run.write_checkpoint

    def note(path: Path, content: dict[str, Any]) -> None:
        if Path(path).name == "last.ckpt":
            found.append((content["progress"]["step"], content["progress"]["elapsed"]))
        write(path, content)

    monkeypatch.setattr(run, "write_checkpoint", note)
    return found


def test_the_first_checkpoint_comes_soon_and_the_next_by_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_mlip.train.callbacks.FIRST_CHECKPOINT", 0.2)
    step = TrainingModule.training_step

    def slowly(self: TrainingModule, *arguments: Any) -> Any:
        time.sleep(0.1)
        return step(self, *arguments)

    monkeypatch.setattr(TrainingModule, "training_step", slowly)
    found = saved_steps(monkeypatch)
    config = tiny_config(data, epochs=1, batch_size=1, checkpoint_minutes=0.6 / 60)
    run_training(config, tmp_path)
    (first, _), (second, at_second), (third, at_third), *_ = found
    assert first == 0
    assert 1 <= second <= 4
    assert at_third - at_second == pytest.approx(0.7, abs=0.25)
    assert second < third < 20


def test_a_long_validation_does_not_keep_a_checkpoint_waiting(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever kills the process while it validates costs no epoch."""
    monkeypatch.setattr("pet_mlip.train.callbacks.FIRST_CHECKPOINT", 1e-6)
    validate = TrainingModule.validate
    seen: list[dict[str, Any]] = []

    def look(self: TrainingModule) -> Any:
        seen.append(read_checkpoint(tmp_path / "last.ckpt")["progress"])
        return validate(self)

    monkeypatch.setattr(TrainingModule, "validate", look)
    run_training(tiny_config(data, epochs=1), tmp_path)
    assert [progress["epoch"] for progress in seen] == [1]
    assert seen[0]["pending"]["epoch"] == 1


def test_default_limits() -> None:
    fields = Config.model_fields["training"].annotation.model_fields  # type: ignore[union-attr]
    assert fields["checkpoint_minutes"].default <= 10


def interrupted_in_a_validation(
    patch: pytest.MonkeyPatch, config: Config, folder: Path, number: int
) -> Any:
    """The progress after a signal within the validation of a number, counted from one."""
    seen = []
    with patch.context() as patched:
        validate = TrainingModule.validate

        def signalled(self: TrainingModule) -> Any:
            seen.append(self.progress.epoch)
            if len(seen) == number:
                self.stop_asked, self.stop_signal = True, int(signal.SIGTERM)
            return validate(self)

        patched.setattr(TrainingModule, "validate", signalled)
        with pytest.raises(TrainingInterrupted):
            run_training(config, folder)
    assert len(seen) == number
    return read_checkpoint(folder / "last.ckpt")["progress"]


def no_step(patch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("a step was made")

    patch.setattr(TrainingModule, "training_step", refuse)


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (2, 1), (2, 1000)])
def test_a_last_validation_that_a_signal_put_off_is_made_up_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, every: int
) -> None:
    """No step is left, but the model is not known yet; it is as if nothing had happened."""
    config = tiny_config(data, epochs=epochs, validate_every=every)
    run_training(config, tmp_path / "whole")
    last = epochs if every == 1 else 1
    before = interrupted_in_a_validation(monkeypatch, config, tmp_path / "parts", last)
    assert (before["epoch"], before["pending"]["epoch"]) == (epochs, epochs)
    no_step(monkeypatch)
    run_training(config, tmp_path / "parts", resume=True)
    progress = read_checkpoint(tmp_path / "parts" / "last.ckpt")["progress"]
    assert progress["pending"] == {}
    for name in ("best.ckpt", "last.ckpt"):
        contents = [read_checkpoint(tmp_path / part / name) for part in ("whole", "parts")]
        assert contents[0]["progress"]["best_score"] == contents[1]["progress"]["best_score"]
        assert contents[0]["summary"]["epoch"] == contents[1]["summary"]["epoch"]
    tables = [MetricsTable(tmp_path / name / "metrics.csv").rows() for name in ("whole", "parts")]
    assert len(tables[0]) == len(tables[1]) == epochs
    assert tables[0][-1]["val_loss"] == tables[1][-1]["val_loss"]
    run_training(config, tmp_path / "parts", resume=True)
    assert "Nothing is left to train" in (tmp_path / "parts" / "train.log").read_text()


def test_a_continuation_saves_the_validation_that_it_begins_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends if that stops the training early, before another step."""
    config = tiny_config(data, epochs=9, early_stopping=1)
    interrupted_in_a_validation(monkeypatch, config, tmp_path, 2)
    no_step(monkeypatch)
    with monkeypatch.context() as patch, pytest.raises(AssertionError, match="a step was made"):
        patch.setattr(
            "pet_mlip.train.callbacks.Recorder._judge", lambda *_: False
        )  # the training would go on
        run_training(config, tmp_path, resume=True)
    progress = read_checkpoint(tmp_path / "last.ckpt")["progress"]
    assert (progress["epoch"], progress["pending"]) == (2, {})


def test_early_stopping_by_the_validation_that_a_continuation_begins_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(data, epochs=9, early_stopping=1)
    interrupted_in_a_validation(monkeypatch, config, tmp_path, 2)
    no_step(monkeypatch)
    monkeypatch.setattr("pet_mlip.train.loss.ErrorSums.result", lambda _: {"val_loss": math.inf})
    run_training(config, tmp_path, resume=True)
    progress = read_checkpoint(tmp_path / "last.ckpt")["progress"]
    assert (progress["epoch"], progress["stopped"], progress["pending"]) == (2, True, {})


def cut_off(patch: pytest.MonkeyPatch, step: int) -> None:
    """Let max_time be over after a step."""
    patch.setattr(Progress, "out_of_time", lambda self, _: self.step >= step)


@pytest.mark.parametrize("on", [False, True])
def test_rows_stay_when_max_time_ends_within_an_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: bool
) -> None:
    """A signal comes while that incomplete epoch is validated; there may be more time then."""
    config = tiny_config(data, epochs=None, max_time=1000)  # epochs of 4 steps
    with monkeypatch.context() as patch:
        cut_off(patch, 10)
        before = interrupted_in_a_validation(patch, config, tmp_path, 3)
    assert (before["epoch"], before["batch"], before["pending"]["epoch"]) == (2, 2, 3)
    cut_off(monkeypatch, 12 if on else 10)
    run_training(config, tmp_path, resume=True)
    rows = MetricsTable(tmp_path / "metrics.csv").rows()
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [4, 8, 12 if on else 10]
    assert all(math.isfinite(row["val_loss"]) for row in rows)


def test_a_validation_that_was_broken_off_costs_no_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else max_time would be over before it can be repeated."""
    config = tiny_config(data, epochs=1, batch_size=3)
    slow_validation(monkeypatch, 0.5)
    validate = TrainingModule.validate
    begun = []

    def signalled(self: TrainingModule) -> Any:
        begun.append(self.progress.elapsed)
        signal_after(0.8, signal.SIGTERM)
        return validate(self)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "validate", signalled)
        with pytest.raises(TrainingInterrupted):
            run_training(config, tmp_path)
    assert read_checkpoint(tmp_path / "last.ckpt")["progress"]["elapsed"] == begun[0]
