"""Results belong to one structure, whoever asks in whichever order, threads included."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io import read, write
from model_files import small_potential

from pet_mlip import PETCalculator
from pet_mlip.engine.precision import MatrixProducts
from pet_mlip.errors import UserError
from pet_mlip.export import save_model


@pytest.fixture
def calculator(model_file):
    return PETCalculator(model_file)


def ethanol(seed=1):
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=seed)
    return atoms


def silicon():
    atoms = bulk("Si")
    atoms.rattle(0.05, seed=1)
    return atoms


def forces_of(atoms, model_file):
    alone = atoms.copy()
    alone.calc = PETCalculator(model_file)
    return alone.get_forces()


@pytest.mark.parametrize("others", [ethanol(2), molecule("H2O"), bulk("Cu"), Atoms("O"), Atoms()])
def test_energies_of_one_structure_leave_no_forces_of_another(calculator, others):
    calculator.calculate(silicon())
    assert set(calculator.results) == set(calculator.implemented_properties)
    calculator.calculate(others, ["energy"])
    assert set(calculator.results) == {"energy", "free_energy", "energies"}
    assert len(calculator.results["energies"]) == len(others)


def test_forces_after_energies_of_the_same_structure(calculator, model_file):
    atoms = ethanol()
    calculator.calculate(atoms, ["energy"])
    calculator.calculate(atoms, ["forces"])
    np.testing.assert_array_equal(calculator.results["forces"], forces_of(atoms, model_file))
    calculator.calculate(atoms, ["energy"])
    assert "forces" in calculator.results
    # In another cell it is another structure.
    atoms.set_cell([9, 9, 9])
    atoms.pbc = True
    calculator.calculate(atoms, ["energy"])
    assert "forces" not in calculator.results


def test_everything_is_the_default(calculator):
    calculator.calculate(silicon())
    assert set(calculator.results) == set(calculator.implemented_properties)
    calculator.calculate(ethanol())
    without_volume = set(calculator.implemented_properties) - {"stress", "stresses"}
    assert set(calculator.results) == without_volume
    calculator.calculate()
    assert set(calculator.results) == without_volume


@pytest.mark.parametrize("wrong", [Atoms("OFe"), Atoms("OH", [(0, 0, 0), (np.nan, 0, 0)])])
def test_a_call_that_fails_leaves_no_results(calculator, wrong):
    atoms = ethanol()
    atoms.calc = calculator
    atoms.get_forces()
    with pytest.raises(UserError):
        calculator.calculate(wrong)
    assert calculator.results == {}
    with pytest.raises(UserError):
        calculator.get_property("energy", wrong)
    assert calculator.results == {}


def test_a_stress_that_does_not_exist_leaves_no_results(calculator):
    calculator.calculate(silicon())
    with pytest.raises(PropertyNotImplementedError, match="cell"):
        calculator.calculate(ethanol(), ["energy", "stress"])
    assert calculator.results == {}


def test_a_call_that_fails_leaves_what_is_known_of_the_same_structure(calculator):
    """As writers rely on, which ask for a stress in case there is one."""
    calculator.calculate(ethanol())
    before = dict(calculator.results)
    with pytest.raises(PropertyNotImplementedError, match="cell"):
        calculator.calculate(ethanol(), ["stress"])
    assert calculator.results == before


def test_a_slip_with_a_new_structure_leaves_no_results(calculator):
    calculator.calculate(silicon())
    with pytest.raises(UserError, match="list of names"):
        calculator.calculate(ethanol(), "forces")
    assert calculator.results == {}


def test_a_wrong_state_is_that_of_another_structure(tmp_path):
    save_model(tmp_path / "model.pt", small_potential(system_conditioning=True))
    calculator, atoms = PETCalculator(tmp_path / "model.pt"), ethanol()
    calculator.calculate(atoms)
    atoms.info["charge"] = "many"
    for call in (calculator.calculate, lambda a: calculator.get_property("energy", a)):
        with pytest.raises(UserError, match="charge"):
            call(atoms)
        assert calculator.results == {}
    atoms.info["charge"] = 0
    calculator.calculate(atoms)
    assert "energy" in calculator.results


def test_a_monte_carlo_loop_writes_right_forces(calculator, model_file, tmp_path):
    """Energies of trials, forces of what was accepted, written as ASE does."""
    atoms = ethanol()
    atoms.calc = calculator
    random = np.random.default_rng(1)
    for step in range(4):
        atoms.get_forces()
        trial = atoms.copy()
        trial.positions += 0.02 * random.normal(size=trial.positions.shape)
        calculator.calculate(trial, ["energy"])
        if step % 2:
            atoms.positions = trial.positions
        write(tmp_path / "all.xyz", atoms, append=True)
    calculator.calculate(atoms)
    write(tmp_path / "all.xyz", atoms, append=True)
    written = read(tmp_path / "all.xyz", ":")
    for found in written:
        if found.calc is not None and "forces" in found.calc.results:
            forces = forces_of(found, model_file)
            np.testing.assert_allclose(found.calc.results["forces"], forces, rtol=0, atol=1e-6)
    assert "forces" in written[-1].calc.results


def test_batches_leave_results_alone(calculator, model_file):
    atoms = ethanol()
    atoms.calc = calculator
    forces = atoms.get_forces()
    calculator.compute_batch([silicon(), molecule("H2O")])
    np.testing.assert_array_equal(atoms.get_forces(), forces)


def test_threads_may_share_a_calculator(calculator, model_file):
    """Each gets what belongs to its structure."""
    structures = [ethanol(seed) for seed in range(4)] + [silicon(), molecule("H2O")]
    expected = [forces_of(atoms, model_file) for atoms in structures]
    start = threading.Barrier(len(structures))

    def ask(k):
        atoms = structures[k].copy()
        atoms.calc = calculator
        start.wait()
        wrong = 0
        for _ in range(25):
            atoms.calc = calculator
            energies = atoms.get_potential_energies()
            forces = atoms.get_forces()
            batch = calculator.compute_batch([atoms])[0]["forces"]
            for found in (forces, batch):
                wrong += found.shape != expected[k].shape or not np.allclose(
                    found, expected[k], rtol=0, atol=1e-12
                )
            wrong += len(energies) != len(atoms)
        return wrong

    with ThreadPoolExecutor(len(structures)) as pool:
        assert sum(pool.map(ask, range(len(structures)))) == 0


def test_threads_that_want_other_precisions_wait_for_each_other():
    products = MatrixProducts()
    before = torch.get_float32_matmul_precision()
    seen = []

    def use(precision):
        for _ in range(200):
            with products(precision):
                wanted = "high" if precision == "bf16-mixed" else "highest"
                for _ in range(5):
                    seen.append(torch.get_float32_matmul_precision() == wanted)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, ["float32", "bf16-mixed", "float64", "bf16-mixed"]))
    assert len(seen) == 4000
    assert all(seen)
    assert torch.get_float32_matmul_precision() == before


SLIPS = {
    "one structure": (lambda c: c.compute_batch(ethanol()), r"write \[atoms\]"),
    "a path": (lambda c: c.compute_batch("all.xyz"), r"ase.io.read\('all.xyz', ':'\)"),
    "no structure": (lambda c: c.compute_batch([ethanol(), 7]), "structure 1 is no ase.Atoms"),
    "properties of a batch": (
        lambda c: c.compute_batch([ethanol()], "energy"),
        r"write \['energy'\] instead of 'energy'",
    ),
    "properties": (lambda c: c.calculate(ethanol(), "forces"), r"write \['forces'\] instead"),
    "nothing": (lambda c: c.calculate(), "calculate takes an ase.Atoms, not NoneType"),
    "a list": (lambda c: c.calculate([ethanol()]), "calculate takes an ase.Atoms, not list"),
    "max_atoms": (lambda c: c.compute_batch([ethanol()], max_atoms=0), "max_atoms is a whole"),
    "skin": (lambda c: PETCalculator(c.engine.model, skin="0.5"), "skin is a length in Å"),
    "endless skin": (lambda c: PETCalculator(c.engine.model, skin=np.inf), "skin is a length"),
    "negative skin": (lambda c: PETCalculator(c.engine.model, skin=-1), "skin is a length"),
    "chunk_size": (lambda c: PETCalculator(c.engine.model, chunk_size=1.5), "chunk_size is a"),
    "dtype": (lambda c: PETCalculator("m.pt", dtype=torch.float64), 'a name such as "float32"'),
    "symmetrization": (
        lambda c: PETCalculator(c.engine.model, symmetrization=3),
        'symmetrization is a name such as "structure"',
    ),
    "model": (lambda c: PETCalculator(3), "model is the path"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_slips_are_answered_in_words(calculator, name):
    slip, words = SLIPS[name]
    with pytest.raises(UserError, match=words):
        slip(calculator)


def test_batches_of_a_generator(calculator):
    found = calculator.compute_batch(ethanol(seed) for seed in range(3))
    assert len(found) == 3
