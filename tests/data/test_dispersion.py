"""D3 of every kind of structure has the forces, stress and second derivatives of its energy."""

import copy
import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from pet_mlip.data.dispersion import D3, canonical_name, subtract
from pet_mlip.data.labels import structure_from_atoms
from pet_mlip.data.neighbours import is_degenerate
from pet_mlip.data.structure import Structure
from pet_mlip.errors import UserError

pytest.importorskip("dftd3.ase")
STEP = 1e-4


def boxed():
    atoms = molecule("H2O")
    atoms.center(vacuum=3.0)
    return atoms


def layer(**cell):
    """Two atoms, one of them on the border of where the cell begins."""
    return Atoms("OC", [(0, 0, 0), (0.8, 1.1, 0.9)], **cell)


STRUCTURES = {
    "molecule": molecule("H2O"),
    "in a box": boxed(),
    "slab": layer(cell=[2.8, 2.9, 0], pbc=[1, 1, 0]),
    "slab with vacuum": layer(cell=[(2.8, 0, 0), (0.3, 2.9, 0), (0, 0, 12)], pbc=[1, 1, 0]),
    "slab across the border": layer(cell=[(2.8, 0, 0), (4, 0, 12), (0.3, 2.9, 0)], pbc=[1, 0, 1]),
    "wire": layer(cell=[2.8, 0, 0], pbc=[1, 0, 0]),
    "left-handed": bulk("Si").repeat((1, 1, 2))[[0, 2, 1, 3]],
}
STRUCTURES["slab across the border"].positions -= [0, 0, 0.4]
STRUCTURES["left-handed"].set_cell(STRUCTURES["left-handed"].cell.array[[1, 0, 2]])
STRUCTURES["left-handed"].rattle(0.05, seed=0)


@pytest.fixture(scope="module")
def d3():
    return D3.parse("d3(PBE)")


def slope(function, atoms, move):
    """Central difference of a function of the atoms, which ``move`` displaces."""
    values = []
    for sign in (1, -1):
        moved = atoms.copy()
        move(moved, sign * STEP)
        values.append(function(moved))
    return (values[0] - values[1]) / (2 * STEP)


@pytest.mark.parametrize("name", STRUCTURES)
def test_derivatives(d3, name):
    atoms = STRUCTURES[name]
    found, hessian = d3(atoms), d3.hessian(atoms)
    for atom, axis in np.ndindex(len(atoms), 3):

        def move(moved, by, atom=atom, axis=axis):
            moved.positions[atom, axis] += by

        force = -slope(lambda a: d3(a).energy, atoms, move)
        assert found.forces[atom, axis] == pytest.approx(force, abs=1e-7)
        row = -slope(lambda a: d3(a).forces.ravel(), atoms, move)
        np.testing.assert_allclose(hessian[3 * atom + axis], row, atol=2e-6)


@pytest.mark.parametrize("name", STRUCTURES)
def test_stress(d3, name):
    atoms = STRUCTURES[name]
    stress = d3(atoms).stress
    if is_degenerate(atoms.cell.array):
        assert stress is None
        return
    # Strains carry pairs of a crystal over dftd3's cutoff, at which it does not fade out.
    bound = 1e-7 if not atoms.pbc.all() else 1e-4
    for a, b in np.ndindex(3, 3):

        def strain(moved, by, a=a, b=b):
            deformation = np.eye(3)
            deformation[a, b] += by / 2
            deformation[b, a] += by / 2
            moved.set_cell(moved.cell.array @ deformation)
            moved.positions = moved.positions @ deformation

        expected = slope(lambda moved: d3(moved).energy, atoms, strain) / abs(atoms.get_volume())
        assert stress[a, b] == pytest.approx(expected, abs=bound)


def test_nothing_depends_on_where_a_slab_is(d3):
    slab = STRUCTURES["slab with vacuum"]
    expected = d3(slab)
    turned = slab.copy()
    turned.set_cell(slab.cell.array[[2, 1, 0]])
    turned.pbc = slab.pbc[[2, 1, 0]]
    assert d3(turned).energy == pytest.approx(expected.energy, abs=1e-12)
    for shift in ([0, 0, -0.5], [0.3, 0.2, 30.0], [2.8, 0, -6.0]):
        moved = slab.copy()
        moved.positions += shift
        assert d3(moved).energy == pytest.approx(expected.energy, abs=1e-12)
        np.testing.assert_allclose(d3(moved).forces, expected.forces, atol=1e-12)


def test_labels_are_those_without_it(d3):
    atoms = STRUCTURES["slab with vacuum"]
    found = d3(atoms)
    first = structure_from_atoms(atoms)
    first.energy, first.forces, first.stress = 2.0, np.ones((2, 3)), np.eye(3)
    without_labels = structure_from_atoms(atoms)
    subtract(d3, [first, without_labels])
    assert first.energy == 2.0 - found.energy
    np.testing.assert_array_equal(first.forces, 1.0 - found.forces)
    np.testing.assert_array_equal(first.stress, np.eye(3) - found.stress)
    labels = (without_labels.energy, without_labels.forces, without_labels.stress)
    assert labels == (None, None, None)


def test_copies_and_pickles(d3):
    expected = d3(STRUCTURES["molecule"]).energy
    for other in (copy.deepcopy(d3), pickle.loads(pickle.dumps(d3))):
        assert other(STRUCTURES["molecule"]).energy == expected


def test_names():
    assert canonical_name(" D3( pbe ) ") == "d3(PBE, d3bj)"
    assert canonical_name("d3(PBE,D3zero)") == "d3(PBE, d3zero)"
    with pytest.raises(ValueError, match="not of the form"):
        canonical_name("d4(PBE)")
    with pytest.raises(UserError, match=r"no parameters for d3\(NOTHING, d3bj\)"):
        D3.parse("d3(nothing)")
    with pytest.raises(UserError, match=r"no parameters for d3\(PBE, d5\)"):
        D3.parse("d3(PBE, d5)")


def test_nothing_is_nothing(d3):
    assert d3(Atoms()).energy == 0.0
    alone = Structure(np.array([1]), np.zeros((1, 3)), np.zeros((3, 3)), np.zeros(3, bool), -13.0)
    subtract(d3, [alone])
    assert alone.energy == -13.0
