"""Copies, pickles, and everybody else's torch settings."""

import copy
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from ase.build import molecule

from pet_mlip import PETCalculator


@pytest.fixture
def atoms():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05)
    return atoms


def energy_and_forces(atoms, calculator):
    atoms = atoms.copy()
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces()


def assert_same(a, b):
    assert a[0] == b[0]
    assert np.array_equal(a[1], b[1])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, PETCalculator.clone])
def test_copies_share_the_model_but_no_state(model_file, atoms, duplicate):
    first = PETCalculator(model_file)
    expected = energy_and_forces(atoms, first)
    second = duplicate(first)
    assert second.engine.model is first.engine.model
    other = atoms.copy()
    other.positions *= 1.1
    energy_and_forces(other, second)
    assert_same(energy_and_forces(atoms, first), expected)
    assert_same(energy_and_forces(atoms, second), expected)


class Meddler:
    """Lets another thread calculate while it is copied."""

    def __init__(self, calculator, other):
        self.calculator, self.other = calculator, other

    def __deepcopy__(self, memo):
        thread = threading.Thread(target=energy_and_forces, args=(self.other, self.calculator))
        thread.start()
        thread.join(0.5)
        self.thread = thread
        return None


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, PETCalculator.__getstate__])
def test_copies_are_of_one_moment(model_file, atoms, duplicate):
    """Nothing of them is from a call that another thread makes meanwhile."""
    calculator = PETCalculator(model_file)
    energy_and_forces(atoms, calculator)
    expected = calculator.results["energy"]
    other = atoms.copy()
    other.positions *= 1.1
    meddler = Meddler(calculator, other)
    # Copied before the results are.
    calculator.__dict__ = {"aside": meddler, **vars(calculator)}
    found = duplicate(calculator)
    state = found if isinstance(found, dict) else vars(found)
    meddler.thread.join(20)
    assert state["results"]["energy"] == expected
    assert np.array_equal(state["atoms"].positions, atoms.positions)
    assert calculator.results["energy"] != expected


def test_what_is_pickled_does_not_change_any_more(model_file, atoms):
    calculator = PETCalculator(model_file)
    energy_and_forces(atoms, calculator)
    state = calculator.__getstate__()
    kept = dict(state["results"])
    other = atoms.copy()
    other.positions *= 1.1
    energy_and_forces(other, calculator)
    calculator.results["more"] = 1
    assert state["results"] == kept
    assert state["_neighbours"] is not calculator._neighbours


@pytest.mark.parametrize("used", [False, True])
def test_pickle(model_file, atoms, used):
    calculator = PETCalculator(model_file)
    if used:
        energy_and_forces(atoms, calculator)
    again = pickle.loads(pickle.dumps(calculator))
    assert_same(energy_and_forces(atoms, again), energy_and_forces(atoms, calculator))
    assert again.metadata == calculator.metadata


def test_pickled_atoms_work_in_another_process(model_file, atoms):
    calculator = PETCalculator(model_file)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(energy_and_forces, atoms, calculator).result()
    expected = energy_and_forces(atoms, calculator)
    # Another process may have another number of threads.
    assert found[0] == pytest.approx(expected[0], abs=1e-12)
    assert np.allclose(found[1], expected[1], rtol=0, atol=1e-12)


@pytest.fixture
def settings():
    """Torch's global settings, put back afterwards."""
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    yield
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(grad)


def test_global_settings_are_left_alone(model_file, atoms, settings):
    def state():
        return (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.get_num_interop_threads(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.random.get_rng_state().tolist(),
            torch.jit.is_scripting(),
            torch.get_float32_matmul_precision(),
        )

    before = state()
    energy_and_forces(atoms, PETCalculator(model_file))
    assert state() == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_another_default_dtype_changes_nothing(model_file, atoms, settings, dtype):
    expected = energy_and_forces(atoms, PETCalculator(model_file, dtype=dtype))
    torch.set_default_dtype(torch.float64)
    assert_same(energy_and_forces(atoms, PETCalculator(model_file, dtype=dtype)), expected)
    torch.set_default_dtype(torch.float16)
    assert_same(energy_and_forces(atoms, PETCalculator(model_file, dtype=dtype)), expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_forces_in_any_grad_mode(model_file, atoms, mode):
    expected = energy_and_forces(atoms, PETCalculator(model_file))
    with mode():
        assert_same(energy_and_forces(atoms, PETCalculator(model_file)), expected)


def test_a_list_from_inference_mode_serves_outside_it(model_file, atoms):
    calculator = PETCalculator(model_file)
    with torch.inference_mode():
        energy_and_forces(atoms, calculator)
    atoms.rattle(0.02, seed=1)
    expected = energy_and_forces(atoms, PETCalculator(model_file))
    assert_same(energy_and_forces(atoms, calculator), expected)
    assert calculator.info["neighbour_builds"] == 1


def test_batches_in_inference_mode(model_file, atoms):
    calculator = PETCalculator(model_file)
    expected = calculator.compute_batch([atoms, atoms])[1]
    with torch.inference_mode():
        found = calculator.compute_batch([atoms, atoms])[1]
    assert np.array_equal(found["forces"], expected["forces"])


def test_precision_can_be_chosen(model_file, atoms):
    exact = energy_and_forces(atoms, PETCalculator(model_file, dtype="float64"))
    single = energy_and_forces(atoms, PETCalculator(model_file, dtype="float32"))
    assert single[0] != exact[0]
    assert single[0] == pytest.approx(exact[0], abs=1e-4)


def test_mixed_precision_is_invariant_under_rotations_and_survives_pickling(model_file, atoms):
    calculator = PETCalculator(model_file, dtype="bf16-mixed")
    energy, forces = energy_and_forces(atoms, calculator)
    again = pickle.loads(pickle.dumps(calculator))
    assert again.engine.model.precision == "bf16-mixed"
    assert_same(energy_and_forces(atoms, again), (energy, forces))
    exact, exact_forces = energy_and_forces(atoms, PETCalculator(model_file, dtype="float64"))
    assert 1e-4 < np.linalg.norm(forces - exact_forces) / np.linalg.norm(exact_forces) < 6e-2
    turned = atoms.copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    # Coordinates are rotated in float64, and the same ever after.
    found, _ = energy_and_forces(turned, calculator)
    assert found == pytest.approx(energy, abs=1e-5)
    assert abs(energy - exact) > 1e-5
