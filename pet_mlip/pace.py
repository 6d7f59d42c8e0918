"""Lines of progress where there is no terminal to draw a bar in."""

from __future__ import annotations

import time

SECONDS = 30.0


class EveryHalfMinute:
    """Tells when a line is due: half a minute after the last one, or after the beginning."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self) -> bool:
        """Whether it is, once."""
        now = time.monotonic()
        if now - self.last < SECONDS:
            return False
        self.last = now
        return True
