"""The configurations that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pet_mlip.config import Config, load_config, reference_yaml
from pet_mlip.config.messages import walk

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads(path: Path) -> None:
    config = load_config(path, ["data.root=/elsewhere"])
    assert config.data.root == "/elsewhere"
    assert all(not Path(file).is_absolute() for file in config.data.train)


def test_all_benchmark_sets_are_there() -> None:
    names = {path.stem for path in FILES}
    wanted = {"acac", "3bpa", "ch4", "nbmotaw", "ta_snap", "water"}
    wanted |= {"minimal", "reference", "finetune"}
    wanted |= {f"rmd17_{name}" for name in ("aspirin", "ethanol", "malonaldehyde")}
    wanted |= {f"mlearn_{name}" for name in ("Si", "Li", "Mo", "Cu", "Ni")}
    assert wanted <= names


def test_the_reference_is_up_to_date() -> None:
    text = (FOLDER / "reference.yaml").read_text(encoding="utf-8")
    assert text == reference_yaml(), "run python -m pet_mlip.config > configs/reference.yaml"


def test_the_reference_has_every_key_with_its_default() -> None:
    tree = yaml.safe_load(reference_yaml())
    config = load_config(FOLDER / "reference.yaml")
    for path, field in walk(Config):
        node = tree
        for key in path.split("."):
            assert key in node, f"{path} is not in the reference"
            node = node[key]
        assert field.description, f"{path} has no description"
    defaults = Config.model_validate(
        {"data": {"train": "train.xyz"}, "training": {"epochs": config.training.epochs}}
    )
    assert config == defaults


def test_the_minimal_configuration_is_minimal() -> None:
    assert len((FOLDER / "minimal.yaml").read_text().splitlines()) <= 16


def test_data_beside_the_configuration_may_have_an_at_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    text = 'data: {train: "%s", validation: 0.1}\ntraining: {epochs: 1}\n'
    monkeypatch.chdir(tmp_path)
    for name, asked in (
        ("data@v2.xyz", "data@v2.xyz"),
        ("data@300K.xyz", "data@300K.xyz@:5"),
        ("a@1:2", "a@1:2"),
        ("b.xyz", "b.xyz@::2"),
        ("c[1].xyz", "c[1].xyz"),
    ):
        (project / "run.yaml").write_text(text % asked)
        assert load_config("project/run.yaml").data.root == "."
        (project / name).touch()
        assert load_config("project/run.yaml").data.root == "project", asked
        (project / name).unlink()
    (project / "data.xyz").touch()  # is not what data@v2.xyz asks for
    (project / "data").touch()
    (project / "run.yaml").write_text(text % "data@v2.xyz")
    assert load_config("project/run.yaml").data.root == "."
