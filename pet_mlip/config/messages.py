"""Validation errors as sentences: the key's path, what is allowed, the nearest known name."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

NAMES = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "null",
}
BOUNDS = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}


def explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """One sentence per mistake, each starting with the path of the key."""
    sentences: dict[str, str] = {}
    for details in error.errors(include_url=False):
        path, field = _locate(schema, details["loc"])
        # The members of a union fail one by one; the field as a whole is what the user wrote.
        sentences.setdefault(".".join(path), _sentence(details, path, field, schema))
    return ".\n  ".join(sentences.values())


def _locate(
    schema: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[list[str], FieldInfo | None]:
    """The part of an error's location that a user wrote, and the last known field on it."""
    path: list[str] = []
    section: type[BaseModel] | None = schema
    field: FieldInfo | None = None
    for key in location:
        if section is None:
            break
        path.append(str(key))
        field = section.model_fields.get(str(key))
        section = _section(field) if field else None
    return path, field


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field is, or may be."""
    for member in _members(field.annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            return member
    return None


def _sentence(
    details: Any, path: list[str], field: FieldInfo | None, schema: type[BaseModel]
) -> str:
    name = ".".join(path)
    if details["type"] == "extra_forbidden":
        return _unknown(path, schema)
    if details["type"] == "missing" and len(path) == len(details["loc"]):
        return f"{name} is missing: {field.description if field else ''}".rstrip(".: ")
    if field is None or _section(field) is not None:
        message = details["msg"].removeprefix("Value error, ")
        if details["type"] == "value_error":
            return f"{name}: {message}" if name else message
        return f"{name} must be a section with keys, not {details['input']!r}"
    value = details["input"]
    if details["type"] == "value_error" and not isinstance(value, bool):
        return f"{name}: " + details["msg"].removeprefix("Value error, ") + f", not {value!r}"
    hint = nearest(value, _choices(field.annotation)) if isinstance(value, str) else ""
    return f"{name} is {_yaml(value)} but must be {expected(field)}{hint}"


def _yaml(value: Any) -> str:
    """The value as it stands in the file."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return repr(value)


def _unknown(path: list[str], schema: type[BaseModel]) -> str:
    section: type[BaseModel] = schema
    for key in path[:-1]:
        section = _section(section.model_fields[key]) or section
    prefix = ".".join(path[:-1])
    known = {name: f"{prefix}.{name}".lstrip(".") for name in section.model_fields}
    elsewhere = {name.rpartition(".")[2]: name for name, _ in walk(schema)}
    hint = nearest(path[-1], known) or nearest(path[-1], elsewhere, cutoff=0.75)
    where = f"the keys of {prefix}" if prefix else "the sections"
    return f"unknown key {'.'.join(path)}{hint}: {where} are {', '.join(known)}"


def nearest(name: str, known: dict[str, str], cutoff: float = 0.6) -> str:
    """`` (did you mean ...?)`` with the value of the closest known name, or nothing."""
    lower = {key.lower(): value for key, value in known.items()}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=cutoff)
    return f" (did you mean {lower[close[0]]}?)" if close else ""


def expected(field: FieldInfo) -> str:
    """What a field accepts, such as ``a number greater than 0 or null``."""
    bounds = [
        f"{words} {getattr(limit, name):g}"
        for limit in [*field.metadata, *_metadata(field.annotation)]
        for name, words in BOUNDS.items()
        if getattr(limit, name, None) is not None
    ]
    parts = list(dict.fromkeys(_describe(field.annotation)))
    if bounds:
        parts[0] += " " + " and ".join(bounds)
    return " or ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _metadata(annotation: Any) -> list[Any]:
    """What is annotated, in the members of a union too."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [found for member in get_args(annotation) for found in _metadata(member)]
    if get_origin(annotation) is not Annotated:
        return []
    found = _metadata(get_args(annotation)[0])
    for item in annotation.__metadata__:
        found += item.metadata if isinstance(item, FieldInfo) else [item]
    return found


def _members(annotation: Any) -> Iterator[Any]:
    """The members of a union, without ``Annotated``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _choices(annotation: Any) -> dict[str, str]:
    members = [m for m in _members(annotation) if get_origin(m) is Literal]
    return {str(choice): str(choice) for member in members for choice in get_args(member)}


def _describe(annotation: Any) -> Iterator[str]:
    for member in _members(annotation):
        arguments = get_args(member)
        origin = get_origin(member)
        if origin is Literal:
            yield from (str(choice) for choice in arguments)
        elif origin is list:
            choices = list(_describe(arguments[0]))
            files = choices == [NAMES[str]]
            yield "one or several " + ("file names" if files else "of " + ", ".join(choices))
        elif origin is tuple:
            yield f"a list of {len(arguments)} numbers"
        elif origin is dict:
            of = next(_members(arguments[1]))
            yield {float: "elements with energies", Any: "names with values"}.get(
                of, "names with files"
            )
        elif isinstance(member, type) and issubclass(member, BaseModel):
            yield f"a section with the keys {', '.join(member.model_fields)}"
        else:
            yield NAMES.get(member, getattr(member, "__name__", str(member)))


def walk(schema: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Path and field of every key, sections before their keys."""
    for name, field in schema.model_fields.items():
        yield prefix + name, field
        section = _section(field)
        if section is not None:
            yield from walk(section, f"{prefix}{name}.")
