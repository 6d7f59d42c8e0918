"""Results as a Markdown table, and as the curves of each set."""

from __future__ import annotations

from typing import Any

Results = dict[str, Any]
Entry = dict[str, Any]

QUANTITIES = {"energy": "meV/atom", "forces": "meV/Å", "stress": "meV/Å³"}


def markdown(results: Results) -> str:
    """Everything, as a page."""
    parts = ["# Learning", described(results), table(results), left_out(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def described(results: Results) -> str:
    """What was measured where, in one paragraph."""
    machine = results["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    most = results.get("structures")
    few = f"Trained on {most} structures of each set at most. " if most else ""
    changes = f" with {', '.join(results['set'])}" if results["set"] else ""
    return (
        f"{few}Errors on the test sets, RMSE / MAE; pet_mlip by its defaults{changes}, seed "
        f"{results['seed']}; one core each, two at a time. Seconds are processor time: counted "
        "towards the budget, and all from the first step to the last validation. "
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load']:.1f}; {packages}."
    )


def table(results: Results) -> str:
    """A row for each set, test and contestant."""
    names = [f"{quantity}, {unit}" for quantity, unit in QUANTITIES.items()]
    head = ["set", "test", "contestant", *names, "budget, s", "counted, s", "all, s", "steps"]
    lines = [_row(head), _row(["---"] * len(head))]
    for one, entries in results["sets"].items():
        measured = {name: e for name, e in entries.items() if "errors" in e}
        tests = dict.fromkeys(test for entry in measured.values() for test in entry["errors"])
        for test in tests:
            for name, title in results["titles"].items():
                if name in measured:
                    lines.append(_row([one, test, title, *_cells(measured[name], test)]))
    return "\n".join(lines)


def left_out(results: Results) -> str:
    """Who is not in the table, and why."""
    return "\n".join(
        f"- {results['titles'][name]}, {one}: {entry['left_out']}"
        for one, entries in results["sets"].items()
        for name, entry in entries.items()
        if "left_out" in entry
    )


def curves_of(entries: dict[str, Entry]) -> dict[str, Any]:
    """The learning curves of one set, by contestant."""
    return {name: entry["curve"] for name, entry in entries.items() if "curve" in entry}


def _cells(entry: Entry, test: str) -> list[str]:
    errors = entry["errors"][test]
    pairs = [
        f"{errors[f'{quantity}_rmse']:.3g} / {errors[f'{quantity}_mae']:.3g}"
        if f"{quantity}_rmse" in errors
        else "-"
        for quantity in QUANTITIES
    ]
    seconds = (60.0 * entry["conditions"]["minutes"], entry["counted"], entry["cpu"])
    return [*pairs, *(f"{value:.0f}" for value in seconds), str(entry["steps"])]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
