"""The documentation's Python runs, its configurations load, and it builds."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ase.build import molecule
from model_files import checkpoint, small_potential
from terminal import run_command
from uncertainty_tools import with_uncertainty

from pet_mlip.cli.app import main
from pet_mlip.config import load_config
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.export import save_model
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.learn.config import load_learn_config

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(text: str, language: str) -> list[str]:
    """Code blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of small untrained models under the names that the pages use."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    hypers = PETHypers(d_pet=16, d_node=16, d_head=16, d_feedforward=16, num_heads=2)
    knowing = with_uncertainty(Potential([1, 6, 8], hypers, SymmetrizationHypers()))
    for name in ("model.pt", "a.pt", "b.pt", "c.pt", "d.pt"):
        save_model(folder / name, knowing)
    plain = SymmetrizationHypers(ensemble="none", train="structure")
    save_model(folder / "published.pt", Potential([1, 6, 8], hypers, plain))
    return folder


@pytest.fixture
def model_file(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of these models, which are all in the current folder."""
    shutil.copytree(models, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model.pt"


@pytest.mark.parametrize(
    "page",
    [
        "docs/quickstart.md",
        "docs/ecse_tool.md",
        "docs/finetuning.md",
        "docs/metatrain.md",
        "docs/uncertainty.md",
        "README.md",
    ],
)
def test_python_blocks_run(page: str, model_file: Path) -> None:
    found = blocks((ROOT / page).read_text(encoding="utf-8"), "python")
    assert found
    namespace: dict[str, object] = {}
    for block in found:
        exec(compile(block, page, "exec"), namespace)


def test_other_programs_run_as_documented(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("metatomic_ase", "torch_sim", "ipi.engine", "dftd3"):
        pytest.importorskip(package)
    from pet_mlip.interfaces import ipi_driver

    page = (DOCS / "engines.md").read_text(encoding="utf-8")
    Path("run").mkdir()
    checkpoint(Path("run") / "best.ckpt", small_potential())
    lines = re.findall(r"^    (pet-mlip export .*?) *#", page, flags=re.MULTILINE)
    assert len(lines) == 2  # metatomic, GROMACS
    for line in lines:
        code, _, err = run_command(main, ["pet-mlip"], line.split()[1:], ".", monkeypatch, capsys)
        assert code == 0, err
    namespace: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, "engines.md", "exec"), namespace)
    water = molecule("H2O")
    water.center(vacuum=5.0)
    water.write("start.xyz")
    (text,) = blocks(page, "xml")
    Path("input.xml").write_text(text.replace("PATH_OF_THE_DRIVER", ipi_driver.__file__))
    command = [sys.executable, str(Path(sys.executable).parent / "i-pi"), "input.xml"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(Path("water.out").read_text().splitlines()) >= 21


def test_the_exported_file_runs_as_documented(model_file: Path) -> None:
    (block,) = blocks((DOCS / "export.md").read_text(encoding="utf-8"), "python")
    edges = torch.tensor([[0, 1], [1, 0]])
    vectors = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]], dtype=torch.float64)
    namespace: dict[str, object] = {
        "species": torch.tensor([1, 6]),
        "edge_index": edges,
        "edge_vectors": vectors,
        "edge_shifts": torch.zeros(2, 3, dtype=torch.int64),
    }
    exec(compile(block, "export.md", "exec"), namespace)
    assert namespace["energies"].shape == (2,)  # type: ignore[attr-defined]


def test_the_learning_of_the_guide_loads(tmp_path: Path) -> None:
    text = (DOCS / "learning.md").read_text(encoding="utf-8")
    first, *references = blocks(text, "yaml")
    assert len(references) == 2
    (tmp_path / "learn.yaml").write_text(first)
    assert load_learn_config(tmp_path / "learn.yaml").selection.structures == 30
    for block in references:
        (tmp_path / "learn.yaml").write_text(f"start: a.xyz\n{block}")
        assert load_learn_config(tmp_path / "learn.yaml").reference.files


@pytest.mark.parametrize("page", ["training.md", "finetuning.md", "metatrain.md"])
def test_configurations_in_the_guides_load(page: str, tmp_path: Path) -> None:
    found = blocks((DOCS / page).read_text(encoding="utf-8"), "yaml")
    assert found
    for block in found:
        (tmp_path / page).write_text(block)
        load_config(tmp_path / page)


def test_the_pages_build_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "-q", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_reference_has_what_the_pages_import() -> None:
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    pages = [ROOT / "README.md", *DOCS.glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    imported = re.findall(r"^from pet_mlip[\w.]* import (.*)$", text, flags=re.MULTILINE)
    names = {name.strip() for line in imported for name in line.split(",")}
    assert "PETCalculator" in names
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", reference)] == []
