"""``pet-mlip`` whose trainings go by processor time instead of wall time.

    python -m benchmarks.learning.processor_clock train train.yaml --output run

is how `benchmarks.learning.contestants` runs it, so that ``training.max_time`` is a budget of
processor time: other work on the machine takes nothing from it.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

from pet_mlip.cli.app import main
from pet_mlip.train import module


def go_by_processor_time() -> None:
    """Replace the clock of the training loop, and only that one."""
    vars(module)["time"] = SimpleNamespace(monotonic=time.process_time)


if __name__ == "__main__":
    go_by_processor_time()
    main()
