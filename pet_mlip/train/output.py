"""The output folder of a training: who may write there, the log, and the table of metrics."""

from __future__ import annotations

import csv
import io
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.table import Table

from pet_mlip.errors import UserError
from pet_mlip.files import check_writable, write_text, writing

LOG = logging.getLogger("pet_mlip")
FILES = ("config.yaml", "train.log", "metrics.csv", "last.ckpt", "best.ckpt", "model.pt")
COLUMNS = (
    "epoch",
    "step",
    "lr",
    "elapsed",
    "train_loss",
    "gradient_norm",
    "val_loss",
    "energy_mae",
    "energy_rmse",
    "forces_mae",
    "forces_rmse",
    "stress_mae",
    "stress_rmse",
)


class Output:
    """Paths and permissions of one output folder.

    Args:
        folder: Created if need be.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def prepare(self, resume: bool, overwrite: bool) -> None:
        """Make the folder ready for a new training or for a resumed one.

        Raises:
            UserError: if there is a training already, or none to resume.
        """
        if resume and overwrite:
            raise UserError("Give --resume or --overwrite, not both.")
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file; give a folder as --output.")
        if resume:
            self._check_resumable()
        elif self._is_occupied():
            if not overwrite:
                raise UserError(self._occupied())
            self._clear()
        check_writable(self.folder)

    def _is_occupied(self) -> bool:
        """Whether there is anything to lose: a first try that never began to train left a log."""
        if any((self / name).exists() for name in FILES[2:]):
            return True
        return (self / "config.yaml").exists() and not (self / "train.log").exists()

    def _check_resumable(self) -> None:
        if not (self / "last.ckpt").is_file():
            raise UserError(
                f"There is nothing to resume: {self.folder} holds no last.ckpt; leave --resume out "
                "to start a training there."
            )

    def _occupied(self) -> str:
        if (self / "model.pt").exists():
            return (
                f"{self.folder} holds a finished training; use another --output, --resume to train "
                "on (with more epochs or time), or --overwrite to delete it."
            )
        if (self / "last.ckpt").exists():
            return (
                f"{self.folder} holds an unfinished training; use --resume to continue it, another "
                "--output, or --overwrite to delete it."
            )
        return (
            f"{self.folder} holds files that a training would replace (such as config.yaml); use "
            "--overwrite to delete them, or another --output."
        )

    def _clear(self) -> None:
        for name in FILES:
            (self / name).unlink(missing_ok=True)
        for name in ("report", "tensorboard", "wandb"):
            shutil.rmtree(self / name, ignore_errors=True)


class MetricsTable:
    """``metrics.csv``: one row per epoch, rewritten without the rows that a resumed run repeats.

    Args:
        path: The file.
        results: Names of results that are no energies, which have columns too.
    """

    def __init__(self, path: Path, results: Sequence[str] = ()) -> None:
        self.path = path
        errors = (f"{name}_{kind}" for name in results for kind in ("mae", "rmse"))
        self.columns = (*COLUMNS, *errors)

    def start(self, epoch: int) -> None:
        """Keep the rows of the completed epochs only."""
        kept = [row for row in self.rows() if row["epoch"] <= epoch]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(row[key]) for key in self.columns} for row in kept)
        write_text(self.path, text.getvalue())

    def append(self, row: dict[str, float]) -> None:
        """Add one epoch."""
        with writing(self.path), open(self.path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writerow({key: _cell(row.get(key, math.nan)) for key in self.columns})

    def rows(self) -> list[dict[str, float]]:
        """All complete rows; empty cells (no label of that kind, no validation) are nan."""
        if not self.path.exists():
            return []
        with open(self.path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        # A process killed while writing leaves half a line, whose epoch will be repeated.
        complete = [row for row in rows if None not in row.values() and None not in row]
        return [{key: float(cell or "nan") for key, cell in row.items()} for row in complete]


def _cell(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else f"{value:.8g}"


@contextmanager
def log_to(path: Path, console: Console | None, log: logging.Logger = LOG) -> Iterator[None]:
    """Send this package's log, or another one, to a file and a console; nowhere without console."""
    handlers: Sequence[logging.Handler] = [logging.NullHandler()]
    if console is not None:
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        terminal = RichHandler(
            console=console,
            show_path=False,
            show_level=False,
            log_time_format="%H:%M:%S",
            highlighter=NullHighlighter(),
        )
        handlers = [file, terminal]
    level, propagate = log.level, log.propagate
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
        log.setLevel(level)
        log.propagate = propagate


def log_table(table: Table) -> None:
    """Write a table into the log."""
    text = io.StringIO()
    Console(file=text, width=100).print(table)
    LOG.info("%s", text.getvalue().rstrip())
