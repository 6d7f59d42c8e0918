"""Imports go down the house only, as docs/development.md has it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pet_mlip"
FLOORS = [
    {"errors", "files", "missing", "version", "pace", "results", "weights"},
    {"graph"},
    {"ecse"},
    {"network"},
    {"engine"},
    {"config", "data"},
    {"export"},
    {"ase"},
    {"convert", "evaluate", "interfaces", "lammps", "train"},
    {"learn"},
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if "plugin" not in path.parts]


def imported_rooms(tree: ast.AST) -> set[str]:
    """Rooms that a file imports, also within functions, but not for type checkers only."""
    found = set()
    hidden = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            hidden.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node not in hidden and node.module:
            parts = node.module.split(".")
            if parts[0] == "pet_mlip" and len(parts) > 1:
                found.add(parts[1])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    parts = path.relative_to(PACKAGE).parts
    if len(parts) == 1 and path.stem == "__init__":
        return  # what the package offers
    room = parts[0].removesuffix(".py")
    found = imported_rooms(ast.parse(path.read_text(encoding="utf-8")))
    above = {other for other in found if FLOOR[other] > FLOOR[room]}
    assert not above, f"{room} imports {above}"
