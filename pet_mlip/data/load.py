"""From file names to checked structures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pet_mlip.data.checks import DEFAULT_LIMITS, DataLimits, check_structures
from pet_mlip.data.labels import DEFAULT_KEYS, DEFAULT_UNITS, DataUnits, LabelKeys
from pet_mlip.data.reading import FileNames, read_structures
from pet_mlip.data.structure import Structure


def load_structures(
    files: FileNames,
    keys: LabelKeys = DEFAULT_KEYS,
    data_units: DataUnits = DEFAULT_UNITS,
    limits: DataLimits = DEFAULT_LIMITS,
    progress: Callable[[int], None] | None = None,
) -> list[Structure]:
    """All structures of the files, read and checked.

    Args:
        files: As in ``read_structures``.
        keys: Names of the labels.
        data_units: Units of the numbers in the files.
        limits: Beyond which numbers are mistakes.
        progress: Called with the number of structures read so far.

    Raises:
        UserError: A file cannot be read, or structures have mistakes.
    """
    stream = read_structures(files, keys, data_units)
    return check_structures(_counted(stream, progress), limits)


def _counted(
    structures: Iterator[Structure], progress: Callable[[int], None] | None
) -> Iterator[Structure]:
    for count, structure in enumerate(structures, start=1):
        yield structure
        if progress:
            progress(count)
