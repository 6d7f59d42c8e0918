"""Molecular dynamics: continued from any saved state, it repeats itself bit for bit."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import read

from pet_mlip import PETCalculator
from pet_mlip.ase.md import BAR, MDSettings, Simulation, read_settings, write_settings
from pet_mlip.ase.recording import Recorder, check_same
from pet_mlip.errors import UserError

# A random PET is rough: a cold and short simulation stays where it is well behaved.
COLD = {"temperature": 50.0, "timestep": 0.2, "seed": 3}


def crystal(calculator):
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.02)
    atoms.calc = calculator
    return atoms


def ethanol(calculator):
    atoms = molecule("CH3CH2OH")
    atoms.calc = calculator
    return atoms


def state(simulation):
    atoms = simulation.atoms
    return atoms.positions.copy(), atoms.get_momenta(), atoms.cell.array.copy()


def assert_identical(a, b):
    for x, y in zip(a, b, strict=True):
        assert np.array_equal(x, y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (ethanol, {"ensemble": "nve"}),
        (ethanol, {"ensemble": "nvt"}),
        (crystal, {"ensemble": "nve"}),
        (crystal, {"ensemble": "npt", "pressure": 1000.0}),
        (crystal, {"ensemble": "npt", "flexible": True}),
    ],
)
def test_restart_is_bitwise(model_file, tmp_path, dtype, make, options):
    settings = MDSettings(**COLD, **options)
    whole = Simulation(make(PETCalculator(model_file, dtype=dtype)), settings)
    whole.advance(5)
    whole.save(tmp_path / "state.npz", note="kept")
    whole.advance(5)

    again = Simulation(make(PETCalculator(model_file, dtype=dtype, skin=0.2)), settings)
    assert again.restore(tmp_path / "state.npz") == {"note": "kept"}
    assert again.step == 5
    again.advance(5)
    assert_identical(state(again), state(whole))
    assert again.observe() == whole.observe()


def test_nve_conserves_energy_to_second_order_in_the_time_step(morse):
    """The error of velocity Verlet is quadratic; a force that is no derivative would not be."""

    def spread(timestep):
        atoms = bulk("Cu", "fcc", a=3.5, cubic=True)
        atoms.calc = morse
        settings = MDSettings("nve", temperature=200.0, timestep=timestep, seed=1)
        simulation = Simulation(atoms, settings)
        energies = []
        for _ in range(int(200 / timestep)):
            simulation.advance(1)
            energies.append(simulation.observe()["total"])
        return np.std(energies)

    assert spread(2.0) / spread(1.0) == pytest.approx(4.0, rel=0.3)


@pytest.mark.slow
def test_nvt_reaches_its_temperature(morse):
    atoms = bulk("Cu", "fcc", a=3.5, cubic=True)
    atoms.calc = morse
    simulation = Simulation(atoms, MDSettings("nvt", 300.0, timestep=4.0, damping=30.0))
    temperatures = []
    for _ in range(1000):
        simulation.advance(1)
        temperatures.append(simulation.observe()["temperature"])
    # The mean of a few hundred independent samples of 12 degrees of freedom.
    assert np.mean(temperatures[200:]) == pytest.approx(300.0, rel=0.15)


@pytest.mark.parametrize("flexible", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_npt_reaches_its_pressure(morse, flexible):
    pressure = 50_000.0
    atoms = bulk("Cu", "fcc", a=3.5, cubic=True)
    atoms.calc = morse
    settings = MDSettings(
        "npt", 50.0, pressure, timestep=4.0, damping=50.0, pressure_damping=300.0, flexible=flexible
    )
    simulation = Simulation(atoms, settings)
    pressures = []
    for _ in range(800):
        simulation.advance(1)
        pressures.append(simulation.observe()["pressure"])
    assert np.mean(pressures[200:]) == pytest.approx(pressure, rel=0.1)
    is_cubic = np.allclose(atoms.cell.array, atoms.cell.array[0, 0] * np.eye(3), atol=1e-9)
    assert is_cubic != flexible


def test_observations_are_in_the_stated_units(morse):
    atoms = crystal(morse)
    simulation = Simulation(atoms, MDSettings("nve", 300.0))
    line = simulation.observe()
    stress = atoms.get_stress(include_ideal_gas=True)
    assert line["pressure"] == pytest.approx(-stress[:3].mean() / BAR)
    assert line["total"] == line["potential"] + line["kinetic"]
    assert "pressure" not in Simulation(ethanol(morse), MDSettings("nve")).observe()


@pytest.mark.parametrize("name", ["CH3CH2OH", "CO2", "H2"])
def test_drawn_velocities_have_no_drift_and_no_rotation(morse, name):
    atoms = molecule(name)
    atoms.calc = morse
    Simulation(atoms, MDSettings("nve", 300.0))
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12
    assert np.abs(atoms.get_angular_momentum()).max() < 1e-10
    assert atoms.get_kinetic_energy() > 0


def test_zero_temperature_is_rest(morse):
    atoms = Simulation(ethanol(morse), MDSettings("nve", 0.0)).atoms
    assert np.array_equal(atoms.get_momenta(), np.zeros((9, 3)))


def test_momenta_of_the_structure_are_kept(morse):
    atoms = ethanol(morse)
    momenta = np.random.default_rng(0).normal(size=(9, 3))
    atoms.set_momenta(momenta)
    assert np.array_equal(Simulation(atoms, MDSettings("nvt")).atoms.get_momenta(), momenta)


@pytest.mark.parametrize("ensemble", ["nve", "nvt"])
def test_fixed_atoms_stay(morse, ensemble):
    atoms = ethanol(morse)
    atoms.set_constraint(FixAtoms([0, 1]))
    before = atoms.positions.copy()
    Simulation(atoms, MDSettings(ensemble, 100.0, timestep=0.1)).advance(3)
    assert np.array_equal(atoms.positions[:2], before[:2])
    assert not np.array_equal(atoms.positions[2:], before[2:])


def test_one_atom(morse):
    atoms = Atoms("H")
    atoms.calc = morse
    simulation = Simulation(atoms, MDSettings("nve"))
    simulation.advance(2)
    assert simulation.observe()["potential"] == 0.0


@pytest.mark.parametrize("atoms", [molecule("H2O"), Atoms("Si", cell=[3, 3, 9], pbc=[1, 1, 0])])
def test_npt_needs_a_crystal(morse, atoms):
    atoms.calc = morse
    with pytest.raises(UserError, match="periodic in all three"):
        Simulation(atoms, MDSettings("npt"))


@pytest.mark.parametrize(
    "wrong", [{"ensemble": "nvp"}, {"timestep": 0.0}, {"damping": -1.0}, {"temperature": -1.0}]
)
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        MDSettings(**wrong)


def test_settings_survive_a_file(tmp_path):
    settings = MDSettings("npt", 123.0, flexible=True)
    write_settings(tmp_path / "s.json", settings)
    assert read_settings(tmp_path / "s.json") == settings


@pytest.mark.parametrize("content", [None, "{", '{"speed": 1}'])
def test_damaged_settings(tmp_path, content):
    if content is not None:
        (tmp_path / "s.json").write_text(content)
    with pytest.raises(UserError, match=r"s\.json"):
        read_settings(tmp_path / "s.json")


def test_damaged_states(morse, tmp_path):
    simulation = Simulation(ethanol(morse), MDSettings("nve"))
    path = tmp_path / "state.npz"
    with pytest.raises(UserError, match="no saved state"):
        simulation.restore(path)
    simulation.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        simulation.restore(path)
    Simulation(crystal(morse), MDSettings("nve")).save(path)
    with pytest.raises(UserError, match="another structure"):
        simulation.restore(path)


def record(folder, calculator, steps, kill_after=None, resume=False):
    """Simulate with states every 6 steps; a killed run leaves what it wrote after the last."""
    simulation = Simulation(ethanol(calculator), MDSettings("nvt", **COLD))
    with Recorder(folder, simulation, interval=2) as recorder:
        recorder.resume() if resume else recorder.start()
        while simulation.step < steps:
            simulation.advance(1)
            if simulation.step % 2 == 0:
                recorder.record()
            if simulation.step == kill_after:
                return
            if simulation.step % 6 == 0:
                recorder.save()
        recorder.save()


@pytest.fixture(scope="module")
def whole(model_file, tmp_path_factory):
    """Folder of a simulation that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    record(folder, PETCalculator(model_file), 16)
    return folder


@pytest.mark.parametrize("kill_after", [3, 6, 11])
def test_a_killed_simulation_continues_to_the_same_files(model_file, whole, tmp_path, kill_after):
    killed = tmp_path
    record(killed, PETCalculator(model_file), 16, kill_after)
    record(killed, PETCalculator(model_file), 16, resume=True)
    for name in ("trajectory.xyz", "thermo.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    frames = read(whole / "trajectory.xyz", ":")
    assert [frame.info["step"] for frame in frames] == list(range(0, 17, 2))
    assert frames[-1].has("momenta")
    assert frames[-1].get_forces().shape == (9, 3)


def test_other_settings_cannot_be_continued(model_file, tmp_path):
    record(tmp_path, PETCalculator(model_file), 2)
    assert check_same(tmp_path, {"ensemble": "nvt", "seed": None}).timestep == 0.2
    with pytest.raises(UserError, match=r"timestep = 0.2.* with 1.0"):
        check_same(tmp_path, {"timestep": 1.0})
