"""The training step as a Lightning module."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pet_mlip.config import Config
from pet_mlip.ecse.random_numbers import combine
from pet_mlip.ecse.training import random_frames
from pet_mlip.engine.derivatives import Prediction, predict
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.train.ema import AveragedWeights
from pet_mlip.train.loader import Loaders
from pet_mlip.train.loss import ErrorSums, Loss, compare, label_counts
from pet_mlip.train.memory import MemoryBudget
from pet_mlip.train.optimizer import make_optimizer
from pet_mlip.train.schedule import Progress, learning_rate


class BrokenOff(Exception):  # noqa: N818 - it is no error
    """A signal came while something was evaluated that can be repeated."""


class TrainingModule(pl.LightningModule):
    """One optimisation step, one validation, and the state that both need.

    Everything random is drawn from (seed, epoch, structure), and the learning rate is a function of
    `Progress`: a resumed training repeats the uninterrupted one.

    Args:
        potential: With its baseline and network dtype set.
        config: The whole configuration.
        loss: Of the results, on the scale of the data.
        loaders: Makes the batches.
        progress: Where the training stands.
    """

    def __init__(
        self,
        potential: Potential,
        config: Config,
        loss: Loss,
        loaders: Loaders,
        progress: Progress,
    ) -> None:
        super().__init__()
        self.potential = potential
        self.average = AveragedWeights(potential, config.training.ema_decay)
        self.config = config.training
        self.loss = loss
        self.loaders = loaders
        self.progress = progress
        self.optimizer_state: dict[str, Any] | None = None
        self.stop_asked = False  # by a signal, on this process
        self.stop_agreed = False  # by all processes
        self.stop_signal = int(signal.SIGINT)
        self.learning_rate = 0.0
        self.errors: dict[str, float] = {}  # of the last validation
        self.on_validated: Callable[[int, int], None] | None = None  # how far a validation is
        self.on_abandoned: Callable[[], None] | None = None  # a step is; it must raise
        self.may_break_off = False  # whether a signal may raise `BrokenOff` just now
        self._tick = time.monotonic()
        self._begun = (0.0, -2)  # elapsed time and number of the step that began last
        self._loss_sum: Tensor | None = None
        self._indices: Tensor | None = None
        self._counts: dict[str, int] = {}  # of labels in the global batch

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser, in the state of the checkpoint if there is one."""
        optimizer = make_optimizer(self.potential, self.config)
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
        return optimizer

    def content(self, with_optimizer: bool) -> dict[str, Any]:
        """What a checkpoint has to hold of this module, as plain types."""
        progress = self.progress
        summary = {
            "epoch": progress.epoch + (progress.batch > 0),
            "steps": progress.step,
            "seconds": round(progress.elapsed, 1),
            "training_structures": len(self.loaders.training),
            "validation_structures": len(self.loaders.validation),
            "validation": {k: v for k, v in self.errors.items() if v == v},
        }
        return {
            "potential": self.potential.config(),
            "dtype": str(next(self.potential.pet.parameters()).dtype).removeprefix("torch."),
            "weights": self.potential.state_dict(),
            "average": self.average.module.state_dict(),
            "average_updates": self.average.updates,
            "optimizer": self.trainer.optimizers[0].state_dict() if with_optimizer else None,
            "progress": progress.to_dict(),
            "summary": summary,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Take over the rest of a checkpoint; weights and progress are there already."""
        self.average.module.load_state_dict(content["average"])
        self.average.updates = content["average_updates"]
        self.optimizer_state = content["optimizer"]
        self.errors = content["summary"]["validation"]

    def train_dataloader(self) -> Any:
        """This process's batches, from where the training stands."""
        config = self.config
        here = 1 if self.device.type == "cuda" else self.trainer.num_devices
        self.memory = MemoryBudget(self.potential, config.memory_gb, self.device, here)
        self._examine_memory()
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        pin = self.device.type == "cuda"
        self.validation = self.loaders.validation_loader(rank, world_size, pin)
        self.plan, loader = self.loaders.training_loader(self.progress, rank, world_size, pin)
        return loader

    def _examine_memory(self) -> None:
        """Let the first process look whether all fits; if it refuses, all of them do."""
        refusal = ""
        if self.trainer.is_global_zero:
            limits = self.config.structures_per_batch, self.config.max_atoms_per_batch
            try:
                self.memory.examine(self.loaders.training, *limits, self.trainer.world_size)
            except UserError as error:
                refusal = str(error)
        refusal = self.trainer.strategy.broadcast(refusal)
        if refusal:
            raise UserError(refusal)

    def start_clock(self) -> None:
        """Count no set-up."""
        self._tick = time.monotonic()

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        """Skip Lightning's walk through the fields of the batch."""
        return batch if device.type == "cpu" else batch.to(device, non_blocking=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of a batch, such that the mean over processes is the loss of the global batch."""
        self._indices, self._counts = batch.index, label_counts(batch.totals)
        before, step = self._begun
        self.synchronize()
        progress = self.progress
        if progress.step == step + 1:
            # As long as the longest of late.
            progress.step_seconds = max(0.9 * progress.step_seconds, progress.elapsed - before)
        self._begun = (progress.elapsed, progress.step)
        self._set_learning_rate()
        *first, last = self.memory.split(batch)
        losses_before = self._loss_sum
        for part in first:
            self._loss_of(part).backward()  # type: ignore[no-untyped-call]
            # Other processes may be at other parts: several stop after the step only.
            if self.stop_asked and self.trainer.world_size == 1 and self.on_abandoned is not None:
                self._loss_sum, self.stop_agreed = losses_before, True
                self.on_abandoned()
        return self._loss_of(last)

    def _loss_of(self, part: Any) -> Tensor:
        """What a part of a batch adds to the loss, whose gradients add up."""
        residuals = compare(self._predict_in_training(part), part)
        loss = self.loss(residuals, label_counts(part.totals))
        found = loss.detach()
        self._loss_sum = found if self._loss_sum is None else self._loss_sum + found
        # Lightning averages gradients over the processes; each has its part of the sum.
        return loss * self.trainer.world_size if self.trainer.world_size > 1 else loss

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Leave the gradients of a batch's first parts: `optimizer_step` removes them all."""

    def _predict_in_training(self, batch: Any) -> Prediction:
        frames = None
        if self.potential.plain:
            keys = combine(batch.index, torch.full_like(batch.index, self.random_seed()))
            frames = random_frames(batch.structure, keys)
        return predict(
            self.potential,
            batch.graph,
            batch.structure,
            batch.n_structures,
            frames,
            derivatives=self.loss.needs_derivatives,
            training=True,
        )

    def random_seed(self) -> int:
        """Of the frames that this epoch draws, whatever process draws them."""
        sequence = np.random.SeedSequence([self.config.seed, self.progress.epoch])
        return int(sequence.generate_state(1, np.uint32)[0])

    def _set_learning_rate(self) -> None:
        done = self.progress.fraction(self.config, self.plan.n_batches)
        self.learning_rate = learning_rate(self.config, done)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate * group["factor"]

    def synchronize(self) -> None:
        """Advance the clock; all processes share one, and one wish to stop."""
        now = time.monotonic()
        self.progress.elapsed += now - self._tick
        self._tick = now
        self.stop_agreed = self.stop_asked
        if self.trainer.world_size > 1:
            elapsed = self.progress.elapsed if self.trainer.is_global_zero else 0.0
            shared = torch.tensor([elapsed, float(self.stop_asked)], dtype=torch.float64)
            elapsed, stop = self.sum_over_processes(shared.to(self.device)).tolist()
            self.progress.elapsed, self.stop_agreed = elapsed, stop > 0

    def sum_over_processes(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all processes."""
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def configure_gradient_clipping(self, optimizer: Any, **_: Any) -> None:  # type: ignore[override]
        """Clip by norm, and stop before a gradient that is no number reaches the weights."""
        self._forget_absent_results()
        limit = self.config.gradient_clip or float("inf")
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = float(nn.utils.clip_grad_norm_(parameters, limit, foreach=True))
        if not np.isfinite(norm):
            raise UserError(self._not_finite())
        self.progress.gradient_sum += norm

    def _forget_absent_results(self) -> None:
        """Leave readouts of results alone that no structure of the global batch has a label for.

        Their gradients are zero. Muon would take steps of full size for them, by momentum alone.
        """
        absent = [name for name in self.potential.result_names if not self._counts.get(name, 0)]
        for name in absent:
            for readouts in self.potential.pet.result_readouts:
                for parameter in readouts.parameters_of(name):  # type: ignore[operator]
                    parameter.grad = None

    def _not_finite(self) -> str:
        names = self.loaders.names(self._indices.tolist() if self._indices is not None else [])
        return (
            f"The gradient of the loss is not finite in step {self.progress.step + 1}; look at the "
            f"structures of this batch ({names}) or lower training.learning_rate."
        )

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:  # type: ignore[override]
        """Step, average the weights, and count."""
        optimizer.step(closure=closure)
        optimizer.zero_grad(set_to_none=True)
        self.average.update(self.potential)
        self.progress.batch += 1
        self.progress.step += 1

    def flush_losses(self) -> None:
        """Bring the sum of the losses from the device into `progress`."""
        if self._loss_sum is not None:
            self.progress.loss_sum += float(self.sum_over_processes(self._loss_sum))
            self._loss_sum = None

    def finish_epoch(self) -> dict[str, float]:
        """The metrics of the training in this epoch; moves on to the next one if it is complete."""
        self.flush_losses()
        progress, n_batches = self.progress, self.progress.batch
        row = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "lr": self.learning_rate,
            "train_loss": progress.loss_sum / n_batches,
            "gradient_norm": progress.gradient_sum / n_batches,
        }
        if progress.batch >= self.plan.n_batches:
            progress.epoch += 1
            progress.batch, progress.loss_sum, progress.gradient_sum = 0, 0.0, 0.0
        return row

    def validate(self) -> dict[str, float] | None:
        """Errors of the averaged weights, in the declared inference mode.

        None if it was broken off, by a signal or since ``max_time`` is over.
        """
        errors = ErrorSums(self.loss, self.device)
        start = self.progress.elapsed
        if not self.break_off_for_signals(lambda: self._add_all_errors(errors)):
            self.synchronize()
            return None
        seconds = self.progress.elapsed - start
        # A slow one, on a busy machine, is forgotten after a while.
        before = 0.9 * self.progress.validation_seconds if self.progress.best_epoch > 0 else 0.0
        self.progress.validation_seconds = max(seconds, before)
        self._begun = (0.0, -2)
        self.sum_over_processes(errors.sums)
        self.errors = errors.result()
        return self.errors

    def project_validation(self) -> None:
        """Estimate how long a validation takes from its first part, until there was one."""
        batch = next(iter(self.validation), None)
        if batch is None:
            return
        batch = self.transfer_batch_to_device(batch, self.device, 0)
        part = self.memory.split_validation(batch)[0]
        start = time.monotonic()
        if not self.break_off_for_signals(lambda: self._predict_average(part) is not None):
            return
        atoms = int(self.loaders.validation.sizes.sum()) / self.trainer.world_size
        seconds = (time.monotonic() - start) * atoms / max(len(part.structure), 1)
        seconds /= self.trainer.world_size  # the mean over the processes
        shared = torch.tensor([seconds], dtype=torch.float64, device=self.device)
        self.progress.validation_seconds = float(self.sum_over_processes(shared))
        self.synchronize()

    def _add_all_errors(self, errors: ErrorSums) -> bool:
        """Go through the validation set; whether it came to its end."""
        world_size, done = self.trainer.world_size, 0
        for batch in self.validation:
            batch = self.transfer_batch_to_device(batch, self.device, 0)
            parts = self.memory.split_validation(batch)
            for number, part in enumerate(parts, start=1):
                errors.add(compare(self._predict_average(part), part))
                done += part.n_structures
                if world_size > 1 and number < len(parts):
                    continue  # other processes may have other parts: they meet after batches
                self.synchronize()
                if self.on_validated is not None:
                    self.on_validated(done * world_size, len(self.loaders.validation))
                if self.stop_agreed or self.progress.must_end(self.config):
                    return False
        return True

    def _predict_average(self, batch: Any) -> Prediction:
        return predict(
            self.average.module,
            batch.graph,
            batch.structure,
            batch.n_structures,
            derivatives=self.loss.needs_derivatives,
            chunk_size=self.memory.chunk_size,
        )

    def break_off_for_signals(self, work: Callable[[], bool]) -> bool:
        """Do what can be repeated; False as soon as a signal comes, in the midst of it.

        A single structure may take minutes. Several processes have to agree, and go on.
        """
        try:
            self.may_break_off = self.trainer.world_size == 1
            if self.may_break_off and self.stop_asked:
                raise BrokenOff
            finished = work()
            self.may_break_off = False
        except BrokenOff:
            self.may_break_off = False
            return False
        return finished
