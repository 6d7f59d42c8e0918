"""Reading metatensor's serialized tensor maps: a zip archive of plain numpy arrays."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """One block: values with a row for each sample and, last, a column for each property."""

    values: NDArray[np.generic]
    samples: NDArray[np.generic]
    """A record for each sample; its field names are those of the samples."""
    properties: NDArray[np.generic]
    n_components: int


def read_blocks(content: bytes) -> list[Block]:
    """The blocks of a tensor map; their gradients are left out.

    Args:
        content: As ``metatensor.save_buffer`` makes it.

    Raises:
        ValueError: If it is none.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            n_blocks = len(_array(archive, "keys.npy"))
            return [_block(archive, f"blocks/{i}/") for i in range(n_blocks)]
    except (zipfile.BadZipFile, KeyError, OSError, EOFError, TypeError) as error:
        raise ValueError(f"no tensor map: {error}") from None


def _block(archive: zipfile.ZipFile, prefix: str) -> Block:
    values = _array(archive, prefix + "values.npy")
    return Block(
        values,
        _array(archive, prefix + "samples.npy"),
        _array(archive, prefix + "properties.npy"),
        values.ndim - 2,
    )


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[np.generic]:
    found: NDArray[np.generic] = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
    return found
