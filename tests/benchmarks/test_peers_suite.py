import contextlib
import io
import json
import sys

import numpy as np
import pytest

from benchmarks.peers import contestants
from benchmarks.peers.__main__ import measure
from benchmarks.peers.settings import Settings
from benchmarks.peers.suite import check
from benchmarks.peers.timing import n_rounds, summarize
from benchmarks.peers.weights import own_potential
from benchmarks.peers.worker import Call, ContestantError, Worker, environment
from pet_mlip.errors import UserError


def call(seconds=1.0, energy=0.0, force=0.0):
    """What a contestant of two atoms answered."""
    return Call(seconds, seconds, energy, np.full((2, 3), force), None, 100.0, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the results of the smallest kind of run are, and what it said."""
    folder, said = tmp_path_factory.mktemp("bench") / "new", io.StringIO()
    settings = Settings("ethanol", "plain,ecse", repeats=3, threads=1, shape="tiny")
    with contextlib.redirect_stderr(said):
        measure(settings, folder)
    (folder / "said").write_text(said.getvalue())
    return folder


@pytest.fixture
def results(folder):
    """What it found."""
    return json.loads((folder / "results.json").read_text())


def test_a_run_measures_time_memory_frames_and_errors(results):
    (structure,) = results["structures"]
    plain, ecse = structure["contestants"]["plain"], structure["contestants"]["ecse"]
    assert len(plain["seconds"]) == len(ecse["seconds"]) == 3
    assert plain["ratio"] == [1.0, 1.0, 1.0]
    assert "frames" not in plain
    assert 2.0 < ecse["frames"] < 5.0
    ratios = np.array(ecse["seconds"]) / plain["seconds"]
    assert ecse["ratio"] == pytest.approx(np.percentile(ratios, [25, 50, 75]))
    assert ecse["per_frame"] == pytest.approx((np.array(ecse["ratio"]) - 1.0) / ecse["frames"])
    for entry in (plain, ecse):
        assert 50 < entry["memory"] < 5000
        assert 0 < entry["errors"]["energy_per_atom"] < 1e-5
        assert 0 < entry["errors"]["forces"] < 1e-4
        assert entry["second_to_third"] > 0


def test_a_run_says_what_it_does_and_under_which_conditions(folder, results):
    assert (folder / "said").read_text() == "ethanol, 9 atoms: plain, ecse\n"
    assert results["settings"]["timed_by"] == "cpu"
    assert results["weights"] == "pet_mlip"
    assert "torch" in results["machine"]["packages"]


def test_a_run_leaves_a_page_and_a_picture_and_replaces_nothing(folder):
    assert (folder / "report.md").read_text().startswith("# Benchmark")
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="--overwrite"):
        measure(Settings(), folder)


def test_what_is_not_installed_is_left_out_with_a_sentence(monkeypatch):
    monkeypatch.setattr(contestants, "find_spec", lambda name: None)
    said = []
    chosen = contestants.choose("plain,mace,tf32", "cpu", said.append)
    assert [c.name for c in chosen] == ["plain"]
    assert said == ["TF32 is left out: it is for GPUs.", "MACE is left out: mace is not installed."]
    assert [c.name for c in contestants.choose("bf16", "cuda:1", said.append)] == ["bf16"]
    with pytest.raises(UserError, match="none of them is installed"):
        contestants.choose("mace", "cpu", said.append)
    with pytest.raises(UserError, match="--contestants nequip is not known"):
        contestants.choose("nequip", "cpu", said.append)


def test_another_model_is_not_timed():
    plain = contestants.CONTESTANTS["plain"]
    entry = {}
    check(entry, plain, call(energy=1e-7), {"none": call()})
    assert entry["errors"] == {"energy_per_atom": 5e-8, "forces": 0.0}
    with pytest.raises(ContestantError, match=r"not the same model, forces .* 2\.0e-03"):
        check({}, plain, call(force=2e-3), {"none": call()})
    with pytest.raises(ContestantError, match="not the same model"):
        check({}, plain, call(energy=float("nan")), {"none": call()})
    check({}, contestants.CONTESTANTS["mace"], call(force=1.0), {"none": call()})
    check(entry, contestants.CONTESTANTS["bf16"], call(force=2e-3), {"none": call()})
    assert entry["errors"]["forces"] == 2e-3


def test_a_process_that_fails_or_dies_is_an_error_of_the_contestant(tmp_path, monkeypatch):
    with pytest.raises(ContestantError, match="there is no such model file"):
        Worker("plain", tmp_path)
    with pytest.raises(ContestantError, match=r"it takes more memory than it may|ended with code"):
        Worker("plain", tmp_path, memory=0.05)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ContestantError, match=r"ended with code 1 \(it said nothing\)"):
        Worker("plain", tmp_path)


def test_ratios_are_taken_within_a_round():
    calls = {
        "plain": [call(1.0), call(2.0), call(4.0)],
        "eager": [call(2.0), call(4.0), call(8.0)],
        "mace": [],
    }
    found = summarize(calls, "wall", "plain")
    assert found["eager"]["ratio"] == [2.0, 2.0, 2.0]
    assert found["eager"]["time"] == [3.0, 4.0, 6.0]
    assert "mace" not in found
    assert "ratio" not in summarize({"eager": calls["eager"]}, "wall", "plain")["eager"]


def test_rounds_fit_into_the_time():
    assert n_rounds(2.0, 60.0, 9) == 9
    assert n_rounds(20.0, 60.0, 9) == 3
    assert n_rounds(200.0, 60.0, 9) == 1


def test_threads_wait_as_the_caller_has_it(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    found = environment(3)
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert "OMP_WAIT_POLICY" not in environment(3)


@pytest.mark.parametrize(
    ("threads", "clock", "device", "expected"),
    [(1, "auto", "cpu", "cpu"), (2, "auto", "cpu", "wall"), (1, "auto", "cuda", "wall")],
)
def test_the_clock_follows_the_threads(threads, clock, device, expected):
    assert Settings(threads=threads, clock=clock, device=device).timed_by == expected


def test_unknown_settings_are_refused():
    with pytest.raises(UserError, match="--shape huge"):
        Settings(shape="huge")
    with pytest.raises(UserError, match="--clock sun"):
        Settings(clock="sun")


def test_the_default_shape_is_metatrains():
    hypers = pytest.importorskip("metatrain.utils.architectures").get_default_hypers("pet")["model"]
    ours = own_potential({}, seed=0).pet_hypers.model_dump()
    for name in set(ours) & set(hypers) - {"adaptive_cutoff_method"}:
        assert ours[name] == hypers[name], name
