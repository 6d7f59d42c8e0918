"""Extended XYZ files as people have them: read where they are clear, else explained by line."""

from __future__ import annotations

import numpy as np
import pytest

from pet_mlip.data.labels import DataUnits
from pet_mlip.data.reading import read_structures
from pet_mlip.errors import UserError

GOOD = """2
Lattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3 energy=-1.5 pbc="T T T"
H 0.0 0.0 0.0
O 0.0 0.0 1.0
"""
SIX = GOOD.replace("energy=-1.5", 'energy=-1.5 {name}="1 2 3 4 5 6"')
VOIGT = [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
VASP = [[1, 4, 6], [4, 2, 5], [6, 5, 3]]


def read(path, text, units=None, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return list(read_structures(path, data_units=units or DataUnits()))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path, encoding, newline):
    found = read(tmp_path / "a.xyz", (GOOD + GOOD).replace("\n", newline), encoding=encoding)
    assert [s.species.tolist() for s in found] == [[1, 8]] * 2
    assert [s.energy for s in found] == [-1.5, -1.5]


@pytest.mark.parametrize("name", ["train@300K.xyz", "a@1:2.xyz", "@.xyz"])
def test_names_with_an_at_sign(tmp_path, name):
    assert len(read(tmp_path / name, GOOD + GOOD)) == 2
    if name == "train@300K.xyz":
        assert len(list(read_structures(f"{tmp_path / name}@1:"))) == 1


PROBLEMS = {
    "deuterium": (GOOD.replace("H 0", "D 0"), "line 3: D \\(deuterium\\) .* write H"),
    "tritium": (GOOD + GOOD.replace("H 0", "T 0"), "line 7: T \\(tritium\\)"),
    "no element": (GOOD.replace("O 0", "Qq 0"), "line 4: 'Qq' is not the symbol of an element"),
    "no number": (GOOD.replace("O 0.0", "O zero"), "line 4: 'zero' is not a number"),
    "columns": (GOOD.replace("H 0.0 0.0 0.0", "H 0.0 0.0"), "line 3: there are 3 columns instead"),
    "header": (GOOD + "two\n" + GOOD[2:], "line 5 should be a number of atoms, but is 'two'"),
    "cut short": (GOOD + GOOD.rsplit("O", 1)[0], "structure of 2 atoms in line 5 is cut short"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_named_by_line(tmp_path, name):
    text, words = PROBLEMS[name]
    with pytest.raises(UserError, match=words):
        read(tmp_path / "a.xyz", text)


@pytest.mark.parametrize("name", ["stress", "virial"])
def test_six_numbers_need_an_order(tmp_path, name):
    text = SIX.format(name=name)
    with pytest.raises(UserError, match=f"'{name}' has 6 numbers.*stress_order.*voigt.*vasp"):
        read(tmp_path / "a.xyz", text)
    factor = 1.0 if name == "stress" else -1 / 125
    for order, expected in (("voigt", VOIGT), ("vasp", VASP)):
        (found,) = read(tmp_path / "a.xyz", text, DataUnits(stress_order=order))
        np.testing.assert_allclose(found.stress, factor * np.array(expected, float))


def test_nine_numbers_need_none(tmp_path):
    text = SIX.format(name="stress").replace("1 2 3 4 5 6", "1 6 5 6 2 4 5 4 3")
    (found,) = read(tmp_path / "a.xyz", text)
    np.testing.assert_allclose(found.stress, VOIGT)


def test_orders_that_do_not_exist():
    with pytest.raises(UserError, match="stress_order: 'ase' is not one of None, voigt, vasp"):
        DataUnits(stress_order="ase")
