"""Lets the C library keep freed memory for the next evaluation.

Every evaluation on a CPU frees what it held, and glibc returns that to the system at once, so that
the next evaluation takes thousands of page faults for the same memory: a tenth of its time, and a
twentieth of the time of a step of training.
"""

import ctypes
import os
from functools import cache

M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER = -1
CHOSEN_BY_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


@cache
def keep_freed_memory() -> bool:
    """Keep what this process frees, up to its peak; whether that was done.

    Environment variables that say something about glibc's malloc have their way, and other C
    libraries are left as they are.
    """
    mallopt = _function("mallopt")
    if mallopt is None or any(name in os.environ for name in CHOSEN_BY_USER):
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))


def release_freed_memory() -> None:
    """Return to the system what was freed and kept."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _function(name: str) -> "ctypes._NamedFuncPointer | None":
    """A function of the C library, if it has one of that name."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # no such handle outside Unix
        return None
