"""What the sections of the configuration share."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

SectionT = TypeVar("SectionT", bound=BaseModel)


class Section(BaseModel):
    """A part of the configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def exactly_one(*names: str) -> ConfigDict:
    """What a section's JSON schema says of keys of which one must be given."""
    given: list[Any] = [{"required": [n], "properties": {n: {"type": "string"}}} for n in names]
    return ConfigDict(json_schema_extra={"oneOf": given})


def defaults(section: type[SectionT]) -> SectionT:
    """The section with all its defaults (frozen, so that all configurations may share it)."""
    return section.model_validate({})


def as_list(value: Any) -> Any:
    """A list of the one text that stands for it."""
    return [value] if isinstance(value, str) else value


def _number(value: Any) -> Any:
    # pydantic would read true as 1, which nobody means by a number.
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


def _seconds(value: Any) -> Any:
    """Seconds from a number or from text such as ``00:30:00`` (hours, minutes, seconds)."""
    if not isinstance(value, str) or re.fullmatch(r"\d+(\.\d*)?", value):
        return _number(value)
    if not re.fullmatch(r"(\d+:){1,3}\d+(\.\d*)?", value):
        raise ValueError('expected seconds or a time such as "01:30:00" (hours:minutes:seconds)')
    weights = (1, 60, 3600, 86400)
    parts = reversed(value.split(":"))
    return sum(weight * float(part) for weight, part in zip(weights, parts, strict=False))


Files = Annotated[list[str], BeforeValidator(as_list, json_schema_input_type=str | list[str])]
"""One file name or a list of them."""

Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str)]
"""A time span in seconds, written as a number or ``HH:MM:SS``."""

Int = Annotated[int, BeforeValidator(_number)]
"""A whole number (not a truth value)."""

Float = Annotated[float, BeforeValidator(_number)]
"""A number (not a truth value)."""
