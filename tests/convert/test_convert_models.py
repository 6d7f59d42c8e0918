"""Every version and kind of metatrain's checkpoints gives the potential that it was made of."""

import numpy as np
import pytest
import torch
from metatrain_files import (
    LONG_RANGE,
    SPECIES,
    TABLES,
    baseline_state,
    buffer,
    checkpoint,
    dataset,
    metatrain_hypers,
    network_state,
    random_potential,
    records,
    save,
    target,
)

from pet_mlip.convert import convert
from pet_mlip.errors import UserError

RESIDUAL = {
    "featurizer_type": "residual",
    "normalization": "LayerNorm",
    "activation": "SiLU",
    "transformer_type": "PostLN",
    "cutoff_function": "Cosine",
    "d_node": 8,
}
LARGE = {"d_node": 32, "d_feedforward": 16, "cutoff_function": "Cosine"}


@pytest.fixture
def converted(tmp_path):
    """Function that saves a checkpoint and converts it."""

    def converted(content, head=None):
        return convert(save(content, tmp_path / "metatrain.ckpt"), head)

    return converted


@pytest.fixture
def refusal(converted):
    """Function that returns the sentence with which a checkpoint is refused."""

    def refusal(content, head=None):
        with pytest.raises(UserError, match="cannot be converted") as caught:
            converted(content, head)
        assert str(caught.value).endswith(".")
        return str(caught.value)

    return refusal


def assert_same(found, expected):
    """The same architecture, weights, precision and baseline."""
    assert found.pet_hypers == expected.pet_hypers
    assert found.species == expected.species
    assert not found.training
    state, reference = found.state_dict(), expected.state_dict()
    assert state.keys() == reference.keys()
    for name, value in state.items():
        assert value.dtype == reference[name].dtype, name
        assert torch.equal(value, reference[name]), name


def with_last_row(table):
    """A species table with the row of the padding, as up to version 7."""
    return torch.cat([table, torch.full_like(table[:1], 99.0)])


def old_network_state(potential, large):
    """The network's weights under the names of version 7."""
    state = {}
    for name, value in network_state(potential).items():
        if TABLES.fullmatch(name):
            value = with_last_row(value)
        if name == "edge_embedder.weight":
            name = "embedding.weight"
        elif name.startswith("node_embedders."):
            layer = name.split(".")[1]
            name = "node_embedding.weight" if large else f"gnn_layers.{layer}.node_embedder.weight"
        elif large:
            name = name.replace("combination_norms", "combination_rmsnorms")
        else:
            name = name.replace("mlp.w_in", "mlp.0").replace("mlp.w_out", "mlp.3")
        state[name] = value
    return state


def old_checkpoint(potential, version, large=False):
    """A checkpoint of a version before 16."""
    network = old_network_state(potential, large) if version < 8 else network_state(potential)
    baseline = baseline_state(potential)
    hypers = metatrain_hypers(potential)
    added = {
        8: ["normalization", "activation", "transformer_type", "featurizer_type", "d_node"],
        10: ["num_neighbors_adaptive", "cutoff_function"],
        11: ["attention_temperature"],
        12: ["adaptive_cutoff_method"],
        14: ["cutoff_width_adaptive"],
        15: ["system_conditioning", "max_charge", "max_spin_multiplicity"],
    }
    for since, names in added.items():
        for name in names if version < since else ():
            del hypers[name]
    if version < 13:
        del baseline["scaler.energy_per_target_scaler_buffer"]
        del baseline["scaler.energy_per_property_scaler_buffer"]
    if version < 7:
        baseline = {name: v for name, v in baseline.items() if not name.startswith("scaler.")}
        baseline["scaler.scales"] = torch.tensor([0.75])
    if version < 2:
        types = baseline.pop("additive_models.0.model.type_to_index")
        baseline["additive_models.0.type_to_index"] = types
    state = {**network, **baseline}
    content = checkpoint(potential, model_ckpt_version=version)
    content["model_data"]["model_hypers"] = hypers
    content["best_model_state_dict"] = state
    content["model_state_dict"] = {name: torch.zeros_like(v) for name, v in state.items()}
    if large:
        content["model_state_dict"] = state
        content["best_model_state_dict"] = {n: torch.zeros_like(v) for n, v in state.items()}
    return content


@pytest.mark.parametrize("version", range(1, 16))
def test_every_version(converted, version):
    hypers = RESIDUAL if version < 8 else {"cutoff_function": "Cosine"}
    potential = random_potential(version, **hypers)
    found = converted(old_checkpoint(potential, version))
    assert_same(found.potential, potential)
    assert found.source["checkpoint_version"] == version


@pytest.mark.parametrize("version", [1, 4, 7])
def test_large_models_of_old(converted, version):
    potential = random_potential(version, **LARGE)
    found = converted(old_checkpoint(potential, version, large=True))
    assert_same(found.potential, potential)


@pytest.mark.parametrize("hypers", [{}, RESIDUAL, {"num_gnn_layers": 3, "d_head": 3}])
def test_the_newest_version(converted, hypers):
    potential = random_potential(3, **hypers)
    found = converted(checkpoint(potential))
    assert_same(found.potential, potential)
    assert found.dtype == "float32"
    assert found.notes == []
    source = found.source
    assert (source["head"], source["epoch"], source["energy_unit"]) == ("energy", 7, "eV")
    assert source["references"] == ["https://example.org/pet"]
    assert len(source["sha256"]) == 64


@pytest.mark.parametrize("method", ["solver", "grid"])
def test_adaptive_cutoffs(converted, method):
    hypers = {"num_neighbors_adaptive": 6.0, "adaptive_cutoff_method": method}
    potential = random_potential(1, **hypers, cutoff_width_adaptive=0.75)
    assert_same(converted(checkpoint(potential)).potential, potential)
    # As they were before versions 12 and 14.
    potential = random_potential(1, num_neighbors_adaptive=6.0, adaptive_cutoff_method="grid")
    content = old_checkpoint(potential, 11)
    found = converted(content).potential.pet_hypers
    assert found.adaptive_cutoff_method == "grid"
    assert found.cutoff_width_adaptive == found.cutoff_width == 0.5


def test_charge_and_spin(converted):
    potential = random_potential(2, system_conditioning=True, max_charge=3)
    content = checkpoint(potential)
    state = content["best_model_state_dict"]
    # metatrain has them under two names.
    alias = {n.removeprefix("backend."): v for n, v in state.items() if ".system_cond" in n}
    assert len(alias) == 6
    state.update(alias)
    assert_same(converted(content).potential, potential)


def test_repulsion(converted, refusal):
    potential = random_potential(2, zbl=True)
    content = checkpoint(potential)
    radii = torch.tensor([0.31, 0.76, 0.66])  # float32: less precise than ours
    index = content["best_model_state_dict"]["backend.species_to_species_index"].int()
    content["best_model_state_dict"] |= {
        "additive_models.1.species_to_index": index,
        "additive_models.1.covalent_radii": radii,
    }
    found = converted(content).potential
    assert_same(found, potential)
    assert torch.equal(found.repulsion.radii, radii.double())
    content["model_data"]["dataset_info"] = dataset({"energy": target(unit="meV")})
    assert not converted(content).potential.zbl
    content["model_data"]["model_hypers"]["zbl"] = False
    assert "covalent_radii" in refusal(content)


def test_without_best_weights(converted):
    potential = random_potential()
    content = checkpoint(potential, best_model_state_dict=None)
    content["model_state_dict"] = checkpoint(potential)["best_model_state_dict"]
    found = converted(content)
    assert_same(found.potential, potential)
    assert found.source["epoch"] == 9


def test_without_a_version(converted):
    potential = random_potential(0, **RESIDUAL)
    content = old_checkpoint(potential, 1)
    del content["model_ckpt_version"]
    assert_same(converted(content).potential, potential)


def test_float64(converted):
    potential = random_potential().set_dtype(torch.float64)
    found = converted(checkpoint(potential))
    assert found.dtype == "float64"
    assert_same(found.potential, potential)


def test_species_in_another_order(converted):
    potential = random_potential()
    content = checkpoint(potential)
    state = content["best_model_state_dict"]
    order = torch.tensor([2, 0, 1])  # the rows of 1, 6 and 8
    state["backend.species_to_species_index"][torch.tensor(SPECIES)] = order
    for name in state:
        if TABLES.fullmatch(name):
            state[name] = state[name][order.argsort()]
    assert_same(converted(content).potential, potential)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("eV", 1.0),
        ("meV", 1e-3),
        ("Hartree", 27.211386),
        ("kcal/mol", 0.0433641),
        ("kJ/mol", 0.01036427),
    ],
)
def test_units_of_energy(converted, unit, factor):
    content = checkpoint(random_potential())
    content["model_data"]["dataset_info"] = dataset({"energy": target(unit=unit)})
    found = converted(content).potential
    assert float(found.scale) == pytest.approx(0.75 * factor, rel=1e-6)
    assert found.composition.tolist() == pytest.approx(
        [-1.5 * factor, -20.25 * factor, -30.125 * factor], rel=1e-6
    )


def test_unnamed_units_are_said(converted):
    content = checkpoint(random_potential())
    content["model_data"]["dataset_info"] = dataset({"energy": target(unit="")}, length_unit="")
    notes = " ".join(converted(content).notes)
    assert "eV is assumed" in notes
    assert "Å is assumed" in notes


@pytest.mark.parametrize("length", ["Angstrom", "angstrom", "A"])
def test_spellings_of_angstrom(converted, length):
    content = checkpoint(random_potential())
    content["model_data"]["dataset_info"] = dataset({"energy": target()}, length_unit=length)
    assert converted(content).notes == []


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (dataset({"energy": target(unit="bananas")}), "unit of energy is bananas"),
        (dataset({"energy": target()}, length_unit="Bohr"), "length unit is Bohr"),
        (dataset({"energy": target(shape=(0, 2))}), "not one scalar"),
        (dataset({"energy": target(shape=(0, 3, 1))}), "not one scalar"),
        (dataset({"energy": target(n_blocks=2)}), "not one scalar"),
        (dataset({"energy": target(samples=("system", "first_atom"))}), "pairs of atoms"),
        (dataset({"energy": target(quantity="dipole")}), "predicts no energy, only energy"),
        (dataset({}), "predicts no energy"),
    ],
)
def test_targets_that_are_no_energy(refusal, info, message):
    content = checkpoint(random_potential())
    content["model_data"]["dataset_info"] = info
    assert message in refusal(content)


def several_heads(main, other, extra="non_conservative_forces"):
    """Two energies with the same network but other heads, and forces."""
    content = checkpoint(main, "energy")
    second = network_state(other, "mtt::pbe")
    heads = {name: value for name, value in second.items() if "mtt::pbe" in name}
    third = {name.replace("mtt::pbe", extra): 2 * value for name, value in heads.items()}
    state = content["best_model_state_dict"]
    state |= {f"backend.{name}": value for name, value in {**heads, **third}.items()}
    state |= baseline_state(other, "mtt::pbe")
    state[f"scaler.{extra}_scaler_buffer"] = buffer([[1.0]], records(["atomic_type"], [(-1,)]))
    targets = {
        "mtt::pbe": target(),
        "energy": target(),
        extra: target(quantity="force", unit="eV/A", shape=(0, 3, 1), samples=("system", "atom")),
    }
    content["model_data"]["dataset_info"] = dataset(targets)
    return content


def other_heads(potential):
    """A potential with the same network but other heads and another baseline."""
    other = random_potential(99)
    state = potential.state_dict()
    theirs = {name: v for name, v in other.state_dict().items() if "heads" in name}
    other.load_state_dict({**state, **theirs})
    other.set_baseline({1: -2.0, 6: -3.0, 8: -4.0}, 1.5)
    return other


def test_several_heads(converted, refusal):
    main = random_potential(1)
    other = other_heads(main)
    content = several_heads(main, other)
    found = converted(content)
    assert_same(found.potential, main)
    assert found.notes == ["Left out, for not being energy: mtt::pbe, non_conservative_forces."]
    found = converted(content, "mtt::pbe")
    assert_same(found.potential, other)
    assert found.source["left_out"] == ["energy", "non_conservative_forces"]
    assert "no energy; its energies are mtt::pbe, energy" in refusal(
        content, "non_conservative_forces"
    )
    assert "--head forces is not predicted" in refusal(content, "forces")


def test_a_choice_of_heads_is_asked_for(converted, refusal):
    potential = random_potential()
    content = checkpoint(potential, "a")
    assert converted(content).source["head"] == "a"
    content["model_data"]["dataset_info"] = dataset({"a": target(), "b": target()})
    assert "several energies: choose --head a or b" in refusal(content)


def test_scales_of_version_6_are_told_by_their_place(converted):
    potential = random_potential(0, **RESIDUAL)
    content = old_checkpoint(potential, 6)
    content["best_model_state_dict"]["scaler.scales"] = torch.tensor([5.0, 0.75])
    forces = target(quantity="force", shape=(0, 3, 1))
    content["model_data"]["dataset_info"] = dataset({"forces": forces, "energy": target()})
    assert_same(converted(content).potential, potential)


def per_atom_scales(values):
    """A checkpoint of an energy of each atom, with a scale for each species."""
    content = checkpoint(random_potential())
    rows = records(["atomic_type"], [(i,) for i in range(len(SPECIES))])
    state = content["best_model_state_dict"]
    state["scaler.energy_per_target_scaler_buffer"] = buffer(np.array(values)[:, None], rows)
    state["scaler.energy_per_property_scaler_buffer"] = buffer(np.full((3, 1), 2.0), rows)
    content["model_data"]["dataset_info"] = dataset({"energy": target(samples=("system", "atom"))})
    return content


def test_scales_of_each_species(converted, refusal):
    assert float(converted(per_atom_scales([0.5, 0.5, 0.5])).potential.scale) == 1.0
    assert "differs between elements" in refusal(per_atom_scales([0.5, 0.5, 0.6]))


def test_uncertainties_are_left_out(converted):
    potential = random_potential()
    wrapped = {
        "architecture_name": "llpr",
        "model_ckpt_version": 4,
        "wrapped_model_checkpoint": checkpoint(potential),
        "model_state_dict": {"covariance_energy_uncertainty": torch.eye(2)},
    }
    found = converted(wrapped)
    assert_same(found.potential, potential)
    assert found.notes == ["Its uncertainty estimate (LLPR) is left out."]
    assert found.source["architecture"] == "llpr around pet"


def with_lora(potential, rank=2):
    """A checkpoint with corrections of the attention, and the potential with them added."""
    content = checkpoint(potential)
    state = content["best_model_state_dict"]
    merged = potential.state_dict()
    draw = torch.Generator().manual_seed(0)
    names = [n for n in state if n.endswith(("input_linear.weight", "output_linear.weight"))]
    assert len(names) == 4
    for name in names:
        layer = name.removesuffix(".weight")
        weight, bias = state.pop(name), state.pop(f"{layer}.bias")
        down = torch.randn(rank, weight.shape[1], generator=draw)
        up = torch.randn(weight.shape[0], rank, generator=draw)
        state[f"{layer}.linear.weight"], state[f"{layer}.linear.bias"] = weight, bias
        state[f"{layer}.lora_A.weight"], state[f"{layer}.lora_B.weight"] = down, up
        ours = name.replace("backend.gnn_layers", "pet.layers").replace("trans.layers", "layers")
        merged[ours] = weight.double() + 3.0 * up.double() @ down.double()
    return content, merged


def test_lora_is_merged(converted, refusal):
    potential = random_potential()
    content, merged = with_lora(potential)
    method = {"method": "lora", "config": {"rank": 2, "alpha": 6.0}, "inherit_heads": {}}
    content["best_model_state_dict"]["finetune_config"] = method
    for name, value in converted(content).potential.state_dict().items():
        torch.testing.assert_close(value, merged[name].to(value.dtype), rtol=1e-14, atol=1e-14)
    # Where it is found otherwise.
    del content["best_model_state_dict"]["finetune_config"]
    assert "alpha" in refusal(content)
    content["model_state_dict"]["finetune_config"] = method
    weight = "pet.layers.0.layers.0.attention.input_linear.weight"
    found = converted(content).potential.state_dict()
    torch.testing.assert_close(found[weight], merged[weight], rtol=1e-14, atol=1e-14)


def test_other_finetuning_changes_nothing(converted):
    potential = random_potential()
    content = checkpoint(potential)
    content["best_model_state_dict"]["finetune_config"] = {"method": "full", "config": {}}
    assert_same(converted(content).potential, potential)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("long_range", {**LONG_RANGE, "enable": True}, "long-range features"),
        ("readout_order", 2, "readout_order"),
        ("num_radial", 8, "num_radial"),
        ("normalization", "BatchNorm", "normalization"),
        ("cutoff_width", 4.0, "cutoff_width"),
        ("d_head", 7, "weights do not fit"),
        ("num_gnn_layers", 1, "superfluous"),
        ("num_gnn_layers", 3, "missing"),
    ],
)
def test_hyperparameters_without_a_counterpart(refusal, name, value, message):
    content = checkpoint(random_potential())
    content["model_data"]["model_hypers"][name] = value
    assert message in refusal(content)


@pytest.mark.parametrize(
    "name",
    [
        "backend.gnn_layers.0.extra.weight",
        "long_range_featurizer.weight",
        "additive_models.1.covalent_radii",
        "additive_models.2.anything",
        "backend.node_heads.unknown.0.0.weight",
        "backend.system_conditioning.project.0.weight",
    ],
)
def test_weights_without_a_counterpart(refusal, name):
    content = checkpoint(random_potential())
    content["best_model_state_dict"][name] = torch.zeros(1)
    message = refusal(content)
    assert name.removeprefix("backend.") in message.replace("superfluous cond", "system_cond")


def test_a_baseline_without_some_element(refusal):
    content = checkpoint(random_potential())
    rows = records(["center_type"], [(1,), (6,)])
    content["best_model_state_dict"]["additive_models.0.energy_composition_buffer"] = buffer(
        [[1.0], [2.0]], rows
    )
    assert "lacks the elements [8]" in refusal(content)
