"""Weights that come with the package, as checkpoints and as exported models."""

from pathlib import Path

FOLDER = Path(__file__).parent
CHECKPOINT, MODEL = ".ckpt", ".pt"


def shipped() -> list[str]:
    """List the names of the weights that come with the package."""
    return sorted(path.stem for path in FOLDER.glob(f"*{CHECKPOINT}"))


def find_weights(name: str | Path, suffix: str) -> Path:
    """Find the file that a path or the name of shipped weights stands for.

    A file or folder of that name goes first; what is neither is returned as it is.

    Args:
        name: Path, or one of `shipped`.
        suffix: `CHECKPOINT` for training on, `MODEL` for running.
    """
    if str(name) in shipped() and not Path(name).exists():
        return FOLDER / f"{name}{suffix}"
    return Path(name)


def or_shipped() -> str:
    """End a sentence on a file that is missing with what could be given instead."""
    return f"check the path (the package comes with {', '.join(shipped())})"
