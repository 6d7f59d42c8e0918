"""Mistakes in a configuration become sentences."""

from __future__ import annotations

from typing import Any

import pytest

from pet_mlip.config import Config, validate
from pet_mlip.errors import UserError


def configure(path: str = "", value: Any = None) -> Config:
    """A valid configuration with one key changed."""
    tree: dict[str, Any] = {"data": {"train": "a.xyz"}, "training": {"epochs": 3}}
    *sections, key = path.split(".")
    node = tree
    for section in sections:
        node = node.setdefault(section, {})
    if path:
        node[key] = value
    return validate(tree, "run.yaml")


@pytest.mark.parametrize(
    ("path", "value", "sentences"),
    [
        ("training.epoch", 3, ["unknown key training.epoch", "did you mean training.epochs?"]),
        ("learning_rate", 1, ["unknown key learning_rate", "did you mean training.learning_rate?"]),
        ("model.cutof", 4, ["unknown key model.cutof", "did you mean model.cutoff?", "d_pet"]),
        ("symmetrization.closest_pairs.axis", 1, ["symmetrization.closest_pairs.axis_cost?"]),
        ("training.epochs", "many", ["training.epochs is 'many'", "a whole number"]),
        ("training.epochs", 0, ["training.epochs is 0", "greater than 0"]),
        ("training.epochs", True, ["training.epochs is true", "a whole number"]),
        ("training.learning_rate", 0, ["learning_rate is 0", "a number greater than 0 or auto"]),
        ("training.batch_size", 0, ["batch_size is 0", "a whole number greater than 0 or auto"]),
        ("training.learning_rate", False, ["training.learning_rate is false", "a number"]),
        ("training.precision", "float23", ["float32, float64 or tf32", "did you mean float32?"]),
        ("training.devices", "all", ["training.devices is 'all'", "a whole number or auto"]),
        ("training.max_time", "soon", ["training.max_time", "01:30:00", "not 'soon'"]),
        ("training.betas", [1], ["training.betas is [1]", "a list of 2 numbers"]),
        ("training.loss.forces", -1, ["training.loss.forces is -1", "a number at least 0"]),
        ("model.cutoff_function", "bump", ["Bump or Cosine", "did you mean Bump?"]),
        ("model.d_pet", 66, ["model: d_pet (66) must be a multiple of num_heads (4)"]),
        ("model", 3, ["model must be a section with keys, not 3"]),
        ("data.train", 3, ["data.train is 3", "one or several file names"]),
        ("data.validation", 2.0, ["validation (2.0) must lie between 0 and 1"]),
        ("data.baseline", "zero", ["least_squares, keep or elements with energies"]),
        ("data.baseline", "keep", ["data.baseline: keep is for fine-tuning", "init_from"]),
        ("training.freeze", "heads", ["freeze is for fine-tuning", "init_from"]),
        ("training.freeze", ["head"], ["one or several of embeddings, layers, heads, backbone"]),
        ("training.add_species", True, ["add_species is for fine-tuning"]),
        ("data.test", ["a/t.xyz", "b/t.xyz"], ["equal names"]),
        ("symmetrization.train", "strcture", ["did you mean structure?"]),
        ("symmetrization.train", "sample", ["'sample' but must be structure or full"]),
        ("model.results", ["dipol"], ["dipol is none of dipole, polarizability"]),
        ("model.results", ["forces"], ["forces means something else already"]),
        ("model.results", {"x": {"rank": 3}}, ["x: rank 3 is no rank, which is 0 (scalar)"]),
        ("model.results", {"x": {"rank": 0, "units": "e"}}, ["units 'e' is no key of a result"]),
        ("model.results", {"a b": {"rank": 0}}, ["'a b' is no name"]),
        (
            "training.loss.results",
            {"dipole": -1},
            ["the weight of dipole must be a number at least 0"],
        ),
    ],
)
def test_a_mistake_is_one_sentence(path: str, value: Any, sentences: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        configure(path, value)
    message = str(caught.value)
    assert message.startswith("run.yaml: ")
    assert "\n" not in message
    for sentence in sentences:
        assert sentence in message


def test_missing_sections_and_limits() -> None:
    with pytest.raises(UserError, match="data is missing"):
        validate({"training": {"epochs": 1}}, "run.yaml")
    with pytest.raises(UserError, match=r"data.train is missing: Training files"):
        validate({"data": {}, "training": {"epochs": 1}}, "run.yaml")
    with pytest.raises(UserError, match=r"set epochs .* max_time .* or both"):
        validate({"data": {"train": "a"}, "training": {}}, "run.yaml")


def test_every_mistake_is_told() -> None:
    with pytest.raises(UserError) as caught:
        validate({"data": {"trian": "a"}, "training": {"epochs": "x"}}, "run.yaml")
    message = str(caught.value)
    assert "data.train is missing" in message
    assert "unknown key data.trian (did you mean data.train?)" in message
    assert "training.epochs is 'x'" in message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(90, 90), ("90", 90), ("00:01:30", 90), ("1:30", 90), ("1:00:00:00", 86400)],
)
def test_times(value: Any, seconds: float) -> None:
    assert configure("training.max_time", value).training.max_time == seconds


def test_files_have_names() -> None:
    assert configure("data.train", "a.xyz").data.train == ["a.xyz"]
    assert configure("data.validation", "v.xyz").data.validation == ["v.xyz"]
    assert configure("data.test", "x/t.xyz.gz").data.test == {"t": ["x/t.xyz.gz"]}
    assert configure("data.test", {"hot": ["a", "b"]}).data.test == {"hot": ["a", "b"]}
    assert configure("data.baseline", {"H": -13}).data.baseline == {"H": -13.0}
