"""The wheel holds what the package needs, and works where the repository is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pet_mlip.version import __version__

ROOT = Path(__file__).parents[2]
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "MANIFEST.in")
JUNK = shutil.ignore_patterns("__pycache__", "*.egg-info")
BUILD = "from setuptools import build_meta; build_meta.build_{}('out')"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what distributions are built from; building leaves files beside it."""
    for folder in ("pet_mlip", "lammps_plugin"):
        shutil.copytree(ROOT / folder, tmp_path / folder, symlinks=True, ignore=JUNK)
    for name in NEEDED:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def build(source: Path, kind: str) -> Path:
    """Build a wheel or an sdist with this environment's setuptools."""
    command = [sys.executable, "-c", BUILD.format(kind)]
    (source / "out").mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (source / "out").glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return found


def package_files(source: Path) -> set[str]:
    """All files of the package, with the sources of the plugin that are linked into it."""
    folder = source / "pet_mlip"
    plugin = {f"lammps/plugin/{path.name}" for path in (source / "lammps_plugin").glob("[!.]*")}
    found = {str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file()}
    return {f"pet_mlip/{name}" for name in found | plugin}


def test_the_wheel_has_every_file_of_the_package(source: Path) -> None:
    expected = package_files(source)
    assert "pet_mlip/weights/organic-xtb.pt" in expected
    assert "pet_mlip/lammps/plugin/pair_pet.cpp" in expected
    with zipfile.ZipFile(build(source, "wheel")) as archive:
        names = set(archive.namelist())
        sizes = {name: archive.getinfo(name).file_size for name in expected & names}
    assert sizes == {name: (source / name).stat().st_size for name in sizes}
    assert expected - names == set()
    assert {name.split("/")[0] for name in names} == {
        "pet_mlip",
        f"pet_mlip-{__version__}.dist-info",
    }


def test_the_source_distribution_has_what_a_wheel_is_built_from(source: Path) -> None:
    expected = package_files(source) | set(NEEDED)
    with tarfile.open(build(source, "sdist")) as archive:
        names = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert expected - set(names) == set()
    assert not any(name.startswith("tests") for name in names)
    assert names["pet_mlip/lammps/plugin/pair_pet.cpp"].size > 0


@pytest.mark.slow
def test_distributions_install_and_work_without_the_repository(source: Path) -> None:
    pytest.importorskip("build")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "made"]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    files = [str(path) for path in sorted((source / "made").iterdir())]
    assert len(files) == 2
    script = Path(__file__).with_name("check_dist.py")
    done = subprocess.run(
        [sys.executable, str(script), *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("installed and used") == 2
