"""What was learned when: a page with tables and pictures, written anew after each round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pet_mlip.evaluate.plots import BLUE, GREY, ORANGE, new_figure, save
from pet_mlip.evaluate.report import table
from pet_mlip.files import replacing, write_text
from pet_mlip.learn.config import LearnConfig
from pet_mlip.learn.files import read_structures
from pet_mlip.learn.folder import LearnFolder

Floats = NDArray[np.float64]


class RoundFacts(NamedTuple):
    """What a round brought."""

    number: int
    facts: dict[str, Any]
    """Its `round.json`."""
    calls: int
    """Reference calculations that the model learned from, those that failed too."""
    labelled: int
    """Structures that were labelled after its simulations."""
    training: int
    """Structures learned from."""
    surprise: float
    """Root mean square error, in meV/Å, of the forces that it predicted for them."""
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
    write_text(folder / "report.md", _markdown(config, folder, rounds))


def _read_rounds(folder: LearnFolder, last: int) -> list[RoundFacts]:
    found = []
    calls, training = _count(folder.first)
    for number in range(last + 1):
        here = folder.round(number)
        labelled = [*read_structures(here / "train.xyz"), *read_structures(here / "validation.xyz")]
        errors = [a.get_forces() - a.arrays["predicted_forces"] for a in labelled]
        sigma = [a.arrays["forces_uncertainty"] for a in labelled]
        report = here / "run" / "report" / "errors.json"
        of_sets = json.loads(report.read_text(encoding="utf-8"))
        found.append(
            RoundFacts(
                number,
                json.loads((here / "round.json").read_text(encoding="utf-8")),
                calls,
                len(labelled),
                training,
                _rms(np.concatenate(errors)),
                _rms(np.concatenate(sigma)),
                {name: of_set["errors"]["all"] for name, of_set in of_sets.items()},
            )
        )
        more_calls, more_training = _count(here)
        calls, training = calls + more_calls, training + more_training
    return found


def _count(part: Path) -> tuple[int, int]:
    """Reference calculations and training structures of a round."""
    sizes = [
        len(read_structures(part / f"{name}.xyz")) for name in ("train", "validation", "failed")
    ]
    return sum(sizes), sizes[0]


def _rms(values: Floats) -> float:
    """In thousandths."""
    return 1000 * float(np.sqrt(np.mean(np.square(values))))


def _markdown(config: LearnConfig, folder: LearnFolder, rounds: list[RoundFacts]) -> str:
    last = rounds[-1]
    state = "passed" if last.facts["passed"] else "has not passed yet"
    calls, _ = _count(folder.round(last.number))
    n_failed = sum(len(read_structures(p / "failed.xyz")) for p in folder.known_to(last.number + 1))
    sets = list(last.errors)
    head = (
        *("round", "reference calls", "training structures"),
        *(f"forces RMSE, {name}" for name in sets),
        *("stopped", "longest, ps", "new labels", "their forces RMSE", "their uncertainty"),
        *("looks too uncertain", "s: training, simulations, labels"),
    )
    rows = [
        (
            *(str(r.number), str(r.calls), str(r.training)),
            *(_cell(r.errors[name].get("forces", {}).get("rmse", np.nan)) for name in sets),
            f"{_stopped(r)} of {len(r.facts['outcomes'])}",
            f"{_longest(config, r):.3g}",
            *(str(r.labelled), _cell(r.surprise), _cell(r.expected)),
            f"{r.facts['above']} of {r.facts['looks']}",
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
        f"Round {last.number} {state}. {last.calls + calls} reference calculations were made in "
        f"all. {failed}",
        "",
        table(head, rows, named=True),
        "",
        "Errors and uncertainties in meV/Å. Reference calls and training structures are those that "
        "the round's model has learned from; new labels are of structures that its simulations "
        f"found. A look is too uncertain above {config.selection.record_above:g} eV/Å, with "
        "uncertainties multiplied by how many times larger the errors of the new labels are.",
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
    axes.plot(
        *(calls, [r.surprise for r in rounds]),
        color=ORANGE,
        marker="s",
        markersize=4,
        label="new structures",
    )
    axes.plot(
        *(calls, [r.expected for r in rounds]),
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
    for axes, r in zip(panels, rounds[-6:], strict=True):
        for values in r.facts["worst"]:
            axes.plot(step * np.arange(len(values)), values, linewidth=0.8)
        limit = config.selection.record_above / r.facts["correction"]
        for level, style in ((limit, "--"), (r.facts["stop_above"], "-")):
            axes.axhline(level, color=GREY, linestyle=style, linewidth=0.8)
        axes.set(yscale="log", title=f"round {r.number}", xlabel="time, ps")
    panels[0].set_ylabel("largest uncertainty of a force, eV/Å")
    with replacing(folder / "uncertainty.png") as temporary:
        save(figure, temporary)
