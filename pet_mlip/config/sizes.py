"""Networks of three sizes, for those who do not want to choose widths."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pet_mlip.config.base import Section

SIZES: dict[str, dict[str, int]] = {
    "small": {"d_pet": 32, "d_node": 32, "d_head": 32, "d_feedforward": 64},
    "medium": {},
    "large": {"d_pet": 128, "d_node": 128, "d_head": 128, "d_feedforward": 256, "num_heads": 8},
}
"""What differs from the defaults of `PETHypers`."""


class Sized(Section):
    """A configuration whose network can be chosen by its size."""

    size: Literal["small", "medium", "large"] = Field(
        "medium",
        description="Widths of the network that `model` does not give: small for the fastest "
        "simulations; medium for minutes to an hour of one core; large for many hours or a GPU.",
    )

    @model_validator(mode="before")
    @classmethod
    def _widths_of_the_size(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        size, model = tree.get("size", "medium"), tree.get("model", {})
        widths = SIZES.get(size) if isinstance(size, str) else None
        if not widths or not isinstance(model, dict):
            return tree
        return {**tree, "model": {**widths, **model}}
