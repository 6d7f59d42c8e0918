"""Weights of metatrain's PET under the names of `pet_mlip.model.pet.PET`."""

import re

from torch import Tensor, nn

from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.model.hypers import PETHypers
from pet_mlip.model.potential import Potential

# Of ours alone: the species are read from the messages in the first layer, and radial functions
# are switched off by num_radial = 0.
WITHOUT_COUNTERPART = re.compile(r"layers\.(0\.neighbor_embedder\.weight|\d+\.radial_embedder)")


def renamings(target: str) -> list[tuple[str, str]]:
    """Patterns of metatrain's names and what becomes of them, for one target of one block."""
    layer = r"gnn_layers\.(\d+)\."
    same = "combination_norms|combination_mlps|node_embedders|edge_embedder"
    return [
        (layer + r"trans\.layers\.(.+)", r"layers.\1.layers.\2"),
        (layer + r"compress\.0\.(.+)", r"layers.\1.compress_in.\2"),
        (layer + r"compress\.2\.(.+)", r"layers.\1.compress_out.\2"),
        (layer + r"((?:edge|neighbor)_embedder\..+)", r"layers.\1.\2"),
        (rf"((?:{same})\..+)", r"\1"),
        (rf"(node|edge)_heads\.{target}\.(\d+)\.(.+)", r"\1_heads.\2.mlp.\3"),
        (rf"(node|edge)_last_layers\.{target}\.(\d+)\.[^.]+\.(.+)", r"\1_heads.\2.last.\3"),
    ]


def rename(name: str, target: str) -> str:
    """Our name of one of metatrain's parameters."""
    for pattern, replacement in renamings(target):
        if re.fullmatch(pattern, name):
            return re.sub(pattern, replacement, name)
    raise KeyError(name)


def convert(weights: dict[str, Tensor], target: str) -> dict[str, Tensor]:
    """A state dict of `PETBackend` as one of `PET`."""
    ignored = "species_to_species_index"
    return {rename(name, target): value for name, value in weights.items() if name != ignored}


def potential_from_backend(
    backend: nn.Module, species: list[int], hypers: PETHypers, target: str
) -> Potential:
    """The potential with the weights of a `PETBackend`, in their dtype; baseline 0, scale 1.

    Raises:
        KeyError: If a parameter has no counterpart.
    """
    plain = SymmetrizationHypers(ensemble="none", train="structure")
    potential = Potential(species, hypers, plain).set_dtype(next(backend.parameters()).dtype)
    weights = convert(backend.state_dict(), target)
    missing, unexpected = potential.pet.load_state_dict(weights, strict=False)
    lost = [name for name in missing if not WITHOUT_COUNTERPART.fullmatch(name)]
    if lost or unexpected:
        raise KeyError(f"without a counterpart: {lost + unexpected}")
    return potential.eval()
