"""Writing and reading the exported file. Everything specific to TorchScript is here."""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pet_mlip.engine.potential import Potential
from pet_mlip.engine.precision import (
    ROUNDING,
    Precision,
    choose_precision,
    dtype_of,
    matrix_products,
    set_precision,
)
from pet_mlip.errors import UserError
from pet_mlip.export.metadata import (
    FORMAT_VERSION,
    LINES_NAME,
    METADATA_NAME,
    UNITS,
    Metadata,
    Orientations,
    list_results,
    read_metadata,
)
from pet_mlip.export.module import ExportedModel
from pet_mlip.export.selfcheck import check_exported
from pet_mlip.files import check_replaceable, check_writable, replacing
from pet_mlip.graph.graph import Graph, check_order
from pet_mlip.network.uncertainty import shrink
from pet_mlip.version import __version__
from pet_mlip.weights import MODEL, find_weights

DTYPES = {"float32": torch.float32, "float64": torch.float64}
"""Of the network in a file; it can be run in others."""


@dataclass(frozen=True)
class LoadedModel:
    """An exported model ready to be called."""

    module: torch.jit.ScriptModule
    metadata: Metadata
    device: torch.device
    precision: Precision
    """Of the network: float64, float32, tf32 or bf16-mixed."""

    @property
    def dtype(self) -> torch.dtype:
        """Of what the network keeps between its layers."""
        return dtype_of(self.precision)

    def __call__(
        self,
        graph: Graph,
        weights: Tensor | None = None,
        compute_gradient: bool = True,
        chunk_size: int = 0,
        uncertainty: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]:
        """Evaluate a graph, as `pet_mlip.export.module.ExportedModel.forward` does.

        Raises:
            UserError: Its edges are not ordered by centre.
        """
        check_order(graph)
        with self._evaluation():
            vectors = graph.edge_vectors
            # Tensors made in inference mode can never be differentiated; their copies can.
            if vectors.is_inference():
                vectors = vectors.clone()
            return self.module(
                graph.species,
                graph.edge_index,
                vectors,
                graph.edge_index.new_zeros(0, 3),  # shifts, of which the reverse edges tell enough
                graph.electronic,
                weights,
                compute_gradient,
                chunk_size,
                graph.reverse,
                uncertainty,
            )

    def features(self, vectors: Tensor, species: Tensor) -> Tensor:
        """Return how far atoms are from the training data in eV, (N, D), without growth.

        Args:
            vectors: Those whose norms are uncertainties of atomic energies, (N, D).
            species: Atomic numbers, (N,) int64.
        """
        known = self.module.potential.uncertainty
        if not hasattr(known, "typical"):
            return vectors  # of a file that was written before anything grew
        own = self.module.potential.preparation.species_index[species.to(self.device)].cpu()
        return shrink(known.typical.cpu(), vectors, own)

    def evaluate_domain(
        self,
        graph: Graph,
        distances: Tensor,
        compute_gradient: bool = True,
        chunk_size: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Evaluate some atoms, as `pet_mlip.export.module.ExportedModel.evaluate_domain` does."""
        with self._evaluation():
            return self.module.evaluate_domain(
                graph.edge_vectors,
                distances,
                graph.species,
                graph.edge_index,
                graph.reverse,
                self._within(graph),
                graph.electronic,
                compute_gradient,
                chunk_size,
            )

    def drive(
        self,
        points: Tensor,
        ends: Tensor,
        graph: Graph,
        atomic_virials: bool = False,
        centroid_virials: bool = False,
        chunk_size: int = 0,
        uncertainty: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]:
        """Evaluate a domain, as `pet_mlip.export.module.ExportedModel.drive` does.

        Its edges have the vectors between ``points``, whatever the graph says.
        """
        charge, spin_multiplicity = graph.electronic[0].tolist()
        with self._evaluation():
            return self.module.drive(
                points,
                ends,
                graph.species,
                graph.edge_index,
                graph.reverse,
                self._within(graph),
                atomic_virials,
                centroid_virials,
                chunk_size,
                charge,
                spin_multiplicity,
                uncertainty,
            )

    def _within(self, graph: Graph) -> list[int]:
        """The numbers of atoms as older files read them too: one for each edge of the range."""
        given = graph.atoms_within
        return given * self.metadata.interaction_range if len(given) == 1 else given

    def in_float64(self) -> "LoadedModel":
        """Return a copy whose network, with the same weights, is evaluated in float64.

        Raises:
            UserError: The network rounds, so that it has other weights by now.
        """
        if self.precision in ROUNDING:
            raise UserError(
                f"A model in {self.precision} has rounded weights; load it with dtype float32."
            )
        with torch.inference_mode(False):
            module = deepcopy(self.module)
            set_precision(module.potential.pet, "float64")
        return LoadedModel(module, self.metadata, self.device, "float64")

    @contextmanager
    def _evaluation(self) -> Iterator[None]:
        # Without the profiling executor there is no slow recompilation during the first calls.
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.jit.optimized_execution(False),
            matrix_products(self.precision),
        ):
            yield


def save_model(
    path: str | Path,
    potential: Potential,
    *,
    dtype: str = "float32",
    training_summary: dict[str, Any] | None = None,
    orientations: Orientations = "none",
) -> Metadata:
    """Write one self-contained TorchScript file.

    The written file is loaded back and compared with the eager model; on a mismatch nothing is
    left at ``path``, and an existing file there stays.

    Args:
        path: File to write.
        potential: The model; it is not changed.
        dtype: Of the network in the file: float32 or float64.
        training_summary: Plain JSON types, kept in the metadata.
        orientations: Average over orientations that calculators take by default.

    Raises:
        UserError: If the dtype is unknown, the path a directory, or the exported model does not
            reproduce the eager one.
    """
    path = Path(path)
    eager, folded, metadata = prepare(path, potential, dtype, training_summary, orientations)
    files = {METADATA_NAME: metadata.to_json(), LINES_NAME: metadata.to_lines()}
    write_checked(
        path,
        ExportedModel(folded),
        files,
        lambda written: check_exported(eager, load_model(written, device="cpu")),
    )
    return metadata


def prepare(
    path: Path,
    potential: Potential,
    dtype: str,
    training_summary: dict[str, Any] | None,
    orientations: Orientations = "none",
) -> tuple[Potential, Potential, Metadata]:
    """Do what comes before writing any kind of file.

    Args:
        path: File that will be written.
        potential: The model; it is not changed.
        dtype: Of the network in the file: float32 or float64.
        training_summary: Plain JSON types, kept in the metadata.
        orientations: Average over orientations that calculators take by default.

    Returns:
        The model for inference, as it is and with its weights folded, and its metadata.

    Raises:
        UserError: If the dtype is unknown or the path a directory.
    """
    check_replaceable(path)
    eager, folded = fold(potential, dtype)
    return eager, folded, describe(potential, dtype, training_summary or {}, orientations)


def fold(potential: Potential, dtype: str) -> tuple[Potential, Potential]:
    """Copy a potential for inference: as it is, and with its weights folded.

    Args:
        potential: The model; it is not changed.
        dtype: Of both networks: float32 or float64.

    Raises:
        UserError: If the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not known; choose one of {', '.join(DTYPES)}.")
    eager = deepcopy(potential).cpu().eval().requires_grad_(False)
    # Weights are folded in float64, and rounded once.
    folded = deepcopy(eager).set_dtype(torch.float64)
    folded.pet.fold()
    return eager.set_dtype(DTYPES[dtype]), folded.set_dtype(DTYPES[dtype])


def describe(
    potential: Potential, dtype: str, training_summary: dict[str, Any], orientations: Orientations
) -> Metadata:
    """Make the metadata of a model; arguments as in `save_model`."""
    return Metadata(
        format_version=FORMAT_VERSION,
        package_version=__version__,
        torch_version=str(torch.__version__),
        species=list(potential.species),
        cutoff=potential.cutoff,
        interaction_range=potential.pet_hypers.interaction_range,
        dtype=cast(Precision, dtype),
        units=UNITS,
        symmetrization={
            **potential.symmetrization.model_dump(),
            "inference": potential.symmetrization.inference,
            "orientations": orientations,
        },
        results=list_results(potential.pet_hypers),
        hypers=potential.pet_hypers.model_dump(),
        n_parameters=potential.n_parameters(),
        training=training_summary,
        uncertainty=potential.uncertainty.shape(),
        subtracted=potential.subtracted,
    )


def write_checked(
    path: Path,
    exported: nn.Module,
    files: Mapping[str, str | bytes],
    check: Callable[[str], None],
) -> None:
    """Script and write a model under another name, which becomes ``path`` if it passes the check.

    Args:
        path: File to write; an existing one stays until then.
        exported: The model.
        files: Extra files of the archive.
        check: Called with the path of what was written; raises if it will not do.
    """
    check_writable(path.parent)
    with replacing(path) as temporary:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, and C++ programs need it.
            scripted = torch.jit.script(exported)
            # Torch ends the process where it cannot write a file itself.
            content = io.BytesIO()
            torch.jit.save(scripted, content, _extra_files=files)
        temporary.write_bytes(content.getbuffer())
        check(str(temporary))


def load_model(path: str | Path, device: str = "auto", dtype: str | None = None) -> LoadedModel:
    """Load an exported file.

    Args:
        path: The file, or the name of a model that comes with the package.
        device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Of the network: float64, float32, tf32 (GPUs only) or bf16-mixed; by default as in
            the file. See `pet_mlip.engine.precision`.

    Raises:
        UserError: If the file cannot be used, or the device or dtype do not exist.
    """
    metadata = read_metadata(path)
    target = choose_device(device)
    name = choose_precision(dtype or metadata.dtype, target)
    try:
        with warnings.catch_warnings(), torch.inference_mode(False):
            warnings.simplefilter("ignore")
            module = torch.jit.load(str(find_weights(path, MODEL)), map_location=target)
    except RuntimeError as error:
        raise UserError(
            f"{path}: torch {torch.__version__} cannot read it (written with torch "
            f"{metadata.torch_version}; the file may be damaged): export it again."
        ) from error
    module.eval()
    if name != metadata.dtype:
        with torch.inference_mode(False):
            set_precision(module.potential.pet, name)
    return LoadedModel(module, metadata, target, name)


def choose_device(device: str) -> torch.device:
    """Find the torch device that a user's word means."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unknown = UserError(f"device {device!r} is not known; use auto, cpu, cuda or cuda:N.")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise unknown from error
    if chosen.type not in ("cpu", "cuda"):  # float64 geometry needs one of these
        raise unknown
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device!r}: torch {torch.__version__} sees no GPU; use cpu.")
    return chosen
