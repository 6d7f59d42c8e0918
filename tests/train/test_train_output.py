"""The output folder and the table of metrics."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pet_mlip.errors import UserError
from pet_mlip.train.output import COLUMNS, MetricsTable, Output


def prepare(folder: Path, *names: str, resume: bool = False, overwrite: bool = False) -> Output:
    for name in names:
        (folder / name).write_text("x")
    output = Output(folder)
    output.prepare(resume, overwrite)
    return output


def test_a_new_folder_is_made(tmp_path: Path) -> None:
    prepare(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model.pt", "last.ckpt"], "holds a finished training.*--resume.*--overwrite"),
        (["last.ckpt"], "holds an unfinished training; use --resume"),
        (["config.yaml"], "would replace .*use --overwrite"),
    ],
)
def test_nothing_is_overwritten_unasked(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(tmp_path, *names)
    assert all((tmp_path / name).exists() for name in names)


def test_overwriting_removes_only_our_files(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    prepare(tmp_path, "model.pt", "last.ckpt", "metrics.csv", "notes.txt", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_other_files_are_no_obstacle(tmp_path: Path) -> None:
    prepare(tmp_path, "notes.txt")


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing to resume.*no last.ckpt"):
        prepare(tmp_path, "config.yaml", resume=True)
    with pytest.raises(UserError, match="not both"):
        prepare(tmp_path, resume=True, overwrite=True)
    with pytest.raises(UserError, match="is a file"):
        (tmp_path / "file").write_text("")
        prepare(tmp_path / "file")


def test_rows_that_will_be_repeated_are_dropped(tmp_path: Path) -> None:
    table = MetricsTable(tmp_path / "metrics.csv")
    table.start(0)
    for epoch in (1, 2, 3):
        table.append({"epoch": epoch, "step": 10 * epoch, "train_loss": 0.1 / epoch})
    with open(table.path, "a") as file:
        file.write("4,40,0.0")  # killed while writing
    assert [row["epoch"] for row in table.rows()] == [1, 2, 3]
    table.start(2)
    rows = table.rows()
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["train_loss"] == pytest.approx(0.05)
    assert math.isnan(rows[1]["val_loss"])
    table.append({"epoch": 3, "train_loss": math.inf})
    assert table.rows()[2]["train_loss"] == math.inf
    assert table.path.read_text().splitlines()[0] == ",".join(COLUMNS)
    assert len(table.path.read_text().splitlines()) == 4
