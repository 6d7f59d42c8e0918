"""The tutorial on symmetry runs, on a trained and on a converted model, and holds its promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metatrain_files import checkpoint, random_potential, save

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "symmetry_in_practice.md"


def blocks(language: str) -> list[str]:
    """The page's code blocks of one language, in order."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def pet_mlip(folder: Path, *words: str) -> None:
    """Run a `pet-mlip` command in a folder."""
    command = [sys.executable, "-m", "pet_mlip.cli.app", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


SLOWLY_TRAINED = pytest.param("trained", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[SLOWLY_TRAINED, "converted"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the page's code finds: for each remedy the columns of its table."""
    folder = tmp_path_factory.mktemp("symmetry")
    if request.param == "trained":
        (config,) = blocks("yaml")
        (folder / "plain.yaml").write_text(config)
        (folder / "examples").symlink_to(ROOT / "examples")
        pet_mlip(folder, "train", "plain.yaml", "--output", "run")
        (folder / "run" / "model.pt").rename(folder / "model.pt")
    else:
        save(checkpoint(random_potential()), folder / "published.ckpt")
        pet_mlip(folder, "convert", "published.ckpt", "-o", "model.pt")
    namespace: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks("python"):
            exec(compile(block, PAGE.name, "exec"), namespace)
    return namespace["table"]


def test_structure_is_exact(table: Any) -> None:
    row = table["structure"]
    assert row["energy spread"] < 1e-10
    assert row["torque"] < 1e-10
    assert row["splitting"] < 1e-6
    assert row["space group"] == "Fd-3m (227)"
    assert np.abs(row["optical modes"]).min() > 1.0


@pytest.mark.parametrize("remedy", ["none", "random"])
def test_one_orientation_breaks_every_symmetry(table: Any, remedy: str) -> None:
    row = table[remedy]
    assert row["energy spread"] > 1e-6
    assert row["torque"] > 1e-5
    assert row["splitting"] > 1e-5
    assert row["space group"] != "Fd-3m (227)"


def test_quadratures_err_less_and_cost_more(table: Any) -> None:
    third, fifth, exact = (
        table[name] for name in ["quadrature, degree 3", "quadrature, degree 5", "structure"]
    )
    assert exact["energy spread"] < fifth["energy spread"] < table["none"]["energy spread"]
    for what in ["diamond", "ethanol"]:
        assert third[f"cost of {what}"] < fifth[f"cost of {what}"]
        assert exact[f"cost of {what}"] < third[f"cost of {what}"]


@pytest.mark.parametrize("table", [SLOWLY_TRAINED], indirect=True)
def test_the_page_shows_the_measured_costs(table: Any) -> None:
    """Costs follow from geometry and cutoff alone, unlike the errors."""
    shown = re.findall(r"^\| (\w[^|]*?) \| (\d+) \| (\d+) \| (\d+) \|", PAGE.read_text(), re.M)
    assert [row[0] for row in shown] == list(table)
    for name, *costs in shown:
        found = [table[name][f"cost of {what}"] for what in ["diamond", "displaced", "ethanol"]]
        assert [int(cost) for cost in costs] == [round(cost) for cost in found]
