"""How much memory a training step takes, and batches in parts that fit into what there is.

Everything that grows is an activation of an attention token: a neighbour of an atom, or the atom.
Frames take little that stays. The gradient of a loss of forces keeps the activations of the
energy, of its derivative, and of the way back through both. A validation needs none of that, and is
evaluated in chunks of a structure's atoms.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from pet_mlip.data.batch import Batch, collate
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.data.sampler import AtomBudgetBatchSampler, SampleRef
from pet_mlip.engine.memory import (
    LARGEST_BYTES,
    LARGEST_SHARE,
    available_memory,
    bytes_per_token,
)
from pet_mlip.engine.potential import Potential
from pet_mlip.engine.precision import Precision
from pet_mlip.errors import UserError
from pet_mlip.graph.graph import count_each
from pet_mlip.train.output import LOG

OF_STEP = 4.6
"""Bytes of a training step for each token, over those that the token's activations take in a
simulation: measured (benchmarks/training_memory.py), right to about a quarter."""
GPU_SHARE = 0.7
"""Of the free memory of a GPU, which nobody else uses."""
REFUSED_SHARE = 0.8
"""Of what is available: an estimate beyond it would end in a kill."""
EXAMINED = 64
"""Structures looked at before the first step: those with the most edges."""


class MemoryBudget:
    """Splits batches so that no part takes more memory than allowed.

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

    def bytes_of(self, tokens: int) -> float:
        """Memory that a training step on structures of so many tokens takes."""
        return self.unit * OF_STEP * tokens

    def split(self, batch: Batch) -> list[Batch]:
        """The batch in parts, of one structure at least, whose steps fit; in its order."""
        return self._split(batch, int(self.allowed / self.bytes_of(1)))

    def split_validation(self, batch: Batch) -> list[Batch]:
        """The batch in parts, of one structure or one chunk of tokens at least; in its order."""
        return self._split(batch, self.chunk_size)

    def _split(self, batch: Batch, limit: int) -> list[Batch]:
        tokens = self.tokens(batch)
        ends: list[int] = []
        total = 0
        for k, size in enumerate(tokens):
            if total and total + size > limit:
                ends.append(k)
                total = 0
            total += size
        if not ends:
            return [batch]
        return [batch.part(a, b) for a, b in pairwise([0, *ends, len(tokens)])]

    def tokens(self, batch: Batch) -> list[int]:
        """Atoms and their neighbours of each structure of a batch."""
        of_edges = batch.structure[batch.graph.edge_index[0]]
        counts = batch.n_atoms + count_each(of_edges, batch.n_structures)
        return [int(n) for n in counts.tolist()]

    def examine(
        self, training: AtomsDataset, batch_size: int, max_atoms: int | None, processes: int = 1
    ) -> None:
        """Say what the largest batch takes, before the first step.

        Args:
            training: To be trained on.
            batch_size: Most structures in a batch.
            max_atoms: Most atoms in a batch, or None.
            processes: That share a batch.

        Raises:
            UserError: The largest structure takes more than there is.
        """
        order = training.largest(max(EXAMINED, batch_size))
        tokens = [self._tokens_of(training, index) for index in order]
        need = self._largest_step(training, order, tokens, batch_size, max_atoms, processes)
        LOG.info(
            "The largest batch takes about %.3g GB of memory%s; %.3g GB are allowed%s.",
            need / 1e9,
            " in each process" if processes > 1 else "",
            self.allowed / 1e9,
            ", so that it is evaluated in parts" if need > self.allowed else "",
        )
        self._check_largest(training, order, tokens)

    def _largest_step(
        self,
        training: AtomsDataset,
        order: list[int],
        tokens: list[int],
        batch_size: int,
        max_atoms: int | None,
        processes: int,
    ) -> float:
        """Bytes that a process takes for its part of a batch of the largest structures."""
        chosen: list[int] = []  # places in the order
        atoms = 0
        for place, index in enumerate(order):
            n_atoms = training.structures[index].n_atoms
            if chosen and max_atoms is not None and atoms + n_atoms > max_atoms:
                continue  # smaller ones may still fit
            chosen.append(place)
            atoms += n_atoms
            if len(chosen) == batch_size:
                break
        of_batch = [training.structures[order[place]].n_atoms for place in chosen]
        need = 0.0
        for rank in range(min(processes, len(chosen))):
            sampler = AtomBudgetBatchSampler(
                of_batch, len(chosen), shuffle=False, rank=rank, world_size=processes
            )
            part = next(iter(sampler))
            need = max(need, self.bytes_of(sum(tokens[chosen[ref.index]] for ref in part)))
        return need

    def _check_largest(self, dataset: AtomsDataset, order: list[int], tokens: list[int]) -> None:
        """Refuse, or warn of, a single structure that takes too much: it cannot be split."""
        costs = [self.bytes_of(count) for count in tokens]
        if not costs or max(costs) <= self.allowed:
            return
        worst = costs.index(max(costs))
        structure = dataset.structures[order[worst]]
        remedies = "a smaller network or cutoff, or structures of fewer atoms"
        sentence = (
            f"Training on {structure.source} ({structure.n_atoms} atoms with {tokens[worst]} "
            f"tokens) takes about {costs[worst] / 1e9:.3g} GB of memory"
        )
        if costs[worst] > REFUSED_SHARE * self.available:
            raise UserError(
                f"{sentence}, and only {self.available / 1e9:.3g} GB are available: it takes "
                f"{remedies}."
            )
        LOG.warning("%s, and cannot be split: for less, give %s.", sentence, remedies)

    def _tokens_of(self, dataset: AtomsDataset, index: int) -> int:
        return self.tokens(collate(dataset.__getitems__([SampleRef(index)])))[0]
