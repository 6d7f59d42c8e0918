"""Dispersion beside the model: what docs/engines.md says of it is the same in ASE and in LAMMPS."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.mixing import SumCalculator
from ase.io import read
from model_tools import make_potential
from simulation import write_data

from pet_mlip import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export import save_model
from pet_mlip.lammps import attach

dftd3 = pytest.importorskip("dftd3.ase")
pytestmark = pytest.mark.usefixtures("plugin")

DECK = """units metal
atom_style atomic
read_data a.data
pair_style hybrid/overlay pet dispersion/d3 bj pbe 31.75 21.17
neigh_modify one 20000 page 200000
pair_coeff * * pet model.pt {elements}
pair_coeff * * dispersion/d3 {elements}
dump 1 all custom 1 forces.dump id element x y z fx fy fz
dump_modify 1 sort id element {elements} format float %.10f
thermo_modify format float %.10f
run 0
variable e equal pe
print "energy ${{e}}" file energy.txt
"""


def two_molecules():
    atoms = molecule("CH3CH2OH")
    other = molecule("H2O")
    other.positions += [0, 0, 5]
    atoms += other
    atoms.rattle(0.05, seed=1)
    atoms.center(vacuum=30)
    atoms.pbc = True
    return atoms


def silica():
    atoms = bulk("SiO", "zincblende", a=4.4, cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def save_rest(path):
    """Write a model that learned labels without D3."""
    potential = make_potential()
    potential.subtracted = "d3(PBE, d3bj)"
    save_model(path, potential, dtype="float64")


def run(folder, deck):
    """Run LAMMPS as users do."""
    (folder / "in.d3").write_text(deck)
    command = [Path(sys.executable).parent / "pet-mlip", "lammps", "run", "-in", "in.d3"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def energy_of(folder, deck):
    """The energy that a deck ends with."""
    done = run(folder, deck)
    assert done.returncode == 0, done.stdout[-2000:]
    return float((folder / "energy.txt").read_text().split()[1])


@pytest.mark.parametrize("make", [two_molecules, silica])
def test_lammps_and_ase_agree(tmp_path, make):
    save_model(tmp_path / "model.pt", make_potential(), dtype="float64")
    atoms = make()
    pet = PETCalculator(tmp_path / "model.pt")
    alone = pet.get_potential_energy(atoms)
    atoms.calc = SumCalculator([pet, dftd3.DFTD3(method="PBE", damping="d3bj")])
    dispersion = atoms.get_potential_energy() - alone
    elements = sorted(set(atoms.get_chemical_symbols()))
    write_data(tmp_path, atoms, elements)
    energy = energy_of(tmp_path, DECK.format(elements=" ".join(elements)))
    found = read(tmp_path / "forces.dump", format="lammps-dump-text")
    # The two programs differ in cutoffs and in constants of D3 itself.
    assert energy - alone == pytest.approx(dispersion, rel=2e-3)
    size = np.abs(atoms.calc.mixer.calcs[1].get_forces(atoms)).max()
    np.testing.assert_allclose(found.get_forces(), atoms.get_forces(), atol=5e-3 * size)


def test_an_attached_model_adds_it_once(tmp_path, monkeypatch):
    from pet_mlip.lammps.library import import_class

    monkeypatch.chdir(tmp_path)
    save_rest(tmp_path / "model.pt")
    atoms = silica()
    write_data(tmp_path, atoms, ["O", "Si"])
    setup = "units metal\natom_style atomic\nread_data a.data\nneigh_modify one 20000 page 200000\n"
    style = "pair_style dispersion/d3 bj pbe 31.75 21.17\npair_coeff * * O Si\n"
    expected = PETCalculator(tmp_path / "model.pt").get_potential_energy(atoms)

    def energy(pair_style, **options):
        with import_class()(cmdargs=["-screen", "none", "-log", "none"]) as lmp:
            lmp.commands_string(setup + pair_style)
            attach(lmp, "model.pt", ["O", "Si"], **options)
            lmp.command("run 0")
            return lmp.get_thermo("pe")

    assert energy("pair_style none\n") == pytest.approx(expected, rel=0, abs=1e-9)
    bare = PETCalculator(tmp_path / "model.pt", d3=False).get_potential_energy(atoms)
    tolerance = 2e-3 * abs(expected - bare)
    assert energy(style, d3=False) == pytest.approx(expected, abs=tolerance)
    twice = (
        "pair_style hybrid/overlay dispersion/d3 bj pbe 12 8 dispersion/d3 bj pbe 12 8\n"
        "pair_coeff * * dispersion/d3 1 O Si\npair_coeff * * dispersion/d3 2 O Si\n"
    )
    for deck in (style, twice):
        with pytest.raises(UserError, match=r"acts beside .* adds d3\(PBE, d3bj\) itself"):
            energy(deck)
    for deck, count in (("pair_style none\n", 0), (twice, 2)):
        with pytest.raises(UserError, match=f"has to add, but there are {count}"):
            energy(deck, d3=False)


def test_a_model_that_learned_labels_without_it_needs_it(tmp_path):
    save_rest(tmp_path / "model.pt")
    atoms = silica()
    elements = sorted(set(atoms.get_chemical_symbols()))
    write_data(tmp_path, atoms, elements)
    deck = DECK.format(elements=" ".join(elements))
    energy = energy_of(tmp_path, deck)
    calculator = PETCalculator(tmp_path / "model.pt")
    added = calculator.get_potential_energy(atoms)
    added -= PETCalculator(tmp_path / "model.pt", d3=False).get_potential_energy(atoms)
    assert energy == pytest.approx(calculator.get_potential_energy(atoms), abs=2e-3 * abs(added))
    alone = deck.replace("hybrid/overlay pet dispersion/d3 bj pbe 31.75 21.17", "pet")
    alone = alone.replace("* * pet model", "* * model")
    lines = [line for line in alone.splitlines() if not line.startswith("pair_coeff * * disp")]
    done = run(tmp_path, "\n".join(lines) + "\n")
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "learned labels without d3(PBE, d3bj), which has to be added" in said
    style = "dispersion/d3 bj pbe 31.75 21.17"
    coefficients = "pair_coeff * * dispersion/d3 {}" + " ".join(elements)
    twice = deck.replace(style, f"{style} {style}").replace(
        coefficients.format(""), "\n".join(coefficients.format(f"{k} ") for k in (1, 2))
    )
    done = run(tmp_path, twice)
    assert done.returncode != 0
    said = " ".join((done.stdout + done.stderr).split())
    assert "which two dispersion/d3 would add twice" in said
