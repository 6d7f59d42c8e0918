"""Two processes train as one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from test_train_resume import start
from train_tools import tiny_tree

from pet_mlip.train.checkpoint import read_checkpoint
from pet_mlip.train.output import MetricsTable


@pytest.mark.slow
@pytest.mark.parametrize(("ensemble", "mode"), [("closest_pairs", "full"), ("none", "structure")])
def test_two_processes_are_one(data: Path, tmp_path: Path, ensemble: str, mode: str) -> None:
    """Batches of 3 leave one process with less than the other, and once with nothing."""
    for devices in (1, 2):
        tree = tiny_tree(
            data, epochs=2, batch_size=3, precision="float64", devices=devices, learning_rate=1e-3
        )
        tree["symmetrization"] = {"ensemble": ensemble, "train": mode}
        config = tmp_path / f"{devices}.yaml"
        config.write_text(yaml.safe_dump(tree))
        process = start(config, tmp_path / str(devices))
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
    tables = [MetricsTable(tmp_path / name / "metrics.csv").rows() for name in "12"]
    assert len(tables[0]) == len(tables[1]) == 2
    for rows in zip(*tables, strict=True):
        for name, value in rows[0].items():
            if name != "elapsed":
                assert rows[1][name] == pytest.approx(value, rel=1e-6, nan_ok=True), name
    weights = [read_checkpoint(tmp_path / name / "last.ckpt")["weights"] for name in "12"]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-6, atol=1e-9)
