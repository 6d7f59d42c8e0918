"""The plain model and what an average adds to it: the two parts of multiple time stepping."""

from __future__ import annotations

from typing import Literal, get_args

from pet_mlip.ase.engine import Engine, Floats, Ints, Output
from pet_mlip.ase.neighbours import Edges
from pet_mlip.ase.symmetrize.modes import AnyEngine, Symmetrization
from pet_mlip.errors import UserError
from pet_mlip.export import Metadata

Part = Literal["all", "plain", "correction"]


class PlainPart:
    """The model with every atom in one frame, the identity.

    Args:
        engine: The exported model.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(
        self, numbers: Ints, edges: Edges, electronic: Ints | None, gradient: bool
    ) -> Output:
        """Evaluate a graph; arguments as for `Engine`."""
        return self.engine(numbers, edges, electronic, gradient, plain=True)


class Correction:
    """What an average over frames or orientations adds to the plain part; evaluates both.

    Args:
        average: The whole model.
        plain: Its plain part.
    """

    def __init__(self, average: AnyEngine, plain: PlainPart) -> None:
        self.average = average
        self.plain = plain

    def __call__(
        self, numbers: Ints, edges: Edges, electronic: Ints | None, gradient: bool
    ) -> Output:
        """Evaluate a graph; arguments as for `Engine`. The frames are those of the average."""
        whole = self.average(numbers, edges, electronic, gradient)
        plain = self.plain(numbers, edges, electronic, gradient)
        return Output(
            whole.energies - plain.energies,
            whole.n_frames,
            difference(whole.forces, plain.forces),
            difference(whole.virials, plain.virials),
        )


def difference(whole: Floats | None, plain: Floats | None) -> Floats | None:
    """Their difference, where both were computed."""
    return None if whole is None or plain is None else whole - plain


def engine_of(
    part: Part, engine: Engine, symmetrization: Symmetrization
) -> AnyEngine | PlainPart | Correction:
    """What evaluates a part of a model.

    Args:
        part: Which one.
        engine: The exported model.
        symmetrization: Average over orientations that "all" takes.

    Raises:
        UserError: The model has no such part.
    """
    check_part(part, engine.model.metadata, symmetrization)
    if part == "plain":
        return PlainPart(engine)
    average = symmetrization.engine(engine)
    return average if part == "all" else Correction(average, PlainPart(engine))


def check_part(part: Part, metadata: Metadata, symmetrization: Symmetrization) -> None:
    """Raise if a model has no such part, or none that means anything.

    Raises:
        UserError: Always with what to do instead.
    """
    if part not in get_args(Part):
        raise UserError(f"part {part!r} is not one of {', '.join(get_args(Part))}.")
    if part == "all":
        return
    train = metadata.symmetrization["train"]
    if train in ("sample", "full"):
        raise UserError(
            f"This model was trained in frames of its ensemble only (symmetrization.train: "
            f"{train}), so that its plain part, one frame for all atoms, means nothing; train or "
            "fine-tune it with symmetrization.train: environment."
        )
    if part == "plain":
        return
    if symmetrization.mode == "random":
        raise UserError(
            "symmetrization random turns every call at random, so that there is no fixed "
            "correction of the plain model; choose another average."
        )
    if metadata.symmetrization["inference"] == "plain" and symmetrization.mode == "none":
        raise UserError(
            "This model is evaluated as it is, without any average, so that there is no "
            "correction to it; choose a symmetrization, or do without multiple time stepping."
        )
