"""The scripts of the gallery run, and their pictures are in the documentation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "examples" / "gallery"
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))
LARGEST = 60_000
"""Bytes of a picture in the documentation."""
NEEDED = {
    "barrier": ["tblite"],
    "heat_flux": ["lammps"],
    "phonons": ["phonopy", "tblite"],
    "uncertainty": ["tblite"],
}
SMALL = {
    "heat_flux": ["--steps", "20"],
    "phonons": ["--epochs", "1"],
    "rdf": ["--steps", "10"],
    "training": ["--epochs", "1"],
}
QUICK = {"heat_flux", "uncertainty"}
"""What takes a few seconds; the others train or simulate longer."""
PNG = b"\x89PNG"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_has_the_script_and_its_picture(name: str) -> None:
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    picture = ROOT / "docs" / "images" / f"gallery_{name}.png"
    assert f"(images/{picture.name})" in page
    assert f"../examples/gallery/{name}.py" in page
    assert f"{name}.py docs/images/{picture.name}" in (ROOT / "Makefile").read_text()
    assert picture.read_bytes()[:4] == PNG
    assert picture.stat().st_size < LARGEST


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_the_script_draws_its_picture(name: str, tmp_path: Path) -> None:
    for package in NEEDED.get(name, []):
        pytest.importorskip(package)
    if name == "heat_flux":
        build = [sys.executable, "-m", "pet_mlip.cli.app", "lammps", "build"]
        subprocess.run(build, check=True, capture_output=True)
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), "picture.png", *SMALL.get(name, [])]
    variables = {
        **os.environ,
        "MPLBACKEND": "Agg",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() or name == "uncertainty"
    assert (tmp_path / "picture.png").read_bytes()[:4] == PNG
