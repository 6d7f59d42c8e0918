"""LAMMPS gives what the calculator gives, on any number of ranks."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from lammps_models import ELEMENTS, MODELS, save, save_charged
from simulation import BAR, Lammps, deck, oriented, write_data

from pet_mlip import PETCalculator

NAMES = " ".join(ELEMENTS)


def crystal(repeat=2, seed=1) -> Atoms:
    """A skewed, rattled crystal of two elements."""
    atoms = bulk("SiO", "zincblende", a=5.0) * (repeat, repeat, repeat)
    strain = [[1, 0.05, 0], [0.02, 1, 0], [0, 0.03, 1]]
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.rattle(0.1, seed=seed)
    return oriented(atoms)


def assert_equal_to_ase(found, atoms, model, bound=1e-11, unit=1.0):
    """Energy, atomic energies, forces and pressure against the calculator."""
    atoms = atoms.copy()
    atoms.calc = PETCalculator(model, device="cpu")
    assert abs(found.energy / unit - atoms.get_potential_energy()) <= bound * len(atoms)
    np.testing.assert_allclose(found.forces / unit, atoms.get_forces(), rtol=0, atol=bound)
    energies = atoms.get_potential_energies()
    np.testing.assert_allclose(found.atomic_energies / unit, energies, rtol=0, atol=bound)
    if atoms.pbc.all() and unit == 1.0:
        stress = atoms.get_stress(voigt=False)
        expected = -BAR * stress[(0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
        size = max(np.abs(expected).max(), 1.0)
        np.testing.assert_allclose(found.pressure, expected, rtol=0, atol=max(1e-6, bound) * size)
        stresses = full(atoms.get_stresses())
        expected = BAR * atoms.get_volume() * stresses[:, (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)]
        size = np.abs(expected).max()
        np.testing.assert_allclose(found.virials, expected, rtol=0, atol=max(1e-6, bound) * size)
    # They are derivatives of their own, so that they agree as far as the network is exact.
    total, expected = found.centroid_virials[:, :3].sum(axis=0), found.virials[:, :3].sum(axis=0)
    size = max(np.abs(expected).max(), 1.0)
    np.testing.assert_allclose(total, expected, rtol=0, atol=max(1e-9, bound) * size)


def full(voigt):
    """(N, 3, 3) of ASE's xx yy zz yz xz xy."""
    return voigt[:, [[0, 5, 4], [5, 1, 3], [4, 3, 2]]]


def assert_equal(found, expected, bound=1e-10):
    """Everything that two runs print of their last step."""
    assert abs(found.energy - expected.energy) <= bound * max(1.0, abs(expected.energy))
    for name in ("forces", "atomic_energies", "virials", "centroid_virials", "pressure"):
        a, b = getattr(found, name), getattr(expected, name)
        scale = max(1.0, np.abs(b).max(initial=0.0))
        np.testing.assert_allclose(a, b, rtol=0, atol=bound * scale, err_msg=name)


@pytest.fixture
def lmp(plugin, tmp_path):
    return Lammps(plugin, tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_models(lmp, name):
    model = save(lmp.folder / "model.pt", name)
    atoms = crystal(3)
    write_data(lmp.folder, atoms, ELEMENTS)
    serial = lmp(deck(NAMES))
    assert_equal_to_ase(serial, atoms, model)
    assert_equal(lmp(deck(NAMES), ranks=2), serial)


@pytest.mark.parametrize("state", [(0, 1), (-1, 2)])
def test_charge_and_spin(lmp, state):
    model = save_charged(lmp.folder / "model.pt")
    atoms = crystal()
    atoms.info.update(charge=state[0], spin_multiplicity=state[1])
    write_data(lmp.folder, atoms, ELEMENTS)
    found = lmp(deck(NAMES, style=f"device cpu charge {state[0]} spin {state[1]}"))
    assert_equal_to_ase(found, atoms, model)


def test_four_ranks(lmp):
    save(lmp.folder / "model.pt", "2 layers, feedforward")
    write_data(lmp.folder, crystal(3), ELEMENTS)
    assert_equal(lmp(deck(NAMES), ranks=4, fresh=True), lmp(deck(NAMES)))


def test_single_precision(lmp):
    model = save(lmp.folder / "model.pt", "2 layers, feedforward", "float32")
    atoms = crystal()
    write_data(lmp.folder, atoms, ELEMENTS)
    assert_equal_to_ase(lmp(deck(NAMES)), atoms, model, bound=2e-6)
    # The deck may ask for another precision than the file's.
    double = lmp(deck(NAMES, style="device cpu dtype float64"))
    atoms.calc = PETCalculator(model, device="cpu", dtype="float64")
    np.testing.assert_allclose(double.forces, atoms.get_forces(), rtol=0, atol=1e-11)
    mixed = lmp(deck(NAMES, style="device cpu dtype bf16-mixed"))
    atoms.calc = PETCalculator(model, device="cpu", dtype="bf16-mixed")
    np.testing.assert_allclose(mixed.forces, atoms.get_forces(), rtol=0, atol=1e-5)
    assert np.abs(mixed.forces - double.forces).max() > 1e-4


STRUCTURES = {
    "self-images": bulk("SiO", "zincblende", a=4.2),
    "molecule": Atoms("SiOSiO", [(0, 0, 0), (1.6, 0, 0), (2.2, 1.7, 0), (0.3, 0.4, 1.6)]),
    "slab": Atoms("SiOSi", [(0, 0, 1), (0.9, 1.2, 2), (1, 2, 8)], cell=[3, 3.2, 9], pbc=[1, 1, 0]),
    "two far atoms": Atoms("SiO", [(1, 1, 1), (21, 1, 1)], cell=[40, 3, 30], pbc=True),
    "outside of the cell": Atoms("SiO", [(-7, 1, 1), (10.5, 14.2, 1.3)], cell=[4, 3, 3], pbc=True),
    "strongly skewed": Atoms(
        "SiO", [(0, 0, 0), (1, 2, 1)], cell=[[4, 0, 0], [1.9, 4, 0], [1.8, -1.9, 5]], pbc=True
    ),
}
BOUNDARIES = {"molecule": ["s s s", "f f f"], "slab": ["p p f", "p p s"]}


SIMPLER = ("two far atoms", "outside of the cell")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SIMPLER else n for n in STRUCTURES]
)
def test_structures(lmp, name):
    model = save(lmp.folder / "model.pt", "2 layers, residual")
    atoms = STRUCTURES[name].copy()
    if name in BOUNDARIES:
        atoms.center(vacuum=5.0, axis=np.nonzero(~atoms.pbc)[0])
    atoms = oriented(atoms)
    write_data(lmp.folder, atoms, ELEMENTS)
    for boundary in BOUNDARIES.get(name, ["p p p"]):
        serial = lmp(deck(NAMES, boundary=boundary))
        assert_equal_to_ase(serial, atoms, model)
        assert_equal(lmp(deck(NAMES, boundary=boundary), ranks=2), serial)


SETUPS = {
    "newton off": {"newton": "off"},
    "tiled": {"setup": "comm_style tiled\nbalance 1.0 rcb"},
    "chunks": {"style": "device cpu chunk 300"},
    "brick grid": {"setup": "balance 0.9 shift xyz 5 1.0"},
    "long ghost shell": {"setup": "comm_modify cutoff 14"},
    "velocities of ghosts": {"setup": "comm_modify vel yes"},
}


# Where LAMMPS does something else to ghosts than by default.
OTHER_GHOSTS = ("brick grid", "long ghost shell", "velocities of ghosts")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n in OTHER_GHOSTS else n for n in SETUPS],
)
def test_setups(lmp, name):
    save(lmp.folder / "model.pt", "2 layers, residual")
    atoms = bulk("SiO", "zincblende", a=5.0, cubic=True) * 2  # comm_style tiled wants a large cell
    atoms.rattle(0.1, seed=3)
    write_data(lmp.folder, atoms, ELEMENTS)
    expected = lmp(deck(NAMES))
    for ranks in (1, 2):
        assert_equal(lmp(deck(NAMES, **SETUPS[name]), ranks=ranks), expected)


HYBRIDS = {
    "overlay": (
        "pair_style hybrid/overlay pet device cpu lj/cut 7.0\n"
        "pair_coeff * * pet model.pt Si O\npair_coeff * * lj/cut 0.01 2.0"
    ),
    "scaled": (
        "pair_style hybrid/scaled 0.5 pet device cpu 0.5 lj/cut 6.0\n"
        "pair_coeff * * pet model.pt Si O\npair_coeff * * lj/cut 0.01 2.0"
    ),
    "part": (
        "pair_style hybrid pet device cpu lj/cut 6.0\n"
        "pair_coeff * * pet model.pt Si NULL\npair_coeff 1 2 lj/cut 0.01 2.0\n"
        "pair_coeff 2 2 lj/cut 0.01 1.5"
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "scaled" else n for n in HYBRIDS]
)
def test_hybrid(lmp, name):
    save(lmp.folder / "model.pt", "2 layers, residual")
    atoms = crystal()
    write_data(lmp.folder, atoms, ELEMENTS)
    serial = lmp(deck(NAMES, pair=HYBRIDS[name]))
    assert_equal(lmp(deck(NAMES, pair=HYBRIDS[name]), ranks=2), serial)
    lj = "pair_style lj/cut 7.0\npair_coeff * * 0.01 2.0"
    if name == "overlay":
        sum_of_both = lmp(deck(NAMES)).energy + lmp(deck(NAMES, pair=lj)).energy
        assert serial.energy == pytest.approx(sum_of_both, abs=1e-9)
    if name == "part":
        silicon = atoms[[a.symbol == "Si" for a in atoms]]
        silicon.calc = PETCalculator(lmp.folder / "model.pt", device="cpu")
        pet_only = HYBRIDS[name].replace("lj/cut 0.01", "lj/cut 0.0")
        energy = lmp(deck(NAMES, pair=pet_only)).energy
        assert energy == pytest.approx(silicon.get_potential_energy(), abs=1e-9)


def test_real_units(lmp):
    model = save(lmp.folder / "model.pt", "2 layers, residual")
    atoms = crystal()
    write_data(lmp.folder, atoms, ELEMENTS)
    assert_equal_to_ase(lmp(deck(NAMES, units="real")), atoms, model, unit=23.060549)


def test_no_atoms(lmp):
    save(lmp.folder / "model.pt", "2 layers, residual")
    write_data(lmp.folder, crystal(), ELEMENTS)
    for ranks in (1, 2):
        found = lmp(deck(NAMES, setup="delete_atoms group all compress no"), ranks=ranks)
        assert found.energy == 0.0


def test_more_ranks_than_atoms(lmp):
    save(lmp.folder / "model.pt", "2 layers, residual")
    write_data(lmp.folder, STRUCTURES["two far atoms"], ELEMENTS)
    assert_equal(lmp(deck(NAMES), ranks=4, fresh=True), lmp(deck(NAMES)))


def test_a_ghost_shell_too_thin_is_noticed(lmp):
    """The negative control of the comparisons between ranks: they see a shell that is too thin."""
    save(lmp.folder / "model.pt", "2 layers, feedforward", claimed_cutoff=1.5)
    write_data(lmp.folder, crystal(3), ELEMENTS)
    serial, parallel = lmp(deck(NAMES)), lmp(deck(NAMES), ranks=2)
    with pytest.raises(AssertionError):
        assert_equal(parallel, serial)
