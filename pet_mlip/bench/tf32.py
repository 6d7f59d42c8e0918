"""TF32 on processors that have none, to measure its errors."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {
    torch.ops.aten.mm,
    torch.ops.aten.bmm,
    torch.ops.aten.addmm,
    torch.ops.aten.addmm_,
    torch.ops.aten.baddbmm,
}


def round_to_tf32(x: Tensor) -> Tensor:
    """The nearest numbers of 11 significant bits, ties away from zero."""
    bits = x.contiguous().view(torch.int32)
    return torch.bitwise_and(bits + 0x1000, -0x2000).view(torch.float32)


class ImitatedTF32(TorchDispatchMode):
    """Within it, float32 matrix products round their factors to TF32, and sum in float32."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Evaluate one operation."""
        if func.overloadpacket in PRODUCTS:
            # What is added to the product comes first, and is not rounded.
            n_added = len(args) - 2
            args = args[:n_added] + tuple(
                round_to_tf32(x) if x.dtype == torch.float32 else x for x in args[n_added:]
            )
        return func(*args, **(kwargs or {}))
