"""Extended XYZ files as people have them: read where they are clear, else explained by line."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase.build import bulk
from ase.io import read as ase_read
from ase.io import write
from ase.io.extxyz import key_val_str_to_dict
from ase.io.formats import open_with_compression

from pet_mlip.data.labels import DataUnits, LabelKeys
from pet_mlip.data.reading import read_atoms, read_structures
from pet_mlip.data.xyz import parse_comment
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


@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["a.xyz", "a.xyz.gz", "a.extxyz.xz"])
def test_encodings_and_line_ends(tmp_path, encoding, newline, name):
    text = (GOOD + GOOD).replace("\n", newline).encode(encoding)
    with open_with_compression(str(tmp_path / name), "wb") as file:
        file.write(text)
    found = list(read_structures(tmp_path / name))
    assert [s.species.tolist() for s in found] == [[1, 8]] * 2
    assert [s.energy for s in found] == [-1.5, -1.5]


@pytest.mark.parametrize("name", ["POSCAR", "POSCAR.gz"])
def test_marks_in_other_formats(tmp_path, name):
    text = "box\n1.0\n5 0 0\n0 5 0\n0 0 5\nH\n1\nCartesian\n0 0 0\n"
    with open_with_compression(str(tmp_path / name), "wb") as file:
        file.write(text.encode("utf-16"))
    (found,) = read_structures(tmp_path / name)
    assert found.species.tolist() == [1]


def test_bytes_that_are_no_text_are_told(tmp_path):
    latin = GOOD.replace("energy", 'unit="Å" energy')
    with pytest.raises(UserError, match=r"frame 1 .*line 6: byte 0xc5 is no UTF-8 text.*iconv"):
        read(tmp_path / "a.xyz", GOOD + latin, encoding="latin-1")
    (tmp_path / "cut.xyz").write_bytes(GOOD.encode("utf-16")[:-1])
    with pytest.raises(UserError, match=r"cut.xyz cannot be read.*damaged"):
        list(read_structures(tmp_path / "cut.xyz"))


@pytest.mark.parametrize("name", ["train@300K.xyz", "a@1:2.xyz", "@.xyz", "b@1:2", "c@:"])
def test_names_with_an_at_sign(tmp_path, name):
    assert len(read(tmp_path / name, GOOD + GOOD)) == 2
    (tmp_path / "b").write_text(GOOD)  # of whose frames b@1:2 could be a slice
    if name == "train@300K.xyz":
        assert len(list(read_structures(f"{tmp_path / name}@1:"))) == 1


PROBLEMS = {
    "deuterium": (GOOD.replace("H 0", "D 0"), "line 3: D \\(deuterium\\) .* write H"),
    "tritium": (GOOD + GOOD.replace("H 0", "t 0"), "frame 1 .*line 7: t \\(tritium\\)"),
    "no element": (GOOD.replace("O 0", "Qq 0"), "line 4: 'Qq' is not the symbol of an element"),
    "number of an element": (GOOD.replace("O 0", "8 0"), "line 4: '8' is not the symbol of an el"),
    "no number": (GOOD.replace("O 0.0", "O zero"), "line 4: 'zero' is not a number"),
    "width": (GOOD.replace("1.0", "****"), r"line 4: '\*{4}' .*too wide for its Fortran format"),
    "comma": (GOOD.replace("1.0", "1,0"), "line 4: '1,0' .* decimal point instead of the comma"),
    "columns": (GOOD.replace("H 0.0 0.0 0.0", "H 0.0 0.0"), "line 3: there are 3 columns instead"),
    "header": (GOOD + "two\n" + GOOD[2:], "frame 1 .*line 5 should be a number of .* is 'two'"),
    "superscript": (GOOD + "²" + GOOD[1:], "line 5 should be a number of atoms, but is '²'"),
    "negative": (GOOD + "-1" + GOOD[1:], "line 5 should be a number of atoms, but is '-1'"),
    "too few": (GOOD + "1" + GOOD[1:], "frame 1 .*line 8 should be .*; line 5 says too few atoms"),
    "too many": (GOOD + "3" + GOOD[1:] + GOOD, r"line 9: there are 1 columns .*\(is line 5 right"),
    "cut short": (GOOD + GOOD.rsplit("O", 1)[0], "structure of 2 atoms in line 5 is cut short"),
    "half a structure": (GOOD + "2\n", "frame 1 .*ends after a number of atoms"),
    "columns of no number": (
        GOOD.replace("pos:R:3", "pos:R:"),
        "line 2: Properties is 'species:S:1:pos:R:', which is not name:kind:columns",
    ),
    "columns of no kind": (GOOD.replace("pos:R", "pos:Q"), "line 2: Properties is 'species"),
    "two thirds of a column": (GOOD.replace("R:3", "R:3:x:R"), "line 2: Properties is 'species"),
    "superscript columns": (GOOD.replace("R:3", "R:³"), "line 2: Properties is 'species"),
    "no positions": (GOOD.replace("pos:R", "position:R"), "line 2: .*without pos:R:3 for the pos"),
    "cell": (GOOD.replace("5 0 0 0", "5 0 0"), "line 2: Lattice is .* instead of 9 numbers"),
    "JSON": (GOOD.replace("energy", 'a="_JSON {" energy'), "line 2: a is .* which is no JSON"),
    "pbc": (GOOD.replace("T T T", "T T"), "line 2: pbc is .* instead of one or three of T and F"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_are_named_by_line(tmp_path, name):
    text, words = PROBLEMS[name]
    with pytest.raises(UserError, match=words):
        read(tmp_path / "a.xyz", text)


def test_fortran_exponents_are_numbers(tmp_path):
    text = GOOD.replace("5 0 0 0", "5.0D+00 0.d0 0 0").replace("-1.5", "-15D-1")
    text = text.replace("1.0\n", "0.1D+01\n").replace("energy", "config_type=1D-3 energy")
    (found,) = read(tmp_path / "a.xyz", text)
    assert (found.energy, found.config_type) == (-1.5, "1D-3")
    np.testing.assert_array_equal(found.positions[1], [0, 0, 1])
    np.testing.assert_array_equal(found.cell, 5 * np.eye(3))


def test_empty_lines_do_not_end_a_file(tmp_path):
    found = read(tmp_path / "a.xyz", GOOD + "\n \n" + GOOD + "\n")
    assert [s.source.frame for s in found] == [0, 1]


def test_faults_leave_the_rest(tmp_path):
    wrong = GOOD.replace("energy=-1.5", 'energy="1 2"')
    (tmp_path / "a.xyz").write_text(GOOD + wrong + GOOD + GOOD.replace("O 0", "Qq 0") + GOOD)
    (tmp_path / "b.xyz").write_text(GOOD + "two\n" + GOOD)
    (tmp_path / "c.xyz").write_text("")
    files, faults = [tmp_path / name for name in ("a.xyz", "b.xyz", "c.xyz")], []
    found = read_structures(files, on_fault=faults.append)
    assert [s.source.frame for s in found] == [0, 2, 4, 0]
    shape, element, header, empty = map(str, faults)
    assert "frame 1: the energy has shape (2,)" in shape
    assert "frame 3 cannot be read: line 16: 'Qq'" in element
    assert "frame 1 cannot be read: line 5" in header and "structures after it" in header
    assert "c.xyz is an empty file" in empty


@pytest.mark.parametrize(
    ("comment", "words"),
    [
        ('energy="1 2"', r"frame 0: the energy has shape \(2,\)"),
        ("energy=none", "frame 0: 'energy' holds 'none', which is not numbers"),
        ("stress=none", "frame 0: 'stress' holds 'none', which is not numbers"),
        ('stress="1 2 3"', r"frame 0: the stress has shape \(3,\)"),
        ("stress=1, 2, 3", r"frame 0: the stress has shape \(\)"),
        ('virial="1 2 3 4 5"', r"frame 0: the virial has shape \(5,\)"),
    ],
)
def test_labels_of_wrong_size(tmp_path, comment, words):
    text = GOOD.replace("energy=-1.5", comment)
    with pytest.raises(UserError, match=words):
        read(tmp_path / "a.xyz", text)
    if "energy" not in comment:  # what is not asked for does no harm
        keys = LabelKeys(stress=None, virial=None)
        (found,) = read_structures(tmp_path / "a.xyz", keys)
        assert found.stress is None


def test_results_that_are_no_labels_may_be_anything(tmp_path):
    (found,) = read(tmp_path / "a.xyz", GOOD.replace("energy", "dipole=none magmom=? energy"))
    assert found.energy == -1.5


def test_quoted_text_holds_no_labels(tmp_path):
    text = GOOD.replace("energy", """note='see stress="1 2 3 4 5 6" energy=3' energy""")
    (found,) = read(tmp_path / "a.xyz", text)
    assert found.stress is None
    assert found.energy == -1.5
    text = GOOD.replace("energy", 'pre-stress="1 2 3 4 5 6" my.virial="1 2 3 4 5 6" energy')
    assert read(tmp_path / "a.xyz", text)[0].stress is None


def test_comments_are_read_as_ase_reads_them():
    """Whatever the order of quotes, brackets, spaces and escapes."""
    rng, compared = np.random.default_rng(0), 0
    parts = [*"ab1 ='{}]T,", '"', "\\\\", ' c="', '" ', " d=3", "e={1 2.5} ", "f=[T F] ", " _JSON "]
    for _ in range(3000):
        comment = "".join(rng.choice(parts, rng.integers(1, 12)))
        try:
            expected = key_val_str_to_dict(comment)
        except (ValueError, IndexError):
            continue
        # ASE loses what comes after an empty value.
        if "" in expected or re.search(r"""=\s*("\"|''|{}|$)""", comment):
            continue
        compared += 1
        assert repr(parse_comment(comment)) == repr(expected), comment
    assert compared > 1000


def test_empty_values_and_spaces_around_signs(tmp_path):
    text = GOOD.replace("energy=-1.5", """note="" energy = -1.5 more='' """)
    assert read(tmp_path / "a.xyz", text)[0].energy == -1.5


def test_written_information_comes_back(tmp_path):
    atoms = bulk("Si")
    atoms.info |= {"who": {"a": "it's [me]", "b": [1, 2]}, "list": [[1], [2]], "more": "a=b c"}
    write(tmp_path / "a.xyz", atoms)
    ((_, found),) = read_atoms(tmp_path / "a.xyz")
    expected = ase_read(tmp_path / "a.xyz")
    assert repr(found.info) == repr(expected.info)
    assert found.info["who"] == atoms.info["who"]


NINE = "1 6 5 6 2 4 5 4 3"
ROWS = "[[1, 6, 5], [6, 2, 4], [5, 4, 3]]"


@pytest.mark.parametrize(
    "form",
    [
        f'"{NINE}"',
        NINE.replace(" ", ","),
        f"[{NINE}]",
        f"{{{NINE}}}",
        ROWS,
        ROWS.replace(" ", ""),
        f'"{ROWS}"',
        f'"_JSON {ROWS}"',
        '"' + NINE.replace("5", "0.5D+01") + '"',
    ],
)
@pytest.mark.parametrize("name", ["stress", "dft_stress", "virial"])
def test_forms_of_nine_numbers(tmp_path, form, name):
    text = GOOD.replace("energy", f"{name}={form} energy")
    (tmp_path / "a.xyz").write_text(text)
    keys = LabelKeys(stress=name if "stress" in name else "auto")
    (found,) = read_structures(tmp_path / "a.xyz", keys)
    factor = -1 / 125 if name == "virial" else 1
    np.testing.assert_allclose(found.stress, factor * np.array(VOIGT, float))
    assert found.energy == -1.5


@pytest.mark.parametrize(
    "form", ['"1 2 3 4 5 6"', "1,2,3,4,5,6", "[1, 2, 3, 4, 5, 6]", "{1 2 3 4 5 6}"]
)
@pytest.mark.parametrize("name", ["stress", "sigma", "dft_stress", "Sigma-dft"])
def test_any_name_and_form_of_six_numbers(tmp_path, form, name):
    (tmp_path / "a.xyz").write_text(GOOD.replace("energy", f"{name}={form} energy"))
    keys = LabelKeys(stress=name)
    with pytest.raises(UserError, match=f"'{name}' has 6 numbers.*stress_order"):
        list(read_structures(tmp_path / "a.xyz", keys))
    for order, expected in (("voigt", VOIGT), ("vasp", VASP)):
        (found,) = read_structures(tmp_path / "a.xyz", keys, DataUnits(stress_order=order))
        np.testing.assert_array_equal(found.stress, expected)
        assert found.energy == -1.5


def test_columns_are_no_stress_of_the_structure(tmp_path):
    """ASE takes them for one, and 6 numbers, one for each atom, would be xx yy zz yz xz xy."""
    text = GOOD.replace("2\n", "6\n", 1).replace("pos:R:3", "pos:R:3:stress:R:1")
    text = text.split("H 0")[0] + "".join(f"H 0 0 {k} {k}\n" for k in range(6))
    with pytest.raises(UserError, match=r"the stress has shape \(6, 1\)"):
        read(tmp_path / "a.xyz", text)
    text = text.replace("stress:R:1", "sigma:R:1")
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(UserError, match=r"the stress has shape \(6, 1\)"):
        list(read_structures(tmp_path / "a.xyz", LabelKeys(stress="sigma")))


@pytest.mark.parametrize("column", ["stress", "sigma"])
def test_columns_of_one_atom_have_an_order_too(tmp_path, column):
    text = GOOD.replace("2\n", "1\n", 1).replace("pos:R:3", f"pos:R:3:{column}:R:6")
    (tmp_path / "a.xyz").write_text(text.split("H 0")[0] + "H 0 0 0 1 2 3 4 5 6\n")
    keys = LabelKeys(stress=column)
    with pytest.raises(UserError, match=f"'{column}' has 6 numbers"):
        list(read_structures(tmp_path / "a.xyz", keys))
    (found,) = read_structures(tmp_path / "a.xyz", keys, DataUnits(stress_order="vasp"))
    np.testing.assert_array_equal(found.stress, VASP)


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
