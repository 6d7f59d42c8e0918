import pytest
from model_files import morse_model, small_potential

from pet_mlip import PETCalculator
from pet_mlip.export import save_model


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A small exported PET with ECSE in float64."""
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, small_potential(), dtype="float64")
    return path


@pytest.fixture
def morse():
    """A calculator of the analytic pair potential."""
    return PETCalculator(morse_model())
