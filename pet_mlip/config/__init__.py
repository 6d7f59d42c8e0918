"""The YAML configuration of a training: schema, loading, and error messages."""

from pet_mlip.config.data import DataConfig
from pet_mlip.config.load import load_config, validate
from pet_mlip.config.reference import reference_yaml
from pet_mlip.config.schema import Config
from pet_mlip.config.training import LoggingConfig, LossConfig, TrainingConfig

__all__ = [
    "Config",
    "DataConfig",
    "LoggingConfig",
    "LossConfig",
    "TrainingConfig",
    "load_config",
    "reference_yaml",
    "validate",
]
