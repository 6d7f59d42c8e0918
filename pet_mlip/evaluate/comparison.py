"""Evaluations of one model in several symmetrizations, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pet_mlip.evaluate.errors import quantity_of
from pet_mlip.evaluate.evaluation import Evaluation
from pet_mlip.evaluate.report import (
    ROTATIONAL_TITLES,
    left_out,
    number,
    table,
    write_report,
)
from pet_mlip.files import check_writable

COST_TITLES = {
    "evaluations": "evaluations per structure",
    "relative": "cost per structure, in plain evaluations",
    "seconds": "seconds per structure",
}


def comparison(evaluations: list[Evaluation]) -> dict[str, Any]:
    """The summaries of evaluations by the symmetrization that each was done in."""
    return {"symmetrizations": {e.symmetrization: e.to_dict() for e in evaluations}}


def comparison_markdown(compared: dict[str, Any]) -> str:
    """What `comparison` returned as one Markdown table: a column for each symmetrization.

    Errors against the labels, rotational errors, and what a structure costs on average. What not
    all of them have (labels, rotations) is left out.
    """
    summaries = compared["symmetrizations"]
    columns = [_cells(summary) for summary in summaries.values()]
    titles = [title for title in columns[0] if all(title in cells for cells in columns)]
    rows = [(title, *(cells[title] for cells in columns)) for title in titles]
    first = next(iter(summaries.values()))
    parts = [
        "# Comparison of symmetrizations",
        f"{first['structures']} structures, {first['atoms']} atoms.",
        table(("", *summaries), rows, named=True),
    ]
    for name, summary in summaries.items():
        if summary["left_out"]:
            parts.append(
                f"{name}: {summary['structures']} structures; left out: {left_out(summary)}."
            )
    return "\n\n".join(parts) + "\n"


def write_comparison(folder: str | Path, evaluations: list[Evaluation]) -> list[Path]:
    """Write comparison.json, comparison.md, and a report for each evaluation in its own folder.

    Args:
        folder: Created if need be.
        evaluations: Of one model on the same structures.

    Returns:
        The files written.
    """
    folder = Path(folder)
    check_writable(folder)
    compared = comparison(evaluations)
    files = [folder / "comparison.json", folder / "comparison.md"]
    files[0].write_text(json.dumps(compared, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    files[1].write_text(comparison_markdown(compared), encoding="utf-8")
    for evaluation in evaluations:
        # Not all file systems take a colon.
        files += write_report(folder / evaluation.symmetrization.replace(":", "-"), evaluation)
    return files


def _cells(summary: dict[str, Any]) -> dict[str, str]:
    """Titles and values of a column."""
    cells = {}
    errors = summary["errors"]
    for quantity, found in errors["all"].items():
        for kind in ("mae", "rmse"):
            unit = errors["units"][quantity]
            title = f"{quantity_of(quantity, unit).title}, {kind.upper()}, {unit}"
            cells[title] = number(found[kind])
    rotational = summary["rotational_error"] or {}
    for key, title in ROTATIONAL_TITLES.items():
        if rotational.get(key) is not None:
            found = rotational[key]
            cells[f"rotational error: {title}, {found['unit']}"] = number(found["rms"])
    for key, title in COST_TITLES.items():
        if summary["cost"] is not None:
            cells[title] = number(summary["cost"][key])
    return cells
