"""pair_style pet with a compiled package: the same as the calculator, on any number of ranks."""

import shutil

import pytest
from lammps_models import ELEMENTS, save
from simulation import Lammps, deck, write_data
from test_lammps_physics import assert_equal, assert_equal_to_ase, crystal

from pet_mlip.compile import compile_model

NAMES = " ".join(ELEMENTS)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("there is no compiler")
    folder = tmp_path_factory.mktemp("package")
    save(folder / "model.pt", "2 layers, feedforward")
    compile_model(folder / "model.pt", folder / "model.pt2")
    return folder / "model.pt2"


@pytest.mark.slow
def test_a_package_in_lammps(plugin, package, tmp_path):
    lmp = Lammps(plugin, tmp_path)
    pair = f"pair_style pet device cpu\npair_coeff * * {package} {NAMES}"
    atoms = crystal(3)
    write_data(lmp.folder, atoms, ELEMENTS)
    serial = lmp(deck(NAMES, pair=pair))
    assert_equal_to_ase(serial, atoms, package)
    assert_equal(lmp(deck(NAMES, pair=pair), ranks=2), serial)
    said = lmp.fails(deck(NAMES, pair=pair.replace("cpu", "cpu dtype float32")))
    assert "compiled in float64" in said
