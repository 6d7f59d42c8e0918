"""One exported model for all tests of the file."""

import pytest
from model_files import small_potential

from pet_mlip.export import load_model, save_model


@pytest.fixture(scope="session")
def potential():
    return small_potential(num_radial=2)


@pytest.fixture(scope="session")
def summary():
    return {"epochs": 3, "rmse": {"forces": 0.05}, "data": ["a.xyz"]}


@pytest.fixture(scope="session")
def path(potential, summary, tmp_path_factory):
    file = tmp_path_factory.mktemp("export") / "model.pt"
    save_model(file, potential, dtype="float64", training_summary=summary)
    return file


@pytest.fixture(scope="session")
def model(path):
    return load_model(path, device="cpu")
