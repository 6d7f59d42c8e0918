"""A command line as a user runs it."""

import sys

import pytest


def run_command(main, program, arguments, folder, monkeypatch, capture):
    """Run a command line in a folder; return exit code, standard output and error.

    Args:
        main: Of the program.
        program: Words before the arguments.
        arguments: Of the command.
        folder: Working directory.
        monkeypatch: The fixture.
        capture: capsys or capfd.
    """
    # So wide that no message is wrapped.
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [*program, *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capture.readouterr()
    return stopped.value.code or 0, out, err
