"""With an ensemble and without: the same model, data and time.

    python benchmarks/training_modes.py configs/acac.yaml --data DIR --time 00:30:00 --output modes

Both train through the same code as `pet-mlip train`, one after the other, in ``output/ENSEMBLE``;
what is finished there already is not trained again. `none` is the plain model, trained on randomly
turned structures (the mode `structure`); `closest_pairs` averages over its frames in every step
(`full`). Prints the errors on the test sets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pet_mlip.config import load_config
from pet_mlip.train import run_training

MODES = {"none": "structure", "closest_pairs": "full"}


def train(ensemble: str, options: argparse.Namespace) -> dict[str, object]:
    """Train with or without the ensemble and return the content of the error table."""
    output = options.output / ensemble
    table = output / "report" / "errors.json"
    if not table.is_file():
        overrides = [
            f"data.root={options.data}",
            f"symmetrization.train={MODES[ensemble]}",
            f"symmetrization.ensemble={ensemble}",
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
    parser.add_argument("--ensembles", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    for ensemble in options.ensembles:
        print(ensemble, json.dumps(train(ensemble, options)), flush=True)


if __name__ == "__main__":
    main()
