"""Every mistake in the data is told in one sentence with file and frame."""

from __future__ import annotations

import numpy as np
import pytest
from ase.io import write
from rich.console import Console

from pet_mlip.data.checks import (
    DataLimits,
    check_known_species,
    check_species,
    check_structures,
)
from pet_mlip.data.coverage import coverage_table, require_labels
from pet_mlip.data.labels import LabelKeys
from pet_mlip.data.load import load_structures
from pet_mlip.data.splitting import split_by_fraction
from pet_mlip.errors import UserError

PERIODIC = np.ones(3, dtype=bool)


def spoiled(structure, name, place, value):
    getattr(structure, name)[place] = value
    return structure


@pytest.mark.parametrize(
    ("labels", "name", "place", "value", "words"),
    [
        ({}, "positions", (1, 2), np.nan, "position of atom 1 is not finite"),
        ({}, "positions", (0, 0), np.inf, "position of atom 0 is not finite"),
        ({}, "cell", (0, 0), np.nan, "cell is not finite"),
        ({"forces": np.zeros((3, 3))}, "forces", (2, 1), np.nan, "force of atom 2 is not finite"),
        ({"stress": np.zeros((3, 3))}, "stress", (0, 1), -np.inf, "stress is not finite"),
        ({"forces": np.zeros((3, 3))}, "forces", (1, 0), -301.0, "force on atom 1 is 301 eV/Å"),
        ({}, "species", 1, 0, "atom 1 has the atomic number 0"),
        ({}, "species", 1, 500, "atom 1 has the atomic number 500"),
        ({"pbc": PERIODIC}, "cell", (0, 0), 0.0, "periodic along a, b, c, but these"),
        (
            {"pbc": PERIODIC, "cell": np.diag([9.0, 9.0, 0.0])},
            "cell",
            (2, 0),
            3.0,
            "linearly dependent",
        ),
    ],
)
def test_bad_numbers(make_structure, labels, name, place, value, words):
    structure = spoiled(make_structure([1, 8, 1], 7, **labels), name, place, value)
    with pytest.raises(UserError, match=f"made.xyz, frame 7: .*{words}") as told:
        check_structures([structure])
    assert str(told.value).count(". ") == 0


def test_energy_that_is_no_number(make_structure):
    with pytest.raises(UserError, match="energy is not finite"):
        check_structures([make_structure([1, 1], energy=float("nan"))])


def test_overlapping_atoms(make_structure):
    structure = make_structure([1, 8, 1])
    structure.positions[2] = structure.positions[0] + [0.0, 0.0, 0.1]
    with pytest.raises(UserError, match=r"atom 0 and atom 2 are 0\.1 Å apart"):
        check_structures([structure])
    check_structures([structure], DataLimits(min_distance=0.05))
    structure.positions[2] = structure.positions[0]
    with pytest.raises(UserError, match="are 0 Å apart"):
        check_structures([structure])


def test_overlap_with_a_periodic_image(make_structure):
    structure = make_structure([1, 8], cell=5.0 * np.eye(3), pbc=PERIODIC)
    structure.positions[1] = structure.positions[0] + [0.0, 5.05, 0.0]
    with pytest.raises(UserError, match=r"a periodic image of atom 1 are 0\.05 Å apart"):
        check_structures([structure])
    small = make_structure([1], cell=np.diag([5.0, 5.0, 0.2]), pbc=PERIODIC)
    with pytest.raises(UserError, match=r"a periodic image of atom 0 are 0\.2 Å apart"):
        check_structures([small])


def test_no_atoms(make_structure):
    with pytest.raises(UserError, match="contains no atoms"):
        check_structures([make_structure([])])


def test_forces_limit_can_be_raised(make_structure):
    structure = make_structure([1, 1], forces=np.array([[500.0, 0, 0], [0, 0, 0]]))
    check_structures([structure], DataLimits(max_force=1000.0))
    with pytest.raises(UserError, match="raise max_force"):
        check_structures([structure])


def test_good_structures_pass(crystals, molecules, tmp_path):
    write(tmp_path / "a.xyz", [*crystals, *molecules])
    assert len(load_structures(tmp_path / "a.xyz")) == 11


def test_all_bad_frames_are_named_at_once(make_structure):
    structures = [make_structure([1, 8, 1], seed) for seed in range(30)]
    assert check_structures(structures) == structures
    for seed in (3, 8, 21):
        structures[seed].positions[0] = np.nan
    with pytest.raises(UserError, match=r"frame 3: .*; 2 more .*\(frames 8, 21\)"):
        check_structures(structures)
    for structure in structures:
        structure.positions[0] = np.nan
    with pytest.raises(UserError, match=r"29 more .*\(frames 1, 2, 3, 4, 5, 6, 7, 8, \.\.\.\)"):
        check_structures(structures)


def test_unknown_species(make_structure):
    training = [make_structure([1, 8])]
    check_species(training, [make_structure([8])], "validation")
    other = [make_structure([8], 4), make_structure([8, 6, 7], 5)]
    with pytest.raises(UserError, match=r"frame 5 \(validation\): contains C, N, .*contain H, O"):
        check_species(training, other, "validation")
    with pytest.raises(UserError, match="frame 5: contains N"):
        check_known_species([6, 8], other)


def test_coverage(make_structure):
    forces = np.zeros((2, 3))
    training = [make_structure([1, 1], energy=1.0, forces=forces), make_structure([1, 1], energy=1)]
    console = Console(width=120)
    with console.capture() as capture:
        console.print(coverage_table({"training": training, "test": training[:1], "none": []}))
    lines = [line.strip("│").split("│") for line in capture.get().splitlines()]
    cells = {
        line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines if len(line) > 4
    }
    assert cells["training"] == ["2", "4", "all", "1 (50.0 %)", "none"]
    assert cells["test"] == ["1", "2", "all", "all", "none"]


def test_labels_that_are_nowhere(tmp_path, crystals):
    atoms = crystals[0].copy()
    atoms.info["REF_energy"] = 1.0
    write(tmp_path / "a.xyz", [atoms])
    structures = load_structures(tmp_path / "a.xyz")
    with pytest.raises(UserError, match=r"has energy, .*a\.xyz has \(.*REF_energy"):
        require_labels(structures, ["energy"])
    require_labels(load_structures(tmp_path / "a.xyz", LabelKeys(energy="REF_energy")), ["energy"])
    require_labels(structures, [])


def test_stress_asked_for_of_molecules(make_structure):
    structures = [make_structure([1, 1], energy=1.0)]
    with pytest.raises(UserError, match="only defined for periodic structures"):
        require_labels(structures, ["energy", "stress"])
    with pytest.raises(UserError, match=r"has forces, .*check the key of forces"):
        require_labels(structures, ["forces"])


def test_splitting():
    items = [f"item {i}" for i in range(100)]
    training, validation, test = split_by_fraction(items, [0.1, 0.2], seed=3)
    assert (len(training), len(validation), len(test)) == (70, 10, 20)
    assert sorted([*training, *validation, *test]) == sorted(items)
    assert training == sorted(training, key=items.index)
    assert split_by_fraction(items, [0.1, 0.2], seed=3) == [training, validation, test]
    assert split_by_fraction(items, [0.1, 0.2], seed=4)[1] != validation
    assert split_by_fraction(items, [0.0], seed=3) == [items, []]
    assert [len(part) for part in split_by_fraction(items[:5], [0.01], seed=0)] == [4, 1]


@pytest.mark.parametrize(("n_items", "fractions"), [(10, [1.0]), (10, [-0.1]), (10, [0.6, 0.6])])
def test_impossible_fractions(n_items, fractions):
    with pytest.raises(UserError, match="Fractions"):
        split_by_fraction(range(n_items), fractions, seed=0)
    with pytest.raises(UserError, match="too few"):
        split_by_fraction([1], [0.1], seed=0)
