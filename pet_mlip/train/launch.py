"""Lightning's trainer, without what a training does not need."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy, Strategy

from pet_mlip.config import Config, TrainingConfig
from pet_mlip.errors import UserError
from pet_mlip.train.output import Output
from pet_mlip.train.processes import MARK, Processes


def make_trainer(
    config: Config, output: Output, callbacks: Sequence[pl.Callback], processes: Processes
) -> pl.Trainer:
    """A trainer that runs steps and processes; validation and checkpoints are the callbacks'.

    Raises:
        UserError: if the devices asked for are not there.
    """
    training = config.training
    loggers = make_loggers(config, output)
    try:
        return pl.Trainer(
            accelerator=training.accelerator,
            devices=devices(training),
            num_nodes=training.num_nodes,
            strategy=strategy(training),
            plugins=[cluster(processes)],
            max_epochs=-1,
            callbacks=list(callbacks),
            logger=loggers or False,
            default_root_dir=str(output.folder),
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (pl.utilities.exceptions.MisconfigurationException, RuntimeError, ValueError) as error:
        raise UserError(
            f"training.accelerator: {training.accelerator} with devices: {training.devices} and "
            f"num_nodes: {training.num_nodes} is not possible here ({error})."
        ) from None


def cluster(processes: Processes) -> ClusterEnvironment:
    """How Lightning finds the other processes; it would guess from left-over variables."""
    if processes.launcher == "torchrun":
        return TorchElasticEnvironment()
    if processes.launcher == "srun":
        return SLURMEnvironment(auto_requeue=False)
    if processes.launcher in ("own", "manual"):
        os.environ[MARK] = "1"  # its children inherit that
    return LightningEnvironment()


def devices(config: TrainingConfig) -> int:
    """Number of devices per node."""
    if config.devices != "auto":
        return config.devices
    gpus = torch.cuda.device_count() if config.accelerator != "cpu" else 0
    return max(gpus, 1)


def strategy(config: TrainingConfig) -> Strategy | str:
    """One process, or DDP."""
    if devices(config) * config.num_nodes == 1:
        return "auto"
    # A batch without edges, or a last layer without messages, leaves parameters unused.
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)


def make_loggers(config: Config, output: Output) -> list[Logger]:
    """TensorBoard and W&B, if asked for."""
    wanted = config.logging
    name = wanted.name or output.folder.resolve().name
    loggers: list[Logger] = []
    try:
        if wanted.tensorboard:
            loggers.append(TensorBoardLogger(output.folder, name="tensorboard", version=""))
        if wanted.wandb:
            loggers.append(
                WandbLogger(name=name, project=wanted.wandb_project, save_dir=output.folder)
            )
    except ModuleNotFoundError as error:
        package = "wandb" if "wandb" in str(error) else "tensorboard"
        raise UserError(f"logging.{package} needs a package: pip install {package}.") from None
    return loggers


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence tips and notes of Lightning: the log is ours."""
    loggers = [logging.getLogger(n) for n in ("pytorch_lightning", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_)?lightning")
        warnings.filterwarnings("ignore", message=".*find_unused_parameters.*")
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Allow TF32 products on GPUs, if asked for, and take the permission back."""
    before: Any = torch.get_float32_matmul_precision()
    try:
        if precision == "tf32":
            torch.set_float32_matmul_precision("high")
        yield
    finally:
        torch.set_float32_matmul_precision(before)
