import pytest
from model_files import morse_model, small_potential

from pet_mlip import PETCalculator
from pet_mlip.export import save_model


@pytest.fixture
def morse():
    """A calculator of the analytic pair potential, which is invariant."""
    return PETCalculator(morse_model())


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """A calculator of a PET without ECSE, which is not."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, small_potential("none"), dtype="float64")
    return PETCalculator(path)
