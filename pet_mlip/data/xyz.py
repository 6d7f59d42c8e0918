"""What ASE does not say, or not read, of extended XYZ files."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any

from ase.data import atomic_numbers
from ase.io.extxyz import key_val_str_to_dict

from pet_mlip.data.labels import SIX_NUMBERS

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
TENSOR = re.compile(r"""(\w*(?:stress|virial)\w*)\s*=\s*(["'{\[])([^"'}\]]*)["'}\]]""", re.I)
FORTRAN = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[dD][-+]?\d+")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.I)
ISOTOPES = {"D": "deuterium", "T": "tritium"}


def text_encoding(path: str) -> str | None:
    """Return the encoding that the first bytes of a text file announce, or None."""
    with open(path, "rb") as file:
        start = file.read(4)
    return next((name for mark, name in MARKS.items() if start.startswith(mark)), None)


def parse_comment(line: str) -> dict[str, Any]:
    """Read the comment line of a structure as ASE does, but set stresses of 6 numbers apart.

    ASE refuses these, since their order is not known.
    """
    six: dict[str, list[float]] = {}

    def set_aside(match: re.Match[str]) -> str:
        try:
            numbers = [float(word) for word in match[3].replace(",", " ").split()]
        except ValueError:
            return match[0]
        if len(numbers) != 6:
            return match[0]
        six[SIX_NUMBERS + match[1]] = numbers
        return ""

    found: dict[str, Any] = key_val_str_to_dict(TENSOR.sub(set_aside, line))
    return found | six


def explain_xyz(path: str) -> str | None:
    """Find the first line that is wrong, and say why in half a sentence; None if none is."""
    with open(path, errors="replace") as file:
        lines = enumerate(file, start=1)
        for number, line in lines:
            if not line.strip():
                continue
            if not line.strip().isdigit():
                return f"line {number} should be a number of atoms, but is {_short(line)}"
            n_atoms = int(line)
            comment = next(lines, None)
            if comment is None:
                return "it ends after a number of atoms"
            columns = list(_columns(comment[1]))
            for _ in range(n_atoms):
                place, row = next(lines, (0, ""))
                if place == 0 or not row.strip():
                    return f"the structure of {n_atoms} atoms in line {number} is cut short"
                problem = _problem(row.split(), columns)
                if problem is not None:
                    return f"line {place}: {problem}"
    return None


def _columns(comment: str) -> Iterator[str]:
    """What each column holds: species, S text, R number, I whole number, L truth value."""
    found = re.search(r"Properties=(\S+)", comment, re.I)
    words = (found[1] if found else "species:S:1:pos:R:3").strip('"').split(":")
    for name, kind, count in zip(words[::3], words[1::3], words[2::3], strict=False):
        yield from ["species" if name in ("species", "symbols") else kind] * int(count)


def _problem(words: list[str], columns: list[str]) -> str | None:
    if len(words) < len(columns):
        return f"there are {len(words)} columns instead of {len(columns)}"
    for word, kind in zip(words, columns, strict=False):
        if kind == "species" and not word.isdigit() and word.capitalize() not in atomic_numbers:
            name = ISOTOPES.get(word)
            if name:
                return f"{word} ({name}) is no element for ASE: write H, whose energy is the same"
            return f"{_short(word)} is not the symbol of an element"
        if kind in ("R", "I") and FORTRAN.fullmatch(word):
            return f"{word} has a Fortran exponent: write E instead of D"
        if kind == "R" and not NUMBER.fullmatch(word):
            return f"{_short(word)} is not a number"
    return None


def _short(text: str) -> str:
    return repr(text.strip()[:40])
