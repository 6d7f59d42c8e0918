"""Checkpoints: atomic, safe to load, and one sentence for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from train_tools import TINY

from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.train import load_checkpoint
from pet_mlip.train.checkpoint import read_checkpoint, write_checkpoint


def content(potential: Potential) -> dict[str, Any]:
    return {
        "config": {"model": TINY},
        "summary": {"epoch": 3},
        "potential": potential.config(),
        "dtype": "float64",
        "weights": potential.state_dict(),
        "average": potential.state_dict(),
    }


@pytest.fixture
def potential() -> Potential:
    potential = Potential([1, 8], PETHypers(**TINY), SymmetrizationHypers()).set_dtype(
        torch.float64
    )
    potential.set_baseline({1: -1.0, 8: -2.0}, 3.0)
    return potential


def test_the_potential_comes_back(tmp_path: Path, potential: Potential) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, content(potential))
    loaded, config, summary = load_checkpoint(path)
    assert (config, summary) == ({"model": TINY}, {"epoch": 3})
    assert loaded.config() == potential.config()
    for name, value in potential.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
        assert loaded.state_dict()[name].dtype == value.dtype, name
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_loading_does_not_disturb_random_numbers(tmp_path: Path, potential: Potential) -> None:
    write_checkpoint(tmp_path / "a.ckpt", content(potential))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(torch.rand(3), expected)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, potential: Potential) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, content(potential))
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"pickle|local object"):
        write_checkpoint(path, {"bad": lambda: None})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("part", [0, 10, 0.3, 0.9])
def test_a_file_cut_short(tmp_path: Path, potential: Potential, part: float) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, content(potential))
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data) if part < 1 else part)])
    with pytest.raises(UserError, match=r"last.ckpt is no pet_mlip checkpoint, or it is cut short"):
        load_checkpoint(path)


def test_a_damaged_file(tmp_path: Path, potential: Potential) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, content(potential))
    data = bytearray(path.read_bytes())
    data[: len(data) // 2] = bytes(len(data) // 2)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"last.ckpt is (damaged|no pet_mlip checkpoint)"):
        load_checkpoint(path)


def test_other_files(tmp_path: Path, potential: Potential) -> None:
    with pytest.raises(UserError, match="There is no checkpoint"):
        load_checkpoint(tmp_path / "absent.ckpt")
    with pytest.raises(UserError, match="There is no checkpoint"):
        load_checkpoint(tmp_path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UserError, match="no pet_mlip checkpoint"):
        load_checkpoint(tmp_path / "text")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="another program"):
        load_checkpoint(tmp_path / "other.ckpt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / "model.pt")
    with pytest.raises(UserError, match="is an exported model"):
        load_checkpoint(tmp_path / "model.pt")
    write_checkpoint(tmp_path / "new.ckpt", {"format_version": 99, "package_version": "9.0"})
    with pytest.raises(UserError, match=r"written by pet_mlip 9.0.*upgrade"):
        read_checkpoint(tmp_path / "new.ckpt")


@pytest.mark.parametrize("converted", [False, True])
def test_checkpoints_of_another_network(
    tmp_path: Path, potential: Potential, converted: bool
) -> None:
    """As written before the average over frames moved into the embedding, and by format 2."""
    old = content(potential) | {"format_version": 2}
    if converted:
        old["summary"] = {"converted_from": {"file": "pet.ckpt"}}
    write_checkpoint(tmp_path / "old.ckpt", old)
    remedy = "convert metatrain's checkpoint again" if converted else "train again"
    with pytest.raises(UserError, match=rf"^\S*old.ckpt was written by .* network .*; {remedy}\.$"):
        load_checkpoint(tmp_path / "old.ckpt")
