"""Packages whose functions are not compiled but evaluated as they are: quick, and exact."""

from contextlib import contextmanager

import pytest
import torch
from model_tools import make_potential

from pet_mlip.compile import compile_model, package
from pet_mlip.compile.functions import Method, sample_inputs
from pet_mlip.export import save_model


class Interpreted:
    """Stands in for torch's loader of compiled functions."""

    methods = {}

    def __init__(self, path, *_):
        self.path = path
        with open(path) as file:
            self.method = self.methods[file.read()]

    def run(self, inputs):
        assert all(x.is_contiguous() for x in inputs)
        return self.method(*inputs)


def interpret(part, function, folder, progress):
    """Takes the place of `pet_mlip.compile.functions.compile_part`."""
    found = {}
    n_plain = sample_inputs(part, (3, 4))[2]
    for name in ("forward", "vjp"):
        key = f"{len(Interpreted.methods)} {function}_{name}"
        Interpreted.methods[key] = Method(part, name, n_plain if name == "vjp" else None)
        found[f"{function}_{name}"] = key.encode()
        progress(key)
    return found


@pytest.fixture
def interpreted():
    """Nothing is compiled, and the compiler is not asked for."""
    with interpreting():
        yield


@contextmanager
def interpreting():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "compile_part", interpret)
        patch.setattr(package, "check_compiler", lambda: None)
        patch.setattr(torch._C._aoti, "AOTIModelPackageLoader", Interpreted)
        yield


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """Function that exports a potential and makes a package of it, once: both files."""
    made = {}

    def packages(**options):
        key = str(options)
        if key not in made:
            folder = tmp_path_factory.mktemp("packages")
            made[key] = folder / "model.pt", folder / "model.pt2"
            save_model(made[key][0], make_potential(**options), dtype="float64")
            with interpreting():
                compile_model(*made[key])
        return made[key]

    return packages


@pytest.fixture
def packaged(interpreted, packages):
    """The same, to be loaded without anything compiled."""
    return packages
