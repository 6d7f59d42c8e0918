"""Energy and forces along paths through every switch never jump.

Between two points of a path, a smooth function changes by as little as one likes when the points
come together; a jump stays. The tests look for the largest change of energy and forces on a path
and then look closer and closer at it.
"""

from itertools import pairwise, product

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from model_files import CUTOFF

POINTS = 161
ROUNDS = 12
MODELS = [
    "ecse",
    "plain",
    pytest.param("ecse feedforward", marks=pytest.mark.slow),
]


def crossing_the_cutoff(t):
    """An atom comes into reach of an atom with other neighbours."""
    positions = [[0, 0, 0], [1.1, 0.3, 0], [-0.4, 1.2, 0.5], [0.3, 0.2, CUTOFF + 0.25 - 0.5 * t]]
    return Atoms("COHO", positions)


def dimer_breaking(t):
    return Atoms("CO", [[0, 0, 0], [0, 0, CUTOFF + 0.25 - 0.8 * t]])


def atom_leaving(t):
    """From the molecule to beyond its reach; from there to infinity nothing changes."""
    atoms = molecule("CH3CH2OH")
    outwards = atoms.positions[3] - atoms.get_center_of_mass()
    atoms.positions[3] += t * 5.0 * outwards / np.linalg.norm(outwards)
    return atoms


def angle_through_180(t):
    """A triatomic molecule bends through the straight line; the third dimension never enters."""
    angle = np.radians(170 + 20 * t)
    return Atoms(
        "OCO", [[-1.2, 0, 0], [0, 0, 0], 1.2 * np.array([-np.cos(angle), np.sin(angle), 0])]
    )


def angle_through_180_skew(t):
    """As before, with an atom nearby that defines a plane, and out of it."""
    angle = np.radians(150 + 60 * t)
    bent = 1.2 * np.array([-np.cos(angle), np.sin(angle), 0.3 * np.sin(angle)])
    return Atoms("OCOH", [[-1.2, 0, 0], [0, 0, 0], bent, [0.4, -1.9, 1.1]])


def trading_places(t):
    """Which of two neighbours is the nearest changes; a third stays between."""
    positions = [[0, 0, 0], [1.2 + 0.4 * t, 0, 0], [0, 1.6 - 0.4 * t, 0], [-0.5, -0.6, 1.2]]
    return Atoms("COHC", positions)


def far_apart_trading_places(t):
    positions = [[0, 0, 0], [2.3 + t, 0.1, 0], [0, 3.3 - t, 0], [-0.3, 0.2, 3.0]]
    return Atoms("COHC", positions)


def through_the_mirror(t):
    """The handedness of an environment changes at t = 0.5, where it is planar."""
    positions = [[0, 0, 0], [1.1, 0, 0], [-0.3, 1.3, 0], [-0.5, -0.9, 0.4 * t - 0.2]]
    return Atoms("COHC", positions)


def through_the_plane_of_two(t):
    """An atom passes through the line of another bond: the pair makes no plane there."""
    positions = [[0, 0, 0], [1.1, 0, 0], [2.2, 0.8 * t - 0.4, 0.1 * t - 0.05], [0.2, 1.2, 0.3]]
    return Atoms("COHC", positions)


def sheared(atoms, t):
    strain = np.eye(3) + 0.2 * t * np.array([[0, 1.0, 0], [0, 0, 0.5], [0, 0, -0.3]])
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    return atoms


def shearing_silicon(t):
    return sheared(bulk("Si"), t)


def shearing_copper(t):
    return sheared(bulk("Cu", "fcc", a=3.6), t)


def through_perfect_silicon(t):
    """All neighbours of a perfect crystal are equivalent at t = 0.5."""
    atoms = bulk("Si")
    atoms.positions += (t - 0.5) * 0.2 * np.random.default_rng(0).normal(size=(2, 3))
    return atoms


def random_walk_of_ethanol(t):
    atoms = molecule("CH3CH2OH")
    start, end = np.random.default_rng(4).normal(size=(2, 9, 3))
    atoms.positions += 0.1 * start + 0.25 * t * end
    return atoms


SHEARS = [shearing_silicon, pytest.param(shearing_copper, marks=pytest.mark.slow)]
MOVES = [
    crossing_the_cutoff,
    dimer_breaking,
    atom_leaving,
    angle_through_180,
    angle_through_180_skew,
    trading_places,
    far_apart_trading_places,
    through_the_mirror,
    through_the_plane_of_two,
    through_perfect_silicon,
    random_walk_of_ethanol,
]


def along(path, calculator):
    """Function from times to arrays of forces and energy on a path."""

    def values(times):
        batch = calculator.compute_batch([path(t) for t in times], max_atoms=90)
        return [np.append(r["forces"].ravel(), r["energy"]) for r in batch]

    return values


def difference(a, b):
    return np.abs(b - a).max()


class Sampled:
    """Forces and energy of a model on a path, and at regular points of it."""

    def __init__(self, path, calculator):
        self.path = path
        self.values = along(path, calculator)
        self.at_points = self.values(np.linspace(0.0, 1.0, POINTS))


@pytest.fixture(scope="module")
def sampled(calculator, request):
    """Of a model and a path, for all tests of them."""
    model, path = request.param
    return Sampled(path, calculator(model))


def each_with(paths):
    """Every model on each of the paths."""
    cases = []
    for path, model in product(paths, MODELS):
        both = [each if hasattr(each, "marks") else pytest.param(each) for each in (model, path)]
        values = [each.values[0] for each in both]
        marks = [mark for each in both for mark in each.marks]
        cases.append(pytest.param(values, marks=marks, id=f"{values[1].__name__}-{values[0]}"))
    return pytest.mark.parametrize("sampled", cases, indirect=True)


@each_with([*MOVES, *SHEARS])
def test_no_jump(sampled):
    times, found = np.linspace(0.0, 1.0, POINTS), sampled.at_points
    first = max(difference(a, b) for a, b in pairwise(found))
    assert first < 2.5, "the path is too coarse, or jumps"
    for _ in range(ROUNDS):
        k = int(np.argmax([difference(a, b) for a, b in pairwise(found)]))
        times = np.linspace(times[k], times[k + 1], 5)
        found = [found[k], *sampled.values(times[1:-1]), found[k + 1]]
    # The interval is now 4^-12 of what it was; a steep but smooth place may have hidden in it.
    last = max(difference(a, b) for a, b in pairwise(found))
    assert last < max(2.0**-8 * first, 1e-9)


def work_and_energy(found, path):
    """Work along the path by Simpson's rule with values at regular points, and the energies."""
    n = len(found)
    h, times, found = 1e-5, np.linspace(0.0, 1.0, n), np.array(found)
    velocity = [(path(t + h).positions - path(t - h).positions).ravel() / (2 * h) for t in times]
    power = -(found[:, :-1] * np.array(velocity)).sum(axis=1)
    weights = np.full(n, 2.0)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    return (weights * power).sum() / (3 * (n - 1)), found[:, -1]


@each_with(MOVES)
def test_the_energy_is_the_integral_of_the_forces(sampled):
    """Forces that differ from the derivative on a part of the path show in the work."""
    for n in (POINTS, 641, 2561):  # finer only where the forces ask for it
        fine = n > POINTS
        found = sampled.values(np.linspace(0.0, 1.0, n)) if fine else sampled.at_points
        work, energy = work_and_energy(found, sampled.path)
        error = abs(work - (energy[-1] - energy[0]))
        tolerance = max(2e-3 * np.ptp(energy), 1e-9)
        if error < tolerance:
            break
    assert error < tolerance


@pytest.mark.parametrize("model", ["ecse", "plain"])
def test_what_is_out_of_reach_does_not_matter(calculator, model):
    near, far = atom_leaving(1.0), atom_leaving(1000.0)
    a, b = calculator(model).compute_batch([near, far])
    assert a["energy"] == pytest.approx(b["energy"], abs=1e-12)
    assert np.abs(a["forces"] - b["forces"]).max() < 1e-12
    assert np.abs(a["forces"][3]).max() == 0.0


@pytest.mark.parametrize("model", ["ecse", "plain"])
def test_an_atom_at_the_cutoff_leaves_no_trace(calculator, model):
    inside, outside = dimer_breaking(0.25 / 0.8 + 1e-6), dimer_breaking(0.25 / 0.8 - 1e-6)
    a, b = calculator(model).compute_batch([inside, outside])
    assert a["energy"] == pytest.approx(b["energy"], abs=1e-12)
    assert np.abs(a["forces"]).max() < 1e-12
