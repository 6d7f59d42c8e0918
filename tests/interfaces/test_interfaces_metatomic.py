"""Models in metatomic's format give our numbers, however they are differentiated."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from model_tools import SPECIES, make_potential, rattled, structures

pytest.importorskip("metatomic.torch")
pytest.importorskip("metatomic_ase")

import vesin.metatomic
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelEvaluationOptions,
    ModelOutput,
    System,
    load_atomistic_model,
    read_model_metadata,
)
from metatomic.torch.heat_flux import HeatFlux
from metatomic_ase import MetatomicCalculator

from pet_mlip import PETCalculator
from pet_mlip.data.neighbours import neighbour_list
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.interfaces import metatomic
from pet_mlip.interfaces.metatomic import capabilities, save_metatomic
from pet_mlip.interfaces.metatomic_module import MetatomicModule

STRUCTURES = [name for name in structures() if name != "atom"]
UNCHARGED = ["ensemble", "plain", "adaptive"]
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def files(folder, potentials):
    """Paths in metatomic's format."""
    found = {name: folder / f"{name}.metatomic.pt" for name in potentials}
    for name, path in found.items():
        save_metatomic(path, potentials[name], dtype="float64")
    return found


@pytest.fixture(scope="module")
def theirs(files):
    """Metatomic's own calculators."""
    return {
        name: MetatomicCalculator(path, check_consistency=True, uncertainty_threshold=None)
        for name, path in files.items()
    }


@pytest.fixture(scope="module")
def models(files):
    """Metatomic's models."""
    return {name: load_atomistic_model(path) for name, path in files.items()}


def system_of(atoms, model, scale=1.0):
    """The atoms with their neighbours for a model, positions and strain that require grad."""
    positions = torch.tensor(scale * atoms.positions, requires_grad=True)
    strain = torch.eye(3, dtype=torch.float64, requires_grad=True)
    cell = torch.tensor(scale * atoms.cell.array * atoms.pbc[:, None])
    species = torch.tensor(atoms.numbers, dtype=torch.int32)
    system = System(species, positions @ strain, cell @ strain, torch.tensor(atoms.pbc))
    unit = "angstrom" if scale == 1.0 else "nm"
    vesin.metatomic.compute_requested_neighbors([system], unit, model)
    return system, positions, strain


def run(model, systems, selected=None, length="angstrom", **outputs):
    """Values by name; outputs have a kind of samples and a unit."""
    wanted = {
        name.replace("__", "::"): ModelOutput(unit=unit, sample_kind=kind)
        for name, (kind, unit) in outputs.items()
    }
    options = ModelEvaluationOptions(
        length_unit=length, outputs=wanted, selected_atoms=pick(selected)
    )
    found = model(systems, options, check_consistency=True)
    return {name: tensor.block().values.squeeze(-1) for name, tensor in found.items()}


def pick(pairs):
    """Labels of pairs of system and atom."""
    if pairs is None:
        return None
    values = torch.tensor(pairs, dtype=torch.int32).reshape(-1, 2)
    return Labels(["system", "atom"], values)


def energies(model, systems, selected=None):
    """Atomic energies in eV."""
    return run(model, systems, selected, energy=("atom", "eV"))["energy"]


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("kind", [*UNCHARGED, "charged"])
def test_their_calculator_gives_our_numbers(calculators, theirs, kind, name):
    atoms = structures()[name]
    ours = calculators[kind].compute_batch([atoms], ["energy", "energies", "forces"])[0]
    atoms.calc = theirs[kind]
    assert atoms.get_potential_energy() == pytest.approx(ours["energy"], abs=1e-10, rel=0)
    np.testing.assert_allclose(atoms.get_forces(), ours["forces"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(atoms.get_potential_energies(), ours["energies"], rtol=0, atol=1e-10)
    if atoms.pbc.all():
        stress = calculators[kind].compute_batch([atoms], ["stress"])[0]["stress"]
        np.testing.assert_allclose(atoms.get_stress(), stress, rtol=0, atol=1e-10)


def test_atoms_without_neighbours_feel_nothing(calculators, theirs):
    atoms = Atoms("OCO", [(0, 0, 0), (9, 0, 0), (0, 9, 0)])
    atoms.calc = theirs["ensemble"]
    assert not atoms.get_forces().any()
    expected = calculators["ensemble"].get_property("energy", atoms)
    assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-10, rel=0)


@pytest.mark.parametrize("kind", ["ensemble", "plain"])
def test_float32_networks_keep_float64_geometry(potentials, calculators, tmp_path, kind):
    save_metatomic(tmp_path / "model.pt", potentials[kind], dtype="float32")
    atoms = structures()["skewed"]
    expected = calculators[kind].compute_batch([atoms], ["energy", "forces"])[0]
    atoms.calc = MetatomicCalculator(tmp_path / "model.pt", uncertainty_threshold=None)
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"], abs=1e-4, rel=0)
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"], rtol=0, atol=1e-4)
    assert load_atomistic_model(tmp_path / "model.pt").capabilities().dtype == "float64"


@pytest.mark.parametrize("kind", [*UNCHARGED, "charged"])
def test_numbers_without_gradients(calculators, theirs, kind):
    atoms = structures()["slab"]
    names = ["energy", "energy_uncertainty"]
    wanted = {name: ModelOutput(unit="eV", sample_kind="system") for name in names}
    found = theirs[kind].run_model(atoms, wanted)
    ours = calculators[kind].compute_batch([atoms], names)[0]
    for name in names:
        value = found[name].block().values
        assert not value.requires_grad
        assert float(value) == pytest.approx(ours[name], abs=1e-10, rel=0)


def test_batches_are_their_structures(calculators, models):
    batch = [structures()[name] for name in ("slab", "ethanol", "self-images", "atom")]
    systems, positions, strains = zip(
        *(system_of(atoms, models["ensemble"]) for atoms in batch), strict=True
    )
    found = run(models["ensemble"], list(systems), energy=("system", "eV"))["energy"]
    gradients = torch.autograd.grad(found.sum(), [*positions, *strains])
    for k, atoms in enumerate(batch):
        ours = calculators["ensemble"].compute_batch([atoms], ["energy", "forces"])[0]
        assert float(found[k]) == pytest.approx(ours["energy"], abs=1e-10, rel=0)
        np.testing.assert_allclose(-gradients[k], ours["forces"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", UNCHARGED)
def test_any_weights_of_atoms_are_differentiated(calculators, models, kind):
    """As heat fluxes and domains do: by finite differences of our atomic energies."""
    atoms = structures()["skewed"]
    system, positions, _ = system_of(atoms, models[kind])
    weights = torch.tensor([1.0, -0.3], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * energies(models[kind], [system])).sum(), positions)
    step, direction = 1e-5, np.random.default_rng(0).normal(size=(len(atoms), 3))
    sides = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * step * direction
        sides.append(calculators[kind].get_property("energies", moved) @ weights.numpy())
    slope = (sides[0] - sides[1]) / (2 * step)
    assert float((gradient * torch.tensor(direction)).sum()) == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("kind", UNCHARGED)
def test_second_derivatives(calculators, models, kind):
    """Over positions and strain, by finite differences of our forces; as often as it is asked."""
    atoms = structures()["silicon"]
    model, step = models[kind], 1e-6
    direction = np.random.default_rng(0).normal(size=(len(atoms), 3))
    strained = np.random.default_rng(1).normal(size=(3, 3))
    strained += strained.T
    for _ in range(4):  # TorchScript optimises what has run a few times
        system, positions, strain = system_of(atoms, model)
        energy = energies(model, [system]).sum()
        (gradient,) = torch.autograd.grad(energy, positions, create_graph=True)
        along = (gradient * torch.tensor(direction)).sum()
        found = torch.autograd.grad(along, [positions, strain])
    forces, slopes = [], []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * step * direction
        forces.append(calculators[kind].get_property("forces", moved))
        moved = atoms.copy()
        moved.set_cell(moved.cell.array @ (np.eye(3) + sign * step * strained), scale_atoms=True)
        # The gradient over unstrained positions, along the direction.
        of_strained = -calculators[kind].get_property("forces", moved)
        turned = of_strained @ (np.eye(3) + sign * step * strained).T
        slopes.append((turned * direction).sum())
    expected = -(forces[0] - forces[1]) / (2 * step)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-6)
    expected = (slopes[0] - slopes[1]) / (2 * step)
    assert float((found[1] * torch.tensor(strained)).sum()) == pytest.approx(expected, abs=1e-6)


def test_selected_atoms_come_in_their_order(models, calculators):
    batch = [structures()["silicon"], structures()["ethanol"]]
    model = models["ensemble"]
    systems = [system_of(atoms, model)[0] for atoms in batch]
    selected = [(1, 7), (0, 1), (1, 0)]
    ours = [calculators["ensemble"].get_property("energies", atoms) for atoms in batch]
    expected = [ours[system][atom] for system, atom in selected]
    found = energies(model, systems, selected).detach()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    whole = run(model, systems, selected, energy=("system", "eV"))["energy"].detach()
    sums = [expected[1], expected[0] + expected[2]]
    np.testing.assert_allclose(whole, sums, rtol=0, atol=1e-10)
    nothing = run(model, systems, [], energy=("system", "eV"))["energy"].detach()
    assert nothing.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kind", UNCHARGED)
def test_domains_with_ghosts_add_up(calculators, models, kind):
    """As LAMMPS divides a crystal: own atoms, ghosts within the range, no periodicity."""
    atoms = rattled(bulk("Si", cubic=True))
    atoms.set_atomic_numbers([14, 14, 6, 14, 14, 8, 14, 14])
    model = models[kind]
    reach = model.capabilities().interaction_range
    index, shifts, _ = neighbour_list(atoms.positions, atoms.cell.array, atoms.pbc, reach)
    forces, total = np.zeros((len(atoms), 3)), 0.0
    for own in ([0, 1, 2], [3, 4, 5, 6, 7]):
        ghosts = {
            (int(j), *map(int, s))
            for i, j, s in zip(*index, shifts, strict=True)
            if i in own and (s.any() or j not in own)
        }
        tags = np.array([*own, *(ghost[0] for ghost in sorted(ghosts))])
        images = np.array([*[(0, 0, 0)] * len(own), *(ghost[1:] for ghost in sorted(ghosts))])
        domain = Atoms(atoms.numbers[tags], atoms.positions[tags] + images @ atoms.cell.array)
        system, positions, _ = system_of(domain, model)
        energy = energies(model, [system], [(0, k) for k in range(len(own))]).sum()
        (gradient,) = torch.autograd.grad(energy, positions)
        np.add.at(forces, tags, -gradient.numpy())
        total += float(energy)
    ours = calculators[kind].compute_batch([atoms], ["energy", "forces"])[0]
    assert total == pytest.approx(ours["energy"], abs=1e-10, rel=0)
    np.testing.assert_allclose(forces, ours["forces"], rtol=0, atol=1e-10)


def test_an_engine_may_have_other_units(calculators, models):
    atoms = structures()["skewed"]
    system, positions, _ = system_of(atoms, models["ensemble"], scale=0.1)
    energy = run(models["ensemble"], [system], length="nm", energy=("system", "kJ/mol"))["energy"]
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    ours = calculators["ensemble"].compute_batch([atoms], ["energy", "forces"])[0]
    factor = units.mol / units.kJ  # of CODATA 2014; metatomic's are younger
    assert float(energy) * units.kJ / units.mol == pytest.approx(ours["energy"], rel=1e-7)
    np.testing.assert_allclose(-gradient, 10 * factor * ours["forces"], rtol=1e-7)


def test_uncertainties(calculators, models):
    batch = [structures()["ethanol"], structures()["slab"]]
    systems = [system_of(atoms, models["ensemble"])[0] for atoms in batch]
    names = ["energy_uncertainty", "energies_uncertainty"]
    ours = calculators["ensemble"].compute_batch(batch, names)
    for kind, name in (("system", names[0]), ("atom", names[1])):
        found = run(models["ensemble"], systems, energy_uncertainty=(kind, "eV"))
        expected = np.concatenate([np.atleast_1d(result[name]) for result in ours])
        values = found["energy_uncertainty"].detach()
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-10)


def test_uncertainties_are_differentiated(calculators, models):
    atoms = structures()["skewed"]
    system, positions, _ = system_of(atoms, models["ensemble"])
    found = run(models["ensemble"], [system], energy_uncertainty=("system", "eV"))
    (gradient,) = torch.autograd.grad(found["energy_uncertainty"].sum(), positions)
    sides = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[1, 2] += sign * 1e-5
        sides.append(calculators["ensemble"].get_property("energy_uncertainty", moved))
    assert float(gradient[1, 2]) == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-7)


def test_other_results(calculators, models):
    batch = [structures()["ethanol"], structures()["silicon"]]
    systems = [system_of(atoms, models["ensemble"])[0] for atoms in batch]
    ours = calculators["ensemble"].compute_batch(batch, ["dipole", "charges", "polarizability"])
    found = run(
        models["ensemble"],
        systems,
        pet_mlip__dipole=("system", "e*angstrom"),
        pet_mlip__charges=("atom", "e"),
        pet_mlip__polarizability=("system", "angstrom^3"),
    )
    for name in ("dipole", "charges", "polarizability"):
        values = found[f"pet_mlip::{name}"].detach()
        expected = np.concatenate([r[name] if name == "charges" else r[name][None] for r in ours])
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-10)


def test_features_are_those_of_the_uncertainty(potentials, models):
    """Of atoms, and their sums, differentiable: for collective variables."""
    atoms = structures()["skewed"]
    system, positions, _ = system_of(atoms, models["ensemble"])
    found = run(models["ensemble"], [system], feature=("atom", ""))["feature"]
    whole = run(models["ensemble"], [system], feature=("system", ""))["feature"]
    torch.testing.assert_close(whole[0], found.sum(dim=0), rtol=0, atol=1e-10)
    potential = potentials["ensemble"]
    own = potential.preparation.species_index[torch.tensor(atoms.numbers, dtype=torch.int64)]
    vectors = potential.uncertainty(found, own)
    uncertainty = run(models["ensemble"], [system], energy_uncertainty=("atom", "eV"))
    expected = uncertainty["energy_uncertainty"]
    torch.testing.assert_close(vectors.norm(dim=1), expected, rtol=0, atol=1e-10)
    assert torch.autograd.grad(found.sum(), positions)[0].abs().max() > 1e-3


def test_charge_and_multiplicity(calculators, theirs):
    atoms = structures()["water"]
    neutral = theirs["charged"].get_potential_energy(atoms)
    atoms.info.update(charge=1, spin_multiplicity=2)
    ours = calculators["charged"].compute_batch([atoms], ["energy", "forces"])[0]
    assert theirs["charged"].get_potential_energy(atoms) == pytest.approx(ours["energy"], abs=1e-10)
    forces = theirs["charged"].get_forces(atoms)
    np.testing.assert_allclose(forces, ours["forces"], rtol=0, atol=1e-10)
    assert ours["energy"] != pytest.approx(neutral, abs=1e-6)


@pytest.mark.parametrize("state", [{"charge": 0.5}, {"charge": 99}, {"spin": 0}, {"spin": 99}])
def test_states_that_the_model_does_not_know_are_refused(theirs, state):
    atoms = structures()["water"]
    atoms.info.update(state)
    with pytest.raises(torch.jit.Error, match="knows whole charges from"):
        theirs["charged"].get_potential_energy(atoms)


def test_engines_that_do_not_tell_the_charge_are_refused(models):
    system, *_ = system_of(structures()["water"], models["charged"])
    wanted = {"energy": ModelOutput(unit="eV", sample_kind="system")}
    options = ModelEvaluationOptions(length_unit="angstrom", outputs=wanted)
    with pytest.raises(torch.jit.Error, match="which the engine does not tell it"):
        models["charged"]([system], options, check_consistency=False)


def test_other_elements_are_refused(theirs):
    with pytest.raises(ValueError, match="does not support the atomic type"):
        theirs["ensemble"].get_potential_energy(Atoms("Fe2", [(0, 0, 0), (0, 0, 2)]))


@pytest.mark.parametrize("kind", ["ensemble", "plain"])
def test_coincident_atoms_are_refused(theirs, kind):
    with pytest.raises(torch.jit.Error, match="do two atoms lie at the same place"):
        theirs[kind].get_potential_energy(Atoms("OH", [(0, 0, 0), (0, 0, 0)]))


def test_it_is_no_file_of_the_calculators(files):
    with pytest.raises(UserError, match="a model for metatomic's engines"):
        PETCalculator(files["ensemble"])


def test_their_heat_flux(potentials, calculators):
    """sum_ij (r_i - r_j) (dE_i/dr_j v_j) + sum_i E_i v_i of a molecule, by finite differences.

    In a box across whose boundary the molecule lies.
    """
    inner = MetatomicModule(potentials["ensemble"]).eval()
    caps = capabilities(potentials["ensemble"])
    flux = HeatFlux.wrap(AtomisticModel(inner, read_nothing(), caps))
    atoms = structures()["water"]
    box = Atoms(atoms.numbers, atoms.positions, cell=[20, 20, 20], pbc=True)
    box.wrap()
    system, *_ = system_of(box, flux)
    velocities = np.random.default_rng(0).normal(size=(len(atoms), 3))
    add_data(system, "velocity", torch.tensor(velocities), "A/fs")
    add_data(system, "mass", torch.zeros(len(atoms), dtype=torch.float64), "u")
    found = run(flux, [system], heat_flux=("system", "eV*A/fs"))["heat_flux"][0]
    expected = calculators["ensemble"].get_property("energies", atoms) @ velocities
    for j, velocity in enumerate(velocities):
        sides = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[j] += sign * 1e-5 * velocity
            sides.append(calculators["ensemble"].get_property("energies", moved))
        slopes = (sides[0] - sides[1]) / 2e-5
        expected = expected + slopes @ (atoms.positions - atoms.positions[j])
    np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=1e-7)


def add_data(system, name, values, unit):
    """Give a system numbers of its atoms."""
    atoms = torch.stack([torch.zeros(len(values)), torch.arange(len(values))], dim=1)
    components = [Labels.range("xyz", 3)] if values.dim() == 2 else []
    block = TensorBlock(
        values.unsqueeze(-1),
        Labels(["system", "atom"], atoms.int()),
        components,
        Labels.range(name, 1),
    )
    data = TensorMap(Labels.range("_", 1), [block])
    data.set_info("unit", unit)
    system.add_data(name, data)


def read_nothing():
    """Metadata that say nothing."""
    from metatomic.torch import ModelMetadata

    return ModelMetadata()


def test_the_file_says_what_it_is(files, potentials):
    model = load_atomistic_model(files["ensemble"])
    found = model.capabilities()
    potential = potentials["ensemble"]
    assert found.atomic_types == SPECIES
    assert found.length_unit == "angstrom"
    assert found.interaction_range == potential.cutoff * potential.pet_hypers.interaction_range
    assert found.outputs["energy"].unit == "eV"
    (neighbors,) = model.requested_neighbor_lists()
    assert (neighbors.cutoff, neighbors.full_list) == (potential.cutoff, True)
    metadata = read_model_metadata(str(files["ensemble"]))
    assert "PET" in metadata.description
    assert '"n_parameters"' in metadata.extra["pet_mlip"]


class Tampered(MetatomicModule):
    """A module whose weights are others."""

    def __init__(self, potential: Potential) -> None:
        potential.pet.readouts[0].node_head.last.bias += 1e-2
        super().__init__(potential)


def test_a_model_that_differs_is_refused(potentials, tmp_path, monkeypatch):
    monkeypatch.setattr(metatomic, "MetatomicModule", Tampered)
    (tmp_path / "model.pt").write_text("precious")
    with pytest.raises(UserError, match="energies differ"):
        save_metatomic(tmp_path / "model.pt", potentials["ensemble"])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_units_that_metatomic_does_not_know_are_told_in_words():
    results = {"shielding": {"rank": 2, "per_atom": True, "unit": "ppm"}}
    found = capabilities(make_potential(results=results)).outputs["pet_mlip::shielding"]
    assert found.unit == ""
    assert "ppm" in found.description
