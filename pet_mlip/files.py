"""Files that are written: checked before work begins, and told in one sentence when they fail."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pet_mlip.errors import UserError

REMEDIES = {
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "free some space, or write elsewhere",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is a file",
    errno.EISDIR: "give the path of a file, not of a folder",
    errno.EEXIST: "check the path: a part of it is a file",
    errno.ENAMETOOLONG: "choose a shorter name",
}
TORCH_WRITERS = ("PytorchStreamWriter", "inline_container", "iostream error")
"""What torch's messages about files that it could not write have in them."""


def describe(error: OSError, path: str | Path | None = None) -> str:
    """What went wrong with a file, as one sentence.

    Args:
        error: Its own file is named if it has one.
        path: Named otherwise.
    """
    name = error.filename if isinstance(error.filename, str) else path
    reason = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0, "check the path and the disk")
    subject = f"{name} cannot be read or written" if name else "A file cannot be read or written"
    return f"{subject} ({reason}); {remedy}."


def check_writable(folder: str | Path) -> None:
    """Make a folder if need be, and refuse one in which nothing can be written.

    Raises:
        UserError: In one sentence, why not.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        # The name of the temporary file helps nobody.
        error.filename = str(folder)
        raise UserError(describe(error)) from error


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Tell a failure to write a file as one sentence that names it.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise UserError(describe(error)) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in TORCH_WRITERS):
            raise
        raise UserError(
            f"{path} cannot be written ({str(error).splitlines()[0]}); is the disk full?"
        ) from error
