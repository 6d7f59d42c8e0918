"""``python -m pet_mlip.learn`` prints the reference configuration."""

from pet_mlip.learn.config import reference_yaml

print(reference_yaml(), end="")
