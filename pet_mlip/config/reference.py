"""The commented reference configuration, written from the schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
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
    """Write ``configs/reference.yaml``: every key with its description, type and default."""
    # The reference has to be a valid configuration.
    return reference_of(Config, HEADER, {"epochs": 500})


def reference_of(schema: type[BaseModel], header: str, needed: Mapping[str, Any]) -> str:
    """Every key of a kind of configuration with its description, type and default, as YAML.

    Args:
        schema: The kind.
        header: Comment at the top.
        needed: Values by the name of the key, of what has no default, or one that does not do.
    """
    lines = [*_comment(header, ""), *_section(schema, "", needed)]
    return "\n".join(lines) + "\n"


def _section(schema: type[BaseModel], indent: str, needed: Mapping[str, Any]) -> Iterator[str]:
    for name, field in schema.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if not indent:
                yield ""
            yield from _comment(field.description or "", indent)
            yield f"{indent}{name}:"
            yield from _section(annotation, indent + "  ", needed)
        else:
            yield from _comment(f"{field.description or ''} ({expected(field)})", indent)
            value = needed[name] if name in needed else _example(field)
            yield f"{indent}{name}: {_flow(value)}"


def _example(field: FieldInfo) -> Any:
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
