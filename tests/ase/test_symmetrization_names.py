"""How an average over orientations is written on a command line."""

import pytest

from pet_mlip.ase.symmetrize.modes import Symmetrization
from pet_mlip.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", Symmetrization("none")),
        (" structure ", Symmetrization("structure")),
        ("quadrature:5", Symmetrization("quadrature", degree=5)),
        ("random:7", Symmetrization("random", seed=7)),
    ],
)
def test_names(text, expected):
    assert Symmetrization.parse(text) == expected
    assert Symmetrization.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text", ["", "sphere", "none:1", "quadrature:", "quadrature:-1", "random:x", "structure:1"]
)
def test_what_is_none_of_them(text):
    with pytest.raises(UserError, match="is not"):
        Symmetrization.parse(text)
