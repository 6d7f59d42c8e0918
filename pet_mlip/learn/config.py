"""The YAML configuration of `pet-mlip learn`: schema and loading."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from pet_mlip.config.base import Files, Float, Int, Seconds, Section, defaults, exactly_one
from pet_mlip.config.data import Baseline, Subtracted, TestSets
from pet_mlip.config.load import apply_override, read_yaml, validate_as
from pet_mlip.config.reference import reference_of
from pet_mlip.config.sizes import Sized
from pet_mlip.config.training import LoggingConfig, TrainingConfig
from pet_mlip.data.names import split_slice
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.graph.hypers import PETHypers


def _as_numbers(value: Any) -> Any:
    """A list of the one number that stands for it."""
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


Numbers = Annotated[
    list[Float],
    BeforeValidator(_as_numbers, json_schema_input_type=float | list[float]),
    Field(min_length=1),
]
"""One number or a list of them."""


class DaskConfig(Section):
    """A cluster that computes labels: one that is running, or one that is started."""

    model_config = exactly_one("address", "cluster")

    address: str | None = Field(
        None, description="Of a running scheduler, as in tcp://10.0.0.1:8786."
    )
    cluster: str | None = Field(
        None,
        description="Class of the cluster to start, by its import path, such as "
        "dask_jobqueue.SLURMCluster.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="Of that class, as in {queue: cpu, cores: 8, processes: 1, memory: 16GB, "
        "walltime: '04:00:00'}.",
    )
    jobs: Int = Field(1, gt=0, description="Jobs (workers) that the cluster is scaled to.")

    @model_validator(mode="after")
    def _one_of_them(self) -> DaskConfig:
        if (self.address is None) == (self.cluster is None):
            raise ValueError("give either the address of a running scheduler, or a cluster")
        return self


class ReferenceConfig(Section):
    """Where energies and forces come from: an ASE calculator, or any command."""

    model_config = exactly_one("calculator", "command")

    calculator: str | None = Field(
        None,
        description="Class or function that makes an ASE calculator, by its import path, such as "
        "tblite.ase.TBLite. A new one is made for each structure.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Its arguments, as in {method: GFN2-xTB}."
    )
    command: str | None = Field(
        None,
        description="Instead of a calculator: a shell command that runs in a folder of its own, in "
        "which it finds the structure in the file `input` and leaves its result as `output`.",
    )
    input: str = Field(
        "input.xyz",
        description="File that is written for the command; its name tells the format, as ASE has "
        "it (POSCAR, geometry.in, ...).",
    )
    output: str = Field(
        "output.xyz",
        description="File with energy and forces that the command leaves, in any format that ASE "
        "reads (vasprun.xml, orca.out, ...).",
    )
    files: Files = Field(
        default_factory=list, description="Files that the command needs, copied into its folder."
    )
    processes: Annotated[Int, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="Labels computed at once on this machine; auto: one for each core."
    )
    dask: DaskConfig | None = Field(
        None, description="Compute labels on a cluster instead, through dask (an optional extra)."
    )
    timeout: Seconds | None = Field(
        None,
        gt=0,
        description="Longest time for a label on this machine, or null; what takes longer is set "
        "aside. A cluster has its own limits.",
    )
    max_force: Float = Field(
        20.0,
        gt=0,
        description="Labels with a larger force, in eV/Å, are set aside; simulations in which the "
        "model predicts a larger one are stopped.",
    )
    max_energy: Float = Field(
        3.0,
        gt=0,
        description="Labels whose energy is farther, in eV/atom, from the median of the round's "
        "labels of the same composition are set aside.",
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> ReferenceConfig:
        if (self.calculator is None) == (self.command is None):
            raise ValueError("give either a calculator or a command")
        return self


class FirstConfig(Section):
    """The structures of the first training: the given ones, displaced at random."""

    structures: Int = Field(
        24, ge=4, description="How many, counting the given ones, which come first."
    )
    displacement: Float = Field(
        0.1,
        gt=0,
        description="Standard deviation of the atoms' displacements in Å, of the last of them; "
        "it grows evenly up to there.",
    )
    strain: Float = Field(
        0.03,
        ge=0,
        lt=0.5,
        description="The same for the strain of periodic cells (in periodic directions).",
    )


def _without_length(schema: dict[str, Any]) -> None:
    """Take what gives a training its length out of a JSON schema."""
    for name in ("epochs", "max_time"):
        schema["properties"][name] = {"type": "null"}


class LearnTraining(TrainingConfig):
    """How each training is done: as the section training of a training, but for its length."""

    model_config = ConfigDict(json_schema_extra=_without_length)

    steps: Int = Field(
        1500,
        gt=0,
        description="Optimiser steps of the training of each round, about: whole epochs are done.",
    )
    warm_start: bool = Field(
        True,
        description="Whether a round's training starts from the weights of the round before (at a "
        "quarter of the learning rate, unless one is given), or from random ones (or init_from).",
    )
    ema_decay: Float = Field(
        0.99,
        ge=0,
        lt=1,
        description="As in a training, whose default is that of longer ones.",
    )
    validation: Float = Field(
        0.15, gt=0, lt=1, description="Part of each round's labels that validation gets."
    )

    @model_validator(mode="after")
    def _bounded(self) -> LearnTraining:
        for name in ("epochs", "max_time"):
            if getattr(self, name) is not None:
                raise ValueError(f"give steps, the length of each training, instead of {name}")
        if self.devices != 1 or self.num_nodes != 1:
            raise ValueError("trainings of `pet-mlip learn` run in one process: devices must be 1")
        if self.uncertainty_members == 0:
            raise ValueError("uncertainty_members must not be 0: uncertainties decide what is new")
        return self


class SimulationConfig(Section):
    """The molecular dynamics that looks for structures of which the model is uncertain."""

    engine: Literal["ase", "lammps"] = Field("ase", description="What runs it.")
    ensemble: Literal["nve", "nvt", "npt"] = Field(
        "nvt", description="nve: velocity Verlet; nvt, npt: with a thermostat, and a barostat."
    )
    temperatures: Numbers = Field([300.0], description="K; simulations are done at each of them.")
    pressures: Numbers = Field(
        [1.01325], description="bar; with npt, simulations are done at each of them."
    )
    replicas: Int = Field(
        1,
        gt=0,
        description="Simulations at each temperature and pressure; they begin with the given "
        "structures one after the other.",
    )
    steps: Int = Field(4000, gt=0, description="Of each simulation.")
    timestep: Float = Field(0.5, gt=0, description="fs.")
    damping: Float = Field(100.0, gt=0, description="Time constant of the thermostat in fs.")
    pressure_damping: Float = Field(
        1000.0, gt=0, description="Time constant of the barostat in fs."
    )
    interval: Int = Field(10, gt=0, description="Steps between two looks at the uncertainty.")
    processes: Annotated[Int, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="Simulations at once; auto: one for each core, one alone on a GPU."
    )
    device: str = Field(
        "auto",
        description="With ase: auto (a GPU if there is one), cpu, cuda or cuda:N. LAMMPS decides "
        "by itself.",
    )


class SelectionConfig(Section):
    """Which structures are learned from, and when it is enough.

    Uncertainties are multiplied by how many times larger the errors were that the latest labels
    have shown.
    """

    record_above: Float = Field(
        0.2,
        gt=0,
        description="Structures in which a component of the force on an atom is more uncertain "
        "than this, in eV/Å, are candidates.",
    )
    stop_above: Float = Field(
        0.6,
        gt=0,
        description="A simulation is stopped where a force is more uncertain than this, or, of a "
        "young model, than twice what it is in the median of the validation structures.",
    )
    structures: Int = Field(
        16, ge=1, description="Candidates that are labelled after a round: the farthest ones."
    )
    checks: Int = Field(
        8,
        ge=1,
        description="Structures that are labelled where there is no candidate: those of the "
        "simulations that are the farthest from what is known.",
    )
    tolerance: Float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Learning ends with a round in which no simulation was stopped, and in which "
        "at most this part of the looks found a candidate.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> SelectionConfig:
        if self.stop_above < self.record_above:
            raise ValueError("stop_above must be at least record_above")
        return self


class LearnConfig(Sized):
    """Everything that `pet-mlip learn` needs to know."""

    start: Files = Field(
        description="Files with the structures that simulations begin with, in any format that "
        "ASE reads; labels in them are not used.",
        examples=["start.xyz"],
    )
    test: TestSets = Field(
        default_factory=dict,
        description="Labelled test files, on which every round's model is evaluated: one, a list, "
        "or names with files.",
    )
    rounds: Int = Field(10, gt=0, description="Most rounds of training and simulations.")
    seed: Int = Field(0, ge=0, description="Of displacements and velocities.")
    baseline: Baseline = Field("auto", description="As data.baseline of a training.")
    isolated_atoms: Files = Field(
        default_factory=list, description="Files with isolated atoms for the baseline."
    )
    subtract: Subtracted | None = Field(
        None,
        description="As data.subtract of a training: part of the reference's energy that is not to "
        "be learned, as in d3(PBE).",
        examples=["d3(PBE)"],
    )
    reference: ReferenceConfig = Field(description="Where energies and forces come from.")
    first: FirstConfig = Field(
        defaults(FirstConfig), description="The structures of the first training."
    )
    simulation: SimulationConfig = Field(
        defaults(SimulationConfig),
        description="The molecular dynamics that looks for structures of which the model is "
        "uncertain.",
    )
    selection: SelectionConfig = Field(
        defaults(SelectionConfig),
        description="Which structures are learned from, and when it is enough.",
    )
    model: PETHypers = Field(
        defaults(PETHypers), description="Architecture of the network, as in a training."
    )
    symmetrization: SymmetrizationHypers = Field(
        defaults(SymmetrizationHypers),
        description="Coordinate systems in which environments are seen (ECSE), as in a training.",
    )
    training: LearnTraining = Field(
        defaults(LearnTraining), description="How each training is done."
    )
    logging: LoggingConfig = Field(defaults(LoggingConfig), description="As in a training.")

    def to_yaml(self) -> str:
        """The keys that were given."""
        given = self.model_dump(mode="json", exclude_unset=True)
        return yaml.safe_dump(given, sort_keys=False, allow_unicode=True)


HEADER = """\
Every key of a configuration of `pet-mlip learn` with its default. Only start and one of
reference.calculator and reference.command are needed.
"""


def reference_yaml() -> str:
    """``examples/learn/reference.yaml``: every key with its description, type and default."""
    return reference_of(LearnConfig, HEADER, {"calculator": "tblite.ase.TBLite"})


def load_learn_config(path: str | Path, overrides: Sequence[str] = ()) -> LearnConfig:
    """Read a YAML file, apply overrides such as ``rounds=3``, and validate.

    Files that it names are looked for in the working directory, then in its own folder.

    Raises:
        UserError: The file is missing or no YAML; or a key or value is wrong, and is named.
    """
    tree = read_yaml(path)
    for override in overrides:
        apply_override(tree, override)
    config = validate_as(LearnConfig, tree, str(path))
    folder = Path(path).parent
    reference = config.reference
    return config.model_copy(
        update={
            "start": _located(config.start, folder),
            "test": {name: _located(files, folder) for name, files in config.test.items()},
            "isolated_atoms": _located(config.isolated_atoms, folder),
            "reference": reference.model_copy(update={"files": _located(reference.files, folder)}),
        }
    )


def _located(names: list[str], folder: Path) -> list[str]:
    """Paths of files that are there, or else in a folder; absolute, for programs run elsewhere."""
    found = []
    for name in names:
        path, _ = split_slice(name)
        there = os.path.exists(path) or not (folder / path).exists()
        found.append(os.path.abspath(name if there else folder / name))
    return found
