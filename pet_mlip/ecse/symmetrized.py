"""Any module that reads padded environments, made exactly invariant or covariant."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pet_mlip.ecse.covariant import fade_out_axes, rotate_back
from pet_mlip.ecse.ensembles import make_ensemble
from pet_mlip.ecse.frames import Frames
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.ecse.training import Mode, training_frames
from pet_mlip.errors import UserError
from pet_mlip.graph.cutoff import cutoff_switch
from pet_mlip.graph.environment import Environment, build_environment
from pet_mlip.graph.graph import Graph, check_order, pad_edges


class Backbone(Protocol):
    """What `Symmetrized` evaluates: usually a `torch.nn.Module` with this ``forward``.

    It may depend on directions in any way it likes. It must treat each row by itself, not depend
    on the order of the M places, and multiply whatever comes from a place by its switch or a
    function of it that vanishes with it, so that padding (switch 0) and neighbours at the cutoff
    leave no trace. M may be 0.
    """

    def __call__(
        self, vectors: Tensor, distance: Tensor, switch: Tensor, species: Tensor, centre: Tensor
    ) -> Any:
        """Evaluate P environments of up to M neighbours.

        Args:
            vectors: Neighbours in the coordinates of a frame, Å, (P, M, 3). Of a linear
                environment only the first coordinate is there, of an isolated atom none.
            distance: Their distances, in full in every frame, Å, (P, M).
            switch: Smooth cutoff switch, 1 inside, 0 at the cutoff and in empty places, (P, M).
            species: Atomic numbers of the neighbours, (P, M) int64; some valid one if empty.
            centre: Atomic numbers of the central atoms, (P,) int64.

        Returns:
            A tensor if one output was declared, else a mapping or a NamedTuple of them. Scalars
            have shape (P, ...), vectors (P, ..., 3) and tensors (P, ..., 3, 3), in the frame's
            coordinates.
        """


class Neighbourhood(NamedTuple):
    """Padded environments of N atoms with their species."""

    environment: Environment
    species: Tensor
    """Atomic numbers of the neighbours, (N, M) int64."""
    centre: Tensor
    """Atomic numbers of the atoms, (N,) int64."""


class Symmetrized(nn.Module):
    """A backbone averaged over the frames of an ensemble; per-atom outputs are exactly covariant.

    In ``eval`` mode every frame of the ensemble is evaluated. In ``train`` mode the frames are
    those of ``train``; `torch.manual_seed` makes them reproducible. Geometry, frames
    and averages are float64; the backbone gets its own dtype, that of its first parameter.

    Args:
        backbone: The module; see `Backbone`.
        cutoff: Radius of the environments in Å.
        outputs: Rank of each output: 0 (scalar), 1 (polar vector) or 2 (tensor).
        cutoff_width: Range in Å before the cutoff over which the switch falls.
        cutoff_function: ``Bump`` or ``Cosine``.
        symmetrization: Frame ensemble.
        train: Frames in training: ``full`` (the ensemble), ``sample`` (one of its frames per atom,
            drawn with its weight), or one random O(3) matrix per atom (``environment``) or
            structure (``structure``).

    Raises:
        UserError: The cutoff, its width or a rank makes no sense.
    """

    def __init__(
        self,
        backbone: Backbone,
        cutoff: float,
        outputs: Mapping[str, int],
        *,
        cutoff_width: float = 0.5,
        cutoff_function: Literal["Bump", "Cosine"] = "Bump",
        symmetrization: SymmetrizationHypers | None = None,
        train: Mode = "full",
    ) -> None:
        super().__init__()
        if not 0.0 < cutoff_width <= cutoff < float("inf"):
            raise UserError(
                f"cutoff {cutoff} and cutoff_width {cutoff_width}: both must be positive, "
                "and the width no larger than the cutoff."
            )
        if not outputs:
            raise UserError('outputs is empty: name the rank of each, such as {"energy": 0}.')
        for name, rank in outputs.items():
            if rank not in (0, 1, 2):
                raise UserError(
                    f"Output {name} has rank {rank}: it must be 0 (scalar), 1 (vector) or "
                    "2 (tensor)."
                )
        self.backbone = backbone
        self.cutoff = cutoff
        self.cutoff_width = cutoff_width
        self.cutoff_function = cutoff_function
        self.outputs = dict(outputs)
        self.symmetrization = symmetrization or SymmetrizationHypers()
        self.train_mode: Mode = train
        self.ensemble = make_ensemble(cutoff, self.symmetrization)

    def forward(
        self, graph: Graph, structure: Tensor | None = None, keys: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the outputs of each atom, (N, ...) float64, twice differentiable in the edges.

        Args:
            graph: Atoms and edges, as `pet_mlip.data.batch.batch_from_atoms` makes them.
            structure: Structure of each atom, ascending, (N,) int64; by default all belong to one.
                Only training frames depend on it.
            keys: Random key of each structure, (S,) int64: equal keys, equal training frames.
        """
        neighbourhood = self.neighbourhood(graph)
        if not self.training or self.train_mode == "full":
            frames = self._ensemble_frames(neighbourhood.environment)
        else:
            frames = self._draw_frames(neighbourhood, structure, keys)
        return self.average(neighbourhood, frames)

    def neighbourhood(self, graph: Graph) -> Neighbourhood:
        """Gather the padded environments of the graph's edges within the cutoff."""
        check_order(graph)
        length = torch.linalg.vector_norm(graph.edge_vectors, dim=-1)
        inside = torch.nonzero(length.detach() < self.cutoff).squeeze(1)
        centre, neighbour = graph.edge_index[:, inside]
        vectors, distance = graph.edge_vectors[inside], length[inside]
        cutoff = torch.full_like(distance, self.cutoff)
        switch = cutoff_switch(distance, cutoff, self.cutoff_width, self.cutoff_function)
        padding = pad_edges(centre, graph.species.shape[0])
        species = graph.species[neighbour][padding.edge]
        environment = build_environment(vectors, distance, switch, padding)
        return Neighbourhood(environment, species, graph.species)

    def layer_frames(self, graph: Graph) -> Frames:
        """Find the ensemble of every atom, differentiable in the edge vectors."""
        return self._ensemble_frames(self.neighbourhood(graph).environment)

    def average(self, neighbourhood: Neighbourhood, frames: Frames) -> dict[str, Tensor]:
        """Average the outputs over the given frames, (N, ...) float64.

        Raises:
            UserError: The backbone does not return the declared outputs in their shapes.
        """
        atom, environment = frames.atom, neighbourhood.environment
        dtype = self._dtype()
        # Rotated in float64: invariant before rounding, whatever the backbone's dtype.
        vectors = environment.vectors.index_select(0, atom) @ frames.matrix
        found = self.backbone(
            vectors.to(dtype),
            environment.distance.to(dtype).index_select(0, atom),
            environment.switch.to(dtype).index_select(0, atom),
            neighbourhood.species.index_select(0, atom),
            neighbourhood.centre.index_select(0, atom),
        )
        n_atoms, result = neighbourhood.centre.shape[0], {}
        for name, values in self._named(found, atom.shape[0]).items():
            values = rotate_back(values.to(torch.float64), frames.matrix, self.outputs[name])
            values = values * frames.weight.reshape(-1, *[1] * (values.dim() - 1))
            result[name] = values.new_zeros(n_atoms, *values.shape[1:]).index_add(0, atom, values)
        return result

    def _ensemble_frames(self, environment: Environment) -> Frames:
        frames: Frames = self.ensemble(environment)
        if self.symmetrization.ensemble == "none":
            return frames
        return fade_out_axes(frames, environment)

    def _draw_frames(
        self, neighbourhood: Neighbourhood, structure: Tensor | None, keys: Tensor | None
    ) -> Frames:
        if structure is None:
            structure = torch.zeros_like(neighbourhood.centre)
        if keys is None:
            n_structures = int(structure.max()) + 1 if structure.numel() > 0 else 0
            keys = torch.randint(2**62, (n_structures,), device="cpu").to(structure.device)

        def ensemble() -> Frames:
            return self._ensemble_frames(neighbourhood.environment)

        return training_frames(self.train_mode, ensemble, structure, keys)

    def _dtype(self) -> torch.dtype:
        if isinstance(self.backbone, nn.Module):
            for parameter in self.backbone.parameters():
                if parameter.is_floating_point():
                    return parameter.dtype
        return torch.float64

    def _named(self, found: Any, n_rows: int) -> dict[str, Tensor]:
        """The backbone's outputs by name, checked."""
        if isinstance(found, Tensor):
            names = list(self.outputs)
            if len(names) != 1:
                raise UserError(
                    f"The backbone returned one tensor for the outputs {', '.join(names)}: "
                    "return a mapping with these names."
                )
            found = {names[0]: found}
        elif hasattr(found, "_asdict"):
            found = found._asdict()
        if not isinstance(found, Mapping) or set(found) != set(self.outputs):
            names = list(found) if isinstance(found, Mapping) else [type(found).__name__]
            raise UserError(
                f"The backbone returned {', '.join(map(str, names))}, but the declared outputs "
                f"are {', '.join(self.outputs)}: make them the same."
            )
        for name, rank in self.outputs.items():
            shape = tuple(found[name].shape)
            if (
                len(shape) <= rank
                or shape[0] != n_rows
                or shape[len(shape) - rank :] != (3,) * rank
            ):
                raise UserError(
                    f"The backbone returned {name} with shape {shape} for {n_rows} environments: "
                    f"an output of rank {rank} has shape ({', '.join(['P', '...', *'3' * rank])})."
                )
        return dict(found)
