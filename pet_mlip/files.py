"""Files that are written: checked before work begins, and told in one sentence when they fail."""

from __future__ import annotations

import errno
import os
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
TEMPORARY = ".pet_mlip."
"""How the names of files begin that replace others."""
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


def check_replaceable(path: str | Path) -> None:
    """Refuse the path of a file to write that is something else.

    Raises:
        UserError: It is a folder or, as /dev/null, a device, whose place the file would take.
    """
    path = Path(path)
    with writing(path):
        if path.is_dir():
            raise UserError(f"{path} is a directory; give the path of the file to write.")
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no regular file but a device; give another path.")


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
    """Tell a failure to write a file as one sentence that names it, or what failed instead.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        yield
    except OSError as error:
        # Temporary files stand for this one; any other is what there is trouble with.
        if isinstance(error.filename, str) and Path(error.filename).name.startswith(TEMPORARY):
            error.filename = str(path)
        raise UserError(describe(error, path)) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in TORCH_WRITERS):
            raise
        raise UserError(
            f"{path} cannot be written ({str(error).splitlines()[0]}); is the disk full?"
        ) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield another path in the same folder, which becomes `path` at the end.

    Whenever the program is killed, `path` is either the old file or the new one. If the block
    raises, the old one stays, and nothing else is left.

    Raises:
        UserError: The file cannot be written, or something else has its name.
    """
    path = Path(path)
    check_replaceable(path)
    with writing(path):
        # Not made of the file's name, which may be as long as names can be.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY, suffix=path.suffix)
        os.close(handle)
        os.chmod(name, _file_mode())
    temporary = Path(name)
    try:
        with writing(path):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Replace a text file in one step.

    Raises:
        UserError: The file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _file_mode() -> int:
    """The permissions that a new file gets; mkstemp makes private ones."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
