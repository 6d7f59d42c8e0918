"""The ``data`` section: files, labels, units, splits, baseline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from ase.data import chemical_symbols
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pet_mlip.config.base import Files, Float, Int, Section, defaults
from pet_mlip.data.dispersion import canonical_name


class KeysConfig(Section):
    """Names under which the labels are stored in ``info``, ``arrays`` or calculator results.

    ``auto`` takes the calculator's result, else the usual names; null leaves the label out.
    """

    energy: str | None = Field("auto", description="Total energy.")
    forces: str | None = Field("auto", description="Forces.")
    stress: str | None = Field("auto", description="Stress.")
    virial: str | None = Field(
        "auto", description="Virial, -volume * stress, used for structures without a stress."
    )
    charge: str | None = Field(
        "charge", description="Total charge; read if model.system_conditioning, 0 where absent."
    )
    spin_multiplicity: str | None = Field(
        "spin_multiplicity",
        description="2S + 1; read if model.system_conditioning, 1 where absent.",
    )
    results: dict[str, str | None] = Field(
        default_factory=dict,
        description="Names of the labels of model.results that stand under another name, as in "
        "{dipole: dft_dipole}; null leaves one out.",
    )


class UnitsConfig(Section):
    """Units of the numbers in the files; everything is converted to eV and Å."""

    energy: Literal["eV", "meV", "Hartree", "Rydberg", "kcal/mol", "kJ/mol"] = Field(
        "eV", description="Of energies; forces are this per length."
    )
    length: Literal["Angstrom", "Bohr", "nm"] = Field(
        "Angstrom", description="Of positions and cells, and of the length in force units."
    )
    stress: Literal["energy/length^3", "GPa", "kbar", "bar"] = Field(
        "energy/length^3", description="Of stresses: the two units above, or a pressure."
    )
    stress_order: Literal["voigt", "vasp"] | None = Field(
        None,
        description="Order of stresses and other tensors that stand as 6 numbers in a file: voigt, "
        "xx yy zz yz xz xy, or vasp, xx yy zz xy yz zx. Needed where a file does not say.",
    )
    stress_sign: Literal[1, -1] = Field(
        1, description="-1 for stresses that are positive under compression (VASP); ASE's are not."
    )


def _validation(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a fraction or files")
    if isinstance(value, str) and re.fullmatch(r"\s*\d*\.?\d+\s*%?\s*", value):
        number, percent, _ = value.partition("%")
        return float(number) / (100 if percent else 1)
    return [value] if isinstance(value, str) else value


def _baseline(value: Any) -> Any:
    """Elements may be named by their atomic numbers."""
    if not isinstance(value, dict):
        return value
    named: dict[Any, Any] = {}
    for key, energy in value.items():
        symbol = key
        if not isinstance(key, bool) and str(key).isdecimal():
            z = int(key)
            if not 0 < z < len(chemical_symbols):
                raise ValueError(f"{z} is no atomic number")
            symbol = chemical_symbols[z]
        if symbol in named:
            raise ValueError(f"{symbol} has two energies")
        named[symbol] = energy
    return named


def _test_sets(value: Any) -> Any:
    """Give unnamed test files the names of the files."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        named = {Path(str(file)).name.split(".")[0]: file for file in value}
        if len(named) < len(value):
            raise ValueError("test files have equal names; name them as in {first: a/test.xyz}")
        return named
    return value


TestSets = Annotated[
    dict[str, Files],
    BeforeValidator(_test_sets, json_schema_input_type=str | list[str] | dict[str, Files]),
]
Baseline = Annotated[
    Literal["auto", "isolated_atoms", "least_squares", "keep"] | dict[str, Float],
    BeforeValidator(_baseline),
]
Subtracted = Annotated[str, AfterValidator(canonical_name)]
Validation = Annotated[
    float | list[str],
    BeforeValidator(_validation, json_schema_input_type=float | str | list[str]),
]


class DataConfig(Section):
    """Which structures to learn from, and how to read them."""

    root: str = Field(
        ".",
        description="Folder to which all file names below are relative. It is itself relative to "
        "the working directory or, if the training files are not there, to the folder of the "
        "configuration.",
    )
    train: Files = Field(
        description="Training files, in any format that ASE reads, also compressed; patterns such "
        "as data/*.xyz and slices such as train.xyz@::10 work.",
        examples=["train.xyz"],
    )
    validation: Validation = Field(
        0.1,
        description="Validation file or files, or the fraction of the training structures that "
        "is set aside for validation (drawn with training.seed), such as 0.1 or 10%. Elements "
        "that few structures have stay in the training part.",
    )
    test: TestSets = Field(
        default_factory=dict,
        description="Test files, evaluated after training: one, a list, or names with files.",
    )
    keys: KeysConfig = Field(
        defaults(KeysConfig),
        description="Names of the labels in info, arrays or calculator results; auto: the "
        "calculator's results or the usual names, null: the label is not read.",
    )
    units: UnitsConfig = Field(defaults(UnitsConfig), description="Units in the files.")
    baseline: Baseline = Field(
        "auto",
        description="Energy of each element that the network does not have to learn. auto: fitted "
        "by least squares, starting from the energies of isolated atoms if there are any among "
        "isolated_atoms and the training structures; least_squares: without them; isolated_atoms: "
        "exactly theirs; or given, as in {H: -13.6, O: -430} or {1: -13.6, 8: -430}. "
        "In fine-tuning, auto and least_squares shift the checkpoint's energies such that its "
        "predictions fit the data on average, and keep leaves them alone (same method).",
    )
    isolated_atoms: Files = Field(
        default_factory=list, description="Files with isolated atoms for the baseline."
    )
    subtract: Subtracted | None = Field(
        None,
        description="Part of the energy that is not to be learned, as in d3(PBE) or d3(PBE, "
        "d3zero): it is subtracted from the labels, PETCalculator adds it, and LAMMPS has to be "
        "told to (docs/engines.md).",
        examples=["d3(PBE)"],
    )
    max_force: Float = Field(
        300.0, gt=0, description="Larger forces in eV/Å are taken for a mistake in the data."
    )
    min_distance: Float = Field(
        0.3, gt=0, description="Smaller distances between atoms in Å are taken for a mistake."
    )
    workers: Int = Field(
        0, ge=0, description="Processes that prepare batches (0: the training process itself)."
    )

    @model_validator(mode="after")
    def _sensible_split(self) -> DataConfig:
        if isinstance(self.validation, float) and not 0 < self.validation < 1:
            raise ValueError(
                f"validation ({self.validation}) must lie between 0 and 1 (a tenth is 0.1 or "
                "10%), or be files"
            )
        if not self.train:
            raise ValueError("train must name at least one file")
        return self
