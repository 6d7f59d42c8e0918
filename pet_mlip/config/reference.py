"""The commented reference configuration, written from the schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pet_mlip.config.messages import expected
from pet_mlip.config.schema import Config

HEADER = """\
Every key of a pet_mlip configuration with its default. Only data.train and one of training.epochs
and training.max_time are needed: see minimal.yaml.
"""


def reference_yaml() -> str:
    """``configs/reference.yaml``: every key with its description, type and default."""
    lines = [*_comment(HEADER, ""), *_section(Config, "")]
    return "\n".join(lines) + "\n"


def _section(schema: type[BaseModel], indent: str) -> Iterator[str]:
    for name, field in schema.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if not indent:
                yield ""
            yield from _comment(field.description or "", indent)
            yield f"{indent}{name}:"
            yield from _section(annotation, indent + "  ")
        else:
            yield from _comment(f"{field.description or ''} ({expected(field)})", indent)
            yield f"{indent}{name}: {_flow(_example(field, name))}"


def _example(field: FieldInfo, name: str) -> Any:
    if name == "epochs":  # the reference has to be a valid configuration
        return 500
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        value = field.examples[0] if field.examples else None
    return list(value) if isinstance(value, tuple) else value


def _flow(value: Any) -> str:
    if isinstance(value, str) and value.replace("_", "").replace(".", "").isalnum():
        return value
    return json.dumps(value, ensure_ascii=False)


def _comment(text: str, indent: str) -> list[str]:
    prefix = f"{indent}# "
    return textwrap.wrap(text, 100, initial_indent=prefix, subsequent_indent=prefix)
