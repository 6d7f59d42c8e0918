"""A package is its model: the scripted code around the compiled functions, and what it refuses."""

import pickle
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from model_files import small_potential
from model_tools import graph_of, make_potential, structures

from pet_mlip import PETCalculator
from pet_mlip.cli.info import describe_model, kind_of
from pet_mlip.compile import compile_model, package
from pet_mlip.errors import UserError
from pet_mlip.export import compiled, load_model, read_metadata, save_model
from pet_mlip.export.compiled import Target, read_target
from pet_mlip.inference.readout import Head

VARIANTS = {
    "plain": {"ensemble": "none"},
    "axis_plane": {},
    "closest_pairs, residual": {"ensemble": "closest_pairs", "featurizer": "residual"},
    "PostLN, LayerNorm": {
        "transformer_type": "PostLN",
        "normalization": "LayerNorm",
        "num_attention_layers": 2,
    },
    "SiLU, narrow": {"activation": "SiLU", "d_node": 8, "num_radial": 0},
    "conditioning, ZBL": {"zbl": True, "system_conditioning": True, "ensemble": "none"},
}


QUICK = ("plain", "axis_plane")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS]
)
def test_same_as_the_model(packaged, name):
    model, compiled_file = packaged(**VARIANTS[name])
    expected, found = PETCalculator(model), PETCalculator(compiled_file)
    properties = ["energies", "forces", "stresses"]
    for atoms in structures().values():
        a = expected.compute_batch([atoms], properties)[0]
        b = found.compute_batch([atoms], properties)[0]
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_allclose(b[key], a[key], rtol=0, atol=1e-11)
    several = list(structures().values())
    in_chunks = PETCalculator(compiled_file, chunk_size=40).compute_batch(several)
    for a, b in zip(expected.compute_batch(several), in_chunks, strict=True):
        np.testing.assert_allclose(b["forces"], a["forces"], rtol=0, atol=1e-11)


def test_the_plain_part(packaged):
    graph = graph_of(structures()["ethanol"])
    model, file = (load_model(f, "cpu") for f in packaged())
    for a, b in zip(model(*graph, plain=True), file(*graph, plain=True), strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-11)


@pytest.mark.slow
def test_parts_of_one_shape_share_a_function(packaged):
    _, file = packaged(num_gnn_layers=3, d_node=8)
    assert [name for name in read_target(file).functions if name.endswith("vjp")] == [
        "encoder_0_vjp",
        "mixing_1_vjp",
        "node_head_2_vjp",
    ]


def test_functions_are_called(packaged, monkeypatch):
    _, file = packaged()
    calculator = PETCalculator(file)
    called = []
    call = compiled._OPEN.copy()

    class Spy:
        def __init__(self, key):
            self.key = key

        def run(self, inputs):
            called.append(self.key[1])
            return call[self.key].run(inputs)

    monkeypatch.setattr(compiled, "_OPEN", {key: Spy(key) for key in call})
    calculator.get_potential_energy(molecule("H2O"))
    assert {"encoder_0_forward", "mixing_1_forward"} <= set(called)
    assert not any(name.endswith("vjp") for name in called)
    calculator.get_forces(molecule("H2O"))
    assert set(called) == set(read_target(file).functions)


def test_pickled_calculators(packaged):
    model, file = packaged()
    copy = pickle.loads(pickle.dumps(PETCalculator(file)))
    silicon = bulk("Si", cubic=True)
    silicon.rattle(0.1)
    expected = PETCalculator(model).compute_batch([silicon])[0]["forces"]
    np.testing.assert_allclose(copy.compute_batch([silicon])[0]["forces"], expected, atol=1e-11)


def test_description(packaged):
    model, file = packaged()
    assert read_metadata(file) == read_metadata(model)
    assert kind_of(str(file)) == "model"
    assert (
        f"torch {torch.__version__.partition('+')[0]}"
        in (describe_model(file)["model"]["compiled for"])
    )
    assert "compiled for" not in describe_model(model)["model"]
    target = read_target(file)
    assert Target.from_lines(target.to_lines()) == target
    assert target.device == "cpu"
    assert read_target(model) is None


def changed(file, folder, **values):
    """A copy of a package that says something else about what it is tied to."""
    copy = folder / "changed.pt2"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(compiled.TARGET_NAME):
                lines = dict(line.split(" ", 1) for line in content.decode().splitlines())
                content = "".join(f"{k} {v}\n" for k, v in (lines | values).items())
            new.writestr(name, content)
    return copy


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"torch_version": "2.5.0"}, "compiled with torch 2.5.0, but this is torch .* compile"),
        ({"instructions": "avx2 sve9000"}, "another CPU .* without sve9000.* compile"),
        ({"machine": "vax"}, "another CPU .vax; this one is .* compile"),
        ({"gpu": "9.0"}, "compute capability 9.0"),
    ],
)
def test_other_computers(packaged, tmp_path, values, words):
    _, file = packaged(ensemble="none")
    refuses(changed(file, tmp_path, **values), words)


def refuses(file, words, **options):
    with pytest.raises(UserError, match=words) as error:
        load_model(file, **options)
    text = str(error.value)
    assert str(file) in text
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text) < 400


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_another_device(packaged, tmp_path):
    _, file = packaged(ensemble="none")
    assert load_model(file).device.type == "cpu"
    gpu = changed(file, tmp_path, device="cuda", gpu="9.0")
    refuses(gpu, "compiled for a GPU, not for the device cpu", device="cpu")


def test_another_precision(packaged):
    _, file = packaged(ensemble="none")
    refuses(file, "compiled in float64.* cannot run in float32", dtype="float32")
    assert load_model(file, dtype="float64").dtype == torch.float64


def test_mixed_precision(interpreted, packages, tmp_path):
    model, _ = packages()
    compile_model(model, tmp_path / "model.pt2", dtype="bf16-mixed")
    expected = PETCalculator(model, dtype="bf16-mixed")
    found = PETCalculator(tmp_path / "model.pt2")
    assert found.engine.model.precision == "bf16-mixed"
    for name in ("ethanol", "silicon", "atom"):
        a, b = (x.compute_batch([structures()[name]])[0] for x in (expected, found))
        assert b["energy"] == a["energy"]
        np.testing.assert_array_equal(b["forces"], a["forces"])
    with pytest.raises(UserError, match="was compiled in bf16-mixed"):
        PETCalculator(tmp_path / "model.pt2", dtype="float32")


def test_a_damaged_description(packaged, tmp_path):
    _, file = packaged(ensemble="none")
    copy = tmp_path / "damaged.pt2"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(copy, "w") as new:
        for name in old.namelist():
            text = b"package" if name.endswith(compiled.TARGET_NAME) else old.read(name)
            new.writestr(name, text)
    refuses(copy, "damaged")


def test_nothing_is_overwritten_silently(packaged, tmp_path):
    model, file = (Path(shutil.copy(f, tmp_path)) for f in packaged(ensemble="none"))
    before = file.read_bytes()
    with pytest.raises(UserError, match=f"{re.escape(str(file))} exists already.*--force"):
        compile_model(model, file)
    assert file.read_bytes() == before
    compile_model(model, file, overwrite=True)
    with pytest.raises(UserError, match="is the model itself"):
        compile_model(model, model, overwrite=True)
    with pytest.raises(UserError, match="compiled already"):
        compile_model(file, tmp_path / "again.pt2")
    with pytest.raises(UserError, match="directory"):
        compile_model(model, tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["model.pt", "model.pt2"]


def test_wrong_functions_are_refused(interpreted, tmp_path, monkeypatch):
    save_model(tmp_path / "model.pt", make_potential("none"), dtype="float64")
    inner = package.compile_part

    def wrong(part, function, folder, progress):
        if isinstance(part, Head):
            part.last.bias += 1e-6
        return inner(part, function, folder, progress)

    monkeypatch.setattr(package, "compile_part", wrong)
    with pytest.raises(UserError, match=r"energies of .* differ from the model's"):
        compile_model(tmp_path / "model.pt", tmp_path / "model.pt2")
    assert [f.name for f in tmp_path.iterdir()] == ["model.pt"]


def test_no_compiler(tmp_path, monkeypatch):
    save_model(tmp_path / "model.pt", small_potential("none"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"no C\+\+ compiler no-such-compiler"):
        compile_model(tmp_path / "model.pt", tmp_path / "model.pt2")


def test_a_model_of_another_version(interpreted, tmp_path, monkeypatch):
    save_model(tmp_path / "model.pt", small_potential("none"))
    inner = package.Potential

    def wider(species, hypers, symmetrization):
        return inner(species, hypers.model_copy(update={"d_head": 7}), symmetrization)

    monkeypatch.setattr(package, "Potential", wider)
    with pytest.raises(UserError, match=r"another version.* export the checkpoint again"):
        compile_model(tmp_path / "model.pt", tmp_path / "model.pt2")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(tmp_path):
    save_model(tmp_path / "model.pt", small_potential("none"))
    with pytest.raises(UserError, match="sees no GPU"):
        compile_model(tmp_path / "model.pt", tmp_path / "model.pt2", device="cuda")
