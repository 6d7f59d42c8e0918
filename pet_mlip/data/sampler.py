"""Batches bounded by structures and atoms, the same whatever the number of processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from pet_mlip.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleRef:
    """One structure of a batch."""

    index: int
    """Place in the data set."""
    padding: bool = False
    """A repetition for a rank that would have nothing to do; its labels do not count."""
    batch: tuple[int, ...] = ()
    """All structures of the global batch."""


class AtomBudgetBatchSampler(Sampler[list[SampleRef]]):
    """Batches of at most ``max_structures`` structures and at most ``max_atoms`` atoms.

    Both limits hold for the global batch, which is the same for every number of ranks; each rank
    gets a part of it, balanced by atoms, and every rank gets the same number of batches. No
    structure is ever left out; one with more atoms than the limit is a batch of its own. The order
    depends on the seed and the epoch alone.

    Args:
        sizes: Atoms of each structure.
        max_structures: Most structures in a global batch.
        max_atoms: Most atoms in a global batch; None for no limit.
        seed: Of the order.
        shuffle: Whether to draw a new order every epoch.
        rank: Number of this process.
        world_size: Number of processes.

    Raises:
        UserError: A limit is not positive.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        max_structures: int,
        max_atoms: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if max_structures < 1 or (max_atoms is not None and max_atoms < 1):
            raise UserError("A batch must be allowed at least one structure and one atom.")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0..{world_size - 1}")
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.max_structures = max_structures
        self.max_atoms = max_atoms
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.skip = 0
        self._made: tuple[int, list[tuple[int, ...]]] | None = None
        self._say_what_is_too_large()

    def set_epoch(self, epoch: int, skip: int = 0) -> None:
        """Choose the epoch, and how many of its batches to leave out (done before a restart)."""
        self.epoch = epoch
        self.skip = skip

    def __len__(self) -> int:
        return max(len(self.global_batches(self.epoch)) - self.skip, 0)

    def __iter__(self) -> Iterator[list[SampleRef]]:
        for batch in self.global_batches(self.epoch)[self.skip :]:
            yield self._part(batch)

    def n_batches(self, epoch: int) -> int:
        """Number of batches of an epoch, for every rank."""
        return len(self.global_batches(epoch))

    def global_batches(self, epoch: int) -> list[tuple[int, ...]]:
        """All batches of an epoch over all ranks."""
        if self._made is None or self._made[0] != epoch:
            self._made = (epoch, self._make_batches(epoch))
        return self._made[1]

    def _make_batches(self, epoch: int) -> list[tuple[int, ...]]:
        batches: list[tuple[int, ...]] = []
        current: list[int] = []
        atoms = 0
        for index in self._order(epoch):
            size = int(self.sizes[index])
            full = len(current) == self.max_structures
            heavy = self.max_atoms is not None and atoms + size > self.max_atoms
            if current and (full or heavy):
                batches.append(tuple(current))
                current, atoms = [], 0
            current.append(index)
            atoms += size
        if current:
            batches.append(tuple(current))
        return batches

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(range(len(self.sizes)))
        generator = np.random.default_rng([self.seed, epoch])
        return [int(index) for index in generator.permutation(len(self.sizes))]

    def _part(self, batch: tuple[int, ...]) -> list[SampleRef]:
        """This rank's structures of a global batch, in the order of the batch."""
        if self.world_size == 1:
            return [SampleRef(index, False, batch) for index in batch]
        mine = set(self._distribute(batch)[self.rank])
        if not mine:
            smallest = min(batch, key=lambda index: (self.sizes[index], index))
            return [SampleRef(smallest, True, batch)]
        return [SampleRef(index, False, batch) for index in batch if index in mine]

    def _distribute(self, batch: tuple[int, ...]) -> list[list[int]]:
        """Largest structures first, each to the rank with the fewest atoms so far."""
        parts: list[list[int]] = [[] for _ in range(self.world_size)]
        load = [0] * self.world_size
        for index in sorted(batch, key=lambda index: (-self.sizes[index], index)):
            rank = min(range(self.world_size), key=lambda rank: (load[rank], rank))
            parts[rank].append(index)
            load[rank] += int(self.sizes[index])
        return parts

    def _say_what_is_too_large(self) -> None:
        if self.max_atoms is None or self.rank > 0:
            return
        large = int((self.sizes > self.max_atoms).sum())
        if large:
            log.info(
                "%d structure(s) with more than %d atoms per batch (up to %d) are batches of "
                "their own.",
                large,
                self.max_atoms,
                int(self.sizes.max()),
            )
