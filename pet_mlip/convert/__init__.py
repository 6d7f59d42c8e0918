"""Models of other packages as potentials of this one: metatrain's PET, UPET's models among them."""

from pet_mlip.convert.metatrain import Converted, convert, is_metatrain
from pet_mlip.convert.output import check_output, write_converted

__all__ = ["Converted", "check_output", "convert", "is_metatrain", "write_converted"]
