"""Help, versions, mistakes, exit codes."""

import os
import subprocess
import sys

import pytest

from pet_mlip import __version__

COMMANDS = ("train", "eval", "export", "info", "md")


def test_help_names_every_command(run):
    code, out, _ = run("--help")
    assert code == 0
    for command in COMMANDS:
        assert command in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_explained(run, command):
    import typer.main

    from pet_mlip.cli.app import app

    code, out, _ = run(command, "-h")
    assert code == 0
    parameters = typer.main.get_command(app).commands[command].params
    for parameter in parameters:
        assert getattr(parameter, "help", None), parameter.name
        name = parameter.opts[-1] if parameter.opts[-1].startswith("-") else parameter.name
        assert name in out


def test_version(run):
    code, out, _ = run("--version")
    assert (code, out.strip()) == (0, f"pet-mlip {__version__}")


@pytest.mark.parametrize("arguments", [["nonsense"], ["eval"], ["md", "--steps", "many"]])
def test_wrong_usage_is_exit_code_2(run, arguments):
    assert run(*arguments)[0] == 2


MISTAKES = {
    "no model": (["eval", "nothing.pt", "data.xyz"], "nothing.pt"),
    "no data": (["eval", "model.pt", "nothing.xyz"], "nothing.xyz"),
    "not a model": (["eval", "data.xyz", "data.xyz"], "data.xyz"),
    "not a checkpoint": (["export", "data.xyz"], "data.xyz"),
    "model as checkpoint": (["export", "model.pt", "-o", "new.pt"], "exported model"),
    "no file": (["info", "nothing.xyz"], "nothing.xyz"),
    "no model for info": (["info", "nothing.pt"], "nothing.pt"),
    "dtype": (["eval", "model.pt", "data.xyz", "--dtype", "half"], "float32"),
    "ensemble": (["md", "model.pt", "methanol.xyz", "--steps", "1", "--ensemble", "nvp"], "nvt"),
    "config": (["train", "nothing.yaml"], "nothing.yaml"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_1(run, name):
    arguments, part = MISTAKES[name]
    code, out, err = run(*arguments)
    assert code == 1
    assert err.startswith("Error: ")
    assert part in err
    assert err.count("\n") == 1
    assert out == ""


def test_as_a_module():
    """A user's mistake in a process of its own, and the program's name in the help."""
    environment = {**os.environ, "COLUMNS": "300"}
    found = subprocess.run(
        [sys.executable, "-m", "pet_mlip.cli.app", "info", "nothing.xyz"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert "Error: " in found.stderr


def test_help_does_not_load_torch():
    code = (
        "import sys\n"
        "import pet_mlip.cli.app\n"
        "assert not {'torch', 'ase', 'matplotlib'} & set(sys.modules), 'slow import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
