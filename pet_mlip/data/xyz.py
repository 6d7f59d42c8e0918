"""Extended XYZ, structure by structure: what ASE loses, refuses, or does not say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from io import StringIO
from typing import Any, NamedTuple, TextIO

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.io.extxyz import (
    key_val_str_to_dict,
    parse_properties,
    per_config_properties,
    read_xyz,
)

from pet_mlip.data.labels import AS_WRITTEN

# Whole words only: 1.0D+00, 1.D0, 1D-3, but neither 1D nor D2.
FORTRAN = re.compile(r"(?<!\S)([-+]?(?:\d+\.\d*|\.\d+|\d+(?=[dD][-+])))[dD]([-+]?\d+)(?!\S)")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.I)
ISOTOPES = {"D": "deuterium", "T": "tritium"}
CLOSING = {"'": "'", '"': '"', "{": "}", "[": "]"}
TENSORS = ("stress", "virial")
DEFAULT_COLUMNS = "species:S:1:pos:R:3"
NO_COUNT = "should be a number of atoms, but is"
REST = "; the structures after it cannot be found"
WORDS = ("config_type",)
"""Keys whose values are never numbers."""


class Fault(NamedTuple):
    """What is wrong with a structure, as half a sentence with the line's number."""

    words: str


def read_frames(file: TextIO) -> Iterator[Atoms | Fault]:
    """Structures of an extended XYZ file one after the other, or what is wrong with each.

    As ASE reads them, but those after a faulty one are still read as long as their beginnings can
    be found, empty lines between structures do not end the file, Fortran's exponents are numbers,
    and a stress or virial that is not 3 x 3 numbers is kept as it is written.

    Args:
        file: Bytes that are no UTF-8 must stand as surrogates in it.
    """
    lines = _Lines(file)
    while lines.skip_empty():
        header = lines.take()
        start = lines.number
        if not _is_count(header):
            yield Fault(f"line {start} {NO_COUNT} {_short(header)}{REST}")
            return
        n_atoms, block = int(header), [header]
        while len(block) < n_atoms + 2 and lines.peek():
            block.append(lines.take())
        if len(block) == 1:
            yield Fault("it ends after a number of atoms")
            return
        if len(block) < n_atoms + 2:
            yield Fault(f"the structure of {n_atoms} atoms in line {start} is cut short")
            return
        while lines.peek().lstrip().startswith("VEC"):
            block.append(lines.take())
        frame = _read_frame(block, n_atoms, start, lines.peek())
        if isinstance(frame, Fault) and lines.skip_empty() and not _is_count(lines.peek()):
            yield Fault(frame.words + REST)
            return
        yield frame


class _Lines:
    """The lines of a file, which can be looked at before they are taken."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._next: str | None = None
        self.number = 0
        """Of the line taken last, from 1."""

    def peek(self) -> str:
        """The next line; empty at the end of the file."""
        if self._next is None:
            self._next = self._file.readline()
        return self._next

    def take(self) -> str:
        """The next line, without looking at it again."""
        line, self._next = self.peek(), None
        self.number += 1
        return line

    def skip_empty(self) -> bool:
        """Go to the next line with anything in it, and tell whether there is one."""
        while self.peek() and not self.peek().strip():
            self.take()
        return bool(self.peek())


def _is_count(line: str) -> bool:
    # isdigit alone holds for superscripts, too.
    return line.strip().isascii() and line.strip().isdigit()


def _read_frame(block: list[str], n_atoms: int, start: int, after: str) -> Atoms | Fault:
    """One structure.

    Args:
        block: All its lines.
        n_atoms: What the first of them says.
        start: Number of the first.
        after: The line after the last, which is no number of atoms if the first is too small.
    """
    for number, line in enumerate(block, start):
        if (problem := _not_text(line)) is not None:
            return Fault(f"line {number}: {problem}")
    has_vectors = len(block) > n_atoms + 2
    try:
        entries = {} if has_vectors else parse_comment(block[1])
        columns = _columns(str(entries.get("Properties", DEFAULT_COLUMNS)))
        _check_pbc(entries.get("pbc", True))
    except ValueError as error:
        return Fault(f"line {start + 1}: {error}")
    rows = [_with_exponents(line) for line in block[2:]]
    try:
        text = "".join([*block[:2], *rows])
        (atoms,) = read_xyz(StringIO(text), slice(None), properties_parser=lambda _: dict(entries))
    except Exception as error:  # ASE's readers raise anything.
        for number, row in enumerate(rows[:n_atoms], start + 2):
            if (problem := _problem(row.split(), columns)) is not None:
                hint = f" (is line {start} right?)" if _is_count(row) else ""
                return Fault(f"line {number}: {problem}{hint}")
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
        return Fault(f"ASE refuses the structure in line {start} ({reason})")
    words = _with_exponents(after).split()
    if words and not _is_count(after) and _problem(words, columns) is None:
        return Fault(
            f"line {start + len(block)} {NO_COUNT} {_short(after)}; line {start} says too few atoms"
        )
    return _with_columns_as_written(atoms, columns)


def _with_columns_as_written(atoms: Atoms, columns: list[tuple[str, str]]) -> Atoms:
    """ASE takes a column called stress, numbers of each atom, for the stress of the structure."""
    if any(name == "stress" for name, _ in columns) and atoms.calc is not None:
        column = atoms.calc.results.pop("stress", None)
        if column is not None:
            atoms.info.setdefault(AS_WRITTEN + "stress", np.reshape(column, (len(atoms), -1)))
    return atoms


def parse_comment(line: str) -> dict[str, Any]:
    """Read the comment line of a structure as ASE does, but refuse fewer of them.

    Fortran's exponents and nested brackets are read, too. Results that ASE would refuse for their
    shape (stresses of 6 numbers, whose order is not known, for example) stand under a name of
    their own, `AS_WRITTEN` and theirs.

    Raises:
        ValueError: Half a sentence on what is wrong.
    """
    entries: dict[str, Any] = {}
    for key, text in _pairs(line):
        value = _value(key, text if key in WORDS else _plain_numbers(text))
        if key == "Lattice" or key in TENSORS:
            if isinstance(value, np.ndarray) and value.shape in ((9,), (3, 3)):
                value = value.reshape(9).reshape((3, 3), order="F")
            elif key == "Lattice":
                raise ValueError(f"Lattice is {_short(text)} instead of 9 numbers")
            else:
                key = AS_WRITTEN + key
        elif key in per_config_properties and not isinstance(value, int | float | np.ndarray):
            key = AS_WRITTEN + key
        entries[key] = value
    return entries


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """Keys and values of a comment line: ASE's rules, and brackets within brackets."""
    pairs, closing, depth, escaped, quoted = [[""]], "", 0, False, False
    for char in line.strip():
        if escaped or (char != "\\" and closing and char not in (closing, "[")):
            pairs[-1][-1] += char
            escaped = False
        elif char == "\\":
            escaped = True
        elif closing:
            depth += (char == "[" and closing == "]") - (char == closing)
            if depth == 0:
                closing = ""
            else:
                pairs[-1][-1] += char
        elif char in CLOSING:
            closing, depth, quoted = CLOSING[char], 1, True
        elif char.isspace():
            if pairs[-1][-1] or quoted:  # not before or after =
                pairs.append([""])
            quoted = False
        elif char == "=":
            if pairs[-1] == [""] and len(pairs) > 1:
                pairs.pop()
            pairs[-1].append("")
            quoted = False
        else:
            pairs[-1][-1] += char
    for key, *values in pairs:
        if key:
            yield key, "=".join(values) if values else "T"


def _plain_numbers(text: str) -> str:
    """Numbers without nested brackets and Fortran's exponents; any other text as it is."""
    words = text.strip()
    if words.startswith("[") and words.endswith("]"):
        words = words.replace("[", " ").replace("]", " ")
    words = _with_exponents(words.replace(",", " "))
    return words if all(NUMBER.fullmatch(word) for word in words.split()) else text


def _value(key: str, text: str) -> Any:
    """What ASE makes of a value: numbers, truth values, JSON, or the text itself."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    try:
        return key_val_str_to_dict(f'value="{quoted}"')["value"]
    except ValueError as error:
        raise ValueError(f"{key} is {_short(text)}, which is no JSON ({error})") from None


def _with_exponents(line: str) -> str:
    return FORTRAN.sub(r"\1E\2", line) if "D" in line or "d" in line else line


@lru_cache
def _columns(properties: str) -> list[tuple[str, str]]:
    """Name and kind of each column: S text, R number, I whole number, L truth value."""
    fields = properties.split(":")
    try:
        parse_properties(properties)
        triples = list(zip(fields[::3], fields[1::3], map(int, fields[2::3]), strict=True))
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError(
            f"Properties is {_short(properties)}, which is not name:kind:columns, again and again, "
            f"as in {DEFAULT_COLUMNS}"
        ) from None
    columns = [(name, kind) for name, kind, count in triples for _ in range(count)]
    names = [name for name, _ in columns]
    if "pos" not in names and "positions" not in names:
        raise ValueError(f"Properties is {_short(properties)}, without pos:R:3 for the positions")
    return columns


def _check_pbc(pbc: Any) -> None:
    if np.size(pbc) not in (1, 3) or isinstance(pbc, str):
        raise ValueError(f'pbc is {pbc!r} instead of one or three of T and F, as in pbc="T T F"')


def _not_text(line: str) -> str | None:
    """What to do about bytes that are no UTF-8, which stand as surrogates."""
    if line.isascii():
        return None
    byte = next((ord(letter) - 0xDC00 for letter in line if "\udc80" <= letter <= "\udcff"), None)
    if byte is None:
        return None
    return (
        f"byte {byte:#04x} is no UTF-8 text; convert the file, for example with "
        "iconv -f latin1 -t utf-8"
    )


def _problem(words: list[str], columns: list[tuple[str, str]]) -> str | None:
    """What is wrong with an atom."""
    if len(words) < len(columns):
        return f"there are {len(words)} columns instead of {len(columns)}"
    for word, (name, kind) in zip(words, columns, strict=False):
        if name in ("species", "symbols"):
            if word.capitalize() not in atomic_numbers:
                return isotope(word) or f"{_short(word)} is not the symbol of an element"
        elif kind == "R" and not NUMBER.fullmatch(word):
            comma = "; write a decimal point instead of the comma" if "," in word else ""
            wide = " (too wide for its Fortran format)" if set(word) == {"*"} else ""
            return f"{_short(word)} is not a number{wide}{comma}"
        elif kind == "I" and not re.fullmatch(r"[-+]?\d+", word):
            return f"{_short(word)} is not a whole number"
    return None


def isotope(symbol: str) -> str | None:
    """What to do about an isotope's symbol, as half a sentence; None for anything else."""
    name = ISOTOPES.get(symbol.capitalize())
    if name is None:
        return None
    return f"{symbol} ({name}) is no element for ASE: write H, whose energy is the same"


def _short(text: str) -> str:
    return repr(text.strip()[:40])
