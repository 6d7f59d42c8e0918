"""Writing a model for metatomic, whose interfaces ASE, TorchSim, i-PI, PLUMED and LAMMPS have."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from pet_mlip.engine.potential import Potential
from pet_mlip.export import Metadata
from pet_mlip.export.archive import prepare
from pet_mlip.export.metadata import refuse_subtracted
from pet_mlip.export.selfcheck import compare, expect
from pet_mlip.files import check_writable, replacing
from pet_mlip.graph.graph import Graph
from pet_mlip.missing import missing
from pet_mlip.results import Result

try:
    from metatensor.torch import Labels, TensorBlock, TensorMap
    from metatomic.torch import (
        AtomisticModel,
        ModelCapabilities,
        ModelEvaluationOptions,
        ModelMetadata,
        ModelOutput,
        System,
        load_atomistic_model,
        register_autograd_neighbors,
        unit_conversion_factor,
    )

    from pet_mlip.interfaces.metatomic_module import PREFIX, MetatomicModule
except ImportError as error:
    raise missing("metatomic", error) from error


def save_metatomic(
    path: str | Path,
    potential: Potential,
    *,
    dtype: str = "float32",
    training_summary: dict[str, Any] | None = None,
) -> Metadata:
    """Write a model that metatomic's engines load.

    The written file is loaded back and compared with the eager model; on a mismatch nothing is
    left at ``path``, and an existing file there stays.

    Args:
        path: File to write.
        potential: The model; it is not changed.
        dtype: Of the network in the file: float32 or float64; positions and energies are float64.
        training_summary: Plain JSON types, kept in the metadata.

    Raises:
        UserError: If the dtype is unknown, the path a directory, or the written model does not
            reproduce the eager one.
    """
    path = Path(path)
    eager, folded, metadata = prepare(path, potential, dtype, training_summary)
    refuse_subtracted(metadata, path)
    exported = AtomisticModel(
        MetatomicModule(folded).eval(), model_metadata(metadata), capabilities(potential)
    )
    check_writable(path.parent)
    with replacing(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, and metatomic needs it.
            exported.save(temporary)
        check_saved(eager, temporary)
    return metadata


def capabilities(potential: Potential) -> ModelCapabilities:
    """What the model can compute, in metatomic's words."""
    outputs = {
        "energy": ModelOutput(unit="eV", sample_kind="atom", description="energy"),
        "feature": ModelOutput(
            unit="", sample_kind="atom", description="features that the energy is read of"
        ),
    }
    if potential.uncertainty.known():
        outputs["energy_uncertainty"] = ModelOutput(
            unit="eV", sample_kind="atom", description="standard deviation of the energy"
        )
    for name, result in potential.pet_hypers.results.items():
        outputs[PREFIX + name] = ModelOutput(
            unit=known_unit(result),
            sample_kind="atom" if result.per_atom else "system",
            description=f"{name} in {result.unit or 'no unit'}",
        )
    return ModelCapabilities(
        outputs=outputs,
        atomic_types=list(potential.species),
        interaction_range=potential.pet_hypers.interaction_range * potential.cutoff,
        length_unit="angstrom",
        supported_devices=["cuda", "cpu"],
        # Geometry and sums are float64 whatever the network is.
        dtype="float64",
    )


def known_unit(result: Result) -> str:
    """The unit of a result, or none where metatomic does not know it: numbers are ours then."""
    try:
        unit_conversion_factor(result.unit, result.unit)
    except (ValueError, RuntimeError):
        return ""
    return result.unit


def model_metadata(metadata: Metadata) -> ModelMetadata:
    """What the file says about itself: in metatomic's fields, and as our own files do."""
    return ModelMetadata(
        name="pet_mlip",
        description=f"PET of {metadata.n_parameters} parameters, {metadata.dtype} network, by "
        f"pet_mlip {metadata.package_version}.",
        references={"architecture": list(metadata.references)},
        extra={"pet_mlip": metadata.to_json()},
    )


def check_saved(eager: Potential, path: str | Path) -> None:
    """Refuse a written model whose energies or forces differ from the eager one's.

    Raises:
        UserError: If they do by more than round-off.
    """
    positions, graph, expected, _, forces, size = expect(eager)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        model = load_atomistic_model(str(path))
        positions = positions.detach().requires_grad_(True)
        system = System(
            graph.species.to(torch.int32),
            positions,
            torch.zeros(3, 3, dtype=torch.float64),
            torch.zeros(3, dtype=torch.bool),
        )
        for options in model.requested_neighbor_lists():
            neighbors = pairs_block(graph)
            register_autograd_neighbors(system, neighbors)
            system.add_neighbor_list(options, neighbors)
        for name in model.requested_inputs(use_new_names=True):
            value = 1.0 if name == "spin_multiplicity" else 0.0
            system.add_data(name, of_system(name, value))
        outputs = {"energy": ModelOutput(unit="eV", sample_kind="atom")}
        options = ModelEvaluationOptions(length_unit="angstrom", outputs=outputs)
        found = model([system], options, check_consistency=False)["energy"].block().values[:, 0]
        (found_gradient,) = torch.autograd.grad(found.sum(), positions)
    dtype = next(eager.pet.parameters()).dtype
    compare("energies", found.detach(), expected, size, dtype)
    compare("forces", -found_gradient, forces, float(forces.abs().max()), dtype)


def pairs_block(graph: Graph) -> TensorBlock:
    """The edges of a cluster as metatomic has neighbours."""
    names = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
    no_shifts = torch.zeros_like(graph.edge_vectors)
    samples = torch.cat([graph.edge_index.t(), no_shifts], dim=1).to(torch.int32)
    return TensorBlock(
        graph.edge_vectors.unsqueeze(2),
        Labels(names, samples),
        [Labels.range("xyz", 3)],
        Labels.range("distance", 1),
    )


def of_system(name: str, value: float) -> TensorMap:
    """One number of the only system, as metatomic labels it."""
    block = TensorBlock(
        torch.tensor([[value]], dtype=torch.float64),
        Labels.range("system", 1),
        [],
        Labels.range(name, 1),
    )
    return TensorMap(Labels.range("_", 1), [block])
