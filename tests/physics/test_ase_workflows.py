"""What people do with a calculator: relax, find barriers, vibrate, phonons, run MD."""

import numpy as np
import pytest
import spglib
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.filters import ExpCellFilter, FrechetCellFilter
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.phonons import Phonons
from ase.vibrations import Vibrations
from model_files import morse_energy, morse_model
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from scipy.optimize import minimize_scalar

from pet_mlip import PETCalculator
from pet_mlip.ase.md import MDSettings, Simulation


@pytest.fixture
def morse():
    return PETCalculator(morse_model())


def best_lattice_constant():
    def energy(a):
        return morse_energy(bulk("Cu", "fcc", a=a))

    return minimize_scalar(energy, bounds=(3.2, 4.0), method="bounded", options={"xatol": 1e-8}).x


@pytest.mark.parametrize("cell_filter", [FrechetCellFilter, ExpCellFilter])
def test_a_crystal_relaxes_to_its_lattice_constant(morse, cell_filter):
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * np.eye(3)[[1, 0, 2]]), scale_atoms=True)
    atoms.rattle(0.05)
    atoms.calc = morse
    assert BFGS(cell_filter(atoms), logfile=None).run(fmax=1e-5, steps=200)
    assert atoms.get_volume() / 4 == pytest.approx(best_lattice_constant() ** 3 / 4, rel=1e-5)
    assert np.abs(atoms.get_stress()).max() < 1e-6


def test_relaxations_with_ecse_keep_the_space_group(calculator):
    """A random model has forces of any size, but none that breaks a symmetry."""
    # Wurtzite is free to change the ratio of its axes and one coordinate of its atoms.
    atoms = bulk("SiC", "wurtzite", a=3.1, c=5.0)
    before = spglib.get_spacegroup((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers))
    atoms.calc = calculator("ecse")
    FIRE(FrechetCellFilter(atoms), logfile=None, maxstep=0.02).run(fmax=1e-4, steps=15)
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    assert spglib.get_spacegroup(cell, symprec=1e-7) == before
    assert not np.allclose(atoms.cell.lengths()[[0, 2]], [3.1, 5.0], atol=1e-3)


def hop(n_images=5):
    """An atom hops to the next hollow along a fixed row, over the top of one of its atoms."""
    start = Atoms("Cu4", [[0, 0, 0], [2.5, 0, 0], [5, 0, 0], [1.25, 2.1, 0]])
    start.set_constraint(FixAtoms([0, 1, 2]))
    end = start.copy()
    end.positions[3, 0] = 3.75
    return [start.copy() for _ in range(n_images - 1)] + [end]


@pytest.mark.parametrize("shared", [True, False])
def test_neb_finds_the_barrier(morse, shared):
    images = hop()
    for image in images:
        image.calc = morse if shared else morse.clone()
    for end in (images[0], images[-1]):
        BFGS(end, logfile=None).run(fmax=1e-3)
    band = NEB(images, allow_shared_calculator=shared, climb=True)
    band.interpolate("idpp")
    assert FIRE(band, logfile=None).run(fmax=0.02, steps=300)
    energies = [morse_energy(image) for image in images]
    assert np.allclose([image.get_potential_energy() for image in images], energies, atol=1e-12)
    assert int(np.argmax(energies)) == 2
    assert energies[0] == pytest.approx(energies[-1], abs=1e-3)
    assert energies[2] - energies[0] > 0.1


def test_vibration_of_a_dimer(morse, tmp_path):
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, 2.45]])
    atoms.calc = morse
    BFGS(atoms, logfile=None).run(fmax=1e-6)
    r, h = atoms.get_distance(0, 1), 1e-3

    def phi(x):
        return morse_energy(Atoms("Cu2", [[0, 0, 0], [0, 0, x]]))

    stiffness = (phi(r + h) - 2 * phi(r) + phi(r - h)) / h**2
    expected = np.sqrt(2 * stiffness / atoms.get_masses()[0])
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=1e-3)
    vibrations.run()
    energies = vibrations.get_energies()
    hbar = units._hbar * units.J * units.second
    assert energies[-1].real == pytest.approx(hbar * expected, rel=1e-4)
    assert np.abs(energies[:-1]).max() < 1e-3


def phonopy_frequencies(atoms, calculator, points, repeats=2):
    """Frequencies in THz, (points, modes), through one batch of displaced supercells."""
    cell = PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell.array, scaled_positions=atoms.get_scaled_positions()
    )
    phonon = Phonopy(cell, repeats * np.eye(3, dtype=int))
    # All displacements, not only those that symmetry asks for: the model is to show its own.
    phonon.generate_displacements(distance=1e-3, is_diagonal=False, is_plusminus=True)
    supercells = [
        Atoms(s.numbers, cell=s.cell, scaled_positions=s.scaled_positions, pbc=True)
        for s in phonon.supercells_with_displacements
    ]
    found = calculator.compute_batch(supercells, max_atoms=60)
    phonon.forces = [r["forces"] for r in found]
    phonon.produce_force_constants()
    phonon.run_qpoints(points)
    return phonon.qpoints.frequencies


def test_phonons_of_ase_and_phonopy_agree(morse, tmp_path):
    atoms = bulk("Cu", "fcc", a=best_lattice_constant())
    points = [[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0]]
    # A supercell larger than twice the cutoff, for both.
    expected = phonopy_frequencies(atoms, morse, points, repeats=4)
    phonons = Phonons(atoms, morse, supercell=(4, 4, 4), delta=1e-3, name=str(tmp_path / "phonon"))
    phonons.run()
    phonons.read(acoustic=True)
    energies = phonons.band_structure(points, verbose=False)
    terahertz = energies.real / (2e12 * np.pi * units._hbar * units.J)
    assert np.abs(expected[0]).max() < 1e-3
    assert terahertz[1:] == pytest.approx(expected[1:], rel=1e-3)


def test_phonons_with_ecse_keep_their_degeneracies(calculator):
    """Users of plain models see split bands; the threefold mode of diamond stays threefold."""
    spread = {}
    for model in ("ecse", "plain"):
        displaced = []
        for axis in np.ndindex(2, 3):
            for step in (1e-3, -1e-3):
                displaced.append(bulk("Si"))
                displaced[-1].positions[axis] += step
        found = calculator(model).compute_batch(displaced, max_atoms=8)
        forces = np.array([r["forces"].ravel() for r in found])
        hessian = -(forces[::2] - forces[1::2]) / 2e-3
        eigenvalues = np.linalg.eigvalsh(0.5 * (hessian + hessian.T))
        # Three translations of zero, three of the optical mode.
        optical = eigenvalues[np.abs(eigenvalues) > 1e-4 * np.abs(eigenvalues).max()]
        assert len(optical) == 3
        spread[model] = np.ptp(optical) / np.abs(optical).mean()
    assert spread["ecse"] < 1e-6
    assert spread["plain"] > 1e-4


def total_energies(atoms, timestep, femtoseconds, temperature):
    settings = MDSettings("nve", temperature=temperature, timestep=timestep, seed=2)
    simulation = Simulation(atoms, settings)
    energies = []
    for _ in range(int(femtoseconds / timestep)):
        simulation.advance(1)
        energies.append(simulation.observe()["total"])
    return np.array(energies)


def relaxed(atoms, calculator, steps=40):
    """A random model has steep places: from a minimum of it, a simulation is a usual one."""
    atoms.calc = calculator
    BFGS(atoms, logfile=None, maxstep=0.05).run(fmax=0.01, steps=steps)
    return atoms


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nve_does_not_drift(calculator, dtype):
    atoms = relaxed(molecule("CH3OH"), calculator("ecse", dtype))
    energies = total_energies(atoms, timestep=0.2, femtoseconds=30, temperature=100.0)
    swing = np.ptp(energies)
    first, last = energies[:50].mean(), energies[-50:].mean()
    assert swing < 1e-3 * len(atoms)
    # 0.1 meV per atom and picosecond. In single precision the swing itself is round-off.
    elapsed = 1e-3 * 0.2 * (len(energies) - 50)
    assert abs(last - first) < 1e-4 * len(atoms) * elapsed
    if dtype == "float64":
        assert abs(last - first) < 0.5 * swing


@pytest.mark.slow
@pytest.mark.parametrize("name", ["methanol", "silicon"])
def test_nve_does_not_drift_in_a_picosecond(calculator, name):
    """At most 0.1 meV per atom and picosecond, in single precision."""
    atoms = molecule("CH3OH") if name == "methanol" else bulk("Si", cubic=True)
    atoms = relaxed(atoms, calculator("ecse", "float32"))
    energies = total_energies(atoms, timestep=0.1, femtoseconds=1000, temperature=50.0)
    times = 1e-4 * np.arange(len(energies))
    drift = np.polyfit(times, energies, 1)[0]
    assert abs(drift) < 1e-4 * len(atoms)
