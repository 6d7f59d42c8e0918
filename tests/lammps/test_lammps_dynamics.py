"""Trajectories, minimisers, restarts: what LAMMPS does with the forces."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from lammps_models import ELEMENTS, save
from simulation import Lammps, deck, oriented, write_data

from pet_mlip import PETCalculator

NAMES = " ".join(ELEMENTS)
SHORT = "dump_modify d every 20\nrun 20"
NVE = "velocity all create 600 7 loop geom\nfix 1 all nve\ntimestep 0.0005"


@pytest.fixture
def lmp(plugin, tmp_path):
    folder = Lammps(plugin, tmp_path)
    save(tmp_path / "model.pt", "2 layers, residual")
    atoms = bulk("SiO", "zincblende", a=5.0) * 2
    atoms.rattle(0.05, seed=3)
    write_data(tmp_path, oriented(atoms), ELEMENTS)
    return folder


def assert_same_path(found, expected, bound=1e-10):
    assert [r["Step"] for r in found.thermo] == [r["Step"] for r in expected.thermo]
    np.testing.assert_allclose(found.positions, expected.positions, rtol=0, atol=bound)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=100 * bound)
    assert found.energy == pytest.approx(expected.energy, abs=100 * bound)


def test_nve_on_ranks_with_reneighbouring(lmp):
    # A thin skin makes the list be built many times in 50 steps.
    setup = f"{NVE}\nneighbor 0.05 bin\nneigh_modify every 1 delay 0 check yes"
    serial = lmp(deck(NAMES, setup=setup, run="run 50"))
    assert int(serial.log.split("Neighbor list builds = ")[1].split()[0]) >= 3
    assert "Dangerous builds = 0" in serial.log
    assert_same_path(lmp(deck(NAMES, setup=setup, run="run 50"), ranks=2), serial)


@pytest.mark.slow
def test_energy_is_conserved_to_second_order(lmp):
    spreads = []
    for n in (1, 2):
        setup = f"{NVE}\nneighbor 0.1 bin\ntimestep {0.0005 / n}\nthermo {n}"
        rows = lmp(deck(NAMES, setup=setup, run=f"run {60 * n}")).thermo
        spreads.append(np.ptp([row["TotEng"] for row in rows]))
    assert 3.0 < spreads[0] / spreads[1] < 5.0


def test_nve_follows_ase(lmp):
    start = lmp(deck(NAMES, run="run 0"))
    found = lmp(deck(NAMES, setup="fix 1 all nve\ntimestep 0.001", run=SHORT))
    atoms = oriented(bulk("SiO", "zincblende", a=5.0) * 2)
    atoms.positions = start.positions
    atoms.calc = PETCalculator(lmp.folder / "model.pt", device="cpu")
    atoms.set_masses([28.085 if a.symbol == "Si" else 15.999 for a in atoms])
    VelocityVerlet(atoms, 1.0 * units.fs).run(20)
    moved = found.positions - atoms.positions
    moved -= np.round(moved @ np.linalg.inv(atoms.cell.array)) @ atoms.cell.array
    # The two programs differ in the eighth digit of their units.
    np.testing.assert_allclose(moved, 0.0, atol=1e-5)


WORKFLOWS = {
    "minimize": ("", "minimize 0 1e-4 20 100"),
    "box relaxation": ("fix 1 all box/relax aniso 0.0", "minimize 0 1e-4 10 40"),
    "npt": (
        "velocity all create 300 7 loop geom\nfix 1 all npt temp 300 300 0.1 tri 0 0 1",
        "run 50",
    ),
    "deform": (f"{NVE}\nfix 2 all deform 1 x scale 1.2 xy erate 1.0 remap v", "run 50"),
    "respa": (f"{NVE}\nrun_style respa 2 2 pair 2", "run 50"),
    "two runs": (NVE, "run 20\nrun 30"),
    "replicate": ("replicate 2 1 1", "run 0"),
    "changed types": ("set atom 3 type 2", "run 0"),
    "deleted atoms": (
        "region r block 0 3 INF INF INF INF\ndelete_atoms region r compress no",
        "run 0",
    ),
}


LESS_COMMON = ("minimize", "deform", "respa", "two runs")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in LESS_COMMON else n for n in WORKFLOWS],
)
def test_ranks_agree_on(lmp, name):
    setup, run = WORKFLOWS[name]
    serial = lmp(deck(NAMES, setup=setup, run=run))
    parallel = lmp(deck(NAMES, setup=setup, run=run), ranks=2)
    loose = 1e-7 if name in ("minimize", "box relaxation") else 1e-10
    assert_same_path(parallel, serial, loose)


HYBRID = (
    "pair_style hybrid/overlay lj/cut 4.0 pet device cpu\n"
    "pair_coeff * * lj/cut 0.01 2.0\npair_coeff * * pet model.pt Si O"
)


def test_respa_with_the_model_as_the_outer_level_of_a_hybrid(lmp):
    def moved(inner_steps, ranks=1):
        setup = f"{NVE}\nrun_style respa 2 {inner_steps} hybrid 1 2"
        return lmp(deck(NAMES, pair=HYBRID, setup=setup, run=SHORT), ranks)

    verlet = lmp(deck(NAMES, pair=HYBRID, setup=NVE, run=SHORT))
    assert_same_path(moved(1), verlet)
    assert_same_path(moved(2, ranks=2), moved(2))


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_restart_continues_bit_by_bit(lmp, ranks):
    # In a triclinic box LAMMPS itself loses the last bit in one more change of coordinates.
    atoms = bulk("SiO", "zincblende", a=5.0, cubic=True)
    atoms.rattle(0.05, seed=3)
    write_data(lmp.folder, atoms, ELEMENTS)
    through = lmp(deck(NAMES, setup=NVE, run=f"{SHORT}\nwrite_restart r.bin\nrun 20"), ranks)
    again = deck(
        NAMES,
        read="read_restart r.bin",
        pair="# model and elements are in the restart file",
        setup="fix 1 all nve\ntimestep 0.0005",
        run=SHORT,
    )
    found = lmp(again, ranks)
    np.testing.assert_array_equal(found.positions, through.positions)
    np.testing.assert_array_equal(found.forces, through.forces)


def test_rerun(lmp):
    wrapped = "dump e all custom 20 old.txt id type x y z"
    first = lmp(
        deck(
            NAMES,
            setup=f"{NVE}\nthermo 20\n{wrapped}\ndump_modify e format float %22.15g",
            run="run 40",
        )
    )
    found = lmp(deck(NAMES, run="thermo 20\nrerun old.txt dump x y z"))
    assert [row["Step"] for row in found.thermo] == [0, 20, 40]
    expected = [row["PotEng"] for row in first.thermo]
    np.testing.assert_allclose([row["PotEng"] for row in found.thermo], expected, atol=1e-9)


def test_clear_and_switching_models(lmp):
    save(lmp.folder / "other.pt", "plain")
    one = lmp(deck(NAMES)).energy
    switched = deck(
        NAMES,
        run="run 0\npair_coeff * * other.pt Si O\nrun 0\n"
        "pair_style zero 5.0\npair_coeff * *\nrun 0\n"
        "pair_style pet device cpu\npair_coeff * * model.pt Si O\nrun 0",
    )
    energies = [row["PotEng"] for row in lmp(switched).thermo]
    assert energies[0] == energies[3] == one
    assert energies[1] != one
    assert energies[2] == 0.0
    cleared = deck(NAMES) + "clear\n" + deck(NAMES).replace("a.dump", "b.dump")
    assert [row["PotEng"] for row in lmp(cleared).thermo] == [one, one]


def test_unloading_and_loading_the_plugin(lmp):
    again = deck(NAMES) + (
        f"clear\nplugin unload pair pet\nplugin load {lmp.plugin}/petplugin.so\n"
        + deck(NAMES).replace("a.dump", "b.dump")
    )
    energies = [row["PotEng"] for row in lmp(again, fresh=True).thermo]
    assert energies[0] == energies[1]


def test_a_crystal_keeps_its_symmetry(lmp):
    """Relaxing all six box components of a perfect crystal leaves it cubic."""
    write_data(lmp.folder, bulk("SiO", "zincblende", a=5.0, cubic=True), ELEMENTS)
    setup = "change_box all triclinic\nfix 1 all npt temp 300 300 0.1 tri 0 0 1.0"
    report = 'print "BOX $(lx:%.15g) $(ly:%.15g) $(lz:%.15g) $(xy:%.15g) $(xz:%.15g) $(yz:%.15g)"'
    found = lmp(deck(NAMES, setup=setup, run=f"run 40\n{report}"))
    line = next(text for text in found.log.splitlines() if text.startswith("BOX"))
    box = np.array(line.split()[1:], dtype=float)
    assert abs(box[0] - 5.0) > 1e-6  # it did change
    np.testing.assert_allclose(box, [box[0]] * 3 + [0.0] * 3, rtol=0, atol=1e-9)
    assert np.abs(found.forces).max() < 1e-9
