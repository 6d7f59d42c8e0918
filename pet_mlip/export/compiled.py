"""Compiled functions of a package: what they are tied to, and how scripted code calls them.

A package (`model.pt2`) is an exported file whose code calls machine code for the expensive parts.
That machine code travels in the archive, and runs through two operators: `pet_mlip::open` loads a
function from a file, `pet_mlip::call` runs it. LAMMPS' plugin brings the same operators in C++.
"""

import atexit
import platform
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pet_mlip.errors import UserError

TARGET_NAME = "pet_mlip_compiled.txt"
# Names of instruction sets that compilers use by themselves; what else a CPU says is of no concern.
INSTRUCTION_SETS = (
    *("sse", "ssse", "avx", "fma", "f16c", "bmi", "abm", "movbe", "popcnt", "amx", "sha", "vaes"),
    *("vpclmul", "gfni", "adx", "asimd", "sve"),
)


@dataclass(frozen=True)
class Target:
    """What a package was compiled for, and only runs on."""

    package: str
    """Identifies its functions among all that are loaded."""
    functions: tuple[str, ...]
    device: str
    """cpu or cuda."""
    torch_version: str
    """Without what follows a plus sign."""
    machine: str
    """Of the processor, such as x86_64."""
    instructions: tuple[str, ...]
    """Instruction sets that the CPU must know."""
    gpu: str
    """Compute capability of the GPU, such as 9.0; "-" for the CPU."""

    def to_lines(self) -> str:
        """As ``key value ...`` lines, which C++ can read too."""
        return "".join(
            f"{key} {' '.join(value) if isinstance(value, tuple) else value}\n"
            for key, value in vars(self).items()
        )

    @classmethod
    def from_lines(cls, text: str) -> "Target":
        """What `to_lines` wrote."""
        pairs = dict(line.split(" ", 1) for line in text.splitlines())
        functions, instructions = (pairs.pop(k).split() for k in ("functions", "instructions"))
        return cls(functions=tuple(functions), instructions=tuple(instructions), **pairs)

    def describe(self) -> str:
        """For people."""
        if self.device == "cuda":
            return f"GPUs of compute capability {self.gpu}, torch {self.torch_version}"
        widest = [x for x in ("avx512f", "avx2", "sve", "asimd") if x in self.instructions]
        return " ".join([self.machine, *widest[:1]]) + f" CPUs, torch {self.torch_version}"


def target_here(package: str, functions: list[str], device: torch.device) -> Target:
    """The target that this computer is."""
    gpu = "-"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        gpu = f"{major}.{minor}"
    return Target(
        package,
        tuple(functions),
        device.type,
        torch.__version__.partition("+")[0],
        platform.machine(),
        tuple(sorted(instruction_sets())),
        gpu,
    )


def instruction_sets() -> set[str]:
    """Instruction sets of this CPU; none where Linux does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return {word for word in value.split() if word.startswith(INSTRUCTION_SETS)}
    return set()


def read_target(path: str | Path) -> Target | None:
    """What an exported file was compiled for; None if it was not.

    Raises:
        UserError: If its description is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith(f"/extra/{TARGET_NAME}")]
        if not names:
            return None
        text = archive.read(names[0]).decode(errors="replace")
    try:
        return Target.from_lines(text)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: its description is damaged; compile it again.") from error


def read_functions(path: str | Path, target: Target) -> dict[str, bytes]:
    """The archives of the compiled functions in a package."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        return {name: archive.read(f"{root}/extra/{name}.pt2") for name in target.functions}


def check_target(path: str | Path, target: Target, device: torch.device) -> None:
    """Refuse a package that does not fit this computer.

    Raises:
        UserError: In one sentence, why not.
    """
    here = target_here(target.package, list(target.functions), device)
    # What cannot be found out is no reason to refuse a file that may be good.
    missing = sorted(set(target.instructions) - set(here.instructions)) if here.instructions else []
    again = "compile the .pt file again here with `pet-mlip compile`"
    if target.device != device.type:
        other = "a GPU" if target.device == "cuda" else "the CPU"
        raise UserError(
            f"{path} was compiled for {other}, not for the device {device}; give device "
            f"{target.device}, or use the .pt file, which runs everywhere."
        )
    if target.torch_version != here.torch_version:
        raise UserError(
            f"{path} was compiled with torch {target.torch_version}, but this is torch "
            f"{here.torch_version}; {again}."
        )
    if target.machine != here.machine or missing:
        raise UserError(
            f"{path} was compiled for another CPU ({target.machine}; this one is {here.machine}"
            + (f" without {', '.join(missing)}" if missing else "")
            + f"); {again}."
        )
    if target.gpu != here.gpu:
        raise UserError(
            f"{path} was compiled for GPUs of compute capability {target.gpu}, but this one has "
            f"{here.gpu}; {again}."
        )


def open_functions(
    where: str | Path, target: Target, functions: dict[str, bytes], device: torch.device
) -> None:
    """Load compiled functions, so that scripted code can call them on a device.

    Args:
        where: What they came with, for messages.
        target: What they are.
        functions: The archive of each.
        device: Where their inputs will be.

    Raises:
        UserError: If they do not fit this computer, or cannot be loaded.
    """
    check_target(where, target, device)
    register()
    index = -1
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
    with tempfile.TemporaryDirectory(prefix="pet_mlip.") as folder:
        for name, content in functions.items():
            path = Path(folder) / f"{name}.pt2"
            path.write_bytes(content)
            try:
                torch.ops.pet_mlip.open(target.package, name, str(path), index)
            except RuntimeError as error:
                raise UserError(
                    f"{where}: torch cannot load its compiled functions "
                    f"({str(error).partition(chr(10))[0]}); compile the .pt file again here with "
                    "`pet-mlip compile`."
                ) from error


def register() -> None:
    """Make the operators known to torch, unless they are."""
    if torch._C._jit_get_schemas_for_operator("pet_mlip::call"):
        return
    library = torch.library.Library("pet_mlip", "FRAGMENT")
    library.define("open(str package, str function, str path, int device) -> ()")
    library.define("call(str package, str function, Tensor[] inputs) -> Tensor[]")
    library.impl("open", _open, "CompositeExplicitAutograd")
    library.impl("call", _call, "CompositeExplicitAutograd")
    _LIBRARY.append(library)


_LIBRARY: list[torch.library.Library] = []  # Operators live as long as it.
_OPEN: dict[tuple[str, str, int], Any] = {}
atexit.register(_OPEN.clear)  # Torch removes the files of a function with it.


def _open(package: str, function: str, path: str, device: int) -> None:
    key = (package, function, device)
    if key not in _OPEN:
        _OPEN[key] = torch._C._aoti.AOTIModelPackageLoader(path, "model", False, 1, device)


def _call(package: str, function: str, inputs: list[Tensor]) -> list[Tensor]:
    found: list[Tensor] = _OPEN[package, function, inputs[0].get_device()].run(inputs)
    return found
