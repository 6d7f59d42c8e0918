"""The whole way from data to molecular dynamics, in a few minutes: what `make demo` runs.

    python examples/demo/demo.py [FOLDER] [--set KEY.PATH=VALUE ...]

Trains a small PET+ECSE model on the ethanol structures in examples/data, exports it, evaluates it
on structures it has not seen, runs molecular dynamics in ASE and in LAMMPS from the exported file,
and writes FOLDER/report.md with tables and pictures (by default to demo/).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import demo_report
from ase.io import read
from ase.io.lammpsdata import write_lammps_data

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data" / "ethanol"
TEST = DATA / "test.xyz"
CONFIG = HERE / "demo.yaml"
STEPS, TIMESTEP = 3000, 0.5  # of each simulation; fs
TEMPERATURE = 300  # K
ELEMENTS = ["C", "H", "O"]  # atom types 1, 2, 3 in LAMMPS

Command = list[str | Path]


class Demo:
    """The steps, each of them a command that can be typed as it is printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[str] = []
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, title: str) -> Iterator[None]:
        """Say what begins, and remember how long it took."""
        print(f"\n== {title}", flush=True)
        start = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - start

    def start(self, *command: str | Path, capture: bool = False) -> subprocess.Popen[str]:
        """Begin a `pet-mlip` command."""
        words = [os.path.relpath(w) if isinstance(w, Path) else w for w in command]
        self.commands.append(" ".join(["pet-mlip", *words]))
        print(f"$ {self.commands[-1]}", flush=True)
        return subprocess.Popen(
            [sys.executable, "-m", "pet_mlip.cli.app", *words],
            stdout=subprocess.PIPE if capture else None,
            text=True,
        )

    def run(self, *command: str | Path, capture: bool = False) -> str:
        """Run a `pet-mlip` command to its end, and return its output if captured."""
        return finish(self.start(*command, capture=capture))


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a command; leave if it failed."""
    output, _ = process.communicate()
    if process.returncode != 0:
        sys.exit(f"The demo stopped: its last command ended with code {process.returncode}.")
    return output or ""


def train(demo: Demo, overrides: list[str]) -> None:
    """Train and export; also the same weights without the ensemble, to compare with."""
    changes = [f"data.root={os.path.relpath(DATA)}", *overrides]
    settings = [word for change in changes for word in ("--set", change)]
    with demo.timed("Training"):
        demo.run("train", CONFIG, *settings, "--output", demo.folder / "run")
    with demo.timed("Export"):
        best = demo.folder / "run" / "best.ckpt"
        demo.run("export", best, "-o", demo.folder / "model.pt")
        plain = ("--symmetrization", "none", "--force")
        demo.run("export", best, "-o", demo.folder / "plain.pt", *plain)


def evaluate(demo: Demo) -> dict[str, Any]:
    """Errors on the test set and rotational errors, with and without the ensemble."""
    found = {}
    with demo.timed("Evaluation on held-out structures"):
        for name in ("model", "plain"):
            command: Command = ["eval", demo.folder / f"{name}.pt", TEST, "--json"]
            command += ["--report", demo.folder / f"eval_{name}"]
            found[name] = json.loads(demo.run(*command, capture=True))
    return found


def simulate(demo: Demo) -> None:
    """Molecular dynamics with and without a thermostat, side by side."""
    with demo.timed(f"Molecular dynamics, twice {STEPS * TIMESTEP / 1000:g} ps"):
        processes = [
            demo.start(
                *("md", demo.folder / "model.pt", TEST),
                *("--ensemble", ensemble, "--steps", str(STEPS), "--interval", "10"),
                *("--timestep", str(TIMESTEP), "--temperature", str(TEMPERATURE)),
                *("--output", demo.folder / ensemble),
            )
            for ensemble in ("nve", "nvt")
        ]
        for process in processes:
            finish(process)


def simulate_in_lammps(demo: Demo) -> None:
    """The same molecule in LAMMPS, without a thermostat."""
    folder = demo.folder / "lammps"
    folder.mkdir()
    atoms = read(TEST, "0")
    atoms.center(vacuum=5.0)
    write_lammps_data(folder / "ethanol.data", atoms, specorder=ELEMENTS, masses=True)
    variables: dict[str, str | Path] = {
        "model": demo.folder / "model.pt",
        "folder": folder,
        "steps": str(STEPS),
        "timestep": str(TIMESTEP / 1000),
        "temperature": str(TEMPERATURE),
    }
    words = [word for name, value in variables.items() for word in ("-var", name, value)]
    with demo.timed(f"LAMMPS: compiling the pair style, {STEPS * TIMESTEP / 1000:g} ps"):
        demo.run("lammps", "build")
        demo.run("lammps", "run", "-in", HERE / "ethanol.in", *words, "-log", folder / "log.lammps")


def prepare(folder: Path) -> Demo:
    """An empty folder; only one that an earlier demo wrote is emptied.

    The file `.pet-mlip-demo` tells it from a folder that is somebody's own.
    """
    mark = folder / ".pet-mlip-demo"
    if folder.exists() and any(folder.iterdir()) and not mark.exists():
        sys.exit(f"{folder} is not empty and was not written by this demo; give another folder.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.touch()
    return Demo(folder)


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE")
    arguments = parser.parse_args()
    demo = prepare(arguments.folder)
    train(demo, arguments.set)
    errors = evaluate(demo)
    simulate(demo)
    simulate_in_lammps(demo)
    with demo.timed("Pictures"):
        curves = demo_report.energies_over_rotation(demo.folder, TEST)
        demo_report.draw(demo.folder, curves, TEMPERATURE)
    facts = {
        "machine": f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
    }
    report = demo_report.write(demo.folder, errors, facts, demo.commands, demo.seconds, TEST)
    print(f"\n{report.read_text(encoding='utf-8')}\n== Written to {report}")


if __name__ == "__main__":
    main()
