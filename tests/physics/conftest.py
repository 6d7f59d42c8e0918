"""Exported random models: what must hold holds whatever the weights."""

import pytest
from model_files import small_potential

from pet_mlip import PETCalculator
from pet_mlip.export import save_model

MODELS = {
    "ecse": {},
    "ecse feedforward": {"featurizer_type": "feedforward"},
    "plain": {"ensemble": "none"},
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Function from the name of a model and a dtype to its exported file."""
    folder = tmp_path_factory.mktemp("exported")

    def path(name, dtype):
        file = folder / f"{name}-{dtype}.pt"
        if not file.exists():
            save_model(file, small_potential(**MODELS[name]), dtype=dtype)
        return file

    return path


@pytest.fixture(scope="session")
def calculator(exported):
    """Function from the name of a model and a dtype to a new calculator."""
    loaded = {}

    def make(name, dtype="float64"):
        if (name, dtype) not in loaded:
            loaded[name, dtype] = PETCalculator(exported(name, dtype))
        return loaded[name, dtype].clone()

    return make
