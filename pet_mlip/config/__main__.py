"""``python -m pet_mlip.config`` prints the reference configuration."""

from pet_mlip.config.reference import reference_yaml

print(reference_yaml(), end="")
