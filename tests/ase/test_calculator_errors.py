"""One sentence for every mistake."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from pet_mlip import PETCalculator
from pet_mlip.errors import UserError


def test_unknown_element(morse):
    atoms = Atoms("OFe", [[0, 0, 0], [0, 0, 2]])
    atoms.calc = morse
    with pytest.raises(UserError, match=r"Atom 1 .* is Fe, .* trained for H, C, O, Si, Cu"):
        atoms.get_potential_energy()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_not_finite_also_after_a_good_call(morse, value):
    atoms = molecule("H2O")
    atoms.calc = morse
    atoms.get_forces()
    atoms.positions[1, 2] = value
    for _ in range(2):
        with pytest.raises(UserError, match="position of atom 1"):
            atoms.get_forces()


def test_cell_not_finite(morse):
    atoms = bulk("Si")
    atoms.cell[0, 0] = np.nan
    atoms.calc = morse
    with pytest.raises(UserError, match="cell"):
        atoms.get_forces()


def test_degenerate_periodic_cell(morse):
    atoms = Atoms("Si", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=True)
    atoms.calc = morse
    with pytest.raises(UserError, match="linearly dependent"):
        atoms.get_forces()


def test_coincident_atoms(model_file):
    atoms = Atoms("OHH", [[0, 0, 0], [0, 0, 1], [0, 0, 1]])
    atoms.calc = PETCalculator(model_file)
    with pytest.raises(UserError, match=r"Atoms 1 and 2 .* same place"):
        atoms.get_forces()


def test_the_structure_whose_atoms_coincide_is_named(model_file):
    """Although frames carry its nan to the structures that are evaluated with it."""
    water, bad = molecule("H2O"), Atoms("OHH", [[0, 0, 0], [0, 0, 1], [0, 0, 1]])
    with pytest.raises(UserError, match="Atoms 1 and 2 of structure 2 are at the same place"):
        PETCalculator(model_file).compute_batch([water, water, bad, water])


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.pt"):
        PETCalculator(tmp_path / "nothing.pt")


def test_not_a_model(tmp_path):
    (tmp_path / "model.pt").write_text("not a model")
    with pytest.raises(UserError, match=r"model\.pt"):
        PETCalculator(tmp_path / "model.pt")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_cut_short(model_file, tmp_path, part):
    content = model_file.read_bytes()
    (tmp_path / "short.pt").write_bytes(content[: int(part * len(content))])
    with pytest.raises(UserError, match=r"short\.pt"):
        PETCalculator(tmp_path / "short.pt")


@pytest.mark.parametrize("wrong", [{"device": "abacus"}, {"dtype": "float16"}, {"dtype": "tf32"}])
def test_wrong_choice(model_file, wrong):
    with pytest.raises(UserError, match="|".join(wrong.values())):
        PETCalculator(model_file, **{"device": "cpu"} | wrong)


def test_negative_skin(model_file):
    with pytest.raises(UserError, match="skin"):
        PETCalculator(model_file, skin=-0.1)
