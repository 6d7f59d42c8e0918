"""The report of a training: errors of the exported model on validation and test sets."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.config import Config
from pet_mlip.evaluate import evaluate
from pet_mlip.evaluate.plots import plot_learning_curve
from pet_mlip.evaluate.report import write_report as write_set_report
from pet_mlip.files import write_text
from pet_mlip.train.output import LOG, Output
from pet_mlip.train.setup import DataSets, load_files

ROTATIONS = 4
ROTATED_STRUCTURES = 20


def write_report(config: Config, data: DataSets, output: Output) -> dict[str, Any]:
    """Write ``report/``: a folder with tables and plots per set, and a summary of all.

    Returns:
        Errors of each set, as in ``report/errors.json``.
    """
    folder = output / "report"
    calculator = PETCalculator(output / "model.pt", d3=False)  # as it is not in the labels here
    sets = {"validation": data.validation.structures}
    sets |= {name: load_files(config, files) for name, files in config.data.test.items()}
    summary: dict[str, Any] = {}
    for name, structures in sets.items():
        found = evaluate(calculator, structures)
        few = islice(structures, ROTATED_STRUCTURES)
        rotated = evaluate(calculator, few, rotations=ROTATIONS, uncertainty=False)
        found.rotational = rotated.rotational
        write_set_report(folder / name, found)
        summary[name] = found.to_dict()
        LOG.info("%s: %s", name, one_line(summary[name]))
    plot_learning_curve(folder / "learning_curve.png", output / "metrics.csv")
    write_text(folder / "errors.json", json.dumps(summary, indent=1) + "\n")
    write_text(folder / "errors.md", summary_table(summary))
    return summary


def one_line(summary: dict[str, Any]) -> str:
    """RMSE of each quantity of one set."""
    units, errors = summary["errors"]["units"], summary["errors"]["all"]
    parts = [f"{q} RMSE {errors[q]['rmse']:.4g} {units[q]}" for q in errors if q != "energy"]
    return ", ".join(parts)


def summary_table(summary: dict[str, Any]) -> str:
    """Errors of all sets as one Markdown table."""
    lines = [
        "# Errors of model.pt",
        "",
        "| set | structures | quantity | unit | MAE | RMSE |",
        "| --- | ---: | --- | --- | ---: | ---: |",
    ]
    for name, found in summary.items():
        errors = found["errors"]
        lines += [
            f"| {name} | {found['structures']} | {quantity.replace('_', ' ')} | "
            f"{errors['units'][quantity]} | {values['mae']:.4g} | {values['rmse']:.4g} |"
            for quantity, values in errors["all"].items()
        ]
    lines += ["", "Tables per element and group and parity plots: see the folders of the sets."]
    lines += ["", "![learning curve](learning_curve.png)", ""]
    return "\n".join(lines)
