"""Learning on the fly: simulations find what to label, labels improve the model, until it holds."""

from pet_mlip.learn.config import LearnConfig, load_learn_config
from pet_mlip.learn.loop import learn

__all__ = ["LearnConfig", "learn", "load_learn_config"]
