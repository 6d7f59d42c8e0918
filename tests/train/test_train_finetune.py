"""Fine-tuning: other data, other elements, another symmetrization, parts of the network."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.io import read, write
from scipy.stats import special_ortho_group
from test_train_resume import assert_equal, start
from train_tools import structures, tiny_tree

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.config import validate
from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.errors import UserError
from pet_mlip.export import read_metadata
from pet_mlip.train import load_checkpoint, run_training
from pet_mlip.train.checkpoint import read_checkpoint
from pet_mlip.train.freeze import parts_by_name
from pet_mlip.train.output import MetricsTable
from pet_mlip.train.schedule import Progress


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished training without an ensemble, as published models are trained."""
    folder = tmp_path_factory.mktemp("plain")
    tree = tiny_tree(data, epochs=10, learning_rate=1e-2, validate_every=10, loss={"energy": 10.0})
    tree["symmetrization"] = {"ensemble": "none", "train": "structure"}
    run_training(validate(tree, "test"), folder)
    return folder


def tuning(data: Path, plain: Path, **training: Any) -> dict[str, Any]:
    """A configuration that starts from the plain model and hardly moves."""
    training = {"epochs": 1, "learning_rate": 1e-9, **training}
    tree = tiny_tree(data, init_from=str(plain / "best.ckpt"), **training)
    del tree["model"]
    return tree


def write_set(folder: Path, atoms: list[Atoms], **shifts: float) -> Path:
    """train.xyz and val.xyz of the structures, each energy shifted by so much per element."""
    for each in atoms:
        symbols = each.get_chemical_symbols()
        each.calc.results["energy"] += sum(shifts.get(symbol, 0.0) for symbol in symbols)
    write(folder / "train.xyz", atoms[3:])
    write(folder / "val.xyz", atoms[:3])
    return folder


def structures_in(file: Path) -> list[Atoms]:
    """All of them, with their labels."""
    found: list[Atoms] = read(file, ":")
    return found


def energy_of(atoms: Atoms, file: Path) -> float:
    potential, _, _ = load_checkpoint(file)
    with torch.no_grad():
        return potential(batch_from_atoms([atoms], potential.cutoff).graph).sum().item()


def test_plain_models_train_in_random_orientations(plain: Path) -> None:
    assert read_metadata(plain / "model.pt").symmetrization["ensemble"] == "none"
    assert (plain / "report" / "errors.md").is_file()


@pytest.mark.usefixtures("only_exported")
def test_a_plain_model_gets_an_ensemble(data: Path, plain: Path, tmp_path: Path) -> None:
    tree = tuning(data, plain, epochs=2, learning_rate=1e-3)
    tree["symmetrization"] = {"ensemble": "closest_pairs"}
    run_training(validate(tree, "test"), tmp_path)
    assert read_metadata(tmp_path / "model.pt").symmetrization["ensemble"] == "closest_pairs"

    atoms = read(data / "val.xyz", 1)
    spread = {}
    for name, folder in {"plain": plain, "tuned": tmp_path}.items():
        calculator = PETCalculator(folder / "model.pt", dtype="float64")
        energies = []
        for operation in special_ortho_group.rvs(3, size=4, random_state=0) * np.sign(
            [[[1]], [[-1]], [[1]], [[-1]]]
        ):
            turned = atoms.copy()
            turned.set_cell(atoms.cell.array @ operation)
            turned.positions = atoms.positions @ operation
            turned.calc = calculator
            energies.append(turned.get_potential_energy())
        spread[name] = np.ptp(energies)
    assert spread["plain"] > 1e-5
    assert spread["tuned"] < 1e-10


@pytest.mark.usefixtures("without_report")
def test_errors_before_the_first_step(data: Path, plain: Path, tmp_path: Path) -> None:
    """The untouched checkpoint has the errors that its own training ended with."""
    tree = tuning(data, plain)
    tree["symmetrization"] = {"train": "full"}
    run_training(validate(tree, "test"), tmp_path)
    log = (tmp_path / "train.log").read_text()
    untouched = next(line for line in log.splitlines() if "│ checkpoint " in line)
    cells = [cell.strip() for cell in untouched.split("│")]
    last = MetricsTable(plain / "metrics.csv").rows()[-1]
    assert cells[2:4] == ["none", "6"]
    found = [float(cell) for cell in cells[4:7]]
    expected = [last[f"{name}_rmse"] for name in ("energy", "forces", "stress")]
    assert found == pytest.approx(expected, rel=1e-3)
    beginning = next(line for line in log.splitlines() if "│ this start " in line)
    cells = [cell.strip() for cell in beginning.split("│")]
    (first,) = MetricsTable(tmp_path / "metrics.csv").rows()  # a step of 1e-9 changes nothing
    assert float(cells[5]) == pytest.approx(first["forces_rmse"], rel=1e-3)
    assert cells[2] == "closest_pairs" and "the checkpoint has none (trained with structure)" in log


@pytest.mark.usefixtures("without_report")
def test_the_baseline_follows_the_data(plain: Path, tmp_path: Path) -> None:
    """Energies of another method: each element elsewhere."""
    shifts = {"H": 5.0, "O": -3.0, "Al": 2.0, "Cu": -7.0}
    folder = write_set(tmp_path, structures(19, 7), **shifts)
    tree = tuning(folder, plain)
    run_training(validate(tree, "test"), tmp_path / "fitted")
    before, _, _ = load_checkpoint(plain / "best.ckpt")
    after, _, _ = load_checkpoint(tmp_path / "fitted" / "best.ckpt")
    assert after.symmetrization == before.symmetrization
    atoms = structures(1, 9)[0]
    change = energy_of(atoms, tmp_path / "fitted" / "best.ckpt")
    change -= energy_of(atoms, plain / "best.ckpt")
    # On average the new energies of water are right, whatever the checkpoint's errors were.
    waters = [each for each in structures_in(folder / "train.xyz") if len(each) == 3]
    errors = [each.get_potential_energy() - energy_of(each, plain / "best.ckpt") for each in waters]
    assert change == pytest.approx(np.mean(errors), abs=0.01)
    assert change == pytest.approx(2 * 5.0 - 3.0, abs=1.0)
    log = (tmp_path / "fitted" / "train.log").read_text()
    shown = {}
    for line in log.splitlines():
        cells = [cell.strip() for cell in line.split("│")]
        if len(cells) > 5 and cells[1] in shifts:
            shown[cells[1]] = [float(cell) for cell in cells[2:5]]
    old = dict(zip(("H", "O", "Al", "Cu"), before.composition.tolist(), strict=True))
    for symbol, (was, now, shift) in shown.items():
        assert was == pytest.approx(old[symbol], abs=1e-5)
        assert now - was == pytest.approx(shift, abs=1e-5)
        assert shift == pytest.approx(shifts[symbol], abs=1.0)
    assert len(shown) == 4
    words = log.partition("RMSE of the energies per atom")[2].split()
    rmse = [float(word) for word, unit in pairwise(words) if unit == "eV"][:2]
    assert rmse[0] > 1.0 > 0.3 > rmse[1]

    tree["data"]["baseline"] = "keep"
    run_training(validate(tree, "test"), tmp_path / "kept")
    kept, _, _ = load_checkpoint(tmp_path / "kept" / "best.ckpt")
    assert torch.equal(kept.composition, before.composition)

    tree["data"]["baseline"] = {"H": -1.0, "O": -2.0, "Al": -3.0, "Cu": -4.0}
    run_training(validate(tree, "test"), tmp_path / "given")
    given, _, _ = load_checkpoint(tmp_path / "given" / "best.ckpt")
    assert given.composition.tolist() == pytest.approx([-1, -2, -3, -4])


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("drop", [False, True])
def test_fewer_elements(data: Path, plain: Path, tmp_path: Path, drop: bool) -> None:
    tree = tuning(data, plain, drop_species=drop)
    tree["data"] |= {"train": "molecules.xyz", "validation": 0.2, "baseline": "keep"}
    run_training(validate(tree, "test"), tmp_path)
    after, _, _ = load_checkpoint(tmp_path / "best.ckpt")
    assert after.species == ([1, 8] if drop else [1, 8, 13, 29])
    atoms = read(data / "molecules.xyz", 0)
    expected = energy_of(atoms, plain / "best.ckpt")
    assert energy_of(atoms, tmp_path / "best.ckpt") == pytest.approx(expected, abs=1e-5)
    log = (tmp_path / "train.log").read_text()
    assert ("are dropped: Al, Cu" if drop else "keeps 2 elements") in log


@pytest.mark.usefixtures("without_report")
def test_more_elements(data: Path, tmp_path: Path) -> None:
    """A model of water learns metals; only their energies come from the data alone."""
    tree = tiny_tree(data, epochs=2)
    tree["data"] |= {"train": "molecules.xyz", "validation": 0.2}
    run_training(validate(tree, "test"), tmp_path / "water")
    tree = tuning(data, tmp_path / "water", epochs=12, learning_rate=1e-2)
    with pytest.raises(UserError, match=r"does not know Al, Cu of the training set"):
        run_training(validate(tree, "test"), tmp_path / "refused")
    tree["training"]["add_species"] = True
    run_training(validate(tree, "test"), tmp_path / "more")
    log = (tmp_path / "more" / "train.log").read_text()
    assert "New elements: Al, Cu" in log and "unknown before" in log
    (row,) = [line for line in log.splitlines() if "│ checkpoint " in line]
    assert [cell.strip() for cell in row.split("│")][3] == "3"  # the water molecules of six
    after, _, _ = load_checkpoint(tmp_path / "more" / "best.ckpt")
    assert after.species == [1, 8, 13, 29]
    rows = MetricsTable(tmp_path / "more" / "metrics.csv").rows()
    assert rows[-1]["forces_rmse"] < 0.9 * rows[0]["forces_rmse"]
    table = after.pet.edge_embedder.weight
    assert not torch.allclose(table[2], table[3], atol=1e-4), "Al and Cu have come apart"


@pytest.mark.usefixtures("without_report")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_frozen_parts_through_a_resumption(
    data: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    tree = tuning(data, plain, epochs=4, learning_rate=1e-2, optimizer=optimizer)
    tree["training"] |= {"freeze": "backbone", "weight_decay": 0.5}
    config = validate(tree, "test")
    run_training(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "finished", lambda progress, _: progress.epoch >= 2)
        run_training(config, tmp_path / "parts")
    run_training(config, tmp_path / "parts", resume=True)
    a, b = (read_checkpoint(tmp_path / name / "last.ckpt") for name in ("whole", "parts"))
    for key in ("weights", "average", "optimizer"):
        assert_equal(a[key], b[key], key)

    before, _, _ = load_checkpoint(plain / "best.ckpt")
    part_of = parts_by_name(before)
    for name, parameter in before.pet.named_parameters():
        same = [torch.equal(a[key][f"pet.{name}"], parameter) for key in ("weights", "average")]
        expected = part_of[name] != "heads" or parameter.numel() == 0
        assert same == [expected, expected], name
    assert "frozen ones: backbone" in (tmp_path / "whole" / "train.log").read_text()
    tree["training"]["freeze"] = "heads"
    with pytest.raises(UserError, match=r"training.freeze \(was"):
        run_training(validate(tree, "test"), tmp_path / "whole", resume=True)


@pytest.mark.slow
def test_two_processes_with_frozen_parts(data: Path, plain: Path, tmp_path: Path) -> None:
    tree = tuning(data, plain, learning_rate=1e-3, batch_size=3, devices=2)
    tree["training"] |= {"freeze": ["embeddings", "heads"]}
    tree["symmetrization"] = {"ensemble": "none", "train": "structure"}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(tree))
    process = start(config, tmp_path / "run")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    after = read_checkpoint(tmp_path / "run" / "last.ckpt")["weights"]
    before, _, _ = load_checkpoint(plain / "best.ckpt")
    part_of = parts_by_name(before)
    changed = {
        part_of[name]
        for name, parameter in before.pet.named_parameters()
        if not torch.equal(after[f"pet.{name}"], parameter)
    }
    assert changed == {"layers"}


@pytest.mark.usefixtures("without_report")
def test_the_architecture_is_the_checkpoints(data: Path, plain: Path, tmp_path: Path) -> None:
    tree = tuning(data, plain)
    tree["model"] = {"cutoff": 4.0}
    with pytest.raises(UserError, match=r"model.cutoff is 4.0, but .* has 3.5"):
        run_training(validate(tree, "test"), tmp_path)
