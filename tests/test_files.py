"""What cannot be written is told in one sentence, and leaves what was there whole."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import read, write
from model_files import small_potential

from pet_mlip.ase.md import MDSettings, Simulation
from pet_mlip.ase.recording import THERMO, TRAJECTORY, Recorder
from pet_mlip.cli.app import main
from pet_mlip.errors import UserError
from pet_mlip.export import save_model
from pet_mlip.files import check_writable, describe, replacing, write_text, writing
from pet_mlip.train.checkpoint import read_checkpoint, write_checkpoint


def run(monkeypatch, capsys, *words) -> tuple[int, str]:
    """Exit code and standard error of the command line."""
    monkeypatch.setattr(sys, "argv", ["pet-mlip", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0), " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, its checkpoint, and structures."""
    path = tmp_path_factory.mktemp("files")
    save_model(path / "model.pt", small_potential())
    atoms = molecule("H2O")
    write(path / "water.xyz", atoms)
    atoms.info["energy"] = -1.0
    write(path / "data.xyz", atoms)
    (path / "file").write_text("no folder")
    (path / "config.yaml").write_text("data: {train: data.xyz}\ntraining: {epochs: 1}\n")
    return path


# /proc refuses new files even to the superuser; a file is no folder.
PLACES = {"/proc/pet_mlip": "/proc", "file/below": "file"}
COMMANDS = {
    "train": ("train", "config.yaml", "--output"),
    "md": ("md", "model.pt", "water.xyz", "--steps", 1, "--ensemble", "nve", "--output"),
    "eval report": ("eval", "model.pt", "data.xyz", "--rotations", 0, "--report"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", COMMANDS)
def test_folders_that_cannot_be_written(folder, monkeypatch, capsys, name, place):
    monkeypatch.chdir(folder)
    code, err = run(monkeypatch, capsys, *COMMANDS[name], place)
    assert code == 1
    assert "Traceback" not in err
    assert f"Error: {place}" in err or f"Error: {PLACES[place]}" in err
    assert "cannot be read or written" in err


def test_an_output_below_a_file(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words = ("eval", "model.pt", "data.xyz", "--output", "file/out.xyz")
    code, err = run(monkeypatch, capsys, *words)
    assert code == 1 and "Error: file" in err and "Traceback" not in err


def test_read_only_folders_are_told_before_anything_is_done(folder, monkeypatch, capsys):
    """The superuser may write anywhere: pretend."""
    import tempfile

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "/some/where/tmp123")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.chdir(folder)
    code, err = run(monkeypatch, capsys, "train", "config.yaml", "--output", "new")
    assert code == 1
    assert "Error: new cannot be read or written (Permission denied); choose a folder" in err
    assert not (folder / "new" / "train.log").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG, 999])
def test_sentences(number):
    sentence = describe(OSError(number, "Reason"), "a/b.pt")
    assert sentence.startswith("a/b.pt cannot be read or written (Reason); ")
    assert sentence.endswith(".") and sentence.count(".") <= 3


def test_full_disks_of_torch():
    with pytest.raises(UserError, match=r"m.pt cannot be written .*disk full"), writing("m.pt"):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\n")
    with pytest.raises(RuntimeError, match="something else"), writing("m.pt"):
        raise RuntimeError("something else")


def test_what_fails_is_named():
    """Another file than the one that is written, for example one that is read meanwhile."""
    for named, expected in (("other.xyz", "other.xyz"), (None, "a.pt"), (3, "a.pt")):
        error = OSError(errno.EIO, "Reason", named)
        with (
            pytest.raises(UserError, match=rf"^{expected} cannot be .*\(Reason\)"),
            writing("a.pt"),
        ):
            raise error


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / ("n" * 255)  # as long as the file system allows
    write_text(path, "old")
    with pytest.raises(UserError, match=rf"{path.name} cannot be"), replacing(path) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(temporary))
    with pytest.raises(KeyError), replacing(path):
        raise KeyError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "new")
    assert path.read_text() == "new"
    for place, words in ((tmp_path, "is a directory"), ("/dev/null", "no regular file")):
        with pytest.raises(UserError, match=words):
            write_text(place, "new")


def test_no_temporary_file_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        write_text(tmp_path / "no" / "folder.txt", "new")
    assert str(caught.value).startswith(f"{tmp_path / 'no' / 'folder.txt'} cannot be")


def test_faults_of_the_data_are_not_those_of_the_predictions(folder, monkeypatch, capsys):
    """A file on a broken disk is read while another one is written."""
    import pet_mlip.evaluate

    def broken(*_, **__):
        raise OSError(errno.EIO, "Input/output error", "data.xyz")

    monkeypatch.chdir(folder)
    monkeypatch.setattr(pet_mlip.evaluate, "evaluate", broken)
    words = ("eval", "model.pt", "data.xyz", "--output", "out.xyz")
    code, err = run(monkeypatch, capsys, *words)
    assert code == 1 and "Error: data.xyz cannot be" in err and "out.xyz" not in err

    def nameless(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pet_mlip.evaluate, "evaluate", nameless)
    code, err = run(monkeypatch, capsys, *words)
    assert code == 1 and "Input/output error" in err and "out.xyz" not in err


def full_disk():
    """A small file system of its own, or None where that is not allowed."""
    import tempfile

    place = Path(tempfile.mkdtemp(prefix="pet_mlip_full."))
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True)
    except OSError:
        return None
    return place if done.returncode == 0 else None


@pytest.fixture
def small_disk():
    place = full_disk()
    if place is None:
        pytest.skip("no file system can be mounted")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
    place.rmdir()


def test_a_checkpoint_on_a_full_disk(small_disk):
    path = small_disk / "last.ckpt"
    write_checkpoint(path, {"values": torch.ones(10)})
    with pytest.raises(UserError, match=r"last.ckpt cannot be .*"):
        write_checkpoint(path, {"values": torch.ones(200_000)})
    assert torch.equal(read_checkpoint(path)["values"], torch.ones(10))
    assert [p.name for p in small_disk.iterdir()] == ["last.ckpt"]


def test_an_export_on_a_full_disk(small_disk):
    with pytest.raises(UserError, match=r"model.pt cannot be .*"):
        save_model(small_disk / "model.pt", small_potential(d_pet=64, d_feedforward=256))
    assert list(small_disk.iterdir()) == []


def test_a_simulation_on_a_full_disk(small_disk, folder):
    from pet_mlip import PETCalculator

    atoms = molecule("H2O")
    atoms.calc = PETCalculator(folder / "model.pt")
    simulation = Simulation(atoms, MDSettings(ensemble="nve"))
    with (
        pytest.raises(UserError, match=r"(trajectory.xyz|thermo.csv|state.npz) cannot be"),
        Recorder(small_disk, simulation, 1) as recorder,
    ):
        recorder.start()
        for _ in range(3000):
            recorder.record()
    written = read(small_disk / TRAJECTORY, ":")
    assert len(written) > 100
    assert all(np.isfinite(a.get_potential_energy()) for a in written)
    lines = (small_disk / THERMO).read_text().splitlines()
    assert len({line.count(",") for line in lines}) == 1


def test_a_folder_is_made_and_left_empty(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
