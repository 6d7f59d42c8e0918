"""`pet-mlip compile`: what it says before anything is compiled."""

import pytest
import torch


def test_an_existing_file_stays(run, folder):
    (folder / "there.pt2").write_text("precious")
    code, _, err = run("compile", "model.pt", "-o", "there.pt2")
    assert code == 1
    assert "there.pt2 exists already; give --force to replace it." in err
    assert (folder / "there.pt2").read_text() == "precious"


def test_no_compiler(run, folder, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    code, _, err = run("compile", "model.pt")
    assert code == 1
    assert "There is no C++ compiler no-such-compiler in PATH" in err
    assert not (folder / "model.pt2").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(run):
    code, _, err = run("compile", "model.pt", "--device", "cuda")
    assert code == 1
    assert "sees no GPU" in err
