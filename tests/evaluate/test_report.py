"""The report: tables that say what was found, and pictures."""

import json

import matplotlib.image
import numpy as np
import pytest
from test_evaluation import structures

from pet_mlip.evaluate import Evaluation, evaluate, markdown, write_report
from pet_mlip.evaluate.plots import plot_learning_curve, plot_parity, read_columns

METRICS = """epoch,step,lr,train_loss,val_loss,energy_rmse,forces_rmse,stress_rmse
1,10,0.1,3.0,4.0,50,200,
2,20,0.1,2.0,,,,
3,30,0.1,1.5,2.5,20,100,
4,40,0.1"""


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(METRICS)
    return path


def test_files(plain, tmp_path):
    evaluation = evaluate(plain, structures(4, plain, noise=0.1), rotations=2)
    files = write_report(tmp_path / "new" / "report", evaluation)
    names = {file.name for file in files}
    assert names == {
        "errors.json",
        "errors.md",
        "parity_energy_per_atom.png",
        "parity_forces.png",
    }
    for file in files:
        if file.suffix == ".png":
            assert matplotlib.image.imread(file).std() > 0.01
    assert json.loads(files[0].read_text()) == json.loads(json.dumps(evaluation.to_dict()))


def test_markdown(plain):
    evaluation = evaluate(plain, structures(4, plain, noise=0.1), rotations=2)
    text = markdown(evaluation.to_dict())
    assert "4 structures, 16 atoms" in text
    assert "| total energy | meV | 100 | 100 | 100 |" in text
    assert "## Force errors per element" in text
    assert "| Si | force components |" in text
    assert "| crystal | energy per atom |" in text
    assert "## Rotational error" in text
    for block in text.split("\n\n"):
        columns = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(columns) <= 1


def test_markdown_of_nothing():
    assert "0 structures" in markdown(Evaluation().to_dict())


def test_learning_curve(metrics, tmp_path):
    assert plot_learning_curve(tmp_path / "curve.png", metrics)
    assert read_columns(metrics)["val_loss"][::2] == [4.0, 2.5]
    assert np.isnan(read_columns(metrics)["val_loss"][1])


@pytest.mark.parametrize("text", ["", "epoch,train_loss\n", "epoch,train_loss\n1,\n"])
def test_no_learning_curve_without_points(tmp_path, text):
    (tmp_path / "metrics.csv").write_text(text)
    assert not plot_learning_curve(tmp_path / "curve.png", tmp_path / "metrics.csv")
    assert not (tmp_path / "curve.png").exists()


def test_parity_of_one_number(tmp_path):
    from pet_mlip.evaluate import Errors
    from pet_mlip.evaluate.errors import QUANTITIES

    errors = Errors()
    errors.add([1.0], [1.0])
    plot_parity(tmp_path / "p.png", QUANTITIES["energy"], np.ones((1, 2)), errors)
    assert (tmp_path / "p.png").stat().st_size > 0
