"""The whole configuration."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import Field, model_validator

from pet_mlip.config.base import defaults
from pet_mlip.config.data import DataConfig
from pet_mlip.config.sizes import Sized
from pet_mlip.config.training import LoggingConfig, TrainingConfig
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.graph.hypers import PETHypers


class Config(Sized):
    """Everything that a training needs to know."""

    data: DataConfig = Field(description="Which structures to learn from, and how to read them.")
    model: PETHypers = Field(
        defaults(PETHypers), description="Architecture of the network (metatrain's names)."
    )
    symmetrization: SymmetrizationHypers = Field(
        defaults(SymmetrizationHypers),
        description="Coordinate systems in which environments are seen (ECSE).",
    )
    training: TrainingConfig = Field(
        description="How the weights are optimised, for how long, and on what."
    )
    logging: LoggingConfig = Field(
        defaults(LoggingConfig),
        description="Where progress goes besides metrics.csv and train.log, which always are.",
    )

    @model_validator(mode="after")
    def _kept_from_something(self) -> Config:
        if self.data.baseline == "keep" and self.training.init_from is None:
            raise ValueError(
                "data.baseline: keep is for fine-tuning; give a checkpoint as training.init_from, "
                "or another baseline"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Write every key with its value, of plain JSON types."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Write the fully resolved configuration, which `load_config` reads."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
