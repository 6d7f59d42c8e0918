"""Cutoff switches, radial functions, padded environments, attention."""

import math

import pytest
import torch
from model_tools import assert_same, graph_of, make_potential, structures

from pet_mlip.graph.cutoff import cutoff_switch
from pet_mlip.graph.environment import build_environment
from pet_mlip.graph.graph import pad_edges
from pet_mlip.graph.radial import RadialBasis
from pet_mlip.network.attention import Attention


def r(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("function", ["Bump", "Cosine"])
def test_the_switch_falls_from_one_to_zero(function):
    switch = cutoff_switch(torch.linspace(0.1, 6, 600), 4.5, 0.5, function)
    assert switch[0] == 1
    assert switch[-1] == 0
    assert (switch.diff() <= 0).all()
    assert_same(cutoff_switch(r(4.25), 4.5, 0.5, function), r(0.5))


@pytest.mark.parametrize("function", ["Bump", "Cosine"])
def test_slopes_and_curvatures_of_the_switch_are_finite_everywhere(function):
    ends = [4.0, 4.5, 4.0 + 1e-12, 4.5 - 1e-12, 4.0 + 5e-7, 4.5 - 5e-7, 4.0 - 1e-9, 4.5 + 1e-9]
    distance = r(0.0, *ends, 9.0, 4.1, 4.4)
    value = cutoff_switch(distance, 4.5, 0.5, function)
    (slope,) = torch.autograd.grad(value.sum(), distance, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), distance)
    assert slope.isfinite().all()
    assert curvature.isfinite().all()
    assert slope[1:9].abs().max() < 1e-4


def test_the_cosine_is_half_a_wave():
    expected = 0.5 * (1 + math.cos(math.pi * 0.3))
    assert_same(cutoff_switch(r(4.15), 4.5, 0.5, "Cosine"), r(expected))


def test_radial_functions_are_orthonormal():
    distance = (torch.arange(2000, dtype=torch.float64) + 0.5) * (4.0 / 2000)
    basis = RadialBasis(5, 4.0)(distance)
    overlap = (basis * distance[:, None]).T @ (basis * distance[:, None]) * (4.0 / 2000)
    assert_same(overlap, torch.eye(5, dtype=torch.float64), 1e-10)


def test_padded_places_of_environments_are_finite_and_switched_off():
    potential = make_potential()
    inputs = potential.preparation(graph_of(*structures().values()))
    padding = pad_edges(inputs.centre, inputs.reach.atoms[0])
    environment = build_environment(inputs.vectors, inputs.distance, inputs.switch, padding)
    absent = ~environment.padding.mask
    assert absent.any()
    assert (environment.switch[absent] == 0).all()
    assert (environment.distance[absent] > 0).all()
    assert (environment.distance < potential.cutoff).all()
    assert torch.equal(environment.vectors[~absent], inputs.vectors)


def attend(tokens, log_switch):
    torch.manual_seed(0)
    attention = Attention(8, 2, 1.3).to(torch.float64)
    return attention(tokens, log_switch)[0]


def test_a_token_of_weight_two_counts_like_two_tokens():
    tokens = torch.randn(1, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    log_two = torch.tensor([[0.0, 0.0, math.log(2)]], dtype=torch.float64)
    twice = torch.cat([tokens, tokens[:, 2:]], dim=1)
    once = torch.zeros(1, 4, dtype=torch.float64)
    assert_same(attend(tokens, log_two), attend(twice, once)[:, :3])


def test_an_absent_token_leaves_no_trace_even_if_its_features_are_large():
    tokens = torch.randn(1, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    absent = torch.tensor([[0.0, 0.0, -math.inf]], dtype=torch.float64)
    present = torch.zeros(1, 2, dtype=torch.float64)
    tokens[:, 2] *= 1e4
    assert_same(attend(tokens, absent)[:, :2], attend(tokens[:, :2], present), 1e-14)
