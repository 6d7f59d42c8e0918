"""Statistics of a data set as tables for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pet_mlip.data.summary import DataStatistics, Outlier, Range

# Longest lists that are printed in full.
LISTED = 10


def render_statistics(statistics: DataStatistics) -> Group:
    """Everything in ``DataStatistics``, long lists cut short."""
    s = statistics
    parts: list[RenderableType] = [_overview(s), _ranges(s)]
    if len(s.elements) > 0:
        parts.append(_elements(s))
    if s.config_types:
        parts.append(_counts("Groups (config_type)", s.config_types))
    parts += [Text(line) for line in _remarks(s)]
    return Group(*parts)


def _overview(s: DataStatistics) -> Table:
    table = Table(title="Structures", title_justify="left", show_header=False)
    table.add_row("structures", str(s.n_structures))
    table.add_row("atoms", str(s.n_atoms))
    table.add_row("elements", str(len(s.elements)))
    for directions, count in s.periodicity.items():
        name = "not periodic" if directions == "none" else f"periodic along {', '.join(directions)}"
        table.add_row(name, str(count))
    for label, count in s.labels.items():
        table.add_row(f"with {label}", _share(count, s.n_structures))
    return table


def _ranges(s: DataStatistics) -> Table:
    table = Table(title="Ranges", title_justify="left")
    table.add_column("quantity")
    for column in ("smallest", "mean", "largest", "std"):
        table.add_column(column, justify="right")
    rows: dict[str, Range | None] = {
        "atoms per structure": s.atoms_per_structure,
        f"neighbours within {s.cutoff:g} Å": s.neighbours,
        "shortest distance per structure [Å]": s.nearest_distance,
        "volume per atom [Å³]": s.volume_per_atom,
        "energy per atom [eV]": s.energy_per_atom,
        "  less composition baseline [eV]": s.energy_residual,
        "norm of forces [eV/Å]": s.force_norm,
        "pressure [eV/Å³]": s.pressure,
    }
    for name, values in rows.items():
        if values is not None:
            numbers = (values.min, values.mean, values.max, values.std)
            table.add_row(name, *(_number(number) for number in numbers))
    return table


def _elements(s: DataStatistics) -> Table:
    table = Table(title="Elements", title_justify="left")
    table.add_column("element")
    for column in ("atoms", "share", "RMS force component [eV/Å]"):
        table.add_column(column, justify="right")
    for symbol, count in s.elements.items():
        force = s.force_rms_by_element.get(symbol)
        shown = "" if force is None else _number(force)
        table.add_row(symbol, str(count), f"{100 * count / s.n_atoms:.1f} %", shown)
    pairs = sorted(s.shortest_by_pair.items(), key=lambda item: item[1])
    listed = ", ".join(f"{pair} {distance:.3f}" for pair, distance in pairs[:LISTED])
    if listed:
        table.caption = f"Shortest distances [Å]: {listed}{', ...' if len(pairs) > LISTED else ''}"
        table.caption_justify = "left"
    return table


def _counts(title: str, counts: dict[str, int]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("group")
    table.add_column("structures", justify="right")
    for name, count in counts.items():
        table.add_row(name, str(count))
    return table


def _remarks(s: DataStatistics) -> list[str]:
    """Problems, outliers and duplicates, or that there are none."""
    lines = _listing("mistakes", s.problems)
    lines += _listing("outliers", [_outlier(outlier) for outlier in s.outliers])
    groups = [" = ".join(_shortened(group)) for group in s.duplicates]
    return lines + _listing("groups of identical structures", groups)


def _listing(name: str, entries: list[str]) -> list[str]:
    if not entries:
        return [f"No {name}."]
    shown = [f"  {entry}" for entry in entries[:LISTED]]
    if len(entries) > LISTED:
        shown.append(f"  ... and {len(entries) - LISTED} more")
    return [f"{name.capitalize()}: {len(entries)}", *shown]


def _outlier(outlier: Outlier) -> str:
    return (
        f"{outlier.source}: {outlier.quantity} = {_number(outlier.value)}, "
        f"{outlier.sigmas:.1f} robust standard deviations from the median"
    )


def _shortened(group: list[str]) -> list[str]:
    return [*group[:3], f"... ({len(group)} in all)"] if len(group) > 4 else group


def _share(count: int, total: int) -> str:
    return f"{count} ({100 * count / total:.1f} %)" if total else str(count)


def _number(value: float) -> str:
    return f"{value:.6g}"
