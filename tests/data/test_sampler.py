"""Batches within a budget, the same for any number of processes."""

from __future__ import annotations

import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_mlip.data.sampler import AtomBudgetBatchSampler
from pet_mlip.errors import UserError

SIZES = st.lists(st.integers(1, 40), min_size=0, max_size=60)


@given(
    sizes=SIZES,
    max_structures=st.integers(1, 8),
    max_atoms=st.one_of(st.none(), st.integers(1, 100)),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_budget_and_completeness(sizes, max_structures, max_atoms, seed, epoch, shuffle):
    sampler = AtomBudgetBatchSampler(sizes, max_structures, max_atoms, seed, shuffle)
    sampler.set_epoch(epoch)
    batches = [[ref.index for ref in refs] for refs in sampler]
    assert len(batches) == len(sampler) == sampler.n_batches(epoch)
    flat = [index for batch in batches for index in batch]
    assert sorted(flat) == list(range(len(sizes)))
    assert shuffle or flat == list(range(len(sizes)))
    for batch in batches:
        assert 1 <= len(batch) <= max_structures
        if max_atoms is not None and len(batch) > 1:
            assert sum(sizes[index] for index in batch) <= max_atoms


@given(
    sizes=SIZES,
    max_structures=st.integers(1, 8),
    max_atoms=st.integers(10, 100),
    world_size=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
def test_ranks_share_the_batches_of_one_process(
    sizes, max_structures, max_atoms, world_size, epoch
):
    def batches(rank, world_size):
        sampler = AtomBudgetBatchSampler(
            sizes, max_structures, max_atoms, seed=3, rank=rank, world_size=world_size
        )
        sampler.set_epoch(epoch)
        return list(sampler)

    single = batches(0, 1)
    ranks = [batches(rank, world_size) for rank in range(world_size)]
    assert {len(rank) for rank in ranks} == {len(single)}
    for expected, *parts in zip(single, *ranks, strict=True):
        indices = [ref.index for ref in expected]
        shared = [ref.index for part in parts for ref in part if not ref.padding]
        assert sorted(shared) == sorted(indices)
        for part in parts:
            assert part
            assert all(list(ref.batch) == indices for ref in part)
        loads = [sum(sizes[ref.index] for ref in part if not ref.padding) for part in parts]
        assert max(loads) - min(loads) <= max(sizes[index] for index in indices)


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = AtomBudgetBatchSampler([3] * 50, 4, 100, seed)
        sampler.set_epoch(epoch)
        return [ref.index for refs in sampler for ref in refs]

    assert order(1, 2) == order(1, 2)
    orders = {tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_a_restart_skips_what_is_done():
    sampler = AtomBudgetBatchSampler([3] * 50, 4, 100, seed=1)
    sampler.set_epoch(5)
    everything = list(sampler)
    sampler.set_epoch(5, skip=4)
    assert list(sampler) == everything[4:]
    assert len(sampler) == len(everything) - 4
    sampler.set_epoch(6)
    assert len(sampler) == len(everything)


def test_large_structures_are_kept_and_told_once(caplog):
    with caplog.at_level(logging.INFO):
        sampler = AtomBudgetBatchSampler([5, 500, 5, 700], 4, 100, shuffle=False)
        assert sampler.global_batches(0) == [(0,), (1,), (2,), (3,)]
        list(sampler)
    assert len(caplog.records) == 1
    assert "2 structure(s) with more than 100 atoms per batch (up to 700)" in caplog.text


def test_samples_can_be_sent_to_workers():
    refs = next(iter(AtomBudgetBatchSampler([1, 2], 2)))
    assert pickle.loads(pickle.dumps(refs)) == refs


def test_limits_are_checked():
    with pytest.raises(UserError, match="at least one structure"):
        AtomBudgetBatchSampler([1], 0, 10)
    with pytest.raises(UserError, match="at least one structure"):
        AtomBudgetBatchSampler([1], 1, 0)
    with pytest.raises(ValueError, match="rank 2"):
        AtomBudgetBatchSampler([1], 1, 1, rank=2, world_size=2)
