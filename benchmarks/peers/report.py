"""Results as Markdown tables, and into a page that has a place for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import BASE
from pet_mlip.errors import UserError
from pet_mlip.files import write_text

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"

Results = dict[str, Any]
Entry = dict[str, Any]
Cell = Callable[[Entry], str]


def summary(results: Results) -> str:
    """The tables that a front page shows: times of everyone, and what frames cost."""
    parts = [conditions(results), times(results), frame_costs(results)]
    return "\n\n".join(part for part in parts if part)


def markdown(results: Results) -> str:
    """Everything, as a page."""
    titles, structures = results["titles"], results["structures"]
    memory = grid(titles, structures, lambda e: _number(e.get("memory"), "{:.0f}"))
    on_device = grid(titles, structures, lambda e: _number(e.get("device_memory"), "{:.0f}"))
    second = grid(titles, structures, lambda e: _number(e.get("second_to_third"), "{:.2f}"))
    sections = [
        ("Times", times(results)),
        ("Frames", frame_costs(results)),
        ("Time per atom, ms", grid(titles, structures, None)),
        ("Peak memory of a fresh process, imports included, MiB", memory),
        ("Peak memory on the device, MiB", on_device),
        ("Second call, with another number of atoms, over the third", second),
        (
            "Errors against float64: energy, eV/atom, and largest of the forces, eV/Å",
            _errors(results),
        ),
        ("Left out", left_out(results)),
    ]
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections if text)
    return f"# Benchmark\n\n{conditions(results)}\n\n{body}\n"


def conditions(results: Results) -> str:
    """What was measured where, in one paragraph."""
    settings, machine = results["settings"], results["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    clock = "wall time" if settings["timed_by"] == "wall" else "processor time"
    threads = settings["threads"]
    return (
        f"Energy, forces and, in a cell, stress, neighbour list included, float32; {clock}, "
        f"{threads} thread{'s' if threads > 1 else ''}, {settings['device']}; PET of shape "
        f"`{settings['shape']}` with random weights by {results['weights']}. "
        f"{machine['processor']}, {machine['cores']} cores, "
        f"load {machine['load']:.1f} at the start; "
        f"{packages}."
    )


def times(results: Results) -> str:
    """Milliseconds of the base, and ratios to it: median (quartiles) over rounds."""
    titles, structures = results["titles"], results["structures"]
    base = BASE if BASE in titles else None
    others = [name for name in titles if name != base and not _has_frames(results, name)]
    if base is None or not _measured(structures, [base]):
        return grid({name: titles[name] for name in titles}, structures, _milliseconds)
    header = ["structure", "atoms", f"{titles[base]}, ms"]
    header += [f"{titles[name]} / {titles[base]}" for name in others]
    rows = []
    for structure in structures:
        entries = structure["contestants"]
        row = [structure["title"], str(structure["n_atoms"]), _milliseconds(entries.get(base, {}))]
        rows.append(row + [_ratio(entries.get(name, {}), "ratio") for name in others])
    return table(header, rows)


def frame_costs(results: Results) -> str:
    """ECSE over plain, and what exceeds one over the mean number of frames."""
    names = [name for name in results["titles"] if _has_frames(results, name)]
    rows = []
    for structure in results["structures"]:
        for name in names:
            entry = structure["contestants"].get(name, {})
            if "time" not in entry:
                continue
            rows.append(
                [
                    structure["title"],
                    str(structure["n_atoms"]),
                    results["titles"][name],
                    f"{entry['frames']:.1f}",
                    _milliseconds(entry),
                    _ratio(entry, "ratio"),
                    _ratio(entry, "per_frame"),
                ]
            )
    header = ["structure", "atoms", "model", "frames per atom", "ms", "/ plain", "each frame adds"]
    return table(header, rows) if rows else ""


def grid(titles: dict[str, str], structures: list[dict[str, Any]], cell: Cell | None) -> str:
    """Structures by contestants, without those that have nothing to show.

    Args:
        titles: Of the contestants, by name.
        structures: From the results.
        cell: Text of a contestant's entry, empty if there is none; None: time per atom.
    """
    rows = []
    for structure in structures:
        show = cell or _per_atom(structure["n_atoms"])
        entries = structure["contestants"]
        rows.append([show(entries.get(name, {})) for name in titles])
    used = [k for k in range(len(titles)) if any(row[k] for row in rows)]
    if not used:
        return ""
    names = list(titles.values())
    header = ["structure", "atoms", *(names[k] for k in used)]
    return table(
        header,
        [
            [structure["title"], str(structure["n_atoms"]), *(row[k] for k in used)]
            for structure, row in zip(structures, rows, strict=True)
        ],
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, empty cells as dashes."""
    lines = [header, ["---"] * len(header), *([cell or "-" for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def left_out(results: Results) -> str:
    """Who was not measured on what, and why."""
    lines = [
        f"- {results['titles'][name]}, {structure['title']}, {structure['n_atoms']} atoms: {reason}"
        for structure in results["structures"]
        for name, entry in structure["contestants"].items()
        if (reason := entry.get("left_out"))
    ]
    return "\n".join(lines)


def update_page(path: Path, results: Results) -> None:
    """Replace what is between the markers of a page by the summary.

    Raises:
        UserError: There is no such page, or it has no pair of markers.
    """
    page = read_page(path)
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    write_text(path, f"{before}{BEGIN}\n{summary(results)}\n{END}{after}")


def read_page(path: Path) -> str:
    """A page that has the markers.

    Raises:
        UserError: There is no such page, or it has no pair of markers.
    """
    try:
        page = path.read_text(encoding="utf-8")
    except OSError:
        raise UserError(f"--update {path}: there is no such file.") from None
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UserError(
            f"--update {path}: put the lines {BEGIN} and {END} where the tables should go."
        )
    return page


def read_results(path: Path) -> Results:
    """Results of an earlier run.

    Raises:
        UserError: There are none.
    """
    try:
        results: Results = json.loads(path.read_text(encoding="utf-8"))
        if not {"settings", "titles", "structures"} <= set(results):
            raise ValueError
    except (OSError, ValueError, TypeError):
        raise UserError(f"--results {path}: not the results.json of a benchmark.") from None
    return results


def _has_frames(results: Results, name: str) -> bool:
    entries = [s["contestants"].get(name, {}) for s in results["structures"]]
    return any("frames" in entry for entry in entries)


def _measured(structures: list[dict[str, Any]], names: list[str]) -> bool:
    return any("time" in s["contestants"].get(name, {}) for s in structures for name in names)


def _milliseconds(entry: Entry) -> str:
    return _number(1000.0 * entry["time"][1] if "time" in entry else None, "{:.3g}")


def _per_atom(n_atoms: int) -> Cell:
    return lambda e: _number(1000.0 * e["time"][1] / n_atoms if "time" in e else None, "{:.3g}")


def _ratio(entry: Entry, key: str) -> str:
    if key not in entry:
        return ""
    low, middle, high = entry[key]
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def _errors(results: Results) -> str:
    def cell(entry: Entry) -> str:
        found = entry.get("errors")
        return f"{found['energy_per_atom']:.0e}, {found['forces']:.0e}" if found else ""

    return grid(results["titles"], results["structures"], cell)


def _number(value: float | None, text: str) -> str:
    if value is None:
        return ""
    # Not 1.2e+03.
    return text.format(value) if abs(value) < 1000 else f"{value:.0f}"
