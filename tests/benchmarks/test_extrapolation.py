"""The scans of `benchmarks.extrapolation`: they move what they say, and nothing else."""

import numpy as np
import pytest
from ase.build import molecule

from benchmarks.extrapolation import CH2, CH3, HYDROXYL, OXYGEN, bonds, make_scans


@pytest.fixture(scope="module")
def scans():
    return make_scans(molecule("CH3CH2OH"))


@pytest.mark.parametrize(
    ("name", "fixed", "moved"), [("C-C", CH3, CH2), ("C-O", CH2, OXYGEN), ("O-H", OXYGEN, HYDROXYL)]
)
def test_one_bond_is_stretched(scans, name, fixed, moved):
    atoms = molecule("CH3CH2OH")
    length = atoms.get_distance(fixed, moved)
    others = [pair for pair in bonds(atoms) if set(pair) != {fixed, moved}]
    for factor, stretched in scans[f"{name} bond, 0.8 to 2"]:
        assert stretched.get_distance(fixed, moved) == pytest.approx(factor * length)
        for pair in others:
            assert stretched.get_distance(*pair) == pytest.approx(atoms.get_distance(*pair))


def test_angles_are_bent_and_turned_with_all_bonds_kept(scans):
    atoms = molecule("CH3CH2OH")
    for name, place in (
        ("CCO angle, 70° to 170°", lambda a: a.get_angle(CH3, CH2, OXYGEN)),
        ("hydroxyl group, turned", lambda a: a.get_dihedral(CH3, CH2, OXYGEN, HYDROXYL)),
    ):
        for angle, moved in scans[name]:
            assert np.cos(np.radians(place(moved) - angle)) == pytest.approx(1.0)
            for pair in bonds(atoms):
                assert moved.get_distance(*pair) == pytest.approx(atoms.get_distance(*pair))


def test_the_second_molecule_comes_near_as_it_is(scans):
    atoms = molecule("CH3CH2OH")
    for distance, both in scans["two molecules, 3.2 Å to 8 Å"]:
        first, second = both[: len(atoms)], both[len(atoms) :]
        assert np.linalg.norm((second.positions - first.positions).mean(axis=0)) == pytest.approx(
            distance
        )
        assert np.allclose(second.get_all_distances(), atoms.get_all_distances())
