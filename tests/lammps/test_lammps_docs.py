"""The decks that the documentation shows run as they are shown."""

import re
from pathlib import Path

import pytest
from ase.build import bulk
from lammps_models import ELEMENTS, save
from simulation import Lammps, write_data

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/lammps.md"])
def test_deck(plugin, tmp_path, page):
    (deck,) = re.findall(r"```lammps\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)
    lmp = Lammps(plugin, tmp_path)
    save(tmp_path / "model.pt", "2 layers, residual")
    write_data(tmp_path, bulk("SiO", "zincblende", a=5.0, cubic=True), ELEMENTS)
    (tmp_path / "a.data").rename(tmp_path / "structure.data")
    short = deck.replace("run          1000", "run 5").replace("thermo       100", "thermo 5")
    assert short != deck
    assert [row["Step"] for row in lmp(short, fresh=True).thermo] == [0, 5]
