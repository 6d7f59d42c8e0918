"""Models that depend on charge and spin."""

import torch
from ase.build import molecule
from model_tools import assert_same, edges_of, graph_of, make_potential

from pet_mlip.export.module import ExportedModel
from pet_mlip.graph.graph import electronic_state
from pet_mlip.graph.hypers import PETHypers
from pet_mlip.network.pet import PET


def test_the_state_matters_to_its_own_structure():
    potential = make_potential(system_conditioning=True)
    graph = graph_of(molecule("H2O"), molecule("CH4"))
    neutral = potential(graph)
    states = torch.cat([electronic_state(3, 1, 2), electronic_state(5)])
    charged = potential(graph._replace(electronic=states))
    assert (charged - neutral)[:3].abs().min() > 1e-4
    assert_same(charged[3:], neutral[3:], 1e-13)


def test_both_numbers_matter():
    potential = make_potential(system_conditioning=True, max_charge=2, max_spin_multiplicity=3)
    graph = graph_of(molecule("H2O"))
    states = [(c, m) for c in range(-2, 3) for m in range(1, 4)]
    energies = [
        float(potential(graph._replace(electronic=electronic_state(3, *state))).sum())
        for state in states
    ]
    assert len({round(e, 8) for e in energies}) == len(states)


def test_no_effect_on_other_models_and_none_before_training():
    graph = graph_of(molecule("H2O"))
    charged = graph._replace(electronic=electronic_state(3, 1, 2))
    potential = make_potential()
    assert_same(potential(charged), potential(graph), 0.0)
    new = PET(PETHypers(d_pet=8, d_node=8, num_heads=2, system_conditioning=True), 2)
    nodes = torch.randn(3, 8)
    assert_same(new.conditioning(nodes, charged.electronic), nodes, 0.0)


def test_chunks_and_domains():
    potential = make_potential(system_conditioning=True)
    graph = graph_of(molecule("CH3CH2OH"))
    state = electronic_state(9, -1, 2)
    model = ExportedModel(potential)
    vectors = graph._replace(electronic=state)
    whole, chunked = model(**edges_of(vectors)), model(**edges_of(vectors), chunk_size=20)
    assert_same(chunked[0], whole[0], 1e-12)
    assert_same(chunked[1], whole[1], 1e-12)
    assert_same(whole[0], potential(vectors), 1e-12)
    assert (whole[0] - model(**edges_of(graph))[0]).abs().max() > 1e-4
