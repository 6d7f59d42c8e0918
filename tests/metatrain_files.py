"""Checkpoints as metatrain writes them, made without it from a potential of this package."""

import io
import re
import sys
import types
import zipfile
from collections import OrderedDict
from contextlib import contextmanager

import numpy as np
import torch
from model_tools import BLOCKS

from pet_mlip.convert.hypers import AS_METATRAIN, OURS_ALONE
from pet_mlip.convert.weights import metatrain_name
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.hypers import PETHypers

SPECIES = [1, 6, 8]
RESIDUAL = {
    "featurizer_type": "residual",
    "normalization": "LayerNorm",
    "activation": "SiLU",
    "transformer_type": "PostLN",
    "cutoff_function": "Cosine",
    "d_node": 8,
}
LONG_RANGE = {"enable": False, "use_ewald": False, "smearing": 1.4}
TABLES = re.compile(
    r"(backend\.)?(edge_embedder|node_embedders\.\d+|gnn_layers\.\d+\.neighbor_embedder)\.weight"
)


def fake_class(module, name):
    """A class that pickles under a name of another package."""
    return type(name, (), {"__module__": module, "__qualname__": name})


DatasetInfo = fake_class("metatrain.utils.data.dataset", "DatasetInfo")
TargetInfo = fake_class("metatrain.utils.data.target_info", "TargetInfo")
TensorMap = fake_class("metatensor.torch", "TensorMap")
ModelMetadata = fake_class("metatomic.torch", "ModelMetadata")
FAKES = (DatasetInfo, TargetInfo, TensorMap, ModelMetadata)


class WithState:
    """Pickles as an object of a fake class with some state."""

    def __init__(self, cls, state):
        self.cls = cls
        self.state = state

    def __reduce__(self):
        return self.cls, (), self.state


@contextmanager
def importable(*classes):
    """Let pickle find fake classes, whether or not their packages are installed."""
    before = dict(sys.modules)
    for cls in classes:
        parts = cls.__module__.split(".")
        for k in range(len(parts)):
            name = ".".join(parts[: k + 1])
            sys.modules[name] = types.ModuleType(name)
    for cls in classes:
        setattr(sys.modules[cls.__module__], cls.__name__, cls)
    try:
        yield
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]
        sys.modules.update(before)


def save(content, path):
    """torch.save with the fake classes importable."""
    with importable(*FAKES):
        torch.save(content, path)
    return path


def records(names, rows):
    """Labels as metatensor stores them."""
    dtype = [(name, "<i4") for name in names]
    return np.array([tuple(row) for row in rows], dtype=dtype)


def buffer(values, samples, properties=("energy",), n_blocks=1):
    """A serialized tensor map of equal blocks, as a tensor of bytes."""
    arrays = {"keys": records(["_"], [(i,) for i in range(n_blocks)])}
    for i in range(n_blocks):
        arrays[f"blocks/{i}/values"] = np.asarray(values, dtype=np.float64)
        arrays[f"blocks/{i}/samples"] = samples
        columns = [(k,) for k in range(np.shape(values)[-1])]
        arrays[f"blocks/{i}/properties"] = records(properties, columns)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            npy = io.BytesIO()
            np.save(npy, array)
            archive.writestr(f"{name}.npy", npy.getvalue())
    return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)


def target(quantity="energy", unit="eV", shape=(0, 1), samples=("system",), n_blocks=1):
    """The description of a target."""
    layout = buffer(np.zeros(shape), records(samples, []), n_blocks=n_blocks)
    state = (layout, "__torch__.torch.classes.metatensor.TensorMap")
    described = {"quantity": quantity, "unit": unit, "layout": WithState(TensorMap, state)}
    return WithState(TargetInfo, described)


def dataset(targets, length_unit="angstrom", species=SPECIES):
    """The description of the training data."""
    state = {"length_unit": length_unit, "_atomic_types": list(species), "targets": targets}
    return WithState(DatasetInfo, state)


def random_potential(seed=0, **hypers):
    """A small random potential that a checkpoint of metatrain could hold."""
    sizes = {"d_pet": 8, "d_node": 12, "d_head": 6, "d_feedforward": 10, "num_heads": 2}
    sizes |= {"cutoff": 3.5, "num_attention_layers": 1, "cutoff_width": 0.5}
    sizes |= {"featurizer_type": "feedforward", **BLOCKS, **AS_METATRAIN, **hypers}
    plain = SymmetrizationHypers(ensemble="none", train="structure")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        potential = Potential(SPECIES, PETHypers(**sizes), plain)
    potential.set_baseline({1: -1.5, 6: -20.25, 8: -30.125}, 0.75)
    return potential.eval()


def network_state(potential, head="energy"):
    """The network's weights under the names of version 15."""
    index = torch.full((SPECIES[-1] + 1,), -1)
    index[torch.tensor(SPECIES)] = torch.arange(len(SPECIES))
    state = OrderedDict(species_to_species_index=index)
    for name, value in potential.pet.state_dict().items():
        if value.numel() > 0:
            state[metatrain_name(name, head)] = value.clone()
    return state


def baseline_state(potential, head="energy"):
    """Composition and scale as of version 13."""
    types = torch.zeros(SPECIES[-1] + 1, dtype=torch.int64)
    rows = records(["center_type"], [(z,) for z in SPECIES])
    one = records(["atomic_type"], [(-1,)])
    return {
        f"additive_models.0.{head}_composition_buffer": buffer(
            potential.composition.numpy()[:, None], rows
        ),
        "additive_models.0.dummy_buffer": torch.zeros(1, dtype=torch.float64),
        "additive_models.0.model.type_to_index": types,
        "scaler.dummy_buffer": torch.zeros(1, dtype=torch.float64),
        "scaler.model.type_to_index": types,
        f"scaler.{head}_scaler_buffer": buffer([[float(potential.scale)]], one),
        f"scaler.{head}_per_target_scaler_buffer": buffer([[float(potential.scale)]], one),
        f"scaler.{head}_per_property_scaler_buffer": buffer([[1.0]], one),
    }


def metatrain_hypers(potential):
    """The hyperparameters of version 16."""
    ours = potential.pet_hypers.model_dump(exclude=OURS_ALONE)
    return {**ours, "long_range": LONG_RANGE}


def checkpoint(potential, head="energy", **changes):
    """A checkpoint of version 16; its last weights, which are not exported, are zero."""
    network = network_state(potential, head)
    best = {f"backend.{name}": value for name, value in network.items()}
    best |= baseline_state(potential, head)
    last = {name: torch.zeros_like(value) for name, value in best.items()}
    references = '{"references": {"architecture": ["https://example.org/pet"]}}'
    return {
        "architecture_name": "pet",
        "model_ckpt_version": 16,
        "trainer_ckpt_version": 999,
        "metadata": WithState(ModelMetadata, (references, "ModelMetadata")),
        "model_data": {
            "model_hypers": metatrain_hypers(potential),
            "dataset_info": dataset({head: target()}),
        },
        "epoch": 9,
        "best_epoch": 7,
        "model_state_dict": {**last, "finetune_config": {}},
        "best_model_state_dict": {**best, "finetune_config": {}},
        **changes,
    }


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
