"""Reading pickles of other packages without running anything that they name."""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable
from typing import Any, NoReturn

import torch

from pet_mlip.errors import UserError

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
CONTAINERS: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
# Their classes describe data and settings; what is not used of them stays a placeholder.
DESCRIPTIVE = ("metatrain", "metatensor", "metatomic", "omegaconf", "pathlib", "typing")
NAMES_OF_VALUES = {
    "torch": {"ScriptObject", "Size", "device"}
    | {name for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "_codecs": {"encode"},
    "collections": {"defaultdict"},
    "builtins": {"bool", "bytes", "dict", "float", "int", "list", "str", "tuple"},
    "__builtin__": {"bool", "bytes", "dict", "float", "int", "list", "str", "tuple"},
}


class Placeholder:
    """Stands for an object of a class that is never imported; keeps its state.

    Attributes:
        origin: Module and name of the class.
        state: What its attributes were to be set from.
    """

    origin = ""
    state: Any

    def __new__(cls, *_: Any, **__: Any) -> Placeholder:
        """Ignore the arguments."""
        made = object.__new__(cls)
        object.__setattr__(made, "state", None)
        return made

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse: a pickle has no business in here but the state."""
        raise pickle.UnpicklingError(f"attribute {name} of {self.origin}")

    def __setstate__(self, state: Any) -> None:
        """Keep the state as it is."""
        object.__setattr__(self, "state", state)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Forget the items of a container that nothing reads."""

    def append(self, value: Any) -> None:
        """Forget the elements of a list that nothing reads."""

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute that the object would have had."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default


class _Function:
    """A function that a pickle may call, and cannot change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("a function with a state")


class Unpickler(pickle.Unpickler):
    """Builds plain containers, tensors and placeholders, and refuses every other name.

    Args:
        file: The pickle.
        storage: Makes a storage from its dtype, name in the archive, and number of elements.
        tensor: Makes a tensor from a storage, offset, shape and strides.
    """

    def __init__(
        self,
        file: Any,
        storage: Callable[[torch.dtype, str, int], Any],
        tensor: Callable[..., Any],
    ) -> None:
        super().__init__(file)
        self._storage = storage
        self._functions = {
            # The remaining arguments are about gradients.
            "_rebuild_tensor_v2": _Function(lambda *args: tensor(*args[:4])),
            "_rebuild_parameter": _Function(lambda data, *_: data),
        }
        self._classes: dict[str, type[Placeholder]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for.

        Raises:
            UserError: If a checkpoint has no reason to name it.
        """
        if (module, name) in CONTAINERS:
            return CONTAINERS[module, name]
        if module == "torch" and name in DTYPES:
            return _Function(lambda: DTYPES[name])
        if module == "torch._utils" and name in self._functions:
            return self._functions[name]
        if module.split(".")[0] in DESCRIPTIVE or name in NAMES_OF_VALUES.get(module, ()):
            origin = f"{module}.{name}"
            if origin not in self._classes:
                self._classes[origin] = type("Placeholder", (Placeholder,), {"origin": origin})
            return self._classes[origin]
        raise UserError(
            f"it names {module}.{name}, which a checkpoint has no reason to and which could run "
            "code; nothing was run"
        )

    def persistent_load(self, identity: Any) -> Any:
        """A storage of the archive."""
        kind, storage_type, key, _, n_elements = identity
        if kind != "storage" or not isinstance(storage_type, _Function):
            raise pickle.UnpicklingError("something else than tensors outside the pickle")
        return self._storage(storage_type(), str(key), int(n_elements))
