"""Streaming structures from any file that ASE reads."""

from __future__ import annotations

import codecs
import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TextIO

from ase import Atoms
from ase.db import connect
from ase.io import iread
from ase.io.formats import filetype, get_compression, open_with_compression

from pet_mlip.data.labels import (
    DEFAULT_KEYS,
    DEFAULT_UNITS,
    DataUnits,
    LabelKeys,
    structure_from_atoms,
)
from pet_mlip.data.names import missing_file, split_slice
from pet_mlip.data.structure import Source, Structure
from pet_mlip.data.xyz import Fault, isotope, read_frames
from pet_mlip.errors import UserError

FileNames = str | Path | Sequence[str | Path]
OnFault = Callable[[UserError], None]

# The longer ones first: that of UTF-32 begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
UNMARKED: dict[tuple[bool, ...], str] = {
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
"""Encodings without a mark by which of the first four bytes, of digits and line ends, are zero."""


def read_structures(
    files: FileNames,
    keys: LabelKeys = DEFAULT_KEYS,
    data_units: DataUnits = DEFAULT_UNITS,
    on_fault: OnFault | None = None,
) -> Iterator[Structure]:
    """Read structures one after the other; memory does not grow with their number.

    Args:
        files: One or several file names, patterns such as ``data/*.xyz``, or a file with a slice
            of its frames, ``train.xyz@:100`` or ``train.xyz@::10``.
        keys: Names of the labels.
        data_units: Units of the numbers in the files.
        on_fault: Told about each structure, or rest of a file, that cannot be read or whose labels
            are wrong; it is then left out. By default the first of these errors is raised.

    Raises:
        UserError: A file is missing, empty, unreadable, or a label has a wrong shape.
    """
    for source, atoms in read_atoms(files, on_fault):
        try:
            structure = structure_from_atoms(atoms, keys, data_units, source)
        except UserError as fault:
            if on_fault is None:
                raise
            on_fault(fault)
            continue
        yield structure


def read_atoms(files: FileNames, on_fault: OnFault | None = None) -> Iterator[tuple[Source, Atoms]]:
    """As ``read_structures``, but the ASE atoms with everything that the file says about them."""
    for name in expand_files(files):
        path, frames = split_slice(name)
        selected = islice(enumerate(_frames(path)), frames.start, frames.stop, frames.step)
        empty = True
        for frame, atoms in selected:
            empty = False
            if isinstance(atoms, Atoms):
                yield Source(path, frame), atoms
            elif on_fault is None:
                raise atoms
            else:
                on_fault(atoms)
        if empty:
            fault = UserError(f"{name} holds no structure.")
            if on_fault is None:
                raise fault
            on_fault(fault)


def expand_files(files: FileNames) -> list[str]:
    """Names of the files with patterns replaced by the files they match, in sorted order.

    Raises:
        UserError: A file is missing or a pattern matches nothing.
    """
    names: list[str] = []
    for file in [files] if isinstance(files, str | Path) else files:
        name = str(file)
        path, _ = split_slice(name)
        if os.path.isfile(path):
            names.append(name)
            continue
        matches = sorted(match for match in glob.glob(path) if os.path.isfile(match))
        if not matches and os.path.isdir(path):
            raise UserError(f"{path} is a folder; name files in it, as in {path}/*.xyz.")
        if not matches:
            raise UserError(missing_file(path))
        names += [match + name[len(path) :] for match in matches]
    return names


def _frames(path: str) -> Iterator[Atoms | UserError]:
    """Frames of one file; in place of what cannot be read, the error that says why."""
    frame, plain = 0, path
    with ExitStack() as stack:
        try:
            if os.path.getsize(path) == 0:
                yield UserError(f"{path} is an empty file.")
                return
            if filetype(path) == "extxyz":
                frames: Iterator[Atoms | Fault] = read_frames(_open_xyz(path, stack))
            else:
                plain = _decompressed(path, stack)
                frames = _ase_frames(plain)
            for found in frames:
                if isinstance(found, Fault):
                    yield UserError(f"{_where(path, frame)} cannot be read: {found.words}.")
                else:
                    yield found
                frame += 1
        except Exception as error:  # ASE's readers raise anything.
            yield UserError(_unreadable(path, plain, frame, error))


def _where(path: str, frame: int) -> str:
    return f"{path}, frame {frame}" if frame else path


def _unreadable(path: str, plain: str, frame: int, error: Exception) -> str:
    """Why ASE, or the system, does not read a file."""
    where = _where(path, frame)
    # ASE's own errors are OSErrors without a number.
    if isinstance(error, OSError) and error.errno is not None:
        return f"{where} cannot be read: {error.strerror}."
    if isinstance(error, KeyError) and (words := isotope(str(error.args[0]))) is not None:
        return f"{where} cannot be read: {words}."
    reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    return (
        f"{where} cannot be read by ASE ({reason.replace(plain, path)}); it may be damaged, cut "
        "short, or of another format than its name says."
    )


def _ase_frames(path: str) -> Iterator[Atoms]:
    """Frames as ASE reads them, those of databases with the columns that their rows have."""
    if filetype(path) not in ("db", "json"):
        yield from iread(path, ":", do_not_split_by_at_sign=True)
        return
    with connect(path, serial=True) as database:
        for row in database.select():
            yield row.toatoms(add_additional_information=True)


def _open_xyz(path: str, stack: ExitStack) -> TextIO:
    """The text of a file, whatever its compression and encoding."""
    source = stack.enter_context(open_with_compression(path, "rb"))
    encoding = text_encoding(source.read(4))
    source.seek(0)
    # Bytes that are no text are told with their line.
    errors = "surrogateescape" if encoding is None else "strict"
    return stack.enter_context(TextIOWrapper(source, encoding or "utf-8", errors))


def text_encoding(start: bytes) -> str | None:
    """The encoding that the first four bytes of a text tell, or None for UTF-8 and its kin."""
    marked = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
    zeros = tuple(byte == 0 for byte in start.ljust(4, b"1"))
    return marked or UNMARKED.get(zeros)


def _decompressed(path: str, stack: ExitStack) -> str:
    """The path itself, or that of a temporary copy without compression, in UTF-8.

    ASE seeks frame by frame, which takes a time quadratic in their number in a compressed file.
    """
    plain, compression = get_compression(path)
    with open_with_compression(path, "rb") as source:
        start = source.read(4)
        source.seek(0)
        # Without a mark it may be anything that is no text at all.
        encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)), None)
        if compression is None and encoding is None:
            return path
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pet_mlip_"))
        copy = os.path.join(folder, os.path.basename(plain))
        with open(copy, "wb") as target:
            if encoding is None:
                shutil.copyfileobj(source, target)
            else:
                for text in codecs.iterdecode(iter(partial(source.read, 1 << 20), b""), encoding):
                    target.write(text.encode())
    return copy
