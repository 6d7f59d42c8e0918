"""Heads, units, baselines and scales of metatrain's checkpoints."""

import numpy as np
import pytest
import torch
from metatrain_files import (
    RESIDUAL,
    SPECIES,
    assert_same,
    baseline_state,
    buffer,
    checkpoint,
    dataset,
    network_state,
    old_checkpoint,
    random_potential,
    records,
    target,
)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("eV", 1.0),
        ("meV", 1e-3),
        ("Hartree", 27.211386),
        ("kcal/mol", 0.0433641),
        ("kJ/mol", 0.01036427),
    ],
)
def test_units_of_energy(converted, unit, factor):
    content = checkpoint(random_potential())
    content["model_data"]["dataset_info"] = dataset({"energy": target(unit=unit)})
    found = converted(content).potential
    assert float(found.scale) == pytest.approx(0.75 * factor, rel=1e-6)
    assert found.composition.tolist() == pytest.approx(
        [-1.5 * factor, -20.25 * factor, -30.125 * factor], rel=1e-6
    )


def test_unnamed_units_are_said(converted):
    content = checkpoint(random_potential())
    content["model_data"]["dataset_info"] = dataset({"energy": target(unit="")}, length_unit="")
    notes = " ".join(converted(content).notes)
    assert "eV is assumed" in notes
    assert "Å is assumed" in notes


@pytest.mark.parametrize("length", ["Angstrom", "angstrom", "A"])
def test_spellings_of_angstrom(converted, length):
    content = checkpoint(random_potential())
    content["model_data"]["dataset_info"] = dataset({"energy": target()}, length_unit=length)
    assert converted(content).notes == []


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (dataset({"energy": target(unit="bananas")}), "unit of energy is bananas"),
        (dataset({"energy": target()}, length_unit="Bohr"), "length unit is Bohr"),
        (dataset({"energy": target(shape=(0, 2))}), "not one scalar"),
        (dataset({"energy": target(shape=(0, 3, 1))}), "not one scalar"),
        (dataset({"energy": target(n_blocks=2)}), "not one scalar"),
        (dataset({"energy": target(samples=("system", "first_atom"))}), "pairs of atoms"),
        (dataset({"energy": target(quantity="dipole")}), "predicts no energy, only energy"),
        (dataset({}), "predicts no energy"),
    ],
)
def test_targets_that_are_no_energy(refusal, info, message):
    content = checkpoint(random_potential())
    content["model_data"]["dataset_info"] = info
    assert message in refusal(content)


def several_heads(main, other, extra="non_conservative_forces"):
    """Two energies with the same network but other heads, and forces."""
    content = checkpoint(main, "energy")
    second = network_state(other, "mtt::pbe")
    heads = {name: value for name, value in second.items() if "mtt::pbe" in name}
    third = {name.replace("mtt::pbe", extra): 2 * value for name, value in heads.items()}
    state = content["best_model_state_dict"]
    state |= {f"backend.{name}": value for name, value in {**heads, **third}.items()}
    state |= baseline_state(other, "mtt::pbe")
    state[f"scaler.{extra}_scaler_buffer"] = buffer([[1.0]], records(["atomic_type"], [(-1,)]))
    targets = {
        "mtt::pbe": target(),
        "energy": target(),
        extra: target(quantity="force", unit="eV/A", shape=(0, 3, 1), samples=("system", "atom")),
    }
    content["model_data"]["dataset_info"] = dataset(targets)
    return content


def other_heads(potential):
    """A potential with the same network but other heads and another baseline."""
    other = random_potential(99)
    state = potential.state_dict()
    theirs = {name: v for name, v in other.state_dict().items() if "heads" in name}
    other.load_state_dict({**state, **theirs})
    other.set_baseline({1: -2.0, 6: -3.0, 8: -4.0}, 1.5)
    return other


def test_several_heads(converted, refusal):
    main = random_potential(1)
    other = other_heads(main)
    content = several_heads(main, other)
    found = converted(content)
    assert_same(found.potential, main)
    assert found.notes == ["Left out, for not being energy: mtt::pbe, non_conservative_forces."]
    found = converted(content, "mtt::pbe")
    assert_same(found.potential, other)
    assert found.source["left_out"] == ["energy", "non_conservative_forces"]
    assert "no energy; its energies are mtt::pbe, energy" in refusal(
        content, "non_conservative_forces"
    )
    assert "--head forces is not predicted" in refusal(content, "forces")


def test_a_choice_of_heads_is_asked_for(converted, refusal):
    potential = random_potential()
    content = checkpoint(potential, "a")
    assert converted(content).source["head"] == "a"
    content["model_data"]["dataset_info"] = dataset({"a": target(), "b": target()})
    assert "several energies: choose --head a or b" in refusal(content)


def test_scales_of_version_6_are_told_by_their_place(converted):
    potential = random_potential(0, **RESIDUAL)
    content = old_checkpoint(potential, 6)
    content["best_model_state_dict"]["scaler.scales"] = torch.tensor([5.0, 0.75])
    forces = target(quantity="force", shape=(0, 3, 1))
    content["model_data"]["dataset_info"] = dataset({"forces": forces, "energy": target()})
    assert_same(converted(content).potential, potential)


def per_atom_scales(values):
    """A checkpoint of an energy of each atom, with a scale for each species."""
    content = checkpoint(random_potential())
    rows = records(["atomic_type"], [(i,) for i in range(len(SPECIES))])
    state = content["best_model_state_dict"]
    state["scaler.energy_per_target_scaler_buffer"] = buffer(np.array(values)[:, None], rows)
    state["scaler.energy_per_property_scaler_buffer"] = buffer(np.full((3, 1), 2.0), rows)
    content["model_data"]["dataset_info"] = dataset({"energy": target(samples=("system", "atom"))})
    return content


def test_scales_of_each_species(converted, refusal):
    assert float(converted(per_atom_scales([0.5, 0.5, 0.5])).potential.scale) == 1.0
    assert "differs between elements" in refusal(per_atom_scales([0.5, 0.5, 0.6]))
