import json


def test_bench_writes_its_files_and_shows_them_again(run, folder):
    arguments = ["--structures", "ethanol", "--contestants", "plain", "--shape", "tiny"]
    arguments += ["--repeats", "1", "--threads", "1", "--output", "bench"]
    code, out, err = run("bench", *arguments)
    assert code == 0, err
    assert "ethanol, 9 atoms: plain" in err
    assert "TorchScript, ms" in out
    names = {path.name for path in (folder / "bench").iterdir()}
    assert names == {"results.json", "report.md", "benchmark.png"}
    found = json.loads((folder / "bench/results.json").read_text())
    assert found["settings"]["shape"] == "tiny"

    code, _, err = run("bench", *arguments)
    assert code == 1
    assert "--overwrite" in err

    (folder / "page.md").write_text("<!-- bench -->\n<!-- /bench -->\n")
    code, out, err = run("bench", "--results", "bench/results.json", "--update", "page.md")
    assert code == 0, err
    assert "| ethanol | 9 |" in (folder / "page.md").read_text()


def test_mistakes_are_told_before_anything_is_measured(run, folder):
    (folder / "unmarked.md").write_text("nothing here")
    for arguments, message in (
        (["--update", "unmarked.md"], "<!-- bench -->"),
        (["--structures", "ice"], "--structures ice"),
        (["--contestants", "nequip"], "--contestants nequip"),
        (["--shape", "huge"], "--shape huge"),
        (["--output", "unmarked.md"], "is a file"),
    ):
        code, _, err = run("bench", "--overwrite", *arguments)
        assert code == 1
        assert message in err
