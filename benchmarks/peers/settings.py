"""What a run of the benchmark does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pet_mlip.errors import UserError
from pet_mlip.graph.hypers import PETHypers

CLOCKS = ("auto", "wall", "cpu")
SHAPES: dict[str, dict[str, Any]] = {
    "default": {},
    "ours": PETHypers().model_dump(exclude={"results"}),
    "upet-s": {
        "cutoff": 8.0,
        "num_neighbors_adaptive": 16.0,
        "adaptive_cutoff_method": "solver",
        "d_pet": 256,
        "d_node": 1024,
        "d_head": 256,
        "d_feedforward": 512,
        "num_gnn_layers": 3,
        "num_attention_layers": 1,
    },
    "tiny": {
        "d_pet": 16,
        "d_node": 32,
        "d_head": 16,
        "d_feedforward": 32,
        "num_heads": 2,
        "num_attention_layers": 1,
    },
}
"""Hyperparameters of the timed PET that differ from metatrain's defaults."""


@dataclass(frozen=True)
class Settings:
    """What is compared, on what, and how."""

    structures: str = "all"
    """Names and groups with commas between; see `benchmarks.peers.structures`."""
    contestants: str = "all"
    """Names with commas between; see `benchmarks.peers.contestants`."""
    repeats: int = 9
    """Rounds, in each of which every contestant is called once."""
    seconds: float = 60.0
    """Fewer rounds (at least one) where these would take longer, per structure."""
    threads: int = 2
    """Of each contestant."""
    clock: str = "auto"
    """auto: processor time with one thread, wall time with more."""
    shape: str = "default"
    """Key of `SHAPES`."""
    device: str = "cpu"
    peer_atoms: int = 5000
    """Largest structure for contestants that evaluate everything in one piece."""
    memory: float | None = None
    """GiB that each contestant may take; by default most of what is free. Not on a GPU."""
    seed: int = 0
    """Of the weights and of the moves between calls."""

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise UserError(f"--shape {self.shape} is not known; use {', '.join(SHAPES)}.")
        if self.clock not in CLOCKS:
            raise UserError(f"--clock {self.clock} is not known; use {', '.join(CLOCKS)}.")

    @property
    def allowed_memory(self) -> float | None:
        """GiB that each contestant may take; None: no bound."""
        if self.device != "cpu":
            return None  # CUDA reserves address space without end
        return free_memory() if self.memory is None else self.memory

    @property
    def timed_by(self) -> str:
        """The clock that counts: wall or cpu."""
        if self.clock != "auto":
            return self.clock
        on_one_core = self.threads == 1 and self.device == "cpu"
        return "cpu" if on_one_core else "wall"


def free_memory() -> float | None:
    """Nine tenths of the memory that is not in use, in GiB; None if that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return 0.9 * int(line.split()[1]) / 2**20
