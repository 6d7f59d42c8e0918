"""The choice of an average over orientations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from pet_mlip.ase.engine import Engine
from pet_mlip.ase.symmetrize.rotations import (
    LEBEDEV_DEGREES,
    RandomRotation,
    RotationAverage,
    quadrature,
)
from pet_mlip.ase.symmetrize.structure import StructureAverage
from pet_mlip.errors import UserError
from pet_mlip.export.metadata import Orientations

AnyEngine = Engine | StructureAverage | RotationAverage | RandomRotation


@dataclass(frozen=True)
class Symmetrization:
    """How a model that is not invariant is made so, exactly or approximately.

    Attributes:
        mode: "none": evaluate as it is. "structure": exact and smooth; each atom's energy in the
            frames that its neighbours define. "quadrature": average over a fixed set of
            orientations, approximate. "random": one random orientation in every call.
        degree: Of "quadrature": angular degree up to which the average is exact.
        seed: Of "random".
    """

    mode: str = "structure"
    degree: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        modes = get_args(Orientations)
        if self.mode not in modes:
            raise UserError(f"symmetrization {self.mode!r} is not one of {', '.join(modes)}.")
        if self.seed < 0:
            raise UserError(f"seed {self.seed} is negative; give a number from 0 on.")
        if not 0 <= self.degree <= max(LEBEDEV_DEGREES):
            raise UserError(f"degree {self.degree} is not between 0 and {max(LEBEDEV_DEGREES)}.")

    @classmethod
    def parse(cls, text: str) -> Symmetrization:
        """Read MODE, or MODE:CHOICE with what some modes let one choose: a degree or a seed.

        Raises:
            UserError: It is none of these.
        """
        mode, colon, choice = text.strip().partition(":")
        if not colon:
            return cls(mode)
        if mode == "quadrature" and choice.isdecimal():
            return cls(mode, degree=int(choice))
        if mode == "random" and choice.isdecimal():
            return cls(mode, seed=int(choice))
        raise UserError(
            f"symmetrization {text.strip()!r} is not known; use none, structure, "
            "quadrature[:DEGREE] or random[:SEED]."
        )

    def __str__(self) -> str:
        """The text that `parse` reads, with every choice spelled out."""
        choice = {"quadrature": self.degree, "random": self.seed}
        return f"{self.mode}:{choice[self.mode]}" if self.mode in choice else self.mode

    def engine(self, engine: Engine) -> AnyEngine:
        """The average of a model's predictions.

        Raises:
            UserError: The model averages over the frames of each environment already.
        """
        if self.mode == "none":
            return engine
        if engine.model.metadata.symmetrization["inference"] != "plain":
            raise UserError(
                "This model is invariant already: it averages over the frames of each environment "
                f"itself; leave out symmetrization={self.mode!r}."
            )
        if self.mode == "structure":
            return StructureAverage(engine)
        if self.mode == "quadrature":
            return RotationAverage(engine, *quadrature(self.degree))
        return RandomRotation(engine, self.seed)


def declared(symmetrization: dict[str, Any]) -> Symmetrization:
    """What an exported file asks for in its metadata."""
    return Symmetrization(symmetrization.get("orientations", "none"))
