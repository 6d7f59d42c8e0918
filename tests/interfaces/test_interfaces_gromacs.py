"""Models for GROMACS' NNPot, called as it calls them, give our numbers in its units."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from model_files import checkpoint, small_potential
from model_tools import CUTOFF, structures
from scipy.spatial.transform import Rotation
from terminal import run_command

from pet_mlip.cli.app import main
from pet_mlip.data.neighbours import neighbour_list
from pet_mlip.errors import UserError
from pet_mlip.export.metadata import METADATA_NAME
from pet_mlip.interfaces.gromacs import save_gromacs
from pet_mlip.interfaces.gromacs_module import ELECTRONVOLT, find_neighbours

KINDS = ["ensemble", "plain", "adaptive"]


@pytest.fixture(scope="module")
def models(folder, potentials):
    """As GROMACS loads them."""
    found = {}
    for kind in KINDS:
        save_gromacs(folder / f"{kind}.gromacs.pt", potentials[kind], dtype="float64")
        found[kind] = torch.jit.load(folder / f"{kind}.gromacs.pt").eval()
    return found


def call(model, atoms, dtype=torch.float64):
    """Energy in kJ/mol and forces in kJ/mol/nm; the first input requires a gradient, as there."""
    positions = torch.tensor(atoms.positions / 10, dtype=dtype, requires_grad=True)
    numbers = torch.tensor(atoms.numbers, dtype=torch.int32)
    if not atoms.pbc.any():
        energy, forces = model(positions, numbers)
    else:
        box = torch.tensor(atoms.cell.array / 10, dtype=dtype)
        energy, forces = model(positions, numbers, box, torch.tensor(atoms.pbc))
    return energy.item(), forces.numpy()


@pytest.mark.parametrize("name", sorted(structures()))
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_the_calculator(models, calculators, kind, name):
    atoms = structures()[name]
    expected = calculators[kind].compute_batch([atoms])[0]
    energy, forces = call(models[kind], atoms)
    per_mole = units.kJ / units.mol
    assert energy * per_mole == pytest.approx(expected["energy"], abs=1e-7, rel=1e-8)
    np.testing.assert_allclose(forces * per_mole / 10, expected["forces"], rtol=1e-6, atol=1e-9)


def test_an_electronvolt_is_that_of_ase_to_its_digits():
    assert pytest.approx(units.mol / units.kJ, rel=1e-7) == ELECTRONVOLT


def test_molecules_broken_over_the_box_and_moved_by_it_are_the_same(models):
    atoms = structures()["silicon"].repeat((2, 1, 1))
    energy, forces = call(models["ensemble"], atoms)
    moved = atoms.copy()
    moved.positions += np.random.default_rng(0).integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    again, their_forces = call(models["ensemble"], moved)
    assert again == pytest.approx(energy, abs=1e-8, rel=0)
    np.testing.assert_allclose(their_forces, forces, rtol=0, atol=1e-7)


def test_single_precision_of_gromacs_costs_only_round_off(models):
    atoms = structures()["ethanol"]
    exact, forces = call(models["ensemble"], atoms)
    single, rounded = call(models["ensemble"], atoms, torch.float32)
    assert single == pytest.approx(exact, rel=1e-6)
    np.testing.assert_allclose(rounded, forces, rtol=0, atol=2e-5 * np.abs(forces).max())


def test_without_pbc_all_directions_of_the_box_are_periodic(models):
    atoms = bulk("SiO", "zincblende", a=4.2)
    arguments = (torch.tensor(atoms.positions / 10), torch.tensor(atoms.numbers))
    box = torch.tensor(atoms.cell.array / 10)
    expected, _ = models["plain"](*arguments, box, torch.ones(3, dtype=torch.bool))
    assert models["plain"](*arguments, box)[0] == expected


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
@pytest.mark.parametrize("size", [1.5, 4.0, 9.0])
def test_neighbours_are_all_there(pbc, size):
    """Cells smaller and larger than the cutoff, skewed, and atoms outside of them."""
    draw = np.random.default_rng(int(10 * size))
    cell = size * (np.eye(3) + 0.5 * draw.normal(size=(3, 3)))
    if abs(np.linalg.det(cell)) < 0.3 * size**3:
        cell = size * np.eye(3) @ Rotation.random(rng=draw).as_matrix()
    atoms = Atoms("H5", draw.normal(scale=2 * size, size=(5, 3)), cell=cell, pbc=pbc)
    pairs, vectors, shifts = find_neighbours(
        torch.tensor(atoms.positions), torch.tensor(cell), list(pbc), CUTOFF, pairs_at_once=20
    )
    expected_pairs, expected_shifts, _ = neighbour_list(atoms.positions, cell, pbc, CUTOFF)

    def rows(i, j, shift):
        return sorted(map(tuple, np.column_stack([i, j, shift]).tolist()))

    assert rows(*pairs.numpy(), shifts.numpy()) == rows(*expected_pairs, expected_shifts)
    across = atoms.positions[pairs[1]] - atoms.positions[pairs[0]] + shifts.numpy() @ cell
    np.testing.assert_allclose(vectors.numpy(), across, rtol=0, atol=1e-12)
    assert (np.diff(pairs[0].numpy()) >= 0).all()


def test_unknown_elements_and_lost_atoms_are_told(models):
    atoms = structures()["water"]
    atoms.numbers[0] = 92
    with pytest.raises(torch.jit.Error, match="of an element that the model does not know"):
        call(models["ensemble"], atoms)
    atoms.numbers[0] = -1  # as GROMACS has it where the topology does not say
    with pytest.raises(torch.jit.Error, match="of an element that the model does not know"):
        call(models["ensemble"], atoms)
    atoms.numbers[0] = 8
    atoms.positions[0, 0] = np.nan
    with pytest.raises(torch.jit.Error, match="a position is not finite"):
        call(models["ensemble"], atoms)
    atoms.positions[0] = atoms.positions[1]
    with pytest.raises(torch.jit.Error, match="do two atoms lie at the same place"):
        call(models["ensemble"], atoms)


def test_models_of_the_spin_are_refused(tmp_path, potentials):
    with pytest.raises(UserError, match="GROMACS does not tell"):
        save_gromacs(tmp_path / "model.pt", potentials["charged"])
    assert not list(tmp_path.iterdir())


def test_command_writes_a_file_that_says_what_it_is(tmp_path, monkeypatch, capsys):
    checkpoint(tmp_path / "best.ckpt", small_potential())
    arguments = ["export", "best.ckpt", "--format", "gromacs"]
    code, out, _ = run_command(main, ["pet-mlip"], arguments, tmp_path, monkeypatch, capsys)
    assert code == 0 and "best.gromacs.pt" in out
    extra = {METADATA_NAME: ""}
    torch.jit.load(tmp_path / "best.gromacs.pt", _extra_files=extra)
    assert json.loads(extra[METADATA_NAME])["species"] == [1, 6, 8, 14, 29]


def test_forces_are_the_derivative(models):
    atoms = structures()["skewed"]
    _, forces = call(models["ensemble"], atoms)
    for axis in range(3):
        shifted = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[1, axis] += sign * 1e-4
            shifted.append(call(models["ensemble"], moved)[0])
        slope = (shifted[0] - shifted[1]) / 2e-5  # nm
        assert -slope == pytest.approx(forces[1, axis], abs=1e-4, rel=1e-5)
