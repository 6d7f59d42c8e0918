"""The structure average: exact invariance of models that have none."""

import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from hypothesis import given, settings
from hypothesis import strategies as st
from model_files import small_potential

from pet_mlip import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export import load_model, save_model

KINDS = {
    "published": {"featurizer_type": "feedforward", "num_radial": 0, "d_node": 24},
    "of 2023": {
        "featurizer_type": "residual",
        "num_radial": 0,
        "normalization": "LayerNorm",
        "activation": "SiLU",
        "transformer_type": "PostLN",
        "cutoff_function": "Cosine",
    },
    "adaptive": {"num_neighbors_adaptive": 6.0, "zbl": True},
    "one layer": {"num_gnn_layers": 1, "featurizer_type": "residual"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Plain models of every kind in float64."""
    folder = tmp_path_factory.mktemp("plain")
    for name, hypers in KINDS.items():
        potential = small_potential("none", seed=1, **hypers)
        save_model(folder / f"{name}.pt", potential, dtype="float64")
    return {name: load_model(folder / f"{name}.pt", device="cpu") for name in KINDS}


def rattled(atoms, amplitude=0.05, seed=0):
    atoms.rattle(amplitude, seed=seed)
    return atoms


def structures():
    slab = Atoms("SiO", [(0, 0, 0), (1.1, 0.8, 1.3)], cell=[2.7, 3.1, 0], pbc=[1, 1, 0])
    return {
        "ethanol": rattled(molecule("CH3CH2OH")),
        "silicon": bulk("Si"),
        "rattled": rattled(bulk("Si")),
        "copper": bulk("Cu"),
        "slab": slab,
        "CO2": molecule("CO2"),
        "nearly linear": rattled(molecule("CO2"), 0.02),
        "dimer": molecule("CO"),
        # A third atom that hardly makes frames: the others' axis sees it at no length at all.
        "T": Atoms("COH", [(0, 0, 0), (0, 0, 1.2), (3.8, 0, 0)]),
        "atom": Atoms("O"),
        "far atoms": Atoms("OH", [(0, 0, 0), (0, 0, 9)]),
    }


def predictions(calculator, atoms):
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces()


def operated(atoms, operation):
    cell, positions = atoms.cell.array @ operation, atoms.positions @ operation
    return Atoms(atoms.numbers, positions, cell=cell, pbc=atoms.pbc)


def random_operation(seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]


@pytest.mark.parametrize("kind", KINDS)
def test_invariance_under_every_operation(models, kind):
    symmetrized = PETCalculator(models[kind], symmetrization="structure")
    for seed, (name, atoms) in enumerate(structures().items()):
        energy, forces = predictions(symmetrized, atoms)
        for operation in (random_operation(seed), -random_operation(seed)):
            turned = predictions(symmetrized, operated(atoms, operation))
            assert np.isfinite(energy), name
            assert abs(turned[0] - energy) < 1e-10 * len(atoms), name
            assert np.abs(turned[1] - forces @ operation).max() < 1e-9, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_model_is_not_invariant(models, kind):
    atoms = structures()["ethanol"]
    plain = PETCalculator(models[kind])
    turned = operated(atoms, random_operation(0))
    assert abs(predictions(plain, turned)[0] - predictions(plain, atoms)[0]) > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_forces_and_stress_are_the_gradient(models, kind):
    calculator = PETCalculator(models[kind], symmetrization="structure")
    for name in ("ethanol", "rattled", "silicon", "nearly linear"):
        atoms = structures()[name]
        atoms.calc = calculator
        forces = atoms.get_forces()
        atom, axis = len(atoms) - 1, 1
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * 1e-5
            energies.append(predictions(calculator, moved)[0])
        expected = -(energies[0] - energies[1]) / 2e-5
        assert forces[atom, axis] == pytest.approx(expected, rel=1e-6, abs=1e-7), name
    stress = structures()["rattled"]
    stress.calc = calculator
    found = stress.get_stress()
    energies = []
    for sign in (1, -1):
        strained = stress.copy()
        strain = np.eye(3)
        strain[0, 1] = strain[1, 0] = 0.5 * sign * 1e-5
        strained.set_cell(strained.cell.array @ strain, scale_atoms=True)
        energies.append(predictions(calculator, strained)[0])
    expected = (energies[0] - energies[1]) / 2e-5 / stress.get_volume()
    assert found[5] == pytest.approx(expected, rel=1e-6, abs=1e-8)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_molecules_in_random_geometries(models, seed):
    atoms = rattled(molecule("CH3OH"), 0.2, seed)
    calculator = PETCalculator(models["published"], symmetrization="structure")
    energy, forces = predictions(calculator, atoms)
    operation = random_operation(seed)
    turned = predictions(calculator, operated(atoms, operation))
    assert abs(turned[0] - energy) < 1e-10 * len(atoms)
    assert np.abs(turned[1] - forces @ operation).max() < 1e-9 * max(1.0, np.abs(forces).max())
    order = np.random.default_rng(seed).permutation(len(atoms))
    assert predictions(calculator, atoms[order])[0] == pytest.approx(energy, abs=1e-10)
    torque = np.cross(atoms.positions, forces).sum(axis=0)
    assert np.abs(torque).max() < 1e-9 * max(1.0, np.abs(forces).max())


def test_two_distant_molecules_sum(models):
    calculator = PETCalculator(models["published"], symmetrization="structure")
    first, second = structures()["ethanol"], rattled(molecule("H2O"))
    second.positions += 40.0
    energies = [predictions(calculator, atoms)[0] for atoms in (first, second, first + second)]
    assert energies[2] == pytest.approx(energies[0] + energies[1], abs=1e-10)


def test_supercells_are_multiples(models):
    calculator = PETCalculator(models["published"], symmetrization="structure")
    for atoms, n in ((bulk("Si"), 2), (rattled(bulk("Si"), 0.1), 2), (bulk("Cu"), 2)):
        energy, forces = predictions(calculator, atoms)
        larger = predictions(calculator, atoms * (n, 1, 1))
        assert larger[0] == pytest.approx(n * energy, abs=1e-10 * n * len(atoms))
        assert np.abs(larger[1] - np.tile(forces, (n, 1))).max() < 1e-9


def test_no_jump_along_a_path(models):
    calculator = PETCalculator(models["published"], symmetrization="structure")
    base = structures()["ethanol"]
    direction = np.array([1.0, 0.4, 0.3])
    place, step = base.positions[1] + 1.2 * direction, 0.006
    path = [base + Atoms("O", [place + k * step * direction]) for k in range(120)]
    results = calculator.compute_batch(path)
    energies = np.array([r["energy"] for r in results])
    slopes = -np.array([r["forces"][-1] @ direction for r in results])
    errors = np.diff(energies) - 0.5 * step * (slopes[1:] + slopes[:-1])
    assert np.abs(slopes).max() > 0.05
    assert np.abs(errors).max() < 1e-4 * np.abs(slopes).max()


def test_equal_fields_are_evaluated_once(models):
    calculator = PETCalculator(models["published"], symmetrization="structure")
    perfect = calculator.cost(bulk("Si"))
    assert perfect.frames >= 2 * 12
    assert (perfect.evaluations, perfect.relative) == (1, 1.0)
    assert calculator.cost(bulk("Si", cubic=True)).evaluations == 1
    assert calculator.cost(bulk("Cu")).evaluations < 5
    # Two atoms in a cell: the inversion that exchanges them remains, whatever they are moved by.
    inverted = calculator.cost(rattled(bulk("Si")))
    assert 2 * inverted.evaluations == inverted.frames
    disturbed = calculator.cost(rattled(bulk("Si", cubic=True)))
    assert disturbed.evaluations == disturbed.frames
    zincblende = calculator.cost(bulk("SiC", "zincblende", a=4.36))
    assert zincblende.evaluations == 2


@pytest.mark.parametrize("name", ["silicon", "copper", "CO2"])
def test_the_same_without_looking_for_equal_fields(models, name, monkeypatch):
    atoms = structures()[name]
    calculator = PETCalculator(models["published"], symmetrization="structure")
    energy, forces = predictions(calculator, atoms)
    evaluations = calculator.cost(atoms).evaluations
    monkeypatch.setattr("pet_mlip.ase.symmetrize.equivalence.alike", lambda *_: [])
    everything = PETCalculator(models["published"], symmetrization="structure")
    assert everything.cost(atoms).evaluations > evaluations
    expected = predictions(everything, atoms)
    assert energy == pytest.approx(expected[0], abs=1e-11)
    assert np.abs(forces - expected[1]).max() < 1e-10


def test_elements_and_handedness_tell_fields_apart(models):
    calculator = PETCalculator(models["published"], symmetrization="structure")
    # The sites of rock salt differ in their element only; a chiral molecule is not its mirror.
    salt = bulk("SiO", "rocksalt", a=4.6)
    assert calculator.cost(salt).evaluations % 2 == 0
    chiral = Atoms("COSiH", [(0, 0, 0), (1.3, 0, 0), (0, 1.5, 0.2), (0.1, 0.2, 1.1)])
    both = chiral.copy()
    both.positions = both.positions @ np.diag([1.0, 1.0, -1.0]) + 30.0
    alone = calculator.cost(chiral)
    assert calculator.cost(chiral + both).evaluations == alone.evaluations


@pytest.mark.parametrize("chunk_size", [1, 50, 400])
def test_chunks(models, chunk_size):
    for name in ("ethanol", "silicon", "copper"):
        atoms = structures()[name]
        whole = PETCalculator(models["published"], symmetrization="structure", chunk_size=0)
        chunked = PETCalculator(
            models["published"], symmetrization="structure", chunk_size=chunk_size
        )
        expected, found = predictions(whole, atoms), predictions(chunked, atoms)
        assert found[0] == pytest.approx(expected[0], abs=1e-11)
        assert np.abs(found[1] - expected[1]).max() < 1e-10


def test_batches_are_the_same(models):
    calculator = PETCalculator(models["published"], symmetrization="structure")
    several = list(structures().values())
    results = calculator.compute_batch(several)
    for atoms, result in zip(several, results, strict=True):
        energy, forces = predictions(calculator, atoms)
        assert result["energy"] == pytest.approx(energy, abs=1e-11)
        assert np.abs(result["forces"] - forces).max() < 1e-10


def test_relaxation_keeps_the_symmetry(models):
    atoms = bulk("Si", cubic=False)
    strain = np.eye(3) + 0.03 * np.eye(3)
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.calc = PETCalculator(models["published"], symmetrization="structure")
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=20)
    lengths, angles = atoms.cell.lengths(), atoms.cell.angles()
    assert np.ptp(lengths) < 1e-9
    assert np.abs(angles - 60).max() < 1e-8


def test_charge_and_spin(tmp_path):
    potential = small_potential("none", system_conditioning=True)
    for parameter in potential.pet.conditioning.parameters():
        parameter.data.normal_()
    save_model(tmp_path / "model.pt", potential, dtype="float64")
    calculator = PETCalculator(tmp_path / "model.pt", symmetrization="structure")
    atoms = structures()["ethanol"]
    neutral = predictions(calculator, atoms)[0]
    atoms.info.update(charge=1, spin=2)
    assert abs(predictions(calculator, atoms)[0] - neutral) > 1e-4
    turned = operated(atoms, random_operation(0))
    turned.info.update(atoms.info)
    charged = predictions(calculator, atoms)[0]
    assert predictions(calculator, turned)[0] == pytest.approx(charged, abs=1e-9)


def test_the_cost_is_said_before(models, caplog):
    calculator = PETCalculator(models["published"], symmetrization="structure")
    predictions(calculator, bulk("Si"))
    predictions(calculator, bulk("Si"))
    (record,) = caplog.records
    assert "1 evaluations" in record.getMessage()
    assert "48 frames of 2 atoms" in record.getMessage()


def test_copies_and_pickles(models):
    calculator = PETCalculator(models["published"], symmetrization="structure")
    atoms = structures()["ethanol"]
    energy, _ = predictions(calculator, atoms)
    assert predictions(calculator.clone(), atoms)[0] == energy
    assert predictions(pickle.loads(pickle.dumps(calculator)), atoms)[0] == energy


def test_bad_choices(models, model_file):
    with pytest.raises(UserError, match="'structures' is not one of none, structure"):
        PETCalculator(models["published"], symmetrization="structures")
    with pytest.raises(UserError, match="invariant already"):
        PETCalculator(model_file, symmetrization="structure")


def test_what_the_file_asks_for(tmp_path):
    save_model(
        tmp_path / "m.pt", small_potential("none"), dtype="float64", orientations="structure"
    )
    assert PETCalculator(tmp_path / "m.pt").symmetrization.mode == "structure"
    assert PETCalculator(tmp_path / "m.pt", symmetrization="none").symmetrization.mode == "none"
