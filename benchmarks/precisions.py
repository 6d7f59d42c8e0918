"""What the precisions of the network cost in accuracy.

    python benchmarks/precisions.py MODEL STRUCTURES [--frames 20]

The model is evaluated in each precision and compared with float64: root mean square errors of
energies and forces, the largest error of a force, and the change of energy under rotations and
reflections, divided by the number of atoms. TF32 exists on GPUs; on a CPU it is imitated: the
factors of all float32 matrix products are rounded to 11 significant bits, products are summed in
float32.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from ase.io import iread
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pet_mlip import PETCalculator
from pet_mlip.engine.precision import Precision, set_precision
from pet_mlip.evaluate.equivariance import random_operations, transformed
from pet_mlip.export import load_model

PROPERTIES = ("energy", "forces")
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


def evaluate(path, precision, structures):
    """Energies per atom and forces of all structures."""
    if precision == "tf32" and not torch.cuda.is_available():
        model = load_model(path, dtype="float32")
        set_precision(model.module.potential.pet, "tf32")
        model, imitation = replace(model, precision="tf32"), ImitatedTF32()
    else:
        model, imitation = load_model(path, dtype=precision), nullcontext()
    with imitation:
        found = PETCalculator(model).compute_batch(structures, PROPERTIES)
    energies = [x["energy"] / len(a) for x, a in zip(found, structures, strict=True)]
    return np.array(energies), np.concatenate([x["forces"] for x in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="an exported model")
    parser.add_argument("structures", help="a file that ASE reads")
    parser.add_argument("--frames", type=int, default=20, help="structures to evaluate")
    arguments = parser.parse_args()
    structures = list(iread(arguments.structures, f":{arguments.frames}"))
    operations = random_operations(len(structures), np.random.default_rng(0))
    turned = [transformed(atoms, q) for atoms, q in zip(structures, operations, strict=True)]
    expected, expected_forces = evaluate(arguments.model, "float64", structures)
    size = np.sqrt(np.mean(expected_forces**2))
    print(f"{len(structures)} structures, forces {1e3 * size:.0f} meV/Å (rms)\n")
    print("| precision | energy, meV/atom | forces, meV/Å | largest | O(3), meV/atom |")
    print("|---|---|---|---|---|")
    for precision in get_args(Precision):
        energies, forces = evaluate(arguments.model, precision, structures)
        after, _ = evaluate(arguments.model, precision, turned)
        errors = forces - expected_forces
        numbers = (
            np.sqrt(np.mean((energies - expected) ** 2)),
            np.sqrt(np.mean(errors**2)),
            np.abs(errors).max(),
            np.sqrt(np.mean((after - energies) ** 2)),
        )
        print(
            f"| {precision} | " + " | ".join(f"{1e3 * x:.1e}" for x in numbers) + " |", flush=True
        )


if __name__ == "__main__":
    main()
