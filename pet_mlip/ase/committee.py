"""Several models at once: their mean, and how far they are from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pet_mlip.ase.engine import Engine, Floats, Ints, Output, Uncertainty
from pet_mlip.errors import UserError
from pet_mlip.export import LoadedModel, Metadata
from pet_mlip.graph.graph import Graph


class Committee:
    """An engine whose answer is the mean of those of M others.

    Uncertainties are standard deviations over the models, with M - 1 in the denominator. They cost
    nothing: all models are evaluated anyway.

    Args:
        engines: Of models that `joint_metadata` accepts.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = list(engines)

    @property
    def model(self) -> LoadedModel:
        """The first one, on whose device neighbours are found."""
        return self.engines[0].model

    def __call__(self, graph: Graph, gradient: bool, uncertainty: int = 0) -> Output:
        """Evaluate a graph; arguments as for `Engine`."""
        of_forces = uncertainty > 1
        found = [e(graph, gradient or of_forces) for e in self.engines]
        energies = np.stack([output.energies for output in found])
        forces = _stacked([output.forces for output in found])
        virials = _stacked([output.virials for output in found])
        deviation = None
        if uncertainty > 0:
            # The norm of a sum of these over atoms is the deviation of a sum of energies.
            vectors = (energies - energies.mean(axis=0)).T / np.sqrt(len(found) - 1)
            per_atom = None
            if of_forces and forces is not None:
                per_atom = np.sqrt(forces.var(axis=0, ddof=1).mean(axis=1))
            deviation = Uncertainty(vectors, per_atom)
        return Output(
            energies.mean(axis=0),
            np.sum([output.n_frames for output in found], axis=0),
            None if forces is None else forces.mean(axis=0),
            None if virials is None else virials.mean(axis=0),
            {k: np.mean([o.results[k] for o in found], axis=0) for k in found[0].results},
            deviation,
        )

    def features(self, numbers: Ints, uncertainty: Uncertainty) -> Floats:
        """Tell how far atoms are from the training data: as far as the models disagree."""
        return uncertainty.vectors

    def in_float64(self) -> Committee:
        """Return a committee of the same models that evaluates them in float64."""
        return Committee([engine.in_float64() for engine in self.engines])

    def __deepcopy__(self, memo: dict[int, Any]) -> Committee:
        return Committee(self.engines)  # nothing ever changes a loaded model


def joint_metadata(models: Sequence[LoadedModel]) -> Metadata:
    """Make the metadata of several models: those of the first, with what reaches farthest.

    Raises:
        UserError: They cannot be averaged: there are fewer than two, or they differ in elements, in
            results, in what they know of the electronic state, or in what their labels lacked.
    """
    if len(models) < 2:
        raise UserError("A committee takes two models or more.")
    first = models[0].metadata
    for k, model in enumerate(models):
        other = model.metadata
        if sorted(other.species) != sorted(first.species):
            raise UserError(f"Model {k} of the committee knows other elements than the first.")
        if other.results != first.results:
            raise UserError(f"Model {k} of the committee predicts other results than the first.")
        if other.subtracted != first.subtracted:
            raise UserError(
                f"Model {k} of the committee learned labels without {other.subtracted}, the first "
                f"without {first.subtracted}."
            )
        if _state(other) != _state(first):
            raise UserError(
                f"Model {k} of the committee depends on charge and spin in another way than the "
                "first."
            )
        if other.symmetrization.get("orientations", "none") != "none":
            raise UserError(
                f"Model {k} of the committee asks for an average over orientations, which a "
                "committee does not take; export it with --symmetrization none."
            )
    every = [model.metadata for model in models]
    return replace(
        first,
        cutoff=max(metadata.cutoff for metadata in every),
        interaction_range=max(metadata.interaction_range for metadata in every),
    )


def _state(metadata: Metadata) -> tuple[Any, ...]:
    """What a model knows of the electronic state."""
    names = ("system_conditioning", "max_charge", "max_spin_multiplicity")
    known = tuple(metadata.hypers.get(name) for name in names)
    return known if known[0] else (False,)


def _stacked(values: Sequence[Floats | None]) -> Floats | None:
    known = [value for value in values if value is not None]
    return np.stack(known) if known else None
