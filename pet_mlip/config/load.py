"""Reading a configuration: YAML, overrides, validation."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pet_mlip.config.base import SectionT
from pet_mlip.config.messages import explain
from pet_mlip.config.schema import Config
from pet_mlip.data.names import split_slice
from pet_mlip.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-3 is a number, and no key may appear twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides such as ``training.epochs=10``, and validate.

    Args:
        path: The file.
        overrides: ``key.path=value`` each, the value being YAML; later ones win.

    Raises:
        UserError: The file is missing or no YAML; or a key or value is wrong, in which case the
            message names each one, what it accepts and the nearest known name.
    """
    tree = read_yaml(path)
    for override in overrides:
        apply_override(tree, override)
    return locate_data(validate(tree, str(path)), Path(path).parent)


def locate_data(config: Config, folder: Path) -> Config:
    """Let ``data.root`` be relative to the configuration's folder if its files are only there."""
    data = config.data
    here, there = Path(data.root), folder / data.root
    if here.is_absolute() or _is_there(here / data.train[0]):
        return config
    if not _is_there(there / data.train[0]):
        return config
    located = data.model_copy(update={"root": str(there)})
    return config.model_copy(update={"data": located})


def _is_there(file: Path) -> bool:
    """Whether there is a file of that name, or any that a pattern matches."""
    path, _ = split_slice(str(file))
    return os.path.isfile(path) or bool(glob.glob(path))


def validate(tree: dict[str, Any], source: str) -> Config:
    """Make a training's configuration from nested dictionaries.

    Args:
        tree: Sections of keys and values, as a YAML file has them.
        source: What messages begin with, such as the name of the file.

    Raises:
        UserError: Naming each wrong key, what it accepts and the nearest known name.
    """
    return validate_as(Config, tree, source)


def validate_as(schema: type[SectionT], tree: dict[str, Any], source: str) -> SectionT:
    """Make a configuration of some kind from nested dictionaries; ``source`` starts messages.

    Raises:
        UserError: Naming each wrong key, what it accepts and the nearest known name.
    """
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, schema)}.") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The nested dictionaries of a YAML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"There is no configuration file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a configuration: {error}.") from None
    tree = _parse(text, str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no sections (data, model, training, ...).")
    return tree


def _parse(text: str, source: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"{source}{where}: not valid YAML: {problem}.") from None


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one value in nested dictionaries from ``key.path=value``, the value being YAML."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f'--set {override}: write it as key.path=value, e.g. "training.epochs=10".')
    for key in keys[:-1]:
        section = tree.setdefault(key, {})
        if section is None:
            section = tree[key] = {}
        if not isinstance(section, dict):
            raise UserError(f"--set {override}: {key} is a value, not a section with keys.")
        tree = section
    tree[keys[-1]] = _parse(text, f"--set {override}")
