"""The JSON schema of a configuration, by which editors complete keys and mark mistakes."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(schema: type[BaseModel], title: str) -> str:
    """Write the JSON schema of a kind of configuration.

    It accepts what the loader accepts, in each of the forms in which a key may be written, but for
    rules that connect keys with each other, most of which only the loader knows.

    Args:
        schema: The kind.
        title: What editors show.
    """
    tree = {"$schema": DIALECT, **_translated(schema.model_json_schema()), "title": title}
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
"""What pydantic leaves in its own words behind a validator."""


def _translated(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_translated(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    return {BOUNDS.get(key, key): _translated(value) for key, value in tree.items()}
