"""`pet-mlip lammps`."""

import os
import subprocess
import sys

import pytest
from fake_lammps import fake_compiler, fake_lammps
from terminal import run_command

from pet_mlip.cli.app import main
from pet_mlip.cli.lammps import split_arguments
from pet_mlip.lammps.cache import PLUGIN
from pet_mlip.lammps.detect import detect
from pet_mlip.lammps.executables import find_executable
from pet_mlip.lammps.launch import command_line

FAILING = "units metal\nprint 'before'\nerror_on_purpose\n"


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """Function that runs a command line in an empty folder: (exit code, stdout, stderr)."""

    def run(*arguments):
        return run_command(main, ["pet-mlip", "lammps"], arguments, tmp_path, monkeypatch, capfd)

    return run


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PET_MLIP_CACHE", str(tmp_path / "cache"))


def test_build_says_what_it_found(run, plugin):
    code, out, err = run("build")
    assert code == 0, err
    found = detect()
    origin = f"({found.mpi.family}, {found.mpi.origin})"
    for words in (found.version_text, "atom IDs 32 bit", origin, "torch:", "compiler:"):
        assert words in out
    assert str(plugin / PLUGIN) in out
    assert "nothing to compile" in out
    assert "loaded by this LAMMPS" in out


def test_path(run, plugin):
    assert run("path") == (0, f"{plugin}\n", "")


def test_check(run, plugin):
    code, out, err = run("check")
    assert code == 0, out + err
    assert out.count("equal") == 2
    assert "DIFFERENT" not in out


def test_check_of_one_rank_count_that_differs(run, plugin, monkeypatch):
    monkeypatch.setattr("pet_mlip.lammps.check.BAR", 1.0e6)
    code, out, err = run("check", "-n", 1)
    assert code == 1
    assert "DIFFERENT" in out
    assert "differ by more than 1e-08" in err


def test_run_streams_and_passes_arguments_on(run, plugin, tmp_path):
    (tmp_path / "in.x").write_text('print "T is ${T}"\nplugin list\ninfo communication\n')
    words = ("-in", "in.x", "-nocite", "-var", "T", 300, "-log", "none")
    code, out, err = run("run", *words)
    assert code == 0, err
    assert "T is 300" in out
    assert "pair style plugin pet" in out
    code, out, err = run("run", "-n", 2, *words)
    assert code == 0, err
    assert "Nprocs = 2" in out


def test_run_exits_as_lammps_does(run, plugin, tmp_path):
    (tmp_path / "in.x").write_text(FAILING)
    code, out, _ = run("run", "-in", "in.x", "-log", "none")
    assert code == 1
    assert "ERROR: Unknown command: error_on_purpose" in out


def test_lammps_stops_when_run_is_told_to(plugin, tmp_path):
    (tmp_path / "in.x").write_text('print "started"\nshell sleep 10\nshell touch finished\n')
    command = [sys.executable, "-m", "pet_mlip.cli.app", "lammps", "run", "-in", "in.x", "-nb"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert any("started" in line for line in process.stdout)
    process.terminate()
    assert process.wait(20) != 0


def test_run_mistakes(run, plugin):
    assert "no such input file" in run("run", "-in", "none")[2]
    assert run("run", "-in", "none")[0] == 1
    assert "-in" in run("run")[2]


def test_run_with_a_launcher(run, plugin, tmp_path):
    (tmp_path / "in.x").write_text("info communication\n")
    code, out, err = run("run", "-in", "in.x", "--mpiexec", "env A=1 env", "-log", "none")
    # `env -n 1 lmp` does not exist: the launcher's exit code comes back.
    assert code != 0, out + err
    code, _, err = run("run", "-in", "in.x", "--mpiexec", "no-such-launcher")
    assert code == 1
    assert "--mpiexec no-such-launcher" in err


def test_command_lines(tmp_path):
    lmp = fake_lammps(tmp_path)
    assert command_line(lmp, ["-in", "x"]) == [str(lmp), "-in", "x"]
    words = command_line(lmp, ["-in", "x"], 3, "env A=1")
    assert words == ["env", "A=1", "-n", "3", str(lmp), "-in", "x"]


@pytest.mark.parametrize(
    ("line", "own", "others"),
    [
        ("-in x -n 2", "-in x -n 2", ""),
        ("-nocite -in x -nb", "-in x", "-nocite -nb"),
        ("-var n 5 -i x --ranks=4", "-i x --ranks=4", "-var n 5"),
        ("-in x -- -n 3", "-in x", "-n 3"),
        ("--help", "--help", ""),
        ("-in", "-in", ""),
    ],
)
def test_arguments_are_told_apart(line, own, others):
    assert split_arguments(line.split()) == (own.split(), others.split())


def test_another_lammps(run, own_cache, tmp_path):
    lmp = fake_lammps(tmp_path / "prefix", tag=64, image=64)
    compiler = fake_compiler(tmp_path, tmp_path / "calls")
    code, _, err = run("path", "--lmp", lmp)
    assert code == 1
    assert f"pet-mlip lammps build --lmp {lmp}" in err
    output = tmp_path / "out"
    words = ("build", "--lmp", lmp, "--cxx", compiler, "--output", output)
    code, out, err = run(*words)
    assert code == 0, err
    assert "LAMMPS_BIGBIG: atom IDs 64 bit" in out
    # It is no LAMMPS, after all.
    assert "not tried" in out
    assert f"export LAMMPS_PLUGIN_PATH={output}" in out
    assert (output / PLUGIN).is_file()
    assert "nothing to compile" in run(*words)[1]
    assert "compiled" in run(*words, "--force")[1]
    code, out, _ = run("path", "--lmp", lmp)
    assert code == 0
    assert os.path.isfile(os.path.join(out.strip(), PLUGIN))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--lmp", "no-such-lmp"), "no such program"),
        (("--define", "LAMMPS_BIGBIG"), "was built with LAMMPS_SMALLBIG"),
        (("--lammps-include", "."), "headers"),
        (("--mpi-include", "."), "no mpi.h"),
        (("--cxx", "no-such-compiler"), "no such compiler"),
    ],
)
def test_build_mistakes(run, plugin, arguments, words):
    code, _, err = run("build", *arguments)
    assert code == 1
    assert words in err
    assert "Traceback" not in err


def test_help(run):
    for command in ("build", "path", "check", "run"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert "Usage" in out


def test_lammps_is_not_imported_for_help():
    code = "import sys, pet_mlip.cli.app; print('torch' in sys.modules, 'lammps' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_executable_of_this_environment(plugin):
    assert find_executable().name == "lmp"
