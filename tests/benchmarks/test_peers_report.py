import json

import pytest

from benchmarks.peers.plot import plot
from benchmarks.peers.report import BEGIN, END, markdown, read_results, summary, update_page
from pet_mlip.errors import UserError


def entry(seconds, ratio, **more):
    """A contestant's part of the results."""
    return {
        "memory": 512.0,
        "device_memory": None,
        "second_to_third": 1.1,
        "errors": {"energy_per_atom": 1e-7, "forces": 3e-6},
        "seconds": [seconds],
        "time": [0.9 * seconds, seconds, 1.1 * seconds],
        "ratio": [ratio - 0.1, ratio, ratio + 0.1],
        **more,
    }


@pytest.fixture
def results():
    """Two structures, one of which a peer could not do."""
    ecse = entry(0.2, 2.0, frames=4.0, per_frame=[0.225, 0.25, 0.275])
    peer, failed = entry(2.0, 20), {"left_out": "tired"}
    compared = {"name": "aspirin", "title": "aspirin", "groups": ["compare"], "n_atoms": 21}
    grown = {"name": "water-192", "title": "water", "groups": ["growth"], "n_atoms": 192}
    return {
        "settings": {"timed_by": "wall", "threads": 2, "device": "cpu", "shape": "default"},
        "weights": "metatrain",
        "machine": {"processor": "X", "cores": 2, "load": 0.5, "packages": {"torch": "2.13.0"}},
        "titles": {"plain": "TorchScript", "ecse": "ECSE", "metatrain": "metatrain"},
        "structures": [
            compared | {"contestants": {"plain": entry(0.1, 1), "ecse": ecse, "metatrain": peer}},
            grown | {"contestants": {"plain": entry(1.92, 1), "metatrain": failed}},
        ],
    }


def test_the_tables_show_ratios_with_spread_and_frames(results):
    text = summary(results)
    assert "| structure | atoms | TorchScript, ms | metatrain / TorchScript |" in text
    assert "| aspirin | 21 | 100 | 20.00 (19.90-20.10) |" in text
    assert "| water | 192 | 1920 | - |" in text
    assert "| aspirin | 21 | ECSE | 4.0 | 200 | 2.00 (1.90-2.10) | 0.25 (0.23-0.28) |" in text
    assert "wall time, 2 threads, cpu" in text


def test_the_page_shows_everything_else_too(results):
    text = markdown(results)
    assert "| water | 192 | 10 | - | - |" in text  # ms per atom
    assert "| aspirin | 21 | 512 | 512 | 512 |" in text
    assert "| aspirin | 21 | 1e-07, 3e-06 | 1e-07, 3e-06 | 1e-07, 3e-06 |" in text
    assert "- metatrain, water, 192 atoms: tired" in text
    assert "on the device" not in text


def test_without_the_base_the_times_themselves_are_shown(results):
    del results["titles"]["plain"]
    assert "| aspirin | 21 | 200 | 2000 |" in summary(results)


def test_a_page_is_updated_between_its_markers_only(tmp_path, results):
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        update_page(page, results)
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n") and text.endswith(f"\n{END}\nafter\n")
    assert text.count("| aspirin | 21 | 100 |") == 1
    assert "old" not in text
    page.write_text(f"{END} {BEGIN}")
    with pytest.raises(UserError, match="put the lines"):
        update_page(page, results)


def test_results_are_read_again(tmp_path, results):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    assert read_results(path) == results
    path.write_text("[]")
    with pytest.raises(UserError, match=r"not the results\.json of a benchmark"):
        read_results(path)


def test_the_picture_is_written(tmp_path, results):
    plot(tmp_path / "bench.png", results)
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    results["structures"] = []
    plot(tmp_path / "empty.png", results)
