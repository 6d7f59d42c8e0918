"""Labels of a calculator and of a command, and what becomes of bad ones."""

import sys
import time

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from learn_tools import methanol_tree

from pet_mlip.config.load import validate_as
from pet_mlip.errors import UserError
from pet_mlip.learn.config import LearnConfig
from pet_mlip.learn.labelling import label_all
from pet_mlip.learn.reference import check_reference, compute_label

SCRIPT = """
import sys
from ase.io import read, write
from ase.calculators.emt import EMT
atoms = read("input.xyz")
assert open("extra.txt").read() == "needed"
{change}
atoms.calc = EMT()
atoms.get_forces()
write("output.xyz", atoms)
"""


def reference(folder, **changes):
    tree = methanol_tree(folder, reference={"calculator": "ase.calculators.emt.EMT", **changes})
    if "command" in changes:
        del tree["reference"]["calculator"]
    return validate_as(LearnConfig, tree, "test")


def command(folder, change="", **changes):
    (folder / "label.py").write_text(SCRIPT.format(change=change))
    (folder / "extra.txt").write_text("needed")
    words = f"{sys.executable} {folder / 'label.py'}"
    return reference(folder, command=words, files=[str(folder / "extra.txt")], **changes)


def moody(folder, mood, **changes):
    arguments = {"mood": mood}
    return reference(folder, calculator="learn_tools.Moody", arguments=arguments, **changes)


def two_molecules():
    """One that a moody reference labels, and one that it does not."""
    good = molecule("CH3OH")
    good.positions -= good.positions[0]
    bad = good.copy()
    bad.positions[:, 0] -= 1.0
    return [good, bad]


@pytest.mark.parametrize("make", [reference, command])
def test_labels_are_those_of_the_reference(tmp_path, make):
    config = make(tmp_path)
    check_reference(config.reference)
    for atoms in (molecule("CH3OH"), bulk("Cu", cubic=True)):
        atoms.rattle(0.05, seed=1)
        found = compute_label(config.reference, atoms, str(tmp_path / "label"))
        atoms.calc = EMT()
        assert found.get_potential_energy() == pytest.approx(atoms.get_potential_energy())
        np.testing.assert_allclose(found.get_forces(), atoms.get_forces(), atol=1e-7)
        assert ("stress" in found.calc.results) == bool(atoms.pbc.all())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("raise ValueError('no luck')", "ended with code 1: ValueError: no luck"),
        ("sys.exit()", "left no file output.xyz"),
        ("atoms.positions[0] += 0.1", "an atom moved 0.173"),
        ("atoms = atoms[::-1]", "another order"),
    ],
)
def test_wrong_answers_of_a_command_are_refused(tmp_path, change, words):
    config = command(tmp_path, change)
    with pytest.raises(UserError, match=words):
        compute_label(config.reference, molecule("CH3OH"), str(tmp_path / "label"))


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    config = reference(tmp_path, command="sleep 50 & sleep 50", timeout=0.5)
    start = time.monotonic()
    with pytest.raises(UserError, match=r"longer than 0\.5 s"):
        compute_label(config.reference, molecule("CH3OH"), str(tmp_path / "label"))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("raises", "ValueError: no convergence after 100 cycles"),
        ("dies", "its process ended"),
        ("nan", "forces that is not finite"),
        ("large", "above reference.max_force"),
        ("sleeps", "longer than 2 s"),
    ],
)
def test_a_failure_is_set_aside_and_the_others_go_on(tmp_path, mood, words):
    config = moody(tmp_path, mood, timeout=2 if mood == "sleeps" else None, processes=1)
    good, bad = two_molecules()
    labels = label_all(config, [bad, good], tmp_path / "labels", tmp_path)
    assert len(labels.structures) == 1
    np.testing.assert_allclose(labels.structures[0].positions, good.positions, atol=1e-7)
    assert words in labels.failed[0].info["reason"]
    # Nothing is computed again.
    again = label_all(reference(tmp_path), [bad, good], tmp_path / "labels", tmp_path)
    assert again.failed[0].info["reason"] == labels.failed[0].info["reason"]


def test_energies_far_from_all_others_are_set_aside(tmp_path):
    good, bad = two_molecules()
    labels = label_all(moody(tmp_path, "far"), [good, bad, good], tmp_path / "labels", tmp_path)
    assert len(labels.structures) == 2
    assert "eV/atom from the median" in labels.failed[0].info["reason"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"calculator": "nowhere.at.All"}, "cannot be imported"),
        ({"calculator": "ase.calculators.emt.EMP"}, "has no EMP"),
        ({"calculator": "EMT"}, "no import path"),
        ({"files": ["nothing.txt"]}, "there is no file nothing.txt"),
    ],
)
def test_a_reference_that_cannot_work_is_told_before(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        check_reference(reference(tmp_path, **changes).reference)


def test_a_calculator_of_the_working_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "my_reference.py").write_text("from ase.calculators.emt import EMT as Mine\n")
    monkeypatch.chdir(tmp_path)
    config = reference(tmp_path, calculator="my_reference.Mine")
    check_reference(config.reference)
    labels = label_all(config, [molecule("H2O")], tmp_path / "labels", tmp_path)
    assert len(labels.structures) == 1


def test_labels_of_a_cluster_are_those_of_this_machine(tmp_path):
    pytest.importorskip("distributed")
    dask = {
        "cluster": "distributed.LocalCluster",
        "arguments": {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None},
    }
    structures = [molecule("H2O"), molecule("CH3OH")]
    here = label_all(reference(tmp_path), structures, tmp_path / "here", tmp_path)
    there = label_all(reference(tmp_path, dask=dask), structures, tmp_path / "there", tmp_path)
    for one, other in zip(here.structures, there.structures, strict=True):
        assert one.get_potential_energy() == other.get_potential_energy()
    bad = two_molecules()[1]
    failing = label_all(moody(tmp_path, "raises", dask=dask), [bad], tmp_path / "bad", tmp_path)
    assert "no convergence" in failing.failed[0].info["reason"]
