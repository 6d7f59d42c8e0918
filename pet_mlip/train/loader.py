"""Batches of a training that can be taken up anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from pet_mlip.config import Config
from pet_mlip.data.batch import Batch, collate
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.data.sampler import AtomBudgetBatchSampler, SampleRef
from pet_mlip.train.schedule import Progress

NAMED_STRUCTURES = 8


class BatchPlan:
    """The batches that are left of the current epoch; a sampler for `DataLoader`.

    It has no length, because the number of batches may differ between epochs.

    Args:
        sampler: Of the training set.
        progress: Read whenever an iteration begins.
    """

    def __init__(self, sampler: AtomBudgetBatchSampler, progress: Progress) -> None:
        self.sampler = sampler
        self.progress = progress
        self.n_batches = sampler.n_batches(progress.epoch)

    def __iter__(self) -> Iterator[list[SampleRef]]:
        self.n_batches = self.sampler.n_batches(self.progress.epoch)
        self.sampler.set_epoch(self.progress.epoch, skip=self.progress.batch)
        return iter(self.sampler)


class Loaders:
    """Makes the loaders of the training and the validation set.

    Args:
        config: Batch limits, seed, number of workers.
        training: The training set.
        validation: The validation set.
    """

    def __init__(self, config: Config, training: AtomsDataset, validation: AtomsDataset) -> None:
        self.config = config
        self.training = training
        self.validation = validation

    def training_loader(
        self, progress: Progress, rank: int, world_size: int, pin_memory: bool
    ) -> tuple[BatchPlan, DataLoader[Batch]]:
        """Plan and loader for the part of one process."""
        sampler = self._sampler(self.training, True, rank, world_size)
        plan = BatchPlan(sampler, progress)
        return plan, self._loader(self.training, plan, pin_memory)

    def validation_loader(self, rank: int, world_size: int, pin_memory: bool) -> DataLoader[Batch]:
        """Loader for the part of one process, in the order of the files."""
        sampler = self._sampler(self.validation, False, rank, world_size)
        return self._loader(self.validation, sampler, pin_memory)

    def names(self, indices: list[int]) -> str:
        """Where the training structures with these indices come from."""
        sources = [str(self.training.structures[i].source) for i in indices if i >= 0]
        more = len(sources) - NAMED_STRUCTURES
        named = "; ".join(sources[:NAMED_STRUCTURES])
        return f"{named}; and {more} more" if more > 0 else named

    def _sampler(
        self, dataset: AtomsDataset, shuffle: bool, rank: int, world_size: int
    ) -> AtomBudgetBatchSampler:
        training = self.config.training
        return AtomBudgetBatchSampler(
            dataset.sizes.tolist(),
            training.structures_per_batch,
            max_atoms=training.max_atoms_per_batch,
            seed=training.seed,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
        )

    def _loader(
        self,
        dataset: AtomsDataset,
        sampler: BatchPlan | AtomBudgetBatchSampler,
        pin_memory: bool,
    ) -> DataLoader[Batch]:
        workers = self.config.data.workers
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=sampler,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # else the global random numbers would move on
        )
