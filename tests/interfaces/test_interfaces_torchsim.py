"""TorchSim's model gives the numbers of the calculator, for all systems of a state at once."""

import numpy as np
import pytest
import torch
from ase import Atoms
from model_files import nearly_invariant_potential
from model_tools import structures

ts = pytest.importorskip("torch_sim")

from torch_sim.models.interface import validate_model_outputs  # noqa: E402

from pet_mlip import PETCalculator  # noqa: E402
from pet_mlip.ecse.hypers import SymmetrizationHypers  # noqa: E402
from pet_mlip.engine.potential import Potential  # noqa: E402
from pet_mlip.errors import UserError  # noqa: E402
from pet_mlip.export import save_model  # noqa: E402
from pet_mlip.graph.hypers import PETHypers  # noqa: E402
from pet_mlip.interfaces.torchsim import PETModel  # noqa: E402

CPU = torch.device("cpu")
CRYSTALS = [name for name, atoms in structures().items() if atoms.pbc.all()]
MOLECULES = [name for name, atoms in structures().items() if not atoms.pbc.any()]
# Names of TorchSim 0.3, the newest for Python 3.11, are others.
NVE = ts.Integrator.nve if hasattr(ts, "Integrator") else ts.integrators.nve
FIRE = ts.Optimizer.fire if hasattr(ts, "Optimizer") else ts.optimizers.fire


OLD = not hasattr(ts, "Optimizer")
DECLARED = "spin" in ts.SimState._system_attributes


@pytest.fixture(scope="module")
def model(calculators):
    """Of the model with an ensemble."""
    return PETModel(calculators["ensemble"])


@pytest.fixture(scope="module")
def of_all_elements(tmp_path_factory):
    """A calculator that knows every element of TorchSim's own tests."""
    path = tmp_path_factory.mktemp("elements") / "model.pt"
    sizes = {"d_pet": 8, "d_node": 8, "d_head": 8, "d_feedforward": 8, "num_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hypers = PETHypers(cutoff=4.0, num_attention_layers=1, **sizes)
        potential = Potential(list(range(1, 84)), hypers, SymmetrizationHypers())
    save_model(path, potential, dtype="float64")
    return PETCalculator(path, device="cpu")


def state_of(*atoms, dtype=torch.float64):
    """TorchSim's state."""
    return ts.io.atoms_to_state(list(atoms), CPU, dtype)


@pytest.mark.parametrize("names", [CRYSTALS, MOLECULES, CRYSTALS[:1], ["atom"]])
def test_systems_have_the_calculators_numbers(calculators, model, names):
    batch = [structures()[name] for name in names]
    state = state_of(*batch)
    found = model(state)
    ours = calculators["ensemble"].compute_batch(batch, ["energy", "forces"])
    energies = [result["energy"] for result in ours]
    np.testing.assert_allclose(found["energy"], energies, rtol=0, atol=1e-10)
    forces = np.concatenate([result["forces"] for result in ours])
    np.testing.assert_allclose(found["forces"], forces, rtol=0, atol=1e-10)
    assert ("stress" in found) == (names[0] in CRYSTALS)
    if "stress" in found:
        for stress, atoms in zip(found["stress"], batch, strict=True):
            atoms.calc = calculators["ensemble"]
            expected = atoms.get_stress(voigt=False)
            np.testing.assert_allclose(stress, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pbc", [[True, True, False], [False, True, False]])
def test_mixed_periodicity(calculators, model, pbc):
    atoms = Atoms("OC", [(0, 0, 0), (0.8, 1.1, 0.9)], cell=[2.8, 2.9, 3.1], pbc=pbc)
    state = state_of(structures()["skewed"])
    state = ts.SimState(
        positions=torch.tensor(atoms.positions),
        masses=state.masses,
        cell=torch.tensor(atoms.cell.array.T[None].copy()),
        pbc=torch.tensor(pbc),
        atomic_numbers=torch.tensor(atoms.numbers),
        system_idx=state.system_idx,
    )
    expected = calculators["ensemble"].compute_batch([atoms], ["energy", "forces", "stress"])[0]
    found = model(state)
    assert float(found["energy"]) == pytest.approx(expected["energy"], abs=1e-10, rel=0)
    np.testing.assert_allclose(found["forces"], expected["forces"], rtol=0, atol=1e-10)
    stress = found["stress"][0].numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    np.testing.assert_allclose(stress, expected["stress"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, False)])
def test_periodicity_that_their_states_lose_is_told_again(calculators, model, pbc):
    atoms = Atoms("OC", [(0, 0, 0), (0.8, 1.1, 0.9)], cell=[3.8, 2.9, 30.0], pbc=pbc)
    state = state_of(atoms)
    if state.pbc is False:  # TorchSim 0.3
        with pytest.raises(UserError, match="Structure 0 is periodic in no direction, but images"):
            model(state)
    expected = calculators["ensemble"].get_property("energy", atoms)
    found = PETModel(calculators["ensemble"], pbc=pbc)(state)["energy"]
    assert float(found) == pytest.approx(expected, abs=1e-10, rel=0)
    atoms.pbc = False
    expected = calculators["ensemble"].get_property("energy", atoms)
    found = PETModel(calculators["ensemble"], pbc=False)(state)["energy"]
    assert float(found) == pytest.approx(expected, abs=1e-10, rel=0)


def test_a_molecule_in_a_box_is_a_molecule(calculators, model):
    boxed, without = structures()["ethanol"], structures()["ethanol"]
    boxed.center(vacuum=5.0)
    expected = calculators["ensemble"].get_property("energy", without)
    found = model(state_of(boxed))["energy"]
    assert float(found) == pytest.approx(expected, abs=1e-10, rel=0)


@pytest.mark.skipif(not OLD, reason="later releases keep the periodicity")
def test_whether_images_are_near_follows_the_atoms(calculators):
    model = PETModel(calculators["ensemble"])
    cell = [20.0, 20.0, 20.0]
    apart = Atoms("OC", [(5, 10, 10), (6.1, 10, 10)], cell=cell, pbc=False)
    expected = calculators["ensemble"].get_property("energy", apart)
    assert float(model(state_of(apart))["energy"]) == pytest.approx(expected, abs=1e-10)
    across = Atoms("OC", [(0.3, 10, 10), (19.4, 10, 10)], cell=cell, pbc=False)
    with pytest.raises(UserError, match="but images of its atoms"):
        model(state_of(across))
    flat = Atoms("OC", apart.positions, cell=[(20, 0, 0), (20, 0, 0), (0, 0, 20)], pbc=False)
    with pytest.raises(UserError, match="lie in a line or a plane"):
        model(state_of(flat))


@pytest.mark.skipif(not OLD, reason="later releases keep the periodicity")
def test_images_within_the_reach_of_d3_are_near(tmp_path):
    pytest.importorskip("dftd3")
    potential = nearly_invariant_potential()
    potential.subtracted = "d3(PBE, d3bj)"
    save_model(tmp_path / "model.pt", potential, dtype="float64")
    slab = structures()["water"]
    slab.set_cell([12.0, 12.0, 30.0])
    state = state_of(slab)
    with pytest.raises(UserError, match="but images of its atoms"):
        PETModel(tmp_path / "model.pt")(state)
    PETModel(PETCalculator(tmp_path / "model.pt", d3=False))(state)


def test_their_validation(of_all_elements):
    validate_model_outputs(PETModel(of_all_elements), CPU, torch.float64)
    only_energies = PETModel(of_all_elements, compute_forces=False, compute_stress=False)
    validate_model_outputs(only_energies, CPU, torch.float64)


def test_their_consistency(of_all_elements):
    testing = pytest.importorskip("torch_sim.testing")
    model = PETModel(of_all_elements)
    for generator in testing.SIMSTATE_GENERATORS.values():
        state = generator(CPU, torch.float64)
        testing.assert_model_calculator_consistency(model, of_all_elements, state, *[1e-10] * 6)


def test_what_is_not_asked_for_is_not_there(calculators):
    model = PETModel(calculators["ensemble"], compute_forces=False, compute_stress=False)
    assert set(model(state_of(structures()["silicon"]))) == {"energy"}
    model.compute_forces = True
    assert set(model(state_of(structures()["silicon"]))) == {"energy", "forces"}


def test_a_stress_that_nobody_can_have_is_told(model):
    with pytest.raises(UserError, match="span a volume"):
        model(state_of(structures()["water"]))["stress"]


def test_float32_states(calculators):
    model = PETModel(calculators["ensemble"], state_dtype=torch.float32)
    found = model(state_of(structures()["silicon"], dtype=torch.float32))
    expected = calculators["ensemble"].get_property("energy", structures()["silicon"])
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert float(found["energy"]) == pytest.approx(expected, rel=1e-5)


def test_one_charge_and_multiplicity_for_all(calculators):
    water = structures()["water"]
    state = state_of(water)
    with pytest.raises(UserError, match="the state has no charge"):
        PETModel(calculators["charged"])(state)
    water.info.update(charge=1, spin_multiplicity=2)
    expected = calculators["charged"].get_property("energy", water)
    given = PETModel(calculators["charged"], charge=1, spin_multiplicity=2)
    assert float(given(state)["energy"]) == pytest.approx(expected, abs=1e-10, rel=0)


@pytest.mark.skipif(not DECLARED, reason="TorchSim 0.4.2 and 0.5 only")
def test_charges_of_declared_fields(calculators):
    batch = [structures()[name] for name in ("water", "CO2", "ethanol")]
    for atoms, charge in zip(batch[:2], (1, 0), strict=True):
        atoms.info.update(charge=charge, spin=1 + abs(charge), spin_multiplicity=1 + abs(charge))
    with pytest.raises(UserError, match="the state has no charge"):
        PETModel(calculators["charged"])(state_of(*batch))
    batch[2].info.update(charge=-1, spin_multiplicity=2)  # not told to the state
    model = PETModel(calculators["charged"], charge=-1, spin_multiplicity=2)
    found = model(state_of(*batch))["energy"]
    expected = [r["energy"] for r in calculators["charged"].compute_batch(batch, ["energy"])]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)
    alone = float(model(state_of(*batch)[[0]])["energy"])
    assert alone == pytest.approx(expected[0], abs=1e-10, rel=0)


@pytest.mark.skipif(DECLARED, reason="these fields of TorchSim 0.4.2 and 0.5 are not lost")
def test_charges_that_would_be_lost_are_refused(calculators):
    state = state_of(structures()["water"])
    state.charge, state.spin = torch.tensor([1]), torch.tensor([2])
    with pytest.raises(UserError, match="set as an attribute, which TorchSim loses"):
        PETModel(calculators["charged"], charge=0, spin_multiplicity=1)(state)


@pytest.mark.skipif(not hasattr(ts.SimState, "system_extras"), reason="TorchSim before 0.6")
def test_each_system_has_its_charge_and_multiplicity(calculators):
    batch = [structures()[name] for name in ("water", "CO2", "ethanol")]
    for atoms, charge in zip(batch, (1, -1, 0), strict=True):
        atoms.info.update(charge=charge, spin_multiplicity=1 + abs(charge))
    told = {"charge": "charge", "spin": "spin_multiplicity"}
    state = ts.io.atoms_to_state(batch, CPU, torch.float64, system_extras_map=told)
    model = PETModel(calculators["charged"], charge=0, spin_multiplicity=1)

    def compare(after):
        moved = after.to_atoms()
        for atoms, of_start in zip(moved, batch, strict=True):
            atoms.info = of_start.info
        results = calculators["charged"].compute_batch(moved, ["energy"])
        expected = [result["energy"] for result in results]
        np.testing.assert_allclose(after.energy, expected, rtol=0, atol=1e-9)

    compare(ts.optimize(system=state, model=model, optimizer=FIRE, max_steps=2))
    compare(
        ts.integrate(
            system=state, model=model, integrator=NVE, n_steps=2, temperature=100, timestep=1e-4
        )
    )
    alone = float(model(state[[1]])["energy"])
    assert alone == pytest.approx(float(model(state)["energy"][1]), abs=1e-10, rel=0)
    state.system_extras["charge"][0] = 99
    with pytest.raises(UserError, match="charge"):
        model(state)


def test_other_elements_are_refused(model):
    with pytest.raises(UserError, match="Atom 1 of structure 1 is Fe"):
        model(state_of(structures()["water"], Atoms("OFe", [(0, 0, 0), (0, 0, 2)])))


@pytest.fixture(scope="module")
def stable(tmp_path_factory):
    """A calculator whose repulsion keeps atoms apart."""
    path = tmp_path_factory.mktemp("stable") / "model.pt"
    save_model(path, nearly_invariant_potential(), dtype="float64")
    return PETCalculator(path, device="cpu")


def test_batches_are_relaxed(stable):
    batch = [structures()["ethanol"], structures()["water"], structures()["CO2"]]
    model = PETModel(stable)
    before = model(state_of(*batch))
    after = ts.optimize(system=batch, model=model, optimizer=FIRE, max_steps=60)
    assert (after.energy < before["energy"]).all()
    relaxed = after.to_atoms()
    ours = stable.compute_batch(relaxed, ["energy"])
    energies = [result["energy"] for result in ours]
    np.testing.assert_allclose(after.energy, energies, rtol=0, atol=1e-8)


def test_simulations_of_batches_keep_their_energies(stable):
    batch = [structures()["ethanol"], structures()["water"]]
    model = PETModel(stable)

    def total(steps):
        state = ts.integrate(
            system=batch,
            model=model,
            integrator=NVE,
            n_steps=steps,
            temperature=300,
            timestep=0.0002,
        )
        kinetic = 0.5 * (state.momenta**2).sum(dim=1) / state.masses
        return state.energy + torch.zeros(2, dtype=torch.float64).index_add(
            0, state.system_idx, kinetic
        )

    torch.manual_seed(0)
    short = total(1)
    torch.manual_seed(0)
    np.testing.assert_allclose(total(40), short, rtol=0, atol=2e-3)
