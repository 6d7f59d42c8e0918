"""Who is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pet_mlip.errors import UserError

# Nothing heavy is imported here: the memory of a process is that of its contestant alone.

PLAIN, ECSE = "none", "closest_pairs"
METATRAIN, KOKKOS = "metatrain.pt", "kokkos"

Load = Callable[[Path, str], Any]
"""Calculator of the models in a folder, on a device."""


@dataclass(frozen=True)
class Contestant:
    """One way of evaluating a potential."""

    name: str
    title: str
    load: Load
    ensemble: str = PLAIN
    packages: tuple[str, ...] = ()
    """What must be importable."""
    large: bool = False
    """Whether it is given the largest structures; what evaluates them in one piece is not."""
    same_weights: bool = True
    """Whether it evaluates the same function as all others of its ensemble."""
    coarse: bool = False
    """Whether it rounds products for the sake of speed: its errors are told, not judged. Not timed
    on CPUs, where nothing is gained."""


def exported_path(folder: Path, ensemble: str) -> Path:
    """Our exported model."""
    return folder / f"{ensemble}.pt"


def _exported(ensemble: str, dtype: str | None = None) -> Load:
    def load(folder: Path, device: str) -> Any:
        from pet_mlip import PETCalculator

        return PETCalculator(exported_path(folder, ensemble), device, dtype)

    return load


def _eager(ensemble: str) -> Load:
    def load(folder: Path, device: str) -> Any:
        import torch

        from benchmarks.peers.calculators import EagerCalculator
        from benchmarks.peers.weights import read_potential

        return EagerCalculator(read_potential(folder, ensemble, torch.float32), device)

    return load


def _reference(ensemble: str) -> Load:
    def load(folder: Path, device: str) -> Any:
        from benchmarks.peers.calculators import ReferenceCalculator

        return ReferenceCalculator(folder, ensemble, device)

    return load


def _metatrain(folder: Path, device: str) -> Any:
    from metatomic_ase import MetatomicCalculator

    return MetatomicCalculator(str(folder / METATRAIN), device=device)


def _kokkos(folder: Path, device: str) -> Any:
    import pet_kokkos
    from pet_kokkos.ase import PETCalculator

    on_gpu = pet_kokkos.backend() in ("Cuda", "HIP")
    if on_gpu != (device != "cpu"):
        raise UserError(f"this build computes on {pet_kokkos.backend()}, not on {device}.")
    return PETCalculator(str(folder / KOKKOS))


def _mace(folder: Path, device: str) -> Any:
    from benchmarks.peers.calculators import mace_calculator

    return mace_calculator(device)


BASE = "plain"
"""The contestant that all times are divided by."""

CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        Contestant(BASE, "TorchScript", _exported(PLAIN), large=True),
        Contestant("tf32", "TF32", _exported(PLAIN, dtype="tf32"), large=True, coarse=True),
        Contestant("bf16", "bf16", _exported(PLAIN, dtype="bf16-mixed"), large=True, coarse=True),
        Contestant("eager", "eager", _eager(PLAIN)),
        Contestant("ecse", "ECSE, TorchScript", _exported(ECSE), ECSE, large=True),
        Contestant(
            "ecse-tf32", "ECSE, TF32", _exported(ECSE, dtype="tf32"), ECSE, large=True, coarse=True
        ),
        Contestant(
            "ecse-bf16",
            "ECSE, bf16",
            _exported(ECSE, dtype="bf16-mixed"),
            ECSE,
            large=True,
            coarse=True,
        ),
        Contestant("ecse-eager", "ECSE, eager", _eager(ECSE), ECSE),
        Contestant("metatrain", "metatrain", _metatrain, packages=("metatrain", "metatomic_ase")),
        Contestant("pet-kokkos", "pet-kokkos", _kokkos, packages=("pet_kokkos",), large=True),
        Contestant("mace", "MACE", _mace, packages=("mace",), same_weights=False),
    )
}

REFERENCES = {
    ensemble: Contestant(f"reference-{ensemble}", "float64", _reference(ensemble), ensemble)
    for ensemble in (PLAIN, ECSE)
}


def choose(names: str, device: str, say: Callable[[str], None]) -> list[Contestant]:
    """The contestants that a list of names with commas between stands for, where installed.

    Args:
        names: ``all``, or some of `CONTESTANTS`.
        device: cpu, cuda or cuda:N.
        say: Is told who is left out.

    Raises:
        UserError: There is no such contestant, or none is left.
    """
    wanted = list(CONTESTANTS) if names == "all" else [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in CONTESTANTS]
    if unknown:
        raise UserError(
            f"--contestants {unknown[0]} is not known; use all or some of {', '.join(CONTESTANTS)}."
        )
    found = []
    for contestant in CONTESTANTS.values():
        if contestant.name not in wanted:
            continue
        missing = [name for name in contestant.packages if find_spec(name) is None]
        if contestant.coarse and device == "cpu":
            say(f"{contestant.title} is left out: it is for GPUs.")
        elif missing:
            say(f"{contestant.title} is left out: {missing[0]} is not installed.")
        else:
            found.append(contestant)
    if not found:
        raise UserError(f"--contestants {names}: none of them is installed; try plain,ecse.")
    return found
