"""i-PI's driver gives the numbers of the calculator, and i-PI runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.io import read, write
from model_files import nearly_invariant_potential
from model_tools import structures

pytest.importorskip("ipi.engine")

from ipi.pes import load_pes
from ipi.utils.units import unit_to_internal

from pet_mlip import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export import save_model
from pet_mlip.interfaces import ipi_driver
from pet_mlip.interfaces.ipi_driver import PETDriver

INPUT = """<simulation verbosity='low'>
  <output prefix='run'>
    <properties stride='1' filename='out'> [step, conserved{electronvolt},
      potential{electronvolt}] </properties>
    <trajectory stride='10' filename='beads' format='ase'> positions </trajectory>
  </output>
  <total_steps>20</total_steps>
  <prng><seed>1</seed></prng>
  FORCEFIELD
  <system>
    <initialize nbeads='BEADS'>
      <file mode='ase'>start.xyz</file>
      <velocities mode='thermal' units='kelvin'>100</velocities>
    </initialize>
    <forces><force forcefield='pet'/></forces>
    <motion mode='dynamics'>
      <dynamics mode='nve'><timestep units='femtosecond'>0.2</timestep></dynamics>
    </motion>
    <ensemble><temperature units='kelvin'>100</temperature></ensemble>
  </system>
</simulation>
"""
DIRECT = """<ffdirect name='pet'>
    <pes>custom</pes>
    <pes_path>{file}</pes_path>
    <batch_size>{batch}</batch_size>
    <parameters>{{template: start.xyz, model: model.pt, periodic: false}}</parameters>
  </ffdirect>"""
SOCKET = """<ffsocket name='pet' mode='unix'>
    <address>{name}</address>
    <batch_size>{batch}</batch_size>
  </ffsocket>"""


def sent(atoms):
    """Cell and positions as i-PI sends them."""
    length = unit_to_internal("length", "angstrom", 1.0)
    return length * atoms.cell.array.T, length * atoms.positions


def driver_of(folder, kind, atoms, tmp_path, **arguments):
    """The driver of atoms in their cell, as i-PI loads it."""
    write(tmp_path / "template.xyz", atoms)
    loaded = load_pes("custom", ipi_driver.__file__)
    assert loaded.__name__ == "PETDriver"
    model = str(folder / f"{kind}.pt")
    return PETDriver(str(tmp_path / "template.xyz"), model, device="cpu", **arguments)


def boxed(name):
    """A structure with a cell of three vectors, so small that images would be neighbours."""
    atoms = structures()[name]
    if not atoms.pbc.any():
        atoms.center(vacuum=0.5)
    return atoms


@pytest.mark.parametrize("name", ["silicon", "skewed", "self-images", "ethanol"])
@pytest.mark.parametrize("kind", ["ensemble", "plain"])
def test_numbers(folder, calculators, tmp_path, kind, name):
    atoms = boxed(name)
    driver = driver_of(folder, kind, atoms, tmp_path, periodic=bool(atoms.pbc.all()))
    energy, forces, virial, _ = driver(*sent(atoms))
    ours = calculators[kind].compute_batch([atoms], ["energy", "forces", "stress"])[0]
    hartree = unit_to_internal("energy", "electronvolt", 1.0)
    bohr = unit_to_internal("length", "angstrom", 1.0)
    assert energy == pytest.approx(hartree * ours["energy"], abs=1e-10, rel=0)
    np.testing.assert_allclose(forces, hartree / bohr * ours["forces"], rtol=0, atol=1e-10)
    atoms.calc = calculators[kind]
    expected = -hartree * atoms.get_volume() * atoms.get_stress(voigt=False)
    np.testing.assert_allclose(virial, expected, rtol=0, atol=1e-10)
    assert energy * units.Hartree == pytest.approx(ours["energy"], rel=1e-6)


def test_beads_are_evaluated_together(folder, tmp_path):
    atoms = boxed("skewed")
    driver = driver_of(folder, "ensemble", atoms, tmp_path)
    cell, positions = sent(atoms)
    beads = [positions + 0.01 * k for k in range(3)] + [1.01 * positions]
    together = driver([cell] * 3 + [1.01 * cell], beads)
    for answer, bead, box in zip(together, beads, [cell] * 3 + [1.01 * cell], strict=True):
        for found, expected in zip(answer, driver(box, bead), strict=True):
            if not isinstance(found, str):
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_further_results_are_extras(folder, calculators, tmp_path):
    atoms = boxed("ethanol")
    driver = driver_of(folder, "ensemble", atoms, tmp_path, periodic=False, uncertainty=True)
    extras = json.loads(driver(*sent(atoms))[3])
    names = ["dipole", "charges", "polarizability", "energy_uncertainty"]
    assert list(extras) == names
    ours = calculators["ensemble"].compute_batch([atoms], names)[0]
    for name in names:
        np.testing.assert_allclose(extras[name], ours[name], rtol=0, atol=1e-10)
    without = driver_of(folder, "plain", atoms, tmp_path, periodic=False)
    assert without(*sent(atoms))[3] == ""


def test_the_template_tells_the_charge(folder, calculators, tmp_path):
    atoms = boxed("water")
    atoms.info.update(charge=1, spin_multiplicity=2)
    driver = driver_of(folder, "charged", atoms, tmp_path, periodic=False)
    expected = calculators["charged"].get_property("energy", atoms)
    found = driver(*sent(atoms))[0]
    assert found == pytest.approx(unit_to_internal("energy", "electronvolt", expected), abs=1e-10)


def test_what_cannot_be_right_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="periodic:true or periodic:false"):
        driver_of(folder, "plain", boxed("water"), tmp_path)
    with pytest.raises(UserError, match="periodic is true or false, not 'no'"):
        driver_of(folder, "plain", boxed("water"), tmp_path, periodic="no")
    driver = driver_of(folder, "plain", boxed("water"), tmp_path, periodic=False)
    with pytest.raises(UserError, match="sends 9 atoms, but the template has 3"):
        driver(*sent(boxed("ethanol")))
    with pytest.raises(UserError, match="spans no volume"):
        driver(*sent(structures()["water"]))
    with pytest.raises(UserError, match="no parameter dytpe; it has template, model, periodic"):
        driver_of(folder, "plain", boxed("water"), tmp_path, periodic=False, dytpe="float64")
    with pytest.raises(UserError, match="cannot read the template"):
        PETDriver(str(tmp_path / "missing.xyz"), str(folder / "plain.pt"))


@pytest.fixture
def ready(tmp_path):
    """A folder with a model and a molecule in a box."""
    save_model(tmp_path / "model.pt", nearly_invariant_potential(), dtype="float64")
    atoms = Atoms("OH2", [(0, 0, 0), (0.96, 0, 0), (-0.24, 0.93, 0)])
    atoms.center(vacuum=5.0)
    write(tmp_path / "start.xyz", atoms)
    return tmp_path


def i_pi(folder, n_beads, forcefield):
    """Start i-PI in a folder."""
    text = INPUT.replace("BEADS", str(n_beads)).replace("FORCEFIELD", forcefield)
    (folder / "input.xml").write_text(text)
    return subprocess.Popen(
        [sys.executable, Path(sys.executable).parent / "i-pi", "input.xml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check_run(folder, n_beads):
    """i-PI's energies are the calculator's, and what it conserves is conserved."""
    _, conserved, potential = np.loadtxt(folder / "run.out").T
    assert len(potential) == 21
    assert np.ptp(conserved) < 1e-3 * max(np.ptp(potential), 0.1)
    beads = [read(folder / f"run.beads_{k}.extxyz", ":") for k in range(n_beads)]
    calculator = PETCalculator(folder / "model.pt", device="cpu")
    for step, images in enumerate(zip(*beads, strict=True)):
        for image in images:
            image.pbc = False
        energies = [result["energy"] for result in calculator.compute_batch(images)]
        # Positions are written with nine digits.
        assert np.mean(energies) == pytest.approx(potential[10 * step], abs=1e-5)


@pytest.mark.parametrize(("n_beads", "batch"), [(1, 1), (4, 4)])
def test_dynamics(ready, n_beads, batch):
    forcefield = DIRECT.format(file=ipi_driver.__file__, batch=batch)
    process = i_pi(ready, n_beads, forcefield)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    check_run(ready, n_beads)


def test_dynamics_through_a_socket(ready):
    name = f"pet_{os.getpid()}"
    process = i_pi(ready, 4, SOCKET.format(name=name, batch=2))
    socket = Path(f"/tmp/ipi_{name}")
    while process.poll() is None and not socket.exists():
        pass
    driver = [
        *(sys.executable, Path(sys.executable).parent / "i-pi-driver-py", "-u", "-a", name),
        *("-m", "custom", "-P", ipi_driver.__file__),
        *("-o", "template=start.xyz,model=model.pt,periodic=false"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(driver, cwd=ready, env=environment, timeout=120, check=True)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    check_run(ready, 4)
