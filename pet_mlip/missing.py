"""What to say where an optional package is not installed."""

from pet_mlip.errors import UserError


def missing(extra: str, error: ImportError) -> UserError:
    """Make the error to raise where what an extra installs cannot be imported.

    Args:
        extra: Of this package's optional dependencies.
        error: What the import said.
    """
    return UserError(
        f"{error.name or extra} is needed for this and cannot be imported ({error}): "
        f"pip install 'pet-mlip[{extra}]'."
    )
