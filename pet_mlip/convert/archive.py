"""The zip archive that `torch.save` writes, read without torch's unpickler."""

from __future__ import annotations

import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from pet_mlip.convert.unpickling import Unpickler
from pet_mlip.errors import UserError


@dataclass(frozen=True)
class Storage:
    """The numbers of one or more tensors, still in the archive."""

    archive: Archive
    key: str
    dtype: torch.dtype
    n_elements: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is read when it is needed: most of a checkpoint is not."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        reach = self.offset + sum(
            (n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)
        )
        size = math.prod(self.shape)
        n_elements = self.storage.n_elements
        if min((self.offset, *self.shape, *self.strides)) < 0 or size > n_elements:
            raise ValueError("a tensor of impossible shape")
        if size > 0 and reach >= n_elements:
            raise ValueError("a tensor larger than its storage")

    def load(self) -> Tensor:
        """The tensor, on the CPU.

        Raises:
            UserError: If its part of the archive is damaged.
        """
        storage = self.storage
        content = storage.archive.member(f"data/{storage.key}")
        if len(content) != storage.n_elements * storage.dtype.itemsize:
            raise storage.archive.damaged(f"a wrong size of data/{storage.key}")
        if not content:
            return torch.empty(self.shape, dtype=storage.dtype)
        flat = torch.frombuffer(bytearray(content), dtype=storage.dtype)
        return flat.as_strided(self.shape, self.strides, self.offset).clone()


class Archive:
    """An open archive.

    Args:
        path: Its name, for messages.
        file: Its bytes.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise UserError(
                f"{path} is no checkpoint of metatrain, or it is cut short ({error})."
            ) from None
        # A serialized tensor inside may be a zip archive too, which is not the whole.
        if min((info.header_offset for info in self._zip.infolist()), default=0) > 0:
            raise UserError(f"{path} is no checkpoint of metatrain, or it is cut short.")
        self.names = set(self._zip.namelist())
        pickles = [name for name in self.names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UserError(f"{path} is a zip archive, but no checkpoint of metatrain.")
        self._folder = pickles[0].removesuffix("data.pkl")

    @property
    def is_torchscript(self) -> bool:
        """Whether it is a model with its code, as torch.jit.save writes it."""
        return f"{self._folder}constants.pkl" in self.names

    def holds(self, name: str) -> bool:
        """Whether there is a file of some name in the archive."""
        return f"{self._folder}{name}" in self.names

    def member(self, name: str) -> bytes:
        """One file of the archive, its checksum verified."""
        try:
            return self._zip.read(f"{self._folder}{name}")
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError) as error:
            raise self.damaged(str(error).strip("'\"")) from None

    def damaged(self, reason: str) -> UserError:
        """The error of a file that is not what it should be."""
        return UserError(f"{self.path} is damaged or no checkpoint of metatrain ({reason}).")

    def content(self) -> Any:
        """What was saved, with `StoredTensor` and `Placeholder` in it.

        Raises:
            UserError: If it is damaged, or names something that could run code.
        """
        if self.holds("byteorder") and self.member("byteorder").strip() != b"little":
            raise UserError(f"{self.path} was written on a big-endian machine; save it anew.")
        pickled = io.BytesIO(self.member("data.pkl"))
        try:
            return Unpickler(pickled, self._storage, StoredTensor).load()
        except UserError as error:
            raise UserError(f"{self.path} is refused: {error}.") from None
        except Exception as error:  # damage and malice can cause any
            reason = str(error).strip() or type(error).__name__
            raise self.damaged(reason.splitlines()[0]) from None

    def _storage(self, dtype: torch.dtype, key: str, n_elements: int) -> Storage:
        return Storage(self, key, dtype, n_elements)


@contextmanager
def open_archive(path: str | Path) -> Iterator[Archive]:
    """Open an archive of torch, which may be compressed with gzip as a whole.

    Raises:
        UserError: If it is missing, cut short, or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no checkpoint {path}.")
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not compressed:
            yield Archive(path, file)
            return
        try:
            content = gzip.decompress(file.read())
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} is damaged or cut short ({error}).") from None
        yield Archive(path, io.BytesIO(content))
