"""Networks by their size."""

import pytest

from pet_mlip.config.load import validate
from pet_mlip.config.sizes import SIZES
from pet_mlip.errors import UserError
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.learn.config import LearnConfig


def config(**keys):
    return validate({"data": {"train": "a.xyz"}, "training": {"epochs": 1}, **keys}, "a.yaml")


@pytest.mark.parametrize("size", SIZES)
def test_a_size_sets_its_widths_and_nothing_else(size):
    found = config(size=size).model
    assert found == PETHypers().model_copy(update=SIZES[size])
    assert config(size=size, model={}).model == found


def test_keys_of_the_model_come_first():
    found = config(size="large", model={"d_pet": 96, "cutoff": 6.0}).model
    assert (found.d_pet, found.d_node, found.cutoff) == (96, 128, 6.0)


def test_medium_is_the_default():
    assert config().model == config(size="medium").model == PETHypers()


def test_a_written_configuration_is_read_as_the_same():
    large = config(size="large", model={"d_head": 32})
    assert validate(large.to_dict(), "b.yaml") == large


def test_learning_has_sizes_too():
    tree = {"start": "a.xyz", "reference": {"calculator": "a.B"}, "size": "small"}
    assert LearnConfig.model_validate(tree).model.d_pet == SIZES["small"]["d_pet"]


def test_what_is_no_size_is_refused():
    with pytest.raises(UserError, match="size"):
        config(size="huge")
    with pytest.raises(UserError, match="size"):
        config(size=["large"])
    with pytest.raises(UserError, match="model"):
        config(size="large", model=3)
