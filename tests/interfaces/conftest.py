import pytest
from model_tools import make_potential
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.export import save_model

RESULTS = ["dipole", "charges", "polarizability"]
KINDS = {
    "ensemble": {"ensemble": "closest_pairs", "num_gnn_layers": 2, "results": RESULTS},
    "plain": {"ensemble": "none", "featurizer": "residual", "num_gnn_layers": 2, "zbl": True},
    "adaptive": {
        "ensemble": "closest_pairs",
        "featurizer": "residual",
        "num_neighbors_adaptive": 6,
    },
    "charged": {"ensemble": "closest_pairs", "system_conditioning": True},
}


@pytest.fixture(scope="session")
def potentials():
    """Small random potentials of several kinds, float64, that know their uncertainty."""
    return {name: with_uncertainty(make_potential(**kind)) for name, kind in KINDS.items()}


@pytest.fixture(scope="session")
def folder(tmp_path_factory, potentials):
    """Where each of them is, exported under its name."""
    folder = tmp_path_factory.mktemp("interfaces")
    for name, potential in potentials.items():
        save_model(folder / f"{name}.pt", potential, dtype="float64")
    return folder


@pytest.fixture(scope="session")
def calculators(folder):
    """A calculator of each."""
    return {name: PETCalculator(folder / f"{name}.pt", device="cpu") for name in KINDS}
