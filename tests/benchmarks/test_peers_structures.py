import numpy as np
import pytest
from ase.units import kg, m

from benchmarks.peers.structures import ELEMENTS, catalogue, choose, water
from pet_mlip.errors import UserError


def test_the_structures_of_the_comparison_have_the_sizes_they_claim():
    sizes = {s.name: len(s.build()) for s in choose("compare,ecse")}
    assert sizes == {
        "ethanol": 9,
        "aspirin": 21,
        "copper-32": 32,
        "water-63": 63,
        "silicon-64": 64,
        "water-192": 192,
        "silicon-216": 216,
        "silicon-512": 512,
        "water-3993": 3993,
    }


def test_the_series_spans_two_decades_and_large_ones_come_only_by_name():
    series = [int(s.name.split("-")[1]) for s in choose("growth")]
    assert series[0] <= 110 and series[-1] >= 10_000
    assert max(np.diff(np.log(series))) < np.log(3.4)
    assert not {"water-5184", "water-98304"} & {s.name for s in choose("all")}
    assert [s.name for s in choose("water-98304")] == ["water-98304"]


@pytest.mark.parametrize("n_molecules", [21, 64])
def test_water_is_liquid_water(n_molecules):
    atoms = water(n_molecules)
    density = atoms.get_masses().sum() / kg / (atoms.get_volume() / m**3)
    assert density == pytest.approx(1000, rel=0.02)
    distances = atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]
    assert distances.min() > 0.6
    bonds = np.sort(distances)[: 2 * n_molecules]
    is_bond = atoms.get_all_distances(mic=True)[0::3, 1::3].diagonal()
    assert is_bond == pytest.approx(0.97, abs=0.01)
    assert bonds.max() < 1.7


def test_aspirin_is_aspirin():
    atoms = catalogue()["aspirin"].build()
    assert atoms.get_chemical_formula() == "C9H8O4"
    distances = atoms.get_all_distances()
    carbons = atoms.numbers == 6
    hydrogens = atoms.numbers == 1
    # Every hydrogen has one bond, and the heavy atoms are 13 bonds and one ring.
    assert ((distances[hydrogens][:, ~hydrogens] < 1.35).sum(axis=1) == 1).all()
    heavy = distances[~hydrogens][:, ~hydrogens]
    assert (heavy[np.triu_indices(13, 1)] < 1.75).sum() == 13
    assert carbons.sum() == 9


def test_everything_is_made_of_elements_that_the_models_know():
    for structure in choose("compare,ecse"):
        assert set(structure.build().numbers.tolist()) <= set(ELEMENTS)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="--structures ice is not known; use all, compare"):
        choose("aspirin,ice")
