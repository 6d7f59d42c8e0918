"""A second device that every machine has: tensors on it are CPU tensors that claim another place.

Operations that mix both places raise, as they do on a GPU; those that make the host wait for a GPU
are counted.
"""

from collections import Counter

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Unlike other accelerators, one of this name needs no driver, and autograd serves it on the CPU.
DEVICE = torch.device("lazy", 0)

aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_}
WAITING = {
    aten._local_scalar_dense,
    aten.bincount,
    aten.masked_select,
    aten.nonzero,
    aten.repeat_interleave,
    aten.unique_consecutive,
}
"""Values have to reach the host, if only as sizes of the results."""


class Elsewhere(torch.Tensor):
    """A tensor that claims to be on `DEVICE`."""

    content: torch.Tensor

    @staticmethod
    def __new__(cls, content):
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls, content.shape, strides=content.stride(), dtype=content.dtype, device=DEVICE
        )
        wrapper.content = content
        return wrapper

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of PretendedDevice")


class PretendedDevice(TorchDispatchMode):
    """Within it, `DEVICE` exists; ``waits`` counts what the host would wait for, by operation."""

    def __init__(self):
        super().__init__()
        self.waits = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        there = [x for x in tensors if isinstance(x, Elsewhere)]
        here = [tuple(x.shape) for x in tensors if not isinstance(x, Elsewhere)]
        packet, target = func.overloadpacket, kwargs.get("device")
        if there and packet not in COPIES and any(here):
            raise RuntimeError(f"{func} gets tensors from the CPU too, of shapes {here}")
        if there and waits(packet, kwargs):
            self.waits[packet.__name__] += 1
        result_is_there = bool(there) if target is None else target.type == DEVICE.type
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        wrappers = {id(x.content): x for x in there}

        def wrap(x):
            if not isinstance(x, torch.Tensor):
                return x
            return wrappers[id(x)] if id(x) in wrappers else Elsewhere(x)

        found = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
        return tree_map(wrap, found) if result_is_there else found


def waits(packet, kwargs):
    """Whether an operation on the device makes the host wait."""
    if packet is aten.repeat_interleave:
        return kwargs.get("output_size") is None
    target = kwargs.get("device")
    return packet in WAITING or (target is not None and target.type == "cpu")


def unwrap(x):
    """What is really there."""
    return x.content if isinstance(x, Elsewhere) else x


def move(module):
    """Bring a module to `DEVICE`."""
    for part in module.modules():
        for name, value in part._buffers.items():
            part._buffers[name] = value.to(DEVICE)
        for name, value in part._parameters.items():
            part._parameters[name] = torch.nn.Parameter(value.to(DEVICE), requires_grad=False)
    return module
