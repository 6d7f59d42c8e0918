"""What the average over frames in the embedding tells apart, and what it cannot.

The token of a neighbour is a function of its position that has every symmetry of the atom's frames
and their weights. If the frames come in mirror images of equal weight, each token is the same for
both sides of the plane. docs/theory.md, section "What the tokens resolve", says what follows, and
that the neighbour density, which is left out here unless named, knows what they do not.
"""

from itertools import product

import numpy as np
import pytest
import torch
from ase import Atom, Atoms
from ecse_tools import CUTOFF, WIDTH, symmetrized
from model_tools import FEATURIZERS, graph_of, make_potential
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

SPLITS = [(1, 1, -1, -1), (1, -1, 1, -1)]
"""Sides of four neighbours at equal heights: as many above as below, in two ways."""


def potential_with(featurizer="residual", n_layers=1, density_channels=0):
    return make_potential(
        featurizer=featurizer,
        cutoff=CUTOFF,
        cutoff_width=WIDTH,
        num_gnn_layers=n_layers,
        density_channels=density_channels,
        direction_share=1.0,
    )


def around(radius, degrees, heights):
    """Places at a distance from the z axis, (n, 3)."""
    angle = np.radians(degrees)
    flat = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.column_stack([flat, heights + 0 * angle])


def flat_but_for(heights):
    """An atom whose frames are made by two neighbours in its plane; others are farther away."""
    heights = np.array(heights)
    near = around(1.0, [0.0, 110.0], 0.0)
    far = around(3.3, [40.0, 100.0, 170.0, 290.0][: len(heights)], heights)
    return Atoms(f"OC2H{len(heights)}", [[0, 0, 0], *near, *far])


def octahedral_but_for(turn):
    """An octahedron around an atom, and two pairs of opposite neighbours outside of it.

    One of the pairs is turned about an axis of the octahedron, by quarters of a turn.
    """
    shell = 1.9 * np.concatenate([np.eye(3), -np.eye(3)])
    turned = Rotation.from_euler("z", 90 * turn, degrees=True).apply([1.6, 2.2, 2.2])
    pairs = np.array([[2.4, 0.8, 2.5], turned])
    return Atoms("OC6H4", [[0, 0, 0], *shell, *pairs, *-pairs])


def scattered(split):
    """As `flat_but_for`, but only the first atom sees the four that are out of the plane."""
    near = around(0.7 * CUTOFF, [-14.5, 14.5], 0.0)
    far = around(0.97 * CUTOFF, [86.55, 148.85, 211.15, 273.45], 0.4 * np.array(split))
    return Atoms("OC2H4", [[0, 0, 0], *near, *far])


UNLIKE = {
    "plane": [flat_but_for(0.3 * np.array(split)) for split in SPLITS],
    "octahedron": [octahedral_but_for(turn) for turn in (0, 1)],
}
"""Two surroundings of an atom, with the same tokens, that no rotation or mirror makes the same."""


def first_energy(potential, atoms):
    """Of the first atom, in eV."""
    with torch.no_grad():
        return float(potential(graph_of(atoms, cutoff=CUTOFF))[0])


def total_energy(potential, atoms):
    with torch.no_grad():
        return float(potential(graph_of(atoms, cutoff=CUTOFF)).sum())


def assert_mirror_images(atoms):
    """The frames of the first atom come in pairs of mirror images of equal weight."""
    frames = potential_with().layer_frames(graph_of(atoms, cutoff=CUTOFF))
    matrix, weight = (values[frames.atom == 0] for values in (frames.matrix, frames.weight))
    mirrored = matrix * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    distance = (matrix[:, None] - mirrored[None]).abs().amax(dim=(2, 3))
    nearest, partner = distance.min(dim=1)
    assert nearest.max() < 1e-12
    torch.testing.assert_close(weight[partner], weight, rtol=0, atol=1e-12)


def test_two_neighbours_on_the_same_or_on_opposite_sides():
    """The weights of the mirror images tell, by a coupling of the two heights."""
    potential = potential_with()
    differences = []
    for height in (0.02, 0.01):
        same, opposite = (flat_but_for([height, side * height]) for side in (1, -1))
        assert_mirror_images(opposite)
        differences.append(first_energy(potential, same) - first_energy(potential, opposite))
    assert abs(differences[1]) > 1e-6
    assert differences[0] / differences[1] == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("case", UNLIKE)
@pytest.mark.parametrize("n_layers", [1, 2])
@pytest.mark.parametrize("featurizer", FEATURIZERS)
def test_structures_differ_because_atoms_see_each_other(case, featurizer, n_layers):
    a, b = UNLIKE[case]
    potential = potential_with(featurizer, n_layers)
    assert abs(total_energy(potential, a) - total_energy(potential, b)) > 1e-3


@pytest.mark.parametrize("case", UNLIKE)
def test_messages_tell_apart_what_tokens_do_not(case):
    a, b = UNLIKE[case]
    potential = potential_with(n_layers=2)
    assert abs(first_energy(potential, a) - first_energy(potential, b)) > 1e-5


def test_a_neighbour_off_the_plane_that_makes_frames_tells_the_sides_apart():
    a, b = (atoms.copy() for atoms in UNLIKE["plane"])
    for atoms in (a, b):
        atoms.append(Atom("C", [-0.3, -0.6, 0.9]))
    potential = potential_with()
    assert abs(first_energy(potential, a) - first_energy(potential, b)) > 1e-4


@pytest.mark.parametrize("case", UNLIKE)
def test_one_layer_of_one_atom_cannot(case):
    """Its tokens are the same, although its neighbours are not arranged in the same way."""
    a, b = UNLIKE[case]
    assert np.abs(np.sort(pdist(a.positions)) - np.sort(pdist(b.positions))).max() > 0.01
    assert_mirror_images(a)
    potential = potential_with()
    assert first_energy(potential, a) == pytest.approx(first_energy(potential, b), abs=1e-12)


@pytest.mark.parametrize("case", UNLIKE)
def test_the_neighbour_density_tells_apart_what_frames_do_not(case):
    a, b = UNLIKE[case]
    potential = potential_with(density_channels=4)
    assert abs(first_energy(potential, a) - first_energy(potential, b)) > 1e-3


def test_the_neighbour_density_sees_sides_that_nobody_else_sees():
    a, b = (scattered(split) for split in SPLITS)
    potential = potential_with(density_channels=4)
    assert abs(total_energy(potential, a) - total_energy(potential, b)) > 1e-5


def coupling(potential, first, second, height=4e-3):
    """Second derivative of the first atom's energy over two heights, in eV/Å^2."""
    found = 0.0
    for up, on in product((1, -1), repeat=2):
        heights = np.zeros(4)
        heights[[first, second]] = up * height, on * height
        found += up * on * first_energy(potential, flat_but_for(heights))
    return found / (4 * height**2)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_heights_are_coupled_through_the_handedness_only(n_layers):
    """In one layer K_ab = alpha_a w_b + alpha_b w_a; the w are equal at equal distances."""
    potential = potential_with(n_layers=n_layers)
    pairs = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    sums = [sum(coupling(potential, *pair) for pair in both) for both in pairs]
    spread = np.ptp(sums) / np.abs(sums).max()
    assert spread < 1e-5 if n_layers == 1 else spread > 1e-3


@pytest.mark.parametrize("case", UNLIKE)
def test_an_average_over_outputs_could(case):
    """In a frame the network sees all neighbours at once: the price is one evaluation per frame."""
    environments = [torch.tensor(atoms.positions[1:]) for atoms in UNLIKE[case]]
    a, b = symmetrized(environments)
    assert (a - b).abs().max() > 1e-3


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("featurizer", FEATURIZERS)
def test_no_number_of_layers_helps_if_nobody_else_sees_the_sides(featurizer, n_layers):
    """Contrived: nothing out of the plane is closer than the cutoff but to a single atom."""
    a, b = (scattered(split) for split in SPLITS)
    assert np.abs(np.sort(pdist(a.positions)) - np.sort(pdist(b.positions))).max() > 0.01
    for atoms in (a, b):
        seen = atoms.get_all_distances() < CUTOFF
        assert (seen[3:].sum(axis=1) == 2).all()  # themselves and the first
    potential = potential_with(featurizer, n_layers)
    flat = scattered([0, 0, 0, 0])
    size = abs(total_energy(potential, a) - total_energy(potential, flat))
    assert size > 1e-5
    assert total_energy(potential, a) == pytest.approx(total_energy(potential, b), abs=1e-11)
