"""Errors against uncertainties."""

import math

import numpy as np
import pytest
from model_files import small_potential
from scipy.stats import norm
from test_evaluation import structures
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.evaluate import evaluate, markdown, write_report
from pet_mlip.evaluate.calibration import Calibration, CalibrationTable
from pet_mlip.export import save_model


@pytest.fixture(scope="module")
def calculator(tmp_path_factory):
    """Of a random model that knows its uncertainty."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, with_uncertainty(small_potential(), size=0.01), dtype="float64")
    return PETCalculator(path)


def test_of_a_normal_distribution():
    rng = np.random.default_rng(0)
    sigma = np.exp(rng.normal(size=200_000))
    error = sigma * rng.normal(size=len(sigma))
    calibration = Calibration()
    for part in np.array_split(np.arange(len(sigma)), 7):
        calibration.add(error[part], sigma[part])
    found = calibration.to_dict(1000.0)
    assert found["within_1_sigma"] == pytest.approx(0.683, abs=0.005)
    assert found["within_2_sigma"] == pytest.approx(0.954, abs=0.003)
    assert found["rmse"] == pytest.approx(1000 * math.sqrt(np.mean(error**2)))
    assert found["uncertainty"] == pytest.approx(1000 * math.sqrt(np.mean(sigma**2)))
    assert found["nll"] == pytest.approx(-norm.logpdf(error, scale=sigma).mean())
    assert found["count"] == len(sigma)


@pytest.mark.parametrize(("times", "word"), [(0.3, "too small"), (1.0, None), (4.0, "too large")])
def test_what_is_not_calibrated_is_said(times, word):
    rng = np.random.default_rng(0)
    table = CalibrationTable()
    table.all["forces"] = Calibration()
    table.all["forces"].add(rng.normal(size=500), np.full(500, times))
    found = table.warnings()
    assert len(found) == (word is not None)
    assert all(word in sentence for sentence in found)


def test_an_evaluation_compares_them(calculator, tmp_path):
    labelled = list(structures(12, calculator, noise=0.02))
    (first,) = calculator.compute_batch([labelled[0].to_atoms()], ["energy_uncertainty"])
    seen = []
    evaluation = evaluate(calculator, labelled, on_result=lambda _, found: seen.append(found))
    assert seen[0]["energy_uncertainty"] == pytest.approx(first["energy_uncertainty"], rel=1e-9)
    assert seen[0]["forces_uncertainty"].shape == (2,)
    found = evaluation.to_dict()["calibration"]
    assert found["all"]["energy"]["count"] == 12
    assert found["all"]["energy"]["rmse"] == pytest.approx(20.0)
    assert found["all"]["forces"]["within_1_sigma"] == 1.0
    assert set(found["groups"]) == {"molecule", "crystal"}
    assert set(found["elements"]) == {"C", "H", "O", "Si"}
    assert "too large on these data" in found["miscalibrated"][0]
    text = markdown(evaluation.to_dict())
    assert "## Uncertainties" in text and "### per element" in text and "too large" in text
    names = {file.name for file in write_report(tmp_path, evaluation)}
    assert {"calibration_energy.png", "calibration_forces.png"} <= names


def test_they_can_be_left_out(calculator):
    labelled = structures(2, calculator)
    assert evaluate(calculator, labelled, uncertainty=False).to_dict()["calibration"] is None


def test_models_without_any_are_evaluated_as_before(morse):
    found = evaluate(morse, structures(3, morse)).to_dict()
    assert found["calibration"] is None
