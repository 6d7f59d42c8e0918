"""Writing a model for GROMACS' interface to neural network potentials (NNPot)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.export import Metadata
from pet_mlip.export.archive import prepare, write_checked
from pet_mlip.export.metadata import METADATA_NAME, refuse_subtracted
from pet_mlip.export.selfcheck import compare, expect
from pet_mlip.interfaces.gromacs_module import ELECTRONVOLT, NANOMETRE, GromacsModule


def save_gromacs(
    path: str | Path,
    potential: Potential,
    *,
    dtype: str = "float32",
    training_summary: dict[str, Any] | None = None,
) -> Metadata:
    """Write a model that GROMACS 2025 or newer, built with LibTorch, takes as nnpot-modelfile.

    The written file is loaded back and compared with the eager model; on a mismatch nothing is
    left at ``path``, and an existing file there stays.

    Args:
        path: File to write.
        potential: The model; it is not changed.
        dtype: Of the network in the file: float32 or float64.
        training_summary: Plain JSON types, kept in the metadata.

    Raises:
        UserError: The model depends on the spin multiplicity, which GROMACS does not tell; the
            dtype is unknown, the path a directory, or the written model does not reproduce the
            eager one.
    """
    if potential.pet_hypers.system_conditioning:
        raise UserError(
            "This model depends on the charge and the spin multiplicity (system_conditioning), and "
            "GROMACS does not tell a network the latter; train one without."
        )
    path = Path(path)
    eager, folded, metadata = prepare(path, potential, dtype, training_summary)
    refuse_subtracted(metadata, path)
    module = GromacsModule(folded).eval()
    files = {METADATA_NAME: metadata.to_json()}
    write_checked(path, module, files, lambda written: check_saved(eager, written))
    return metadata


def check_saved(eager: Potential, path: str) -> None:
    """Refuse a written model whose energy or forces differ from the eager one's.

    Raises:
        UserError: If they do by more than round-off.
    """
    positions, graph, energies, _, forces, size = expect(eager)
    with torch.enable_grad():
        model = torch.jit.load(path)
        energy, found = model(positions.detach() / NANOMETRE, graph.species.to(torch.int32))
    dtype = next(eager.pet.parameters()).dtype
    compare("energies", energy / ELECTRONVOLT, energies.sum(), size * len(energies), dtype)
    found = found / (ELECTRONVOLT * NANOMETRE)
    compare("forces", found, forces, float(forces.abs().max()), dtype)
