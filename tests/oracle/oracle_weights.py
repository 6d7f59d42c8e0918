"""Weights of metatrain's PET in a potential of this package."""

from torch import nn

from pet_mlip.convert.weights import WITHOUT_COUNTERPART, convert_weights
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.hypers import PETHypers


def potential_from_backend(
    backend: nn.Module, species: list[int], hypers: PETHypers, target: str
) -> Potential:
    """The potential with the weights of a `PETBackend`, in their dtype; baseline 0, scale 1.

    Raises:
        KeyError: If a parameter has no counterpart.
    """
    plain = SymmetrizationHypers(ensemble="none", train="structure")
    potential = Potential(species, hypers, plain).set_dtype(next(backend.parameters()).dtype)
    ignored = "species_to_species_index"
    parameters = {name: p for name, p in backend.state_dict().items() if name != ignored}
    weights = convert_weights(parameters, target)
    missing, unexpected = potential.pet.load_state_dict(weights, strict=False)
    lost = [name for name in missing if not WITHOUT_COUNTERPART.fullmatch(name)]
    if lost or unexpected:
        raise KeyError(f"without a counterpart: {lost + unexpected}")
    return potential.eval()
