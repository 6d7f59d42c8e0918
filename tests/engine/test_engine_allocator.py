"""Freed memory is kept for the next evaluation."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import numpy as np
from pet_mlip.engine.allocator import keep_freed_memory, release_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [np.ones(2**18) for _ in range(50)]  # 2 MiB each: 512 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
faults()
second = faults()
release_freed_memory()
print(int(kept), second, faults())
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc only")


def page_faults(**variables: str) -> tuple[int, int, int]:
    """Whether memory is kept; page faults when it is taken again, then after it was released."""
    environment = {name: v for name, v in os.environ.items() if not name.startswith("MALLOC_")}
    environment.pop("GLIBC_TUNABLES", None)
    # numpy asks for huge pages by itself where it can; faults would then be few anyway.
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, second, third = (int(word) for word in process.stdout.split())
    return kept, second, third


@glibc
def test_freed_memory_is_kept_until_it_is_released() -> None:
    kept, second, after_release = page_faults()
    assert kept == 1
    assert second < 2000
    assert after_release > 20000


@glibc
def test_choices_of_the_user_stand() -> None:
    kept, second, _ = page_faults(MALLOC_TRIM_THRESHOLD_="131072")
    assert kept == 0
    assert second > 20000
