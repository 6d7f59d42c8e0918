"""From what a calculator is given as its model to an engine."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from pet_mlip.ase.committee import Committee, joint_metadata
from pet_mlip.ase.engine import Engine
from pet_mlip.engine.memory import default_chunk_size
from pet_mlip.errors import UserError
from pet_mlip.export import LoadedModel, Metadata, load_model
from pet_mlip.graph.hypers import PETHypers

Model = str | os.PathLike[str] | LoadedModel


def open_models(
    given: Model | Sequence[Model], device: str, dtype: str | None, chunk_size: int | None
) -> tuple[Metadata, Engine | Committee]:
    """Load a model, or several that become a committee.

    Args:
        given: Path, name or loaded model, or a list of these.
        device: As `load_model` takes it.
        dtype: As `load_model` takes it.
        chunk_size: As `Engine` takes it; None for what the memory holds.

    Raises:
        UserError: There is no such file, it is no model, or models do not go together.
    """
    if not isinstance(given, list | tuple):
        engine = _engine(given, device, dtype, chunk_size)
        return engine.model.metadata, engine
    engines = [_engine(one, device, dtype, chunk_size) for one in given]
    return joint_metadata([engine.model for engine in engines]), Committee(engines)


def _engine(model: object, device: str, dtype: str | None, chunk_size: int | None) -> Engine:
    if not isinstance(model, LoadedModel):
        if not isinstance(model, str | os.PathLike):
            raise UserError(
                "model is the path of an exported model, or what load_model returned, or a list of "
                f"these, not {type(model).__name__}."
            )
        # Weights made in a caller's inference mode could not take part in a gradient.
        with torch.inference_mode(False):
            model = load_model(os.fspath(model), device=device, dtype=dtype)
    if chunk_size is None:
        hypers = PETHypers(**model.metadata.hypers)
        chunk_size = default_chunk_size(hypers, model.precision, model.device)
    return Engine(model, chunk_size)
