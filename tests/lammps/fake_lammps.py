"""Programs that claim to be a LAMMPS, or a compiler."""

from pet_mlip.lammps.detect import HEADERS

HELP = """
Large-scale Atomic/Molecular Massively Parallel Simulator - {version}

Usage example: {path} -var t 300 -echo screen -in in.alloy

MPI v3.1: {mpi}

sizeof(smallint): 32-bit
sizeof(imageint): {image}-bit
sizeof(tagint):   {tag}-bit
sizeof(bigint):   64-bit

Installed packages:

KSPACE MANYBODY {packages}

List of individual style options included in this LAMMPS executable
"""
MPICH_HEADER = "#define MPICH_VERSION 4.2\n"
OPEN_MPI_HEADER = "#define OMPI_MAJOR_VERSION 4\n"


def fake_lammps(
    prefix,
    version="22 Jul 2025 - Update 1",
    mpi="MPICH Version: 4.2",
    tag=32,
    image=32,
    packages="PLUGIN",
    headers=True,
    mpi_header=MPICH_HEADER,
):
    """An installation below a prefix; returns its executable."""
    lmp = prefix / "bin" / "lmp"
    lmp.parent.mkdir(parents=True)
    text = HELP.format(path=lmp, version=version, mpi=mpi, tag=tag, image=image, packages=packages)
    lmp.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    lmp.chmod(0o755)
    if headers:
        write_headers(prefix / "include" / "lammps")
    if mpi_header:
        (prefix / "include").mkdir(exist_ok=True)
        (prefix / "include" / "mpi.h").write_text(mpi_header)
    return lmp


def write_headers(folder):
    """Empty headers of LAMMPS."""
    folder.mkdir(parents=True)
    for name in HEADERS:
        (folder / name).write_text("")
    return folder


def fake_compiler(folder, log, delay=0):
    """A compiler that makes empty files, and notes every call in `log`; returns its path."""
    path = folder / "fake-g++"
    path.write_text(
        f"""#!/bin/sh
if [ "$1" = --version ]; then echo "fake 1.0"; exit; fi
echo "$@" >> {log}
while [ $# -gt 1 ]; do
  if [ "$1" = -o ]; then sleep {delay}; : > "$2"; fi
  shift
done
"""
    )
    path.chmod(0o755)
    return path
