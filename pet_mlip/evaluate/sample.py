"""Uniform samples of streams."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Item = TypeVar("Item")


class Sample:
    """Up to `size` (reference, prediction) pairs, each of the stream kept with equal probability.

    Args:
        size: Largest number of pairs kept.
        seed: Of the draw.
    """

    def __init__(self, size: int = 5000, seed: int = 0) -> None:
        self.size = size
        self._rng = np.random.default_rng(seed)
        self._keys = np.zeros(0)
        self.pairs: NDArray[np.float64] = np.zeros((0, 2))

    def add(self, predicted: ArrayLike, reference: ArrayLike) -> None:
        """Add predictions with their references, two arrays of one shape."""
        new = np.stack([np.ravel(reference), np.ravel(predicted)], axis=1).astype(np.float64)
        keys = np.concatenate([self._keys, self._rng.random(len(new))])
        pairs = np.concatenate([self.pairs, new])
        if len(keys) > self.size:
            kept = np.argpartition(keys, self.size)[: self.size]
            keys, pairs = keys[kept], pairs[kept]
        self._keys, self.pairs = keys, pairs


class Reservoir(Generic[Item]):
    """Up to `size` items, each of the stream kept with equal probability.

    Args:
        size: Largest number of items kept.
        rng: Draws them.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size = size
        self.items: list[Item] = []
        self._rng = rng
        self._seen = 0

    def add(self, item: Item) -> None:
        """Add the next item of the stream."""
        self._seen += 1
        if len(self.items) < self.size:
            self.items.append(item)
            return
        place = int(self._rng.integers(self._seen))
        if place < self.size:
            self.items[place] = item
