"""Errors of a model on data, its rotational error, and the report of both."""

from pet_mlip.evaluate.comparison import comparison, comparison_markdown, write_comparison
from pet_mlip.evaluate.equivariance import RotationalErrors, rotational_errors
from pet_mlip.evaluate.errors import Errors, ErrorTable
from pet_mlip.evaluate.evaluation import Evaluation, evaluate
from pet_mlip.evaluate.report import markdown, write_report

__all__ = [
    "ErrorTable",
    "Errors",
    "Evaluation",
    "RotationalErrors",
    "comparison",
    "comparison_markdown",
    "evaluate",
    "markdown",
    "rotational_errors",
    "write_comparison",
    "write_report",
]
