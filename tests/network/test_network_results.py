"""Results that are no energies: scalars, vectors and tensors of atoms."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from domain_tools import domain_of, whole_system
from model_tools import CUTOFF, FEATURIZERS, make_potential, predict_atoms, rattled, structures
from scipy.spatial.transform import Rotation

from pet_mlip.export.module import ExportedModel

RESULTS = {
    "dipole": None,
    "polarizability": None,
    "charges": None,
    "shielding": {"rank": 2, "per_atom": True, "unit": "ppm"},
    "moment": {"rank": 1, "per_atom": True},
}
PERIODIC = ["silicon", "skewed", "slab", "wire", "self-images"]


def potential_with_results(featurizer="residual", **hypers):
    """A random potential of several results, with baselines."""
    potential = make_potential(featurizer=featurizer, results=RESULTS, **hypers)
    for k, name in enumerate(RESULTS):
        baseline = {z: 0.1 * z + k for z in potential.species}
        potential.set_result_baseline(name, baseline, 0.5 + k)
    return potential


@pytest.mark.parametrize("featurizer", FEATURIZERS)
@pytest.mark.parametrize("name", ["ethanol", *PERIODIC, "water", "CO2", "dimer", "atom"])
def test_results_turn_with_the_atoms(featurizer, name):
    potential, atoms = potential_with_results(featurizer), structures()[name]
    expected = predict_atoms(potential, atoms).results
    order = np.random.default_rng(0).permutation(len(atoms))
    for seed, sign in ((1, 1.0), (2, -1.0)):
        turn = sign * Rotation.random(rng=seed).as_matrix()
        turned = atoms[order]
        turned.set_cell(atoms.cell.array @ turn)
        turned.positions = atoms.positions[order] @ turn + [0.3, -7.0, 1.1]
        found = predict_atoms(potential, turned).results
        for key, value in expected.items():
            value = value[order] if potential.pet_hypers.results[key].per_atom else value
            rank = potential.pet_hypers.results[key].rank
            matrix = torch.from_numpy(turn)
            if rank > 0:
                value = value @ matrix
            if rank == 2:
                value = matrix.T @ value
            torch.testing.assert_close(found[key], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["ethanol", "skewed"])
def test_results_are_sums_of_readouts(name):
    """The formulas of `pet_mlip.network.results`, atom by atom and edge by edge."""
    from model_tools import graph_of

    potential, atoms = potential_with_results(num_gnn_layers=1), structures()[name]
    readouts = potential.pet.result_readouts[0].by_name
    seen = {}

    def keep(module, given):
        seen.update(zip(("nodes", "edges", "centre", "switch", "vectors"), given, strict=False))

    hook = potential.pet.result_readouts[0].register_forward_pre_hook(keep)
    found = predict_atoms(potential, atoms).results
    hook.remove()
    assert len(seen["centre"]) <= graph_of(atoms).edge_vectors.shape[0]
    species = [potential.species.index(z) for z in atoms.numbers]
    for k, (key, result) in enumerate(potential.pet_hypers.results.items()):
        readout, values = readouts["of_" + key], []
        for i in range(len(atoms)):
            value = torch.zeros(result.shape, dtype=torch.float64)
            eye = torch.eye(3, dtype=torch.float64)
            if result.rank != 1:
                scalar = readout.node_head(seen["nodes"][i : i + 1])[0][0]
                value = value + (scalar if result.rank == 0 else scalar * eye)
            for e in torch.nonzero(seen["centre"] == i).flatten().tolist():
                f = seen["switch"][e]
                of_edge = readout.edge_head(seen["edges"][e : e + 1])[0][0] * f
                r = seen["vectors"][e] / seen["vectors"][e].norm()
                if result.rank == 0:
                    value = value + of_edge
                elif result.rank == 1:
                    value = value + of_edge * r
                else:
                    of_pair = readout.pair_head(seen["edges"][e : e + 1])[0][0] * f
                    value = value + of_edge * eye + of_pair * torch.outer(r, r)
            baseline = potential.result_baselines[k, species[i]]
            shift = {0: baseline, 1: 0.0, 2: baseline * eye}[result.rank]
            values.append(potential.result_scales[k] * value + shift)
        expected = torch.stack(values)
        if not result.per_atom:
            expected = expected.sum(dim=0, keepdim=True)
        torch.testing.assert_close(found[key], expected, rtol=0, atol=1e-12)


def test_results_are_size_consistent():
    potential = potential_with_results()
    first, second = rattled(molecule("CH3CH2OH")), rattled(molecule("H2O"), 3)
    apart = second.copy()
    apart.translate([40.0, 0.0, 0.0])
    together = predict_atoms(potential, first + apart).results
    alone = [predict_atoms(potential, each).results for each in (first, second)]
    for key, value in together.items():
        if potential.pet_hypers.results[key].per_atom:
            expected = torch.cat([found[key] for found in alone])
        else:
            expected = alone[0][key] + alone[1][key]
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-10)


def test_results_of_a_lone_atom_have_no_direction():
    potential = potential_with_results()
    found = predict_atoms(potential, Atoms("O")).results
    assert found["dipole"].abs().max() == 0.0
    tensor = found["polarizability"][0]
    torch.testing.assert_close(tensor, tensor[0, 0] * torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("featurizer", FEATURIZERS)
def test_results_are_smooth_at_the_cutoff(featurizer):
    """A neighbour that comes in from beyond the cutoff."""
    potential = potential_with_results(featurizer)
    values = []
    for x in np.linspace(potential.cutoff - 2e-3, potential.cutoff + 2e-3, 9):
        atoms = Atoms("COH", [(0, 0, 0), (-1.1, 0.2, 0), (x, 0, 0)])
        found = predict_atoms(potential, atoms).results
        values.append(torch.cat([found[key].flatten() for key in sorted(found)]))
    steps = torch.stack(values).diff(dim=0).abs().max()
    assert steps < 1e-8


@pytest.mark.parametrize("featurizer", FEATURIZERS)
@pytest.mark.parametrize("chunk_size", [0, 7])
def test_results_of_a_domain_are_those_of_the_whole(featurizer, chunk_size):
    potential = potential_with_results(featurizer)
    atoms = rattled(bulk("SiO", "zincblende", a=5.0) * (3, 1, 1), 2)
    reach = potential.pet_hypers.interaction_range
    expected, module = predict_atoms(potential, atoms).results, ExportedModel(potential)
    whole = whole_system(atoms, CUTOFF + 0.3)
    parts = [domain_of(atoms, own, CUTOFF + 0.3, reach, reach) for own in ([1, 3, 4], [5, 0, 2])]
    for domain in (whole, *parts):
        output = module.drive(domain.points, domain.ends, *domain.lists, chunk_size=chunk_size)
        found = output[6]
        own = domain.source[: domain.graph.atoms_within[0]]
        for key in ("charges", "shielding", "moment"):
            torch.testing.assert_close(found[key], expected[key][own], rtol=0, atol=1e-11)
        if domain is whole:
            total = found["dipole"].sum(dim=0)
            torch.testing.assert_close(total, expected["dipole"][0], rtol=0, atol=1e-11)


def test_energies_do_not_depend_on_other_results():
    """Readouts share features, which they leave alone."""
    with_results = potential_with_results()
    without = make_potential(featurizer="residual")
    without.pet.load_state_dict(
        {k: v for k, v in with_results.pet.state_dict().items() if "result_readouts" not in k}
    )
    atoms = structures()["skewed"]
    expected, found = (predict_atoms(each, atoms) for each in (without, with_results))
    assert torch.equal(found.energy, expected.energy)
    assert torch.equal(found.forces, expected.forces)
