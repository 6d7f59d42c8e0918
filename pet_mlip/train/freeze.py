"""Parts of the network that fine-tuning leaves as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from pet_mlip.config.training import Part
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError

BACKBONE = ("embeddings", "layers")


def freeze(potential: Potential, parts: Sequence[Part]) -> None:
    """Take parts of the network out of the optimisation.

    Args:
        potential: Whose parameters stop to require gradients.
        parts: ``embeddings``, ``layers``, ``heads``, or ``backbone`` for the first two.

    Raises:
        UserError: if nothing would be left to train.
    """
    frozen, part_of = frozen_parts(parts), parts_by_name(potential)
    for name, parameter in potential.pet.named_parameters():
        if part_of[name] in frozen:
            parameter.requires_grad_(False)
    if count_parameters(potential)[0] == 0:
        raise UserError(
            f"training.freeze: {', '.join(parts)} leaves nothing to train; take a part out."
        )


def frozen_parts(parts: Sequence[Part]) -> set[str]:
    """The parts with ``backbone`` written out."""
    return {each for part in parts for each in (BACKBONE if part == "backbone" else (part,))}


def parts_by_name(potential: Potential) -> dict[str, str]:
    """``embeddings``, ``layers``, ``heads`` or ``results`` for each parameter's name in ``pet``.

    Readouts of results that are no energies are never frozen: they are what is to be learned.
    """
    heads: set[Tensor] = set(potential.pet.readouts.parameters())
    results: set[Tensor] = set(potential.pet.result_readouts.parameters())
    tables = embeddings(potential.pet)
    found = {}
    for name, parameter in potential.pet.named_parameters():
        of_table = "embeddings" if parameter in tables else "layers"
        of_backbone = "results" if parameter in results else of_table
        found[name] = "heads" if parameter in heads else of_backbone
    return found


def embeddings(module: nn.Module) -> set[Tensor]:
    """Tables of what a model looks up: elements, charges, multiplicities."""
    return {part.weight for part in module.modules() if isinstance(part, nn.Embedding)}


def count_parameters(potential: Potential) -> tuple[int, int]:
    """Numbers of trainable and of frozen weights of the network."""
    trainable = sum(p.numel() for p in potential.pet.parameters() if p.requires_grad)
    return trainable, potential.n_parameters() - trainable
