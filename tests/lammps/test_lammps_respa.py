"""The plain part and the correction apart: they add up, and r-RESPA integrates them."""

import numpy as np
import pytest
from ase.build import bulk
from lammps_models import ELEMENTS, save, save_parts
from simulation import Lammps, deck, oriented, write_data

from pet_mlip import PETCalculator
from pet_mlip.ase.respa import Respa

NAMES = " ".join(ELEMENTS)
PARTS = (
    "pair_style hybrid/overlay pet device cpu part plain pet device cpu part correction\n"
    "pair_coeff * * pet 1 model.pt Si O\npair_coeff * * pet 2 model.pt Si O"
)
TIME = np.sqrt(1.0364269e-4)
"""ASE's unit of time in ps, with LAMMPS' constant for amu (Å/ps)^2 in eV."""

RUN = "dump_modify d every 10\nrun 10"


def respa(inner_steps):
    return f"run_style respa 2 {inner_steps} hybrid 1 2"


@pytest.fixture
def lmp(plugin, tmp_path):
    folder = Lammps(plugin, tmp_path)
    save_parts(tmp_path / "model.pt")
    atoms = bulk("SiO", "zincblende", a=5.0) * 2
    atoms.rattle(0.05, seed=3)
    write_data(tmp_path, oriented(atoms), ELEMENTS)
    return folder


def part(name):
    return f"pair_style pet device cpu part {name}\npair_coeff * * model.pt Si O"


def assert_equal(found, expected, bound=1e-10):
    """Everything that two runs print of their last step."""
    assert abs(found.energy - expected.energy) <= bound * abs(expected.energy)
    for name in (
        "positions",
        "forces",
        "atomic_energies",
        "virials",
        "centroid_virials",
        "pressure",
    ):
        a, b = getattr(found, name), getattr(expected, name)
        scale = max(1.0, np.abs(b).max(initial=0.0))
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * scale, err_msg=name)


def test_parts_add_up(lmp):
    whole = lmp(deck(NAMES))
    parts = [lmp(deck(NAMES, pair=part(name))) for name in ("plain", "correction")]
    for name in ("forces", "atomic_energies", "virials", "centroid_virials", "pressure"):
        plain, correction = (getattr(run, name) for run in parts)
        assert np.abs(correction).max() > 1e-5  # there is something to add
        scale = np.abs(getattr(whole, name)).max()
        np.testing.assert_allclose(
            plain + correction, getattr(whole, name), rtol=0, atol=1e-12 * scale, err_msg=name
        )
    assert_equal(lmp(deck(NAMES, pair=PARTS)), whole, 1e-12)


def test_a_plain_model_is_its_own_plain_part(lmp):
    save(lmp.folder / "model.pt", "plain")
    assert_equal(lmp(deck(NAMES, pair=part("plain"))), lmp(deck(NAMES)))


def test_plain_part_is_that_of_ase(lmp):
    found = lmp(deck(NAMES, pair=part("plain")))
    atoms = oriented(bulk("SiO", "zincblende", a=5.0) * 2)
    atoms.positions = found.positions
    atoms.calc = PETCalculator(lmp.folder / "model.pt", device="cpu", part="plain")
    assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("newton", ["on", pytest.param("off", marks=pytest.mark.slow)])
def test_ranks_agree(lmp, newton):
    setup = f"velocity all create 600 7 loop geom\nfix 1 all nve\ntimestep 0.002\n{respa(4)}"
    text = deck(NAMES, pair=PARTS, setup=setup, run=RUN, newton=newton)
    assert_equal(lmp(text, ranks=2), lmp(text))


def test_energy_and_pressure_of_a_step_are_the_whole_ones(lmp):
    setup = f"velocity all create 600 7\nfix 1 all nve\ntimestep 0.002\n{respa(4)}"
    moved = lmp(deck(NAMES, pair=PARTS, setup=setup, run=f"{RUN}\nwrite_data moved.data"))
    again = lmp(deck(NAMES, read="read_data moved.data"))
    kinetic = moved.thermo[-1]["TotEng"] - moved.energy
    assert kinetic > 0.1
    assert moved.energy == pytest.approx(again.energy, abs=1e-9)
    np.testing.assert_allclose(moved.pressure, again.pressure, rtol=1e-9, atol=1e-3)
    assert_equal(moved, again, 1e-9)


def test_one_inner_step_is_velocity_verlet(lmp):
    setup = "velocity all create 600 7 loop geom\nfix 1 all nve\ntimestep 0.001\n"
    found = lmp(deck(NAMES, pair=PARTS, setup=setup + respa(1), run=RUN))
    assert_equal(found, lmp(deck(NAMES, setup=setup, run=RUN)))


def test_the_same_path_as_in_ase(lmp):
    start = lmp(deck(NAMES, run="run 0"))
    setup = f"fix 1 all nve\ntimestep 0.004\n{respa(4)}"
    found = lmp(deck(NAMES, pair=PARTS, setup=setup, run=RUN))
    atoms = oriented(bulk("SiO", "zincblende", a=5.0) * 2)
    atoms.positions = start.positions
    atoms.calc = PETCalculator(lmp.folder / "model.pt", device="cpu")
    atoms.set_masses([28.085 if a.symbol == "Si" else 15.999 for a in atoms])
    Respa(atoms, 0.004 / TIME, inner_steps=4).run(10)
    assert np.abs(atoms.positions - start.positions).max() > 0.01
    np.testing.assert_allclose(found.positions, atoms.positions, rtol=0, atol=1e-8)


def test_restart_keeps_the_parts(lmp):
    setup = "velocity all create 600 7 loop geom\nfix 1 all nve\ntimestep 0.002\n" + respa(2)
    through = lmp(
        deck(
            NAMES,
            pair=PARTS,
            setup=setup,
            run="run 10\nwrite_restart r.bin\ndump_modify d every 20\nrun 10",
        )
    )
    again = deck(
        NAMES,
        read="read_restart r.bin",
        pair="# styles and parts are in the restart file, but hybrid wants coefficients again\n"
        + PARTS.split("\n", 1)[1],
        setup=f"fix 1 all nve\ntimestep 0.002\n{respa(2)}",
        run="dump_modify d every 20\nrun 10",
    )
    assert_equal(lmp(again), through)


def test_models_without_parts(lmp):
    save(lmp.folder / "model.pt", "2 layers, residual")
    message = lmp.fails(deck(NAMES, pair=part("plain")))
    assert "trained in frames of its ensemble only (symmetrization.train: full)" in message
    save(lmp.folder / "model.pt", "plain")
    message = lmp.fails(deck(NAMES, pair=part("correction")), ranks=2)
    assert "is a plain model: there is no correction to it" in message
