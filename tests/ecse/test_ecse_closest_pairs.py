"""How many frames the closest-pairs ensemble has in crystals."""

import ase.build
import pytest
from ecse_tools import CUTOFF, ENSEMBLE, environment

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse.frames import count_frames


@pytest.mark.parametrize("crystal, most", [("Cu", 240), ("Si", 24), ("W", 240)])
def test_few_frames_in_perfect_crystals(crystal, most):
    """No fewer than the operations of the site (48, 24, 48) are exact; smooth ones are more."""
    atoms = ase.build.bulk(crystal)
    graph = batch_from_atoms([atoms], CUTOFF).graph
    centre = graph.edge_index[0]
    env = environment([graph.edge_vectors[centre == i] for i in range(len(atoms))])
    counts = count_frames(ENSEMBLE(env), len(atoms))
    assert counts.max() <= most
