"""How smooth is the frame ensemble, and how many frames does it take?

What is measured. The neighbours of an atom move along a random straight path: each in a random
direction of its own, by 0.3 Å in all, at equal speed, the atom itself staying where it is. The
energy in one frame R is a fixed random function g of the rotated neighbours, smooth and vanishing
at the cutoff, divided by its standard deviation over random O(3) operations of the same
environment. At every point of the path the neighbours that g reads are held, and only the frames
and weights of the ensemble move on:

    E(t) = sum_f w_f(t) g(X(t0) R_f(t)),   force = dE/dt,   curvature = d2E/dt2   at t = t0.

So the force is what the ensemble adds by shifting weights and turning frames, g's own slope left
out, per rotational standard deviation and per Å that all neighbours move. In PET the hidden values
of the tokens are averaged; g stands for any function that is. Given are the mean number of frames
along the paths, and the largest and the root mean square force and curvature of all points, paths
and functions. The largest values grow with the number of paths and come from rare events; compare
root mean squares first.

By default for structures built here (a rattled acetylacetone, silicon and copper, and perfect
crystals, in which many frames cost the same); --acac and --silicon take files of structures instead
of the first two.
"""

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import ase.build
import ase.io
import numpy as np
import torch
from ase import Atoms
from torch import Tensor, nn

from pet_mlip.data.batch import batch_from_atoms
from pet_mlip.ecse.closest_pairs import ClosestPairs
from pet_mlip.ecse.hypers import ClosestPairsHypers
from pet_mlip.ecse.training import random_rotations
from pet_mlip.graph.cutoff import cutoff_switch
from pet_mlip.graph.environment import Environment, build_environment
from pet_mlip.graph.graph import pad_edges

CUTOFF = 4.5
LENGTH = 0.3
N_FUNCTIONS = 2
# Relaxed with GFN2-xTB, in Å.
ACETYLACETONE = """
C -0.027 0.315 -0.001, C 1.175 -0.325 0.001, C -1.260 -0.424 -0.007, C 2.480 0.407 0.011,
C -2.529 0.389 -0.005, O 1.273 -1.642 -0.006, O -1.291 -1.658 -0.011, H -0.063 1.390 0.004,
H 0.340 -2.009 -0.012, H 3.295 -0.311 0.022, H 2.547 1.047 0.887, H 2.565 1.036 -0.873,
H -3.393 -0.269 -0.011, H -2.557 1.020 0.881, H -2.553 1.033 -0.881
"""


class RandomFunction:
    """g: (P, M, 3) rotated neighbours and their cutoff switch (P, M) to (P, N_FUNCTIONS)."""

    def __init__(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64)

        self.directions, self.phases = 0.5 * normal(3, 24), normal(24)
        self.hidden, self.bias = normal(24, 24) / 24**0.5, normal(24)
        self.out = normal(24, N_FUNCTIONS) / 24**0.5

    def __call__(self, vectors: Tensor, switch: Tensor) -> Tensor:
        """Evaluate P environments in a frame each."""
        pooled = (switch.unsqueeze(2) * torch.tanh(vectors @ self.directions + self.phases)).sum(1)
        pooled = pooled / switch.sum(dim=1, keepdim=True).clamp(min=0.1) ** 0.5
        return torch.tanh(pooled @ self.hidden + self.bias) @ self.out


class Path(NamedTuple):
    """Neighbours (m, 3) of an atom, their directions (m, 3), and the scale of each function."""

    start: Tensor
    direction: Tensor
    sigma: Tensor


class Result(NamedTuple):
    """What was found for one ensemble on the paths of one system."""

    frames: float
    force: Tensor
    curvature: Tensor


def environments(vectors: Tensor) -> Environment:
    """T environments of m neighbours each, (T, m, 3)."""
    n_atoms, n_neighbors = vectors.shape[:2]
    centre = torch.repeat_interleave(torch.arange(n_atoms), n_neighbors)
    flat = vectors.reshape(-1, 3)
    distance = torch.linalg.vector_norm(flat, dim=1)
    switch = cutoff_switch(distance, CUTOFF, 0.5, "Bump")
    return build_environment(flat, distance, switch, pad_edges(centre, n_atoms))


def rotational_deviation(function: RandomFunction, vectors: Tensor) -> Tensor:
    """Standard deviation of the functions over random O(3) operations, (N_FUNCTIONS,)."""
    rotations = random_rotations(torch.arange(400))
    switch = environments(vectors.unsqueeze(0)).switch
    return function(vectors @ rotations, switch.expand(400, -1)).std(dim=0)


def draw_paths(
    structures: list[Atoms], n_paths: int, function: RandomFunction, seed: int
) -> Iterator[Path]:
    """Paths of randomly chosen atoms of randomly chosen structures."""
    rng = np.random.default_rng(seed)
    for _ in range(n_paths):
        atoms = structures[rng.integers(len(structures))]
        graph = batch_from_atoms([atoms], CUTOFF + LENGTH).graph
        start = graph.edge_vectors[graph.edge_index[0] == int(rng.integers(len(atoms)))]
        direction = torch.tensor(rng.standard_normal(start.shape))
        direction = direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        yield Path(start, direction, rotational_deviation(function, start))


def follow(ensemble: nn.Module, path: Path, function: RandomFunction, n_points: int) -> Result:
    """Frames, |force| and |curvature| (N_FUNCTIONS, T) that the ensemble adds along one path."""
    t = torch.linspace(0.0, LENGTH, n_points, dtype=torch.float64, requires_grad=True)
    env = environments(path.start + t[:, None, None] * path.direction)
    frames = ensemble(env)
    rotated = env.vectors.detach()[frames.atom] @ frames.matrix
    values = function(rotated, env.switch.detach()[frames.atom]) / path.sigma
    energy = torch.zeros(n_points, N_FUNCTIONS, dtype=torch.float64)
    energy = energy.index_add(0, frames.atom, values * frames.weight[:, None])
    forces, curvatures = [], []
    for one in energy.unbind(1):
        (force,) = torch.autograd.grad(one.sum(), t, create_graph=True)
        (curvature,) = torch.autograd.grad(force.sum(), t, retain_graph=True)
        forces.append(force.detach().abs())
        curvatures.append(curvature.abs())
    return Result(len(frames.atom) / n_points, torch.stack(forces), torch.stack(curvatures))


def measure(
    ensemble: nn.Module, paths: list[Path], function: RandomFunction, n_points: int
) -> Result:
    """All paths together: the mean number of frames, every force and curvature."""
    found = [follow(ensemble, path, function, n_points) for path in paths]
    return Result(
        float(np.mean([one.frames for one in found])),
        torch.cat([one.force for one in found]),
        torch.cat([one.curvature for one in found]),
    )


def closest_pairs(width: float, axis_cost: float = 2.0, margin: float = 0.0) -> nn.Module:
    hypers = ClosestPairsHypers(width=width, axis_cost=axis_cost, margin=margin)
    return ClosestPairs(CUTOFF, hypers)


def ensembles() -> dict[str, nn.Module]:
    """The rows of the table."""
    return {
        "closest pairs 0.4, axis at 1": closest_pairs(0.4, 1.0),
        "closest pairs 0.4, axis at 2": closest_pairs(0.4),
        "closest pairs 0.4, axis at 4": closest_pairs(0.4, 4.0),
        "closest pairs 0.6, axis at 2": closest_pairs(0.6),
        "closest pairs 0.8, axis at 2": closest_pairs(0.8),
        "closest pairs 0.4, margin 0.1": closest_pairs(0.4, margin=0.1),
        "closest pairs 0.5, margin 0.1": closest_pairs(0.5, margin=0.1),
        "closest pairs 0.6, margin 0.07": closest_pairs(0.6, margin=0.07),
        "closest pairs 0.8, margin 0.1": closest_pairs(0.8, margin=0.1),
    }


def rattled(atoms: Atoms, amplitude: float, n: int) -> list[Atoms]:
    """Copies with Gaussian displacements."""
    copies = [atoms.copy() for _ in range(n)]
    for seed, copy in enumerate(copies):
        copy.rattle(amplitude, seed=seed)
    return copies


def acetylacetone() -> Atoms:
    lines = [line.split() for line in ACETYLACETONE.replace("\n", " ").split(",")]
    return Atoms([s for s, *_ in lines], [[float(x) for x in xyz] for _, *xyz in lines])


def main() -> None:
    parser = argparse.ArgumentParser(description="Frames and smoothness of the ensemble.")
    parser.add_argument("--acac", help="file of molecules instead of the built one")
    parser.add_argument("--silicon", help="file of periodic structures instead of built ones")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the number of paths")
    parser.add_argument("--points", type=int, default=41, help="points along each path")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)

    silicon = ase.build.bulk("Si", cubic=True).repeat(2)
    copper = ase.build.bulk("Cu", cubic=True).repeat(3)
    iron = ase.build.bulk("Fe", cubic=True).repeat(3)
    systems = {
        "acetylacetone": (rattled(acetylacetone(), 0.06, 10), options.acac, 60),
        "silicon": (rattled(silicon, 0.08, 3), options.silicon, 24),
        "fcc copper": (rattled(copper, 0.08, 3), None, 6),
        "silicon, from the perfect crystal": ([silicon], None, 6),
        "fcc copper, from the perfect crystal": ([copper], None, 4),
        "bcc iron, from the perfect crystal": ([iron], None, 4),
    }
    function = RandomFunction(options.seed)
    print("| environment | ensemble | frames | max force | max curv. | rms force | rms curv. |")
    print("|---|---|---|---|---|---|---|")
    for system, (structures, file, n_paths) in systems.items():
        if file is not None:
            structures = ase.io.read(file, ":")
        n_paths = max(1, round(options.scale * n_paths))
        paths = list(draw_paths(structures, n_paths, function, options.seed))
        for name, ensemble in ensembles().items():
            found = measure(ensemble, paths, function, options.points)
            force, curvature = found.force, found.curvature
            print(
                f"| {system} | {name} | {found.frames:.1f} | {force.max():.1f} | "
                f"{curvature.max():.0f} | {force.pow(2).mean().sqrt():.2f} | "
                f"{curvature.pow(2).mean().sqrt():.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
