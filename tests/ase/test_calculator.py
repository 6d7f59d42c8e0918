"""The calculator on an analytic pair potential: every number has an exact reference."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.stress import full_3x3_to_voigt_6_stress
from model_files import morse_energy, morse_model

from pet_mlip import PETCalculator


def rattled(atoms, seed=0, size=0.1):
    atoms.rattle(size, seed=seed)
    return atoms


def left_handed():
    atoms = bulk("Cu", "fcc", a=3.6) * (2, 1, 1)
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell[[1, 0, 2]], pbc=True)


def unwrapped():
    atoms = bulk("Si", cubic=True)
    atoms.positions += np.random.default_rng(0).integers(-3, 4, (8, 3)) @ atoms.cell.array
    return atoms


STRUCTURES = {
    "molecule": lambda: molecule("CH3CH2OH"),
    "molecule in a box": lambda: Atoms("SiCu", [[0, 0, 0], [2.4, 0, 0]], cell=[9, 9, 9]),
    "crystal": lambda: bulk("Si", cubic=True),
    "self-images": lambda: bulk("Cu", "fcc", a=3.6),
    "left-handed": left_handed,
    "skewed": lambda: Atoms("Si", cell=[[3, 0, 0], [2.9, 3, 0], [1.4, 1.6, 3]], pbc=True),
    "unwrapped": unwrapped,
    "slab": lambda: fcc111("Cu", (1, 2, 2), a=3.6, vacuum=4.0),
    "slab without c": lambda: fcc111("Cu", (1, 2, 2), a=3.6),
    "wire": lambda: Atoms("CuC", [[0, 0, 0], [1.3, 0.5, 0]], cell=[3, 0, 0], pbc=[1, 0, 0]),
    "isolated atom": lambda: Atoms("O"),
}


@pytest.fixture(params=STRUCTURES, ids=lambda name: name.replace(" ", "-"))
def atoms(request):
    return rattled(STRUCTURES[request.param]())


def test_energy_is_that_of_a_sum_over_images(morse, atoms):
    atoms.calc = morse
    assert atoms.get_potential_energy() == pytest.approx(morse_energy(atoms), abs=1e-12)
    assert atoms.get_potential_energies().sum() == pytest.approx(morse_energy(atoms), abs=1e-12)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()


def test_forces_are_the_derivative(morse, atoms):
    atoms.calc = morse
    direction = np.random.default_rng(1).normal(size=atoms.positions.shape)

    def energy(step):
        moved = atoms.copy()
        moved.positions += step * direction
        return morse_energy(moved)

    assert -(atoms.get_forces() * direction).sum() == pytest.approx(derivative(energy), abs=1e-7)
    assert np.abs(atoms.get_forces().sum(axis=0)).max() < 1e-12


@pytest.mark.parametrize("name", [n for n in STRUCTURES if STRUCTURES[n]().cell.rank == 3])
def test_stress_is_the_derivative_over_the_volume_of_the_users_cell(morse, name):
    atoms = rattled(STRUCTURES[name]())
    atoms.calc = morse
    strain = np.random.default_rng(2).normal(size=(3, 3))
    strain += strain.T

    def energy(step):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + step * strain), scale_atoms=False)
        strained.positions = atoms.positions @ (np.eye(3) + step * strain)
        return morse_energy(strained)

    stress = atoms.get_stress(voigt=False)
    expected = derivative(energy) / abs(np.linalg.det(atoms.cell.array))
    assert (stress * strain).sum() == pytest.approx(expected, abs=1e-7)
    assert atoms.get_stress() == pytest.approx(full_3x3_to_voigt_6_stress(stress))
    assert atoms.get_stresses().sum(axis=0) == pytest.approx(atoms.get_stress(), abs=1e-14)


def derivative(function, h=1e-3):
    """Central difference of fourth order at zero."""
    wide, narrow = function(2 * h) - function(-2 * h), function(h) - function(-h)
    return (8 * narrow - wide) / (12 * h)


def test_stress_of_a_slab_does_not_depend_on_padding_of_the_search(morse):
    narrow, wide = (fcc111("Cu", (1, 1, 3), a=3.6, vacuum=v, periodic=True) for v in (5, 50))
    narrow.calc, wide.calc = morse, morse.clone()
    ratio = wide.get_volume() / narrow.get_volume()
    assert narrow.get_stress() == pytest.approx(ratio * wide.get_stress(), abs=1e-12)


@pytest.mark.parametrize("name", ["isolated atom", "molecule", "slab without c", "wire"])
@pytest.mark.parametrize("stress", ["get_stress", "get_stresses"])
def test_stress_without_a_volume_is_refused(morse, name, stress):
    atoms = STRUCTURES[name]()
    atoms.calc = morse
    with pytest.raises(PropertyNotImplementedError, match="three independent vectors"):
        getattr(atoms, stress)()
    atoms.get_forces()


def test_an_energy_alone_takes_no_gradient(morse):
    atoms = molecule("H2O")
    atoms.calc = morse
    energy = atoms.get_potential_energy()
    assert "forces" not in morse.results
    atoms.get_forces()
    assert atoms.get_potential_energy() == energy


def test_results_of_the_user_are_copies(morse):
    atoms = rattled(bulk("Si"))
    atoms.calc = morse
    forces = atoms.get_forces()
    forces[:] = 7.0
    assert np.abs(atoms.get_forces()).max() < 7.0


def test_no_atoms(morse):
    atoms = Atoms()
    atoms.calc = morse
    assert atoms.get_potential_energy() == 0.0
    assert atoms.get_forces().shape == (0, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.positions.__setitem__((0, 0), a.positions[0, 0] + 0.3),
        lambda a: a.set_cell(a.cell * 1.03, scale_atoms=True),
        lambda a: a.set_cell(a.cell * 1.03, scale_atoms=False),
        lambda a: a.set_pbc([True, True, False]),
        lambda a: a.wrap(),
        lambda a: a.pop(0),
        lambda a: a.append("Si"),
        lambda a: a.set_positions(a.positions[::-1]),
    ],
)
def test_nothing_is_stale_after_a_change(change):
    atoms = rattled(bulk("Si", cubic=True))
    atoms.calc = PETCalculator(morse_model(), skin=1.0)
    atoms.get_forces()
    change(atoms)
    assert atoms.get_potential_energy() == pytest.approx(morse_energy(atoms), abs=1e-12)


def test_a_changed_element_is_not_stale(model_file):
    atoms, changed = molecule("H2O"), molecule("H2O")
    calculator = PETCalculator(model_file)
    atoms.calc = calculator
    atoms.get_forces()
    atoms.numbers[0] = 6
    changed.numbers[0] = 6
    changed.calc = PETCalculator(model_file)
    assert atoms.get_potential_energy() == changed.get_potential_energy()


def test_info_describes_the_last_call(model_file):
    atoms = molecule("CH3CH2OH")
    atoms.calc = PETCalculator(model_file)
    atoms.get_forces()
    info = atoms.calc.info
    assert info["n_frames"].shape == (9,)
    assert info["mean_frames"] == info["n_frames"].mean() > 1
    assert info["max_frames"] == info["n_frames"].max()
    assert info["n_edges"] == 72
    assert info["neighbour_builds"] == 1
    assert info["time_model"] > 0
    assert info["time_neighbours"] > 0
