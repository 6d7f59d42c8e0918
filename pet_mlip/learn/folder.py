"""The folder of a learning: where things are, and whether they may be written there."""

from __future__ import annotations

import shutil
from pathlib import Path

from pet_mlip.config.differences import differences
from pet_mlip.config.load import read_yaml, validate_as
from pet_mlip.errors import UserError
from pet_mlip.files import check_writable, write_text
from pet_mlip.learn.config import LearnConfig

CONFIG, START = "config.yaml", "start.xyz"
FREE = {
    "start",  # the structures themselves are compared
    "isolated_atoms",
    "reference.files",
    "rounds",
    "test",
    "logging",
    "reference.processes",
    "reference.dask",
    "reference.timeout",
    "simulation.processes",
}
"""Keys that may change when a learning is continued."""
FILES = (
    *(CONFIG, START, "learn.log", "report.md", "learning.png", "uncertainty.png"),
    *("train.xyz", "validation.xyz", "failed.xyz", "model.pt"),
)


class LearnFolder:
    """Paths and permissions.

    Args:
        path: Created if need be.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def round(self, number: int) -> Path:
        """The folder of a round."""
        return self.path / f"round_{number:02d}"

    @property
    def first(self) -> Path:
        """The folder of the labels that the first training learns from."""
        return self.path / "first"

    def known_to(self, number: int) -> list[Path]:
        """The folders with the labels that a round's model learns from."""
        return [self.first, *(self.round(k) for k in range(number))]

    def check(self, resume: bool, overwrite: bool) -> None:
        """Make the folder, unless there is a reason not to work in it.

        Raises:
            UserError: There is a learning already, or none to continue, or it cannot be written to.
        """
        if resume and overwrite:
            raise UserError("Give --resume or --overwrite, not both.")
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; give a folder as --output.")
        if resume and not (self.path / CONFIG).is_file():
            raise UserError(
                f"There is nothing to resume: {self.path} holds no {CONFIG}; leave --resume out."
            )
        occupied = any((self.path / name).exists() for name in FILES) or bool(self._parts())
        if occupied and not resume and not overwrite:
            raise UserError(
                f"{self.path} holds a learning, or files that one would replace; use --resume to "
                "continue it, another --output, or --overwrite to delete it."
            )
        check_writable(self.path)

    def prepare(self, config: LearnConfig, resume: bool) -> None:
        """Delete what is not continued, and write the configuration.

        Raises:
            UserError: The learning to continue is another one.
        """
        if resume:
            self._check_same(config)
        else:
            self._clear()
        write_text(self.path / CONFIG, config.to_yaml())

    def _check_same(self, config: LearnConfig) -> None:
        written = self.path / CONFIG
        before = validate_as(LearnConfig, read_yaml(written), str(written))
        changed = [
            f"{path} (was {old!r}, is {new!r})"
            for path, old, new in differences(before.model_dump(), config.model_dump())
            if not any(path == free or path.startswith(f"{free}.") for free in FREE)
        ]
        if changed:
            raise UserError(
                f"This configuration is not the one of the learning to resume: "
                f"{', '.join(changed)}; use {written}, or another --output."
            )

    def _parts(self) -> list[Path]:
        """Folders of a learning that are there."""
        return [path for path in (self.first, *self.path.glob("round_[0-9]*")) if path.is_dir()]

    def _clear(self) -> None:
        for name in FILES:
            (self.path / name).unlink(missing_ok=True)
        for part in self._parts():
            shutil.rmtree(part)
