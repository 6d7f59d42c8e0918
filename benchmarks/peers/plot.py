"""Results as one picture: ratios of times, time per atom and memory against the number of atoms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.peers.contestants import BASE
from pet_mlip.evaluate.plots import new_figure, save

COLORS = ("#2a6f97", "#8ecae6", "#e07a1f", "#f4c095", "#3a7d44", "#8a5fa8", "#8a8a8a", "#b23a48")


def plot(path: Path, results: dict[str, Any]) -> None:
    """Write the PNG.

    Args:
        path: Of the picture.
        results: What `benchmarks.peers.suite.run` returned.
    """
    colors = {name: COLORS[k % len(COLORS)] for k, name in enumerate(results["titles"])}
    figure, (bars, per_atom, memory) = new_figure(15, 4.2, 3)
    _draw_ratios(bars, results, colors)
    _draw_growth(per_atom, results, colors, "time per atom / ms", _time_per_atom)
    _draw_growth(memory, results, colors, "peak memory / MiB", _memory)
    per_atom.set_title("water")
    memory.set_title("water")
    for axes in (bars, per_atom):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=7)
    save(figure, path)


def _draw_ratios(axes: Axes, results: dict[str, Any], colors: dict[str, str]) -> None:
    """Times over that of the base; frames are in another plot's nature and left out."""
    plain = [
        name
        for name in results["titles"]
        if name != BASE
        and not any("frames" in s["contestants"].get(name, {}) for s in results["structures"])
    ]
    shown = [s for s in results["structures"] if "compare" in s["groups"]] or results["structures"]
    width = 0.8 / max(1, len(plain))
    for k, name in enumerate(plain):
        places, ratios = [], []
        for place, structure in enumerate(shown):
            entry = structure["contestants"].get(name, {})
            if "ratio" in entry:
                places.append(place + (k - (len(plain) - 1) / 2) * width)
                ratios.append(entry["ratio"])
        if not ratios:
            continue
        low, middle, high = np.array(ratios).T
        axes.bar(
            places,
            middle,
            width,
            yerr=(middle - low, high - middle),
            color=colors[name],
            label=results["titles"][name],
            error_kw={"linewidth": 0.8},
        )
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(shown)), [f"{s['title']}\n{s['n_atoms']}" for s in shown])
    axes.set_ylabel("time / time of TorchScript, plain")


def _draw_growth(
    axes: Axes, results: dict[str, Any], colors: dict[str, str], label: str, value: Any
) -> None:
    """A quantity of every contestant against the number of atoms."""
    for name, title in results["titles"].items():
        points = [
            (structure["n_atoms"], value(entry, structure["n_atoms"]))
            for structure in results["structures"]
            if structure["title"] == "water"
            and "time" in (entry := structure["contestants"].get(name, {}))
        ]
        if points:
            axes.plot(*zip(*sorted(points), strict=True), "o-", color=colors[name], label=title)
    axes.set(xscale="log", yscale="log", xlabel="atoms", ylabel=label)


def _time_per_atom(entry: dict[str, Any], n_atoms: int) -> float:
    return 1000.0 * float(entry["time"][1]) / n_atoms


def _memory(entry: dict[str, Any], n_atoms: int) -> float:
    on_device = entry.get("device_memory")
    return float(entry["memory"] if on_device is None else on_device)
