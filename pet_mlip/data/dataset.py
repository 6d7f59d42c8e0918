"""A torch data set of structures that remembers their neighbour lists."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from pet_mlip.data.batch import BatchTotals, Sample, label_totals, make_sample
from pet_mlip.data.sampler import SampleRef
from pet_mlip.data.structure import Structure

log = logging.getLogger(__name__)

EdgeList = tuple[NDArray[np.integer], NDArray[np.integer]]

# Below this number of atoms, starting processes takes longer than the neighbour lists do.
ATOMS_PER_PROCESS = 20_000


class AtomsDataset(Dataset[Sample]):
    """Structures with their neighbour lists, which are found once and then remembered.

    The memory for neighbour lists is bounded: what does not fit is found again at every visit (by
    the loader's workers, if there are any).

    Args:
        structures: What to iterate over.
        cutoff: Of the neighbour lists in Å.
        cache_bytes: Memory for neighbour lists, per process.
    """

    def __init__(
        self, structures: Sequence[Structure], cutoff: float, cache_bytes: int = 2 * 2**30
    ) -> None:
        self.structures = list(structures)
        self.cutoff = float(cutoff)
        self.cache_bytes = cache_bytes
        self.cached_bytes = 0
        self._edges: dict[int, EdgeList] = {}

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Atoms of each structure, (S,): what a batch sampler needs."""
        return np.array([structure.n_atoms for structure in self.structures], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, item: int | SampleRef) -> Sample:
        """The sample at an index, or what a batch sampler refers to."""
        ref = item if isinstance(item, SampleRef) else SampleRef(int(item))
        edge_index, shifts = self._edge_list(ref.index)
        structure = self.structures[ref.index]
        return Sample(structure, edge_index, shifts, ref.index, ref.padding, self._totals(ref))

    def __getitems__(self, items: Sequence[int | SampleRef]) -> list[Sample]:
        """Samples of one batch; the totals of the batch are counted once."""
        samples = [self[item] for item in items]
        first = items[0] if items else None
        if isinstance(first, SampleRef) and first.batch:
            totals = self._count(first.batch)
            for sample in samples:
                sample.totals = totals
        return samples

    def prepare(
        self, processes: int = 0, progress: Callable[[int], None] | None = None
    ) -> AtomsDataset:
        """Find neighbour lists up front, as many as the memory allows.

        Loader workers that are forked later share them. Which lists are found does not depend on
        the number of processes.

        Args:
            processes: Number of extra processes; 0 uses this one.
            progress: Called with the number of structures that are done.
        """
        waiting = [i for i in range(len(self)) if i not in self._edges]
        atoms = sum(self.structures[i].n_atoms for i in waiting)
        if processes > 0 and atoms > ATOMS_PER_PROCESS:
            done = self._prepare_in_processes(waiting, processes, progress)
        else:
            done = self._prepare_here(waiting, progress)
        if done < len(waiting):
            log.info(
                "Neighbour lists of %d of %d structures fill the memory set aside for them "
                "(%.1f GB); the others are found anew at every visit.",
                len(self._edges),
                len(self),
                self.cache_bytes / 1e9,
            )
        return self

    def _prepare_here(self, waiting: list[int], progress: Callable[[int], None] | None) -> int:
        for done, index in enumerate(waiting):
            edges = compact_edges(self.structures[index], self.cutoff)
            if not self._remember(index, edges):
                return done
            if progress:
                progress(done + 1)
        return len(waiting)

    def _prepare_in_processes(
        self, waiting: list[int], processes: int, progress: Callable[[int], None] | None
    ) -> int:
        # torch's threads do not survive a fork; the children import only the neighbour search.
        context = get_context("spawn")
        find = partial(compact_edges, cutoff=self.cutoff)
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            found = pool.map(find, [self.structures[i] for i in waiting], chunksize=64)
            for done, (index, edges) in enumerate(zip(waiting, found, strict=True)):
                if not self._remember(index, edges):
                    pool.shutdown(wait=False, cancel_futures=True)
                    return done
                if progress:
                    progress(done + 1)
        return len(waiting)

    def _edge_list(self, index: int) -> EdgeList:
        edges = self._edges.get(index)
        if edges is None:
            edges = compact_edges(self.structures[index], self.cutoff)
            self._remember(index, edges)
        return edges

    def _remember(self, index: int, edges: EdgeList) -> bool:
        size = sum(array.nbytes for array in edges)
        if self.cached_bytes + size > self.cache_bytes:
            return False
        self._edges[index] = edges
        self.cached_bytes += size
        return True

    def _totals(self, ref: SampleRef) -> BatchTotals | None:
        return self._count(ref.batch) if ref.batch else None

    def _count(self, batch: Sequence[int]) -> BatchTotals:
        return label_totals([self.structures[index] for index in batch])


def compact_edges(structure: Structure, cutoff: float) -> EdgeList:
    """Neighbour list (2, E), (E, 3) in the smallest integers that hold it."""
    sample = make_sample(structure, cutoff)
    return _smallest(sample.edge_index), _smallest(sample.shifts)


def _smallest(values: NDArray[np.integer]) -> NDArray[np.integer]:
    largest = int(np.abs(values).max(initial=0))
    for dtype in (np.int8, np.int16, np.int32):
        if largest <= np.iinfo(dtype).max:
            return values.astype(dtype)
    return values
