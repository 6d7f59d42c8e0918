"""Streaming structures from any file that ASE reads."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

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
from pet_mlip.data.structure import Source, Structure
from pet_mlip.data.xyz import explain_xyz, parse_comment, text_encoding
from pet_mlip.errors import UserError

FileNames = str | Path | Sequence[str | Path]


def read_structures(
    files: FileNames, keys: LabelKeys = DEFAULT_KEYS, data_units: DataUnits = DEFAULT_UNITS
) -> Iterator[Structure]:
    """Structures of the files one after the other; memory does not grow with their number.

    Args:
        files: One or several file names, patterns such as ``data/*.xyz``, or a file with a slice
            of its frames, ``train.xyz@:100`` or ``train.xyz@::10``.
        keys: Names of the labels.
        data_units: Units of the numbers in the files.

    Raises:
        UserError: A file is missing, empty, unreadable, or a label has a wrong shape.
    """
    for source, atoms in read_atoms(files):
        yield structure_from_atoms(atoms, keys, data_units, source)


def read_atoms(files: FileNames) -> Iterator[tuple[Source, Atoms]]:
    """As ``read_structures``, but the ASE atoms with everything that the file says about them."""
    for name in expand_files(files):
        path, frames = _split_slice(name)
        selected = islice(enumerate(_frames(path)), frames.start, frames.stop, frames.step)
        empty = True
        for frame, atoms in selected:
            empty = False
            yield Source(path, frame), atoms
        if empty:
            raise UserError(f"{name} holds no structure.")


def expand_files(files: FileNames) -> list[str]:
    """Names of the files with patterns replaced by the files they match, in sorted order.

    Raises:
        UserError: A file is missing or a pattern matches nothing.
    """
    names: list[str] = []
    for file in [files] if isinstance(files, str | Path) else files:
        name = str(file)
        path, _ = _split_slice(name)
        if os.path.isfile(path):
            names.append(name)
            continue
        matches = sorted(match for match in glob.glob(path) if os.path.isfile(match))
        if not matches:
            raise UserError(f"There is no file {path} (working directory: {os.getcwd()}).")
        names += [match + name[len(path) :] for match in matches]
    return names


def _split_slice(name: str) -> tuple[str, slice]:
    """File name and the frames asked for with ``@start:stop:step``."""
    path, at, selection = name.rpartition("@")
    if not at or os.path.exists(name):
        return name, slice(None)
    match = re.fullmatch(r"(\d*):(\d*)(?::(\d*))?", selection)
    if match is None:
        raise UserError(
            f"{name}: '@{selection}' is not a slice of frames such as @:100 or @100:200:2 "
            "(frames count from 0, negative numbers are not possible)."
        )
    start, stop, step = (int(text) if text else None for text in match.groups())
    return path, slice(start, stop, step)


def _frames(path: str) -> Iterator[Atoms]:
    """Frames of one file, with whatever goes wrong in ASE as one sentence."""
    if os.path.getsize(path) == 0:
        raise UserError(f"{path} is an empty file.")
    frame = 0
    with ExitStack() as stack:
        plain = path
        try:
            plain = _decompressed(path, stack)
            for atoms in _ase_frames(plain):
                yield atoms
                frame += 1
        except Exception as error:  # ASE's readers raise anything.
            if frame == 0:
                frame = _broken_header(plain)
            where = f"{path}, frame {frame}" if frame else path
            cause = explain_xyz(plain) if plain.endswith((".xyz", ".extxyz")) else None
            if cause is not None:
                raise UserError(f"{where} cannot be read: {cause}.") from error
            reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
            raise UserError(
                f"{where} cannot be read by ASE ({reason.replace(plain, path)}); it may be "
                "damaged, cut short, or of another format than its name says."
            ) from error


def _ase_frames(path: str) -> Iterator[Atoms]:
    """Frames as ASE reads them, those of databases with the columns that their rows have."""
    kind = filetype(path)
    if kind == "extxyz":
        yield from iread(
            path, ":", kind, do_not_split_by_at_sign=True, properties_parser=parse_comment
        )
        return
    if kind not in ("db", "json"):
        yield from iread(path, ":", do_not_split_by_at_sign=True)
        return
    with connect(path, serial=True) as database:
        for row in database.select():
            yield row.toatoms(add_additional_information=True)


def _broken_header(path: str) -> int:
    """The first frame of an xyz file that does not begin with a number of atoms; else 0.

    ASE looks at all headers before it yields the first frame, and does not say which one is wrong.
    """
    if not path.endswith(".xyz"):
        return 0
    frame = 0
    with open(path, errors="replace") as file:
        for line in file:
            if not line.strip().isdigit():
                return frame
            for _ in range(int(line) + 1):
                next(file, None)
            frame += 1
    return 0


def _decompressed(path: str, stack: ExitStack) -> str:
    """The path itself, or that of a temporary copy without compression, in UTF-8.

    ASE seeks frame by frame, which takes a time quadratic in their number in a compressed file.
    """
    plain, compression = get_compression(path)
    if compression is None:
        encoding = text_encoding(path)
        if encoding is None:
            return path
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pet_mlip_"))
        copy = os.path.join(folder, os.path.basename(path))
        with open(path, encoding=encoding) as text, open(copy, "w", encoding="utf-8") as converted:
            shutil.copyfileobj(text, converted)
        return copy
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pet_mlip_"))
    copy = os.path.join(folder, os.path.basename(plain))
    with open_with_compression(path, "rb") as source, open(copy, "wb") as target:
        shutil.copyfileobj(source, target)
    return copy
