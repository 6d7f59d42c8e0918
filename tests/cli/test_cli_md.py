"""`pet-mlip md`."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.io import read

from pet_mlip import PETCalculator

COLD = ("--temperature", 50, "--timestep", 0.2, "--interval", 2)


def thermo(folder):
    with open(folder / "thermo.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("ensemble", "structure"),
    [("nve", "methanol.xyz"), ("nvt", "methanol.xyz"), ("npt", "silicon.xyz")],
)
def test_a_simulation(run, tmp_path, ensemble, structure):
    out = tmp_path / "new" / "md"
    code, _, err = run(
        "md", "model.pt", structure, "--ensemble", ensemble, "--steps", 6, "-o", out, *COLD
    )
    assert code == 0, err
    frames = read(out / "trajectory.xyz", ":")
    assert [frame.info["step"] for frame in frames] == [0, 2, 4, 6]
    rows = thermo(out)
    assert [int(row["step"]) for row in rows] == [0, 2, 4, 6]
    assert float(rows[-1]["time_ps"]) == pytest.approx(0.0012)
    assert frames[2].get_potential_energy() == pytest.approx(float(rows[2]["potential"]))
    assert (rows[0]["volume"] != "") == (structure == "silicon.xyz")


def test_frames_with_uncertainties(run, folder, tmp_path):
    options = ("--steps", 4, "-o", tmp_path / "md", "--uncertainty", *COLD)
    code, _, err = run("md", "doubting.pt", "methanol.xyz", *options)
    assert code == 0, err
    frames = read(tmp_path / "md" / "trajectory.xyz", ":")
    calculator = PETCalculator(folder / "doubting.pt")
    names = ("energy_uncertainty", "energies_uncertainty", "forces_uncertainty")
    (expected,) = calculator.compute_batch([frames[-1]], names)
    assert frames[-1].info[names[0]] == pytest.approx(expected[names[0]], rel=1e-5)
    for name in names[1:]:
        np.testing.assert_allclose(frames[-1].arrays[name], expected[name], rtol=1e-5)


def test_what_is_wrong_is_said_before_the_old_simulation_is_deleted(run, tmp_path):
    out = tmp_path / "md"
    run("md", "model.pt", "methanol.xyz", "--steps", 2, "-o", out, *COLD)
    before = (out / "trajectory.xyz").read_text()
    for arguments in (("model.pt", "--uncertainty"), ("nowhere.pt",)):
        model, *options = arguments
        again = ("md", model, "methanol.xyz", "--steps", 2, "-o", out, "--overwrite", *options)
        code, _, err = run(*again)
        assert code == 1 and ("does not know its uncertainty" in err or "no such model" in err)
        assert (out / "trajectory.xyz").read_text() == before


def test_a_simulation_in_random_orientations(run, tmp_path):
    out = tmp_path / "md"
    command = ("md", "plain.pt", "methanol.xyz", "--steps", 2, "-o", out, *COLD)
    code, _, err = run(*command, "--symmetrization", "random:3")
    assert code == 0, err
    turned = float(thermo(out)[0]["potential"])
    assert run(*command, "--overwrite")[0] == 0
    assert abs(turned - float(thermo(out)[0]["potential"])) > 1e-4
    code, _, err = run(*command, "--overwrite", "--symmetrization", "random:x")
    assert code == 1
    assert "random[:SEED]" in err


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("model.pt", []),
        ("plain.pt", ["--symmetrization", "random"]),
        ("plain.pt", ["--symmetrization", "random", "--ensemble", "nve"]),
    ],
)
def test_restart_continues_to_the_same_files(run, tmp_path, model, options):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    command = ("md", model, "methanol.xyz", *options)
    assert run(*command, "--steps", 8, "-o", whole, *COLD)[0] == 0
    assert run(*command, "--steps", 3, "-o", parts, *COLD)[0] == 0
    again = (*command, "--steps", 8, "-o", parts, "--interval", 2)
    assert run(*again, "--restart")[0] == 0
    for name in ("trajectory.xyz", "thermo.csv"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


def test_a_simulation_is_not_overwritten(run, tmp_path):
    command = ("md", "model.pt", "methanol.xyz", "--steps", 2, "-o", tmp_path, *COLD)
    assert run(*command)[0] == 0
    code, _, err = run(*command)
    assert code == 1
    assert "--restart" in err
    assert run(*command, "--overwrite")[0] == 0
    assert len(thermo(tmp_path)) == 2


def test_other_settings_cannot_be_continued(run, tmp_path):
    command = ("md", "model.pt", "methanol.xyz", "--steps", 2, "-o", tmp_path)
    assert run(*command, *COLD)[0] == 0
    code, _, err = run(*command, "--restart", "--temperature", 60)
    assert code == 1
    assert "temperature = 50.0" in err


def test_restart_of_nothing(run, tmp_path):
    code, _, err = run("md", "model.pt", "methanol.xyz", "--steps", 2, "-o", tmp_path, "--restart")
    assert code == 1
    assert str(tmp_path) in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_simulation_can_be_continued(run, folder, tmp_path, number):
    command = [sys.executable, "-m", "pet_mlip.cli.app", "md", "model.pt", "methanol.xyz"]
    command += [*map(str, COLD), "-o", str(tmp_path), "--steps", "1000000"]
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "COLUMNS": "200"}, stderr=subprocess.PIPE, text=True
    )
    for _ in range(600):
        if (tmp_path / "thermo.csv").exists() and (tmp_path / "state.npz").exists():
            break
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--restart" in err
    step = int(err.split("Interrupted after step ")[1].split(";")[0])
    steps = step + 2
    code, _, err = run(
        "md",
        "model.pt",
        "methanol.xyz",
        "--steps",
        steps,
        "-o",
        tmp_path,
        "--interval",
        2,
        "--restart",
    )
    assert code == 0, err
    recorded = [int(row["step"]) for row in thermo(tmp_path)]
    assert recorded == list(range(0, steps + 1, 2))
