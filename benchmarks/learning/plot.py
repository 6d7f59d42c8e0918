"""Learning curves as one picture, a panel for each set."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.learning.report import Results
from benchmarks.peers.plot import COLORS
from pet_mlip.evaluate.plots import save

COLUMNS = 4


def plot(path: Path, results: Results) -> None:
    """Write the PNG: RMSE of the validation's forces against processor time.

    Args:
        path: Of the picture.
        results: What `benchmarks.learning.suite.run` returned.
    """
    sets = results["sets"]
    columns = min(COLUMNS, len(sets))
    rows = -(-len(sets) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(sets) :]:
        axes.set_axis_off()
    for axes, (name, entries) in zip(panels, sets.items(), strict=False):
        for color, (contestant, title) in zip(COLORS[::2], results["titles"].items(), strict=False):
            curve = entries.get(contestant, {}).get("curve", [])
            if curve:
                seconds = [point["cpu"] for point in curve]
                errors = [point["forces"] for point in curve]
                axes.plot(seconds, errors, ".-", markersize=3, color=color, label=title)
        axes.set(xscale="log", yscale="log", title=name)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="processor time / s", ylabel="forces, RMSE / meV/Å")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    save(figure, path)
