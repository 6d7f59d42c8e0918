"""A uniform sample of a stream, for plots."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


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
