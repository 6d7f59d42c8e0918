"""How much the evaluation of a model keeps, and how much it may keep by default."""

import os

import torch

from pet_mlip.inference.allocator import release_freed_memory
from pet_mlip.inference.precision import Precision
from pet_mlip.model.hypers import PETHypers

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
        # What an earlier model's evaluations left in this process is available too.
        release_freed_memory()
        allowed = min(LARGEST_SHARE * available_memory(), LARGEST_BYTES)
    return max(int(allowed / bytes_per_token(hypers, precision)), 1024)


def available_memory() -> int:
    """Bytes that programs can take without swapping; half of all memory where that is unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
