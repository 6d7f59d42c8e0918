"""Data that the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.io import write
from train_tools import structures


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with train.xyz, val.xyz and molecules.xyz."""
    folder = tmp_path_factory.mktemp("data")
    write(folder / "train.xyz", structures(20, 0))
    write(folder / "val.xyz", structures(6, 1))
    write(folder / "molecules.xyz", structures(20, 2)[::2])
    return folder


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out export and report, which take longer than the training of a tiny model."""
    monkeypatch.setattr("pet_mlip.train.run.finish", lambda *_: None)


@pytest.fixture
def only_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, for tests of the model that is exported."""
    monkeypatch.setattr("pet_mlip.train.run.write_report", lambda *_: None)
