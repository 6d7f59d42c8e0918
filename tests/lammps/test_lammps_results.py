"""Results that are no energies, by `fix pair` (of atoms) and `compute pair` (their sums)."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from lammps_models import CUTOFF, ELEMENTS, save
from simulation import Lammps, oriented, write_data

from pet_mlip import PETCalculator
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.export import save_model
from pet_mlip.graph.hypers import PETHypers

RESULTS = {
    "charges": None,
    "dipole": None,
    "shielding": {"rank": 2, "per_atom": True, "unit": "ppm"},
}
PAIR = "pair_style pet\npair_coeff * * model.pt Si O"
VOIGT = ([0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model of two layers with three results."""
    sizes = {"d_pet": 8, "d_node": 8, "d_head": 8, "d_feedforward": 8, "num_heads": 2}
    pet = PETHypers(cutoff=CUTOFF, num_attention_layers=1, results=RESULTS, **sizes)
    torch.manual_seed(3)
    potential = Potential([8, 14], pet, SymmetrizationHypers()).set_dtype(torch.float64)
    potential.set_baseline({8: -400.0, 14: -100.0}, 2.0)
    potential.set_result_baseline("charges", {8: -1.0, 14: 1.0}, 0.5)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, potential, dtype="float64")
    return path


@pytest.fixture
def lmp(plugin, tmp_path, model):
    (tmp_path / "model.pt").symlink_to(model)
    return Lammps(plugin, tmp_path)


def crystal():
    atoms = bulk("SiO", "zincblende", a=4.6) * (2, 2, 3)
    atoms.rattle(0.1, seed=1)
    return oriented(atoms)


DECK = """
units metal
atom_style atomic
atom_modify map yes
newton {newton}
read_data a.data
{pair}
fix q all pair 1 pet charges 0
fix v all pair 1 pet dipole 0
fix t all pair 1 pet shielding 0
compute sums all pair pet
velocity all create 600 4928
fix nve all nve
timestep 0.001
neigh_modify every 5 delay 0 check no
thermo_style custom step pe c_sums[*]
thermo_modify format float %22.15g
dump d all custom {steps} a.dump id xu yu zu f_q f_v[*] f_t[*]
dump_modify d sort id format float %22.15g
run {steps}
"""


@pytest.mark.parametrize(("ranks", "newton"), [(1, "on"), (2, "on"), (2, "off")])
def test_results_are_those_of_the_calculator(lmp, model, ranks, newton):
    """Also after steps, in which atoms have moved and changed their places in memory."""
    atoms = crystal()
    write_data(lmp.folder, atoms, ELEMENTS)
    run = lmp(DECK.format(newton=newton, pair=PAIR, steps=12), ranks=ranks)
    first, last = run.dumps
    for row, dump in ((run.thermo[0], first), (run.thermo[-1], last)):
        atoms.positions = dump[:, 1:4]
        atoms.calc = PETCalculator(model, device="cpu")
        charges = atoms.get_charges()
        dipole = atoms.get_dipole_moment()
        tensors = atoms.calc.get_property("shielding", atoms)[(slice(None), *VOIGT)]
        np.testing.assert_allclose(dump[:, 4], charges, rtol=0, atol=1e-10)
        np.testing.assert_allclose(dump[:, 5:8].sum(axis=0), dipole, rtol=0, atol=1e-9)
        np.testing.assert_allclose(dump[:, 8:14], tensors, rtol=0, atol=1e-10)
        sums = [row[f"c_sums[{k}]"] for k in range(1, 11)]
        expected = [charges.sum(), *dipole, *tensors.sum(axis=0)]
        np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-8)


def test_atoms_of_other_styles_have_zeros(lmp):
    atoms = crystal()
    write_data(lmp.folder, atoms, ELEMENTS)
    pair = """pair_style hybrid/overlay pet zero 3.0
pair_coeff * * pet model.pt Si NULL
pair_coeff * * zero"""
    run = lmp(DECK.format(newton="on", pair=pair, steps=1))
    silicon = atoms.numbers == 14
    assert np.all(run.dumps[0][~silicon, 4:] == 0.0)
    assert np.all(run.dumps[0][silicon, 4] != 0.0)


def test_a_name_that_the_model_does_not_have(lmp):
    write_data(lmp.folder, crystal(), ELEMENTS)
    deck = DECK.format(newton="on", pair=PAIR, steps=1).replace("pet charges", "pet magmoms")
    assert "cannot extract property magmoms" in lmp.fails(deck)


def test_after_a_restart_before_the_model_is_loaded(lmp):
    """fix pair and compute pair ask for numbers of columns when they are defined."""
    write_data(lmp.folder, crystal(), ELEMENTS)
    deck = DECK.format(newton="on", pair=PAIR, steps=1).replace("velocity all create 600 4928", "")
    expected = lmp(deck.replace("run 1", "write_restart r.bin\nrun 1"))
    found = lmp(deck.replace("read_data a.data", "read_restart r.bin").replace(PAIR, ""))
    np.testing.assert_allclose(found.dumps, expected.dumps, rtol=0, atol=1e-12)
    assert found.thermo[0]["c_sums[2]"] == pytest.approx(expected.thermo[0]["c_sums[2]"])


def test_before_the_model_is_named(lmp):
    write_data(lmp.folder, crystal(), ELEMENTS)
    deck = DECK.format(newton="on", pair="pair_style pet", steps=1)
    assert "give pair_coeff with the model's file before fix pair" in lmp.fails(deck)


def test_another_model_may_not_change_what_is_read(lmp):
    write_data(lmp.folder, crystal(), ELEMENTS)
    save(lmp.folder / "other.pt", "plain")
    deck = DECK.format(newton="on", pair=PAIR, steps=1)
    again = "pair_coeff * * other.pt Si O\nrun 1\n"
    assert "other.pt predicts other results, or has other uncertainties, than" in lmp.fails(
        deck + again
    )
    without = "unfix q\nunfix v\nunfix t\nundump d\nthermo_style one\nuncompute sums\n"
    lmp(deck + without + again)
    # The style itself may be another one in between.
    lmp(
        deck + "undump d\nunfix q\nunfix v\nunfix t\npair_style zero 3.4\npair_coeff * *\n"
        "thermo_style one\nuncompute sums\nrun 0\npair_style pet\n" + again
    )
