"""Writes packages: scripted code whose expensive parts are compiled, in one file."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from pet_mlip.compile.check import check_compiled
from pet_mlip.compile.functions import check_compiler, compile_part
from pet_mlip.compile.modules import find_parts, replace_parts, weights_of
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.errors import UserError
from pet_mlip.export.archive import LoadedModel, choose_device, load_model, write_checked
from pet_mlip.export.compiled import TARGET_NAME, Target, read_target, register, target_here
from pet_mlip.export.metadata import LINES_NAME, METADATA_NAME, Metadata
from pet_mlip.export.module import ExportedModel
from pet_mlip.files import check_replaceable, check_writable
from pet_mlip.inference.precision import matrix_products, set_precision
from pet_mlip.model.hypers import PETHypers
from pet_mlip.model.potential import Potential
from pet_mlip.version import __version__

Progress = Callable[[int, int, str], None]
"""Called with the number of finished steps, of all steps, and what is done now."""


def compile_model(
    path: str | Path,
    output: str | Path,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Target:
    """Compile an exported model for this computer.

    The package is loaded back and compared with the model before it appears under its name.

    Args:
        path: An exported file (.pt).
        output: File to write (.pt2).
        device: What to compile for: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
        dtype: Of the network: float64, float32, tf32 or bf16-mixed; by default as in the file.
        overwrite: Whether to replace an existing file.
        progress: Told about every step.

    Returns:
        What the package is tied to.

    Raises:
        UserError: The file cannot be used, the output exists, there is no compiler or it fails, or
            the package does not reproduce the model.
    """
    output, say = Path(output), progress or (lambda *_: None)
    check_replaceable(output)
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists already; give --force to replace it.")
    if Path(path).is_file() and Path(path).resolve() == output.resolve():
        raise UserError(f"{output} is the model itself; give another file to write.")
    check_writable(output.parent)
    target_device = choose_device(device)
    model = load_model(path, device=str(target_device), dtype=dtype)
    if read_target(path) is not None:
        raise UserError(f"{path} is compiled already; give the .pt file that it was made of.")
    check_compiler()
    exported = rebuild(path, model)
    register()

    network = exported.evaluator.network
    parts = find_parts(network)
    n_steps, done = 2 * len(parts) + 1, -1

    def step(name: str) -> None:
        nonlocal done
        done += 1
        say(done, n_steps, name)

    functions: dict[str, bytes] = {}
    with (
        tempfile.TemporaryDirectory(prefix="pet_mlip.") as folder,
        matrix_products(model.precision),
    ):
        for function, places in parts.items():
            owner, attribute = places[0]
            functions |= compile_part(getattr(owner, attribute), function, Path(folder), step)
    digest = hashlib.sha256(b"".join(functions[name] for name in sorted(functions)))
    target = target_here(digest.hexdigest()[:24], list(functions), target_device)
    replace_parts(network, target.package)
    step("check")
    _write(output, exported, model, target, functions)
    say(n_steps, n_steps, "done")
    return target


def rebuild(path: str | Path, model: LoadedModel) -> ExportedModel:
    """The exported model as Python code, with the numbers of a loaded file.

    Raises:
        UserError: The file was written by a version whose code has other parts.
    """
    m = model.metadata
    given = {k: v for k, v in m.symmetrization.items() if k in SymmetrizationHypers.model_fields}
    # `pet-mlip export --force` writes combinations that a training would refuse.
    valid = SymmetrizationHypers.model_validate({**given, "ensemble": "none", "train": "structure"})
    symmetrization = valid.model_copy(
        update={"ensemble": given["ensemble"], "train": given["train"]}
    )
    potential = Potential(list(m.species), PETHypers(**m.hypers), symmetrization)
    exported = ExportedModel(potential.set_dtype(torch.float64).eval().requires_grad_(False))
    set_precision(exported.evaluator.network, model.precision)
    # TorchScript's state includes what is not saved in a checkpoint, such as tables of constants.
    own, given_numbers = weights_of(exported), dict(model.module.state_dict())
    if {k: x.shape for k, x in own.items()} != {k: x.shape for k, x in given_numbers.items()}:
        raise UserError(
            f"{path} was written by another version of pet_mlip ({m.package_version}; this is "
            f"{__version__}), whose code differs; export the checkpoint again with "
            "`pet-mlip export`."
        )
    for name, value in own.items():
        value.copy_(given_numbers[name])
    return exported.to(model.device).eval()


def _write(
    output: Path,
    exported: ExportedModel,
    model: LoadedModel,
    target: Target,
    functions: dict[str, bytes],
) -> None:
    metadata: Metadata = replace(
        model.metadata,
        dtype=model.precision,
        package_version=__version__,
        torch_version=str(torch.__version__),
    )
    files: dict[str, str | bytes] = {
        METADATA_NAME: metadata.to_json(),
        LINES_NAME: metadata.to_lines(),
        TARGET_NAME: target.to_lines(),
    }
    files |= {f"{name}.pt2": content for name, content in functions.items()}
    write_checked(
        output,
        exported,
        files,
        lambda written: check_compiled(model, load_model(written, device=str(model.device))),
    )
