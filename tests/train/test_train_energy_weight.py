"""The weight of the energy where none is given."""

import numpy as np
import pytest

from pet_mlip.config import load_config
from pet_mlip.config.training import LossConfig
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.data.structure import Structure
from pet_mlip.train.initial import new_potential
from pet_mlip.train.loss import Loss
from pet_mlip.train.predictions import predict_energies
from pet_mlip.train.setup import INITIAL_SHARE, DataSets, default_energy_weight, resolve


class Listed:
    cutoff = 5.0

    def __init__(self, structures):
        self.structures = structures


def data(spread, force=1.0, n=40):
    """Cells of two silicon atoms whose energies per atom scatter by `spread` eV."""
    draw = np.random.default_rng(0)
    scatter = draw.normal(size=n)
    scatter = (scatter - scatter.mean()) / scatter.std()
    structures = [
        Structure(
            species=np.array([14, 14]),
            positions=np.array([[0.0, 0.0, 0.0], [1.36, 1.36, 1.36]]),
            cell=2.72 * (1 - np.eye(3)),
            pbc=np.ones(3, dtype=bool),
            energy=-8.0 + 2 * spread * scatter[k],
            forces=force * np.ones((2, 3)),
        )
        for k in range(n)
    ]
    return DataSets(Listed(structures), Listed([]), {})


def config(tmp_path, **loss):
    text = f"data: {{train: a.xyz}}\ntraining: {{epochs: 1, loss: {loss}}}"
    (tmp_path / "a.yaml").write_text(text.replace("'", ""))
    return load_config(tmp_path / "a.yaml")


def test_similar_energies_have_the_largest_weight(tmp_path):
    assert default_energy_weight(config(tmp_path), data(spread=0.01)) == 1.0


def test_what_starts_from_other_weights_knows_the_differences(tmp_path):
    chosen = config(tmp_path)
    assert default_energy_weight(chosen, data(spread=3.0)) < 1.0
    training = chosen.training.model_copy(update={"init_from": "a.ckpt"})
    started = chosen.model_copy(update={"training": training})
    assert default_energy_weight(started, data(spread=3.0)) == 1.0


@pytest.mark.parametrize("spread, force", [(0.5, 1.0), (0.5, 1.5), (0.2, 0.5)])
def test_different_energies_never_rule_the_first_epochs(tmp_path, spread, force):
    chosen = config(tmp_path)
    weight = default_energy_weight(chosen, data(spread, force))
    assert weight < 1.0
    # The loss of a model that knows the composition only.
    assert weight * spread**2 == pytest.approx(INITIAL_SHARE * force**2, rel=1e-6)
    resolved = resolve(chosen, data(spread, force)).training.loss
    assert resolved.energy == pytest.approx(weight)
    assert Loss(resolved, 1.0).weights["energy"] == pytest.approx(weight)


@pytest.mark.parametrize("baseline", ["auto", "isolated_atoms", "least_squares", {"Si": -0.8}])
def test_energies_of_isolated_atoms_change_neither_the_weight_nor_the_first_loss(
    tmp_path, baseline
):
    """Crystals lie eV per atom below their atoms, which the network would have to learn first."""
    listed = data(spread=0.5).training.structures
    cells = DataSets(AtomsDataset(listed, 5.0), AtomsDataset([], 5.0), {14: -0.8})
    chosen = config(tmp_path)
    chosen = chosen.model_copy(
        update={"data": chosen.data.model_copy(update={"baseline": baseline})}
    )
    weight = default_energy_weight(chosen, cells)
    assert weight == pytest.approx(default_energy_weight(config(tmp_path), data(spread=0.5)))
    resolved = resolve(chosen, cells)
    potential = new_potential(resolved, cells).potential
    energies = predict_energies(potential, resolved, cells.training)
    labels = [structure.energy for structure in cells.training.structures]
    assert abs(np.mean(labels) - np.mean(energies)) / 2 < 0.5


def test_energies_always_have_some_weight(tmp_path):
    assert default_energy_weight(config(tmp_path), data(spread=50.0)) == 0.1


def test_a_given_weight_is_kept(tmp_path):
    resolved = resolve(config(tmp_path, energy=7.0), data(spread=3.0)).training.loss
    assert resolved.energy == 7.0
    assert resolve(config(tmp_path, energy=0), data(spread=3.0)).training.loss.energy == 0


@pytest.mark.parametrize("n, rate", [(40, 5e-4), (1000, 1e-3)])
def test_fine_tuning_takes_smaller_steps_with_few_data(tmp_path, n, rate):
    chosen = config(tmp_path)
    for given, expected in (("auto", rate), (2e-3, 2e-3)):
        update = {"init_from": "a.ckpt", "learning_rate": given}
        training = chosen.training.model_copy(update=update)
        started = chosen.model_copy(update={"training": training})
        assert resolve(started, data(0.01, n=n)).training.largest_rate == expected


def test_without_forces_or_energies_the_weight_is_the_largest(tmp_path):
    assert default_energy_weight(config(tmp_path, forces=0), data(spread=3.0)) == 1.0
    bare = data(spread=3.0)
    for structure in bare.training.structures:
        structure.energy = None
    assert default_energy_weight(config(tmp_path), bare) == 1.0


def test_what_the_data_have_not_decided_is_the_largest():
    assert LossConfig().energy_weight == 1.0
    assert LossConfig(energy=0.0).is_trained_on("energy") is False
    assert LossConfig().is_trained_on("energy") is True
