"""Objects by their import path, as a configuration names them."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from pet_mlip.errors import UserError


def import_object(path: str, key: str) -> Any:
    """Import what a configuration names; modules in the working directory are found, too.

    Args:
        path: Such as ``tblite.ase.TBLite``.
        key: Of the configuration, for messages.

    Raises:
        UserError: There is no such module, or it has nothing of that name.
    """
    module, _, name = path.rpartition(".")
    if not module:
        raise UserError(f"{key}: {path} is no import path; write it as package.module.Name.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise UserError(f"{key}: {module} cannot be imported ({error}); is it installed?") from None
    except AttributeError:
        raise UserError(f"{key}: the module {module} has no {name}.") from None
