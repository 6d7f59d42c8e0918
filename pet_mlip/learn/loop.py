"""Rounds of labels, training and simulations, until a whole round of simulations passes."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ase import Atoms
from rich.console import Console

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.errors import UserError
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
from pet_mlip.learn.training import split, train_round
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
    if config.simulation.engine == "lammps":
        check_lammps()
    folder = LearnFolder(output)
    folder.prepare(config, resume, overwrite)
    if resume and (folder / START).exists():
        start = read_structures(folder / START)
    write_structures(folder / START, start)
    console = Console(stderr=True)
    with hold(folder.path), log_to(folder / "learn.log", console, LOG):
        return _Learning(config, folder, start).run()


class _Learning:
    """One call of `learn`."""

    def __init__(self, config: LearnConfig, folder: LearnFolder, start: list[Atoms]) -> None:
        self.config = config
        self.folder = folder
        self.start = start

    def run(self) -> bool:
        """Do rounds until one passes or there are no more; whether one passed."""
        first = self.folder.round(0)
        first.mkdir(exist_ok=True)
        if not (first / CHOSEN).exists():
            chosen = first_structures(self.start, self.config.first, self.config.seed)
            write_structures(first / CHOSEN, chosen)
        for number in range(self.config.rounds):
            facts = self.do_round(number)
            if facts["passed"]:
                LOG.info("All simulations of round %d passed: %s", number, self.folder / "model.pt")
                return True
            if facts["next"] == 0:
                raise UserError(
                    f"Round {number} did not pass, and its simulations have nothing new to learn "
                    "from: they were stopped at structures that make no sense. Shorten the time "
                    "step, lower selection.stop_above, or begin with more first structures."
                )
        LOG.warning(
            "The last of %d rounds did not pass; to go on: --resume with more rounds.",
            self.config.rounds,
        )
        return False

    def do_round(self, number: int) -> dict[str, Any]:
        """Label, train, simulate, and choose for the next round; its facts."""
        here = self.folder.round(number)
        if (here / DONE).exists():
            return dict(json.loads((here / DONE).read_text(encoding="utf-8")))
        seconds: dict[str, float] = {}
        began = time.monotonic()
        labels = self.label(number)
        seconds["labels"] = time.monotonic() - began
        known = self.known(number)
        began = time.monotonic()
        train_round(self.config, self.folder, number, [len(atoms) for atoms in known])
        seconds["training"] = time.monotonic() - began
        began = time.monotonic()
        validation = self.known(number, "validation.xyz")
        level = level_to_stop(self.config, here / "run" / "model.pt", validation)
        jobs = jobs_of_round(self.config, self.start, number, here, level)
        outcomes = simulate_all(self.config, jobs, self.folder.path)
        seconds["simulations"] = time.monotonic() - began
        facts = self.choose(number, jobs, outcomes)
        facts.update(
            labelled=len(labels.structures),
            failed=len(labels.failed),
            stop_above=level,
            seconds=seconds,
            outcomes=[asdict(outcome) for outcome in outcomes],
        )
        self.publish(number)
        write_text(here / DONE, json.dumps(facts, indent=1) + "\n")
        write_report(self.config, self.folder, number)
        return facts

    def label(self, number: int) -> Labels:
        """Label what was chosen for a round, and divide it into training and validation.

        Raises:
            UserError: Nearly all labels failed.
        """
        here = self.folder.round(number)
        chosen = read_structures(here / CHOSEN)
        labels = label_all(self.config, chosen, here / "labels", self.folder.path)
        least = FEWEST if number == 0 else 1
        if len(labels.structures) < least:
            reason = labels.failed[0].info["reason"] if labels.failed else "nothing was chosen"
            raise UserError(
                f"Of the {len(chosen)} structures of round {number} only "
                f"{len(labels.structures)} could be labelled; the first failure: {reason}. "
                f"Mend the reference, delete {here / 'labels'}, and use --resume."
            )
        stay = min(len(self.start), len(labels.structures) - 2) if number == 0 else 0
        training, validation = split(labels.structures, self.config.training.validation, stay)
        write_structures(here / "failed.xyz", labels.failed)
        write_structures(here / "validation.xyz", validation)
        write_structures(here / "train.xyz", training)
        return labels

    def known(self, number: int, name: str = "train.xyz") -> list[Atoms]:
        """All training structures, or others, up to a round."""
        parts = (read_structures(self.folder.round(k) / name) for k in range(number + 1))
        return [atoms for part in parts for atoms in part]

    def choose(
        self, number: int, jobs: Sequence[Job], outcomes: Sequence[Outcome]
    ) -> dict[str, Any]:
        """Look at a round's simulations, and write what the next round labels."""
        selection = self.config.selection
        looks = [read_looks(job) for job in jobs]
        worst = [[worst_uncertainty(atoms) for atoms in of_job] for of_job in looks]
        candidates: list[Atoms] = []
        n_above = 0
        for job, of_job, values in zip(jobs, looks, worst, strict=True):
            above = [k for k, value in enumerate(values) if value > selection.record_above]
            n_above += len(above)
            if not above and outcomes[jobs.index(job)].stopped is not None:
                above = [max(range(len(values)), key=values.__getitem__)]
            candidates += [
                _candidate(of_job[k], job, number)
                for k in above
                if why_absurd(of_job[k], self.config.reference.max_force) is None
            ]
        n_looks = sum(len(values) for values in worst)
        stopped = [outcome for outcome in outcomes if outcome.stopped is not None]
        passed = not stopped and n_above <= selection.tolerance * n_looks
        chosen: list[Atoms] = []
        if not passed:
            chosen = self.farthest(number, candidates)
            following = self.folder.round(number + 1)
            following.mkdir(exist_ok=True)
            write_structures(following / CHOSEN, chosen)
        LOG.info(
            "Round %d: %d of %d simulations were stopped, %d of %d looks found a force more "
            "uncertain than %g eV/Å%s.",
            *(number, len(stopped), len(outcomes), n_above, n_looks, selection.record_above),
            f"; {len(chosen)} structures are learned from next" if chosen else "",
        )
        return {
            "round": number,
            "passed": passed,
            "looks": n_looks,
            "above": n_above,
            "worst": worst,
            "next": len(chosen),
        }

    def farthest(self, number: int, candidates: list[Atoms]) -> list[Atoms]:
        """Choose among candidates those that are the farthest from all that is known."""
        step = -(-len(candidates) // MOST_CANDIDATES)
        candidates = candidates[:: max(step, 1)]
        model = self.folder.round(number) / "run" / "model.pt"
        known = self.known(number) + self.known(number, "validation.xyz")
        count = self.config.selection.structures
        places = farthest_structures(PETCalculator(model), known, candidates, count)
        return [candidates[k] for k in places]

    def publish(self, number: int) -> None:
        """Put model and labels of the latest round where they are easily found."""
        with replacing(self.folder / "model.pt") as temporary:
            shutil.copyfile(self.folder.round(number) / "run" / "model.pt", temporary)
        for name in ("train.xyz", "validation.xyz", "failed.xyz"):
            write_structures(self.folder / name, self.known(number, name))


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
