"""Runs LAMMPS' decks one after another, each in a new instance of LAMMPS: a script, on each rank.

Every line of a named pipe names a deck and the log to write; there is one pipe for each rank. The
first rank answers each with a line that begins with DONE or FAILED.
"""

import contextlib
import os
import sys
from pathlib import Path

from pet_mlip.lammps.library import import_class

DONE, FAILED = "DONE", "FAILED"


def take_pipe(folder: Path) -> Path:
    """A pipe that no other rank has taken: before MPI starts, no rank knows which one it is."""
    for pipe in sorted(folder.glob("*.pipe")):
        with contextlib.suppress(FileExistsError):
            pipe.with_suffix(".taken").touch(exist_ok=False)
            return pipe
    raise RuntimeError(f"{folder}: there are more ranks than pipes.")


def main(folder: str) -> None:
    create = import_class()
    for line in open(take_pipe(Path(folder))):  # noqa: SIM115
        deck, log = line.rstrip("\n").split("\t")
        os.chdir(Path(deck).parent)
        lmp = create(cmdargs=["-screen", "none", "-log", log])
        try:
            lmp.file(deck)
            answer = DONE
        except Exception as error:
            answer = f"{FAILED} {error!r}"
        rank = lmp.extract_setting("world_rank")
        lmp.close()
        if rank == 0:
            print(answer, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
