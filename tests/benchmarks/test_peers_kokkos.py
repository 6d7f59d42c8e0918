import json
import struct

import numpy as np
import pytest
from ase.build import molecule
from metatrain_files import network_state

from benchmarks.peers.kokkos import write_kokkos
from benchmarks.peers.settings import SHAPES
from benchmarks.peers.weights import own_potential, with_ensemble
from pet_mlip import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export import save_model


def read_safetensors(path):
    """Every array of a file, by name."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    data = content[8 + length :]
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
    }


def test_the_files_hold_all_weights_under_metatrains_names(tmp_path):
    potential = own_potential(SHAPES["tiny"], seed=3)
    potential.set_baseline({z: -0.5 * z for z in potential.species}, 2.0)
    write_kokkos(tmp_path / "model", potential)
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["energy_scale"] == 2.0
    assert description["composition_energies"] == [-0.5 * z for z in potential.species]
    assert [description["species_to_index"][z] for z in potential.species] == [0, 1, 2, 3, 4]
    assert description["hypers"]["head_dim"] == 8
    arrays = read_safetensors(tmp_path / "model.safetensors")
    weights = potential.pet.state_dict()
    names = {
        "gnn_layers.1.trans.layers.0.mlp.w_in.weight": "layers.1.layers.0.mlp.w_in.weight",
        "gnn_layers.1.compress.2.bias": "layers.1.compress_out.bias",
        "node_last_layers.energy.0.energy___0.weight": "readouts.0.node_head.last.weight",
        "edge_embedder.weight": "edge_embedder.weight",
    }
    for theirs, ours in names.items():
        assert np.array_equal(arrays[theirs], weights[ours].numpy())
    assert arrays.keys() == network_state(potential).keys() - {"species_to_species_index"}
    assert sum(array.size for array in arrays.values()) == potential.n_parameters()


def test_what_pet_kokkos_does_not_know_is_refused(tmp_path):
    potential = own_potential(SHAPES["tiny"], seed=0)
    with pytest.raises(UserError, match="no ensembles"):
        write_kokkos(tmp_path / "model", with_ensemble(potential, "closest_pairs"))
    with pytest.raises(UserError, match="no radial functions"):
        write_kokkos(tmp_path / "model", own_potential(SHAPES["tiny"] | {"num_radial": 4}, seed=0))


def test_pet_kokkos_gives_the_same_energies_and_forces(tmp_path):
    pytest.importorskip("pet_kokkos")
    from pet_kokkos.ase import PETCalculator as KokkosCalculator

    potential = own_potential(SHAPES["tiny"], seed=0)
    save_model(tmp_path / "model.pt", potential, dtype="float64")
    write_kokkos(tmp_path / "model", potential)
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    found = []
    for calculator in (
        PETCalculator(tmp_path / "model.pt"),
        KokkosCalculator(str(tmp_path / "model")),
    ):
        calculator.calculate(atoms, ["energy", "forces"])
        found.append(calculator.results)
    assert found[0]["energy"] == pytest.approx(found[1]["energy"], abs=1e-4)
    assert np.abs(found[0]["forces"] - found[1]["forces"]).max() < 1e-5
