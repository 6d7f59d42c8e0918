"""Compiles the parts of the network with AOTInductor."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pet_mlip.compile.modules import weights_of
from pet_mlip.errors import UserError
from pet_mlip.inference.encoder import Encoder
from pet_mlip.inference.exchange import LearnedMixing
from pet_mlip.inference.readout import Head

# Frames and neighbours of two blocks; sizes that differ between them are made dynamic. Inductor
# tunes for the first one, so that it is of the size of a block on the CPU or a GPU.
SIZES_CPU = ((33, 30), (29, 23))
SIZES_GPU = ((3581, 36), (3001, 29))
OPTIONS = {
    # A package runs with any number of threads.
    "cpp.dynamic_threads": True,
    # Only debuggers read them, and they are most of a file.
    "aot_inductor.enable_line_tables": False,
}


class Method(nn.Module):
    """A method of a module as a function of its tensors.

    Args:
        part: Whose weights are replaced by those that are given.
        name: Of the method.
        n_plain: How many arguments the method takes before a list of the others; None: no list.
    """

    def __init__(self, part: nn.Module, name: str, n_plain: int | None) -> None:
        super().__init__()
        # Modules found by torch would have their weights compiled in.
        self.hidden = (Bound(part, name),)
        self.names = [f"part.{key}" for key in weights_of(part)]
        self.n_plain = n_plain

    def forward(self, *tensors: Tensor) -> list[Tensor]:
        """All results in one list, from the arguments followed by the weights."""
        n = len(tensors) - len(self.names)
        # The originals may write into their arguments, which are the caller's.
        arguments: list[Any] = [x.clone() for x in tensors[:n]]
        if self.n_plain is not None:
            arguments = [*arguments[: self.n_plain], arguments[self.n_plain :]]
        weights = dict(zip(self.names, tensors[n:], strict=True))
        found = torch.func.functional_call(self.hidden[0], weights, tuple(arguments))
        return flatten(found)


class Bound(nn.Module):
    """Calls one method of a module."""

    def __init__(self, part: nn.Module, name: str) -> None:
        super().__init__()
        self.part = part
        self.name = name

    def forward(self, *arguments: Any) -> Any:
        """The method's result."""
        return getattr(self.part, self.name)(*arguments)


def flatten(found: Any) -> list[Tensor]:
    """All tensors in nested tuples and lists."""
    if isinstance(found, Tensor):
        return [found]
    return [x for item in found for x in flatten(item)]


def sample_inputs(part: nn.Module, size: tuple[int, int]) -> tuple[list[Tensor], list[Tensor], int]:
    """Arguments of forward and of vjp, and how many of the latter are given before a list."""
    weight = next(iter(weights_of(part).values()))
    # Features are not kept in less than that.
    dtype = torch.promote_types(weight.dtype, torch.float32)
    rows, neighbors = size

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, device=weight.device)

    if isinstance(part, Encoder):
        width, node_width = part.compress_out.weight.shape[0], part.node_width
        first = [draw(rows, node_width), draw(rows, neighbors, width), draw(rows, neighbors + 1)]
        *outputs, saved = part(*[x.clone() for x in first])
    elif isinstance(part, LearnedMixing):
        edges = rows * neighbors
        first = [draw(edges, part.w_out.weight.shape[0]) for _ in range(3)]
        *outputs, saved = part(*first)
    else:
        assert isinstance(part, Head)
        first = [draw(rows * neighbors, part.first.weight.shape[1])]
        *outputs, saved = part(*first)
    given = [torch.randn_like(x) for x in outputs]
    return first, [*given, *saved], len(given)


def compile_part(
    part: nn.Module, function: str, folder: Path, progress: Callable[[str], None]
) -> dict[str, bytes]:
    """Compile forward and vjp of a part.

    Args:
        part: The part, on the device to compile for.
        function: Common name of both.
        folder: For intermediate files.
        progress: Told what is about to be compiled.

    Returns:
        An archive for each function.

    Raises:
        UserError: The compiler fails.
    """
    weights = list(weights_of(part).values())
    sizes = SIZES_GPU if weights[0].is_cuda else SIZES_CPU
    with torch.no_grad():
        samples = [sample_inputs(part, size) for size in sizes]
    found = {}
    for k, name in enumerate(("forward", "vjp")):
        method = Method(part, name, samples[0][2] if name == "vjp" else None)
        arguments, others = (cast(list[Tensor], sample[k]) for sample in samples)
        dynamic = [
            {d: torch.export.Dim.AUTO for d in range(x.dim()) if x.shape[d] != y.shape[d]}
            for x, y in zip(arguments, others, strict=True)
        ]
        path = folder / f"{function}_{name}.pt2"
        progress(path.stem)
        with _quiet() as said, torch.no_grad():
            try:
                _compile(method, [*arguments, *weights], dynamic + [{}] * len(weights), path)
            except Exception as error:  # whatever torch and the compiler come up with
                log = folder.parent / f"{path.stem}.log"
                log.write_text(f"{error}\n{said.getvalue()}")
                reason = str(error).strip().splitlines() or [type(error).__name__]
                raise UserError(
                    f"Compiling {path.stem} failed ({reason[0][:200]}); all that was said is in "
                    f"{log}; the .pt file runs without being compiled."
                ) from error
        found[path.stem] = path.read_bytes()
    return found


def _compile(method: Method, tensors: list[Tensor], dynamic: list[Any], path: Path) -> None:
    program = torch.export.export(
        method, tuple(tensors), dynamic_shapes=(tuple(dynamic),), strict=False
    )
    known = torch._inductor.list_options()
    options = {key: value for key, value in OPTIONS.items() if key in known}
    torch._inductor.aoti_compile_and_package(
        program, package_path=str(path), inductor_configs=options
    )


@contextlib.contextmanager
def _quiet() -> Iterator[io.StringIO]:
    """Keep what torch says while compiling."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logger = logging.getLogger("torch")
    before = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [handler], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield said
    finally:
        logger.handlers[:], logger.propagate = before


def check_compiler() -> None:
    """Refuse to start without a C++ compiler.

    Raises:
        UserError: There is none.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(
            f"There is no C++ compiler {compiler} in PATH, which compiling needs; install g++ "
            "(conda: conda install gxx), load its module, or name another one in the environment "
            "variable CXX."
        )
