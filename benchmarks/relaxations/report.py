"""What became of the space groups, as a table and a picture."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.peers.plot import COLORS
from benchmarks.peers.report import table
from benchmarks.relaxations.crystals import SYSTEMS
from benchmarks.relaxations.relax import TOLERANCES
from benchmarks.relaxations.suite import CONTESTANTS, Results
from pet_mlip.evaluate.plots import new_figure, save

ROUND_OFF = 1e-8
"""1/cm; smaller splittings are drawn here."""


def markdown(results: Results) -> str:
    """Return the table, and what was left out."""
    header = [
        "model",
        "crystals",
        *(f"space group kept at {tolerance:g} Å" for tolerance in TOLERANCES),
        "converged",
        "largest splitting at Γ, 1/cm: median, largest",
        "processor time of a step over the plain model's",
    ]
    rows = []
    for contestant in CONTESTANTS:
        found = list(results["relaxations"].get(contestant.name, {}).values())
        if not found:
            continue
        splittings = known_splittings(results, contestant.name)
        spread = (
            f"{statistics.median(splittings):.1g}, {max(splittings):.1g}" if splittings else "–"
        )
        rows.append(
            [
                contestant.title,
                str(len(found)),
                *(percent([one["kept"][str(t)] for one in found]) for t in TOLERANCES),
                percent([one["converged"] for one in found]),
                spread,
                ratio_of_steps(results, contestant.name),
            ]
        )
    text = table(header, rows)
    return "\n\n".join([text, *results["left_out"]])


def known_splittings(results: Results, name: str) -> list[float]:
    """Return those of crystals in which the space group makes any frequencies equal."""
    return [one for one in results["splittings"][name].values() if one is not None]


def percent(true: list[bool]) -> str:
    """Return the share of what is true."""
    return f"{100 * sum(true) / len(true):.0f} %"


def ratio_of_steps(results: Results, name: str) -> str:
    """Return the median over crystals of the time of a step over that of the plain model."""
    plain, own = (results["relaxations"].get(key, {}) for key in ("plain", name))
    ratios = [_per_step(own[key]) / _per_step(plain[key]) for key in own if key in plain]
    return f"{statistics.median(ratios):.2g}" if ratios else "–"


def _per_step(relaxation: dict[str, Any]) -> float:
    return relaxation["seconds"] / (relaxation["steps"] + 1)


def plot(path: Path, results: Results) -> None:
    """Write the PNG: what is kept in each crystal system, and the splittings of all crystals."""
    figure, (bars, dots) = new_figure(11, 3.8, 2)
    there = [c for c in CONTESTANTS if results["relaxations"].get(c.name)]
    tightest = str(min(TOLERANCES))
    width = 0.8 / len(there)
    for k, (contestant, color) in enumerate(zip(there, COLORS, strict=False)):
        found = results["relaxations"][contestant.name].values()
        shares = []
        for system in SYSTEMS:
            kept = [one["kept"][tightest] for one in found if one["system"] == system]
            shares.append(100 * sum(kept) / len(kept) if kept else math.nan)
        places = [x + (k - (len(there) - 1) / 2) * width for x in range(len(SYSTEMS))]
        bars.bar(places, shares, width, color=color, label=contestant.title)
        splittings = sorted(known_splittings(results, contestant.name))
        dots.plot([max(one, ROUND_OFF) for one in splittings], ".-", color=color)
    bars.set_xticks(range(len(SYSTEMS)), SYSTEMS, rotation=30, ha="right")
    bars.set(ylabel=f"space group kept at {tightest} Å / %", ylim=(0, 105))
    # Between the splittings of models with and without symmetry there is room.
    handles, labels = bars.get_legend_handles_labels()
    dots.legend(handles, labels, frameon=False, fontsize=7, loc="center right")
    dots.set(yscale="log", xlabel="crystals, sorted", ylabel="largest splitting at Γ / cm⁻¹")
    save(figure, path)
