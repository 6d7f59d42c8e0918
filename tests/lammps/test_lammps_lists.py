"""What changes while LAMMPS keeps its neighbour list, or is left out of it, is noticed at once."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from lammps_models import ELEMENTS, save, small_potential
from simulation import Lammps, deck, oriented, write_data
from test_lammps_physics import assert_equal, assert_equal_to_ase, crystal

from pet_mlip import PETCalculator
from pet_mlip.export import save_model
from pet_mlip.lammps.library import import_class

NAMES = " ".join(ELEMENTS)


@pytest.fixture(scope="module")
def lmp(plugin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lists")
    save(folder / "model.pt", "2 layers, residual")
    write_data(folder, crystal(3), ELEMENTS)
    return Lammps(plugin, folder)


def energies(found):
    return [row["PotEng"] for row in found.thermo]


# Each ends with a new set-up of the same atoms.
CHANGES_OF_TYPE = {
    "set between runs": 'run 4 pre no every 2 "set atom 1*9 type 2" "set atom 5 type 1"\nrun 0',
    "fix set": (
        "variable t atom (id<20)*(step>2)+1\nfix s all set 2 0 group all type v_t\n"
        "run 5 post no\nunfix s\nrun 0"
    ),
    "fix atom/swap": "fix s all atom/swap 1 6 94 900 ke no types 1 2\nrun 5\nunfix s\nrun 0",
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", CHANGES_OF_TYPE)
def test_types_that_change_between_lists(lmp, name, ranks):
    setup = "neigh_modify every 100 delay 100 check no"
    run = f"thermo 1\nrun 0\n{CHANGES_OF_TYPE[name]}"
    found = lmp(deck(NAMES, setup=setup, run=run), ranks=ranks)
    first, before, after = found.energy, energies(found)[-2], energies(found)[-1]
    assert after == pytest.approx(before, abs=1e-9)
    # They changed.
    assert abs(energies(found)[0] - after) > 0.05
    assert first == after


def test_types_of_ghosts_follow_on_other_ranks(lmp):
    run = "run 0\nset type 1 type 2\nset atom 7 type 1\ndump_modify d every 1\nrun 1 pre no"
    one, two = lmp(deck(NAMES, run=run)), lmp(deck(NAMES, run=run), ranks=2)
    assert_equal(two, one)
    before = lmp(deck(NAMES, run="run 0"))
    assert abs(before.energy - one.energy) > 1.0


HYBRID = (
    "pair_style hybrid pet device cpu lj/cut 6.0\npair_coeff * * pet model.pt Si NULL\n"
    "pair_coeff 1 2 lj/cut 0.01 2.0\npair_coeff 2 2 lj/cut 0.01 1.5"
)


@pytest.mark.parametrize("types", ["1 type 2", "54 type 1"])
def test_types_that_change_between_styles_are_refused(lmp, types):
    change = f"run 0\nset atom {types}\nthermo 1\n"
    message = lmp.fails(deck(NAMES, pair=HYBRID, run=f"{change}run 1 pre no"))
    assert "which other styles of the hybrid handle, while the neighbour lists stayed" in message
    assert "neigh_modify every 1 delay 0 check no" in message
    # New lists are right.
    lmp(deck(NAMES, pair=HYBRID, run=f"{change}run 0"))


@pytest.mark.parametrize("between", ["", "write_data b.data", "run 1 pre no"])
def test_what_was_refused_is_refused_again(lmp, plugin, monkeypatch, between):
    """Lists stay wrong after an error that a script catches, and after commands that set up."""
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", str(plugin))
    monkeypatch.chdir(lmp.folder)
    found = import_class()(cmdargs=["-screen", "none", "-log", "none"])
    try:
        found.commands_string(f"units metal\natom_style atomic\nread_data a.data\n{HYBRID}\nrun 0")
        found.command("set atom 1 type 2")
        if between.startswith("run"):
            with pytest.raises(Exception, match="changed from type 1 to 2"):
                found.command(between)
        elif between:
            found.command(between)
        for _ in range(2):
            with pytest.raises(Exception, match="changed from type 1 to 2"):
                found.command("run 1 pre no")
        # Back again, the lists are right.
        found.commands_string("set atom 1 type 1\nrun 1 pre no")
        found.commands_string("set atom 1 type 2\nrun 0")
    finally:
        found.close()


def test_types_that_change_within_a_style_of_a_hybrid(lmp):
    hybrid = (
        "pair_style hybrid/overlay pet device cpu lj/cut 6.0\npair_coeff * * pet model.pt Si O\n"
        "pair_coeff 2 2 lj/cut 0.0 1.5"
    )
    run = "run 0\nset atom 1*9 type 2\nthermo 1\nrun 1 pre no\nrun 0"
    found = energies(lmp(deck(NAMES, pair=hybrid, run=run)))
    assert found[-2] == pytest.approx(found[-1], abs=1e-9)
    assert abs(found[0] - found[-1]) > 1.0


def test_atoms_whose_pairs_other_styles_have_taken(lmp):
    """They belong to the other style, as if their element were NULL."""
    taken = HYBRID.replace("Si NULL", "Si O")
    assert lmp(deck(NAMES, pair=taken)).energy == lmp(deck(NAMES, pair=HYBRID)).energy


def molecules() -> Atoms:
    """Two molecules of three atoms, far from each other."""
    one = Atoms("SiOO", [(0, 0, 0), (1.6, 0, 0), (-0.4, 1.5, 0)])
    other = one.copy()
    other.translate((12, 1, 2))
    both = one + other
    both.set_cell([24, 14, 14])
    both.pbc = True
    both.translate((5, 5, 5))
    return both


# Rules under which atoms 4, 5 and 6 have no neighbours but, in some, each other.
OUT = {
    "a group from all": "group out id 4 5 6\nneigh_modify exclude group out all",
    "all from a group": "group out id 4 5 6\nneigh_modify exclude group all out",
    "from two groups": (
        "group out id 4 5 6\ngroup rest subtract all out\nneigh_modify exclude group out rest\n"
        "neigh_modify exclude group out out"
    ),
    "by types": (
        "set atom 4*6 type 3\nneigh_modify exclude type 3 1\nneigh_modify exclude type 3 2\n"
        "neigh_modify exclude type 3 3"
    ),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", OUT)
def test_atoms_excluded_from_all_others_do_not_exist(plugin, tmp_path, name, ranks):
    lmp = Lammps(plugin, tmp_path)
    model = save(tmp_path / "model.pt", "2 layers, residual")
    atoms = oriented(molecules())
    write_data(tmp_path, atoms, [*ELEMENTS, "Si"][: 3 if name == "by types" else 2])
    # A third type is made for the atoms that leave.
    data = (tmp_path / "a.data").read_text()
    if name == "by types":
        write_data(tmp_path, atoms, [*ELEMENTS, "C"])
        data = (tmp_path / "a.data").read_text()
    assert data
    elements = "Si O Si" if name == "by types" else NAMES
    found = lmp(deck(elements, setup=OUT[name]), ranks=ranks)
    atoms.calc = PETCalculator(model, device="cpu")
    left = atoms[:3]
    left.calc = atoms.calc
    assert found.energy == pytest.approx(left.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(found.forces[:3], left.get_forces(), rtol=0, atol=1e-10)
    assert not found.forces[3:].any()
    assert not found.atomic_energies[3:].any()
    assert not found.virials[3:].any()


MOLECULES = """units metal
atom_style bond
atom_modify map yes
region box block 0 20 0 10 0 10
create_box 2 box
create_atoms 1 single 5 5 5
create_atoms 2 single 6.5 5 5
create_atoms 2 single 5.3 6.5 5
create_atoms 1 single 4 4 5
mass * 28
set atom 1*2 mol 1
set atom 3*4 mol 2
special_bonds lj/coul 1 1 1
{pair}
{setup}
thermo_style custom step pe
thermo_modify format float %22.15g
thermo 1
{run}
"""
PAIR = "pair_style pet device cpu\npair_coeff * * model.pt Si O"
SWAPS = "fix s all mol/swap 1 6 1 2 94 9e6 ke no\nrun 3\nunfix s\nrun 0"


@pytest.mark.parametrize("ranks", [1, 2])
def test_swaps_between_styles_are_refused_where_lists_stay(lmp, ranks):
    """`fix mol/swap` builds lists before its swaps, and for each of them if cutoffs differ."""
    same = MOLECULES.format(pair=HYBRID.replace("6.0", "3.4"), setup="", run=SWAPS)
    message = lmp.fails(same, ranks=ranks)
    assert "which other styles of the hybrid handle, while the neighbour lists stayed" in message
    assert "another cutoff" in message
    found = lmp(MOLECULES.format(pair=HYBRID, setup="", run=f"run 0\n{SWAPS}"), ranks=ranks)
    assert energies(found)[-1] == pytest.approx(energies(found)[-2], abs=1e-9)
    assert np.ptp(energies(found)) > 1e-3


# A set-up, and what happens between lists.
STALE = {
    "type": ("neigh_modify exclude type 1 1", "set atom 1 type 2", "atom 1 changed"),
    "group": (
        "group out id 1\nneigh_modify exclude group out all",
        "group out id 3",
        "atom 3 changed",
    ),
    "group cleared": (
        "group out id 1\nneigh_modify exclude group out out\nneigh_modify exclude group out all",
        "group out clear",
        "atom 1 changed",
    ),
    "molecule": ("neigh_modify exclude molecule/intra all", "set atom 3 mol 1", "atom 3 changed"),
    "group of molecules": (
        "group some id 1 2\nneigh_modify exclude molecule/intra some",
        "group some id 3 4",
        "changed its type, group or molecule",
    ),
    "rules": ("", "neigh_modify exclude type 1 1", "neigh_modify exclude changed"),
    "no rules": (
        "neigh_modify exclude type 1 2",
        "neigh_modify exclude none",
        "neigh_modify exclude changed",
    ),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", STALE)
def test_exclusions_that_change_while_lists_stay_are_refused(lmp, name, ranks):
    setup, change, words = STALE[name]
    run = f"run 0\n{change}\n{{}}"
    again = MOLECULES.format(pair=PAIR, setup=setup, run=run)
    message = lmp.fails(again.format("run 1 pre no"), ranks=ranks)
    assert words in message and "left out of the neighbour lists" in message
    assert "neigh_modify every 1 delay 0 check no" in message
    # New lists are right.
    lmp(again.format("run 0"), ranks=ranks)


@pytest.mark.parametrize("swap", ["atom", "mol"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_swaps_of_excluded_types_are_refused_where_lists_stay(lmp, ranks, swap):
    run = SWAPS if swap == "mol" else "fix s all atom/swap 1 6 94 900 ke no types 1 2\nrun 3"
    text = MOLECULES.format(pair=PAIR, setup="neigh_modify exclude type 1 1", run=run)
    assert "left out of the neighbour lists" in lmp.fails(text, ranks=ranks)


# What does not change which pairs are excluded.
HARMLESS = {
    "another group": ("neigh_modify exclude type 1 1", "group other id 1 3"),
    "other types": ("neigh_modify exclude type 3 3", "set atom 1 type 2"),
    "same type": (
        "neigh_modify exclude type 1 3\nneigh_modify exclude type 2 3",
        "set atom 2*3 type 1",
    ),
    "other molecules": (
        "group some id 1 2\nneigh_modify exclude molecule/intra some",
        "set atom 4 mol 1",
    ),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", HARMLESS)
def test_changes_that_leave_exclusions_as_they_are(lmp, name, ranks):
    setup, change = HARMLESS[name]
    three = MOLECULES.replace("create_box 2", "create_box 3")
    text = three.format(pair=f"{PAIR} Si", setup=setup, run=f"run 0\n{change}\nrun 1 pre no\nrun 0")
    found = energies(lmp(text, ranks=ranks))
    assert found[-2] == pytest.approx(found[-1], abs=1e-9)


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_atom_excluded_from_all_but_its_images(plugin, tmp_path, ranks):
    """It exists if it sees images of itself, even if it is the only one of its kind."""
    lmp = Lammps(plugin, tmp_path)
    model = save(tmp_path / "model.pt", "2 layers, residual")
    setup = "group out id 2\ngroup rest subtract all out\nneigh_modify exclude group out rest"
    for edge in (3.3, 3.5):
        atoms = Atoms("SiOO", [(0.1, 0.2, 0.3), (1.7, 1.8, 1.5), (0.2, 1.9, 0.1)], pbc=True)
        atoms.set_cell([[edge, 0, 0], [1.2, 3.6, 0], [0.3, 0.4, 3.7]])
        atoms = oriented(atoms)
        write_data(tmp_path, atoms, ELEMENTS)
        found = lmp(deck(NAMES, setup=setup), ranks=ranks)
        calculator = PETCalculator(model, device="cpu")
        parts = [atoms[[0, 2]], atoms[[1]]][: 2 if edge < 3.4 else 1]
        expected = 0.0
        for part in parts:
            part.calc = calculator
            expected += part.get_potential_energy()
        assert found.energy == pytest.approx(expected, abs=1e-9)


def test_some_exclusions_change_energies_with_a_warning(lmp):
    found = lmp(deck(NAMES, setup="neigh_modify exclude type 1 1", run="run 0\nrun 0"))
    assert found.log.count("neigh_modify exclude is in force for atoms of this style") == 1
    assert abs(found.energy - lmp(deck(NAMES)).energy) > 0.01
    # Not where they concern other styles' atoms.
    hybrid = lmp(deck(NAMES, pair=HYBRID, setup="neigh_modify exclude type 2 2"))
    assert "neigh_modify exclude is in force" not in hybrid.log


GCMC = """units metal
atom_style full
atom_modify map yes
region box block 0 30 0 30 0 30
create_box 2 box
mass 1 28
mass 2 16
pair_style pet device cpu
pair_coeff * * model.pt Si O
special_bonds lj/coul 1 1 1
molecule m m.txt
create_atoms 0 random 3 77 box mol m 99
group m union all
fix g m gcmc 1 20 0 0 8812 800 {mu} 0 mol m full_energy tfac_insert 1.0
thermo_style custom step atoms pe f_g[6]
thermo_modify format float %22.15g
thermo 1
dump d all custom 1 g.dump id type xu yu zu
dump_modify d sort id format float %22.15g
run 8
unfix g
thermo_style custom step atoms pe
thermo_modify format float %22.15g
run 0
"""
MOLECULE = """two atoms

2 atoms

Coords

1 0 0 0
2 1.5 0.2 0

Types

1 1
2 2
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_grand_canonical_insertions_and_deletions(plugin, tmp_path, ranks):
    """Energies that `fix gcmc` adds up are those of the atoms that are there."""
    lmp = Lammps(plugin, tmp_path)
    model = tmp_path / "model.pt"
    potential = small_potential("2 layers, residual")
    # The activity is the exponential of a chemical potential that is counted from free atoms.
    potential.set_baseline({8: 0.0, 14: 0.0}, 2.0)
    save_model(model, potential, dtype="float64")
    (tmp_path / "m.txt").write_text(MOLECULE)
    pair = Atoms("SiO", [(0, 0, 0), (1.5, 0.2, 0)])
    pair.calc = PETCalculator(model, device="cpu")
    energy = pair.get_potential_energy()
    # About as probable as deletions are, in an ideal gas of three.
    found = lmp(GCMC.format(mu=energy - 1.12), ranks=ranks)
    counts = [row["Atoms"] for row in found.thermo]
    assert len(set(counts)) > 1
    assert sum(row.get("f_g[6]", 0) for row in found.thermo) > 0  # deletions succeeded
    assert "neigh_modify exclude is in force" not in found.log
    assert len(found.dumps) > 8
    # Where molecules are put, and whether they see each other, differs between releases of LAMMPS.
    for row, table in zip(found.thermo, found.dumps, strict=False):
        assert len(table) == row["Atoms"]
        symbols = [ELEMENTS[int(kind) - 1] for kind in table[:, 1]] if len(table) else []
        positions = table[:, 2:5] if len(table) else []
        atoms = Atoms(symbols, positions, cell=[30, 30, 30], pbc=True, calculator=pair.calc)
        assert row["PotEng"] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
    assert found.thermo[-2]["PotEng"] == pytest.approx(found.energy, abs=1e-9)


NUMERICAL = {
    "numdiff/virial": (
        "fix n all numdiff/virial 1 1e-4",
        "f_n[1] f_n[2] f_n[3] f_n[4] f_n[5] f_n[6]",
    ),
    "born/matrix": (
        "compute press all pressure NULL virial\ncompute b all born/matrix numdiff 1e-4 press",
        "c_b[1] c_b[2] c_b[7] c_b[4]",
    ),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", NUMERICAL)
def test_ghosts_may_be_displaced(lmp, name, ranks):
    """LAMMPS strains a box by moving atoms and ghosts: numerical virials and elastic constants."""
    setup, columns = NUMERICAL[name]
    custom = f"thermo_style custom step pe pxx pyy pzz pyz pxz pxy {columns}"
    run = f"{setup}\n{custom}\nthermo_modify format float %22.15g\nrun 0"
    last = lmp(deck(NAMES, run=run), ranks=ranks).thermo[-1]
    if name == "numdiff/virial":
        expected = np.array([last[k] for k in ("Pxx", "Pyy", "Pzz", "Pyz", "Pxz", "Pxy")])
        found = np.array([last[f"f_n[{k}]"] for k in range(1, 7)])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        return
    # Derivatives of the virial by strains of the box itself.
    found = last["c_b[1]"]
    assert np.isfinite(found)
    other = lmp(deck(NAMES, run=run), ranks=3 - ranks).thermo[-1]
    for key in ("c_b[1]", "c_b[2]", "c_b[7]", "c_b[4]"):
        assert last[key] == pytest.approx(other[key], rel=1e-5, abs=1e-4)


def test_forces_by_differences(lmp):
    """`fix numdiff` displaces one atom and its images at a time."""
    atoms = bulk("SiO", "zincblende", a=5.0)
    atoms.rattle(0.1, seed=3)
    write_data(lmp.folder, oriented(atoms), ELEMENTS)
    run = (
        "fix n all numdiff 1 1e-4\ndump n all custom 1 a.dump id xu yu zu fx fy fz f_n[*]\n"
        "undump d\ndump_modify n sort id format float %22.15g\nrun 0"
    )
    table = lmp(deck(NAMES, run=run)).dumps[-1]
    write_data(lmp.folder, crystal(3), ELEMENTS)
    np.testing.assert_allclose(table[:, 7:10], table[:, 4:7], rtol=0, atol=1e-5)


def test_ids_given_twice_are_refused(lmp):
    text = (lmp.folder / "a.data").read_text()
    head, _, rows = text.partition("Atoms # atomic\n\n")
    lines = rows.splitlines()
    words = lines[3].split()
    lines[3] = " ".join([lines[2].split()[0], *words[1:]])
    (lmp.folder / "twice.data").write_text(head + "Atoms # atomic\n\n" + "\n".join(lines) + "\n")
    message = lmp.fails(deck(NAMES, read="read_data twice.data"))
    assert "is given twice" in message and "reset_atoms id" in message


def test_the_box_may_be_smaller_than_the_cutoff_while_types_change(plugin, tmp_path):
    lmp = Lammps(plugin, tmp_path)
    model = save(tmp_path / "model.pt", "2 layers, residual")
    atoms = bulk("SiO", "zincblende", a=4.2)
    atoms.rattle(0.05, seed=1)
    atoms = oriented(atoms)
    write_data(tmp_path, atoms, ELEMENTS)
    found = lmp(
        deck(NAMES, run="run 0\nset atom 1 type 2\ndump_modify d every 1\nthermo 1\nrun 1 pre no")
    )
    atoms.symbols[0] = "O"
    assert_equal_to_ase(found, atoms, model)
