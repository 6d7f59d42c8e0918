"""The same weights give the same numbers as metatrain's PET.

The oracle needs `pip install '.[oracle]'`; without it these tests are skipped.
"""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st
from model_tools import shifts_of
from oracle_weights import potential_from_backend

from pet_mlip.convert.hypers import AS_METATRAIN
from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.engine.derivatives import predict
from pet_mlip.graph.hypers import PETHypers

backend = pytest.importorskip(
    "metatrain.pet.modules.backend", reason="metatrain, the oracle, is not installed"
)

SPECIES = [1, 6, 8, 14]
TARGET = "energy"
CUTOFF = 3.2
STRUCTURES = {
    "isolated atom": Atoms("O"),
    "far atoms": Atoms("OH", [(0, 0, 0), (0, 0, 9)]),
    "dimer": molecule("CO"),
    "linear": molecule("CO2"),
    "water": molecule("H2O"),
    "ethanol": molecule("CH3CH2OH"),
    "diamond": bulk("C", "diamond", a=3.57),
    "one atom, many images of itself": bulk("Si", "sc", a=1.9),
    "slab": Atoms("SiO", [(0, 0, 0), (1.1, 0.8, 1.3)], cell=[2.7, 3.1, 0], pbc=[True, True, False]),
    "skewed, two species": Atoms(
        "SiC", [(0, 0, 0), (1.2, 1.1, 1.4)], cell=[(3, 0, 0), (2.4, 3, 0), (1, 2, 3)], pbc=True
    ),
}
HYPERS = st.fixed_dictionaries(
    {
        "cutoff_function": st.sampled_from(["Bump", "Cosine"]),
        "cutoff_width": st.sampled_from([0.4, 1.1, CUTOFF]),
        "d_pet": st.sampled_from([8, 12]),
        "d_node": st.sampled_from([8, 12, 20]),
        "d_head": st.sampled_from([4, 10]),
        "d_feedforward": st.sampled_from([6, 16]),
        "num_heads": st.sampled_from([1, 2, 4]),
        "num_attention_layers": st.integers(1, 3),
        "num_gnn_layers": st.integers(1, 3),
        "normalization": st.sampled_from(["RMSNorm", "LayerNorm"]),
        "activation": st.sampled_from(["SwiGLU", "SiLU"]),
        "transformer_type": st.sampled_from(["PreLN", "PostLN"]),
        "attention_temperature": st.sampled_from([0.5, 1.0, 2.3]),
        "featurizer_type": st.sampled_from(["residual", "feedforward"]),
        "num_neighbors_adaptive": st.sampled_from([None, 3.0, 8.0]),
        "adaptive_cutoff_method": st.sampled_from(["solver", "grid"]),
        "cutoff_width_adaptive": st.sampled_from([0.5, 1.0]),
    }
)
NOT_OURS = {"system_conditioning": False, "long_range": {"enable": False}}


def make_oracle(hypers, seed, gain=0.8):
    """metatrain's PET with random weights, none of them left at ones or zeros."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        oracle = backend.PETBackend({**hypers, "cutoff": CUTOFF, **NOT_OURS}, SPECIES)
        oracle.add_output(TARGET, {TARGET: [1]})
    oracle = oracle.to(torch.float64).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in oracle.parameters():
            noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            if parameter.dim() == 1:
                parameter += 0.3 * noise
            else:
                parameter.copy_(gain * noise / parameter.shape[1] ** 0.5)
    return oracle


def ask_oracle(oracle, structures, graph, structure, adaptive_width):
    """Atomic energies, forces and dE/dstrain by metatrain."""
    positions = torch.from_numpy(np.concatenate([a.positions for a in structures]))
    cells = torch.from_numpy(np.stack([np.where(a.pbc[:, None], a.cell, 0) for a in structures]))
    positions.requires_grad_(True)
    strain = torch.zeros(len(structures), 3, 3, dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + strain
    deformed = (positions[:, None] @ deformation[structure]).squeeze(1)
    deformed_cells = cells @ deformation
    batch = oracle.preprocess(
        deformed,
        graph.edge_index[0],
        graph.edge_index[1],
        graph.species,
        deformed_cells,
        torch.cat([shifts_of(a, CUTOFF + 0.4) for a in structures]),
        structure,
        adaptive_width,
    )
    features = oracle.calculate_features(batch)
    predictions, _, _ = oracle.predict(*features, batch, deformed_cells, structure, [TARGET])
    energies = predictions[TARGET][0].squeeze(1)
    forces, virial = torch.autograd.grad(
        energies.sum(), (positions, strain), materialize_grads=True
    )
    return energies.detach(), -forces, 0.5 * (virial + virial.transpose(1, 2))


def rattled(names, seed):
    structures = [STRUCTURES[name].copy() for name in names]
    for index, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed + index)
    return structures


def assert_parity(hypers, structures, oracle):
    ours = potential_from_backend(
        oracle, SPECIES, PETHypers(**hypers, cutoff=CUTOFF, **AS_METATRAIN), TARGET
    )
    # Both drop the edges beyond the cutoff themselves.
    batch = batch_from_atoms(structures, CUTOFF + 0.4)
    energies, forces, virial = ask_oracle(
        oracle, structures, batch.graph, batch.structure, hypers["cutoff_width_adaptive"]
    )
    found = predict(ours, batch.graph, batch.structure, len(structures))
    size = float(energies.abs().max())
    torch.testing.assert_close(found.atomic_energies, energies, rtol=0, atol=1e-10 * size)
    torch.testing.assert_close(found.forces, forces, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.virial, virial, rtol=0, atol=1e-8)
    return size, float(forces.abs().max())


def without_padding_weight(oracle):
    """The oracle with absent neighbours of weight 1e-200 instead of 1e-15."""
    for module in oracle.modules():
        if hasattr(module, "epsilon"):
            module.epsilon = 1e-200
    return oracle


@given(
    hypers=HYPERS,
    names=st.lists(st.sampled_from(sorted(STRUCTURES)), min_size=1, max_size=3),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=40)
def test_same_weights_same_numbers(hypers, names, seed):
    assert_parity(hypers, rattled(names, seed), make_oracle(hypers, seed))


@given(hypers=HYPERS, seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_sharp_attention(hypers, seed):
    # metatrain gives absent neighbours the weight 1e-15 in the softmax, which sharp attention can
    # amplify without bound; in this package they have no weight at all.
    oracle = without_padding_weight(make_oracle(hypers, seed, gain=1.2))
    assert_parity(hypers, rattled(["ethanol", "slab"], seed), oracle)


PUBLISHED = {
    "cutoff_function": "Bump",
    "cutoff_width": 0.5,
    "d_pet": 16,
    "d_node": 32,
    "d_head": 16,
    "d_feedforward": 32,
    "num_heads": 4,
    "num_attention_layers": 2,
    "num_gnn_layers": 2,
    "normalization": "RMSNorm",
    "activation": "SwiGLU",
    "transformer_type": "PreLN",
    "attention_temperature": 1.0,
    "featurizer_type": "feedforward",
    "num_neighbors_adaptive": None,
    "adaptive_cutoff_method": "solver",
    "cutoff_width_adaptive": 1.0,
}
ADAPTIVE = {**PUBLISHED, "num_neighbors_adaptive": 6.0}
ON_A_GRID = {**ADAPTIVE, "adaptive_cutoff_method": "grid", "cutoff_width_adaptive": 0.5}
OF_2023 = {
    **PUBLISHED,
    "cutoff_function": "Cosine",
    "d_node": 16,
    "normalization": "LayerNorm",
    "activation": "SiLU",
    "transformer_type": "PostLN",
    "featurizer_type": "residual",
}


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize(
    "hypers",
    [PUBLISHED, ADAPTIVE, ON_A_GRID, OF_2023],
    ids=["published", "adaptive", "grid", "of 2023"],
)
def test_every_structure(hypers, name):
    size, largest_force = assert_parity(hypers, rattled([name], 0), make_oracle(hypers, 1))
    forceless = len(STRUCTURES[name]) == 1 or name == "far atoms"
    assert size > 0.01
    assert (largest_force < 1e-10) if forceless else (largest_force > 1e-3)


def test_both_attentions_of_metatrain():
    # In training metatrain writes its attention out, as this package always does.
    assert_parity(PUBLISHED, rattled(["ethanol", "diamond"], 3), make_oracle(PUBLISHED, 2).train())


def test_an_unknown_parameter_is_refused():
    oracle = make_oracle(PUBLISHED, 0)
    oracle.extra = torch.nn.Linear(2, 2)
    with pytest.raises(KeyError, match="extra"):
        potential_from_backend(
            oracle, SPECIES, PETHypers(**PUBLISHED, cutoff=CUTOFF, **AS_METATRAIN), TARGET
        )
