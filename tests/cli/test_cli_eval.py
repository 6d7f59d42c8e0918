"""`pet-mlip eval`."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from model_files import small_potential

from pet_mlip import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export import save_model


def test_tables(run):
    code, out, _ = run("eval", "model.pt", "data.xyz", "--rotations", "2")
    assert code == 0
    assert "energy per atom" in out
    assert "meV/Å^3" in out
    assert "crystal" in out
    assert "Rotational error" in out


def test_uncertainties(run, run_json, tmp_path):
    code, out, _ = run("eval", "doubting.pt", "data.xyz", "--rotations", 0)
    assert code == 0 and "Uncertainties" in out and "per element" in out
    written = tmp_path / "out.xyz"
    found = run_json("eval", "doubting.pt", "data.xyz", "--rotations", 0, "--output", written)
    assert found["calibration"]["all"]["forces"]["count"] == 3 * sum(
        len(a) for a in read(written, ":")
    )
    atoms = read(written)
    assert atoms.info["energy_uncertainty"] > 0
    assert atoms.arrays["forces_uncertainty"].shape == (len(atoms),)
    found = run_json("eval", "doubting.pt", "data.xyz", "--rotations", 0, "--no-uncertainty")
    assert found["calibration"] is None


def test_json(run_json):
    found = run_json("eval", "model.pt", "data.xyz", "--rotations", 2)
    assert found["structures"] == 6
    assert found["errors"]["all"]["energy"]["mae"] == pytest.approx(10.0, abs=1e-4)
    assert found["errors"]["all"]["stress"]["count"] == 3 * 6
    assert found["errors"]["all"]["forces"]["rmse"] < 1e-4
    assert found["rotational_error"]["structures"] == 6
    assert found["rotational_error"]["energy_per_atom_std"]["max"] < 1e-7


def test_several_files_and_slices(run_json):
    found = run_json("eval", "model.pt", "data.xyz@:2", "data.xyz", "--rotations", 0)
    assert found["structures"] == 8
    assert found["rotational_error"] is None


def test_predictions(run, folder, tmp_path):
    path = tmp_path / "new" / "predicted.xyz"
    code, _, _ = run("eval", "model.pt", "data.xyz", "--output", path, "--rotations", 0)
    assert code == 0
    predicted, given = read(path, ":"), read(folder / "data.xyz", ":")
    assert len(predicted) == len(given)
    for a, b in zip(predicted, given, strict=True):
        assert a.info["reference_energy"] == pytest.approx(b.get_potential_energy())
        assert a.get_potential_energy() == pytest.approx(b.get_potential_energy() - 0.01)
        assert np.allclose(a.get_forces(), b.get_forces(), atol=1e-6)
        assert np.allclose(a.arrays["reference_forces"], b.get_forces(), atol=1e-6)
        assert a.info["config_type"] == b.info["config_type"]
        assert np.array_equal(a.pbc, b.pbc)
    assert predicted[0].get_stress() == pytest.approx(given[0].get_stress(), abs=1e-6)


def test_report(run, tmp_path):
    code, _, _ = run("eval", "model.pt", "data.xyz", "--report", tmp_path / "r", "--rotations", 0)
    assert code == 0
    assert json.loads((tmp_path / "r" / "errors.json").read_text())["structures"] == 6
    assert (tmp_path / "r" / "parity_forces.png").exists()


def test_keys(run_json, folder, tmp_path):
    atoms = read(folder / "data.xyz")
    energy = atoms.get_potential_energy()
    atoms.calc = None
    atoms.info["dft_energy"] = energy
    write(tmp_path / "keys.xyz", atoms)
    found = run_json("eval", "model.pt", tmp_path / "keys.xyz", "--energy-key", "dft_energy")
    assert set(found["errors"]["all"]) == {"energy", "energy_per_atom"}


def test_data_without_labels(run, folder, tmp_path):
    arguments = ["eval", "model.pt", "silicon.xyz", "--rotations", "0"]
    code, _, err = run(*arguments)
    assert code == 1
    assert "--energy-key" in err
    assert run(*arguments, "--output", tmp_path / "p.xyz")[0] == 0
    assert read(tmp_path / "p.xyz").get_forces().shape == (8, 3)


def test_an_unknown_element_names_file_and_frame(run, folder):
    write(folder / "iron.xyz", [bulk("Si"), bulk("Fe")])
    code, _, err = run("eval", "model.pt", "iron.xyz")
    assert code == 1
    assert "Atom 0 of iron.xyz, frame 1 is Fe" in err


def test_name_of_the_output(run):
    code, _, err = run("eval", "model.pt", "data.xyz", "--output", "predicted.cif")
    assert code == 1
    assert ".xyz" in err


FEW = ("--rotations", 3, "--rotated", 2)


def test_symmetrizations_are_compared(run_json):
    names = "none,structure,quadrature:1,random"
    found = run_json("eval", "plain.pt", "data.xyz@:2", "--symmetrization", names, *FEW)
    compared = found["symmetrizations"]
    assert list(compared) == ["none", "structure", "quadrature:1", "random:0"]
    rotational = {
        n: s["rotational_error"]["energy_per_atom_std"]["rms"] for n, s in compared.items()
    }
    assert rotational["structure"] < 1e-9
    assert 1e-3 < rotational["quadrature:1"] < rotational["none"]
    assert rotational["random:0"] > 1e-3
    cost = {name: summary["cost"] for name, summary in compared.items()}
    assert cost["none"]["evaluations"] == cost["random:0"]["relative"] == 1
    assert cost["quadrature:1"]["evaluations"] == 8
    assert cost["structure"]["relative"] > 1
    energy = {n: s["errors"]["all"]["energy"]["rmse"] for n, s in compared.items()}
    assert len(set(energy.values())) == 4


def test_table_and_report_of_a_comparison(run, tmp_path):
    command = ("eval", "plain.pt", "data.xyz@:2", "--symmetrization", "none, quadrature:1")
    code, out, err = run(*command, "--report", tmp_path / "r", *FEW)
    assert code == 0, err
    assert "cost per structure, in plain evaluations" in out
    assert "rotational error: energy per atom, std, meV/atom" in out
    assert "force components, RMSE, meV/Å" in out
    assert "stress components, MAE" in out
    compared = json.loads((tmp_path / "r" / "comparison.json").read_text())["symmetrizations"]
    for name, summary in compared.items():
        alone = json.loads((tmp_path / "r" / name.replace(":", "-") / "errors.json").read_text())
        assert alone == summary
    assert "| none | quadrature:1 |" in (tmp_path / "r" / "comparison.md").read_text()


def test_one_symmetrization_evaluates_in_it(run, run_json, tmp_path):
    path = tmp_path / "predicted.xyz"
    options = ("--symmetrization", "quadrature:1", "--rotations", 0)
    found = run_json("eval", "plain.pt", "data.xyz@:1", *options, "--output", path)
    assert found["symmetrization"] == "quadrature:1"
    assert found["mean_frames"] == found["cost"]["evaluations"] == 8
    code, out, _ = run("eval", "plain.pt", "data.xyz@:1", *options)
    assert code == 0
    assert "Symmetrization quadrature:1; per structure 8 evaluations" in out


@pytest.mark.parametrize(
    ("model", "options", "part"),
    [
        ("model.pt", ["none,structure"], "This model is invariant already"),
        ("plain.pt", ["none,sphere"], "'sphere' is not one of none, structure"),
        ("plain.pt", ["quadrature:fine"], "quadrature[:DEGREE]"),
        ("plain.pt", ["structure:nearest"], "structure, quadrature[:DEGREE]"),
        ("plain.pt", ["quadrature,quadrature:3"], "quadrature:3 twice"),
        ("plain.pt", ["none,structure", "--output", "p.xyz"], "give only one"),
    ],
)
def test_symmetrizations_that_cannot_be(run, model, options, part):
    code, _, err = run("eval", model, "data.xyz", "--symmetrization", *options)
    assert code == 1
    assert part in err


def test_charge_and_spin_reach_the_model(run, run_json, folder):
    conditioned = small_potential("none", system_conditioning=True)
    with torch.no_grad():  # a new model starts out independent of the state
        for name, parameter in conditioned.named_parameters():
            if "condition" in name:
                parameter += torch.linspace(-1.0, 1.0, parameter.numel()).view_as(parameter)
    save_model(folder / "conditioned.pt", conditioned, dtype="float64")
    calculator = PETCalculator(folder / "conditioned.pt")
    atoms = molecule("CH3OH")
    neutral = calculator.get_potential_energy(atoms)
    atoms.info |= {"charge": -1, "spin_multiplicity": 2}
    energy = calculator.get_potential_energy(atoms)
    assert abs(energy - neutral) > 1e-3
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    write(folder / "anion.xyz", atoms)
    options = ("--rotations", 1, "--symmetrization", "none")
    found = run_json("eval", "conditioned.pt", "anion.xyz", *options)
    assert found["errors"]["all"]["energy"]["mae"] < 1e-6
    found = run_json("eval", "conditioned.pt", "anion.xyz", *options, "--charge-key", "q")
    assert found["errors"]["all"]["energy"]["mae"] > 1
    atoms.info["charge"] = 99
    write(folder / "anion.xyz", atoms)
    code, _, err = run("eval", "conditioned.pt", "anion.xyz")
    assert code == 1
    assert "of anion.xyz, frame 0 is 99" in err


def test_structures_without_atoms_are_skipped(run, run_json, folder):
    good = read(folder / "data.xyz", ":3")
    write(folder / "holes.xyz", [good[0], Atoms(), *good[1:], Atoms()])
    write(folder / "whole.xyz", good)
    holes, whole = (run_json("eval", "model.pt", f"{name}.xyz") for name in ("holes", "whole"))
    assert holes["errors"] == whole["errors"]
    assert (holes["skipped"], holes["structures"]) == (2, 3)
    code, out, err = run("eval", "model.pt", "holes.xyz")
    assert code == 0
    assert "2 structures were skipped: holes.xyz, frame 1 contains no atoms" in err
    assert "2 structures without atoms" in " ".join(out.split())


def test_errors_of_the_others_are_not_lost(run, folder):
    """Whatever is wrong with some structures, in the middle of a group too."""
    good = read(folder / "data.xyz", ":3")
    nowhere = good[0].copy()
    nowhere.positions[1] = np.nan
    unknown = good[1].copy()
    unknown.symbols[:] = "Fe"
    write(folder / "mixed.xyz", [good[0], nowhere, good[1], unknown, good[2]])
    code, out, err = run("eval", "model.pt", "mixed.xyz")
    assert code == 1
    assert "3 structures" in out and "force components" in out
    assert "2 of 5 structures could not be read or evaluated" in err
    assert "Atom 0 of mixed.xyz, frame 3 is Fe" in err
    assert "position of atom 1 of mixed.xyz, frame 1 is not finite" in err


def replaced(atoms, **results):
    """The atoms with other results."""
    found = atoms.copy()
    found.calc = SinglePointCalculator(found, **{**atoms.calc.results, **results})
    return found


def test_what_cannot_be_read_does_not_take_the_rest_along(run, run_json, folder, tmp_path):
    """Labels of a wrong shape, a faulty structure, and a file that is damaged at some point."""
    good = read(folder / "data.xyz", ":3")
    write(folder / "part.xyz", good)
    frames = (folder / "part.xyz").read_text().split("\n2\n")
    text = "\n2\n".join(frames)
    shape = text.replace(" energy=", ' energy="1 2 3" x=', 1)
    (folder / "wrong.xyz").write_text(shape.replace("\nH ", "\nHx ", 1))
    (folder / "damaged.xyz").write_text(text + "and so on\n" + text)
    command = ("eval", "model.pt", "wrong.xyz", "damaged.xyz", "--rotations", 0)
    code, out, err = run(*command, "--report", tmp_path)
    assert code == 1
    assert "4 structures" in out and "force components" in out
    assert "3 of 7 structures could not be read or evaluated and are left out" in err
    for words in ("wrong.xyz, frame 0: the energy has shape", "wrong.xyz, frame 1 cannot be read"):
        assert words in err
    assert "damaged.xyz, frame 3 cannot be read: line" in err
    found = json.loads((tmp_path / "errors.json").read_text())
    assert (found["structures"], found["failed"], len(found["left_out"])) == (4, 3, 3)
    assert "Hx" in (tmp_path / "errors.md").read_text()
    alone = run_json("eval", "model.pt", "part.xyz@2:", "part.xyz", "--rotations", 0)
    assert found["errors"]["all"] == alone["errors"]["all"]


def test_nothing_that_can_be_read(run, folder):
    (folder / "junk.xyz").write_text("hello\n")
    code, out, err = run("eval", "model.pt", "junk.xyz")
    assert (code, out) == (1, "")
    assert "junk.xyz cannot be read: line 1 should be a number of atoms, but is 'hello'" in err


def test_labels_that_are_not_finite_count_for_nothing(run, run_json, folder):
    good = read(folder / "data.xyz", ":4")
    forces = good[3].get_forces()
    forces[0, 0] = np.inf
    write(folder / "nan.xyz", [*good[:3], replaced(good[3], energy=np.nan, forces=forces)])
    write(folder / "finite.xyz", good[:3])
    found = {name: run_json("eval", "model.pt", f"{name}.xyz") for name in ("nan", "finite")}
    energy = {name: found["errors"]["all"]["energy"] for name, found in found.items()}
    assert energy["nan"] == pytest.approx(energy["finite"])
    assert (found["nan"]["ignored_labels"], found["nan"]["structures"]) == (2, 4)
    code, out, err = run("eval", "model.pt", "nan.xyz")
    assert code == 0
    assert "2 labels were ignored: nan.xyz, frame 3: the energy is not finite" in err
    assert "2 labels that are not finite" in " ".join(out.split())


@pytest.mark.parametrize("options", [(), ("--output", "predicted.xyz"), ("--json",)])
def test_files_of_empty_structures(run, folder, options):
    write(folder / "void.xyz", [Atoms(), Atoms()])
    code, out, err = run("eval", "model.pt", "void.xyz", *options)
    assert (code, out) == (1, "")
    assert "None of 2 structures has atoms; the first: void.xyz, frame 0 contains no atoms" in err
    assert "--energy-key" not in err


def test_neither_labels_nor_all_structures(run, folder, tmp_path):
    """No table is shown, so that no sentence may speak of it; with predictions there is one."""
    write(folder / "bare.xyz", [bulk("Si"), bulk("Fe")])
    code, out, err = run("eval", "model.pt", "bare.xyz")
    assert (code, out) == (1, "")
    assert "bare.xyz: no structure that was evaluated has an energy" in err
    assert "1 of 2 structures could not be read or evaluated" in err
    assert "bare.xyz, frame 1 is Fe" in err
    assert "above" not in err
    code, out, err = run("eval", "model.pt", "bare.xyz", "--output", tmp_path / "predicted.xyz")
    assert code == 1
    assert "1 structures" in out
    assert "--energy-key" not in err and "bare.xyz, frame 1 is Fe" in err
    assert len(read(tmp_path / "predicted.xyz", ":")) == 1


def failing(monkeypatch, fails):
    """Let predictions fail: `fails` is asked with the symmetrization and the symbols."""
    original = PETCalculator.compute_batch

    def compute_batch(self, batch, *arguments):
        for atoms in batch:
            if fails(str(self.symmetrization), atoms.get_chemical_formula()):
                raise UserError("too much for this symmetrization.")
        return original(self, batch, *arguments)

    monkeypatch.setattr(PETCalculator, "compute_batch", compute_batch)


def test_what_only_one_symmetrization_leaves_out(run, monkeypatch):
    failing(monkeypatch, lambda name, formula: name != "none" and formula == "CH4O")
    options = ("--symmetrization", "none,quadrature:1", "--rotations", 0)
    code, out, err = run("eval", "plain.pt", "data.xyz@:2", *options)
    assert code == 1
    assert "quadrature:1: 1 of 2 structures could not be read or evaluated" in err
    assert "quadrature:1: 1 structures; left out: 1 structures that cannot" in " ".join(out.split())


def test_a_symmetrization_that_fails_leaves_the_others(run, monkeypatch):
    failing(monkeypatch, lambda name, _: name != "none")
    options = ("--symmetrization", "none,quadrature:1", "--rotations", 0)
    code, out, err = run("eval", "plain.pt", "data.xyz@:2", *options)
    assert code == 1
    assert "force components" in out
    assert "quadrature:1: None of 2 structures could be evaluated; the first: data.xyz" in err
    code, out, _ = run("eval", "plain.pt", "data.xyz@:2", *options, "--json")
    assert code == 1
    assert list(json.loads(out)["symmetrizations"]) == ["none"]


def test_structures_that_cannot_be_rotated_are_counted_once(run, run_json, monkeypatch):
    def refuse(*_):
        raise UserError("it does not turn.")

    monkeypatch.setattr("pet_mlip.evaluate.evaluation.rotational_errors", refuse)
    code, out, err = run("eval", "model.pt", "data.xyz@:2", "--rotations", 1)
    assert code == 1
    assert "2 structures are left out of the rotational error: data.xyz, frame" in err
    assert "could not be read" not in err
    assert "2 structures, 8 atoms" in " ".join(out.split())


def test_written_stresses_can_be_read(run_json, tmp_path):
    path = tmp_path / "predicted.xyz"
    first = run_json("eval", "model.pt", "data.xyz", "--rotations", 0, "--output", path)
    options = ("--energy-key", "reference_energy", "--forces-key", "reference_forces")
    again = run_json("eval", "model.pt", path, "--stress-key", "reference_stress", *options)
    for name, errors in first["errors"]["all"].items():
        assert again["errors"]["all"][name]["rmse"] == pytest.approx(errors["rmse"], rel=1e-4)


def test_orders_of_stresses(run, run_json, folder, tmp_path):
    """A wrong order must show: it is not ignored for any name."""
    atoms = read(folder / "data.xyz@0")
    atoms.info["sigma"] = atoms.get_stress()[[0, 1, 2, 5, 3, 4]]
    write(tmp_path / "a.xyz", atoms)
    command = ("eval", "model.pt", tmp_path / "a.xyz", "--stress-key", "sigma", "--rotations", 0)
    assert "'sigma' has 6 numbers" in run(*command)[2]
    largest = [
        run_json(*command, "--stress-order", order)["errors"]["all"]["stress"]["max"]
        for order in ("vasp", "voigt")
    ]
    assert 100 * largest[0] < 1e-4 < largest[1]
