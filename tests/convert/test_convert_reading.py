"""Files are read without running anything in them; what is no checkpoint gets one sentence."""

import gzip
import io
import os
import pickle
import zipfile

import pytest
import torch
from metatrain_files import checkpoint, random_potential, save
from model_files import checkpoint as own_checkpoint
from model_files import small_potential

from pet_mlip.convert import convert, is_metatrain
from pet_mlip.convert.archive import open_archive
from pet_mlip.errors import UserError
from pet_mlip.export import save_model


@pytest.fixture
def file(tmp_path):
    return save(checkpoint(random_potential()), tmp_path / "metatrain.ckpt")


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def repacked(source, path, change):
    """The archive with some members changed: ``change(name, content)`` gives the new content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


def refusal(path):
    with pytest.raises(UserError) as caught:
        convert(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(
    "call",
    [
        Call(os.system, "touch ran"),
        Call(eval, "open('ran', 'w')"),
        Call(exec, "open('ran', 'w')"),
        Call(open, "ran", "w"),
        Call(getattr, "a", "upper"),
        Call(torch.load, "ran"),
        Call(torch.hub.load, "a/b", "c"),
        Call(pickle.loads, b"."),
        Call(__import__, "this"),
    ],
    ids=lambda call: call.call[0].__name__,
)
@pytest.mark.parametrize("place", ["metadata", "best_model_state_dict", "train_hypers"])
def test_nothing_is_run(file, tmp_path, monkeypatch, call, place):
    monkeypatch.chdir(tmp_path)
    content = checkpoint(random_potential(), **{place: {"x": call}})
    message = refusal(save(content, tmp_path / "malicious.ckpt"))
    assert "could run code; nothing was run" in message
    assert not (tmp_path / "ran").exists()
    assert not is_metatrain(tmp_path / "malicious.ckpt")


def test_placeholders_are_never_imported(file, tmp_path):
    # As an attacker who may write modules into the path would have it.
    evil = pickle.dumps({"architecture_name": "pet"}, protocol=2).replace(
        b"}", b"cmetatrain.evil\nrun\n(X\x01\x00\x00\x00atR0}", 1
    )
    path = repacked(file, tmp_path / "a.ckpt", lambda n, c: evil if n.endswith("data.pkl") else c)
    with open_archive(path) as archive:
        assert archive.content() == {"architecture_name": "pet"}


@pytest.mark.parametrize(
    "state",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n}X\x04\x00\x00\x00__x_I1\nsb.",
        b"cmetatrain.a\nB\n(tR(N}X\x05\x00\x00\x00stateI1\nstX\x05\x00\x00\x00stateI1\nb.",
        b"cmetatrain.a\nB\n}X\x06\x00\x00\x00originI1\nsb.",
    ],
)
def test_functions_and_classes_cannot_be_changed(file, tmp_path, state):
    change = lambda n, c: b"\x80\x02" + state if n.endswith("data.pkl") else c  # noqa: E731
    path = repacked(file, tmp_path / "a.ckpt", change)
    refusal(path)
    convert(file)


def test_compressed(file, tmp_path):
    path = tmp_path / "metatrain.ckpt.gz"
    path.write_bytes(gzip.compress(file.read_bytes()))
    plain, found = convert(file).potential, convert(path).potential
    for name, value in plain.state_dict().items():
        assert torch.equal(value, found.state_dict()[name])
    path.write_bytes(path.read_bytes()[:-1000])
    assert "damaged or cut short" in refusal(path)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
def test_cut_short(file, kept):
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content))])
    assert "cut short" in refusal(file)


def test_damaged_weights(file):
    with zipfile.ZipFile(file) as archive:
        contents = [archive.read(n) for n in archive.namelist() if "/data/" in n]
    # The best weights; the last ones are zero, and not read.
    largest = max((c for c in contents if any(c) and c[:2] != b"PK"), key=len)
    content = bytearray(file.read_bytes())
    content[content.find(largest) + len(largest) // 2] ^= 0xFF
    file.write_bytes(content)
    assert "CRC" in refusal(file)


def test_missing_and_short_members(file, tmp_path):
    missing = repacked(file, tmp_path / "a", lambda n, c: None if "/data/" in n else c)
    assert "damaged" in refusal(missing)
    short = repacked(file, tmp_path / "b", lambda n, c: c[:-1] if "/data/" in n else c)
    assert "wrong size" in refusal(short)
    pickled = repacked(file, tmp_path / "c", lambda n, c: c[:400] if "data.pkl" in n else c)
    assert "damaged" in refusal(pickled)


def test_tensors_beyond_their_storage(tmp_path):
    def rebuilt(storage, offset, size, stride):
        return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, None)

    storage = torch.storage.TypedStorage(
        wrap_storage=torch.zeros(4).untyped_storage(), dtype=torch.float32, _internal=True
    )
    for shape in [(0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 4), (1, 1)), (-1, (1,), (1,))]:
        content = {"architecture_name": "pet", "x": rebuilt(storage, *shape)}
        assert "a tensor" in refusal(save(content, tmp_path / "a.ckpt"))


def test_other_files(tmp_path):
    assert "There is no checkpoint" in refusal(tmp_path / "none.ckpt")
    text = tmp_path / "notes.ckpt"
    text.write_text("cutoff: 4.5")
    assert "no checkpoint of metatrain" in refusal(text)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    assert "no checkpoint of metatrain" in refusal(tmp_path / "a.zip")
    legacy = io.BytesIO()
    torch.save({"architecture_name": "pet"}, legacy, _use_new_zipfile_serialization=False)
    (tmp_path / "legacy.ckpt").write_bytes(legacy.getvalue())
    assert "no checkpoint of metatrain" in refusal(tmp_path / "legacy.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    assert "another program" in refusal(tmp_path / "other.ckpt")


def test_files_of_this_package(tmp_path):
    own = own_checkpoint(tmp_path / "best.ckpt", small_potential())
    assert "a checkpoint of pet_mlip already" in refusal(own)
    save_model(tmp_path / "model.pt", small_potential("none"))
    assert "an exported model of pet_mlip already" in refusal(tmp_path / "model.pt")
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "other.pt")
    assert "exported from" in refusal(tmp_path / "other.pt")
    assert not any(is_metatrain(path) for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture_name": "soap_bpnn"}, "its architecture is soap_bpnn; only PET"),
        ({"architecture_name": "gap"}, "its architecture is gap; only PET"),
        ({"model_ckpt_version": 17}, "17, is newer than this pet_mlip knows (up to 16); update"),
        ({"model_ckpt_version": 0}, "does not exist"),
        ({"model_data": {}}, "damaged"),
        ({"model_state_dict": None, "best_model_state_dict": None}, "damaged"),
    ],
)
def test_other_checkpoints(tmp_path, change, message):
    path = save(checkpoint(random_potential(), **change), tmp_path / "a.ckpt")
    assert message in refusal(path)
    assert is_metatrain(path)
