"""Simulations of `pet-mlip learn` in LAMMPS."""

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from model_tools import make_potential
from uncertainty_tools import with_uncertainty

from pet_mlip import PETCalculator
from pet_mlip.ase.md import MDSettings
from pet_mlip.errors import UserError
from pet_mlip.export import save_model
from pet_mlip.learn import lammps
from pet_mlip.learn.job import Job, read_outcome
from pet_mlip.learn.simulations import read_looks

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save_model(path, with_uncertainty(make_potential()), dtype="float64")
    return path


def job(folder, model, start, ensemble="nvt", temperature=100.0, **changes):
    settings = MDSettings(ensemble, temperature=temperature, pressure=1.0, timestep=0.2, seed=7)
    values = {"steps": 20, "interval": 5, "stop_above": 1e9, "max_force": 1e9, **changes}
    return Job(folder / "job", model, start, settings, **values)


def silicon():
    atoms = bulk("Si")  # neither at right angles nor as LAMMPS wants it
    atoms.rattle(0.05, seed=1)
    return atoms * (2, 1, 1)


@pytest.mark.parametrize(
    ("start", "ensemble"),
    [(molecule("CH3OH"), "nvt"), (molecule("CH3OH"), "nve"), (silicon(), "npt")],
)
def test_looks_have_what_the_model_says_of_them(tmp_path, model, start, ensemble):
    work = job(tmp_path, model, start, ensemble)
    lammps.run_job(work)
    looks = read_looks(work)
    assert read_outcome(work.folder).steps == 20
    assert [atoms.info["step"] for atoms in looks] == [0, 5, 10, 15, 20]
    names = ("energy", "forces", "forces_uncertainty", "energies_uncertainty")
    for atoms, found in zip(looks, PETCalculator(model).compute_batch(looks, names), strict=True):
        assert np.array_equal(atoms.numbers, start.numbers)
        assert np.array_equal(atoms.pbc, start.pbc)
        assert atoms.get_potential_energy() == pytest.approx(found["energy"], abs=1e-6)
        np.testing.assert_allclose(atoms.get_forces(), found["forces"], atol=1e-5)
        for name in names[2:]:
            np.testing.assert_allclose(atoms.arrays[name], found[name], rtol=1e-5)
    (first,) = PETCalculator(model).compute_batch([start], ["energy"])
    assert looks[0].get_potential_energy() == pytest.approx(first["energy"], abs=1e-6)
    assert looks[-1].get_potential_energy() != looks[0].get_potential_energy()
    if ensemble == "npt":
        assert looks[-1].get_volume() != looks[0].get_volume()


def test_a_simulation_stops_where_it_is_uncertain(tmp_path, model):
    work = job(tmp_path, model, molecule("CH3OH"), temperature=2000.0, steps=100)
    lammps.run_job(work)
    worst = [float(atoms.arrays["forces_uncertainty"].max()) for atoms in read_looks(work)]
    # Where it is above all that came before, which may be the start.
    expected = worst.index(max(worst))
    level = 0.5 * (max(worst[:expected], default=0.0) + worst[expected])
    again = job(tmp_path, model, molecule("CH3OH"), temperature=2000.0, steps=100, stop_above=level)
    lammps.run_job(again)
    outcome = read_outcome(again.folder)
    assert "a force is uncertain by" in outcome.stopped
    assert outcome.steps == 5 * expected
    assert len(read_looks(again)) == expected + 1


def test_what_lammps_cannot_hold_is_refused(tmp_path, model):
    slab = fcc111("Si", (1, 1, 2), a=4.0, vacuum=4.0, periodic=False, orthogonal=False)
    with pytest.raises(UserError, match="right angles"):
        lammps.run_job(job(tmp_path, model, slab))


def test_what_lammps_complains_of_is_told(tmp_path, model):
    with pytest.raises(UserError, match="LAMMPS ended: ERROR"):
        lammps.run_job(job(tmp_path, tmp_path / "nothing.pt", molecule("CH3OH")))
