"""Rounds of labels, training and simulations, until a whole round of simulations passes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from rich.console import Console

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export.archive import choose_device
from pet_mlip.files import replacing, write_text
from pet_mlip.learn.config import LearnConfig
from pet_mlip.learn.files import read_structures, write_structures
from pet_mlip.learn.folder import START, LearnFolder
from pet_mlip.learn.job import Job, Outcome, why_absurd, worst_uncertainty
from pet_mlip.learn.labelling import Labels, label_all
from pet_mlip.learn.lammps import check_lammps
from pet_mlip.learn.log import LOG
from pet_mlip.learn.reference import check_reference
from pet_mlip.learn.report import write_report
from pet_mlip.learn.selection import farthest_structures
from pet_mlip.learn.simulations import jobs_of_round, level_to_stop, read_looks, simulate_all
from pet_mlip.learn.start import first_structures, read_start
from pet_mlip.learn.training import check_training, split, train_round
from pet_mlip.learn.workers import hold
from pet_mlip.train.output import log_to

CHOSEN, DONE = "chosen.xyz", "round.json"
FEWEST = 4
"""Labels of the first round without which there is no use in training."""
MOST_CANDIDATES = 500
"""Of a round; more are thinned out evenly, so that choosing among them takes no time."""


def learn(
    config: LearnConfig, output: str | Path, *, resume: bool = False, overwrite: bool = False
) -> bool:
    """Learn a potential on the fly, everything in one folder.

    Each step is written before the next one begins, and what was written is not done again: a
    learning that was killed at any point and is continued ends as one that was not.

    Args:
        config: What to learn, and from what.
        output: Folder for everything that is written.
        resume: Continue the learning in that folder.
        overwrite: Delete a learning in that folder first.

    Returns:
        Whether simulations passed; there may be rounds to add otherwise.

    Raises:
        UserError: For mistakes in the configuration, the files, the folder, or the reference.
        TrainingInterrupted: After SIGINT or SIGTERM in a training.
    """
    start = read_start(config)
    check_reference(config.reference)
    check_training(config)
    choose_device(config.simulation.device)
    if config.simulation.engine == "lammps":
        check_lammps()
    folder = LearnFolder(output)
    folder.check(resume, overwrite)
    with hold(folder.path):
        folder.prepare(config, resume)
        if (folder / START).exists():
            before = read_structures(folder / START)
            if not _are_same(start, before):
                raise UserError(
                    f"The structures in start are not those that the learning in {folder.path} "
                    f"began with, which are in {folder / START}; use these, or another --output."
                )
            start = before
        else:
            write_structures(folder / START, start)
        with log_to(folder / "learn.log", Console(stderr=True), LOG):
            return _Learning(config, folder, start).run()


def _are_same(structures: Sequence[Atoms], others: Sequence[Atoms]) -> bool:
    """Whether structures are equal, but for the digits that files keep."""
    return len(structures) == len(others) and all(
        np.array_equal(a.numbers, b.numbers)
        and np.array_equal(a.pbc, b.pbc)
        and np.allclose(a.positions, b.positions, rtol=0, atol=1e-6)
        and np.allclose(a.cell.array, b.cell.array, rtol=0, atol=1e-6)
        for a, b in zip(structures, others, strict=True)
    )


class _Learning:
    """One call of `learn`."""

    def __init__(self, config: LearnConfig, folder: LearnFolder, start: list[Atoms]) -> None:
        self.config = config
        self.folder = folder
        self.start = start

    def run(self) -> bool:
        """Do rounds until one passes or there are no more; whether one passed."""
        first = self.folder.first
        first.mkdir(exist_ok=True)
        if not (first / CHOSEN).exists():
            chosen = first_structures(self.start, self.config.first, self.config.seed)
            write_structures(first / CHOSEN, chosen)
        self.label(first, FEWEST)
        correction = 1.0
        for number in range(self.config.rounds):
            facts = self.do_round(number, correction)
            correction = facts["correction"]
            if facts["passed"]:
                # Once more, if the program was killed before it was written.
                write_report(self.config, self.folder, number)
                LOG.info("Round %d passed: %s", number, self.folder / "model.pt")
                return True
        LOG.warning(
            "The last of %d rounds did not pass; to go on: --resume with more rounds.",
            self.config.rounds,
        )
        return False

    def do_round(self, number: int, correction: float) -> dict[str, Any]:
        """Train, simulate, choose, label, and judge; return the round's facts.

        Args:
            number: Of the round.
            correction: By how much the errors that the round before found exceed uncertainties.
        """
        here = self.folder.round(number)
        if (here / DONE).exists():
            return dict(json.loads((here / DONE).read_text(encoding="utf-8")))
        known = self.known(number)
        clock = _Clock()
        train_round(self.config, self.folder, number, [len(atoms) for atoms in known])
        clock.lap("training")
        validation = self.known(number, "validation.xyz")
        level = level_to_stop(self.config, here / "run" / "model.pt", validation, correction)
        jobs = jobs_of_round(self.config, self.start, number, here, level)
        outcomes = simulate_all(self.config, jobs, self.folder.path)
        clock.lap("simulations")
        looks = [read_looks(job) for job in jobs]
        if not (here / CHOSEN).exists():
            chosen = self.choose(number, jobs, looks, outcomes, correction)
            write_structures(here / CHOSEN, chosen)
        labels = self.label(here, 1)
        clock.lap("labels")
        correction = correction_by(labels.structures)
        worst = [[worst_uncertainty(atoms) for atoms in of_job] for of_job in looks]
        passed, n_above = self.judge(worst, outcomes, correction)
        LOG.info(
            "Round %d: %d of %d simulations were stopped; errors of %d new labels are %.2g times "
            "their uncertainties; by that, %d of %d looks found a force more uncertain than "
            "%g eV/Å.",
            *(number, sum(o.stopped is not None for o in outcomes), len(outcomes)),
            *(len(labels.structures), correction, n_above, sum(len(w) for w in worst)),
            self.config.selection.record_above,
        )
        facts = {
            "round": number,
            "passed": passed,
            "looks": sum(len(values) for values in worst),
            "above": n_above,
            "correction": correction,
            "stop_above": level,
            "worst": worst,
            "outcomes": [asdict(outcome) for outcome in outcomes],
            "seconds": clock.seconds,
        }
        self.publish(number)
        write_text(here / DONE, json.dumps(facts, indent=1) + "\n")
        write_report(self.config, self.folder, number)
        return facts

    def label(self, part: Path, least: int) -> Labels:
        """Label what was chosen, and divide it into training and validation.

        Args:
            part: Folder of a round, or of the first labels.
            least: Labels without which there is no use in going on.

        Raises:
            UserError: There are fewer.
        """
        chosen = read_structures(part / CHOSEN)
        labels = label_all(self.config, chosen, part / "labels", self.folder.path)
        if len(labels.structures) < least:
            reason = labels.failed[0].info["reason"] if labels.failed else "nothing was chosen"
            raise UserError(
                f"Of {len(chosen)} structures only {len(labels.structures)} could be labelled; the "
                f"first failure: {reason}. Mend the reference, delete {part / 'labels'}, and use "
                "--resume."
            )
        stay = 0
        if part == self.folder.first:  # the given structures are known to the model in any case
            stay = min(len(self.start), len(labels.structures) - 2)
        training, validation = split(labels.structures, self.config.training.validation, stay)
        write_structures(part / "failed.xyz", labels.failed)
        write_structures(part / "validation.xyz", validation)
        write_structures(part / "train.xyz", training)
        return labels

    def known(self, number: int, name: str = "train.xyz") -> list[Atoms]:
        """All training structures, or others, that a round's model learns from."""
        parts = (read_structures(part / name) for part in self.folder.known_to(number))
        return [atoms for part in parts for atoms in part]

    def choose(
        self,
        number: int,
        jobs: Sequence[Job],
        looks: Sequence[Sequence[Atoms]],
        outcomes: Sequence[Outcome],
        correction: float,
    ) -> list[Atoms]:
        """Choose among the structures of a round's simulations those to be labelled.

        Those that are too uncertain, the farthest from all that is known first. Where these are few
        the farthest of all looks: their labels tell whether uncertainties can be believed.

        Raises:
            UserError: No simulation had a structure that makes sense.
        """
        selection = self.config.selection
        most = self.config.reference.max_force
        sane = [
            _candidate(atoms, job, number)
            for job, of_job in zip(jobs, looks, strict=True)
            for atoms in of_job
            if why_absurd(atoms, most) is None
        ]
        if not sane:
            raise UserError(
                f"All simulations of round {number} began with structures that make no sense to "
                "the model; begin with more first structures, or train for more steps."
            )
        limit = selection.record_above / correction
        uncertain = [atoms for atoms in sane if worst_uncertainty(atoms) > limit]
        quiet = not uncertain and all(outcome.stopped is None for outcome in outcomes)
        count = selection.checks if quiet else selection.structures
        pool = uncertain if len(uncertain) >= count else sane
        pool = pool[:: -(-len(pool) // MOST_CANDIDATES)]
        known = self.known(number) + self.known(number, "validation.xyz")
        calculator = PETCalculator(
            self.folder.round(number) / "run" / "model.pt", device=self.config.simulation.device
        )
        return [pool[k] for k in farthest_structures(calculator, known, pool, count)]

    def judge(
        self, worst: Sequence[Sequence[float]], outcomes: Sequence[Outcome], correction: float
    ) -> tuple[bool, int]:
        """Whether a round passed, and how many looks found too large an uncertainty."""
        selection = self.config.selection
        limit = selection.record_above / correction
        n_above = sum(value > limit for values in worst for value in values)
        n_looks = sum(len(values) for values in worst)
        went_through = all(outcome.stopped is None for outcome in outcomes)
        return went_through and n_above <= selection.tolerance * n_looks, n_above

    def publish(self, number: int) -> None:
        """Put the latest model, and all labels, where they are easily found."""
        with replacing(self.folder / "model.pt") as temporary:
            shutil.copyfile(self.folder.round(number) / "run" / "model.pt", temporary)
        for name in ("train.xyz", "validation.xyz", "failed.xyz"):
            write_structures(self.folder / name, self.known(number + 1, name))


class _Clock:
    """Seconds that parts of a round took, as far as this program did them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def lap(self, name: str) -> None:
        """End a part."""
        now = time.monotonic()
        self.seconds[name] = now - self._began
        self._began = now


def correction_by(labelled: Sequence[Atoms]) -> float:
    """How many times larger than their uncertainties errors of forces are, and 1 at least.

    Args:
        labelled: With predictions, their uncertainties, and labels.
    """
    errors = np.concatenate([a.get_forces() - a.arrays["predicted_forces"] for a in labelled])
    expected = np.concatenate([a.arrays["forces_uncertainty"] for a in labelled])
    # By symmetry there may be no forces at all.
    smallest = 1e-6
    return max(
        float(np.sqrt(np.mean(errors**2)) / max(np.sqrt(np.mean(expected**2)), smallest)), 1.0
    )


def _candidate(atoms: Atoms, job: Job, number: int) -> Atoms:
    """A structure to be labelled, with what the model said of it."""
    copy: Atoms = atoms.copy()
    copy.calc = None
    copy.arrays.pop("momenta", None)
    copy.arrays["predicted_forces"] = atoms.get_forces()
    settings = job.settings
    copy.info.setdefault("config_type", f"{settings.temperature:g}K")
    copy.info.update(round=number, simulation=job.folder.name)
    return copy
