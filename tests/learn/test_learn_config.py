"""The configuration of a learning: what it accepts, and what it says of mistakes."""

from pathlib import Path

import pytest
import yaml
from learn_tools import methanol_tree

from pet_mlip.config.load import validate_as
from pet_mlip.errors import UserError
from pet_mlip.learn.config import LearnConfig, load_learn_config, reference_yaml
from pet_mlip.learn.folder import LearnFolder
from pet_mlip.learn.training import check_training, training_config

REPOSITORY = Path(__file__).parents[2]


def load(folder, *overrides, **changes):
    path = folder / "learn.yaml"
    path.write_text(yaml.safe_dump(methanol_tree(folder, **changes)))
    return load_learn_config(path, overrides)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reference": {}}, "either a calculator or a command"),
        ({"reference": {"calculator": "a.B", "command": "c"}}, "either a calculator or a command"),
        ({"reference": {"calculator": "a.B", "dask": {}}}, "reference.dask"),
        ({"training": {"epochs": 3}}, "give steps, the length of each training"),
        ({"training": {"max_time": 3}}, "give steps, the length of each training"),
        ({"training": {"uncertainty_members": 0}}, "uncertainties decide what is new"),
        ({"training": {"devices": 2}}, "devices must be 1"),
        ({"selection": {"record_above": 2, "stop_above": 1}}, "at least record_above"),
        ({"simulation": {"temperature": 3}}, "simulation.temperature"),
        ({"first": {"structures": 3}}, "first.structures"),
    ],
)
def test_mistakes_are_told_by_their_keys(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        load(tmp_path, **changes)


def test_what_is_subtracted_is_tried_before_any_label(tmp_path):
    pytest.importorskip("dftd3")
    check_training(load(tmp_path, subtract="d3(PBE)"))
    with pytest.raises(UserError, match=r"dftd3 has no parameters for d3\(PBEE, d3bj\)"):
        check_training(load(tmp_path, subtract="d3(PBEE)"))
    with pytest.raises(UserError, match=r"engine: lammps does not add d3\(PBE, d3bj\)"):
        check_training(load(tmp_path, subtract="d3(PBE)", simulation={"engine": "lammps"}))


def test_files_are_looked_for_beside_the_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(Path("/"))
    config = load(tmp_path, "start=start.xyz", "reference.files=[start.xyz]")
    assert config.start == [str(tmp_path / "start.xyz")]
    assert config.reference.files == [str(tmp_path / "start.xyz")]


def test_numbers_may_stand_for_lists(tmp_path):
    config = load(tmp_path, "simulation.temperatures=300")
    assert config.simulation.temperatures == [300.0]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples" / "learn").glob("*.yaml")))
def test_shipped_configurations_are_valid(path):
    assert load_learn_config(path).rounds > 1


def test_the_reference_is_up_to_date():
    text = (REPOSITORY / "examples" / "learn" / "reference.yaml").read_text(encoding="utf-8")
    found = reference_yaml()
    assert text == found, "run python -m pet_mlip.learn > examples/learn/reference.yaml"
    config = validate_as(LearnConfig, yaml.safe_load(found), "the reference")
    default = LearnConfig(start="start.xyz", reference={"calculator": "tblite.ase.TBLite"})
    assert config == default


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"baseline": "keep"}, "keep is for fine-tuning"),
        ({"training": {"init_from": "organic-xtb"}}, "model.cutoff is 3.5, but the checkpoint"),
        ({"training": {"init_from": "nothing.ckpt"}}, "no checkpoint nothing.ckpt"),
        ({"training": {"freeze": "heads"}}, "freeze is for fine-tuning"),
    ],
)
def test_a_training_that_cannot_be_done_is_told_before(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        check_training(load(tmp_path, **changes))


def test_a_training_has_the_steps_that_were_asked_for(tmp_path):
    config = load(tmp_path, "training.steps=100", "training.batch_size=4")
    folder = LearnFolder(tmp_path)
    for part in folder.known_to(2):
        part.mkdir()
        (part / "train.xyz").write_text("something")
        (part / "validation.xyz").write_text("something" if part == folder.first else "")
    found = training_config(config, folder, 2, [6] * 18)
    assert found.training.epochs == 20  # of five batches
    assert found.data.train == [str(part / "train.xyz") for part in folder.known_to(2)]
    assert found.data.validation == [str(folder.first / "validation.xyz")]
    assert found.training.init_from == str(folder.round(1) / "run" / "best.ckpt")
    assert training_config(config, folder, 0, [6] * 18).training.init_from is None


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ("training.seed=1", 1e-3),
        ("training.optimizer=adamw", 2.5e-4),
        ("training.learning_rate=2e-3", 2e-3),
        ("training.init_from=organic-xtb", "auto"),
    ],
)
def test_only_pretrained_weights_are_learned_on_with_smaller_steps_for_few_labels(
    tmp_path, given, rate
):
    config = load(tmp_path, given)
    folder = LearnFolder(tmp_path)
    for part in folder.known_to(1):
        part.mkdir()
        (part / "train.xyz").write_text("something")
        (part / "validation.xyz").write_text("something")
    assert training_config(config, folder, 1, [6] * 18).training.learning_rate == rate
