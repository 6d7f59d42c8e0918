"""Lists of structures as files that are whole or not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ase import Atoms
from ase.io import read, write

from pet_mlip.files import replacing


def write_structures(path: Path, structures: Sequence[Atoms]) -> None:
    """Replace an extended XYZ file in one step; an empty list makes an empty file."""
    with replacing(path) as temporary:
        if structures:
            write(temporary, list(structures), format="extxyz")
        else:
            temporary.write_text("", encoding="utf-8")


def read_structures(path: Path) -> list[Atoms]:
    """Read what `write_structures` wrote."""
    return list(read(path, ":", format="extxyz")) if path.stat().st_size > 0 else []
