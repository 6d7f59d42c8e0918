"""The JSON schema accepts what the loader accepts."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from pet_mlip.cli.app import app
from pet_mlip.config import Config
from pet_mlip.config.load import read_yaml
from pet_mlip.learn.config import LearnConfig

jsonschema = pytest.importorskip("jsonschema")

REPOSITORY = Path(__file__).parents[2]
SCHEMAS = {kind: REPOSITORY / "configs" / "schema" / f"{kind}.json" for kind in ("train", "learn")}
LEARNING = sorted((REPOSITORY / "examples" / "learn").glob("*.yaml"))
TRAININGS = [
    *sorted((REPOSITORY / "configs").glob("*.yaml")),
    *(p for p in sorted((REPOSITORY / "examples").glob("*/*.yaml")) if p not in LEARNING),
    *sorted((REPOSITORY / "benchmarks").glob("*/*.yaml")),
]


@pytest.fixture(scope="module")
def validators():
    found = {}
    for kind, path in SCHEMAS.items():
        schema = json.loads(path.read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        found[kind] = jsonschema.Draft202012Validator(schema)
    return found


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_published_schema_is_what_the_command_prints(kind, tmp_path):
    printed = CliRunner().invoke(app, ["schema", kind])
    assert printed.exit_code == 0
    expected = SCHEMAS[kind].read_text(encoding="utf-8")
    assert printed.stdout == expected, (
        f"pet-mlip schema {kind} --force -o configs/schema/{kind}.json"
    )
    written = tmp_path / "schema.json"
    CliRunner().invoke(app, ["schema", kind, "-o", str(written)])
    assert written.read_text(encoding="utf-8") == expected
    again = CliRunner().invoke(app, ["schema", kind, "-o", str(written)])
    assert again.exit_code != 0 and "exists already" in str(again.exception)


@pytest.mark.parametrize("path", [*TRAININGS, *LEARNING], ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(validators, path):
    kind = "learn" if path in LEARNING else "train"
    validators[kind].validate(read_yaml(path))


TRAIN = {"data": {"train": "a.xyz"}, "training": {"epochs": 1}}
LEARN = {"start": "a.xyz", "reference": {"calculator": "a.B"}}

GOOD = {
    "data.train=[a.xyz, b.xyz]": TRAIN,
    "data.validation=10%": TRAIN,
    "data.validation=0.2": TRAIN,
    "data.validation=[v.xyz]": TRAIN,
    "data.test=t.xyz": TRAIN,
    "data.test=[t.xyz, u.xyz]": TRAIN,
    "data.test={hot: [t.xyz], cold: u.xyz}": TRAIN,
    "data.baseline={H: -13.6, O: -430}": TRAIN,
    'data.baseline={"1": -13.6}': TRAIN,
    "data.keys={energy: null, results: {dipole: dft}}": TRAIN,
    "training.max_time='01:30:00'": TRAIN,
    "training.max_time=60": TRAIN,
    "training.batch_size=auto": TRAIN,
    "training.learning_rate=1e-3": TRAIN,
    "model.results=dipole": TRAIN,
    "model.results=[dipole, charges]": TRAIN,
    "model.results={dipole: null, moment: {rank: 0, unit: mu_B}}": TRAIN,
    "model.cutoff=6": TRAIN,
    "simulation.temperatures=300": LEARN,
    "simulation.temperatures=[300, 600]": LEARN,
    "reference.timeout='00:10:00'": LEARN,
    "reference.dask={cluster: dask_jobqueue.SLURMCluster}": LEARN,
    "training.steps=100": LEARN,
}
BAD = {
    "data.trian=a.xyz": TRAIN,
    "training.epochs=true": TRAIN,
    "training.epochs=0": TRAIN,
    "training.optimizer=sgd": TRAIN,
    "training.freeze=everything": {**TRAIN, "training": {"epochs": 1, "init_from": "a"}},
    "model.num_heads=two": TRAIN,
    "data.units={energy: J}": TRAIN,
    "data.baseline=automatic": TRAIN,
    "training={}": TRAIN,
    "data={}": TRAIN,
    "reference={}": LEARN,
    "reference.command=run": LEARN,
    "reference.dask={}": LEARN,
    "training.epochs=3": LEARN,
    "simulation.engine=gromacs": LEARN,
    "simulation.temperatures=hot": LEARN,
}


def changed(tree, override):
    """A configuration with one key replaced."""
    path, _, text = override.partition("=")
    tree = json.loads(json.dumps(tree))
    *sections, key = path.split(".")
    place = tree
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = yaml.safe_load(text) if text != "1e-3" else 1e-3
    return tree


def loader_accepts(schema, tree):
    try:
        schema.model_validate(tree)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("override", [*GOOD, *BAD])
def test_schema_and_loader_agree(validators, override):
    base = GOOD.get(override, BAD.get(override))
    kind, schema = ("train", Config) if "data" in base else ("learn", LearnConfig)
    tree = changed(base, override)
    assert loader_accepts(schema, tree) == (override in GOOD)
    assert validators[kind].is_valid(tree) == (override in GOOD)
