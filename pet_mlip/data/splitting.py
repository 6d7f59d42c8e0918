"""Setting structures aside for validation and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from pet_mlip.data.structure import Structure
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


def keep_elements(
    training: Sequence[Structure], validation: Sequence[Structure]
) -> tuple[list[Structure], list[Structure], list[int]]:
    """The parts of a random split, with every element in the training part.

    A structure with an element that the training part lacks changes places with one whose elements
    are all in others too, as long as there is one; both parts depend on their order only.

    Returns:
        Training structures, validation structures, and the atomic numbers that were missing.

    Raises:
        UserError: Nothing is left to validate with.
    """
    elements = {id(s): frozenset(s.species.tolist()) for s in (*training, *validation)}
    count = Counter(z for s in training for z in elements[id(s)])
    kept = list(training)
    exchangeable = {id(s) for s in training}
    others: list[Structure] = []
    missing: set[int] = set()
    for structure in validation:
        lacking = [z for z in elements[id(structure)] if count[z] == 0]
        if not lacking:
            others.append(structure)
            continue
        missing.update(lacking)
        kept.append(structure)
        count.update(elements[id(structure)])
        for candidate in kept:
            if id(candidate) in exchangeable and all(count[z] > 1 for z in elements[id(candidate)]):
                kept = [s for s in kept if s is not candidate]
                others.append(candidate)
                count.subtract(elements[id(candidate)])
                break
    if validation and not others:
        raise UserError(
            "Every structure that could validate has an element that no other has; name files for "
            "data.validation, or add structures."
        )
    return kept, others, sorted(missing)
