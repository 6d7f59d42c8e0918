import json

import pytest
import typer.main
from terminal import run_command

from benchmarks.peers.__main__ import app, main

EARLIER = {
    "settings": {"timed_by": "cpu", "threads": 1, "device": "cpu", "shape": "tiny"},
    "weights": "pet_mlip",
    "machine": {"processor": "X", "cores": 2, "load": 0.5, "packages": {"torch": "2.13.0"}},
    "titles": {"plain": "TorchScript"},
    "structures": [
        {
            "name": "ethanol",
            "title": "ethanol",
            "groups": ["ecse"],
            "n_atoms": 9,
            "contestants": {"plain": {"time": [0.01, 0.0123, 0.02], "ratio": [1.0, 1.0, 1.0]}},
        }
    ],
}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Function that runs a command line in the temporary folder: (exit code, stdout, stderr)."""

    def run(*arguments):
        return run_command(main, ["peers"], arguments, tmp_path, monkeypatch, capsys)

    return run


def test_every_option_is_explained(run):
    code, out, _ = run("-h")
    assert code == 0
    for parameter in typer.main.get_command(app).params:
        assert parameter.help and parameter.opts[0] in out


def test_results_of_an_earlier_run_are_shown_and_put_into_a_page(run, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(EARLIER))
    (tmp_path / "page.md").write_text("<!-- bench -->\n<!-- /bench -->\n")
    code, out, err = run("--results", "results.json", "--update", "page.md")
    assert code == 0, err
    row = "| ethanol | 9 | 12.3 |"
    assert row in out
    assert row in (tmp_path / "page.md").read_text()


def test_results_are_not_replaced_unasked(run, tmp_path):
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier/report.md").write_text("of an earlier run")
    code, _, _ = run("--output", "earlier")
    assert code.startswith("Error: ") and "--overwrite" in code
    assert (tmp_path / "earlier/report.md").read_text() == "of an earlier run"


def test_mistakes_are_told_before_anything_is_measured(run, tmp_path):
    (tmp_path / "unmarked.md").write_text("nothing here")
    for arguments, message in (
        (["--update", "unmarked.md"], "<!-- bench -->"),
        (["--structures", "ice"], "--structures ice"),
        (["--contestants", "nequip"], "--contestants nequip"),
        (["--shape", "huge"], "--shape huge"),
        (["--output", "unmarked.md"], "is a file"),
    ):
        code, _, _ = run(*arguments)
        assert code.startswith("Error: ")
        assert message in code
