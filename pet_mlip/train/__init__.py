"""Training: loss, optimiser, loop, checkpoints, export of the result."""

from pet_mlip.train.callbacks import TrainingInterrupted
from pet_mlip.train.checkpoint import load_checkpoint
from pet_mlip.train.run import run_training

__all__ = ["TrainingInterrupted", "load_checkpoint", "run_training"]
