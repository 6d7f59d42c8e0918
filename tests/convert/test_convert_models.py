"""Every version and kind of metatrain's checkpoints gives the potential that it was made of."""

import pytest
import torch
from metatrain_files import (
    LONG_RANGE,
    RESIDUAL,
    SPECIES,
    TABLES,
    assert_same,
    buffer,
    checkpoint,
    dataset,
    old_checkpoint,
    random_potential,
    records,
    target,
)

from pet_mlip.convert.llpr import LEFT_OUT
from pet_mlip.convert.weights import metatrain_name, our_name

NAMES = """
layers.1.layers.0.center.norm.weight   gnn_layers.1.trans.layers.0.norm_center_features.weight
layers.1.layers.0.center.mlp.w_in.bias gnn_layers.1.trans.layers.0.center_mlp.w_in.bias
layers.1.layers.0.mlp.w_in.weight      gnn_layers.1.trans.layers.0.mlp.w_in.weight
layers.0.compress_in.weight            gnn_layers.0.compress.0.weight
layers.0.compress_out.bias             gnn_layers.0.compress.2.bias
layers.1.edge_embedder.weight          gnn_layers.1.edge_embedder.weight
layers.1.neighbor_embedder.weight      gnn_layers.1.neighbor_embedder.weight
node_embedders.0.weight                node_embedders.0.weight
edge_embedder.weight                   edge_embedder.weight
exchanges.1.mixing.norm.weight         combination_norms.1.weight
exchanges.1.mixing.w_in.weight         combination_mlps.1.0.weight
exchanges.1.mixing.w_out.weight        combination_mlps.1.2.weight
conditioning.charge_embedding.weight   system_conditioning.charge_embedding.weight
readouts.0.node_head.first.weight      node_heads.mtt::pbe.0.0.weight
readouts.1.edge_head.second.bias       edge_heads.mtt::pbe.1.2.bias
readouts.1.node_head.last.weight       node_last_layers.mtt::pbe.1.mtt::pbe___0.weight
"""
LARGE = {"d_node": 32, "d_feedforward": 16, "cutoff_function": "Cosine"}


@pytest.mark.parametrize("names", NAMES.split("\n")[1:-1])
def test_names_of_parameters(names):
    ours, theirs = names.split()
    assert our_name(theirs, "mtt::pbe") == ours
    assert metatrain_name(ours, "mtt::pbe") == theirs


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
    width = potential.pet_hypers.cutoff_width
    assert found.cutoff_width_adaptive == found.cutoff_width == width


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
    potential.preparation.repulsion.radii.copy_(radii)
    assert_same(found, potential)
    content["model_data"]["dataset_info"] = dataset({"energy": target(unit="meV")})
    assert not converted(content).potential.preparation.zbl
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


def test_uncertainties_that_were_never_fitted_are_left_out(converted):
    potential = random_potential()
    wrapped = {
        "architecture_name": "llpr",
        "model_ckpt_version": 4,
        "wrapped_model_checkpoint": checkpoint(potential),
        "model_state_dict": {"covariance_energy_uncertainty": torch.zeros(2, 2)},
    }
    found = converted(wrapped)
    assert_same(found.potential, potential)
    assert found.notes == [LEFT_OUT]
    assert not found.potential.uncertainty.known()
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
