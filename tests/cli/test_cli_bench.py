import json

EARLIER = {
    "settings": {"timed_by": "cpu", "threads": 1, "device": "cpu", "shape": "tiny"},
    "weights": "pet_mlip",
    "machine": {"processor": "X", "cores": 2, "load": 0.5, "packages": {"torch": "2.13.0"}},
    "titles": {"plain": "TorchScript"},
    "structures": [
        {
            "name": "ethanol",
            "title": "ethanol",
            "groups": ["ecse"],
            "n_atoms": 9,
            "contestants": {"plain": {"time": [0.01, 0.0123, 0.02], "ratio": [1.0, 1.0, 1.0]}},
        }
    ],
}


def test_results_of_an_earlier_run_are_shown_and_put_into_a_page(run, folder):
    (folder / "results.json").write_text(json.dumps(EARLIER))
    (folder / "page.md").write_text("<!-- bench -->\n<!-- /bench -->\n")
    code, out, err = run("bench", "--results", "results.json", "--update", "page.md")
    assert code == 0, err
    row = "| ethanol | 9 | 12.3 |"
    assert row in out
    assert row in (folder / "page.md").read_text()


def test_results_are_not_replaced_unasked(run, folder):
    (folder / "earlier").mkdir()
    (folder / "earlier/report.md").write_text("of an earlier run")
    code, _, err = run("bench", "--output", "earlier")
    assert code == 1
    assert "--overwrite" in err
    assert (folder / "earlier/report.md").read_text() == "of an earlier run"


def test_mistakes_are_told_before_anything_is_measured(run, folder):
    (folder / "unmarked.md").write_text("nothing here")
    for arguments, message in (
        (["--update", "unmarked.md"], "<!-- bench -->"),
        (["--structures", "ice"], "--structures ice"),
        (["--contestants", "nequip"], "--contestants nequip"),
        (["--shape", "huge"], "--shape huge"),
        (["--output", "unmarked.md"], "is a file"),
    ):
        code, _, err = run("bench", *arguments)
        assert code == 1
        assert message in err
