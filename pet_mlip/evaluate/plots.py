"""Parity plots and learning curves as PNG files."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from pet_mlip.evaluate.errors import Errors, Quantity

Floats = NDArray[np.float64]

BLUE, ORANGE, GREY = "#2a6f97", "#e07a1f", "#8a8a8a"
CURVES = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³"}


def plot_parity(path: Path, quantity: Quantity, pairs: Floats, errors: Errors) -> None:
    """Predictions against references.

    Args:
        path: PNG to write.
        quantity: What is plotted.
        pairs: (reference, prediction) in the quantity's unit, (P, 2).
        errors: Of all data, written into the plot.
    """
    figure, (axes,) = new_figure(4.6, 4.4)
    low, high = float(pairs.min()), float(pairs.max())
    margin = 0.04 * (high - low) or 1e-3
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=GREY, linewidth=0.8, zorder=1)
    size, alpha = (10, 0.7) if len(pairs) < 500 else (3, 0.35)
    reference, predicted = pairs.T
    axes.scatter(reference, predicted, s=size, alpha=alpha, color=BLUE, linewidths=0, zorder=2)
    axes.set(xlim=limits, ylim=limits, aspect="equal", title=quantity.title)
    per_unit = f" / {quantity.unit}".replace("^3", "³") if quantity.unit else ""
    axes.set_xlabel(f"reference{per_unit}")
    axes.set_ylabel(f"model{per_unit}")
    unit, factor = quantity.error_unit.replace("^3", "³"), quantity.factor
    text = f"MAE {factor * errors.mae:.3g} {unit}\nRMSE {factor * errors.rmse:.3g} {unit}"
    box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 2}
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=9, bbox=box)
    save(figure, path)


def plot_calibration(path: Path, quantity: Quantity, pairs: Floats) -> None:
    """Absolute errors against uncertainties, with the lines below which parts of them should lie.

    Args:
        path: PNG to write.
        quantity: What is plotted.
        pairs: (uncertainty, absolute error) in the quantity's unit, (P, 2).
    """
    figure, (axes,) = new_figure(4.6, 4.4)
    pairs = pairs[pairs.min(axis=1) > 1e-7]
    sigma, error = quantity.factor * (pairs if len(pairs) else np.ones((1, 2))).T
    low, high = 0.8 * float(sigma.min()), 1.25 * float(sigma.max())
    line = np.array([low, high])
    for times, share in ((1, "68 %"), (2, "95 %"), (3, "99.7 %")):
        axes.plot(line, times * line, color=GREY, linewidth=0.8, zorder=1)
        axes.annotate(share, (high, times * high), fontsize=7, color=GREY, ha="right", va="bottom")
    size, alpha = (10, 0.7) if len(pairs) < 500 else (3, 0.35)
    axes.scatter(sigma, error, s=size, alpha=alpha, color=BLUE, linewidths=0, zorder=2)
    unit = quantity.error_unit.replace("^3", "³")
    axes.set(xscale="log", yscale="log", xlim=(low, high), title=quantity.title)
    axes.set_ylim(0.01 * float(np.median(sigma)), max(4.0 * high, 1.25 * float(error.max())))
    axes.set_xlabel(f"uncertainty / {unit}")
    axes.set_ylabel(f"absolute error / {unit}")
    save(figure, path)


def plot_learning_curve(path: Path, metrics: str | Path) -> bool:
    """Losses and validation errors of a training against its epochs.

    Args:
        path: PNG to write.
        metrics: metrics.csv with the columns epoch, train_loss, val_loss, and energy_rmse,
            forces_rmse and so on where there are such labels.

    Returns:
        Whether there was anything to plot.
    """
    columns = read_columns(metrics)
    epochs = columns.get("epoch", [])
    names = [name.removesuffix("_rmse") for name in columns if name.endswith("_rmse")]
    errors = [name for name in names if _points(epochs, columns[f"{name}_rmse"])]
    losses = {"training": "train_loss", "validation": "val_loss"}
    if not any(_points(epochs, columns.get(name, [])) for name in losses.values()):
        return False
    figure, panels = new_figure(3.6 * (1 + len(errors)), 3.2, 1 + len(errors))
    for (label, name), color in zip(losses.items(), (GREY, BLUE), strict=True):
        _draw(panels[0], epochs, columns.get(name, []), color, label)
    panels[0].set_title("loss")
    panels[0].legend(frameon=False)
    for axes, name in zip(panels[1:], errors, strict=True):
        _draw(axes, epochs, columns[f"{name}_rmse"], ORANGE, "RMSE")
        axes.set_title(f"validation, {name} RMSE")
        axes.set_ylabel(CURVES.get(name, ""))
    save(figure, path)
    return True


def read_columns(path: str | Path) -> dict[str, list[float]]:
    """Columns of numbers of a CSV file; empty and incomplete cells are nan."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else {}) if name is not None]
    return {name: [_float(row.get(name)) for row in rows] for name in names}


def new_figure(width: float, height: float, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches and its panels side by side, clear of pyplot's global state."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(which="both", labelsize=8)
    return figure, axes


def save(figure: Figure, path: Path) -> None:
    """Write the PNG."""
    figure.savefig(path)


def _draw(axes: Axes, x: list[float], y: list[float], color: str, label: str) -> None:
    points = _points(x, y)
    marker = "." if len(points) < 30 else None
    if points:
        axes.plot(
            *zip(*points, strict=True), color=color, label=label, linewidth=1.3, marker=marker
        )
    if any(value > 0 for _, value in points):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.0, 0.4)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")


def _points(x: list[float], y: list[float]) -> list[tuple[float, float]]:
    return [p for p in zip(x, y, strict=False) if all(math.isfinite(v) for v in p)]


def _float(cell: str | None) -> float:
    try:
        return float(cell) if cell else float("nan")
    except ValueError:
        return float("nan")
