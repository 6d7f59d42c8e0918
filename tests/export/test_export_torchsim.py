"""The model for metatomic in TorchSim, by TorchSim's own tests.

They need Python 3.12 or newer: an environment of their own, with metatomic-torchsim and
torch-sim-atomistic.
"""

import pytest
import torch

from pet_mlip import PETCalculator
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.export import save_model
from pet_mlip.graph.hypers import PETHypers

pytest.importorskip("torch_sim")
torchsim = pytest.importorskip("metatomic_torchsim")
testing = pytest.importorskip("torch_sim.testing")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """TorchSim's model, and our calculator, of all elements up to radon."""
    from pet_mlip.export.metatomic import save_metatomic

    folder = tmp_path_factory.mktemp("torchsim")
    torch.manual_seed(0)
    hypers = PETHypers(d_pet=16, d_node=16, d_head=16, d_feedforward=16, num_heads=2)
    potential = Potential(list(range(1, 87)), hypers, SymmetrizationHypers())
    potential = potential.set_dtype(torch.float64).eval().requires_grad_(False)
    save_metatomic(folder / "metatomic.pt", potential, dtype="float64")
    save_model(folder / "ours.pt", potential, dtype="float64")
    theirs = torchsim.MetatomicModel(str(folder / "metatomic.pt"), device="cpu")
    return theirs, PETCalculator(folder / "ours.pt")


def test_outputs_are_as_torchsim_wants_them(models):
    from torch_sim.models.interface import validate_model_outputs

    validate_model_outputs(models[0], CPU, torch.float64)


@pytest.mark.parametrize("name", testing.SIMSTATE_BULK_GENERATORS)
def test_crystals_are_those_of_the_calculator(models, name):
    state = testing.SIMSTATE_BULK_GENERATORS[name](CPU, torch.float64)
    testing.assert_model_calculator_consistency(*models, state)
