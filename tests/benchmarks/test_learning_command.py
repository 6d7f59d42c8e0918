import copy
import json

import pytest
import typer.main
from terminal import run_command

from benchmarks.learning import contestants as who
from benchmarks.learning.__main__ import app, main
from benchmarks.learning.plot import plot
from benchmarks.learning.report import curves_of, markdown, table
from benchmarks.learning.sets import SETS
from benchmarks.learning.suite import RESULT, Settings, conditions, finished
from pet_mlip.errors import UserError


def entry(forces, **more):
    """A contestant's result on one set."""
    errors = {"energy_rmse": 1.234, "energy_mae": 1.0, "forces_rmse": forces, "forces_mae": 9.0}
    return {
        "conditions": {
            "version": who.CONTESTANTS["ours"].version(),
            "minutes": 30,
            "seed": 0,
            "batch": 4,
            "set": [],
        },
        "epochs": 2,
        "steps": 226,
        "counted": 1795.4,
        "cpu": 1860.0,
        "errors": {"300K": errors, "600K": errors | {"stress_rmse": 2.0, "stress_mae": 1.5}},
        "curve": [
            {"epoch": k, "step": 113 * k, "cpu": 900.0 * k, "energy": 5.0, "forces": 100.0 / k}
            for k in (1, 2)
        ],
        **more,
    }


@pytest.fixture
def results():
    return {
        "seed": 0,
        "set": ["model.cutoff=5"],
        "machine": {"processor": "X", "cores": 2, "load": 0.5, "packages": {"torch": "2.13.0"}},
        "titles": {"ours": "pet_mlip", "mace": "MACE"},
        "sets": {"acac": {"mace": entry(20.0), "ours": entry(16.7)}, "water": {}},
    }


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Function that runs a command line in the temporary folder: (exit code, stdout, stderr)."""

    def run(*arguments):
        return run_command(main, ["learning"], arguments, tmp_path, monkeypatch, capsys)

    return run


def test_every_option_is_explained(run):
    code, out, _ = run("-h")
    assert code == 0
    for parameter in typer.main.get_command(app).params:
        assert parameter.help and parameter.opts[0] in out


def test_the_table_has_a_row_for_each_test_and_contestant(results):
    text = table(results)
    row = "| acac | 300K | pet_mlip | 1.23 / 1 | 16.7 / 9 | - | 1800 | 1795 | 1860 | 226 |"
    assert row in text
    assert "| acac | 600K | MACE | 1.23 / 1 | 20 / 9 | 2 / 1.5 |" in text
    assert len(text.splitlines()) == 2 + 4
    assert text.index("pet_mlip") < text.index("MACE")
    assert "by its defaults with model.cutoff=5" in markdown(results)


def test_who_failed_is_named_below(results):
    results["sets"]["acac"]["mace"] = {"left_out": "tired"}
    text = markdown(results)
    assert "- MACE, acac: tired" in text and "| MACE |" not in text
    assert list(curves_of(results["sets"]["acac"])) == ["ours"]


def test_there_is_a_picture(results, tmp_path):
    results["sets"]["water"] = {"mace": {"left_out": "tired"}}
    plot(tmp_path / "learning.png", results)
    assert (tmp_path / "learning.png").stat().st_size > 1000


def test_finished_runs_are_reused_but_not_those_of_other_settings(tmp_path):
    settings = Settings(tmp_path, tmp_path, seed=0)
    wanted = conditions(SETS["acac"], who.CONTESTANTS["ours"], settings)
    assert finished(tmp_path, wanted) is None
    result = entry(1.0)
    (tmp_path / RESULT).write_text(json.dumps(result))
    assert finished(tmp_path, wanted) == result
    for name, value in (("minutes", 1), ("seed", 1), ("set", ["a=b"]), ("version", "1")):
        other = copy.deepcopy(wanted) | {name: value}
        with pytest.raises(UserError, match=f"with {name} .*, not .*another --output"):
            finished(tmp_path, other)
    with_set = Settings(tmp_path, tmp_path, ours_set=("a=b",))
    assert conditions(SETS["acac"], who.CONTESTANTS["mace"], with_set)["set"] == []


def test_mistakes_are_one_sentence(run, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    everything = ("--data", "data", "--contestants", "ours")
    code, _, _ = run(*everything, "--sets", "gold")
    assert code == "Error: --sets gold is not known; use all or some of " + ", ".join(SETS) + "."
    code, _, _ = run(*everything, "--sets", "acac")
    assert code.startswith("Error: data/acac/train.xyz, which acac needs, is not there")
    for file in SETS["acac"].files():
        (tmp_path / "data" / file).parent.mkdir(exist_ok=True)
        (tmp_path / "data" / file).touch()
    code, _, _ = run("--data", "data", "--sets", "acac", "--contestants", "luck")
    assert code.startswith("Error: --contestants luck is not known; use all or some of ours, ")
    monkeypatch.setattr(who, "find_spec", lambda name: None)
    code, _, _ = run("--data", "data", "--sets", "acac", "--contestants", "mace")
    assert code.startswith("Error: MACE cannot take part, since mace is not installed")
    monkeypatch.setattr(who.Contestant, "missing", lambda self: None)
    (tmp_path / "file").touch()
    code, _, _ = run(*everything, "--sets", "acac", "--output", "file")
    assert code == "Error: --output file is a file; give a folder."
