"""The model for metatomic says what ours says, and its derivatives are right in every way."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from ase import units
from ase.build import molecule
from model_tools import make_potential, structures
from typer.testing import CliRunner
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.cli.app import app
from pet_mlip.export import save_model

metatomic = pytest.importorskip("metatomic.torch")
ase_interface = pytest.importorskip("metatomic_ase")
from metatensor.torch import Labels  # noqa: E402
from metatomic.torch import (  # noqa: E402
    ModelEvaluationOptions,
    ModelOutput,
    load_atomistic_model,
    systems_to_torch,
)

from pet_mlip.export.metatomic import save_metatomic  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
CONDITIONED = {"system_conditioning": True, "max_charge": 2, "max_spin_multiplicity": 3}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pairs of files, ours and metatomic's."""
    folder = tmp_path_factory.mktemp("metatomic")
    models = {
        "exact": (make_potential(), "float64"),
        "plain": (make_potential("none", "residual"), "float64"),
        "charged": (make_potential(**CONDITIONED), "float64"),
        "adaptive": (
            make_potential(num_neighbors_adaptive=4.0, cutoff_width_adaptive=1.0),
            "float64",
        ),
        "single": (make_potential(), "float32"),
    }
    for name, (potential, dtype) in models.items():
        with_uncertainty(potential)
        save_model(folder / f"{name}.pt", potential, dtype=dtype)
        save_metatomic(folder / f"{name}_mta.pt", potential, dtype=dtype)
    return folder


@lru_cache
def calculators(folder, name):
    """Ours and metatomic's."""
    theirs = ase_interface.MetatomicCalculator(str(folder / f"{name}_mta.pt"), device="cpu")
    return PETCalculator(folder / f"{name}.pt"), theirs


@pytest.fixture(autouse=True)
def without_profiling():
    """Which compiles anew for every structure, and takes longer than these tests do."""
    with torch.jit.optimized_execution(False):
        yield


@pytest.mark.parametrize("structure", structures())
@pytest.mark.parametrize("name", ["exact", "plain", "adaptive", "single"])
def test_energies_forces_and_stress_are_ours(files, name, structure):
    atoms = structures()[structure]
    ours, theirs = calculators(files, name)
    bound = 1e-10 if name != "single" else 2e-5
    expected, found = (atoms.copy(), atoms.copy())
    expected.calc, found.calc = ours, theirs
    size = max(np.abs(expected.get_forces()).max(), 1.0)
    assert found.get_potential_energy() == pytest.approx(
        expected.get_potential_energy(), abs=bound * len(atoms)
    )
    np.testing.assert_allclose(found.get_forces(), expected.get_forces(), atol=bound * size)
    np.testing.assert_allclose(
        found.get_potential_energies(), expected.get_potential_energies(), atol=bound
    )
    if atoms.pbc.all():
        np.testing.assert_allclose(found.get_stress(), expected.get_stress(), atol=bound * size)


def test_charge_and_spin_are_those_of_the_structure(files):
    ours, theirs = calculators(files, "charged")
    atoms = structures()["ethanol"]
    energies = []
    for charge, spin in ((0, 1), (1, 2), (-2, 3)):
        atoms.info.update(charge=charge, spin_multiplicity=spin)
        atoms.calc = ours
        energies.append(atoms.get_potential_energy())
        atoms.calc = theirs
        assert atoms.get_potential_energy() == pytest.approx(energies[-1], abs=1e-10)
    assert len({round(energy, 6) for energy in energies}) == 3


def test_uncertainties_are_ours(files):
    ours, theirs = calculators(files, "exact")
    atoms = structures()["ethanol"]
    names = ("energy_uncertainty", "energies_uncertainty")
    (expected,) = ours.compute_batch([atoms], names)
    for kind, name in (("system", names[0]), ("atom", names[1])):
        wanted = {"energy_uncertainty": ModelOutput(unit="eV", sample_kind=kind)}
        found = theirs.run_model(atoms, wanted)["energy_uncertainty"].block().values
        np.testing.assert_allclose(found.detach().numpy().ravel(), expected[name], rtol=1e-9)


def test_selected_atoms_of_several_structures_count_alone(files):
    ours, theirs = calculators(files, "exact")
    group = [structures()[name] for name in ("ethanol", "skewed", "atom")]
    chosen = torch.tensor([[1, 1], [0, 3], [0, 0]])
    selected = Labels(["system", "atom"], chosen)
    of_atoms = [r["energies"] for r in ours.compute_batch(group, ["energies"])]
    for kind in ("system", "atom"):
        wanted = {"energy": ModelOutput(unit="eV", sample_kind=kind)}
        block = theirs.run_model(group, wanted, selected_atoms=selected)["energy"].block()
        values = block.values.detach().numpy().ravel()
        if kind == "system":
            expected = [of_atoms[0][[0, 3]].sum(), of_atoms[1][1], 0.0]
            np.testing.assert_allclose(values, expected, atol=1e-10)
        else:
            places = block.samples.values.tolist()
            assert sorted(places) == sorted(chosen.tolist())
            for (system, atom), value in zip(places, values, strict=True):
                assert value == pytest.approx(of_atoms[system][atom], abs=1e-10)


def test_derivatives_of_weighted_energies_and_second_ones_are_right(files):
    """As heat fluxes and Hessians take them."""
    ours, theirs = calculators(files, "exact")
    atoms = structures()["water"]
    model = load_atomistic_model(str(files / "exact_mta.pt"))
    system = systems_to_torch(atoms, dtype=torch.float64)
    positions = system.positions.clone().requires_grad_(True)
    moved = metatomic.System(system.types, positions, system.cell, system.pbc)
    theirs._nl_calculators.compute([moved])
    wanted = {"energy": ModelOutput(unit="eV", sample_kind="atom")}
    run = ModelEvaluationOptions(length_unit="angstrom", outputs=wanted)
    energies = model([moved], run, check_consistency=True)["energy"].block().values[:, 0]
    weights = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    (weighted,) = torch.autograd.grad(weights @ energies, positions, retain_graph=True)
    step = 1e-4
    for atom, axis in ((0, 0), (2, 1)):
        values = []
        for sign in (1, -1):
            copy = atoms.copy()
            copy.positions[atom, axis] += sign * step
            values.append(ours.compute_batch([copy], ["energies"])[0]["energies"])
        expected = float(weights.numpy() @ (values[0] - values[1])) / (2 * step)
        assert float(weighted[atom, axis]) == pytest.approx(expected, abs=1e-6)
    (first,) = torch.autograd.grad(energies.sum(), positions, create_graph=True)
    rows = [torch.autograd.grad(x, positions, retain_graph=True)[0].ravel() for x in first.ravel()]
    expected = ours.get_hessian(atoms)
    np.testing.assert_allclose(
        torch.stack(rows).numpy(), expected, atol=1e-6 * np.abs(expected).max()
    )


def test_units_of_the_program_are_converted(files):
    ours, theirs = calculators(files, "exact")
    atoms = structures()["water"]
    (expected,) = ours.compute_batch([atoms], ["energy"])
    wanted = {"energy": ModelOutput(unit="kJ/mol", sample_kind="system")}
    found = theirs.run_model(atoms, wanted)["energy"].block().values.item()
    assert found == pytest.approx(expected["energy"] / (units.kJ / units.mol), rel=1e-6)


def test_the_command_writes_it_and_refuses_what_it_cannot(tmp_path, files):
    atoms = molecule("CH3OH")
    found = CliRunner().invoke(
        app, ["export", "organic-xtb", "--format", "metatomic", "-o", str(tmp_path / "m.pt")]
    )
    assert found.exit_code == 0, found.output
    atoms.calc = ase_interface.MetatomicCalculator(str(tmp_path / "m.pt"), device="cpu")
    energy = atoms.get_potential_energy()
    atoms.calc = PETCalculator("organic-xtb")
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
