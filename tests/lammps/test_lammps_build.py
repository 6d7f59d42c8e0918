"""Compiling the plugin."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from fake_lammps import fake_compiler, fake_lammps

from pet_mlip.errors import UserError
from pet_mlip.lammps import cache
from pet_mlip.lammps.build import build, copy_to, describe
from pet_mlip.lammps.cache import DESCRIPTION, PLUGIN, cache_folder
from pet_mlip.lammps.detect import detect
from pet_mlip.lammps.executables import find_executable
from pet_mlip.lammps.launch import check_loads, find_plugin
from pet_mlip.lammps.toolchain import Compiler, find_compiler, find_torch


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, request):
    if "plugin" not in request.fixturenames:
        monkeypatch.setenv("PET_MLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def lammps(tmp_path):
    # With its own mpi.h: some of these tests write to it, whatever mpicxx is in PATH.
    lmp = fake_lammps(tmp_path / "prefix")
    return detect(lmp, mpi_include=tmp_path / "prefix" / "include")


@pytest.fixture
def calls(tmp_path):
    """Function that returns the noted calls of the fake compiler."""
    log = tmp_path / "calls"
    return lambda: log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def compiler(tmp_path):
    return Compiler((str(fake_compiler(tmp_path, tmp_path / "calls")),), "fake 1.0")


def test_the_real_plugin_is_loaded(plugin):
    executable = find_executable()
    assert find_plugin(executable) == plugin
    assert check_loads(executable, plugin) == "loaded by this LAMMPS"
    description = json.loads((plugin / DESCRIPTION).read_text())
    assert description["lammps_version"] == detect().version
    assert description["lammps_release"] == detect().version_text
    assert "warning" not in (plugin / "build.log").read_text()


def test_the_second_time_nothing_is_compiled(lammps, compiler, calls):
    told = []
    first = build(lammps, find_torch(), compiler, progress=lambda *step: told.append(step))
    n_sources = len([path for path in cache.source_files() if path.suffix == ".cpp"])
    assert len(calls()) == n_sources + 1
    assert [step[0] for step in told] == list(range(n_sources + 2))
    assert not first.cached
    assert first.plugin.is_file()
    assert find_plugin(lammps.executable) == first.folder
    second = build(lammps, find_torch(), compiler)
    assert second.cached
    assert second.folder == first.folder
    assert len(calls()) == n_sources + 1
    build(lammps, find_torch(), compiler, force=True)
    assert len(calls()) == 2 * (n_sources + 1)
    assert not [p for p in cache_folder().iterdir() if p.is_dir() and p != first.folder]


def test_the_commands(lammps, compiler, calls):
    build(lammps, find_torch(), compiler)
    *compilations, link = calls()
    for flag in ("-std=c++20", "-DLAMMPS_SMALLBIG", "-DPET_LAMMPS_VERSION=20250722", "-Wextra"):
        assert all(flag in line.split() for line in compilations)
    assert f"-Wl,-rpath,{find_torch().library}" in link.split()
    assert "-llammps" not in link


def test_everything_that_matters_is_described(lammps, compiler, monkeypatch, tmp_path):
    torch = find_torch()
    facts = describe(lammps, torch, compiler)
    other = Compiler(compiler.command, "fake 2.0")
    assert describe(lammps, torch, other) != facts
    (lammps.mpi.include / "mpi.h").write_text("#define MPICH_VERSION 5\n")
    assert describe(lammps, torch, compiler) != facts
    facts = describe(lammps, torch, compiler)
    update = replace(lammps, version_text="22 Jul 2025 - Update 2")
    assert describe(update, torch, compiler) != facts
    (lammps.include / "pair.h").write_text("class Pair {};\n")
    assert describe(lammps, torch, compiler) != facts
    bigger = detect(fake_lammps(tmp_path / "bigger", tag=64, image=64))
    assert describe(bigger, torch, compiler)["lammps_define"] == "LAMMPS_BIGBIG"


def test_a_failure_shows_the_compiler_and_leaves_nothing(lammps, tmp_path, monkeypatch):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "good.cpp").write_text("int a;\n")
    (sources / "bad.cpp").write_text("int b = nothing_of_this_name;\n")
    monkeypatch.setattr(cache, "SOURCES", sources)
    with pytest.raises(UserError, match=r"Compiling bad\.cpp failed") as error:
        build(lammps, find_torch(), find_compiler("g++"))
    assert "nothing_of_this_name" in str(error.value)
    (log,) = cache_folder().glob("*.log")
    assert str(log) in str(error.value)
    assert "nothing_of_this_name" in log.read_text()
    assert not [path for path in cache_folder().iterdir() if path.is_dir()]
    assert "newer than" not in str(error.value)
    newer = replace(lammps, version=20300101, version_text="1 Jan 2030")
    with pytest.raises(UserError, match="for LAMMPS 1 Jan 2030, which is newer than those"):
        build(newer, find_torch(), find_compiler("g++"))


def test_real_compiler_and_linker(lammps, tmp_path, monkeypatch):
    sources = tmp_path / "sources"
    sources.mkdir()
    # As in the plugin, LAMMPS' symbols are not there yet.
    text = (
        'extern "C" { int lammps_version(void *);\n int f() { return lammps_version(nullptr); } }'
    )
    (sources / "a.cpp").write_text(text)
    monkeypatch.setattr(cache, "SOURCES", sources)
    built = build(lammps, find_torch(), find_compiler("g++"))
    done = subprocess.run(["readelf", "-d", built.plugin], capture_output=True, text=True)
    if done.returncode == 0:
        assert "libtorch.so" in done.stdout
        assert "liblammps" not in done.stdout


def test_one_of_two_processes_compiles(tmp_path):
    lmp = fake_lammps(tmp_path / "prefix")
    log = tmp_path / "calls"
    compiler = fake_compiler(tmp_path, log, delay=0.5)
    code = f"""
from pathlib import Path
from pet_mlip.lammps.build import build
from pet_mlip.lammps.detect import detect
from pet_mlip.lammps.toolchain import Compiler, find_torch
compiler = Compiler(({str(compiler)!r},), "fake 1.0")
print(build(detect(Path({str(lmp)!r})), find_torch(), compiler).cached)
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert sorted(process.communicate()[0].strip() for process in processes) == ["False", "True"]
    n_sources = len([path for path in cache.source_files() if path.suffix == ".cpp"])
    assert len(log.read_text().splitlines()) == n_sources + 1


def syntax_errors(lammps, code):
    """What g++ says about code, with the plugin's flags."""
    flags = describe(lammps, find_torch(), find_compiler("g++"))["flags"]
    flags = [flag for flag in flags if not flag.startswith(("-Wl", "-l", "-L", "-shared"))]
    command = ["g++", *flags, "-fsyntax-only", "-x", "c++", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True).stderr


def test_a_header_that_wheels_lack_is_only_used_there(lammps):
    (lammps.include / "atom.h").write_text('#include "json_fwd.h"\n')
    code = '#include "atom.h"\n'
    assert not syntax_errors(lammps, code + "void f(const LAMMPS_NS::json &);")
    (lammps.include / "json_fwd.h").write_text("class OfLammps;\n")
    assert not syntax_errors(lammps, code + "void f(const OfLammps &);")


@pytest.mark.parametrize("update", [None, "Update 99"])
def test_another_update_refuses_to_load_it(plugin, tmp_path, update):
    lammps, torch, compiler = detect(), find_torch(), find_compiler()
    release = lammps.version_text if update is None else f"1 Jan 2030 - {update}"
    facts = describe(replace(lammps, version_text=release), torch, compiler)
    # The rest of it is taken from the plugin that is there.
    source = cache.SOURCES / "petplugin.cpp"
    rest = [f"-L{plugin}", f"-l:{PLUGIN}", f"-Wl,-rpath,{plugin}"]
    command = [*compiler.command, str(source), *facts["flags"], *rest]
    subprocess.run([*command, "-o", str(tmp_path / PLUGIN)], check=True)
    if update is None:
        assert check_loads(lammps.executable, tmp_path) == "loaded by this LAMMPS"
        return
    with pytest.raises(UserError) as error:
        check_loads(lammps.executable, tmp_path)
    assert f"built for LAMMPS {release}" in str(error.value)
    assert f"this is LAMMPS {lammps.version_text} with" in str(error.value)


def test_a_copy(lammps, compiler, tmp_path):
    built = build(lammps, find_torch(), compiler)
    copy = copy_to(built, tmp_path / "to" / "here")
    assert copy == tmp_path / "to" / "here" / PLUGIN
    assert copy_to(built, copy.parent) == copy
    assert sorted(path.name for path in copy.parent.iterdir()) == sorted([PLUGIN, DESCRIPTION])
    with pytest.raises(UserError, match="--output"):
        copy_to(built, copy)


def test_a_plugin_that_cannot_be_loaded_is_noticed(plugin, tmp_path):
    (tmp_path / PLUGIN).write_text("not a library")
    with pytest.raises(UserError, match="does not load the plugin"):
        check_loads(find_executable(), tmp_path)


def test_lammps_own_words_are_passed_on(tmp_path):
    lmp = tmp_path / "lmp"
    lmp.write_text("#!/bin/sh\necho 'LAMMPS (1 Jan 2030)'\necho 'ERROR: built for another' >&2\n")
    lmp.chmod(0o755)
    with pytest.raises(UserError, match="ERROR: built for another"):
        check_loads(lmp, tmp_path)
