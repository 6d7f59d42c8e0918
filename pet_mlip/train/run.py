"""A whole training: data, model, loop, export, report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from pet_mlip.config import Config
from pet_mlip.engine.allocator import keep_freed_memory
from pet_mlip.errors import UserError
from pet_mlip.export import save_model
from pet_mlip.files import write_text
from pet_mlip.train.callbacks import ProgressBar, ProgressLines, Recorder, Signals
from pet_mlip.train.checkpoint import (
    load_checkpoint,
    read_checkpoint,
    restore_potential,
    write_checkpoint,
)
from pet_mlip.train.fingerprint import check_same_data, fingerprint
from pet_mlip.train.freeze import count_parameters, freeze
from pet_mlip.train.initial import Start, inherit_model, new_potential, pretrained_potential
from pet_mlip.train.launch import devices, make_trainer, matmul_precision, quiet_lightning
from pet_mlip.train.loader import Loaders
from pet_mlip.train.loss import Loss
from pet_mlip.train.module import TrainingModule
from pet_mlip.train.output import LOG, MetricsTable, Output, log_to
from pet_mlip.train.processes import Processes, find_processes
from pet_mlip.train.report import write_report
from pet_mlip.train.resume import check_same_training, restore_progress
from pet_mlip.train.schedule import Progress
from pet_mlip.train.setup import DataSets, check_results, load_data, resolve
from pet_mlip.train.uncertainty.checkpoint import add_uncertainty, remove_uncertainty
from pet_mlip.version import __version__


def run_training(
    config: Config,
    output: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> None:
    """Train, export the best model, and report, all in one folder.

    Args:
        config: What to train on what.
        output: Folder for everything that is written.
        resume: Continue the training in that folder.
        overwrite: Delete a training in that folder first.
        quiet: Write the log into the folder only.

    Raises:
        UserError: For mistakes in the configuration, the data, or the folder.
        TrainingInterrupted: After SIGINT or SIGTERM; ``last.ckpt`` continues the training.
    """
    folder = Output(output)
    processes = find_processes(devices(config.training), config.training.num_nodes)
    first = processes.first
    if first:
        folder.prepare(resume, overwrite)
    console = Console(stderr=True, quiet=quiet or not first)
    with (
        quiet_lightning(),
        matmul_precision(config.training.precision),
        log_to(folder / "train.log", console if first else None),
    ):
        _Run(config, folder, console, processes).execute(resume)


class _Run:
    """One call of `run_training`."""

    def __init__(
        self, config: Config, output: Output, console: Console, processes: Processes
    ) -> None:
        self.config = config
        self.output = output
        self.console = console
        self.processes = processes
        self.first = processes.first

    def execute(self, resume: bool) -> None:
        """Set up, train, export, report."""
        content = read_checkpoint(self.output / "last.ckpt") if resume else None
        self.config = inherit_model(self.config, content)
        check_results(self.config)
        data = load_data(self.config, self.console)
        self.config = resolve(self.config, data, self.processes.count)
        check_results(self.config)  # once more: a default weight may be gone
        if content is not None:
            before = content.get("data")
            check_same_training(self.config, content["config"], before is not None)
            check_same_data(data, before)
        self.fingerprint = fingerprint(data)
        if self.first:
            write_text(self.output / "config.yaml", self.config.to_yaml())
        module = self._make_module(data, content)
        self._fit(module)
        if self.first:
            finish(self.config, data, self.output)

    def _make_module(self, data: DataSets, content: dict[str, Any] | None) -> TrainingModule:
        loaders = Loaders(self.config, data.training, data.validation)
        if content is None:
            if self.config.training.init_from:
                start = pretrained_potential(self.config, data, self.first)
            else:
                start = new_potential(self.config, data)
            progress = Progress()
        else:
            start = Start(restore_potential(content, "weights"), content["loss_scale"])
            progress = restore_progress(content["progress"])
        potential = start.potential.train()
        freeze(potential, self.config.training.freeze)
        loss = Loss(self.config.training.loss, start.scale, potential.scales_of_results())
        module = TrainingModule(potential, self.config, loss, loaders, progress)
        if content is not None:
            module.restore(content)
            LOG.info("Continuing after epoch %d, step %d.", progress.epoch, progress.step)
        else:
            trainable, frozen = count_parameters(potential)
            kept = (
                f" (and {frozen} frozen ones: {', '.join(self.config.training.freeze)})"
                if frozen
                else ""
            )
            LOG.info("%d parameters%s, energy scale %.4g eV.", trainable, kept, start.scale)
        return module

    def _fit(self, module: TrainingModule) -> None:
        training = self.config.training
        if module.progress.finished(training) and not module.progress.pending:
            LOG.info("Nothing is left to train; give more epochs or time to train on.")
            return
        table = MetricsTable(self.output / "metrics.csv", list(self.config.model.results))
        callbacks: list[Any] = [Signals()]
        shown = self.console.is_terminal and not self.console.quiet
        if self.config.logging.progress and shown:
            callbacks.append(ProgressBar(self.console))
        elif self.first:
            callbacks.append(ProgressLines())
        callbacks.append(Recorder(training, table, self._save))
        trainer = make_trainer(self.config, self.output, callbacks, self.processes)
        if trainer.strategy.root_device.type == "cpu":
            keep_freed_memory()
        trainer.fit(module)

    def _save(self, module: TrainingModule, name: str) -> None:
        write_checkpoint(
            self.output / name,
            {
                "package_version": __version__,
                "config": self.config.to_dict(),
                "loss_scale": module.loss.scale,
                "data": self.fingerprint,
                **module.content(with_optimizer=name == "last.ckpt"),
            },
        )


def finish(config: Config, data: DataSets, output: Output) -> None:
    """Export the best model and report its errors."""
    remove_uncertainty(output / "best.ckpt")  # that of an earlier end of the training
    if config.training.uncertainty_members > 0:
        try:
            add_uncertainty(
                output / "best.ckpt", config, data.training, data.validation, thorough=False
            )
        except (UserError, RuntimeError) as reason:  # the latter from a lack of memory, too
            LOG.warning("The model will not know its uncertainty: %s", reason)
    potential, _, summary = load_checkpoint(output / "best.ckpt")
    dtype = "float64" if config.training.precision == "float64" else "float32"
    save_model(output / "model.pt", potential, dtype=dtype, training_summary=summary)
    LOG.info("Wrote %s (epoch %d).", output / "model.pt", summary["epoch"])
    write_report(config, data, output)
    LOG.info("Wrote %s.", output / "report")
