import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from benchmarks.learning.contestants import Metatrain
from benchmarks.learning.prepare import ENERGY, FORCES, STRESS, baseline, prepare, split
from benchmarks.learning.sets import SETS, LearningSet, choose
from pet_mlip.errors import UserError

HYDROGEN, OXYGEN = -13.0, -430.0


def labelled(atoms, energy, stress=None, **info):
    """Atoms with a calculator that knows the labels."""
    labels = {"energy": energy, "forces": np.arange(3.0 * len(atoms)).reshape(-1, 3)}
    if stress is not None:
        labels["stress"] = np.array(stress)
    atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.info |= info
    return atoms


def crystal(k):
    atoms = bulk("Si", a=5.4 + 0.01 * k)
    stress = None if k % 3 == 0 else [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    return labelled(atoms, -10.0 - 0.1 * k, stress, config_type="odd" if k % 2 else "even")


@pytest.fixture
def data(tmp_path):
    """A data root with thirty crystals for training, and six for tests."""
    folder = tmp_path / "data"
    folder.mkdir()
    ase.io.write(folder / "train.xyz", [crystal(k) for k in range(30)])
    ase.io.write(folder / "val.xyz", [crystal(k) for k in range(3)])
    ase.io.write(folder / "test.xyz", [crystal(k) for k in range(6)])
    return folder


def made_up(**changes):
    settings = {"name": "si", "train": "train.xyz", "tests": {"hot": "test.xyz"}, "minutes": 1}
    return LearningSet(**settings | {"batch": 2} | changes)


def test_the_labels_of_the_files_are_those_of_the_data(data, tmp_path):
    prepared = prepare(made_up(validation="val.xyz"), data, tmp_path / "out", 0)
    read = ase.io.read(prepared.train, ":")
    assert len(read) == prepared.n_train == 30 and prepared.n_validation == 3
    for k, atoms in enumerate(read):
        wanted = crystal(k)
        assert atoms.info[ENERGY] == pytest.approx(wanted.get_potential_energy(), abs=1e-9)
        assert np.allclose(atoms.arrays[FORCES], wanted.get_forces(), atol=1e-7)
        assert np.allclose(atoms.positions, wanted.positions, atol=1e-7) and atoms.pbc.all()
        assert (STRESS in atoms.info) == ("stress" in wanted.calc.results)
        if STRESS in atoms.info:
            assert np.allclose(atoms.info[STRESS], wanted.get_stress(voigt=False))
    assert prepared.has_stress and set(prepared.tests) == {"hot"}


def test_a_tenth_is_set_aside_in_the_same_way_for_the_same_seed(data, tmp_path):
    energies = []
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        found = prepare(made_up(), data, tmp_path / name, seed)
        parts = [ase.io.read(file, ":") for file in (found.train, found.validation)]
        assert list(map(len, parts)) == [27, 3] == [found.n_train, found.n_validation]
        kept, aside = ({round(a.info[ENERGY], 6) for a in part} for part in parts)
        assert not kept & aside and len(kept | aside) == 30
        energies.append(aside)
    assert energies[0] == energies[1] != energies[2]
    assert [len(part) for part in split([crystal(0), crystal(1)], 0)] == [1, 1]


def test_fewer_structures_are_drawn_for_training_and_validation(data, tmp_path):
    found = prepare(made_up(validation="val.xyz"), data, tmp_path / "some", 3, most=10)
    assert (found.n_train, found.n_validation) == (10, 1)
    everything = {round(crystal(k).get_potential_energy(), 6) for k in range(30)}
    energies = [round(a.info[ENERGY], 6) for a in ase.io.read(found.train, ":")]
    assert len(set(energies)) == 10 and set(energies) <= everything
    again = prepare(made_up(validation="val.xyz"), data, tmp_path / "again", 3, most=10)
    assert found.train.read_text() == again.train.read_text()
    whole = prepare(made_up(validation="val.xyz"), data, tmp_path / "whole", 3, most=100)
    assert whole.n_train == 30


def test_a_trial_has_whole_batches_and_tells_how_much_less_it_is(data, tmp_path):
    prepared = prepare(made_up(batch=2), data, tmp_path / "out", 0)
    trial = prepared.for_trial
    n_trial = len(ase.io.read(trial.train, ":"))
    assert n_trial == trial.n_train and len(ase.io.read(trial.validation, ":")) == 2
    assert prepared.scale == pytest.approx(prepared.n_train / n_trial)


def test_one_kind_of_test_structures_is_a_test_of_its_own(data, tmp_path):
    prepared = prepare(made_up(apart="odd"), data, tmp_path / "out", 0)
    sizes = {name: len(ase.io.read(file, ":")) for name, file in prepared.tests.items()}
    assert sizes == {"hot": 3, "odd": 3}


def test_the_baseline_fits_the_energies():
    structures = [Atoms(f"H{n}O{m}") for n, m in ((2, 1), (1, 1), (4, 2))]
    for atoms in structures:
        hydrogens = int((atoms.numbers == 1).sum())
        atoms.info[ENERGY] = hydrogens * HYDROGEN + (len(atoms) - hydrogens) * OXYGEN
    assert baseline(structures) == pytest.approx({1: HYDROGEN, 8: OXYGEN})


def test_metatrain_reads_missing_stresses_as_no_numbers(data, tmp_path):
    prepared = prepare(made_up(), data, tmp_path / "out", 0)
    copy = tmp_path / "copy.xyz"
    section = Metatrain().dataset(prepared.train, copy, True)
    assert section["systems"]["read_from"] == str(copy)
    for original, atoms in zip(ase.io.iread(prepared.train), ase.io.iread(copy), strict=True):
        assert atoms.info[STRESS].shape == (3, 3)
        assert np.isnan(atoms.info[STRESS]).all() == (STRESS not in original.info)
        assert atoms.info[ENERGY] == original.info[ENERGY]
    section = Metatrain().dataset(prepared.train, copy, False)
    assert section["systems"]["read_from"] == str(prepared.train)


def test_structures_without_labels_are_refused(data, tmp_path):
    ase.io.write(data / "train.xyz", bulk("Si"))
    with pytest.raises(UserError, match=r"Structure 0 of .* has no energy or no forces"):
        prepare(made_up(), data, tmp_path / "out", 0)


def test_unknown_sets_and_missing_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"--sets gold is not known; use all or some of acac"):
        choose("acac,gold", tmp_path)
    with pytest.raises(UserError, match="which mlearn_Si needs, is not there"):
        choose("mlearn_Si", tmp_path)
    for file in SETS["acac"].files():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert [one.name for one in choose("acac, acac", tmp_path)] == ["acac"]
    assert all(12 <= one.minutes <= 60 for one in SETS.values())
