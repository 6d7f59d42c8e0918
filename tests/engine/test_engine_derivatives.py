"""Forces, virial and the derivatives that training needs."""

import pytest
import torch
from model_tools import (
    ENSEMBLES,
    FEATURIZERS,
    assert_same,
    make_potential,
    predict_atoms,
    rattled,
    structures,
)

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse.frames import single_frames
from pet_mlip.ecse.training import random_rotations
from pet_mlip.engine.derivatives import predict
from pet_mlip.engine.potential import Potential

STEPS = (1e-3, 3e-4, 1e-4)
COEFFICIENTS = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
MODELS = [(e, f) for e in ENSEMBLES for f in FEATURIZERS]
ids = ["-".join(m) for m in MODELS]


def off_symmetry():
    """Structures away from symmetric points, which are kinks of the switches for differences."""
    return [rattled(atoms, seed=7) for atoms in structures().values()]


def differences(function):
    """Central differences of sixth order of a tensor function, for each step."""
    return [
        sum(c * (function(k * h) - function(-k * h)) for k, c in COEFFICIENTS.items()) / h
        for h in STEPS
    ]


def energies(potential, atoms):
    """Of each structure, without the derivatives that are compared with their differences."""
    batch = batch_from_atoms(atoms, potential.cutoff)
    with torch.no_grad():
        atomic = potential(batch.graph)
    return torch.zeros(len(atoms), dtype=torch.float64).index_add(0, batch.structure, atomic)


def assert_derivative(exact, found, scale, relative=1e-6):
    error = torch.stack([(f - exact).abs() for f in found]).amin(dim=0)
    assert (error <= relative * scale).all(), (error, exact)


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_forces(model):
    potential, atoms = make_potential(*model), off_symmetry()
    batch = batch_from_atoms(atoms, potential.cutoff)
    draw = torch.Generator().manual_seed(0)
    direction = torch.randn(batch.forces.shape, generator=draw, dtype=torch.float64)

    def moved(step):
        for a, move in zip(atoms, direction.split(batch.n_atoms.tolist()), strict=True):
            a.positions += step * move.numpy()
        energy = energies(potential, atoms)
        for a, move in zip(atoms, direction.split(batch.n_atoms.tolist()), strict=True):
            a.positions -= step * move.numpy()
        return energy

    found = predict_atoms(potential, *atoms)
    assert_same(energies(potential, atoms), found.energy, 1e-11)
    work = -(found.forces * direction).sum(dim=1)
    exact = torch.zeros(len(atoms), dtype=torch.float64).index_add(0, batch.structure, work)
    assert_derivative(exact, differences(moved), exact.abs().clamp(min=0.3))


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_virial(model):
    potential, atoms = make_potential(*model), off_symmetry()
    draw = torch.Generator().manual_seed(1)
    strain = torch.randn(3, 3, generator=draw, dtype=torch.float64)
    strain = 0.3 * (strain + strain.T)

    def strained(step):
        deformed = [a.copy() for a in atoms]
        matrix = (torch.eye(3, dtype=torch.float64) + step * strain).numpy()
        for a in deformed:
            a.set_cell(a.cell.array @ matrix, scale_atoms=False)
            a.positions = a.positions @ matrix
        return energies(potential, deformed)

    virial = predict_atoms(potential, *atoms).virial
    assert torch.equal(virial, virial.transpose(1, 2))
    exact = (virial * strain).sum(dim=(1, 2))
    assert_derivative(exact, differences(strained), exact.abs().clamp(min=0.3))


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_forces_cancel(model):
    batch = batch_from_atoms(off_symmetry(), 3.0)
    forces = predict_atoms(make_potential(*model), *off_symmetry()).forces
    total = torch.zeros(len(batch.energy), 3, dtype=torch.float64)
    assert_same(total.index_add(0, batch.structure, forces), torch.zeros_like(total), 1e-12)


def force_loss(potential: Potential, batch, frames=None):
    """A loss of energies, forces and virials, as training has it."""
    n_structures = len(batch.energy)
    found = predict(potential, batch.graph, batch.structure, n_structures, frames, training=True)
    return (found.energy**2).sum() + (found.forces**2).sum() + 0.1 * (found.virial**2).sum()


@pytest.mark.parametrize("model", MODELS, ids=ids)
def test_gradient_of_a_force_loss(model):
    potential = make_potential(*model, num_gnn_layers=1)
    potential.composition.zero_()
    batch = batch_from_atoms(off_symmetry(), potential.cutoff)
    parameters = [p for n, p in potential.pet.named_parameters() if "neighbor_embedder" not in n]
    for parameter in parameters:
        parameter.requires_grad_(True)
    draw = torch.Generator().manual_seed(4)
    direction = [torch.randn(p.shape, generator=draw, dtype=torch.float64) for p in parameters]
    loss = force_loss(potential, batch)
    gradient = torch.autograd.grad(loss, parameters)
    exact = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))

    def moved(step):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += step * d
        value = force_loss(potential, batch).detach()
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p -= step * d
        return value

    assert_derivative(exact, differences(moved), float(exact.abs()), relative=1e-6)


@pytest.mark.parametrize("mode", ["structure", "full"])
@pytest.mark.parametrize("function", ["Bump", "Cosine"])
def test_training_on_symmetric_structures_is_finite(mode, function):
    ensemble = "none" if mode == "structure" else "closest_pairs"
    potential = make_potential(ensemble, cutoff_function=function, cutoff_width=3.0)
    potential.requires_grad_(True)
    atoms = structures()
    atoms["at the cutoff"] = atoms["dimer"].copy()
    atoms["at the cutoff"].set_distance(0, 1, 3.0 - 1e-13)
    atoms["nearly there"] = atoms["dimer"].copy()
    atoms["nearly there"].set_distance(0, 1, 3.0 - 1e-7)
    batch = batch_from_atoms(list(atoms.values()), potential.cutoff)
    frames = None
    if mode == "structure":
        keys = torch.arange(len(batch.energy))
        frames = single_frames(random_rotations(keys)[batch.structure])
    force_loss(potential, batch, frames).backward()
    gradients = [p.grad for p in potential.pet.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)


def test_prediction_under_no_grad_has_forces():
    potential = make_potential()
    expected = predict_atoms(potential, structures()["water"])
    with torch.no_grad():
        found = predict_atoms(potential, structures()["water"])
    assert_same(found.forces, expected.forces)
    assert not any(value.requires_grad for value in found if isinstance(value, torch.Tensor))
