"""Python and the pair style accept and refuse the same files, for the same reasons."""

import json
import zipfile
from dataclasses import replace

import pytest
import torch
from ase.build import bulk
from lammps_models import ELEMENTS, save
from simulation import Lammps, deck, oriented, write_data

from pet_mlip.errors import UserError
from pet_mlip.export import load_model
from pet_mlip.export.compiled import TARGET_NAME, target_here
from pet_mlip.export.metadata import FORMAT_VERSION, LINES_NAME, METADATA_NAME

NAMES = " ".join(ELEMENTS)


@pytest.fixture(scope="module")
def lmp(plugin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    save(folder / "model.pt", "plain")
    write_data(folder, oriented(bulk("SiO", "zincblende", a=5.0)), ELEMENTS)
    return Lammps(plugin, folder)


def rewrite(folder, name, edit):
    """A copy whose extra files were edited: a function of a dictionary of texts."""
    files = {METADATA_NAME: "", LINES_NAME: ""}
    module = torch.jit.load(folder / "model.pt", _extra_files=files)
    texts = {key: value.decode() for key, value in files.items()}
    edit(texts)
    module.save(folder / name, _extra_files=texts)


def of_format(version):
    def edit(texts):
        content = json.loads(texts[METADATA_NAME])
        texts[METADATA_NAME] = json.dumps({**content, "format_version": version})
        ours = f"format_version {FORMAT_VERSION}"
        texts[LINES_NAME] = texts[LINES_NAME].replace(ours, f"format_version {version}")

    return edit


def damaged_metadata(texts):
    content = json.loads(texts[METADATA_NAME])
    del content["cutoff"]
    texts[METADATA_NAME] = json.dumps(content)
    lines = texts[LINES_NAME].splitlines(keepends=True)
    texts[LINES_NAME] = "".join(line for line in lines if not line.startswith("cutoff"))


def damaged_lines(texts):
    texts[LINES_NAME] = texts[LINES_NAME].replace("cutoff 3", "cutoff x")


def unknown_dtype(texts):
    texts[METADATA_NAME] = texts[METADATA_NAME].replace("float64", "float16")
    texts[LINES_NAME] = texts[LINES_NAME].replace("float64", "float16")


def compiled(**changes):
    def edit(texts):
        target = replace(target_here("p", [], torch.device("cpu")), **changes)
        texts[TARGET_NAME] = target.to_lines()

    return edit


EDITS = {
    "older": (of_format(FORMAT_VERSION - 1), "export the checkpoint again"),
    "much older": (of_format(1), "written in format 1 by pet_mlip"),
    "newer": (of_format(FORMAT_VERSION + 1), f"written in format {FORMAT_VERSION + 1} by pet_mlip"),
    "format zero": (of_format(0), "export"),
    "damaged metadata": (damaged_metadata, "its metadata are damaged"),
    "damaged lines": (damaged_lines, "its metadata are damaged"),
    "no metadata": (dict.clear, "export"),
    "no lines": (lambda texts: texts.pop(LINES_NAME), "export"),
    "no JSON": (lambda texts: texts.pop(METADATA_NAME), "export"),
    "unknown dtype": (unknown_dtype, "its metadata are damaged"),
    "another GPU": (compiled(gpu="9.0"), "compiled for GPUs of compute capability 9.0, but this"),
    "a GPU": (compiled(device="cuda", gpu="9.0"), "was compiled for"),
    "another torch": (compiled(torch_version="1.0.0"), "was compiled with torch 1.0.0"),
    "another CPU": (compiled(machine="sparc"), "compiled for another CPU"),
    "other instructions": (compiled(instructions=("avx9",)), "compiled for another CPU"),
}


def both(lmp, name):
    """What Python and the pair style say."""
    with pytest.raises(UserError) as caught:
        load_model(lmp.folder / name, device="cpu")
    pair = f"pair_style pet device cpu\npair_coeff * * {name} Si O"
    return str(caught.value), lmp.fails(deck(NAMES, pair=pair))


@pytest.mark.parametrize("name", EDITS)
def test_refused(lmp, name):
    edit, words = EDITS[name]
    rewrite(lmp.folder, "edited.pt", edit)
    for message in both(lmp, "edited.pt"):
        assert "edited.pt" in message
        assert words in message
        assert len(message) < 400


def test_a_bit_that_changed_on_the_way(lmp):
    """Weights with another value would be used without a word."""
    content = bytearray((lmp.folder / "model.pt").read_bytes())
    with zipfile.ZipFile(lmp.folder / "model.pt") as archive:
        weights = max(
            archive.infolist(), key=lambda i: i.file_size if "/data/" in i.filename else 0
        )
        place = content.index(archive.read(weights.filename))
    content[place + 6] ^= 1
    (lmp.folder / "flipped.pt").write_bytes(content)
    for message in both(lmp, "flipped.pt"):
        assert "wrong checksum of" in message


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_cut_short(lmp, part):
    content = (lmp.folder / "model.pt").read_bytes()
    (lmp.folder / "cut.pt").write_bytes(content[: int(part * len(content))])
    for message in both(lmp, "cut.pt"):
        assert "cut short" in message


@pytest.mark.parametrize("edit", [lambda texts: None, compiled()])
def test_accepted(lmp, edit):
    rewrite(lmp.folder, "same.pt", edit)
    load_model(lmp.folder / "same.pt", device="cpu")
    lmp(deck(NAMES, pair="pair_style pet device cpu\npair_coeff * * same.pt Si O"))
