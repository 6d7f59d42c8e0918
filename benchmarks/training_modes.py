"""The four training modes side by side: the same model, data and time.

    python benchmarks/training_modes.py configs/acac.yaml --data DIR --time 00:30:00 --output modes

Each mode trains through the same code as `pet-mlip train`, one after the other, in
``output/MODE``; a mode that is finished there already is not trained again. Prints force errors on
the test sets, gradient steps and frames per atom of the evaluation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pet_mlip.config import load_config
from pet_mlip.train import run_training

MODES = {
    "structure": "none",
    "environment": "axis_plane",
    "sample": "axis_plane",
    "full": "axis_plane",
}


def train(mode: str, options: argparse.Namespace) -> dict[str, object]:
    """Train one mode and return the content of its error table."""
    output = options.output / mode
    table = output / "report" / "errors.json"
    if not table.is_file():
        overrides = [
            f"data.root={options.data}",
            f"symmetrization.train={mode}",
            f"symmetrization.ensemble={MODES[mode]}",
            f"training.max_time={options.time}",
            *options.set,
        ]
        run_training(load_config(options.config, overrides), output, overwrite=True)
    return json.loads(table.read_text())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", required=True)
    parser.add_argument("--time", default="00:30:00")
    parser.add_argument("--output", type=Path, default=Path("modes"))
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    for mode in options.modes:
        print(mode, json.dumps(train(mode, options)), flush=True)


if __name__ == "__main__":
    main()
