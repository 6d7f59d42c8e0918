"""Files that ASE reads, and files that it does not."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest
from ase.constraints import FixAtoms
from ase.db import connect
from ase.io import write

from pet_mlip.data.labels import LabelKeys
from pet_mlip.data.load import load_structures
from pet_mlip.data.reading import read_structures
from pet_mlip.errors import UserError


def assert_same(structure, atoms):
    np.testing.assert_array_equal(structure.species, atoms.numbers)
    np.testing.assert_allclose(structure.positions, atoms.positions, atol=1e-7)
    np.testing.assert_allclose(structure.energy, atoms.calc.results["energy"], atol=1e-7)
    np.testing.assert_allclose(structure.forces, atoms.calc.results["forces"], atol=1e-7)
    if "stress" in atoms.calc.results:
        voigt = structure.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        np.testing.assert_allclose(voigt, atoms.calc.results["stress"], atol=1e-7)
    else:
        assert structure.stress is None


@pytest.mark.parametrize("name", ["all.xyz", "all.extxyz", "all.traj", "all.db", "all.json"])
@pytest.mark.parametrize("kind", ["crystals", "molecules"])
def test_formats(tmp_path, name, kind, request):
    frames = request.getfixturevalue(kind)
    path = tmp_path / name
    write(path, frames)
    structures = list(read_structures(path))
    assert len(structures) == len(frames)
    for number, (structure, atoms) in enumerate(zip(structures, frames, strict=True)):
        assert_same(structure, atoms)
        assert structure.source.frame == number
        assert str(structure.source) == f"{path}, frame {number}"


@pytest.mark.parametrize("name", ["all.xyz", "all.traj"])
def test_compressed(tmp_path, name, crystals):
    write(tmp_path / name, crystals)
    path = tmp_path / f"{name}.gz"
    with open(tmp_path / name, "rb") as source, gzip.open(path, "wb") as target:
        shutil.copyfileobj(source, target)
    structures = list(read_structures(path))
    assert [str(s.source) for s in structures] == [f"{path}, frame {i}" for i in range(6)]
    for structure, atoms in zip(structures, crystals, strict=True):
        assert_same(structure, atoms)


@pytest.mark.parametrize("name", ["all.xyz", "all.traj", "all.db"])
def test_constraints_do_not_zero_forces(tmp_path, name, crystals):
    atoms = crystals[0].copy()
    atoms.calc = crystals[0].calc
    atoms.set_constraint(FixAtoms([0, 1]))
    write(tmp_path / name, [atoms])
    (structure,) = read_structures(tmp_path / name)
    assert np.abs(atoms.get_forces()[:2]).max() == 0
    np.testing.assert_allclose(structure.forces, atoms.calc.results["forces"], atol=1e-7)
    assert np.abs(structure.forces[:2]).min() > 0


def test_database_columns_are_keys(tmp_path, crystals):
    path = tmp_path / "all.db"
    with connect(path) as database:
        bare = crystals[0].copy()
        database.write(
            bare, dft_energy=-3.5, config_type="bulk", data={"dft_forces": np.ones((4, 3))}
        )
    keys = LabelKeys(energy="dft_energy", forces="dft_forces")
    (structure,) = read_structures(path, keys)
    assert structure.energy == -3.5
    assert structure.config_type == "bulk"
    np.testing.assert_array_equal(structure.forces, np.ones((4, 3)))


def test_slices_patterns_and_lists(tmp_path, crystals):
    for name in ("a.xyz", "b.xyz"):
        write(tmp_path / name, crystals)

    def frames(files):
        return [(s.source.file[-5:], s.source.frame) for s in read_structures(files)]

    assert frames(f"{tmp_path}/a.xyz@1:4:2") == [("a.xyz", 1), ("a.xyz", 3)]
    assert frames(f"{tmp_path}/*.xyz@:1") == [("a.xyz", 0), ("b.xyz", 0)]
    assert len(frames([tmp_path / "b.xyz", tmp_path / "a.xyz"])) == 12
    with pytest.raises(UserError, match="slice of frames"):
        frames(f"{tmp_path}/a.xyz@-1:")
    with pytest.raises(UserError, match="slice of frames"):
        frames(f"{tmp_path}/a.xyz@::0")
    with pytest.raises(UserError, match="holds no structure"):
        frames(f"{tmp_path}/a.xyz@100:")


def test_names_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"no file .*data@v2\.xyz \(working"):
        list(read_structures(tmp_path / "data@v2.xyz"))
    with pytest.raises(UserError, match=r"is a folder; name files in it, as in .*/\*\.xyz"):
        list(read_structures(tmp_path))


def test_faults_in_frames_that_are_not_asked_for(tmp_path):
    bad = GOOD.replace("H 0 0 1", "H 0 zero 1")
    (tmp_path / "a.xyz").write_text(GOOD + bad + GOOD)
    assert [s.source.frame for s in read_structures(f"{tmp_path}/a.xyz@::2")] == [0, 2]


def test_reading_is_lazy(tmp_path, crystals):
    path = tmp_path / "half.traj"
    write(path, crystals)
    stream = read_structures(path)
    assert next(stream).source.frame == 0
    stream.close()


def test_progress_counts_structures(tmp_path, crystals):
    write(tmp_path / "all.xyz", crystals)
    seen = []
    assert len(load_structures(tmp_path / "all.xyz", progress=seen.append)) == 6
    assert seen == [1, 2, 3, 4, 5, 6]


GOOD = '2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1.0 pbc="F F F"\n' + (
    "H 0 0 0 0 0 0\nH 0 0 1 0 0 0\n"
)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("empty.xyz", "", "is an empty file"),
        ("junk.xyz", "hello\nworld\n", "junk.xyz cannot be read"),
        ("junk.unknown", "hello\nworld\n", "cannot be read"),
        ("number.xyz", GOOD + GOOD.replace("H 0 0 1", "H 0 zero 1"), "number.xyz, frame 1 cannot"),
        ("short.xyz", GOOD + GOOD.rsplit("H", 1)[0], "short.xyz, frame 1 cannot"),
        (
            "count.xyz",
            GOOD + GOOD + "3" + GOOD[1:] + GOOD,
            r"count.xyz, frame 2 .*line 13: .*\(is line 9 right",
        ),
        ("bad.traj", "not a trajectory", "cannot be read"),
    ],
)
def test_damaged_files_are_told(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=words) as told:
        list(read_structures(path))
    assert "\n" not in str(told.value)


def test_isotopes_in_other_formats(tmp_path):
    text = "box\n1.0\n5 0 0\n0 5 0\n0 0 5\nD\n1\nCartesian\n0 0 0\n"
    (tmp_path / "POSCAR").write_text(text)
    with pytest.raises(UserError, match=r"D \(deuterium\) is no element for ASE"):
        list(read_structures(tmp_path / "POSCAR"))


def test_missing_and_cut_short(tmp_path, crystals):
    with pytest.raises(UserError, match=r"no file .*nothing\.xyz"):
        list(read_structures(tmp_path / "nothing.xyz"))
    with pytest.raises(UserError, match="no file"):
        list(read_structures(str(tmp_path / "*.nothing")))
    write(tmp_path / "all.xyz", crystals)
    whole = gzip.compress((tmp_path / "all.xyz").read_bytes())
    (tmp_path / "cut.xyz.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.xyz\.gz cannot be read"):
        list(read_structures(tmp_path / "cut.xyz.gz"))
