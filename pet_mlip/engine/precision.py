"""Precisions of the network, which is all that they concern: geometry and sums are float64."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from pet_mlip.errors import UserError

Precision = Literal["float64", "float32", "tf32", "bf16-mixed"]
"""What the numbers of the network are.

``tf32`` keeps float32 and rounds the factors of its matrix products to 11 significant bits, which
NVIDIA's GPUs multiply faster. ``bf16-mixed`` keeps the features of atoms and edges, what is summed
over edges and frames, and the readout in float32, and everything between two sums in bfloat16, of
8 significant bits. Neither rounds coordinates.
"""
ROUNDING: tuple[Precision, ...] = ("tf32", "bf16-mixed")


def dtype_of(precision: Precision) -> torch.dtype:
    """What the features of atoms and edges are kept in."""
    return torch.float64 if precision == "float64" else torch.float32


def choose_precision(name: str, device: torch.device) -> Precision:
    """The precision that a user's word means.

    Raises:
        UserError: There is none of this name, or not on this device.
    """
    known = get_args(Precision)
    if name not in known:
        raise UserError(f"dtype {name!r} is not known; choose one of {', '.join(known)}.")
    if name == "tf32" and device.type != "cuda":
        raise UserError(
            "dtype tf32 is a precision of NVIDIA's GPUs, and this model is on the CPU; use float32."
        )
    return cast(Precision, name)


def set_precision(network: nn.Module, precision: Precision) -> None:
    """Round the weights of a network that is in float32 or float64.

    Args:
        network: A `pet_mlip.network.pet.PET`, scripted or not.
        precision: Of everything that is evaluated from now on.
    """
    network.to(dtype_of(precision))
    if precision not in ROUNDING:
        return
    for module in cast(nn.Module, network.layers).modules():
        if hasattr(module, "rounding"):
            cast(Any, module).rounding = True
    if precision == "bf16-mixed":
        for part in (network.layers, network.exchanges):
            for module in cast(nn.Module, part).modules():
                if hasattr(module, "rounds"):
                    module.to(torch.bfloat16)


class MatrixProducts:
    """How this process evaluates float32 matrix products, which is one setting for all threads.

    Threads that want the same evaluate at the same time; others wait until these are done. Who
    comes while somebody waits waits behind them, so that everybody's turn comes.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._queue: deque[object] = deque()
        self._users = 0
        self._setting = ""
        self._before = ""
        self._mine = threading.local()

    @contextmanager
    def __call__(self, precision: Precision) -> Iterator[None]:
        """Evaluate them as a precision asks for, whatever torch is set to; then as before.

        Blocks may be nested: an outer one gives its turn away for an inner one of another setting.
        """
        wanted = "high" if precision in ROUNDING else "highest"
        outer = getattr(self._mine, "setting", None)
        if outer == wanted:
            yield
            return
        if outer is not None:
            self._leave()
        try:
            self._enter(wanted)
            try:
                self._mine.setting = wanted
                yield
            finally:
                self._mine.setting = outer
                self._leave()
        finally:
            if outer is not None:
                self._enter(outer)

    def _enter(self, wanted: str) -> None:
        """Wait for a turn, after all who came before."""
        ticket = object()
        with self._turn:
            self._queue.append(ticket)
            try:
                self._turn.wait_for(
                    lambda: (
                        self._queue[0] is ticket and (self._users == 0 or self._setting == wanted)
                    )
                )
                if self._users == 0:
                    self._before = torch.get_float32_matmul_precision()
                    self._setting = wanted
                    torch.set_float32_matmul_precision(wanted)
                self._users += 1
            finally:
                self._queue.remove(ticket)
                self._turn.notify_all()  # the next may want the same

    def _leave(self) -> None:
        with self._turn:
            self._users -= 1
            if self._users == 0:
                torch.set_float32_matmul_precision(self._before)
                self._turn.notify_all()


matrix_products = MatrixProducts()
