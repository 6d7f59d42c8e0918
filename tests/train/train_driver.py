"""``pet-mlip train`` without export and report, for tests that start processes.

It is a script because DDP starts it again for each further process.
"""

from __future__ import annotations

import typer

import pet_mlip.train.run
from pet_mlip.cli.train import train

pet_mlip.train.run.finish = lambda *_: None

if __name__ == "__main__":
    typer.run(train)
