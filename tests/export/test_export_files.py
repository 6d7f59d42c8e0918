"""Metadata, the check before a file is written, atomic writing, and files that are no models."""

import json
import re
import zipfile
from copy import deepcopy
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_files import CUTOFF, SPECIES, small_potential
from torch import Tensor, nn

import pet_mlip
from pet_mlip.errors import UserError
from pet_mlip.export import archive, load_model, read_metadata, save_model
from pet_mlip.export.metadata import FORMAT_VERSION, METADATA_NAME, OLDEST_VERSION
from pet_mlip.export.module import ExportedModel


def test_metadata(potential, path, summary):
    found = read_metadata(path)
    assert found.format_version == FORMAT_VERSION
    assert found.package_version == pet_mlip.__version__
    assert found.torch_version == torch.__version__
    assert found.species == SPECIES
    assert found.cutoff == CUTOFF
    assert found.interaction_range == potential.pet_hypers.interaction_range
    assert found.dtype == "float64"
    assert found.units == {"energy": "eV", "length": "angstrom"}
    assert found.symmetrization["ensemble"] == "closest_pairs"
    assert found.symmetrization["inference"] == "environment"
    assert found.hypers == potential.pet_hypers.model_dump()
    assert found.n_parameters > 1000
    assert found.training == summary
    assert any("2305.19302" in reference for reference in found.references)


def test_metadata_are_what_saving_returned_and_loading_gives(potential, tmp_path):
    written = save_model(tmp_path / "folder" / "model.pt", potential)
    assert read_metadata(tmp_path / "folder" / "model.pt") == written
    assert load_model(tmp_path / "folder" / "model.pt", device="cpu").metadata == written
    assert written.training == {}


def test_metadata_can_be_read_without_this_package(path):
    files = {METADATA_NAME: ""}
    torch.jit.load(str(path), _extra_files=files)
    assert json.loads(files[METADATA_NAME]) == asdict(read_metadata(path))


@pytest.mark.parametrize(
    ("ensemble", "inference"), [("none", "plain"), ("closest_pairs", "environment")]
)
def test_inference_mode_in_the_metadata(tmp_path, ensemble, inference):
    potential = small_potential(ensemble, num_gnn_layers=1)
    assert save_model(tmp_path / "model.pt", potential).symmetrization["inference"] == inference


class WrongGradient(nn.Module):
    """An exported model whose forces are off by one part in a thousand."""

    def __init__(self, potential):
        super().__init__()
        self.inner = ExportedModel(potential)
        self.potential = self.inner.potential

    def forward(
        self,
        species: Tensor,
        edge_index: Tensor,
        edge_vectors: Tensor,
        edge_shifts: Tensor,
        electronic: Tensor | None = None,
        weights: Tensor | None = None,
        compute_gradient: bool = True,
        chunk_size: int = 0,
        reverse: Tensor | None = None,
        uncertainty: int = 0,
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor], Tensor, Tensor]:
        energies, gradient, n_frames, results, vectors, deviations = self.inner(
            species,
            edge_index,
            edge_vectors,
            edge_shifts,
            electronic,
            weights,
            compute_gradient,
            chunk_size,
            reverse,
            uncertainty,
        )
        return energies, 1.001 * gradient, n_frames, results, vectors, deviations


def wrong_weights(potential):
    changed = deepcopy(potential)
    changed.pet.readouts[0].node_head.last.bias += 1e-2
    return ExportedModel(changed)


@pytest.mark.parametrize(
    ("tampered", "what"), [(WrongGradient, "forces"), (wrong_weights, "energies")]
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_model_that_differs_is_refused(potential, tmp_path, monkeypatch, tampered, what, exists):
    file = tmp_path / "model.pt"
    if exists:
        file.write_text("precious")
    monkeypatch.setattr(archive, "ExportedModel", tampered)
    with pytest.raises(UserError, match=f"{what} differ") as error:
        save_model(file, potential)
    assert_sentence(error.value)
    assert [f.name for f in tmp_path.iterdir()] == (["model.pt"] if exists else [])
    assert not exists or file.read_text() == "precious"


def test_a_model_of_nans_is_refused(tmp_path):
    broken = small_potential()
    with torch.no_grad():
        broken.pet.edge_embedder.weight[0, 0] = float("nan")
    with pytest.raises(UserError):
        save_model(tmp_path / "model.pt", broken)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_the_old_file(potential, path, tmp_path, monkeypatch):
    file = tmp_path / "model.pt"
    file.write_bytes(path.read_bytes())

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(archive, "check_exported", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_model(file, small_potential(seed=1))
    assert file.read_bytes() == path.read_bytes()
    assert [f.name for f in tmp_path.iterdir()] == ["model.pt"]


def test_an_export_replaces_an_older_one_and_others_may_read_it(path, tmp_path):
    file = tmp_path / "model.pt"
    file.write_bytes(path.read_bytes())
    save_model(file, small_potential("none"))
    assert read_metadata(file).symmetrization["ensemble"] == "none"
    assert file.stat().st_mode & 0o444 == 0o444


# Files that are no models.


def assert_sentence(error, *words):
    """One sentence for a user: short, in one line, with the words in it."""
    text = str(error)
    assert len(text) < 400
    assert "\n" not in text
    assert text.endswith(".")
    for word in words:
        assert re.search(word, text), text


def assert_refused(file, *words):
    for read in (read_metadata, lambda f: load_model(f, device="cpu")):
        with pytest.raises(UserError) as error:
            read(file)
        assert_sentence(error.value, re.escape(str(file)), *words)


def rewritten(path, tmp_path, edit):
    """A copy of the archive with the metadata that ``edit`` makes of the text; None drops them."""
    copy = tmp_path / "edited.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(METADATA_NAME):
                content = edit(content.decode())
            if content is not None:
                new.writestr(name, content)
    return copy


def test_missing_file(tmp_path):
    assert_refused(tmp_path / "nothing.pt", "no such")
    assert_refused(tmp_path, "no such")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 500, b"energy forces\n1 2 3\n", b"PK\x03\x04 and no more", b"\x80\x04"],
)
def test_files_of_other_kinds(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    assert_refused(tmp_path / "model.pt", "not a pet_mlip model")


def test_a_checkpoint(potential, tmp_path):
    file = tmp_path / "best.ckpt"
    torch.save({"config": potential.config(), "model": potential.state_dict()}, file)
    assert_refused(file, "checkpoint", "pet-mlip export")


def test_archives_of_other_programs(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    assert_refused(tmp_path / "arrays.npz", "without pet_mlip metadata")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "other.pt")
    assert_refused(tmp_path / "other.pt", "without pet_mlip metadata")


def test_metadata_removed(path, tmp_path):
    assert_refused(rewritten(path, tmp_path, lambda _: None), "without pet_mlip metadata")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "{}", '{"format_version": 1}', '{"format_version": "x"}']
)
def test_damaged_metadata(path, tmp_path, text):
    assert_refused(rewritten(path, tmp_path, lambda _: text), "damaged")


def test_metadata_that_are_no_text(path, tmp_path):
    assert_refused(rewritten(path, tmp_path, lambda _: b"\xff\xfe\x00"), "damaged|not a pet_mlip")


def test_a_newer_format(path, tmp_path):
    def newer(text):
        return json.dumps({**json.loads(text), "format_version": FORMAT_VERSION + 1, "new": 1})

    assert_refused(rewritten(path, tmp_path, newer), f"format {FORMAT_VERSION + 1}", "update")


@pytest.mark.parametrize("version", [1, OLDEST_VERSION - 1])
def test_an_older_format(path, tmp_path, version):
    def older(text):
        return json.dumps({**json.loads(text), "format_version": version})

    assert_refused(rewritten(path, tmp_path, older), f"format {version}", "train again, or convert")


quick = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(fraction=st.floats(0, 1, exclude_max=True))
@quick
def test_cut_short(path, tmp_path, fraction):
    content = path.read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: int(fraction * len(content))])
    assert_refused(tmp_path / "cut.pt", "not a pet_mlip model, or a file cut short")


@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
@quick
def test_a_damaged_byte_is_noticed_or_harmless(path, model, tmp_path, place, bits):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= bits
    (tmp_path / "damaged.pt").write_bytes(content)
    try:
        found = load_model(tmp_path / "damaged.pt", device="cpu")
    except UserError as error:
        assert_sentence(error)
        return
    expected = model.module.state_dict()
    for name, value in found.module.state_dict().items():
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "", "meta", "mps"])
def test_unknown_devices(path, device):
    with pytest.raises(UserError) as error:
        load_model(path, device=device)
    assert_sentence(error.value, "auto")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_no_gpu(path, device):
    assert load_model(path, device="auto").device.type == "cpu"
    with pytest.raises(UserError) as error:
        load_model(path, device=device)
    assert_sentence(error.value, "no GPU")


def test_unknown_dtype(path):
    with pytest.raises(UserError) as error:
        load_model(path, device="cpu", dtype="float16")
    assert_sentence(error.value, "float16", "float32")


def test_unknown_dtype_to_write(potential, tmp_path):
    with pytest.raises(UserError) as error:
        save_model(tmp_path / "model.pt", potential, dtype="half")
    assert_sentence(error.value, "half", "float32")
    assert not list(tmp_path.iterdir())


def test_a_directory_to_write(potential, tmp_path):
    with pytest.raises(UserError) as error:
        save_model(tmp_path, potential)
    assert_sentence(error.value, "directory")


def test_permissions_are_those_of_any_new_file(potential, tmp_path):
    save_model(tmp_path / "model.pt", potential)
    (tmp_path / "other").touch()
    assert (tmp_path / "model.pt").stat().st_mode == (tmp_path / "other").stat().st_mode
