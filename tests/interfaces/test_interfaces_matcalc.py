"""matcalc's calculators of properties on ours; in an environment with the extra `tools`."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from model_files import morse_energy, morse_model, small_potential
from scipy.optimize import minimize_scalar

from pet_mlip import PETCalculator
from pet_mlip.export import load_model, save_model

matcalc = pytest.importorskip("matcalc")
GPA = 160.21766208


@pytest.fixture
def copper():
    """The cell of least energy of the pair potential."""
    best = minimize_scalar(
        lambda a: morse_energy(bulk("Cu", "fcc", a=a)),
        bounds=(3.2, 4.0),
        method="bounded",
        options={"xatol": 1e-8},
    ).x
    return bulk("Cu", "fcc", a=best)


def bulk_modulus(copper):
    """V d2E/dV2 of the pair potential in GPa, summed over images without any neighbour list."""
    volume, step = copper.get_volume(), 2e-3

    def energy(change):
        cell = copper.copy()
        cell.set_cell(copper.cell * (1 + change) ** (1 / 3), scale_atoms=True)
        return morse_energy(cell)

    second = (energy(step) + energy(-step) - 2 * energy(0.0)) / step**2
    return second / volume * GPA


def test_elastic_constants_and_equation_of_state_have_the_bulk_modulus(copper):
    calculator = PETCalculator(morse_model())
    elastic = matcalc.ElasticityCalc(
        calculator,
        norm_strains=(-2e-3, 2e-3),
        shear_strains=(-2e-3, 2e-3),
        fmax=1e-4,
        units_GPa=True,
    ).calc(copper)
    expected = bulk_modulus(copper)
    assert elastic["bulk_modulus_vrh"] == pytest.approx(expected, rel=1e-2)
    tensor = np.array(elastic["elastic_tensor"].voigt)
    assert np.ptp(np.diag(tensor)[:3]) < 1e-3
    assert np.ptp(np.diag(tensor)[3:]) < 1e-3
    found = matcalc.EOSCalc(calculator, fmax=1e-4, max_abs_strain=0.01).calc(copper)
    assert found["bulk_modulus_bm"] == pytest.approx(expected, rel=1e-2)


def test_relaxations_and_phonons_find_the_crystal(copper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calculator = PETCalculator(morse_model())
    strained = copper.copy()
    strained.set_cell(copper.cell * 1.02, scale_atoms=True)
    relaxed = matcalc.RelaxCalc(calculator, fmax=1e-5).calc(strained)
    assert relaxed["final_structure"].volume == pytest.approx(copper.get_volume(), rel=1e-4)
    found = matcalc.PhononCalc(
        calculator, fmax=1e-4, min_length=8.0, t_max=300, write_phonon=False
    ).calc(copper)
    assert not any((tmp_path).glob("*.yaml"))
    # Dulong and Petit, nearly: 3 R is 24.9 J/mol/K.
    assert 22.0 < found["thermal_properties"]["heat_capacity"][-1] < 24.95


def test_dynamics_conserve_the_energy(copper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = copper.repeat(3)
    found = matcalc.MDCalc(
        PETCalculator(morse_model()), ensemble="nve", steps=50, fmax=1e-3, frames=50
    ).calc(cell)
    frames = found["trajectory"]
    assert np.ptp([atoms.get_kinetic_energy() for atoms in frames]) > 1e-2 * len(cell)
    assert np.ptp([atoms.get_total_energy() for atoms in frames]) < 1e-4 * len(cell)


def test_a_vacancy_moves_over_a_symmetric_barrier(copper, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = bulk("Cu", "fcc", a=copper.cell.lengths()[0] * 2**0.5, cubic=True).repeat(2)
    neighbour = int(cell.get_distances(0, range(1, len(cell)), mic=True).argmin()) + 1
    start, end = cell.copy(), cell.copy()
    end.positions[neighbour] = cell.positions[0]
    del start[0], end[0]
    neb = matcalc.NEBCalc(PETCalculator(morse_model()), fmax=0.02)
    first, last = neb.calc_endpoints(start, end)
    found = neb.calc_images(first["final_structure"], last["final_structure"], n_images=3)
    assert found["barrier"] > 0.1
    assert abs(found["reaction_energy"]) < 1e-3


def test_symmetric_elastic_constants_are_equal_with_random_weights(tmp_path):
    """Of a model without any training: equal by symmetry, not because they were learned."""
    save_model(tmp_path / "model.pt", small_potential(zbl=True))
    calculator = PETCalculator(load_model(tmp_path / "model.pt", dtype="float64"))
    found = matcalc.ElasticityCalc(calculator, relax_structure=False, units_GPa=True).calc(
        Atoms(bulk("C", "diamond", a=3.4, cubic=True))
    )
    tensor = np.array(found["elastic_tensor"].voigt)
    size = np.abs(tensor).max()
    assert np.ptp(np.diag(tensor)[:3]) < 1e-6 * size
    assert np.ptp(tensor[[0, 0, 1], [1, 2, 2]]) < 1e-6 * size
