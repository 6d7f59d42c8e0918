"""Uncertainties as they are fitted after a training."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from model_tools import edges_of
from train_tools import TINY, structures, tiny_config
from uncertainty_tools import last_weights

from pet_mlip import PETCalculator
from pet_mlip.ase.engine import force_uncertainty
from pet_mlip.cli.app import app
from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.data.labels import structure_from_atoms
from pet_mlip.ecse.hypers import SymmetrizationHypers
from pet_mlip.engine.derivatives import forces_from_edge_gradient, predict
from pet_mlip.engine.potential import Potential
from pet_mlip.errors import UserError
from pet_mlip.export import read_metadata
from pet_mlip.export.module import ExportedModel
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.network.uncertainty import growth, offsets
from pet_mlip.train import run_training
from pet_mlip.train.checkpoint import load_checkpoint, read_checkpoint, write_checkpoint
from pet_mlip.train.uncertainty.features import LastFeatures
from pet_mlip.train.uncertainty.fit import (
    LEAST,
    LEAST_TYPICAL,
    Amount,
    Fitted,
    fit_uncertainty,
)

BOTH = ("energy", "forces")


@pytest.fixture(scope="module")
def potential() -> Potential:
    """Random, of float64, without constants in the last layers."""
    torch.manual_seed(4)
    potential = Potential([1, 8, 13, 29], PETHypers(**TINY), SymmetrizationHypers())
    potential.set_dtype(torch.float64).set_baseline(dict.fromkeys([1, 8, 13, 29], -2.0), 0.8)
    with torch.no_grad():
        for readout in potential.pet.readouts:
            readout.edge_head.last.bias.zero_()
    return potential.eval().requires_grad_(False)


def dataset(
    potential: Potential, count: int, seed: int, labels: tuple[str, ...], size: float
) -> AtomsDataset:
    """Structures, each labelled by the same potential with other random last weights."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for atoms in structures(count, seed):
        other = deepcopy(potential)
        for readout in other.pet.readouts:
            for head in (readout.node_head, readout.edge_head):
                noise = torch.randn(head.last.weight.shape, generator=draw, dtype=torch.float64)
                head.last.weight.add_(size * noise)
        batch = batch_from_atoms([atoms], potential.cutoff)
        truth = predict(other, batch.graph, batch.structure, 1)
        known = {"energy": float(truth.energy[0]), "forces": truth.forces.numpy()}
        known = {name: value for name, value in known.items() if name in labels}
        atoms.calc = SinglePointCalculator(atoms, **known)
        found.append(structure_from_atoms(atoms))
    return AtomsDataset(found, potential.cutoff)


def fit(
    potential: Potential,
    data: Path,
    labels: tuple[str, ...] = BOTH,
    size: float = 0.1,
    **training: object,
) -> Fitted:
    config = tiny_config(data, **training)
    training_set, validation = (dataset(potential, n, n, labels, size) for n in (24, 60))
    return fit_uncertainty(potential, config, training_set, validation)


def force_sigma(potential: Potential, found: Fitted, data: AtomsDataset) -> float:
    """Root mean square uncertainty of forces in some structures."""
    knowing = deepcopy(potential)
    knowing.uncertainty.set(found.posterior)
    squares = []
    for structure in data.structures[:5]:
        batch = batch_from_atoms([structure.to_atoms()], potential.cutoff)
        *_, deviations = ExportedModel(knowing)(**edges_of(batch.graph), uncertainty=2)
        index = batch.graph.edge_index
        squares.append(force_uncertainty(deviations, index, structure.n_atoms).square().mean())
    return float(torch.stack(squares).mean().sqrt())


def test_slopes_are_forces_along_a_direction(potential: Potential, data: Path) -> None:
    """v^T dF/dr times the last weights is v^T dE/dr."""
    generator = torch.Generator().manual_seed(0)
    found = LastFeatures(potential, tiny_config(data), generator, torch.device("cpu"))
    batch = batch_from_atoms(structures(4, 5), potential.cutoff)
    prediction = predict(potential, batch.graph, batch.structure, batch.n_structures)
    direction = found.normal(len(batch.graph.species))
    work = torch.zeros(4, dtype=torch.float64).index_add(
        0, batch.structure, -(prediction.forces * direction).sum(dim=1)
    )
    weights = last_weights(potential) / potential.scale
    slopes = found.sum(batch, found.slopes(batch, direction))
    torch.testing.assert_close(slopes @ weights, work, rtol=1e-4, atol=1e-5)


def test_members_have_the_covariance_that_variances_are_made_of(
    potential: Potential, data: Path
) -> None:
    found = fit(potential, data, uncertainty_members=20_000)
    of_members = (
        found.posterior.members.t() @ found.posterior.members / len(found.posterior.members)
    )
    of_energy = found.posterior.whitening.t() @ found.posterior.whitening
    ratio = of_members.trace() / of_energy.trace()
    expected = ratio * of_energy
    bound = 0.05 * float(expected.diagonal().max())
    torch.testing.assert_close(of_members, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("labels", [("energy", "forces"), ("energy",), ("forces",)])
def test_sizes_are_those_of_the_errors(
    potential: Potential, data: Path, labels: tuple[str, ...]
) -> None:
    found = fit(potential, data, labels)
    for name, label in (("energy", "energy"), ("force", "forces")):
        count, within = found.facts[f"{name}_labels"], found.facts[f"{name}_within"]
        if label in labels:
            assert count >= 50 and 0.5 < within[0] < 0.9 and within[1] > 0.85
        else:
            assert count == 0 and within == [None, None]
    assert (
        torch.isfinite(found.posterior.whitening).all()
        and torch.isfinite(found.posterior.members).all()
    )


def test_the_model_says_what_was_fitted(potential: Potential, data: Path) -> None:
    """Energies of the validation set lie within the model's own sigma as often as was found."""
    found = fit(potential, data, uncertainty_members=200)
    knowing = deepcopy(potential)
    knowing.uncertainty.set(found.posterior)
    inside, of_components = [], []
    for structure in dataset(potential, 60, 60, BOTH, 0.1).structures:
        batch = batch_from_atoms([structure.to_atoms()], potential.cutoff)
        energies, gradient, *_, vectors, deviations = ExportedModel(knowing)(
            **edges_of(batch.graph), uncertainty=2
        )
        error = float(energies.sum()) - structure.energy
        inside.append(abs(error) < float(vectors.sum(dim=0).norm()))
        forces, *of_members = (
            forces_from_edge_gradient(part, batch.graph.edge_index, structure.n_atoms).numpy()
            for part in (gradient, *deviations)
        )
        sigma = np.sqrt(np.mean(np.square(of_members), axis=0))
        some = sigma > 1e-2 * sigma.max()  # not those that symmetry fixes
        if some.any():
            errors = np.abs(forces - structure.forces)[some]
            of_components.append(float(np.mean(errors < sigma[some])))
    assert np.mean(inside) == pytest.approx(found.facts["energy_within"][0], abs=1e-9)
    # The fit looks at eight components of each structure.
    assert np.mean(of_components) == pytest.approx(found.facts["force_within"][0], abs=0.05)


def test_far_from_the_data_uncertainties_grow_faster_than_features(
    potential: Potential, data: Path
) -> None:
    """By the last weights' variance alone they would be as long as the features' distance."""
    posterior = fit(potential, data).posterior

    known = [s.to_atoms() for s in dataset(potential, 60, 60, BOTH, 0.1).structures]
    batch = batch_from_atoms(known, potential.cutoff)
    species = potential.preparation.species_index[batch.graph.species]
    offset = offsets(posterior, potential.record(batch.graph, None, True).last, species)
    squares = offset.square().sum(dim=1)
    factors = growth(posterior.typical, offset, species)[:, 0] ** 2
    of_all = float(squares.square().mean() / squares.mean())
    for k in species.unique():
        of_element = squares[species == k]
        t = float(of_element.square().mean() / of_element.mean())
        expected = t if t > LEAST_TYPICAL * of_all else of_all
        assert float(posterior.typical[k]) == pytest.approx(expected, rel=1e-6)
    # Among the validation data the variance is twice that of the weights, on the whole.
    assert float((squares * factors).sum() / squares.sum()) == pytest.approx(2.0, abs=0.2)
    # Far away it is of second order.
    far = 1e3 * offset
    expected = far.norm(dim=1) / posterior.typical[species].sqrt()
    known = squares > 1e-4 * posterior.typical[species]
    found = growth(posterior.typical, far, species)[:, 0]
    torch.testing.assert_close(found[known], expected[known], rtol=1e-2, atol=0.0)


def test_uncertainties_found_anew_are_kept_by_a_checkpoint_of_before(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    """Before format 8 they grew as the features do, and so they do until they are found anew."""
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    content = read_checkpoint(folder / "best.ckpt")
    expected = content["uncertainty"]["typical"]
    assert torch.isfinite(expected).all() and bool((expected > 0).all())
    del content["uncertainty"]["typical"]
    write_checkpoint(folder / "best.ckpt", {**content, "format_version": 7})
    old, *_ = load_checkpoint(folder / "best.ckpt")
    assert torch.isinf(old.uncertainty.typical).all()
    app(["uncertainty", str(folder)], standalone_mode=False)
    new, *_ = load_checkpoint(folder / "best.ckpt")
    assert torch.isfinite(new.uncertainty.typical).all()


def test_an_element_with_one_environment_is_not_infinitely_far(
    potential: Potential, data: Path
) -> None:
    training = dataset(potential, 24, 24, BOTH, 0.1)
    alone = Atoms("Cu")
    alone.calc = SinglePointCalculator(alone, energy=-2.0)
    without = [s for s in training.structures if 29 not in s.species.tolist()]
    more = AtomsDataset([*without, structure_from_atoms(alone)], potential.cutoff)
    seen = [s for s in dataset(potential, 30, 30, BOTH, 0.1).structures if 29 not in s.species]
    validation = AtomsDataset(seen, potential.cutoff)
    posterior = fit_uncertainty(potential, tiny_config(data), more, validation).posterior
    *others, of_copper = posterior.typical.tolist()
    assert all(np.isfinite(others)) and min(others) < of_copper < max(others)


def test_larger_errors_are_larger_uncertainties(potential: Potential, data: Path) -> None:
    once, twice = fit(potential, data, size=0.1), fit(potential, data, size=0.2)
    for part in ("whitening", "members"):
        ratio = getattr(twice.posterior, part).norm() / getattr(once.posterior, part).norm()
        assert ratio == pytest.approx(2.0, rel=1e-3)


def test_what_is_not_labelled_cannot_be_judged(potential: Potential, data: Path) -> None:
    with pytest.raises(UserError, match="fewer than two energies or forces"):
        fit(potential, data, ())


def test_what_symmetry_fixes_says_nothing(potential: Potential, data: Path) -> None:
    """Primitive cells and atoms alone have no forces, and no variances of any."""
    validation = dataset(potential, 20, 20, BOTH, 0.1)
    fixed = [bulk("Al"), Atoms("O"), bulk("Cu", cubic=True)]
    for atoms in fixed:
        batch = batch_from_atoms([atoms], potential.cutoff)
        energy = float(predict(potential, batch.graph, batch.structure, 1).energy[0])
        forces = np.full((len(atoms), 3), 1e-5)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    more = [*validation.structures, *(structure_from_atoms(atoms) for atoms in fixed)]
    training = dataset(potential, 24, 24, BOTH, 0.1)
    config = tiny_config(data)
    found = fit_uncertainty(potential, config, training, AtomsDataset(more, potential.cutoff))
    expected = fit_uncertainty(potential, config, training, validation)
    for part in ("whitening", "members"):
        ratio = getattr(found.posterior, part).norm() / getattr(expected.posterior, part).norm()
        assert 0.2 < ratio < 5.0


def test_nearly_perfect_crystals_say_nothing(potential: Potential, data: Path) -> None:
    """Their forces are small by symmetry, and the noise of their labels is not."""
    validation = dataset(potential, 20, 20, BOTH, 0.1)
    noise = np.random.default_rng(0)
    crystals = []
    for number, name in enumerate(["Al", "Cu"] * 3):
        atoms = bulk(name, cubic=True)
        atoms.rattle(1e-4, seed=number)
        batch = batch_from_atoms([atoms], potential.cutoff)
        forces = predict(potential, batch.graph, batch.structure, 1).forces.numpy()
        forces = forces + 1e-3 * noise.normal(size=forces.shape)
        atoms.calc = SinglePointCalculator(atoms, forces=forces)
        crystals.append(structure_from_atoms(atoms))
    more = AtomsDataset([*validation.structures, *crystals], potential.cutoff)
    training, config = dataset(potential, 24, 24, BOTH, 0.1), tiny_config(data)
    found = fit_uncertainty(potential, config, training, more)
    expected = fit_uncertainty(potential, config, training, validation)
    assert found.facts["force_labels"] < expected.facts["force_labels"] + 16
    before, after = (force_sigma(potential, one, validation) for one in (expected, found))
    assert 0.5 < after / before < 2.0


def test_perfect_crystals_alone_say_nothing_of_forces(potential: Potential, data: Path) -> None:
    training, config = dataset(potential, 24, 24, BOTH, 0.1), tiny_config(data)
    crystals = []
    for name in ("Al", "Cu"):
        for a in (3.5, 3.6, 3.8, 4.0):
            atoms = bulk(name, "fcc", a=a, cubic=True)
            forces = np.full((len(atoms), 3), 1e-5)
            atoms.calc = SinglePointCalculator(atoms, energy=-2.0 * len(atoms), forces=forces)
            crystals.append(structure_from_atoms(atoms))
    perfect = AtomsDataset(crystals, potential.cutoff)
    found = fit_uncertainty(potential, config, training, perfect)
    assert found.facts["force_labels"] == 0
    assert found.facts["energy_labels"] == len(crystals)
    assert 0 < force_sigma(potential, found, training) < 1.0


def test_labels_of_the_model_itself_leave_no_uncertainty(potential: Potential, data: Path) -> None:
    training, validation = (dataset(potential, n, n, BOTH, 0.0) for n in (24, 30))
    posterior = fit_uncertainty(potential, tiny_config(data), training, validation).posterior
    assert float(posterior.members.abs().max()) < 1e-6
    assert not bool(torch.isnan(posterior.typical).any()) and bool((posterior.typical > 0).all())


@pytest.mark.parametrize("labels", [("energy",), ("forces",), BOTH])
def test_a_wrong_label_does_not_decide_on_all(
    potential: Potential, data: Path, labels: tuple[str, ...]
) -> None:
    validation = dataset(potential, 40, 60, BOTH, 0.1)
    training, config = dataset(potential, 24, 24, BOTH, 0.1), tiny_config(data)
    expected = fit_uncertainty(potential, config, training, validation)
    wrong = deepcopy(validation.structures[0])
    wrong.energy += 100.0 if "energy" in labels else 0.0
    wrong.forces = wrong.forces + (100.0 if "forces" in labels else 0.0)
    others = AtomsDataset([wrong, *validation.structures[1:]], potential.cutoff)
    found = fit_uncertainty(potential, config, training, others)
    # The weights of energies and forces in C, and its ridge, do depend on it.
    before, after = (force_sigma(potential, one, validation) for one in (expected, found))
    assert 0.3 < after / before < 3.0


def test_what_is_not_labelled_fixes_nothing(potential: Potential, data: Path) -> None:
    validation = dataset(potential, 40, 40, BOTH, 0.1)
    few, many = (
        fit_uncertainty(potential, tiny_config(data), training, validation)
        for training in (dataset(potential, 24, 24, labels, 0.1) for labels in (("energy",), BOTH))
    )
    assert not torch.equal(few.posterior.members, many.posterior.members)
    # Forces of the same structures leave less room for the last weights.
    unscaled = [part.posterior.whitening / part.posterior.whitening.norm() for part in (few, many)]
    assert (unscaled[0] - unscaled[1]).norm() > 0.01


def test_little_is_looked_at_after_a_short_training(potential: Potential, data: Path) -> None:
    assert Amount.after(0.0) == (2000, 2000, 700)
    assert Amount.after(400_000.0) == (10_000, 10_000, 3333)
    assert Amount.after(1e12) == Amount()
    training, validation = (dataset(potential, n, n, BOTH, 0.1) for n in (24, 60))
    few = fit_uncertainty(potential, tiny_config(data), training, validation, Amount(20, 60, 20))
    every = fit_uncertainty(potential, tiny_config(data), training, validation)
    assert few.facts["force_labels"] < few.facts["energy_labels"] * 8
    assert few.facts["energy_labels"] < every.facts["energy_labels"]
    for part in ("whitening", "members"):
        ratio = getattr(few.posterior, part).norm() / getattr(every.posterior, part).norm()
        assert 0.1 < ratio < 10.0


def test_not_on_a_few_structures_however_large(potential: Potential, data: Path) -> None:
    training, validation = (dataset(potential, n, n, BOTH, 0.1) for n in (24, 60))
    found = fit_uncertainty(potential, tiny_config(data), training, validation, Amount(1, 1, 1))
    assert found.facts["energy_labels"] >= LEAST - 1  # one may be fixed by symmetry
    assert found.facts["force_labels"] > 4 * LEAST


def test_what_has_no_labels_is_not_drawn(potential: Potential, data: Path) -> None:
    training, validation = (dataset(potential, n, n, BOTH, 0.1) for n in (24, 30))
    config, amount = tiny_config(data), Amount(20, 60, 20)
    expected = fit_uncertainty(potential, config, training, validation, amount)
    unlabelled = dataset(potential, 500, 5, (), 0.1).structures
    more = AtomsDataset([*unlabelled, *validation.structures], potential.cutoff)
    found = fit_uncertainty(potential, config, training, more, amount)
    assert found.facts["force_labels"] == expected.facts["force_labels"]
    nothing = AtomsDataset(unlabelled, potential.cutoff)
    with pytest.raises(UserError, match="The training set has no energies or forces"):
        fit_uncertainty(potential, config, nothing, validation, amount)


def test_an_element_that_the_model_does_not_know(potential: Potential, data: Path) -> None:
    training = dataset(potential, 8, 8, BOTH, 0.1)
    strange = AtomsDataset([structure_from_atoms(Atoms("Xe"))], potential.cutoff)
    with pytest.raises(UserError, match="does not know Xe"):
        fit_uncertainty(potential, tiny_config(data), training, strange)


def test_a_fit_that_fails_leaves_a_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only_exported: None
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("pet_mlip.train.run.add_uncertainty", fail)
        run_training(tiny_config(data, epochs=1), tmp_path)
    assert read_metadata(tmp_path / "model.pt").uncertainty == {}
    assert "will not know its uncertainty: out of memory" in (tmp_path / "train.log").read_text()
    run_training(tiny_config(data, epochs=1), tmp_path, resume=True)
    assert read_metadata(tmp_path / "model.pt").uncertainty["members"] == 8
    without = tiny_config(data, epochs=1, uncertainty_members=0)
    run_training(without, tmp_path, resume=True)
    assert read_metadata(tmp_path / "model.pt").uncertainty == {}


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_training(tiny_config(data), folder)
    return folder


def names(path: Path) -> set[str]:
    calculator = PETCalculator(path)
    return {name for name in calculator.implemented_properties if name.endswith("uncertainty")}


def test_a_training_ends_with_them(trained: Path, data: Path) -> None:
    assert read_metadata(trained / "model.pt").uncertainty == {"members": 8, "size": 16}
    potential, _, summary = load_checkpoint(trained / "best.ckpt")
    assert potential.uncertainty.shape() == {"members": 8, "size": 16}
    assert summary["uncertainty"]["energy_labels"] == 6
    assert "lie within one standard deviation" in (trained / "train.log").read_text()
    atoms = read(data / "val.xyz")
    atoms.calc = PETCalculator(trained / "model.pt", uncertainty=True)
    atoms.get_forces()
    assert np.all(atoms.calc.results["forces_uncertainty"] > 0)
    report = json.loads((trained / "report" / "errors.json").read_text())
    assert report["validation"]["calibration"]["all"]["forces"]["count"] > 0
    assert (trained / "report" / "validation" / "calibration_forces.png").is_file()


def test_without_members_there_are_none(data: Path, tmp_path: Path) -> None:
    run_training(tiny_config(data, epochs=1, uncertainty_members=0), tmp_path)
    assert read_metadata(tmp_path / "model.pt").uncertainty == {}
    assert not names(tmp_path / "model.pt")
    assert "uncertainty" not in read_checkpoint(tmp_path / "best.ckpt")


def test_the_command_adds_them_and_nothing_else(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_training(tiny_config(data, epochs=1, uncertainty_members=0), tmp_path)
    before = read_checkpoint(tmp_path / "best.ckpt")
    energy = PETCalculator(tmp_path / "model.pt").get_potential_energy(read(data / "val.xyz"))
    arguments = ["uncertainty", str(tmp_path), "--set", "training.uncertainty_members=3"]
    app(arguments, standalone_mode=False)
    assert "within 1 and 2 sigma" in capsys.readouterr().out
    after = read_checkpoint(tmp_path / "best.ckpt")
    assert after["uncertainty"]["members"].shape == (3, 16)
    for name, value in before["average"].items():
        assert torch.equal(after["average"][name], value)
    assert len(names(tmp_path / "model.pt")) == 3
    found = PETCalculator(tmp_path / "model.pt").get_potential_energy(read(data / "val.xyz"))
    assert found == energy


def test_fine_tuning_finds_its_own(trained: Path, data: Path, tmp_path: Path) -> None:
    run_training(tiny_config(data, epochs=1, init_from=str(trained / "best.ckpt")), tmp_path)
    old, new = (read_checkpoint(f / "best.ckpt")["uncertainty"] for f in (trained, tmp_path))
    assert not torch.equal(old["whitening"], new["whitening"])


def test_an_ensemble_that_was_not_trained_on_has_none(trained: Path, tmp_path: Path) -> None:
    """The features of other frames are others."""
    files = [str(trained / "best.ckpt"), "--output", str(tmp_path / "m.pt")]
    app(["export", *files, "--symmetrization", "none", "--force"], standalone_mode=False)
    assert read_metadata(tmp_path / "m.pt").uncertainty == {}


def test_the_same_ensemble_keeps_them(trained: Path, tmp_path: Path) -> None:
    ensemble = read_metadata(trained / "model.pt").symmetrization["ensemble"]
    files = [str(trained / "best.ckpt"), "--output", str(tmp_path / "m.pt")]
    app(["export", *files, "--symmetrization", ensemble], standalone_mode=False)
    assert read_metadata(tmp_path / "m.pt").uncertainty == {"members": 8, "size": 16}


def test_a_model_with_other_frames_stays_as_it_is(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    model = folder / "model.pt"
    options = ["--output", str(model), "--symmetrization", "none", "--force"]
    app(["export", str(folder / "best.ckpt"), *options], standalone_mode=False)
    before = model.read_bytes()
    app(["uncertainty", str(folder)], standalone_mode=False)
    assert "whose frames are others" in " ".join(capsys.readouterr().out.split())
    assert model.read_bytes() == before


def test_progress_of_other_versions_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(tiny_config(data, epochs=1), tmp_path)
    content = read_checkpoint(tmp_path / "last.ckpt")
    content["progress"]["best_loss"] = content["progress"].pop("best_score")
    monkeypatch.setattr("pet_mlip.train.run.read_checkpoint", lambda _: content)
    with pytest.raises(UserError, match="another version of pet_mlip"):
        run_training(tiny_config(data, epochs=2), tmp_path, resume=True)


def test_fewer_data_than_features(potential: Potential, data: Path) -> None:
    """C is singular then, to round-off even with the smallest ridges."""
    training, validation = (dataset(potential, n, n, ("energy",), 0.1) for n in (1, 30))
    found = fit_uncertainty(potential, tiny_config(data), training, validation)
    assert (
        torch.isfinite(found.posterior.whitening).all() and found.posterior.whitening.norm() > 0.0
    )
