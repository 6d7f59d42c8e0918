"""The report on a model: error table (JSON and Markdown), parity plots, learning curve."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pet_mlip.evaluate.errors import QUANTITIES, quantity_of
from pet_mlip.evaluate.evaluation import Evaluation
from pet_mlip.evaluate.plots import plot_calibration, plot_parity
from pet_mlip.files import check_writable

ROTATIONAL_TITLES = {
    "energy_per_atom_std": "energy per atom, std",
    "forces_std": "force components, std",
    "torque_per_atom": "net torque per atom (molecules)",
}


LEFT_OUT = {
    "skipped": "structures without atoms",
    "failed": "structures that cannot be read or evaluated",
    "unrotated": "structures of the rotational error",
    "ignored_labels": "labels that are not finite",
}
"""Counts in a summary, and what they count."""


def write_report(folder: str | Path, evaluation: Evaluation) -> list[Path]:
    """Write errors.json, errors.md, parity plots, and plots of errors against uncertainties.

    Args:
        folder: Created if need be.
        evaluation: What `evaluate` found.

    Returns:
        The files written.
    """
    folder = Path(folder)
    check_writable(folder)
    summary = evaluation.to_dict()
    files = [folder / "errors.json", folder / "errors.md"]
    # NaN is no JSON; every number here is finite or its key is absent.
    files[0].write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    files[1].write_text(markdown(summary), encoding="utf-8")
    for quantity, sample in evaluation.samples.items():
        if quantity != "energy":
            files.append(folder / f"parity_{quantity}.png")
            errors, what = evaluation.errors.all[quantity], evaluation.errors.quantities[quantity]
            plot_parity(files[-1], what, sample.pairs, errors)
    if evaluation.calibration is not None:
        for quantity, sample in evaluation.calibration.samples.items():
            files.append(folder / f"calibration_{quantity}.png")
            plot_calibration(files[-1], QUANTITIES[quantity], sample.pairs)
    return files


def markdown(summary: dict[str, Any]) -> str:
    """The summary of an evaluation (`Evaluation.to_dict`) as Markdown tables."""
    parts = [
        "# Errors",
        f"{summary['structures']} structures, {summary['atoms']} atoms; frames per atom: "
        f"{summary['mean_frames']:.1f} on average, {summary['max_frames']} at most.",
    ]
    if summary["left_out"]:
        parts.append(f"Left out: {left_out(summary)}.")
    if summary["symmetrization"] != "none":
        cost = summary["cost"]
        count, times, seconds = (number(v) for v in cost.values())
        parts.append(
            f"Symmetrization {summary['symmetrization']}; per structure {count} evaluations of the "
            f"model, {times} times the cost of the plain one, {seconds} s."
        )
    errors = summary["errors"]
    if errors["all"]:
        parts.append(table(("quantity", *_COLUMNS), _rows(errors, "all", errors["all"])))
    for title, key in (("Force errors per element", "elements"), ("Errors per group", "groups")):
        if errors[key]:
            rows = [r for name, group in errors[key].items() for r in _rows(errors, name, group)]
            parts += [f"## {title}", table((key[:-1], "quantity", *_COLUMNS), rows, named=True)]
    if summary["calibration"] is not None:
        parts += _calibration(summary["calibration"])
    if summary["rotational_error"] is not None:
        parts += ["## Rotational error", _rotational_table(summary["rotational_error"])]
    if summary["left_out"]:
        lines = [f"- {literal(sentence)}" for sentence in summary["left_out"]]
        more = sum(summary[key] for key in LEFT_OUT) - len(lines)
        parts += ["## Left out", "\n".join([*lines, *([f"- and {more} more."] if more else [])])]
    return "\n\n".join(parts) + "\n"


_COLUMNS = ("unit", "MAE", "RMSE", "largest", "spread of reference", "numbers")


def _rows(errors: dict[str, Any], name: str, group: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for quantity, e in group.items():
        numbers = [number(e[key]) for key in ("mae", "rmse", "max", "reference_std")]
        unit = errors["units"][quantity]
        rows.append((name, quantity_of(quantity, unit).title, unit, *numbers, str(e["count"])))
    return rows


def _calibration(found: dict[str, Any]) -> list[str]:
    """Tables of uncertainties, and what is wrong with them."""
    head = ("quantity", "unit", "RMSE", "uncertainty", "within 1 and 2 sigma", "-log p", "numbers")
    titles = {"all": "Uncertainties", "elements": "per element", "groups": "per group"}
    parts = []
    for key, title in titles.items():
        groups = {"all": found["all"]} if key == "all" else found[key]
        rows: list[tuple[str, ...]] = [
            (
                name,
                QUANTITIES[quantity].title,
                found["units"][quantity],
                number(c["rmse"]),
                number(c["uncertainty"]),
                f"{100 * c['within_1_sigma']:.0f} %, {100 * c['within_2_sigma']:.0f} %",
                number(c["nll"]),
                str(c["count"]),
            )
            for name, group in groups.items()
            for quantity, c in group.items()
        ]
        if rows and key == "all":
            note = "Root mean squares; of a normal distribution 68 % and 95 % lie within."
            parts += [f"## {title}", note, table(head, rows)]
        elif rows:
            parts += [f"### {title}", table((key[:-1], *head), rows, named=True)]
    return [*parts, *found["miscalibrated"]]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]], named: bool = False) -> str:
    """A Markdown table; the first cell of the rows is left out unless they are named by it."""
    lines = [head, tuple("---" for _ in head), *(row if named else row[1:] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rotational_table(error: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [
        (title, error[key]["unit"], number(error[key]["rms"]), number(error[key]["max"]))
        for key, title in ROTATIONAL_TITLES.items()
        if error[key] is not None
    ]
    head = ("over random rotations and reflections", "unit", "root mean square", "largest")
    return table(head, rows, named=True)


def left_out(summary: dict[str, Any]) -> str:
    """What was left out of an evaluation, in numbers; empty if nothing was."""
    return ", ".join(f"{summary[key]} {what}" for key, what in LEFT_OUT.items() if summary[key])


def literal(text: str) -> str:
    """Text for Markdown in which nothing is markup."""
    return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", text)


def number(value: float) -> str:
    """A number for a table cell."""
    return f"{value:.4g}"
