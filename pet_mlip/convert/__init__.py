"""Models of other packages as potentials of this one: metatrain's PET, UPET's models among them."""

from pet_mlip.convert.metatrain import Converted, convert, is_metatrain

__all__ = ["Converted", "convert", "is_metatrain"]
