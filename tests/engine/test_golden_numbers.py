"""Numbers of random models stay what they were when they were pinned."""

import json

import pytest
from golden_models import (
    ARCHITECTURES,
    FILE,
    average_frames,
    evaluate,
    make_potential,
    make_structures,
)

GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))
CASES = [(a, s) for a in ARCHITECTURES for s in make_structures()]


@pytest.mark.parametrize(("architecture", "structure"), CASES)
def test_plain_models_keep_their_numbers(architecture: str, structure: str) -> None:
    found = evaluate(make_potential(architecture, "none"), make_structures()[structure])
    for name, expected in GOLDEN[architecture][structure].items():
        assert found[name] == pytest.approx(expected, rel=1e-11, abs=1e-12), name


@pytest.mark.parametrize("structure", make_structures())
def test_the_ensemble_keeps_its_frames(structure: str) -> None:
    found = average_frames(make_structures()[structure])["frames"]
    expected = GOLDEN["closest_pairs"][structure]["frames"]
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-11)
