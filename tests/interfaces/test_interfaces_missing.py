"""Without an optional package, one sentence says what to install."""

import importlib
import sys

import pytest

from pet_mlip.errors import UserError


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("metatomic", "metatensor.torch", "metatomic"),
        ("torchsim", "torch_sim.models.interface", "torchsim"),
        ("ipi_driver", "ipi.pes.dummy", "ipi"),
    ],
)
def test_the_extra_is_named(monkeypatch, module, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"pet_mlip.interfaces.{module}", raising=False)
    with pytest.raises(UserError, match=rf"pip install 'pet-mlip\[{extra}\]'"):
        importlib.import_module(f"pet_mlip.interfaces.{module}")
