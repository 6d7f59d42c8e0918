"""The heat flux of LAMMPS is the flow of the atomic energies."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from lammps_models import ELEMENTS, MODELS, save
from simulation import BAR, Lammps, deck, oriented, write_data

from pet_mlip import PETCalculator

NAMES = " ".join(ELEMENTS)
# xx yy zz xy xz yz yx zx zy
ORDER = ([0, 1, 2, 0, 0, 1, 1, 2, 2], [0, 1, 2, 1, 2, 2, 0, 0, 1])


@pytest.fixture
def lmp(plugin, tmp_path):
    return Lammps(plugin, tmp_path)


def cluster() -> Atoms:
    """18 atoms without periodicity."""
    atoms = bulk("SiO", "zincblende", a=4.6) * (3, 3, 1)
    atoms.rattle(0.1, seed=1)
    atoms.pbc = False
    atoms.set_cell(30 * np.eye(3))
    atoms.center()
    return atoms


FLUX = """velocity all create 3000 4928
fix nve all nve
timestep 1e-6
compute ke all ke/atom
compute hf all heat/flux ke pe cst
dump e all custom 1 e.dump id xu yu zu vx vy vz c_ke c_pe
dump_modify e sort id format float %22.15g
thermo_style custom step c_hf[1] c_hf[2] c_hf[3] pe
thermo_modify format float %22.15g
thermo 1
undump d
"""


@pytest.mark.parametrize(
    ("name", "ranks"),
    [*((name, 1) for name in MODELS), ("2 layers, residual", 2), ("adaptive cutoffs", 2)],
)
def test_of_a_cluster(lmp, name, ranks):
    """J = d/dt sum_i r_i e_i along a short trajectory."""
    save(lmp.folder / "model.pt", name)
    write_data(lmp.folder, cluster(), ELEMENTS)

    found = lmp(deck(NAMES, boundary="f f f", run=f"{FLUX}run 2"), ranks=ranks)
    before, _, after = found.dumps
    moments = [d[:, 1:4].T @ (d[:, 7] + d[:, 8]) for d in (before, after)]
    expected = (moments[1] - moments[0]) / 2e-6
    flow = np.array([found.thermo[1][f"c_hf[{k}]"] for k in (1, 2, 3)])
    # LAMMPS' units of energy round kinetic energies in the eighth place.
    np.testing.assert_allclose(flow, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def moments_by_differences(model, atoms: Atoms, repeat, which) -> np.ndarray:
    """sum_k (r_k - r_j) (x) dE_k/dr_j of some atoms j, (len(which), 3, 3).

    One of the images of j moves in a supercell so large that each atom feels it once.
    """
    large, step = atoms * repeat, 1e-4
    large.calc = PETCalculator(model, device="cpu")
    result = []
    for j in which:
        offsets = large.get_distances(j, range(len(large)), mic=True, vector=True)
        derivative = np.zeros((len(large), 3))
        for b in range(3):
            for sign in (1, -1):
                moved = large.copy()
                moved.calc = large.calc
                moved.positions[j, b] += sign * step
                derivative[:, b] += sign * moved.get_potential_energies() / (2 * step)
        result.append(offsets.T @ derivative)
    return np.array(result)


PERIODIC = {
    "plain": (3, [0, 1]),
    "2 layers, residual": (5, [0, 1]),
    "2 layers, feedforward": (7, [1]),
    "adaptive cutoffs": (5, [0, 1]),
    "3 layers": (7, [0]),
}


@pytest.mark.parametrize("name", PERIODIC)
def test_centroid_virials_of_a_cell_smaller_than_the_range(lmp, name):
    """Every image of an atom counts where it is; on one rank as on several, newton on or off."""
    repeat, which = PERIODIC[name]
    model = save(lmp.folder / "model.pt", name)
    atoms = bulk("SiO", "zincblende", a=4.6)
    atoms.rattle(0.1, seed=1)
    atoms = oriented(atoms)
    write_data(lmp.folder, atoms, ELEMENTS)
    expected = moments_by_differences(model, atoms, (repeat,) * 3, which)[:, ORDER[0], ORDER[1]]
    for ranks, newton in ((1, "on"), (1, "off"), (2, "on"), (2, "off")):
        found = lmp(deck(NAMES, newton=newton), ranks=ranks).centroid_virials / -BAR
        np.testing.assert_allclose(
            found[which], expected, rtol=0, atol=1e-6 * np.abs(expected).max()
        )


def test_asking_for_the_heat_flux_does_not_change_the_trajectory(lmp):
    save(lmp.folder / "model.pt", "2 layers, residual", "float32")
    write_data(lmp.folder, bulk("SiO", "zincblende", a=4.6) * (2, 2, 1), ELEMENTS)
    run = "velocity all create 900 4928\nfix nve all nve\nundump d\nthermo 1\nrun 6"
    plain = lmp(deck(NAMES, run=run))
    flux = (
        "compute ke all ke/atom\ncompute hf all heat/flux ke pe cst\nfix f all ave/time 2 1 2 c_hf"
    )
    asked = lmp(deck(NAMES, run=f"{flux}[*] file flux.txt\n{run}"))
    assert [row["PotEng"] for row in asked.thermo] == [row["PotEng"] for row in plain.thermo]
    assert len((lmp.folder / "flux.txt").read_text().splitlines()) == 6
