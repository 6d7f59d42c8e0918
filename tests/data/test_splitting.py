"""Random splits are disjoint and complete, and leave no element to validation alone."""

from __future__ import annotations

import pytest
from ase import Atoms

from pet_mlip.data.labels import structure_from_atoms
from pet_mlip.data.splitting import keep_elements, split_by_fraction
from pet_mlip.errors import UserError


def structures(*formulas):
    return [
        structure_from_atoms(Atoms(formula, [(2 * k, 0, 0) for k in range(len(Atoms(formula)))]))
        for formula in formulas
    ]


def elements(part):
    return {int(z) for s in part for z in s.species}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "rare", [["HF"], ["HF", "HCl"], ["FCl", "HF"], ["Fe", "Au", "Pt", "U"], ["HF", "HF"]]
)
def test_rare_elements_stay_in_the_training_part(seed, rare):
    everything = structures(*["H2O", "CH4", "CO", "H2", "CO2", "O2"] * 2, *rare)
    parts = split_by_fraction(everything, [0.25], seed)
    training, validation, missing = keep_elements(*parts)
    assert elements(validation) <= elements(training) == elements(everything)
    assert len(validation) == len(parts[1])
    assert sorted(map(id, training + validation)) == sorted(map(id, everything))
    assert set(missing) == elements(parts[1]) - elements(parts[0])
    if not missing:
        assert [training, validation] == parts
    again = keep_elements(*split_by_fraction(everything, [0.25], seed))
    assert [list(map(id, part)) for part in again[:2]] == [
        list(map(id, part)) for part in (training, validation)
    ]


def test_where_every_structure_is_needed():
    parts = split_by_fraction(structures("H", "C", "O", "F"), [0.3], 1)
    with pytest.raises(UserError, match=r"name files for data.validation"):
        keep_elements(*parts)


def test_fewer_remain_where_none_can_be_exchanged():
    training, validation = structures("HO"), structures("HF", "HO")
    kept, others, missing = keep_elements(training, validation)
    assert [len(kept), len(others), missing] == [2, 1, [9]]
