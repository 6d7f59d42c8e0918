"""Keys in which two configurations differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def differences(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, old and new value of every key that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            deeper = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key), after.get(key), deeper)
    elif before != after:
        yield path, before, after
