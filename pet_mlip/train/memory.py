"""How much memory a training step takes, and batches in parts that fit into what there is.

Everything that grows is an activation: of each attention token (a frame's row of neighbours, padded
to the longest, and the centre) and of each edge. The gradient of a loss of forces keeps those of
the energy, of its derivative, and of the way back through both. A validation needs none of that,
and is evaluated in chunks of a structure's atoms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pet_mlip.data.batch import Batch, collate
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.data.sampler import SampleRef
from pet_mlip.errors import UserError
from pet_mlip.engine.memory import (
    LARGEST_BYTES,
    LARGEST_SHARE,
    available_memory,
    bytes_per_token,
)
from pet_mlip.engine.precision import Precision
from pet_mlip.model.graph import count_each
from pet_mlip.engine.potential import Potential
from pet_mlip.train.output import LOG

# Bytes of a training step, for each token and for each edge, over those that a token's activations
# take at inference: measured (benchmarks/training_memory.py), right to about a quarter.
OF_TOKEN, OF_EDGE = 4.6, 2.2
GPU_SHARE = 0.7
"""Of the free memory of a GPU, which nobody else uses."""
REFUSED_SHARE = 0.8
"""Of what is available: an estimate beyond it would end in a kill."""
EXAMINED = 64
"""Structures whose frames are counted before the first step: those with the most edges."""


@dataclass
class Size:
    """What the memory for some structures depends on."""

    frames: int = 0
    """Of all their atoms."""
    width: int = 0
    """Tokens of a frame: the most neighbours of an atom, and the atom."""
    edges: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(
            self.frames + other.frames, max(self.width, other.width), self.edges + other.edges
        )


class MemoryBudget:
    """Splits batches so that no part takes more memory than allowed.

    Frames of a structure are counted when it is first seen, and remembered.

    Args:
        potential: The model in training.
        gigabytes: Allowed for a step, per process; None for a quarter of what is available.
        device: Where the model is.
        processes: That share the memory of the machine.
    """

    def __init__(
        self,
        potential: Potential,
        gigabytes: float | None,
        device: torch.device,
        processes: int = 1,
    ) -> None:
        self.potential = potential
        precision = next(potential.pet.parameters()).dtype
        name: Precision = "float64" if precision == torch.float64 else "float32"
        self.unit = bytes_per_token(potential.pet_hypers, name)
        if device.type == "cuda":
            self.available: float = torch.cuda.mem_get_info(device)[0]
            share = GPU_SHARE
        else:
            self.available = available_memory() / processes
            share = LARGEST_SHARE
        self.allowed = share * self.available if gigabytes is None else 1e9 * gigabytes
        self.chunk_size = max(int(min(self.allowed, LARGEST_BYTES) / self.unit), 1024)
        """Tokens that a validation may hold at once."""
        self._frames: dict[tuple[bool, int], int] = {}

    def bytes_of(self, size: Size) -> float:
        """Memory that a training step on structures of a size takes."""
        return self.unit * (OF_TOKEN * size.frames * size.width + OF_EDGE * size.edges)

    def split(self, batch: Batch) -> list[Batch]:
        """The batch in parts, of one structure at least, whose steps fit; in its order."""
        return self._split(batch, False, lambda part: self.bytes_of(part) <= self.allowed)

    def split_validation(self, batch: Batch) -> list[Batch]:
        """The batch in parts, of one structure or one chunk of tokens at least; in its order."""
        return self._split(batch, True, lambda part: part.frames * part.width <= self.chunk_size)

    def _split(self, batch: Batch, validating: bool, fits: Callable[[Size], bool]) -> list[Batch]:
        sizes = self.sizes(batch, validating)
        ends: list[int] = []
        part = Size()
        for k, size in enumerate(sizes):
            if part.frames and not fits(part + size):
                ends.append(k)
                part = Size()
            part = part + size
        if not ends:
            return [batch]
        bounds = [0, *ends, len(sizes)]
        return [batch.part(a, b) for a, b in pairwise(bounds)]

    def sizes(self, batch: Batch, validating: bool = False) -> list[Size]:
        """Of each structure of a batch, in the frames of a training step or of a validation."""
        n_structures = batch.n_structures
        neighbours = count_each(batch.graph.edge_index[0], len(batch.structure))
        widths = torch.zeros_like(batch.n_atoms).scatter_reduce(
            0, batch.structure, neighbours + 1, "amax"
        )
        edges = torch.zeros_like(batch.n_atoms).index_add(0, batch.structure, neighbours)
        frames = self._count_frames(batch, validating)
        return [
            Size(*values) for values in zip(frames, widths.tolist(), edges.tolist(), strict=True)
        ][:n_structures]

    def _count_frames(self, batch: Batch, validating: bool) -> list[int]:
        if not (validating or self.potential.symmetrization.train == "full"):
            return [int(n) for n in batch.n_atoms.tolist()]  # one for each atom and layer
        keys = [(validating, int(index)) for index in batch.index.tolist()]
        if any(key not in self._frames for key in keys):
            of_atoms = self.potential.count_frames(batch.graph)
            of_structures = torch.zeros_like(batch.n_atoms).index_add(0, batch.structure, of_atoms)
            self._frames.update(zip(keys, of_structures.tolist(), strict=True))
        return [self._frames[key] for key in keys]

    def examine(self, training: AtomsDataset, batch_size: int, max_atoms: int | None) -> None:
        """Say what the largest batch takes, before the first step.

        Args:
            training: To be trained on.
            batch_size: Most structures in a batch.
            max_atoms: Most atoms in a batch, or None.

        Raises:
            UserError: The largest structure takes more than there is.
        """
        order = training.largest(EXAMINED)
        sizes = [self._size_of(training, index) for index in order]
        batch, atoms = Size(), 0
        for index, size in zip(order[:batch_size], sizes, strict=False):
            atoms += training.structures[index].n_atoms
            if batch.frames and max_atoms is not None and atoms > max_atoms:
                break
            batch = batch + size
        need = self.bytes_of(batch)
        LOG.info(
            "The largest batch takes about %.3g GB of memory; %.3g GB are allowed%s.",
            need / 1e9,
            self.allowed / 1e9,
            ", so that it is evaluated in parts" if need > self.allowed else "",
        )
        self._check_largest(training, order, sizes)

    def _check_largest(self, dataset: AtomsDataset, order: list[int], sizes: list[Size]) -> None:
        """Refuse, or warn of, a single structure that takes too much: it cannot be split."""
        costs = [self.bytes_of(size) for size in sizes]
        if not costs or max(costs) <= self.allowed:
            return
        worst = costs.index(max(costs))
        structure, size = dataset.structures[order[worst]], sizes[worst]
        remedies = (
            "fewer frames (symmetrization.ensemble: closest_pairs, or symmetrization.train: "
            "environment), a smaller network or cutoff, or structures of fewer atoms"
        )
        sentence = (
            f"Training on {structure.source} ({structure.n_atoms} atoms in {size.frames} frames of "
            f"up to {size.width} tokens) takes about {costs[worst] / 1e9:.3g} GB of memory"
        )
        if costs[worst] > REFUSED_SHARE * self.available:
            raise UserError(
                f"{sentence}, and only {self.available / 1e9:.3g} GB are available: it takes "
                f"{remedies}."
            )
        LOG.warning("%s, and cannot be split: for less, give %s.", sentence, remedies)

    def _size_of(self, dataset: AtomsDataset, index: int) -> Size:
        batch = collate(dataset.__getitems__([SampleRef(index)]))
        device: Tensor = self.potential.composition
        return self.sizes(batch.to(device.device))[0]
