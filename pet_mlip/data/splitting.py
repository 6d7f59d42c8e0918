"""Setting structures aside for validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from pet_mlip.errors import UserError

Item = TypeVar("Item")


def split_by_fraction(
    items: Sequence[Item], fractions: Sequence[float], seed: int
) -> list[list[Item]]:
    """What is left, then one random part per fraction; every part keeps the original order.

    The parts are disjoint and complete, and depend on the number of items and the seed alone. A
    positive fraction gets at least one item.

    Args:
        items: What to split.
        fractions: Of all items, for each part that is set aside.
        seed: Of the random choice.

    Raises:
        UserError: The fractions are not between 0 and 1, or leave nothing.
    """
    if any(not 0 <= fraction < 1 for fraction in fractions) or sum(fractions) >= 1:
        raise UserError(f"Fractions {list(fractions)} must be at least 0 and together below 1.")
    sizes = [max(1, round(f * len(items))) if f > 0 else 0 for f in fractions]
    if sum(sizes) >= len(items):
        raise UserError(
            f"{len(items)} structures are too few to set {sum(sizes)} of them aside for "
            "validation or test; add structures or name files for these sets."
        )
    order = np.random.default_rng(seed).permutation(len(items))
    ends = np.cumsum(sizes)
    parts = np.split(order[: ends[-1]] if sizes else order[:0], ends[:-1]) if sizes else []
    chosen = [order[sum(sizes) :], *parts]
    return [[items[int(i)] for i in np.sort(part)] for part in chosen]
