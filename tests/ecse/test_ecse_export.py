"""Potentials with any ensemble export (the export itself compares with the eager model)."""

import pytest
import torch
from ecse_tools import SYMMETRIZATION

from pet_mlip.engine.potential import Potential
from pet_mlip.export import load_model, save_model
from pet_mlip.graph.hypers import PETHypers


@pytest.mark.parametrize("name", SYMMETRIZATION)
def test_exports(name, tmp_path):
    torch.manual_seed(0)
    pet = PETHypers(d_pet=8, d_node=8, d_head=8, d_feedforward=8, num_heads=2)
    potential = Potential([1, 8], pet, SYMMETRIZATION[name])
    path = tmp_path / "model.pt"
    save_model(path, potential, dtype="float64")
    symmetrization = load_model(path, device="cpu").metadata.symmetrization
    assert symmetrization["ensemble"] == SYMMETRIZATION[name].ensemble
    assert symmetrization["inference"] == "environment"
