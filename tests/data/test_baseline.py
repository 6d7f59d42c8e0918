"""Composition baseline: given, from isolated atoms, from least squares."""

from __future__ import annotations

import math

import numpy as np
import pytest
from rich.console import Console

from pet_mlip.data.baseline import (
    energies_by_number,
    fit_baseline,
    force_scale,
    is_isolated_atom,
    separate_isolated_atoms,
    shift_to_fit,
)
from pet_mlip.errors import UserError

TRUE = {1: -13.6, 6: -1030.0, 8: -2040.0}
COMPOSITIONS = [[1, 1, 8], [6, 1, 1, 1, 1], [6, 8, 8], [6, 8], [6, 6, 1, 1, 1, 1, 1, 1, 8]]


@pytest.fixture
def labelled(make_structure):
    return [
        make_structure(z, seed, energy=sum(TRUE[n] for n in z))
        for seed, z in enumerate(COMPOSITIONS)
    ]


def shown(table):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_least_squares_finds_the_energies(labelled):
    baseline = fit_baseline(labelled)
    assert baseline.energies == pytest.approx(TRUE, rel=1e-9)
    assert set(baseline.origins.values()) == {"least squares"}
    assert baseline.residual < 1e-8 and baseline.spread > 1.0
    assert baseline.of(labelled[0]) == pytest.approx(labelled[0].energy)
    assert not baseline.notes
    assert "-1030.000000" in shown(baseline.table())


def test_least_squares_minimises_the_error_per_atom(make_structure):
    structures = [make_structure([1], 0, energy=1.0), make_structure([1] * 10, 1, energy=20.0)]
    assert fit_baseline(structures).energies[1] == pytest.approx(1.5)


def test_single_composition_is_of_least_norm_and_says_so(make_structure):
    structures = [make_structure([1, 1, 8], seed, energy=-30.0) for seed in range(3)]
    baseline = fit_baseline(structures)
    assert baseline.energies == pytest.approx({1: -12.0, 8: -6.0})
    assert "only 1 of the 2 fitted energies (H, O)" in baseline.notes[0]
    assert "only 1 of the 2" in shown(baseline.table())


def test_given_before_isolated_before_fitted(labelled):
    baseline = fit_baseline(labelled, given={1: -13.6}, isolated={1: 5.0, 6: -1030.0, 79: -1.0})
    assert baseline.energies == pytest.approx({**TRUE, 79: -1.0})
    assert baseline.origins == {
        1: "given",
        6: "isolated atom",
        8: "least squares",
        79: "isolated atom",
    }
    assert baseline.counts == {1: 12, 6: 5, 8: 5}


def test_isolated_atoms_are_shifted_to_the_bound_ones(make_structure):
    """By the same for all, where the data have one composition."""
    bound = [make_structure([1, 1, 8], seed, energy=-2067.2 - 12.0) for seed in range(3)]
    isolated = fit_baseline(bound, isolated={1: -13.6, 8: -2040.0, 79: -1.0})
    assert isolated.mean_residual == pytest.approx(-4.0)
    shifted = shift_to_fit(isolated, bound)
    # The least change that fits, in proportion to the number of atoms: (2, 1) * 12 / 5.
    assert shifted.energies == pytest.approx({1: -18.4, 8: -2042.4, 79: -1.0})
    assert shifted.origins[8] == "isolated atom, shifted" and shifted.origins[79] == "isolated atom"
    assert shifted.residual < 1e-9 and not shifted.notes


def test_shifted_energies_are_those_of_least_squares_where_these_are_unique(labelled):
    isolated = fit_baseline(labelled, isolated={1: -10.0, 6: -1020.0})
    assert isolated.scatter > 0.1
    shifted = shift_to_fit(isolated, labelled)
    assert shifted.energies == pytest.approx(TRUE, rel=1e-9) and shifted.scatter < 1e-6


def test_a_baseline_of_another_unit_is_noticed(labelled):
    wrong = {z: energy / 27.2114 for z, energy in TRUE.items()}
    baseline = fit_baseline(labelled, given=wrong)
    assert "same method, reference and unit" in baseline.notes[-1]
    assert not fit_baseline(labelled, given=TRUE).notes


def test_structures_without_energy_are_ignored(labelled, make_structure):
    extra = [make_structure([1, 6, 8], 9), make_structure([7, 1], 10)]
    baseline = fit_baseline([*labelled, *extra])
    assert {z: baseline.energies[z] for z in TRUE} == pytest.approx(TRUE)
    assert baseline.energies[7] == 0.0
    nothing = fit_baseline(extra)
    assert set(nothing.energies.values()) == {0.0}
    assert "No structure has an energy" in nothing.notes[0]
    assert math.isnan(nothing.residual)


def test_isolated_atoms_are_set_aside(labelled, make_structure):
    boxed = {"cell": 15.0 * np.eye(3), "pbc": np.ones(3, dtype=bool)}
    atoms = [
        make_structure([1], 20, energy=-13.6),
        make_structure([8], 21, energy=-2040.0, **boxed),
        make_structure([6], 22, energy=-1030.0, config_type="IsolatedAtom"),
    ]
    training, isolated = separate_isolated_atoms([*labelled, *atoms])
    assert training == labelled
    assert isolated == TRUE


def test_single_atoms_that_are_not_isolated(make_structure):
    crystal = make_structure([29], cell=2.5 * np.eye(3), pbc=np.ones(3, dtype=bool), energy=-3.0)
    assert not is_isolated_atom(crystal)
    assert separate_isolated_atoms([crystal]) == ([crystal], {})
    unlabelled = make_structure([1])
    assert separate_isolated_atoms([unlabelled]) == ([unlabelled], {})


def test_contradicting_isolated_atoms_are_told(make_structure):
    atoms = [make_structure([1], seed, energy=-13.6 - seed) for seed in (0, 1)]
    with pytest.raises(UserError, match=r"frame 0 and made\.xyz, frame 1 are isolated atoms of H"):
        separate_isolated_atoms(atoms)


@pytest.mark.parametrize(
    ("energies", "words"),
    [
        ({"Hx": 1.0}, "'Hx' is not a chemical symbol"),
        ({"X": 1.0}, "'X' is not a chemical symbol"),
        ({"H": "low"}, "energy of H is 'low'"),
        ({"H": math.nan}, "energy of H is not finite"),
    ],
)
def test_wrong_energies_are_told(energies, words):
    with pytest.raises(UserError, match=words):
        energies_by_number(energies, "data.baseline")


def test_force_scale(make_structure):
    forces = np.array([[3.0, 0, 0], [0, 0, 0]])
    structures = [make_structure([1, 1], forces=forces), make_structure([1])]
    assert force_scale(structures) == pytest.approx(math.sqrt(9 / 6))
    assert force_scale(structures[1:]) is None
