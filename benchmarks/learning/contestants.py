"""Who learns, and how each is told to."""

from __future__ import annotations

import hashlib
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Any

import ase.io
import numpy as np
import yaml

import pet_mlip
from benchmarks.learning import clock, curves
from benchmarks.learning.clock import Marks
from benchmarks.learning.curves import Point
from benchmarks.learning.prepare import ENERGY, FORCES, STRESS, Prepared
from benchmarks.learning.sets import LearningSet
from pet_mlip.errors import UserError
from pet_mlip.files import write_text
from pet_mlip.weights import CHECKPOINT, find_weights, shipped

TRIAL_EPOCHS = 3
"""Of which the first does not count."""
STAGE_TWO = 0.75
"""Part of the epochs after which MACE's second stage begins."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """A set as it is learned."""

    one: LearningSet
    data: Prepared
    seconds: float
    """Budget."""
    seed: int
    ours_set: tuple[str, ...] = ()
    """Changes to our default configuration, as KEY=VALUE."""


@dataclass(frozen=True)
class Trained:
    """A finished training."""

    model: Path
    points: list[Point]
    cpu: float
    """Processor time from the start of the training to the last validation, all included."""


class Contestant(ABC):
    """A package that learns."""

    name: str
    title: str
    package: str
    marks: Marks

    def missing(self) -> str | None:
        """What of it is not installed."""
        return self.package if find_spec(self.package) is None else None

    def version(self) -> str:
        """Its version, or what is not installed."""
        names = packages_distributions().get(self.package, [])
        return f"{names[0]} {version(names[0])}" if names else f"no {self.package}"

    @abstractmethod
    def train(self, task: Task, folder: Path, core: int, stop: Event, say: Say) -> Trained:
        """Train for the budget.

        Args:
            task: What to learn.
            folder: For all files; it exists and is empty.
            core: Number of the core.
            stop: Ends the training when it is set.
            say: Is told the progress.

        Raises:
            UserError: The training failed.
        """


class Ours(Contestant):
    """This package with its default configuration: ``pet-mlip train`` by processor time."""

    name = "ours"
    title = "pet_mlip"
    package = "pet_mlip"
    marks = Marks("run/metrics.csv", bool)
    training: Mapping[str, Any] = MappingProxyType({})
    """What is not by default in the section of that name."""

    def version(self) -> str:
        """Its version and the digest of its sources, which change more often."""
        digest = hashlib.sha256()
        for file in sorted(Path(pet_mlip.__file__).parent.rglob("*.py")):
            digest.update(file.read_bytes())
        return f"pet_mlip {pet_mlip.__version__}, sources {digest.hexdigest()[:8]}"

    def train(self, task: Task, folder: Path, core: int, stop: Event, say: Say) -> Trained:
        """Train for the budget, validations and checkpoints included."""
        config = {
            "data": {
                "train": str(task.data.train),
                "validation": str(task.data.validation),
                "keys": {
                    "energy": ENERGY,
                    "forces": FORCES,
                    "stress": STRESS if task.data.has_stress else None,
                },
            },
            "training": {
                "max_time": task.seconds,
                "seed": task.seed,
                **self.training,
            },
        }
        write_text(folder / "train.yaml", yaml.safe_dump(config, sort_keys=False))
        module = "benchmarks.learning.processor_clock"
        command = [sys.executable, "-m", module, "train", "train.yaml", "--output", "run"]
        for change in task.ours_set:
            command += ["--set", change]
        marks = clock.run(command, folder, core, stop, self.marks)
        points = curves.ours((folder / "run" / "metrics.csv").read_text(), marks)
        return Trained(folder / "run" / "model.pt", points, marks[-1] - marks[0])


class OursFromStart(Ours):
    """This package from the weights that it comes with."""

    name = "ours_start"
    title = "pet_mlip from organic-xtb"
    training = MappingProxyType({"init_from": "organic-xtb"})

    def version(self) -> str:
        """Its version, and the digest of the weights too."""
        weights = find_weights("organic-xtb", CHECKPOINT).read_bytes()
        return f"{super().version()}, weights {hashlib.sha256(weights).hexdigest()[:8]}"

    def missing(self) -> str | None:
        """The weights, if they are."""
        return None if "organic-xtb" in shipped() else "organic-xtb"


class Peer(Contestant):
    """A package that has to know its number of epochs beforehand."""

    script: str

    @property
    def program(self) -> Path:
        """Its command, in the environment that runs this."""
        return Path(sys.executable).parent / self.script

    def missing(self) -> str | None:
        """What of it is not installed."""
        missing = super().missing()
        if missing is None and not self.program.is_file():
            return str(self.program)
        return missing

    def train(self, task: Task, folder: Path, core: int, stop: Event, say: Say) -> Trained:
        """Find out how long an epoch takes, and train for as many as fill the budget."""
        trial = folder / "trial"
        trial.mkdir()
        _, points, _ = self.run(task, task.data.for_trial, trial, TRIAL_EPOCHS, core, stop)
        per_epoch = task.data.scale * curves.seconds_per_epoch(points)
        shutil.rmtree(trial)
        epochs = curves.epochs_for(task.seconds, per_epoch)
        say(f"{task.one.name}, {self.title}: {epochs} epochs of about {per_epoch:.1f} s.")
        run = folder / "run"
        run.mkdir()
        model, points, cpu = self.run(task, task.data, run, epochs, core, stop)
        return Trained(model, points, cpu)

    def run(
        self, task: Task, data: Prepared, folder: Path, epochs: int, core: int, stop: Event
    ) -> tuple[Path, list[Point], float]:
        """Train for some epochs: the model, the curve, and all processor time since the start."""
        command = [str(self.program), *self.arguments(task, data, folder, epochs)]
        marks = clock.run(command, folder, core, stop, self.marks)
        if len(marks) < 2:
            raise UserError(f"{self.title} wrote nothing that {self.marks.pattern} should hold")
        return self.model(folder), self.points(task, data, folder, marks), marks[-1] - marks[0]

    @abstractmethod
    def arguments(self, task: Task, data: Prepared, folder: Path, epochs: int) -> Sequence[str]:
        """Arguments of the command, which runs in the folder; writes what it reads."""

    @abstractmethod
    def points(self, task: Task, data: Prepared, folder: Path, marks: list[float]) -> list[Point]:
        """Learning curve from the files in the folder."""

    @abstractmethod
    def model(self, folder: Path) -> Path:
        """The model that it made."""


class Mace(Peer):
    """MACE: its defaults, in float32, with averaged weights and the second stage."""

    name = "mace"
    title = "MACE"
    package = "mace"
    script = "mace_run_train"
    marks = Marks("results/*_train.txt", lambda line: '"mode": "eval"' in line)

    def arguments(self, task: Task, data: Prepared, folder: Path, epochs: int) -> Sequence[str]:
        """Options of mace_run_train."""
        channels = 32 if task.one.crystal else 64
        stress = ["--loss=stress", "--compute_stress=True", f"--stress_key={STRESS}"]
        stress.append("--error_table=PerAtomRMSEstressvirials")
        start = max(1, int(STAGE_TWO * epochs))
        stage_two = ["--swa", f"--start_swa={start}"] if start < epochs else []
        return [
            "--name=mace",
            f"--seed={task.seed}",
            f"--train_file={data.train}",
            f"--valid_file={data.validation}",
            f"--energy_key={ENERGY}",
            f"--forces_key={FORCES}",
            f"--E0s={data.baseline}",
            f"--hidden_irreps={channels}x0e + {channels}x1o",
            "--r_max=5.0",
            f"--batch_size={task.one.batch}",
            f"--valid_batch_size={task.one.batch}",
            f"--max_num_epochs={epochs}",
            "--ema",
            "--amsgrad",
            "--default_dtype=float32",
            "--device=cpu",
            "--plot=False",
            # All heads: errors are found in the same way for everyone.
            "--skip_evaluate_heads=Default",
            *stage_two,
            *(stress if data.has_stress else []),
        ]

    def points(self, task: Task, data: Prepared, folder: Path, marks: list[float]) -> list[Point]:
        """Learning curve from the results file."""
        (file,) = folder.glob(self.marks.pattern)
        return curves.mace(file.read_text(), marks)

    def model(self, folder: Path) -> Path:
        """The model of the second stage, where there is one."""
        second = folder / "mace_stagetwo.model"
        return second if second.is_file() else folder / "mace.model"


class Metatrain(Peer):
    """PET by metatrain: its defaults, in float32."""

    name = "metatrain"
    title = "metatrain"
    package = "metatrain"
    script = "mtt"
    marks = Marks(
        "outputs/*/*/train.log",
        lambda line: line.endswith("- Starting training") or "- Epoch:" in line,
    )

    def arguments(self, task: Task, data: Prepared, folder: Path, epochs: int) -> Sequence[str]:
        """The options file and where the model goes."""
        options = {
            "seed": task.seed,
            "device": "cpu",
            "base_precision": 32,
            "architecture": {
                "name": "pet",
                "training": {
                    "batch_size": task.one.batch,
                    "num_epochs": epochs,
                    "num_workers": 0,
                },
            },
            "training_set": self.dataset(data.train, folder / "train.xyz", data.has_stress),
            "validation_set": self.dataset(
                data.validation, folder / "validation.xyz", data.has_stress
            ),
        }
        write_text(folder / "options.yaml", yaml.safe_dump(options, sort_keys=False))
        return ["train", "options.yaml", "-o", "model.pt"]

    def dataset(self, file: Path, copy: Path, has_stress: bool) -> dict[str, Any]:
        """A section of the options.

        Args:
            file: Structures.
            copy: To be written where some lack a stress, which metatrain reads as no numbers.
            has_stress: Whether stresses are trained on.
        """
        target: dict[str, Any] = {
            "quantity": "energy",
            "key": ENERGY,
            "unit": "eV",
            "forces": {"key": FORCES},
            "stress": {"key": STRESS} if has_stress else False,
        }
        if has_stress:
            structures = ase.io.read(file, ":")
            for atoms in structures:
                atoms.info.setdefault(STRESS, np.full((3, 3), np.nan))
            ase.io.write(copy, structures, format="extxyz")
            file = copy
        return {
            "systems": {"read_from": str(file), "length_unit": "angstrom"},
            "targets": {"energy": target},
        }

    def points(self, task: Task, data: Prepared, folder: Path, marks: list[float]) -> list[Point]:
        """Learning curve from train.csv."""
        (file,) = folder.glob("outputs/*/*/train.csv")
        text, batch = file.read_text(), task.one.batch
        return curves.metatrain(text, marks, data.n_train, data.n_validation, batch)

    def model(self, folder: Path) -> Path:
        """The exported model, which is the best one."""
        return folder / "model.pt"


CONTESTANTS: dict[str, Contestant] = {
    c.name: c for c in (Ours(), OursFromStart(), Mace(), Metatrain())
}


def choose(names: str) -> list[Contestant]:
    """The contestants that a list of names with commas between stands for.

    Args:
        names: ``all``, or some of `CONTESTANTS`.

    Raises:
        UserError: There is no such contestant, or it is not installed.
    """
    wanted = list(CONTESTANTS) if names == "all" else [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in CONTESTANTS]
    if unknown:
        raise UserError(
            f"--contestants {unknown[0]} is not known; use all or some of {', '.join(CONTESTANTS)}."
        )
    chosen = [contestant for name, contestant in CONTESTANTS.items() if name in wanted]
    for contestant in chosen:
        missing = contestant.missing()
        if missing is not None:
            raise UserError(
                f"{contestant.title} cannot take part, since {missing} is not installed; "
                "pip install -e '.[bench]' installs it, or choose other --contestants."
            )
    return chosen
