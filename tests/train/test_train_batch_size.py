"""The batch size that the data decide on."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from rich.console import Console
from train_tools import labelled, tiny_tree

from pet_mlip.config import validate
from pet_mlip.train.setup import load_data, resolve


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (molecule("H2"), 32),  # the largest batch
        (molecule("CH3CH2OH"), 7),  # 63 atoms
        (bulk("Al", cubic=True).repeat(2), 2),
        (bulk("Al", cubic=True).repeat((3, 3, 4)), 1),  # 144 atoms
    ],
)
def test_about_64_atoms(tmp_path: Path, atoms: Atoms, expected: int) -> None:
    write(tmp_path / "train.xyz", [labelled(atoms) for _ in range(3)])
    write(tmp_path / "val.xyz", [labelled(atoms)])
    config = validate(tiny_tree(tmp_path, batch_size="auto"), "a test")
    assert config.training.batch_size == "auto"
    data = load_data(config, Console(quiet=True))
    assert resolve(config, data).training.structures_per_batch == expected
    assert resolve(config, data).training.learning_rate == 4e-3
    assert resolve(config, data, 3).training.structures_per_batch == max(expected, 3)
    fixed = validate(tiny_tree(tmp_path, batch_size=5), "a test")
    assert resolve(fixed, data).training.structures_per_batch == 5
