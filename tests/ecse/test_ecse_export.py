"""Potentials with an ensemble export (the export itself compares with the eager model)."""

import torch

from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.export import load_model, save_model
from pet_mlip.graph.hypers import PETHypers


def test_exports(tmp_path):
    torch.manual_seed(0)
    pet = PETHypers(d_pet=8, d_node=8, d_head=8, d_feedforward=8, num_heads=2)
    potential = Potential([1, 8], pet, SymmetrizationHypers())
    path = tmp_path / "model.pt"
    save_model(path, potential, dtype="float64")
    symmetrization = load_model(path, device="cpu").metadata.symmetrization
    assert symmetrization["ensemble"] == "closest_pairs"
    assert symmetrization["inference"] == "environment"
