"""How much the evaluation of a model keeps, and how much it may keep by default."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import torch

from pet_mlip.engine.allocator import release_freed_memory
from pet_mlip.engine.precision import Precision
from pet_mlip.graph.hypers import PETHypers

LARGEST_SHARE = 0.25
"""Of the memory that is available."""
LARGEST_BYTES = 4 * 10**9
"""By default never more, however much there is (on the CPU)."""
USUAL_TOKENS = 48
"""Tokens that each token attends to, for the size of the attention weights."""


BYTES: dict[Precision, int] = {"float64": 8, "float32": 4, "tf32": 4, "bf16-mixed": 2}
"""Of one number that the derivative needs."""


def bytes_per_token(hypers: PETHypers, precision: Precision) -> int:
    """Bytes of the activations that the derivative needs of one attention token, roughly."""
    hidden = hypers.d_feedforward * (2 if hypers.activation == "SwiGLU" else 1)
    attention = 3 * hypers.d_pet + USUAL_TOKENS * hypers.num_heads
    transformer = attention + 2 * hypers.d_pet + hidden
    exchange = 4 * hypers.d_pet if hypers.featurizer_type == "feedforward" else 0
    layer = hypers.num_attention_layers * transformer + 2 * hypers.d_pet + exchange
    if hypers.density_channels > 0:
        layer += 2 * hypers.d_pet + hypers.density_channels * (3 + hypers.density_degree)
    return hypers.num_gnn_layers * layer * BYTES[precision]


def default_chunk_size(hypers: PETHypers, precision: Precision, device: torch.device) -> int:
    """Tokens whose activations fit into a quarter of the memory that is available now.

    Args:
        hypers: Architecture.
        precision: Of the network.
        device: Where the model is evaluated.
    """
    if device.type == "cuda":
        allowed = LARGEST_SHARE * torch.cuda.mem_get_info(device)[0]
    else:
        allowed = min(LARGEST_SHARE * available_memory(), LARGEST_BYTES)
    return max(int(allowed / bytes_per_token(hypers, precision)), 1024)


def available_memory() -> int:
    """Bytes that this process can still take: of the machine's, and of what its job is allowed."""
    # What an earlier model's evaluations or a training left in this process is available too.
    release_freed_memory()
    return max(min([_free_memory(), *limits_of_groups(), *_limit_of_addresses()]), 0)


def _free_memory() -> int:
    """Bytes that programs can take without swapping; half of all memory where that is unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def limits_of_groups(root: Path = Path("/")) -> Iterator[int]:
    """Bytes that each control group of this process leaves it.

    Batch systems and containers limit memory so, and kill what takes more, however much of it the
    machine has.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            base, limit, usage, cache = "sys/fs/cgroup", "max", "current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage = "sys/fs/cgroup/memory", "limit_in_bytes", "usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        folder = root / base / group.strip("/")
        # A container may see its own group as the top, under a path that it does not see.
        for place in (folder, *folder.parents):
            left = _left_of(place, limit, usage, cache)
            if left is not None:
                yield left
            if place == root / base:
                break


def _left_of(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Limit less usage of a control group, whose cached files can go; None if it has no limit."""
    try:
        allowed = (folder / f"memory.{limit}").read_text(encoding="ascii").strip()
        used = int((folder / f"memory.{usage}").read_text(encoding="ascii"))
        statistics = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    if allowed == "max":
        return None
    pages = {name: int(count) for name, _, count in (line.partition(" ") for line in statistics)}
    return int(allowed) - used + pages.get(cache, 0)


def _limit_of_addresses() -> Iterator[int]:
    """Bytes that ``ulimit -v`` leaves, beyond which allocations fail."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return
    yield limit - pages * os.sysconf("SC_PAGE_SIZE")
