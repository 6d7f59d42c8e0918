"""The structures of the first training."""

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.io import write
from learn_tools import methanol_tree

from pet_mlip.config.load import validate_as
from pet_mlip.errors import UserError
from pet_mlip.learn.config import FirstConfig, LearnConfig
from pet_mlip.learn.start import first_structures, is_too_close, read_start

FIRST = FirstConfig(structures=20, displacement=0.05, strain=0.05)


def slab():
    atoms = fcc111("Cu", (2, 2, 2), vacuum=5.0, periodic=False)
    atoms.rotate(30, "x", rotate_cell=True)  # no periodic direction along an axis
    return atoms


def test_given_structures_come_first_as_they_are():
    start = [molecule("CH3OH"), molecule("H2O")]
    found = first_structures(start, FIRST, seed=1)
    assert len(found) == 20
    for k, atoms in enumerate(found):
        assert np.array_equal(atoms.numbers, start[k % 2].numbers)
        if k < 2:
            assert np.array_equal(atoms.positions, start[k].positions)


def test_displacements_grow_up_to_what_was_asked_for():
    start = [bulk("Cu", cubic=True) * (3, 3, 3)]
    found = first_structures(start, FirstConfig(structures=21, displacement=0.05, strain=0), 1)
    widths = [float(np.std(atoms.positions - start[0].positions)) for atoms in found]
    np.testing.assert_allclose(widths, 0.05 * np.arange(21) / 20, rtol=0.2)


@pytest.mark.parametrize("start", [slab(), molecule("H2O")])
def test_only_periodic_directions_are_strained(start):
    periodic = start.cell.array[start.pbc]
    normal = np.cross(*periodic) if len(periodic) else None
    found = first_structures([start], FirstConfig(structures=8, displacement=1e-9), 1)[-1]
    if normal is None:
        np.testing.assert_allclose(found.positions, start.positions, atol=1e-7)
        return
    normal = normal / np.linalg.norm(normal)
    np.testing.assert_allclose(found.positions @ normal, start.positions @ normal, atol=1e-7)
    strained = found.cell.array[start.pbc]
    assert np.abs(strained - periodic).max() > 0.02
    np.testing.assert_allclose(strained @ normal, periodic @ normal, atol=1e-9)
    scaled = [a.get_scaled_positions(wrap=False)[:, :2] for a in (start, found)]
    np.testing.assert_allclose(*scaled, atol=1e-7)


def test_the_seed_decides():
    start = [molecule("CH3OH")]
    one, same, other = (first_structures(start, FIRST, seed) for seed in (1, 1, 2))
    assert np.array_equal(one[-1].positions, same[-1].positions)
    assert not np.array_equal(one[-1].positions, other[-1].positions)


def test_displacements_that_make_no_sense_are_refused():
    far = FirstConfig(structures=20, displacement=5.0)
    with pytest.raises(UserError, match="closer than"):
        first_structures([bulk("Cu", cubic=True) * (6, 6, 6)], far, 0)
    moderate = FirstConfig(structures=30, displacement=0.3)
    assert not any(is_too_close(a) for a in first_structures([molecule("H2O")], moderate, 0))


def test_what_cannot_be_started_from_is_refused(tmp_path):
    config = validate_as(LearnConfig, methanol_tree(tmp_path), "test")
    atoms = molecule("H2O")
    atoms.positions[1] = atoms.positions[0]
    write(tmp_path / "start.xyz", atoms)
    with pytest.raises(UserError, match=r"start\.xyz, frame 0: two atoms are closer"):
        read_start(config)
