"""The exported model: one TorchScript file with weights, code and metadata."""

from pet_mlip.export.archive import LoadedModel, load_model, save_model
from pet_mlip.export.metadata import Metadata, Orientations, read_metadata

__all__ = ["LoadedModel", "Metadata", "Orientations", "load_model", "read_metadata", "save_model"]
