"""Numbers in the documentation stand where they are listed, and their commands exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import claims
from benchmarks.claims import CLAIMS, Claim, bare_tables, faults, what_is_gone, what_is_missing


def test_all_numbers_have_their_commands() -> None:
    assert len(CLAIMS) >= 30
    assert faults() == []


def test_a_number_that_changed_is_told() -> None:
    claim = Claim("README.md", "-0.004 / -0.0006 meV/atom/ps", "make demo")
    assert what_is_gone(claim) == "README.md no longer says: -0.004 / -0.0006 meV/atom/ps"
    gone = what_is_gone(Claim("docs/gone.md", "1", "make demo"))
    assert gone == "docs/gone.md does not exist"


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("make cofffee", "there is no such program"),
        ("pet-mlip trian configs/acac.yaml", "there is no such program"),
        ("python -m benchmarks.gone", "there is no such program"),
        ("python benchmarks/gone.py", "there is no such program"),
        ("curl", "there is no such program"),
        ("pytest tests/gone", "there is no tests/gone"),
        ("pet-mlip train configs/gone.yaml", "there is no configs/gone.yaml"),
        ("python -m benchmarks.hessians --modle a.pt", "there is no option --modle"),
        # An option of another command, and a parameter that is none.
        ("pet-mlip train configs/acac.yaml --ensemble nve", "there is no option --ensemble"),
        ("python -m benchmarks.relaxations run --path a", "there is no option --path"),
    ],
)
def test_a_command_that_is_gone_is_told(command: str, fault: str) -> None:
    assert what_is_missing(command) == [f"{command}: {fault}"]


def test_a_table_without_a_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    table = "| model | error | time |\n| --- | --- | --- |\n| a | 1.5 | 20 |\n| b | 1.7 | 31 |\n"
    shapes = "| name | shape |\n| --- | --- |\n| `a` | (N, 3) |\n| `b` | (N, 3) |\n"
    (tmp_path / "page.md").write_text(f"# Named\n\n{table}\n`make bench` does.\n\n# Bare\n{table}")
    assert bare_tables("page.md") == [11]
    (tmp_path / "page.md").write_text(f"# Shapes\n\n{shapes}")
    assert bare_tables("page.md") == []
