"""Training on results that are no energies, from a declaration to what a calculator says."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from train_tools import TINY, structures

from pet_mlip import PETCalculator
from pet_mlip.config import LossConfig, validate
from pet_mlip.data.batch import collate, make_sample
from pet_mlip.data.labels import LabelKeys, structure_from_atoms
from pet_mlip.engine.derivatives import Prediction
from pet_mlip.errors import UserError
from pet_mlip.export import read_metadata
from pet_mlip.results import Result
from pet_mlip.train import load_checkpoint, run_training
from pet_mlip.train.loss import ErrorSums, Loss, compare, label_counts
from pet_mlip.train.module import TrainingModule
from pet_mlip.train.output import MetricsTable

CHARGES = {1: 0.4, 6: -0.5, 8: -0.8}
DECLARED = {
    "dipole": {},
    "twist": {"rank": 2, "per_atom": True, "unit": "twists"},  # nobody knows this one
}


def labelled(atoms: Atoms) -> Atoms:
    """Dipoles of point charges, and each atom's own outer products of its bonds."""
    charges = np.array([CHARGES[z] for z in atoms.numbers])
    charges -= charges.mean()
    atoms.info["dipole"] = charges @ atoms.positions
    away = atoms.positions[None] - atoms.positions[:, None]
    atoms.set_array("twist", np.einsum("ija,ijb->iab", away, away).reshape(-1, 9))
    return atoms


def molecules(n: int, seed: int) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        atoms = molecule(["H2O", "CH3OH", "H2CO"][k % 3])
        atoms.positions += 0.1 * rng.normal(size=atoms.positions.shape)
        found.append(labelled(atoms))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Molecules with dipoles and twists, without energies."""
    folder = tmp_path_factory.mktemp("results")
    write(folder / "train.xyz", molecules(60, 0))
    write(folder / "val.xyz", molecules(12, 1))
    return folder


def tree(folder: Path, **loss: Any) -> dict[str, Any]:
    """A configuration that learns dipoles and twists only."""
    return {
        "data": {"root": str(folder), "train": "train.xyz", "validation": "val.xyz"},
        "model": {**TINY, "d_pet": 16, "d_node": 16, "d_head": 16, "results": DECLARED},
        "training": {
            "epochs": 40,
            "batch_size": 6,
            "validate_every": 20,
            "accelerator": "cpu",
            "ema_decay": 0.97,
            "loss": {"energy": 0, "forces": 0, "stress": 0, **loss},
        },
        "logging": {"progress": False},
    }


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training."""
    output = tmp_path_factory.mktemp("trained")
    run_training(validate(tree(folder), "test"), output)
    return output


def test_declared_results_are_learned_exported_and_found_by_name(
    folder: Path, trained: Path
) -> None:
    """A result that the package has never heard of needs its declaration, and no code."""
    calculator = PETCalculator(trained / "model.pt")
    declared = {result["name"]: result for result in read_metadata(trained / "model.pt").results}
    assert declared["twist"] == {
        "name": "twist", "rank": 2, "per_atom": True, "unit": "twists", "differentiated": False,
    }  # fmt: skip
    assert declared["energy"]["differentiated"]
    errors: dict[str, list[np.ndarray]] = {"dipole": [], "twist": []}
    spread: dict[str, list[np.ndarray]] = {"dipole": [], "twist": []}
    for atoms in read(folder / "val.xyz", ":"):
        labels = {"dipole": atoms.get_dipole_moment()}
        labels["twist"] = atoms.arrays["twist"].reshape(-1, 3, 3)
        atoms.calc = calculator
        assert np.array_equal(atoms.get_dipole_moment(), calculator.results["dipole"])
        assert calculator.results["twist"].shape == (len(atoms), 3, 3)
        for name, label in labels.items():
            errors[name].append((calculator.get_property(name, atoms) - label).ravel())
            spread[name].append(label.ravel())
    for name in errors:
        error = np.sqrt(np.mean(np.concatenate(errors[name]) ** 2))
        assert error < 0.25 * np.std(np.concatenate(spread[name])), name
    batch = calculator.compute_batch(molecules(4, 7), ["dipole", "twist"])
    alone = [calculator.get_property("dipole", atoms) for atoms in molecules(4, 7)]
    for found, expected in zip(batch, alone, strict=True):
        np.testing.assert_allclose(found["dipole"], expected, atol=1e-5)


def test_reports_and_metrics_have_the_results(trained: Path) -> None:
    rows = MetricsTable(trained / "metrics.csv").rows()
    validated = [row for row in rows if not math.isnan(row["val_loss"])]
    for name in ("dipole", "twist"):
        for kind in ("mae", "rmse"):
            assert 0 < validated[-1][f"{name}_{kind}"] < validated[0][f"{name}_{kind}"]
    assert math.isnan(rows[-1]["energy_rmse"])
    table = (trained / "report" / "errors.md").read_text()
    assert "| validation | 12 | dipole | e*angstrom |" in table
    assert (trained / "report" / "validation" / "parity_twist.png").is_file()
    assert "twist" in (trained / "train.log").read_text()


@pytest.mark.usefixtures("only_exported")
def test_a_pretrained_potential_gets_a_dipole(data: Path, folder: Path, tmp_path: Path) -> None:
    """Energies and forces stay bit for bit what they were if everything else is frozen."""
    config = tree(folder)
    config["data"] = {"root": str(data), "train": "train.xyz", "validation": "val.xyz"}
    config["model"] = dict(TINY)
    config["training"] |= {"epochs": 1, "loss": {}}
    run_training(validate(config, "test"), tmp_path / "first")

    waters = [labelled(atoms) for atoms in structures(12, 5)[::2]]
    write(tmp_path / "waters.xyz", waters)
    more = tree(folder)
    more["data"] = {"root": str(tmp_path), "train": "waters.xyz", "baseline": "keep"}
    more["data"]["validation"] = 0.2
    more["model"] = {"results": ["dipole"]}
    more["training"] |= {
        "epochs": 3,
        "init_from": str(tmp_path / "first" / "best.ckpt"),
        "freeze": ["backbone", "heads"],
    }
    run_training(validate(more, "test"), tmp_path / "second")
    first, second = (
        load_checkpoint(tmp_path / name / "best.ckpt")[0] for name in ("first", "second")
    )
    numbers = second.pet.state_dict()
    for name, value in first.pet.state_dict().items():
        assert torch.equal(numbers[name], value), name
    atoms = molecule("H2O")
    atoms.calc = PETCalculator(tmp_path / "second" / "model.pt")
    assert atoms.get_dipole_moment().shape == (3,)
    old = molecule("H2O")
    old.calc = PETCalculator(tmp_path / "first" / "model.pt")
    assert atoms.get_potential_energy() == pytest.approx(old.get_potential_energy(), abs=1e-4)

    more["model"] = {"results": {"dipole": {"unit": "debye"}}}
    more["training"]["init_from"] = str(tmp_path / "second" / "best.ckpt")
    with pytest.raises(UserError, match=r"model.results.dipole is .*debye"):
        run_training(validate(more, "test"), tmp_path / "third")


@pytest.mark.parametrize(
    ("section", "value", "sentence"),
    [
        ("loss", {"results": {"dipol": 1.0}}, "training.loss.results names dipol"),
        ("loss", {"results": {"dipole": 0, "twist": 0}}, "nothing would be learned"),
        ("keys", {"results": {"charges": "q"}}, "data.keys.results names charges"),
        ("keys", {"results": {"dipole": "dft_dipole"}}, "has dipole, which model.results or the"),
    ],
)
def test_mistakes_are_refused(
    folder: Path, tmp_path: Path, section: str, value: dict[str, Any], sentence: str
) -> None:
    config = tree(folder)
    if section == "loss":
        config["training"]["loss"] |= value
    else:
        config["data"]["keys"] = value
    with pytest.raises(UserError, match=sentence):
        run_training(validate(config, "test"), tmp_path)


@pytest.mark.usefixtures("without_report")
def test_readouts_without_a_label_in_the_batch_take_no_step(folder: Path, tmp_path: Path) -> None:
    """Muon would step by momentum, with full size, as long as gradients are zero."""
    first, *others = read(folder / "train.xyz", ":")
    for atoms in others:
        atoms.calc = None
        atoms.info.pop("dipole", None)
    write(tmp_path / "train.xyz", [first, *others])
    config = tree(folder)
    config["data"]["train"] = str(tmp_path / "train.xyz")
    config["training"] |= {"epochs": 3, "batch_size": 4, "ema_decay": 0, "weight_decay": 0}
    moved = {}

    class Watched(TrainingModule):
        def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            before = copy.deepcopy(self.potential.pet.result_readouts.state_dict())
            super().optimizer_step(*args, **kwargs)
            after = self.potential.pet.result_readouts.state_dict()
            moved.setdefault(self._counts.get("dipole", 0), []).append(
                [
                    name in key and not torch.equal(before[key], after[key])
                    for name in ("of_dipole", "of_twist")
                    for key in before
                ]
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pet_mlip.train.run.TrainingModule", Watched)
        run_training(validate(config, "test"), tmp_path / "run")
    half = len(moved[3][0]) // 2
    assert len(moved[3]) == 3 and len(moved[0]) > 10
    assert all(any(step[:half]) for step in moved[3])
    assert not any(any(step[:half]) for step in moved[0])
    assert sum(any(step[half:]) for step in moved[0]) > 10


def test_the_loss_compares_sums_per_atom_on_their_scale() -> None:
    declared = {"dipole": Result(rank=1), "charges": Result(rank=0, per_atom=True)}
    first, second = molecule("H2O"), molecule("OH")
    first.info["dipole"] = np.array([0.0, 0.0, 1.0])
    second.set_array("charges", np.array([0.5, -0.5]))
    keys = LabelKeys(results=declared)
    batch = collate([make_sample(structure_from_atoms(a, keys), 3.0) for a in (first, second)])
    predicted = {"dipole": torch.zeros(2, 3), "charges": torch.zeros(5)}
    zeros = torch.zeros(2, dtype=torch.float64)
    prediction = Prediction(
        zeros, zeros, None, None, {name: v.double() for name, v in predicted.items()}
    )
    config = LossConfig(energy=0, forces=0, stress=0, results={"dipole": 2.0})
    loss = Loss(config, 1.0, {"dipole": 0.1, "charges": 0.25})
    residuals = compare(prediction, batch)
    expected = 2.0 / 3 * (1.0 / 3 / 0.1) ** 2 + 1.0 / 2 * 2 * (0.5 / 0.25) ** 2
    assert float(loss(residuals, label_counts(batch.totals))) == pytest.approx(expected)
    sums = ErrorSums(loss, torch.device("cpu"))
    sums.add(residuals)
    errors = sums.result()
    assert errors["val_loss"] == pytest.approx(expected)
    assert errors["dipole_mae"] == pytest.approx(1.0 / 3 / 3)
    assert errors["charges_rmse"] == pytest.approx(0.5)
