"""Names of data files, with the frames that are asked for."""

from __future__ import annotations

import os
import re

SLICE = re.compile(r"([0-9]*):([0-9]*)(?::(0*[1-9][0-9]*)?)?")


def split_slice(name: str) -> tuple[str, slice]:
    """File name, or pattern, and the frames asked for with ``@start:stop:step``.

    A name may hold an @ itself: what is no slice is a part of the name, and so is what looks like
    one if there is a file with all of that name.
    """
    path, at, selection = name.rpartition("@")
    match = SLICE.fullmatch(selection)
    if not at or match is None or os.path.isfile(name):
        return name, slice(None)
    start, stop, step = (int(text) if text else None for text in match.groups())
    return path, slice(start, stop, step)


def missing_file(name: str) -> str:
    """What to say about a file that is not there, in one sentence."""
    message = f"There is no file {name} (working directory: {os.getcwd()})"
    path, at, selection = name.rpartition("@")
    if at and os.path.isfile(path):
        message += (
            f"; there is {path}, but '@{selection}' is not a slice of frames such as @:100 or "
            "@100:200:2 (frames count from 0, negative numbers are not possible)"
        )
    return f"{message}."
