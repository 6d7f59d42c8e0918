"""Calculators of the contestants that are not one already: eager models, the reference, MACE."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from benchmarks.peers.contestants import exported_path
from benchmarks.peers.structures import ELEMENTS
from benchmarks.peers.weights import read_potential
from pet_mlip import PETCalculator
from pet_mlip.ase.neighbours import SkinNeighbours
from pet_mlip.engine.derivatives import predict
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError

EAGER_TOKENS = 30_000
"""Attention tokens up to which the reference is the eager model, which takes 0.1 MB for each."""
REFERENCE_TOKENS = 100_000
"""Attention tokens up to which there is a reference at all: float64 takes its time."""


class EagerCalculator(Calculator):
    """Our model as training runs it: no TorchScript, no chunks.

    Args:
        potential: The model.
        device: A torch device.
        skin: As for `PETCalculator`.
    """

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, potential: Potential, device: str, skin: float = 0.5) -> None:
        super().__init__()
        self.potential = potential.to(device)
        self.device = device
        self.neighbours = SkinNeighbours(potential.cutoff, skin, torch.device(device))

    def mean_frames(self, atoms: Atoms) -> float:
        """Frames per atom."""
        return float(self.potential.count_frames(self.neighbours(atoms)).double().mean())

    def tokens(self, atoms: Atoms) -> int:
        """Attention tokens: atoms and their neighbours."""
        graph = self.neighbours(atoms)
        inside = graph.edge_vectors.norm(dim=1) < self.potential.cutoff
        return len(atoms) + int(inside.sum())

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Energy, forces and, in a cell, the stress."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        structure = torch.zeros(len(self.atoms), dtype=torch.int64, device=self.device)
        found = predict(self.potential, self.neighbours(self.atoms), structure, 1)
        assert found.forces is not None and found.virial is not None
        self.results = {"energy": float(found.energy[0]), "forces": found.forces.cpu().numpy()}
        if self.atoms.cell.rank == 3:
            virial = found.virial[0].cpu().numpy()
            self.results["stress"] = full_3x3_to_voigt_6_stress(virial) / self.atoms.get_volume()


class ReferenceCalculator(EagerCalculator):
    """Our model in float64: eager, or exported and evaluated in chunks where that is too large."""

    def __init__(self, folder: Path, ensemble: str, device: str) -> None:
        super().__init__(read_potential(folder, ensemble, torch.float64), device)
        self._load = partial(PETCalculator, exported_path(folder, ensemble), device, "float64")

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Energy, forces and, in a cell, the stress."""
        assert atoms is not None
        tokens = self.tokens(atoms)
        if tokens > REFERENCE_TOKENS:
            raise UserError(f"{tokens} attention tokens take too long in float64")
        if tokens <= EAGER_TOKENS:
            super().calculate(atoms, properties, system_changes)
        else:
            exported = self._load()
            exported.calculate(atoms, properties, system_changes)
            self.results = exported.results


def mace_calculator(device: str, seed: int = 0) -> Calculator:
    """MACE with random weights: 128x0e + 128x1o, two interactions, 5 Å."""
    from mace import modules  # before e3nn, which it configures
    from mace.calculators import MACECalculator

    # isort: split
    from e3nn import o3

    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "r_max": 5.0,
        "num_bessel": 8,
        "num_polynomial_cutoff": 5,
        "max_ell": 3,
        "num_interactions": 2,
        "hidden_irreps": o3.Irreps("128x0e + 128x1o"),
        "MLP_irreps": o3.Irreps("16x0e"),
        "correlation": 3,
        "gate": torch.nn.functional.silu,
        "avg_num_neighbors": 30.0,
    }
    residual = "RealAgnosticResidualInteractionBlock"
    model = modules.ScaleShiftMACE(
        **shape,
        interaction_cls=modules.interaction_classes[residual],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_elements=len(ELEMENTS),
        atomic_numbers=copy.copy(ELEMENTS),
        atomic_energies=np.zeros(len(ELEMENTS)),
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    return MACECalculator(models=[model.float().to(device)], device=device, default_dtype="float32")
