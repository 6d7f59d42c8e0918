"""Converted checkpoints give metatrain's own numbers, in float64.

The oracle needs `pip install '.[oracle]'`; without it these tests are skipped.
"""

import copy
import gzip
import warnings
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pet_mlip.convert import convert
from pet_mlip.convert.llpr import KEPT, LEFT_OUT
from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.engine.derivatives import predict

metatrain = pytest.importorskip("metatrain", reason="metatrain, the oracle, is not installed")

import metatensor.torch as mts  # noqa: E402
from metatensor.torch import Labels, TensorBlock, TensorMap  # noqa: E402
from metatomic.torch import ModelOutput, systems_to_torch, unit_conversion_factor  # noqa: E402
from metatrain.llpr import LLPRUncertaintyModel  # noqa: E402
from metatrain.pet import PET  # noqa: E402
from metatrain.pet.modules.finetuning import apply_finetuning_strategy  # noqa: E402
from metatrain.utils.architectures import get_default_hypers  # noqa: E402
from metatrain.utils.data import DatasetInfo  # noqa: E402
from metatrain.utils.data.target_info import (  # noqa: E402
    get_energy_target_info,
    get_generic_target_info,
)
from metatrain.utils.evaluate_model import evaluate_model  # noqa: E402
from metatrain.utils.io import model_from_checkpoint  # noqa: E402
from metatrain.utils.neighbor_lists import (  # noqa: E402
    get_requested_neighbor_lists,
    get_system_with_neighbor_lists,
)

FIXTURES = sorted(Path(metatrain.__file__).parent.glob("[pl][el][tp]*/tests/checkpoints/*.ckpt.gz"))
SPECIES = [1, 6, 7, 8]
STRUCTURES = {
    "isolated atom": Atoms("O"),
    "far atoms": Atoms("OH", [(0, 0, 0), (0, 0, 9)]),
    "water": molecule("H2O"),
    "ethanol": molecule("CH3CH2OH"),
    "diamond": bulk("C", "diamond", a=3.57),
    "one atom, many images of itself": bulk("N", "sc", a=1.9),
    "slab": Atoms("CO", [(0, 0, 0), (1.1, 0.8, 1.3)], cell=[2.7, 3.1, 0], pbc=[True, True, False]),
    "close atoms": Atoms("CH", [(0, 0, 0), (0.3, 0.2, 0.1)]),
}


def rattled(names, seed=0):
    structures = [STRUCTURES[name].copy() for name in names]
    for index, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed + index)
    return structures


def oracle(path):
    """metatrain's own model of a checkpoint, in float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = torch.load(file, weights_only=False, map_location="cpu")
        model = model_from_checkpoint(content, "export")
    model = getattr(model, "model", model)  # what an uncertainty is wrapped around
    return model.to(torch.float64).eval()


def ask_metatrain(model, structures, target, info):
    """Energies, forces of all atoms, and stress times volume, by metatrain.

    Charges and spin multiplicities are those in ``atoms.info``.
    """
    structures = [atoms.copy() for atoms in structures]
    for atoms in structures:
        atoms.cell[~atoms.pbc] = 0.0
    systems = systems_to_torch(structures, dtype=torch.float64)
    if isinstance(systems, torch.ScriptObject):
        systems = [systems]
    for system, atoms in zip(systems, structures, strict=True):
        for name, value in atoms.info.items():
            system.add_data(name, system_data(name, value))
    requested = get_requested_neighbor_lists(model)
    systems = [get_system_with_neighbor_lists(s, requested) for s in systems]
    (block,) = evaluate_model(model, systems, {target: info}, is_training=False)[target].blocks()
    forces = -block.gradient("positions").values[..., 0]
    return block.values[:, 0].detach(), forces, block.gradient("strain").values[..., 0]


def system_data(name, value):
    """A number that belongs to a structure."""
    values = torch.tensor([[float(value)]], dtype=torch.float64)
    block = TensorBlock(values, Labels.range("system", 1), [], Labels.range(name, 1))
    return TensorMap(Labels.single(), [block])


def energy_info(target="energy"):
    settings = {"quantity": "energy", "unit": "eV"}
    return get_energy_target_info(target, settings, True, True)


def assert_parity(path, structures, head=None, target="energy"):
    """The same energies, forces and virials; the largest energy and force by metatrain."""
    found = convert(path, head).potential.set_dtype(torch.float64)
    batch = batch_from_atoms(structures, found.cutoff)
    state = [(a.info.get("charge", 0), a.info.get("spin_multiplicity", 1)) for a in structures]
    graph = batch.graph._replace(electronic=torch.tensor(state)[batch.structure])
    ours = predict(found, graph, batch.structure, len(structures))
    theirs = ask_metatrain(oracle(path), structures, target, energy_info(target))
    energies, forces, virial = theirs
    atomic = ours.atomic_energies
    sums = atomic.new_zeros(len(structures)).index_add(0, batch.structure, atomic)
    torch.testing.assert_close(sums, energies, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.forces, forces, rtol=0, atol=1e-8)
    torch.testing.assert_close(
        ours.virial, 0.5 * (virial + virial.transpose(1, 2)), rtol=0, atol=1e-8
    )
    return float(forces.abs().max())


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: f"{p.parts[-4]}-{p.name.split('.')[0]}")
def test_fixtures_of_metatrain(path):
    assert_parity(path, rattled(STRUCTURES))


def test_there_are_fixtures_of_every_version():
    assert len(FIXTURES) > 40


HYPERS = st.fixed_dictionaries(
    {
        "cutoff": st.sampled_from([3.0, 4]),
        "cutoff_function": st.sampled_from(["Bump", "Cosine"]),
        "cutoff_width": st.sampled_from([0.4, 1.1, 3.0]),
        "num_neighbors_adaptive": st.sampled_from([None, 4, 8]),
        "adaptive_cutoff_method": st.sampled_from(["solver", "grid"]),
        "cutoff_width_adaptive": st.sampled_from([0.6, 1.0]),
        "d_pet": st.sampled_from([8, 12]),
        "d_node": st.sampled_from([8, 20]),
        "d_head": st.sampled_from([4, 10]),
        "d_feedforward": st.sampled_from([6, 16]),
        "num_heads": st.sampled_from([1, 4]),
        "num_attention_layers": st.integers(1, 2),
        "num_gnn_layers": st.integers(1, 3),
        "normalization": st.sampled_from(["RMSNorm", "LayerNorm"]),
        "activation": st.sampled_from(["SwiGLU", "SiLU"]),
        "transformer_type": st.sampled_from(["PreLN", "PostLN"]),
        "attention_temperature": st.sampled_from([0.7, 1.0, 2.3]),
        "featurizer_type": st.sampled_from(["residual", "feedforward"]),
        "zbl": st.booleans(),
        "system_conditioning": st.booleans(),
        "max_charge": st.sampled_from([2, 10]),
        "max_spin_multiplicity": st.sampled_from([3, 10]),
    }
)
TARGETS = {
    "energy": get_energy_target_info("energy", {"quantity": "energy", "unit": "eV"}),
    "mtt::pbe": get_energy_target_info("mtt::pbe", {"quantity": "energy", "unit": "kcal/mol"}),
    "non_conservative_forces": get_generic_target_info(
        "non_conservative_forces",
        {
            "quantity": "force",
            "unit": "eV/A",
            "type": {"cartesian": {"rank": 1}},
            "sample_kind": "atom",
            "num_subtargets": 1,
        },
    ),
}


def scalar_map(values, name, rows):
    """A tensor map with a number for each row."""
    samples = Labels([name], torch.tensor(rows, dtype=torch.int32).reshape(-1, 1))
    properties = Labels(["energy"], torch.tensor([[0]]))
    values = torch.tensor(values, dtype=torch.float64).reshape(-1, 1)
    return TensorMap(Labels.single(), [TensorBlock(values, samples, [], properties)])


def random_model(hypers, seed, dtype=torch.float64):
    """metatrain's PET with random weights, none of them left at ones or zeros, and baselines."""
    defaults = get_default_hypers("pet")["model"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = PET({**defaults, **hypers}, DatasetInfo("angstrom", SPECIES, dict(TARGETS)))
    randomize(model, seed)
    for k, name in enumerate(["energy", "mtt::pbe"]):
        baseline = scalar_map([-1.0 - k, -38.1, -54.7, -75.2], "center_type", SPECIES)
        scale = scalar_map([0.7 + k], "atomic_type", [-1])
        for buffer, value in [("", scale), ("_per_target", scale)]:
            setattr(model.scaler, f"{name}{buffer}_scaler_buffer", mts.save_buffer(value))
        setattr(model.additive_models[0], f"{name}_composition_buffer", mts.save_buffer(baseline))
    return model.to(dtype)


def randomize(model, seed):
    """Draw every parameter."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            if parameter.dim() == 1:
                parameter += 0.3 * noise
            else:
                parameter.copy_(0.8 * noise / parameter.shape[1] ** 0.5)


def saved(model, path):
    """The checkpoint that metatrain writes of a model."""
    torch.save(copy.deepcopy(model.get_checkpoint()), path)
    return path


@given(
    hypers=HYPERS,
    names=st.lists(st.sampled_from(sorted(STRUCTURES)), min_size=1, max_size=3),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    # Two models for each example: a failure is shown as it was found.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
def test_random_models(tmp_path, hypers, names, seed, dtype):
    path = saved(random_model(hypers, seed, dtype), tmp_path / "model.ckpt")
    assert_parity(path, rattled(names, seed))


@pytest.mark.parametrize("featurizer", ["residual", "feedforward"])
def test_every_structure_has_forces(tmp_path, featurizer):
    model = random_model({"d_pet": 16, "d_node": 32, "featurizer_type": featurizer}, 3)
    path = saved(model, tmp_path / "model.ckpt")
    for name in STRUCTURES:
        force = assert_parity(path, rattled([name]))
        assert force < 1e-10 if len(STRUCTURES[name]) == 1 or "far" in name else force > 1e-3


def test_another_head(tmp_path):
    path = saved(random_model({"d_pet": 16}, 0), tmp_path / "model.ckpt")
    structures = rattled(["water", "diamond"])
    batch = batch_from_atoms(structures, 4.5)
    found = convert(path, "mtt::pbe").potential
    ours = predict(found, batch.graph, batch.structure, 2)
    info = energy_info("mtt::pbe")
    energies, forces, _ = ask_metatrain(oracle(path), structures, "mtt::pbe", info)
    kcal = unit_conversion_factor("kcal/mol", "eV")
    torch.testing.assert_close(ours.energy, kcal * energies, rtol=1e-10, atol=0)
    torch.testing.assert_close(ours.forces, kcal * forces, rtol=0, atol=1e-8)


@pytest.mark.parametrize("modules", [["input_linear", "output_linear"], ["w_in", "w_out"]])
def test_lora(tmp_path, modules):
    model = random_model({"d_pet": 16, "num_heads": 2}, 5, torch.float32)
    config = {"rank": 3, "alpha": 5.0, "target_modules": modules}
    strategy = {"method": "lora", "config": config, "inherit_heads": {}, "read_from": "x"}
    apply_finetuning_strategy(model, strategy)
    randomize(model, 6)
    content = copy.deepcopy(model.get_checkpoint())
    content["best_model_state_dict"]["finetune_config"] = strategy
    torch.save(content, tmp_path / "lora.ckpt")
    assert_parity(tmp_path / "lora.ckpt", rattled(["ethanol", "diamond"]))


def test_around_an_uncertainty(tmp_path):
    model = random_model({"d_pet": 16}, 7)
    wrapper = LLPRUncertaintyModel(
        get_default_hypers("llpr")["model"], DatasetInfo("angstrom", SPECIES, dict(TARGETS))
    )
    wrapper.set_wrapped_model(model)
    structures = rattled(["ethanol", "diamond"])
    path = saved(wrapper, tmp_path / "llpr.ckpt")
    assert_parity(path, structures)
    assert convert(path).notes[0] == LEFT_OUT

    draw = torch.Generator().manual_seed(0)
    size = wrapper.ll_feat_size
    factor = torch.randn(size, size, generator=draw, dtype=torch.float64).tril()
    factor.diagonal().abs_().add_(size**0.5)
    wrapper.cholesky_energy_uncertainty.copy_(factor)
    wrapper.multiplier_energy_uncertainty.fill_(2.3)
    path = saved(wrapper, tmp_path / "fitted.ckpt")
    found = convert(path)
    assert found.notes[0] == KEPT
    potential = found.potential.set_dtype(torch.float64)
    batch = batch_from_atoms(structures, potential.cutoff)
    inputs = potential.preparation(batch.graph)
    evaluation = potential.evaluate(
        [], inputs, torch.ones(len(batch.graph.species)), False, 0, uncertainty=1
    )
    vectors = potential.uncertainty(evaluation.last, inputs.species)
    ours = vectors.new_zeros(2, size).index_add(0, batch.structure, vectors).norm(dim=1)
    wrapper = wrapper.to(torch.float64).eval()
    systems = [
        get_system_with_neighbor_lists(system, get_requested_neighbor_lists(wrapper))
        for system in systems_to_torch(structures, dtype=torch.float64)
    ]
    wanted = {"energy_uncertainty": ModelOutput(sample_kind="system")}
    theirs = wrapper(systems, wanted)["energy_uncertainty"].block().values.flatten()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=0)


def test_charge_and_spin(tmp_path):
    hypers = {"d_pet": 16, "system_conditioning": True, "max_charge": 2, "max_spin_multiplicity": 4}
    path = saved(random_model(hypers, 8), tmp_path / "model.ckpt")
    structures = rattled(["water", "diamond", "water", "isolated atom"])
    for atoms, charge, spin in zip(structures, [0, -2, 1, 2], [1, 4, 2, 3], strict=True):
        atoms.info = {"charge": charge, "spin_multiplicity": spin}
    assert_parity(path, structures)


def test_the_repulsion_is_of_energies_in_ev(tmp_path):
    path = saved(random_model({"d_pet": 16, "zbl": True}, 9), tmp_path / "model.ckpt")
    assert convert(path).potential.preparation.zbl
    assert not convert(path, "mtt::pbe").potential.preparation.zbl
    model = oracle(path)
    structures = rattled(["close atoms"])
    batch = batch_from_atoms(structures, 4.5)
    ours = predict(convert(path, "mtt::pbe").potential, batch.graph, batch.structure, 1)
    energies = ask_metatrain(model, structures, "mtt::pbe", energy_info("mtt::pbe"))[0]
    kcal = unit_conversion_factor("kcal/mol", "eV")
    torch.testing.assert_close(ours.energy, kcal * energies, rtol=1e-10, atol=0)
