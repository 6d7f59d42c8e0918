"""Ahead-of-time compilation of an exported model for the computer it runs on."""

from pet_mlip.compile.package import compile_model

__all__ = ["compile_model"]
