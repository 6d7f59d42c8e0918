"""Uncertainties by `fix pair` (of atoms) and `compute pair` (of the whole system)."""

import numpy as np
import pytest
from ase.build import bulk
from lammps_models import ELEMENTS, save, small_potential
from simulation import Lammps, oriented, write_data
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.export import save_model

KCAL = 23.060549
"""In an eV, as LAMMPS' units real have it."""


@pytest.fixture(scope="module", params=["plain", "2 layers, residual", "2 layers, feedforward"])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pt"
    potential = with_uncertainty(small_potential(request.param), members=9)
    save_model(path, potential, dtype="float64")
    return path


@pytest.fixture
def lmp(plugin, tmp_path, model):
    (tmp_path / "model.pt").symlink_to(model)
    return Lammps(plugin, tmp_path)


def crystal(repeat=(2, 2, 3)):
    atoms = bulk("SiO", "zincblende", a=4.6) * repeat
    atoms.rattle(0.1, seed=1)
    return oriented(atoms)


DECK = """
units {units}
atom_style atomic
atom_modify map yes
newton {newton}
read_data a.data
pair_style pet
pair_coeff * * model.pt Si O
{fix}
compute whole all pair pet
velocity all create 600 4928
fix nve all nve
timestep {timestep}
neigh_modify every 5 delay 0 check no
thermo_style custom step pe c_whole[*]
thermo_modify format float %22.15g
thermo 6
dump d all custom 6 a.dump id xu yu zu f_u[*]
dump_modify d sort id format float %22.15g
run 12
"""
FIX = "fix u all pair 6 pet energy_uncertainty {} force_uncertainty {}"


def expected(model, atoms):
    names = ["energies_uncertainty", "forces_uncertainty", "energy_uncertainty"]
    (found,) = PETCalculator(model, device="cpu").compute_batch([atoms], names)
    return [found[name] for name in names]


@pytest.mark.parametrize(
    ("ranks", "newton", "flags"),
    [(1, "on", (0, 1)), (2, "on", (1, 1)), (2, "off", (0, 1)), (4, "on", (0, 0))],
)
def test_uncertainties_are_those_of_the_calculator(lmp, model, ranks, newton, flags):
    """Also after steps, in which atoms have moved and changed their places in memory."""
    atoms = crystal()
    write_data(lmp.folder, atoms, ELEMENTS)
    deck = DECK.format(units="metal", newton=newton, fix=FIX.format(*flags), timestep=0.001)
    run = lmp(deck, ranks=ranks)
    for row, dump in zip(run.thermo, run.dumps, strict=True):
        atoms.positions = dump[:, 1:4]
        of_atoms, of_forces, of_energy = expected(model, atoms)
        np.testing.assert_allclose(dump[:, 4], of_atoms, rtol=1e-9)
        np.testing.assert_allclose(dump[:, 5], of_forces, rtol=1e-9)
        whole = [row[f"c_whole[{k}]"] for k in (1, 2, 3)]
        np.testing.assert_allclose(whole, [of_energy, of_atoms.max(), of_forces.max()], rtol=1e-9)


def test_units_are_those_of_the_simulation(lmp, model):
    atoms = crystal((2, 1, 1))
    write_data(lmp.folder, atoms, ELEMENTS)
    deck = DECK.format(units="real", newton="on", fix=FIX.format(0, 1), timestep=1.0)
    run = lmp(deck)
    atoms.positions = run.dumps[0][:, 1:4]
    of_atoms, of_forces, of_energy = expected(model, atoms)
    np.testing.assert_allclose(run.dumps[0][:, 4], KCAL * of_atoms, rtol=1e-6)
    np.testing.assert_allclose(run.dumps[0][:, 5], KCAL * of_forces, rtol=1e-6)
    assert run.thermo[0]["c_whole[1]"] == pytest.approx(KCAL * of_energy, rel=1e-6)


def test_a_simulation_stops_where_it_is_uncertain(lmp, model):
    """The recipe of docs/uncertainty.md: fix halt, and the structure as it was."""
    atoms = crystal()
    write_data(lmp.folder, atoms, ELEMENTS)
    largest = expected(model, atoms)[1].max()
    deck = DECK.format(units="metal", newton="on", fix=FIX.format(0, 1), timestep=0.001)
    halt = f"variable worst equal c_whole[3]\nfix stop all halt 1 v_worst > {largest / 2}\n"
    run = lmp(deck.replace("run 12", halt + "run 12\nwrite_data halted.data"))
    assert run.thermo[-1]["Step"] < 12
    assert (lmp.folder / "halted.data").is_file()


def test_a_model_without_any_has_no_such_name(lmp):
    write_data(lmp.folder, crystal((1, 1, 1)), ELEMENTS)
    save(lmp.folder / "without.pt", "plain")
    deck = DECK.format(units="metal", newton="on", fix=FIX.format(0, 0), timestep=0.001)
    deck = deck.replace("model.pt", "without.pt").replace(" c_whole[*]", "")
    assert "cannot extract property energy_uncertainty" in lmp.fails(deck)


def test_what_a_step_has_not_computed_is_refused(lmp):
    """A hybrid style that is given again has another pair_style pet, which nobody has asked."""
    write_data(lmp.folder, crystal((1, 1, 1)), ELEMENTS)
    deck = DECK.format(units="metal", newton="on", fix=FIX.format(0, 0), timestep=0.001)
    deck = deck.replace("compute whole all pair pet", "").replace(" c_whole[*]", "")
    pair = "pair_style hybrid/overlay pet zero 3.0\npair_coeff * * pet model.pt Si O\n"
    pair += "pair_coeff * * zero\n"
    deck = deck.replace("pair_style pet\npair_coeff * * model.pt Si O\n", pair)
    assert "in a step that has not computed it" in lmp.fails(f"{deck}{pair}run 6\n")


def test_fix_pair_reads_nothing_with_respa(lmp):
    """LAMMPS would leave the numbers of the first step."""
    write_data(lmp.folder, crystal((1, 1, 1)), ELEMENTS)
    deck = DECK.format(units="metal", newton="on", fix=FIX.format(0, 0), timestep=0.001)
    respa = deck.replace("run 12", "run_style respa 2 2 pair 2\nrun 12")
    assert "reads nothing after the first step with run_style respa" in lmp.fails(respa)


def test_a_model_that_knows_none_does_not_take_over(lmp):
    write_data(lmp.folder, crystal((1, 1, 1)), ELEMENTS)
    save(lmp.folder / "without.pt", "plain")
    deck = DECK.format(units="metal", newton="on", fix=FIX.format(0, 1), timestep=0.001)
    assert "has other uncertainties, than" in lmp.fails(deck + "pair_coeff * * without.pt Si O\n")


def test_atoms_of_other_styles_are_certain(lmp):
    atoms = crystal((2, 1, 1))
    write_data(lmp.folder, atoms, ELEMENTS)
    deck = DECK.format(units="metal", newton="on", fix=FIX.format(0, 1), timestep=0.001)
    pair = "pair_style hybrid/overlay pet zero 3.0\npair_coeff * * pet model.pt Si NULL\n"
    pair += "pair_coeff * * zero"
    deck = deck.replace("pair_style pet\npair_coeff * * model.pt Si O", pair)
    run = lmp(deck, ranks=2)
    silicon = atoms.numbers == 14
    assert np.all(run.dumps[0][~silicon, 4:] == 0.0)
    assert np.all(run.dumps[0][silicon, 4] > 0.0)
