"""Potentials with made-up uncertainties, for tests that need some."""

import torch
from torch import Tensor

from pet_mlip.engine.potential import Potential
from pet_mlip.network.uncertainty import Posterior


def last_weights(potential: Potential) -> Tensor:
    """The weights that last features are multiplied with, in eV, (D,)."""
    heads = [h for r in potential.pet.readouts for h in (r.node_head, r.edge_head)]
    return potential.scale * torch.cat([head.last.weight[0] for head in heads]).double()


def zero_mean(potential: Potential) -> Tensor:
    """Last features as they are."""
    size = len(last_weights(potential))
    return torch.zeros(len(potential.species), size, dtype=torch.float64)


def never(potential: Potential) -> Tensor:
    """Squared lengths beside which none is long: distances count as what they are."""
    return torch.full((len(potential.species),), torch.inf, dtype=torch.float64)


def with_uncertainty(potential: Potential, members: int = 8, size: float = 0.1) -> Potential:
    """The potential with random uncertainties."""
    draw = torch.Generator().manual_seed(11)
    n = len(last_weights(potential))
    whitening = size * torch.randn(n, n, generator=draw, dtype=torch.float64).tril() / n**0.5
    drawn = torch.randn(members, n, generator=draw, dtype=torch.float64)
    mean = torch.randn(len(potential.species), n, generator=draw, dtype=torch.float64)
    # Some atoms are far from it, others not.
    typical = size**2 * (1.0 + torch.rand(len(potential.species), generator=draw)).double()
    potential.uncertainty.set(Posterior(whitening, drawn @ whitening, mean, typical))
    return potential
