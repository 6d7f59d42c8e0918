"""Reading YAML files and overriding their values."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pet_mlip.config import load_config
from pet_mlip.errors import UserError

MINIMAL = "data: {train: a.xyz}\ntraining: {epochs: 3, learning_rate: 1e-3}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL), ["training.weight_decay=2e-5"])
    assert config.training.learning_rate == 1e-3
    assert config.training.weight_decay == 2e-5


def test_overrides_are_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL)
    overrides = [
        "data.root=/data",
        "data.test={hot: h.xyz}",
        "training.epochs=null",
        "training.max_time=00:30:00",
        "symmetrization.closest_pairs.width=0.7",
        "logging.progress=false",
    ]
    config = load_config(path, overrides)
    assert config.data.root == "/data"
    assert config.data.test == {"hot": ["h.xyz"]}
    assert (config.training.epochs, config.training.max_time) == (None, 1800)
    assert config.symmetrization.closest_pairs.width == 0.7
    assert config.logging.progress is False


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "key.path=value"),
        ("=3", "key.path=value"),
        ("training.epochs.x=3", "epochs is a value, not a section"),
        ("training.epohcs=3", "did you mean training.epochs"),
        ("training.epochs=[1", "not valid YAML"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path, MINIMAL), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [1", "line 1.*not valid YAML"),
        ("data: {train: a}\ndata: {train: b}\n", "line 2.*the key data appears twice"),
        ("", "holds no sections"),
        ("- 1\n", "holds no sections"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config(write(tmp_path, text))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no configuration file"):
        load_config(tmp_path / "absent.yaml")
    binary = tmp_path / "model.pt"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="cannot be read as a configuration"):
        load_config(binary)


def test_the_resolved_configuration_is_the_same(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL))
    resolved = write(tmp_path, config.to_yaml())
    assert load_config(resolved) == config
    assert yaml.safe_load(config.to_yaml())["model"]["cutoff"] == config.model.cutoff
