"""What happens between steps and epochs: validation, metrics, checkpoints, signals, a bar."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NoReturn

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pet_mlip.config import TrainingConfig
from pet_mlip.engine.potential import Potential
from pet_mlip.pace import EveryHalfMinute
from pet_mlip.train.module import BrokenOff, TrainingModule
from pet_mlip.train.output import LOG, MetricsTable

FIRST_CHECKPOINT = 60.0
"""Seconds."""


class TrainingInterrupted(Exception):  # noqa: N818 - it is no error
    """A signal stopped the training; the last checkpoint continues it.

    Attributes:
        signal: Number of the signal.
        first: Whether this is the process that writes.
    """

    def __init__(self, number: int, first: bool = True) -> None:
        super().__init__(f"training interrupted by {signal.Signals(number).name}")
        self.signal = number
        self.first = first


class Recorder(pl.Callback):
    """Validates, writes metrics and checkpoints at the end of epochs, and decides when to stop.

    Args:
        config: The ``training`` section.
        table: ``metrics.csv``.
        save: Writes a checkpoint under a name.
    """

    def __init__(
        self,
        config: TrainingConfig,
        table: MetricsTable,
        save: Callable[[TrainingModule, str], None],
    ) -> None:
        self.config = config
        self.table = table
        self.save = save
        self.last_saved = 0.0
        self.interval = min(FIRST_CHECKPOINT, 60 * config.checkpoint_minutes)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Make the run resumable from its first moment; do the validation that is due."""
        assert isinstance(module, TrainingModule)
        progress, ended = module.progress, module.progress.finished(self.config)
        module.start_clock()
        module.on_abandoned = lambda: self._stop(trainer, module)
        self.last_saved = progress.elapsed
        if trainer.is_global_zero:
            # The row that is due may belong to an epoch that max_time has cut off.
            done = int(progress.pending["epoch"]) - 1 if progress.pending else progress.epoch
            self.table.start(done)
            if progress.step == 0:
                self.save(module, "last.ckpt")
        if self.config.max_time is not None and progress.validation_seconds == 0.0:
            module.project_validation()
            LOG.info("A validation takes about %.1f s.", progress.validation_seconds)
        if progress.pending:
            self._validate(trainer, module)
            self._finish_epoch(trainer, module)
            trainer.should_stop = trainer.should_stop or ended
            if not trainer.should_stop and trainer.is_global_zero:
                self.table.start(progress.epoch)  # an epoch that goes on gets its row at its end

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Save within long epochs, and stop for a signal or when the time is up."""
        assert isinstance(module, TrainingModule)
        if module.progress.out_of_time(self.config):
            trainer.should_stop = True
            return
        if module.progress.batch >= module.plan.n_batches:
            return  # the end of the epoch sees to it
        if module.stop_agreed:
            self._stop(trainer, module)
        if self._is_checkpoint_due(module):
            self._save_last(trainer, module)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Validate, note the metrics, save, and stop if there is nothing more to do."""
        assert isinstance(module, TrainingModule)
        row = module.finish_epoch()
        module.synchronize()
        if self._is_validation_due(module):
            module.progress.pending = row
            # Nobody knows how long the first one takes.
            is_first = module.progress.best_epoch == 0
            if is_first or self._is_checkpoint_due(module, module.progress.validation_seconds):
                self._save_last(trainer, module)
            self._validate(trainer, module)
        elif trainer.is_global_zero:
            self._record(trainer, module, row, False)
        self._finish_epoch(trainer, module)

    def _finish_epoch(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        """Save, and stop if somebody wants that or there is nothing more to do."""
        self._save_last(trainer, module)
        if module.stop_agreed:
            raise _interruption(module)
        if module.progress.finished(self.config):
            trainer.should_stop = True

    def _validate(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        """Validate the last complete epoch and note its metrics; a signal puts that off."""
        progress = module.progress
        begun = progress.elapsed
        errors = module.validate()
        if errors is None and module.stop_agreed:
            progress.elapsed = begun  # it will be repeated, and may take as long as it has to
            self._stop(trainer, module)
        row, progress.pending = dict(progress.pending), {}
        improved = False
        if errors is not None:
            row |= errors
            improved = self._judge(module, row)
        elif progress.best_epoch == 0:
            LOG.warning(
                "max_time is over before anything could be validated: the exported model is the "
                "last one, and its errors are not known; give more time, or fewer validation "
                "structures."
            )
            progress.best_epoch, improved = int(row["epoch"]), True
        else:
            LOG.warning("max_time is over: the last validation was broken off.")
        module.synchronize()
        if trainer.is_global_zero:
            self._record(trainer, module, row, improved)

    def _is_checkpoint_due(self, module: TrainingModule, ahead: float = 0.0) -> bool:
        """Whether it will be time for one when the next seconds are over."""
        return module.progress.elapsed + ahead - self.last_saved > self.interval

    def _is_validation_due(self, module: TrainingModule) -> bool:
        progress = module.progress
        due = progress.epoch % self.config.validate_every == 0
        return due or progress.finished(self.config)

    def _judge(self, module: TrainingModule, row: dict[str, float]) -> bool:
        progress, score = module.progress, module.loss.score(row)
        improved = score < progress.best_score or progress.best_epoch == 0
        if improved:
            progress.best_score, progress.best_epoch = score, int(row["epoch"])
        progress.waited = 0 if improved else progress.waited + 1
        patience = self.config.early_stopping
        if patience is not None and progress.waited >= patience:
            progress.stopped = True
            LOG.info("No improvement in %d validations: stopping early.", patience)
        return improved

    def _record(
        self, trainer: pl.Trainer, module: TrainingModule, row: dict[str, float], improved: bool
    ) -> None:
        row["elapsed"] = module.progress.elapsed
        self.table.append(row)
        LOG.info(summarize(row, improved, result_units(module.potential)))
        known = {key: value for key, value in row.items() if not math.isnan(value)}
        for logger in trainer.loggers:
            logger.log_metrics(known, step=module.progress.step)
        if improved:
            self.save(module, "best.ckpt")

    def _save_last(self, trainer: pl.Trainer, module: TrainingModule) -> None:
        module.flush_losses()
        since = module.progress.elapsed - self.last_saved
        if since > self.interval:  # from now on less often
            self.interval = 60 * self.config.checkpoint_minutes
        self.last_saved = module.progress.elapsed
        if trainer.is_global_zero:
            self.save(module, "last.ckpt")

    def _stop(self, trainer: pl.Trainer, module: TrainingModule) -> NoReturn:
        self._save_last(trainer, module)
        raise _interruption(module)


def _interruption(module: TrainingModule) -> TrainingInterrupted:
    return TrainingInterrupted(module.stop_signal, module.trainer.is_global_zero)


def summarize(
    row: dict[str, float], improved: bool, result_units: Mapping[str, str] | None = None
) -> str:
    """One line of the log for one epoch."""
    parts = [f"epoch {row['epoch']:.0f}", f"step {row['step']:.0f}", f"lr {row['lr']:.2e}"]
    parts.append(f"loss {row['train_loss']:.4g}")
    if "val_loss" in row:
        parts.append(f"validation {row['val_loss']:.4g}{' (best)' if improved else ''}")
    units = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/Å^3", **(result_units or {})}
    errors = {target: row.get(f"{target}_rmse", math.nan) for target in units}
    known = [f"{t} {x:.4g} {units[t]}" for t, x in errors.items() if not math.isnan(x)]
    return ", ".join(parts) + (f"; RMSE {', '.join(known)}" if known else "")


def result_units(potential: Potential) -> dict[str, str]:
    """Units of the errors of results that are no energies, by name."""
    return {
        name: result.unit + ("" if result.per_atom else "/atom")
        for name, result in potential.pet_hypers.results.items()
    }


class Signals(pl.Callback):
    """Signals end the training after the current step or part of it; validations at once.

    They are SIGINT, SIGTERM, and SIGUSR1, which batch queues send some time before a job's end. A
    second SIGINT ends it at once.

    Signal handlers exist in main threads only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Install the handlers (after Lightning's own)."""
        assert isinstance(module, TrainingModule)
        if threading.current_thread() is not threading.main_thread():
            return

        def ask(number: int, _: Any) -> None:
            if module.stop_asked and number == signal.SIGINT:
                raise KeyboardInterrupt
            module.stop_asked, module.stop_signal = True, number
            if module.may_break_off:
                module.may_break_off = False
                raise BrokenOff

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            self.previous[number] = signal.signal(number, ask)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Put the former handlers back."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, _: Any) -> None:
        """Put the former handlers back."""
        self._restore()

    def _restore(self) -> None:
        while self.previous:
            number, handler = self.previous.popitem()
            signal.signal(number, handler)


class ProgressLines(pl.Callback):
    """How far the training is, in the log, every half minute where there is no bar."""

    def __init__(self) -> None:
        self.is_due = EveryHalfMinute()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Let validations say how far they are, too."""
        assert isinstance(module, TrainingModule)
        module.on_validated = self._tell_validation
        self.is_due = EveryHalfMinute()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Tell how far."""
        assert isinstance(module, TrainingModule)
        if not self.is_due():
            return
        progress = module.progress
        done = progress.fraction(module.config, module.plan.n_batches)
        left = progress.elapsed * (1 - done) / max(done, 1e-9)
        LOG.info(
            "epoch %d, step %d: %.1f %% done, about %s left",
            progress.epoch + 1,
            progress.step,
            100 * done,
            timedelta(seconds=round(left)),
        )

    def _tell_validation(self, done: int, total: int) -> None:
        if self.is_due():
            LOG.info("validating: %d of %d structures", done, total)


class ProgressBar(pl.Callback):
    """How far the training is, in a terminal.

    Args:
        console: Shared with the log, whose lines appear above the bar.
    """

    def __init__(self, console: Console) -> None:
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.percentage:5.1f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[rate]:.1f} steps/s"),
            console=console,
            refresh_per_second=2,
            transient=True,
        )
        self.start = (0, 0.0)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Show the bar."""
        assert isinstance(module, TrainingModule)
        self.start = (module.progress.step, module.progress.elapsed)
        self.task = self.bar.add_task("", total=1.0, epoch=module.progress.epoch + 1, rate=0.0)
        self.bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Move it; its own thread draws it twice a second."""
        assert isinstance(module, TrainingModule)
        progress = module.progress
        step, elapsed = self.start
        self.bar.update(
            self.task,
            completed=progress.fraction(module.config, module.plan.n_batches),
            epoch=progress.epoch + 1,
            rate=(progress.step - step) / max(progress.elapsed - elapsed, 1e-6),
        )

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Remove it."""
        self.bar.stop()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, _: Any) -> None:
        """Remove it."""
        self.bar.stop()
