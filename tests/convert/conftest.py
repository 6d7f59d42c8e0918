import pytest
from metatrain_files import save

from pet_mlip.convert import convert
from pet_mlip.errors import UserError


@pytest.fixture
def converted(tmp_path):
    """Function that saves a checkpoint and converts it."""

    def converted(content, head=None):
        return convert(save(content, tmp_path / "metatrain.ckpt"), head)

    return converted


@pytest.fixture
def refusal(converted):
    """Function that returns the sentence with which a checkpoint is refused."""

    def refusal(content, head=None):
        with pytest.raises(UserError, match="cannot be converted") as caught:
            converted(content, head)
        assert str(caught.value).endswith(".")
        return str(caught.value)

    return refusal
