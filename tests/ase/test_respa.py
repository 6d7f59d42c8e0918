"""r-RESPA is velocity Verlet with a force that acts in fewer steps, and nothing else changes."""

import io

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.constraints import FixAtoms, FixBondLengths, Hookean
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from model_files import morse_model, nearly_invariant_potential

from pet_mlip import PETCalculator
from pet_mlip.ase.md import MDSettings, Simulation, draw_velocities
from pet_mlip.ase.respa import Respa
from pet_mlip.errors import UserError
from pet_mlip.export import save_model


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    """A small PET with ECSE whose correction is small, in float64."""
    path = tmp_path_factory.mktemp("respa") / "model.pt"
    save_model(path, nearly_invariant_potential(), dtype="float64")
    return path


@pytest.fixture
def ethanol(model_file):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.03, seed=1)
    atoms.calc = PETCalculator(model_file)
    draw_velocities(atoms, 300.0, np.random.default_rng(0))
    return atoms


class Springs(Calculator):
    """Every coordinate on a spring."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, constant):
        super().__init__()
        self.constant = constant

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        r = self.atoms.positions
        energy = 0.5 * self.constant * (r**2).sum()
        self.results = {"energy": energy, "forces": -self.constant * r}


class Cluster(Calculator):
    """Morse curves between all pairs of atoms."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, depth, a):
        super().__init__()
        self.depth = depth
        self.a = a

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vectors = self.atoms.positions[:, None] - self.atoms.positions
        r = np.sqrt((vectors**2).sum(axis=2))
        np.fill_diagonal(r, 1.0)
        u = np.exp(-self.a * (r - 2.5))
        np.fill_diagonal(u, 0.0)
        slope = 2.0 * self.depth * self.a * (u - u * u)
        self.results = {
            "energy": 0.5 * self.depth * (u * u - 2.0 * u).sum(),
            "forces": -((slope / r)[:, :, None] * vectors).sum(axis=1),
        }


def cluster():
    """Eight atoms at about 150 K, and a calculator of nearly all of the force on them."""
    atoms = Atoms("Cu8", positions=2.4 * np.indices((2, 2, 2)).reshape(3, -1).T)
    atoms.rattle(0.1, seed=2)
    atoms.calc = Cluster(0.5, 1.6)
    BFGS(atoms, logfile=None).run(fmax=1e-3)
    draw_velocities(atoms, 300.0, np.random.default_rng(0))
    return atoms, Cluster(0.47, 1.57)


def total_energies(atoms, dynamics, steps):
    found = []
    dynamics.attach(lambda: found.append(atoms.get_total_energy()))
    dynamics.run(steps)
    return np.array(found)


CONSTRAINTS = {
    "none": [],
    "fixed atoms": [FixAtoms([0, 3])],
    "fixed bonds": [FixBondLengths([[0, 1], [1, 2]])],
    "a spring": [Hookean(0, 2, 3.0, 2.0)],
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_one_inner_step_is_velocity_verlet(ethanol, name):
    ethanol.set_constraint(CONSTRAINTS[name])
    other = ethanol.copy()
    other.calc = ethanol.calc.clone()
    Respa(ethanol, 0.5 * units.fs, 1).run(10)
    VelocityVerlet(other, 0.5 * units.fs).run(10)
    np.testing.assert_allclose(ethanol.positions, other.positions, rtol=0, atol=1e-10)
    np.testing.assert_allclose(ethanol.get_momenta(), other.get_momenta(), rtol=0, atol=1e-10)


def test_fixed_atoms_and_bonds_stay(ethanol):
    ethanol.set_constraint([FixAtoms([3]), FixBondLengths([[0, 1]])])
    before = ethanol.positions.copy()
    Respa(ethanol, 2.0 * units.fs, 4).run(5)
    assert np.array_equal(ethanol.positions[3], before[3])
    length = np.linalg.norm(before[1] - before[0])
    assert ethanol.get_distance(0, 1) == pytest.approx(length, abs=1e-9)
    assert np.abs(ethanol.positions - before).max() > 0.01


@pytest.mark.parametrize("inner_steps", [2, 4])
def test_energy_error_is_quadratic_in_the_whole_step(inner_steps):
    spreads = []
    for timestep in (12.0, 6.0):
        atoms, fast = cluster()
        dynamics = Respa(atoms, timestep * units.fs, inner_steps, fast=fast)
        spreads.append(np.std(total_energies(atoms, dynamics, round(1200 / timestep))))
    assert spreads[0] / spreads[1] == pytest.approx(4.0, rel=0.25)


@pytest.mark.parametrize("inner_steps", [2, 4])
def test_energy_does_not_drift(inner_steps):
    atoms, fast = cluster()
    whole_step = 2.0 * inner_steps
    dynamics = Respa(atoms, whole_step * units.fs, inner_steps, fast=fast)
    energies = total_energies(atoms, dynamics, round(4000 / whole_step))
    half = len(energies) // 2
    assert abs(energies[half:].mean() - energies[:half].mean()) < 0.1 * energies.std()
    assert energies.std() < 2e-3 * atoms.get_kinetic_energy()


def test_correction_of_a_model_acts_in_long_steps(ethanol):
    """Short steps of the plain part are enough: the whole model conserves energy as with them."""
    spreads = []
    for timestep, inner_steps in ((2.0, 4), (0.5, None), (2.0, None)):
        atoms = ethanol.copy()
        atoms.calc = ethanol.calc.clone()
        step = timestep * units.fs
        dynamics = Respa(atoms, step, 4) if inner_steps else VelocityVerlet(atoms, step)
        energies = total_energies(atoms, dynamics, round(24 / timestep))
        spreads.append(np.std(energies[:: round(2.0 / timestep)]))
    assert spreads[0] < 3.0 * spreads[1]
    assert spreads[0] < 0.3 * spreads[2]


def test_averages_agree_with_velocity_verlet():
    """Two trajectories from one start at one energy; they part, but their averages must not."""
    means, errors = [], []
    for inner_steps in (1, 4):
        atoms, fast = cluster()
        step = 4.0 * inner_steps * units.fs
        dynamics = (
            Respa(atoms, step, inner_steps, fast=fast)
            if inner_steps > 1
            else VelocityVerlet(atoms, step)
        )
        observed = []

        def observe(atoms=atoms, observed=observed):
            squares = atoms.positions.var(axis=0).sum()
            observed.append([atoms.get_potential_energy(), atoms.get_temperature(), squares])

        dynamics.attach(observe, interval=4 // inner_steps)
        dynamics.run(2000 // inner_steps)
        blocks = np.array(observed[1:]).reshape(20, -1, 3).mean(axis=1)[2:]
        means.append(blocks.mean(axis=0))
        errors.append(blocks.std(axis=0, ddof=1) / np.sqrt(len(blocks)))
    bound = 4.0 * np.hypot(*errors)
    assert (np.abs(means[0] - means[1]) < bound).all()
    # The test can fail: the fast force alone has other averages.
    atoms, fast = cluster()
    atoms.calc = fast
    alone = []
    dynamics = VelocityVerlet(atoms, 4.0 * units.fs)
    dynamics.attach(lambda: alone.append(atoms.get_potential_energy()), interval=4)
    dynamics.run(1000)
    assert abs(np.mean(alone) - means[0][0]) > 2.0 * bound[0]


def test_time_reversal(ethanol):
    before = ethanol.positions.copy()
    dynamics = Respa(ethanol, 2.0 * units.fs, 4)
    dynamics.run(6)
    assert np.abs(ethanol.positions - before).max() > 0.03
    ethanol.set_momenta(-ethanol.get_momenta())
    dynamics.run(6)
    np.testing.assert_allclose(ethanol.positions, before, rtol=0, atol=1e-10)


def test_whole_model_is_evaluated_once_in_a_step(ethanol):
    dynamics = Respa(ethanol, 2.0 * units.fs, 4)
    calls = {"whole": 0, "plain": 0}

    def count(calculator, name):
        calculate = calculator.calculate

        def counting(*args, **kwargs):
            calls[name] += 1
            calculate(*args, **kwargs)

        calculator.calculate = counting

    count(ethanol.calc, "whole")
    count(dynamics.fast, "plain")
    dynamics.run(3)
    assert calls == {"whole": 4, "plain": 13}


def test_observers_see_the_whole_model(ethanol, tmp_path):
    log = io.StringIO()
    own = ethanol.calc
    dynamics = Respa(ethanol, 1.0 * units.fs, 2, logfile=log, trajectory=tmp_path / "a.traj")
    seen = []
    dynamics.attach(lambda: seen.append((ethanol.calc is own, ethanol.get_potential_energy())))
    dynamics.run(2)
    assert all(is_own for is_own, _ in seen)
    logged = [float(line.split()[2]) for line in log.getvalue().splitlines()[1:]]
    np.testing.assert_allclose(logged, [energy for _, energy in seen], atol=1e-3)
    fresh = PETCalculator(own._model.model)
    assert fresh.get_potential_energy(ethanol) == pytest.approx(seen[-1][1], abs=1e-11)
    assert dynamics.get_time() == pytest.approx(2.0 * units.fs)


def test_the_own_calculator_comes_back_after_an_error(ethanol):
    own = ethanol.calc
    dynamics = Respa(ethanol, 1.0 * units.fs, 2)
    ethanol.positions[0] = np.nan
    own.results = {"forces": np.zeros((9, 3))}
    own.atoms = ethanol.copy()
    with pytest.raises(UserError):
        dynamics.step()
    assert ethanol.calc is own


@pytest.mark.parametrize("period_fraction", [0.45, 0.495, 0.505, 0.55])
def test_resonance_is_where_the_theory_has_it(period_fraction):
    """A mode whose slow part is 4 % of its spring; docs/multiple_time_stepping.md."""
    share = 0.04
    inner_steps, whole = 20, 2.0 * np.pi * period_fraction
    atoms = Atoms("H", masses=[1.0], positions=[[0.01, 0, 0]], momenta=[[0, 0.01, 0]])
    atoms.calc = Springs(1.0)
    dynamics = Respa(atoms, whole, inner_steps, fast=Springs(1.0 - share))
    omega = np.sqrt(1.0 - share)
    phase = omega * whole
    trace = 2.0 * np.cos(phase) - share * whole / omega * np.sin(phase)
    energies = total_energies(atoms, dynamics, 100)
    assert (energies.max() > 100.0 * energies[0]) == (abs(trace) > 2.0)


def test_simulations_continue_bit_by_bit(ethanol, tmp_path):
    settings = MDSettings("nve", timestep=2.0, inner_steps=4)
    again = ethanol.copy()
    again.calc = ethanol.calc.clone()
    whole = Simulation(ethanol, settings)
    whole.advance(2)
    whole.save(tmp_path / "state.npz")
    whole.advance(2)
    continued = Simulation(again, settings)
    continued.restore(tmp_path / "state.npz")
    continued.advance(2)
    assert np.array_equal(again.positions, ethanol.positions)
    assert np.array_equal(again.get_momenta(), ethanol.get_momenta())


def test_wrong_settings(ethanol):
    with pytest.raises(UserError, match="inner_steps must be"):
        Respa(ethanol, 1.0, 0)
    with pytest.raises(UserError, match="inner_steps must be"):
        MDSettings("nve", inner_steps=0)
    with pytest.raises(UserError, match="is for ensemble nve"):
        MDSettings("nvt", inner_steps=2)
    ethanol.calc = ethanol.calc.clone(part="plain")
    with pytest.raises(UserError, match="PETCalculator of the whole model"):
        Respa(ethanol, 1.0, 2)
    ethanol.calc = PETCalculator(morse_model())
    with pytest.raises(UserError, match="without any average"):
        Respa(ethanol, 1.0, 2)
