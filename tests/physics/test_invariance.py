"""Nothing depends on orientation, handedness, origin, order, or choice of cell."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from structures import STRUCTURES, rattled, water_box

from pet_mlip.evaluate.equivariance import random_operations, transformed

# eV per atom and eV/Å.
TOLERANCE = {"float64": (1e-10, 1e-9), "float32": (2e-6, 2e-5)}
MODELS = [
    "ecse",
    pytest.param("ecse feedforward", marks=pytest.mark.slow),
]


@pytest.fixture(params=STRUCTURES, ids=lambda name: name.replace(", ", "-").replace(" ", "-"))
def atoms(request):
    return STRUCTURES[request.param]()


def operations():
    """Rotations and improper operations: random ones, the inversion, a mirror, a quarter turn."""
    random = random_operations(4, np.random.default_rng(7))
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    return [*random, -np.eye(3), np.diag([1.0, 1, -1]), quarter]


def assert_equal(found, expected, n_atoms, dtype):
    energy, force = TOLERANCE[dtype]
    assert abs(found["energy"] - expected["energy"]) <= energy * n_atoms
    assert np.abs(found["forces"] - expected["forces"]).max() <= force


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("model", MODELS)
def test_rotations_reflections_inversions(calculator, model, dtype, atoms):
    qs = operations()
    batch = [atoms, *(transformed(atoms, q) for q in qs)]
    expected, *found = calculator(model, dtype).compute_batch(batch, max_atoms=30)
    for q, turned in zip(qs, found, strict=True):
        turned["forces"] = turned["forces"] @ q
        assert_equal(turned, expected, len(atoms), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("model", ["ecse", "plain"])
def test_translations_permutations_and_images(calculator, model, dtype, atoms):
    rng = np.random.default_rng(3)
    order = rng.permutation(len(atoms))
    moved, wrapped, unwrapped = atoms.copy(), atoms.copy(), atoms.copy()
    moved.positions += 10 * rng.normal(size=3)
    wrapped.wrap()
    lattice = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    unwrapped.positions += rng.integers(-3, 4, (len(atoms), 3)) @ lattice
    batch = [atoms, atoms[order], moved, wrapped, unwrapped]
    expected, permuted, *same = calculator(model, dtype).compute_batch(batch, max_atoms=30)
    for found in same:
        assert_equal(found, expected, len(atoms), dtype)
    permuted["forces"] = permuted["forces"][np.argsort(order)]
    assert_equal(permuted, expected, len(atoms), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("model", ["ecse", "plain"])
@pytest.mark.parametrize("name", ["silicon, primitive", "copper, one atom", "skewed", "wire"])
def test_another_choice_of_the_cell_changes_nothing(calculator, model, dtype, name):
    atoms = STRUCTURES[name]()
    sheared = atoms.copy()
    shear = np.eye(3)
    if atoms.pbc.all():
        shear[1, 0], shear[2, 1] = 1, -2
    sheared.set_cell(shear @ atoms.cell.array)
    unused = atoms.copy()
    unused.cell[~atoms.pbc] = np.random.default_rng(0).normal(size=(3, 3))[~atoms.pbc]
    expected, *found = calculator(model, dtype).compute_batch([atoms, sheared, unused])
    for other in found:
        assert_equal(other, expected, len(atoms), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("model", ["ecse", "plain"])
@pytest.mark.parametrize(
    ("atoms", "repeats"),
    [
        (bulk("Cu", "fcc", a=3.6), np.diag([2, 3, 1])),
        (rattled(bulk("Si")), np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])),
        (STRUCTURES["wire"](), np.diag([4, 1, 1])),
        (STRUCTURES["slab without c"](), np.diag([2, 2, 1])),
    ],
    ids=["copper", "silicon", "wire", "slab"],
)
def test_supercells_give_multiples(calculator, model, dtype, atoms, repeats):
    large = make_supercell(atoms, repeats, order="cell-major")
    n = len(large) // len(atoms)
    expected, found = calculator(model, dtype).compute_batch([atoms, large])
    multiple = {"energy": n * expected["energy"], "forces": np.tile(expected["forces"], (n, 1))}
    assert_equal(found, multiple, len(large), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("model", ["ecse", "plain"])
@pytest.mark.parametrize("other", ["methane, perfect", "CO2", "isolated atom", "dimer"])
def test_distant_parts_are_independent(calculator, model, dtype, other):
    a, b = STRUCTURES["ethanol"](), STRUCTURES[other]()
    far = b.copy()
    far.positions += [13.0, -8.0, 5.0]
    of_a, of_b, both, twice = calculator(model, dtype).compute_batch([a, b, a + far, b + far])
    for found, parts in ((both, (of_a, of_b)), (twice, (of_b, of_b))):
        total = {
            "energy": sum(part["energy"] for part in parts),
            "forces": np.concatenate([part["forces"] for part in parts]),
        }
        assert_equal(found, total, len(total["forces"]), dtype)


@pytest.mark.parametrize("model", ["ecse", "plain"])
def test_a_periodic_box_of_vacuum_is_no_box(calculator, model):
    alone, boxed = molecule("H2O"), molecule("H2O")
    boxed.set_cell(40 * np.eye(3))
    boxed.pbc = True
    expected, found = calculator(model).compute_batch([alone, boxed])
    assert_equal(found, expected, 3, "float64")


def test_the_plain_model_is_not_invariant(calculator):
    """Otherwise these tests would say nothing about ECSE."""
    atoms = water_box()
    batch = [atoms, *(transformed(atoms, q) for q in operations())]
    energies = [found["energy"] for found in calculator("plain").compute_batch(batch)]
    assert np.std(energies) > 1e-6 * len(atoms)


def test_molecules_feel_no_torque(calculator):
    atoms = STRUCTURES["ethanol"]()
    atoms.calc = calculator("ecse")
    forces = atoms.get_forces()
    assert np.abs(np.cross(atoms.positions, forces).sum(axis=0)).max() < 1e-9
    assert np.abs(forces.sum(axis=0)).max() < 1e-12
    assert np.abs(forces).max() > 0.01


def test_symmetric_structures_have_symmetric_forces(calculator):
    atoms = molecule("CH4")
    atoms.calc = calculator("ecse")
    forces = atoms.get_forces()
    bonds = atoms.positions[1:] - atoms.positions[0]
    along = np.einsum("ij,ij->i", forces[1:], bonds) / np.linalg.norm(bonds, axis=1)
    assert np.abs(forces[0]).max() < 1e-9
    assert np.ptp(along) < 1e-9
    assert np.abs(np.cross(forces[1:], bonds)).max() < 1e-9
    planar = molecule("C6H6")
    planar.calc = calculator("ecse")
    assert np.abs(planar.get_forces()[:, 2]).max() < 1e-9


def test_cubic_crystals_have_hydrostatic_stress(calculator):
    for atoms in (bulk("Cu", "fcc", a=3.6), bulk("Si"), Atoms("H", cell=[2, 2, 2], pbc=True)):
        atoms.calc = calculator("ecse")
        stress = atoms.get_stress(voigt=False)
        assert np.abs(stress - stress[0, 0] * np.eye(3)).max() < 1e-10
        assert np.abs(atoms.get_forces()).max() < 1e-10
