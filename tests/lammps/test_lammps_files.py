"""Python and the pair style accept and refuse the same files, for the same reasons."""

import io
import json
import subprocess
import zipfile

import pytest
import torch
from ase.build import bulk
from lammps_models import ELEMENTS, save
from simulation import Lammps, deck, oriented, write_data

from pet_mlip.errors import UserError
from pet_mlip.export import load_model
from pet_mlip.export.metadata import FORMAT_VERSION, LINES_NAME, METADATA_NAME, OLDEST_VERSION
from pet_mlip.lammps.cache import SOURCES
from pet_mlip.lammps.toolchain import find_compiler

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


EDITS = {
    "older": (of_format(OLDEST_VERSION - 1), "train again, or convert"),
    "much older": (of_format(1), "written in format 1 by pet_mlip"),
    "newer": (of_format(FORMAT_VERSION + 1), f"written in format {FORMAT_VERSION + 1} by pet_mlip"),
    "format zero": (of_format(0), "its metadata are damaged; export"),
    "damaged metadata": (damaged_metadata, "its metadata are damaged"),
    "damaged lines": (damaged_lines, "its metadata are damaged"),
    "no metadata": (dict.clear, "export"),
    "no lines": (lambda texts: texts.pop(LINES_NAME), "export"),
    "no JSON": (lambda texts: texts.pop(METADATA_NAME), "export"),
    "unknown dtype": (unknown_dtype, "its metadata are damaged"),
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


def test_accepted(lmp):
    rewrite(lmp.folder, "same.pt", lambda texts: None)
    load_model(lmp.folder / "same.pt", device="cpu")
    lmp(deck(NAMES, pair="pair_style pet device cpu\npair_coeff * * same.pt Si O"))


def broken_directory(content, entry, mark=b"PK\0\0"):
    """An archive whose 64-bit directory is said to be elsewhere; torch takes the 32-bit one."""
    end = content.rindex(b"PK\x05\x06")
    assert content[end - 20 : end - 16] == b"PK\x06\x07"
    end64 = int.from_bytes(content[end - 12 : end - 4], "little")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        count, start = len(archive.infolist()), archive.start_dir
    changed = bytearray(content)
    changed[end + 8 : end + 10] = changed[end + 10 : end + 12] = count.to_bytes(2, "little")
    changed[end + 16 : end + 20] = start.to_bytes(4, "little")
    changed[end64 : end64 + 4] = mark
    changed[end64 + 48 : end64 + 56] = entry.to_bytes(8, "little")
    return bytes(changed)


@pytest.mark.parametrize("entry", [2**64 - 2, 2**64 - 50, 2**63, 0])
def test_places_in_a_directory_that_are_beyond_every_file(lmp, entry):
    content = (lmp.folder / "model.pt").read_bytes()
    (lmp.folder / "beyond.pt").write_bytes(broken_directory(content, entry))
    pair = "pair_style pet device cpu\npair_coeff * * beyond.pt Si O"
    message = lmp.fails(deck(NAMES, pair=pair))
    assert message.startswith("ERROR") and "cut short" in message


@pytest.mark.parametrize("place", [28, 30, 32])
def test_lengths_in_a_directory_that_go_beyond_the_file(lmp, place):
    content = bytearray((lmp.folder / "model.pt").read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + place : entry + place + 2] = b"\xff\xff"
    (lmp.folder / "beyond.pt").write_bytes(content)
    pair = "pair_style pet device cpu\npair_coeff * * beyond.pt Si O"
    assert "cut short" in lmp.fails(deck(NAMES, pair=pair))


# Torch's reader, which lets archives pass that ours has to judge.
READER = """
#include <fstream>
#include <memory>
#include <string>
#include <vector>
namespace c10 {
struct Error : std::exception {};
} // namespace c10
namespace caffe2::serialize {
struct PyTorchStreamReader {
  explicit PyTorchStreamReader(const std::string &) {}
  bool hasRecord(const std::string &) { return true; }
  std::pair<std::unique_ptr<char[]>, size_t> getRecord(const std::string &) {
    return {std::make_unique<char[]>(1), 1};
  }
  std::vector<std::string> getAllRecords() { return {}; }
};
} // namespace caffe2::serialize
"""
READ = """
#include "pet_archive.h"
#include <iostream>
int main(int, char **words) {
  try {
    pet::read_metadata(words[1]);
  } catch (const pet::Error &error) {
    std::cout << error.what();
  }
}
"""


def test_no_byte_outside_a_broken_archive_is_read(lmp, tmp_path):
    """Sums of places and sizes overflow, if they are as large as 64 bits allow."""
    (tmp_path / "caffe2" / "serialize").mkdir(parents=True)
    (tmp_path / "caffe2" / "serialize" / "inline_container.h").write_text(READER)
    (tmp_path / "main.cpp").write_text(READ)
    flags = ["-std=c++20", "-fsanitize=address", f"-I{tmp_path}", f"-I{SOURCES}", "-o", "read"]
    sources = [str(tmp_path / "main.cpp"), str(SOURCES / "pet_archive.cpp")]
    done = subprocess.run([*find_compiler().command, *flags, *sources], cwd=tmp_path)
    if done.returncode != 0:
        pytest.skip("this compiler has no address sanitizer")
    content = (lmp.folder / "model.pt").read_bytes()
    end = content.rindex(b"PK\x05\x06")
    broken = {}
    for far in (2**64 - 1, 2**64 - 2, 2**64 - 18, 2**64 - 30, 2**64 - 50, 2**63):
        broken[f"entry {far}"] = broken_directory(content, far, mark=b"PK\x06\x06")
        place = far.to_bytes(8, "little")
        broken[f"end {far}"] = content[: end - 12] + place + content[end - 4 :]
    for name, archive in broken.items():
        (tmp_path / "broken.pt").write_bytes(archive)
        command = [str(tmp_path / "read"), str(tmp_path / "broken.pt")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, name + done.stderr[:1000]
        assert "a file cut short" in done.stdout, name
