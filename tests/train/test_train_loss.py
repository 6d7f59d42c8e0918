"""Loss and error sums with absent labels."""

from __future__ import annotations

import math

import pytest
import torch
from ase import Atoms
from train_tools import structures

from pet_mlip.config import LossConfig
from pet_mlip.data.batch import Batch, batch_from_atoms
from pet_mlip.engine.derivatives import Prediction
from pet_mlip.train.loss import ErrorSums, Loss, Residual, compare, label_counts

CPU = torch.device("cpu")


def guess(batch: Batch, error: float) -> Prediction:
    """A prediction that is wrong by `error` in every label, and zero where there is none."""
    volume = batch.volume.nan_to_num(nan=7.0)[:, None, None]
    energy = batch.energy.nan_to_num() + error * batch.n_atoms
    forces = batch.forces.nan_to_num() + error
    virial = volume * (batch.stress.nan_to_num() + error)
    parts = (energy, torch.zeros(len(batch.forces)), forces, virial)
    return Prediction(*(part.requires_grad_() for part in parts), {})


@pytest.fixture
def batch() -> Batch:
    atoms = structures(4, 0)
    bare = Atoms("H", positions=[[0, 0, 0]])
    return batch_from_atoms([*atoms, bare], 3.5)


def test_absent_labels_count_for_nothing(batch: Batch) -> None:
    loss = Loss(LossConfig(energy=1, forces=2, stress=3), scale=0.5)
    prediction = guess(batch, 0.1)
    value = loss(compare(prediction, batch), label_counts(batch.totals))
    assert value.item() == pytest.approx(6 * (0.1 / 0.5) ** 2)
    value.backward()
    for part in (prediction.energy, prediction.forces, prediction.virial):
        assert torch.isfinite(part.grad).all()
    assert prediction.energy.grad[-1] == 0
    assert (prediction.forces.grad[-1] == 0).all()
    assert (prediction.virial.grad[0] == 0).all(), "a molecule has no stress"


def test_a_prediction_that_is_no_number_shows(batch: Batch) -> None:
    loss = Loss(LossConfig(), scale=1.0)
    prediction = guess(batch, 0.1)
    broken = prediction._replace(forces=prediction.forces * float("nan"))
    assert loss(compare(broken, batch), label_counts(batch.totals)).isnan()


def test_huber_joins_the_square_smoothly() -> None:
    loss = Loss(LossConfig(kind="huber", huber_delta=0.1), scale=2.0)
    x = torch.tensor([0.1, 0.2 - 1e-9, 0.2 + 1e-9, 2.0], dtype=torch.float64, requires_grad=True)
    penalty = loss.penalty("energy", Residual(x, x > 0))
    assert penalty.tolist() == pytest.approx([0.0025, 0.01, 0.01, 0.1 * (2 - 0.1)])
    (slope,) = torch.autograd.grad(penalty.sum(), x)
    assert slope[1].item() == pytest.approx(slope[2].item())
    assert slope[3].item() == pytest.approx(0.1 * 2 / 2.0)


def test_a_batch_in_two_parts_has_the_same_loss(batch: Batch) -> None:
    loss = Loss(LossConfig(), scale=1.0)
    atoms = structures(4, 0)
    whole = batch_from_atoms(atoms, 3.5)
    counts = label_counts(whole.totals)
    parts = [batch_from_atoms(atoms[:1], 3.5), batch_from_atoms(atoms[1:], 3.5)]
    sums = [loss(compare(guess(part, 0.1), part), counts).item() for part in parts]
    assert sum(sums) == pytest.approx(loss(compare(guess(whole, 0.1), whole), counts).item())


def test_error_sums_are_mean_errors(batch: Batch) -> None:
    config = LossConfig(energy=1, forces=2, stress=3)
    sums = ErrorSums(Loss(config, scale=0.5), CPU)
    for _ in range(3):
        sums.add(compare(guess(batch, -0.1), batch))
    errors = sums.result()
    for target in ("energy", "forces", "stress"):
        assert errors[f"{target}_mae"] == pytest.approx(100)
        assert errors[f"{target}_rmse"] == pytest.approx(100)
    assert errors["val_loss"] == pytest.approx(6 * 0.04)


def test_a_model_is_better_if_its_errors_are_smaller_by_larger_factors() -> None:
    loss = Loss(LossConfig(energy=1, forces=50, stress=0), scale=1.0)
    # Of a training's end: half the energy error outweighs a few large errors of forces.
    early = {"val_loss": 0.0216, "energy_mae": 8.7, "forces_mae": 64.5, "stress_mae": 1.6}
    late = {"val_loss": 0.0229, "energy_mae": 4.7, "forces_mae": 61.4, "stress_mae": 9.9}
    assert loss.score(early) == pytest.approx((8.7 * 64.5) ** 0.5)
    assert loss.score(late) < loss.score(early)
    assert loss.score({**late, "energy_mae": math.nan}) == pytest.approx(61.4)
    assert loss.score({**late, "forces_mae": 0.0}) > 0.0
    assert loss.score({**late, "val_loss": math.inf}) == math.inf


def test_stress_errors_are_those_of_six_components(batch: Batch) -> None:
    prediction = guess(batch, 0.0)
    virial = prediction.virial.detach().clone()
    virial[1, 0, 1] += 0.3 * batch.volume[1]
    virial[1, 1, 0] += 0.3 * batch.volume[1]
    sums = ErrorSums(Loss(LossConfig(stress=1), scale=1.0), CPU)
    sums.add(compare(prediction._replace(virial=virial), batch))
    errors = sums.result()
    assert errors["stress_mae"] == pytest.approx(300 / 12)
    assert errors["val_loss"] == pytest.approx(2 * 0.09 / 18)


def test_errors_without_labels_are_nan(batch: Batch) -> None:
    molecule = batch_from_atoms(structures(1, 0), 3.5)
    sums = ErrorSums(Loss(LossConfig(energy=10.0), scale=1.0), CPU)
    sums.add(compare(guess(molecule, 0.1), molecule))
    errors = sums.result()
    assert errors["stress_mae"] != errors["stress_mae"]
    assert errors["val_loss"] == pytest.approx(11 * 0.01)


def test_weights_of_zero_need_no_derivatives() -> None:
    assert Loss(LossConfig(), 1.0).needs_derivatives
    assert not Loss(LossConfig(forces=0, stress=0), 1.0).needs_derivatives
