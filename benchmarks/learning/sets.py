"""What is learned: names, files, budgets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pet_mlip.errors import UserError


@dataclass(frozen=True)
class LearningSet:
    """Files of one data set, below the data root."""

    name: str
    train: str
    tests: dict[str, str]
    """Files by name."""
    minutes: float
    """Default budget."""
    batch: int
    """Structures in a batch of the peers; this package chooses itself."""
    validation: str | None = None
    """A file; without one, a tenth of the training structures is set aside."""
    crystal: bool = False
    """Whether MACE gets the narrower of its two networks."""
    apart: str | None = None
    """``config_type`` of test structures that are a test set of their own."""

    def files(self) -> list[str]:
        """All of them."""
        validation = [] if self.validation is None else [self.validation]
        return [self.train, *validation, *self.tests.values()]


def _mlearn(element: str, minutes: float, suffix: str = "") -> LearningSet:
    folder = f"mlearn/{element}"
    return LearningSet(
        f"mlearn_{element}",
        f"{folder}/train.xyz{suffix}",
        {"test": f"{folder}/test.xyz"},
        minutes,
        batch=2,
        crystal=True,
    )


SETS = {
    one.name: one
    for one in (
        LearningSet(
            "acac",
            "acac/train.xyz",
            {"300K": "acac/test_300K.xyz", "600K": "acac/test_600K.xyz"},
            30,
            batch=4,
            validation="acac/val.xyz",
        ),
        LearningSet(
            "aspirin",
            "rmd17/aspirin/train.xyz.gz",
            {"test": "rmd17/aspirin/test.xyz.gz"},
            60,
            batch=4,
            validation="rmd17/aspirin/val.xyz",
        ),
        LearningSet(
            "ethanol",
            "rmd17/ethanol/train.xyz",
            {"test": "rmd17/ethanol/test.xyz"},
            30,
            batch=4,
            validation="rmd17/ethanol/val.xyz",
        ),
        LearningSet(
            "3bpa",
            "3bpa/train.xyz",
            {f"{t}K": f"3bpa/proxy_test_{t}K.xyz" for t in (300, 600, 1200)},
            60,
            batch=4,
            validation="3bpa/val.xyz",
        ),
        _mlearn("Si", 20),
        _mlearn("Cu", 30, ".gz"),
        _mlearn("Mo", 20),
        _mlearn("Li", 12),
        _mlearn("Ni", 30, ".gz"),
        LearningSet(
            "water",
            "water/train.xyz.gz",
            {"test": "water/test.xyz"},
            60,
            batch=1,
            validation="water/val.xyz",
            crystal=True,
        ),
        LearningSet(
            "nbmotaw",
            "nbmotaw/train.xyz.gz",
            {"test": "nbmotaw/test.xyz"},
            60,
            batch=8,
            validation="nbmotaw/val.xyz",
            crystal=True,
            apart="Multinary_Test",
        ),
    )
}


def choose(names: str, data: Path) -> list[LearningSet]:
    """The sets that a list of names with commas between stands for, whose files must be there.

    Args:
        names: ``all``, or some of `SETS`.
        data: The data root.

    Raises:
        UserError: There is no such set, or a file of it is missing.
    """
    wanted = list(SETS) if names == "all" else [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in SETS]
    if unknown:
        raise UserError(f"--sets {unknown[0]} is not known; use all or some of {', '.join(SETS)}.")
    chosen = [SETS[name] for name in dict.fromkeys(wanted)]
    for one in chosen:
        for file in one.files():
            if not (data / file).is_file():
                raise UserError(
                    f"{data / file}, which {one.name} needs, is not there; give the folder of the "
                    "data sets as --data, or other --sets."
                )
    return chosen
