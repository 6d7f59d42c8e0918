"""What was learned when: a page with tables and pictures, written anew after each round."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np

from pet_mlip.evaluate.plots import BLUE, GREY, ORANGE, new_figure, save
from pet_mlip.evaluate.report import table
from pet_mlip.files import replacing, write_text
from pet_mlip.learn.config import LearnConfig
from pet_mlip.learn.files import read_structures
from pet_mlip.learn.folder import LearnFolder


class RoundFacts(NamedTuple):
    """What a round brought."""

    number: int
    facts: dict[str, Any]
    """Its `round.json`."""
    calls: int
    """Reference calculations up to then, those that failed too."""
    training: int
    """Structures learned from."""
    surprise: float
    """Root mean square error, in meV/Å, of the forces that the model before predicted for the
    structures that this round labelled; nan in the first round."""
    expected: float
    """Root mean square of their uncertainties, in meV/Å."""
    errors: dict[str, dict[str, Any]]
    """Of the round's model on the validation set and each test set."""


def write_report(config: LearnConfig, folder: LearnFolder, last: int) -> None:
    """Write ``report.md`` and its pictures.

    Args:
        config: Of the learning.
        folder: Of the learning.
        last: Number of the last complete round.
    """
    rounds = _read_rounds(folder, last)
    _plot_learning(folder, rounds)
    _plot_uncertainty(config, folder, rounds)
    write_text(folder / "report.md", _markdown(config, rounds))


def _read_rounds(folder: LearnFolder, last: int) -> list[RoundFacts]:
    found, calls, training = [], 0, 0
    for number in range(last + 1):
        here = folder.round(number)
        facts = json.loads((here / "round.json").read_text(encoding="utf-8"))
        labelled = [
            *read_structures(here / "train.xyz"),
            *read_structures(here / "validation.xyz"),
        ]
        calls += facts["labelled"] + facts["failed"]
        training += len(read_structures(here / "train.xyz"))
        surprise, expected = np.nan, np.nan
        if number > 0:
            errors = [a.get_forces() - a.arrays["predicted_forces"] for a in labelled]
            surprise = 1000 * float(np.sqrt(np.mean(np.square(np.concatenate(errors)))))
            sigma = np.concatenate([a.arrays["forces_uncertainty"] for a in labelled])
            expected = 1000 * float(np.sqrt(np.mean(np.square(sigma))))
        report = here / "run" / "report" / "errors.json"
        of_sets = json.loads(report.read_text(encoding="utf-8"))
        errors_by_set = {name: of_set["errors"]["all"] for name, of_set in of_sets.items()}
        found.append(RoundFacts(number, facts, calls, training, surprise, expected, errors_by_set))
    return found


def _markdown(config: LearnConfig, rounds: list[RoundFacts]) -> str:
    last = rounds[-1]
    if last.facts["passed"]:
        end = f"All simulations of round {last.number} passed."
    else:
        end = f"Round {last.number} has not passed."
    n_failed = sum(r.facts["failed"] for r in rounds)
    sets = list(last.errors)
    head = (
        *("round", "reference calls", "training structures", "forces RMSE of new labels"),
        *("their uncertainty", *(f"forces RMSE, {name}" for name in sets), "stopped"),
        *("looks too uncertain", "longest simulation, ps", "s: labels, training, simulations"),
    )
    rows = [
        (
            *(str(r.number), str(r.calls), str(r.training), _cell(r.surprise), _cell(r.expected)),
            *(_cell(r.errors[name].get("forces", {}).get("rmse", np.nan)) for name in sets),
            f"{_stopped(r)} of {len(r.facts['outcomes'])}",
            f"{r.facts['above']} of {r.facts['looks']}",
            f"{_longest(config, r):.3g}",
            ", ".join(f"{r.facts['seconds'][k]:.0f}" for k in r.facts["seconds"]),
        )
        for r in rounds
    ]
    failed = (
        f"{n_failed} labels failed or made no sense; `failed.xyz` has their structures, with the "
        "reasons."
        if n_failed
        else "No label failed."
    )
    lines = [
        "# Learning",
        "",
        f"{end} {last.calls} reference calculations were made in all. {failed}",
        "",
        table(head, rows, named=True),
        "",
        "Errors and uncertainties in meV/Å. Those of new labels are of the model before it has "
        "learned from them: structures that it was uncertain of.",
        "",
        "![errors](learning.png)",
        "",
        "![uncertainty along the simulations](uncertainty.png)",
        "",
    ]
    reasons = [
        f"- round {r.number}, simulation {k:02d}, step {outcome['steps']}: {outcome['stopped']}"
        for r in rounds
        for k, outcome in enumerate(r.facts["outcomes"])
        if outcome["stopped"]
    ]
    if reasons:
        lines += ["Simulations that were stopped:", "", *reasons, ""]
    return "\n".join(lines)


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3g}"


def _stopped(r: RoundFacts) -> int:
    return sum(outcome["stopped"] is not None for outcome in r.facts["outcomes"])


def _longest(config: LearnConfig, r: RoundFacts) -> float:
    steps = max(outcome["steps"] for outcome in r.facts["outcomes"])
    return float(steps * config.simulation.timestep / 1000)


def _plot_learning(folder: LearnFolder, rounds: list[RoundFacts]) -> None:
    """Errors of forces against the number of reference calculations."""
    figure, (axes,) = new_figure(4.6, 3.4)
    calls = [r.calls for r in rounds]
    for name in rounds[-1].errors:
        values = [r.errors.get(name, {}).get("forces", {}).get("rmse", np.nan) for r in rounds]
        color = BLUE if name == "validation" else None
        axes.plot(calls, values, marker="o", markersize=4, label=name, color=color)
    if len(rounds) > 1:
        # A round's new labels were predicted by the model before it.
        before = calls[:-1]
        axes.plot(
            *(before, [r.surprise for r in rounds[1:]]),
            color=ORANGE,
            marker="s",
            markersize=4,
            label="new labels",
        )
        axes.plot(
            *(before, [r.expected for r in rounds[1:]]),
            color=GREY,
            linestyle="--",
            label="their uncertainty",
        )
    axes.set(yscale="log", xlabel="reference calculations", ylabel="forces RMSE, meV/Å")
    axes.legend(frameon=False, fontsize=8)
    with replacing(folder / "learning.png") as temporary:
        save(figure, temporary)


def _plot_uncertainty(config: LearnConfig, folder: LearnFolder, rounds: list[RoundFacts]) -> None:
    """The largest uncertainty of a force along the simulations of each round."""
    figure, panels = new_figure(2.6 * min(len(rounds), 6), 3.2, min(len(rounds), 6))
    step = config.simulation.interval * config.simulation.timestep / 1000
    selection = config.selection
    for axes, r in zip(panels, rounds[-6:], strict=True):
        for values in r.facts["worst"]:
            axes.plot(step * np.arange(len(values)), values, linewidth=0.8)
        for level, style in ((selection.record_above, "--"), (r.facts["stop_above"], "-")):
            axes.axhline(level, color=GREY, linestyle=style, linewidth=0.8)
        axes.set(yscale="log", title=f"round {r.number}", xlabel="time, ps")
    panels[0].set_ylabel("largest uncertainty of a force, eV/Å")
    with replacing(folder / "uncertainty.png") as temporary:
        save(figure, temporary)
