"""What an exported file says about itself, as JSON in the archive."""

import json
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ase.data import chemical_symbols

from pet_mlip.engine.memory import bytes_per_token
from pet_mlip.engine.precision import Precision
from pet_mlip.errors import UserError
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.weights import MODEL, find_weights, or_shipped

FORMAT_VERSION = 10
"""10: models may have learned labels that lack a part of the energy (`subtracted`)."""
OLDEST_VERSION = 9
"""That is read."""
METADATA_NAME = "pet_mlip.json"
LINES_NAME = "pet_mlip.txt"
REFERENCES = [
    "Pozdnyakov, Ceriotti: Smooth, exact rotational symmetrization (PET, ECSE), arXiv:2305.19302",
]
Orientations = Literal["none", "structure", "random", "quadrature"]
"""Averages over orientations of whole structures, which calculators take (not the file itself)."""
ENERGY = {"name": "energy", "unit": "eV", "rank": 0, "per_atom": False, "differentiated": True}
UNITS = {"energy": "eV", "length": "angstrom"}


@dataclass(frozen=True)
class Metadata:
    """Description of an exported model, readable without loading it."""

    format_version: int
    package_version: str
    torch_version: str
    species: list[int]
    """Atomic numbers the model knows."""
    cutoff: float
    """Radius in Å within which atoms are neighbours."""
    interaction_range: int
    """How many cutoffs away an atom can influence an atomic energy (ghost layers in MD)."""
    dtype: Precision
    """Of the network: float32 or float64; geometry and sums are float64 always."""
    units: dict[str, str]
    symmetrization: dict[str, Any]
    hypers: dict[str, Any]
    n_parameters: int
    training: dict[str, Any] = field(default_factory=dict)
    references: list[str] = field(default_factory=lambda: list(REFERENCES))
    results: list[dict[str, Any]] = field(default_factory=lambda: [dict(ENERGY)])
    """The energy, and what else the model predicts: name, unit, rank (0, 1, 2), whether labels are
    `per_atom`, and whether forces and stress are its derivatives (`differentiated`)."""
    uncertainty: dict[str, Any] = field(default_factory=dict)
    """Number of members, and size of the vectors whose norms are uncertainties; empty if the model
    knows none."""
    subtracted: str | None = None
    """What was subtracted from the labels, as in d3(PBE, d3bj), and has to be added."""

    def to_json(self) -> str:
        """Write everything as JSON text."""
        return json.dumps(asdict(self), indent=1)

    def to_lines(self) -> str:
        """What a molecular dynamics program has to know, as ``key value ...`` lines."""
        values = {
            "format_version": self.format_version,
            "package_version": self.package_version,
            "dtype": self.dtype,
            "species": " ".join(str(z) for z in self.species),
            "cutoff": repr(self.cutoff),
            "interaction_range": self.interaction_range,
            "orientations": self.symmetrization.get("orientations", "none"),
            "bytes_per_token": bytes_per_token(PETHypers(**self.hypers), self.dtype),
        }
        if self.hypers.get("system_conditioning", False):
            values["max_charge"] = self.hypers["max_charge"]
            values["max_spin_multiplicity"] = self.hypers["max_spin_multiplicity"]
        others = [f"{r['name']} {r['rank']}" for r in self.results if not r["differentiated"]]
        if others:
            values["results"] = " ".join(others)
        if self.uncertainty:
            values["uncertainty"] = f"{self.uncertainty['members']} {self.uncertainty['size']}"
        if self.subtracted is not None:
            values["subtracted"] = self.subtracted
        return "".join(f"{key} {value}\n" for key, value in values.items())


def refuse_subtracted(metadata: Metadata, path: Path) -> None:
    """Raise a UserError if an energy has to be added, for programs that nobody can tell to."""
    if metadata.subtracted is not None:
        raise UserError(
            f"{path}: not written, since the model learned labels without {metadata.subtracted}, "
            "which the program that loads this format would not know to add. Take D3 from the "
            "labels yourself (examples/tools/subtract_d3.py) and add it there yourself."
        )


def list_results(hypers: PETHypers) -> list[dict[str, Any]]:
    """The energy, and what else the model predicts, as `Metadata.results` has them."""
    others = [
        {"name": name, **result.model_dump(), "differentiated": False}
        for name, result in hypers.results.items()
    ]
    return [dict(ENERGY), *others]


def read_metadata(path: str | Path) -> Metadata:
    """Read the metadata of an exported file, without loading the model.

    Args:
        path: The file, or the name of a model that comes with the package.

    Raises:
        UserError: If the file is missing, cut short, not an exported model, or of a newer format.
    """
    path = find_weights(path, MODEL)
    if not path.is_file():
        raise UserError(f"{path}: there is no such model file; {or_shipped()}.")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(f"/extra/{METADATA_NAME}")]
            text = archive.read(names[0]).decode() if names else None
            of_lines = [n for n in archive.namelist() if n.endswith(f"/extra/{LINES_NAME}")]
            lines = archive.read(of_lines[0]).decode() if of_lines else None
            # Torch does not compare checksums: changed weights would go unnoticed.
            of_metatomic = any(n.endswith("/extra/metatomic-version") for n in archive.namelist())
            damaged = archive.testzip() if names else None
            if damaged is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
    except Exception as error:  # zipfile has no common class for all that damage can cause
        raise UserError(
            f"{path}: not a pet_mlip model, or a file cut short ({error}); export it again with "
            "`pet-mlip export`."
        ) from error
    if text is not None and lines is None:
        raise UserError(
            f"{path}: a model for another program (`pet-mlip export --format gromacs`); export the "
            "checkpoint without --format for ASE and LAMMPS."
        )
    if of_metatomic:
        raise UserError(
            f"{path}: a model for metatomic's engines (`pet-mlip export --format metatomic`); "
            "export the checkpoint without --format for ASE and LAMMPS."
        )
    if text is None or lines is None:
        raise UserError(
            f"{path}: an archive without pet_mlip metadata, so not an exported model; a checkpoint "
            "(.ckpt) becomes one with `pet-mlip export`."
        )
    metadata = _parse(path, text)
    if not _agree(lines, metadata.to_lines()):
        raise UserError(f"{path}: its metadata are damaged; export the model again.")
    return metadata


def _agree(lines: str, expected: str) -> bool:
    """Whether both say the same of a model; how much memory it takes is an estimate."""
    first, second = (
        {line for line in text.splitlines() if not line.startswith("bytes_per_token ")}
        for text in (lines, expected)
    )
    return first == second


def _parse(path: Path, text: str) -> Metadata:
    try:
        content = json.loads(text)
        version = int(content["format_version"])
        if version < 1:
            raise ValueError(version)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: its metadata are damaged; export the model again.") from error
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path}: written in format {version} by pet_mlip {content.get('package_version')}, "
            f"but this version reads formats up to {FORMAT_VERSION}; update pet_mlip."
        )
    if version < OLDEST_VERSION:
        raise UserError(
            f"{path}: written in format {version} by pet_mlip {content.get('package_version')}, "
            f"whose network is another than this version's; train again, or convert metatrain's "
            "checkpoint again."
        )
    try:
        metadata = Metadata(**content)
        sensible = (
            metadata.dtype in get_args(Precision)
            and metadata.cutoff > 0
            and metadata.interaction_range > 0
            and len(metadata.species) > 0
            and all(0 < z < len(chemical_symbols) for z in metadata.species)
            and all(result["rank"] in (0, 1, 2) for result in metadata.results)
        )
    except (TypeError, KeyError) as error:
        raise UserError(f"{path}: its metadata are damaged ({error}); export it again.") from error
    if not sensible:
        raise UserError(f"{path}: its metadata are damaged; export the model again.")
    return metadata
