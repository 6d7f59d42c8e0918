"""Forces and stress are the derivatives of the energy, to seven digits."""

import numpy as np
import pytest
from structures import STRUCTURES

RELATIVE = 1e-6
# Steps of the finest difference in Å (or of strain). Switches as narrow as 0.1 Å and less need a
# small one, and the energy has sixteen digits.
STEPS = (4e-3, 1e-3, 2e-4, 4e-5)

CASES = [name for name in STRUCTURES if name not in ("isolated atom", "three isolated atoms")]
MODELS = [
    "ecse",
    "plain",
    pytest.param("ecse feedforward", marks=pytest.mark.slow),
]


def off_symmetry(name):
    """The structure away from the symmetric points, where switches have their kinks, if any."""
    atoms = STRUCTURES[name]()
    atoms.rattle(0.03, seed=5)
    return atoms


def derivatives(energy_of, calculator):
    """Central differences of sixth order for each of the steps."""
    coefficients = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    signed = [(h, s * k) for h in STEPS for k in coefficients for s in (1, -1)]
    batch = calculator.compute_batch([energy_of(h * k) for h, k in signed], ["energy"], 60)
    found = dict.fromkeys(STEPS, 0.0)
    for (h, k), result in zip(signed, batch, strict=True):
        found[h] += np.sign(k) * coefficients[abs(k)] * result["energy"] / h
    return np.array(list(found.values()))


def assert_derivative(exact, differences, scale):
    error = np.abs(differences - exact).min()
    # Some crystals have no forces; eV/Å of this size are what others have at least.
    assert error <= RELATIVE * max(abs(exact), scale, 1e-3), (exact, differences)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", CASES)
def test_forces(calculator, model, name):
    atoms = off_symmetry(name)
    direction = np.random.default_rng(2).normal(size=atoms.positions.shape)
    atoms.calc = calculator(model)

    def moved(step):
        other = atoms.copy()
        other.positions += step * direction
        return other

    exact = -(atoms.get_forces() * direction).sum()
    scale = np.linalg.norm(atoms.get_forces())
    assert_derivative(exact, derivatives(moved, atoms.calc), scale)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", [n for n in CASES if STRUCTURES[n]().cell.rank == 3])
def test_stress(calculator, model, name):
    atoms = off_symmetry(name)
    strain = np.random.default_rng(3).normal(size=(3, 3))
    strain += strain.T
    atoms.calc = calculator(model)

    def strained(step):
        other = atoms.copy()
        other.set_cell(atoms.cell.array @ (np.eye(3) + step * strain), scale_atoms=True)
        # Atoms of a direction that is not periodic move with the strain, too.
        other.positions = atoms.positions @ (np.eye(3) + step * strain)
        return other

    virial = abs(atoms.get_volume()) * atoms.get_stress(voigt=False)
    differences = derivatives(strained, atoms.calc)
    assert_derivative((virial * strain).sum(), differences, np.linalg.norm(virial))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_component(calculator, dtype):
    """Not only along a random direction; in float32 the forces are those of the same function."""
    atoms = off_symmetry("ethanol")
    forces = calculator(*("ecse", dtype)).compute_batch([atoms])[0]["forces"]
    moved = []
    for index in np.ndindex(forces.shape):
        for step in (1e-4, -1e-4):
            moved.append(atoms.copy())
            moved[-1].positions[index] += step
    energies = [r["energy"] for r in calculator("ecse").compute_batch(moved, ["energy"], 90)]
    plus, minus = np.reshape(energies, (-1, 2)).T
    numerical = -(plus - minus).reshape(forces.shape) / 2e-4
    # Differences of second order: the third derivative limits them, or single precision.
    assert np.abs(numerical - forces).max() < (1e-4 if dtype == "float32" else 1e-5)


@pytest.mark.parametrize("model", ["ecse", "plain"])
def test_the_moment_of_the_forces_is_symmetric_with_ecse(calculator, model):
    """Rotations cost nothing, so that r outer F is the virial (LAMMPS uses that)."""
    atoms = off_symmetry("ethanol")
    atoms.calc = calculator(model)
    forces = atoms.get_forces()
    moment = atoms.positions.T @ forces
    asymmetry = np.abs(moment - moment.T).max()
    assert (asymmetry < 1e-9) == (model == "ecse")
