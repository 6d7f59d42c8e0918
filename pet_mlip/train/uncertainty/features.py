"""Sums over data of the last features, their derivatives and the errors of predictions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pet_mlip.config import Config
from pet_mlip.data.batch import Batch
from pet_mlip.data.dataset import AtomsDataset
from pet_mlip.engine.derivatives import predict
from pet_mlip.engine.potential import Potential
from pet_mlip.graph.graph import Graph
from pet_mlip.train.memory import MemoryBudget
from pet_mlip.train.predictions import batches
from pet_mlip.train.uncertainty.errors import Collected, Validation

STEP = 1e-3
"""Of the differences, in Å."""
PROBES = 2
"""Random directions of a training structure's atoms."""
CHECKS = 8
"""Force components of a validation structure that are compared with their variances."""


class LastFeatures:
    """The last features of a potential, in float64, measured from their mean.

    Args:
        potential: In float64, on the device.
        config: Of its training: memory, batches.
        generator: Of random directions.
        device: Where everything is evaluated.
    """

    def __init__(
        self,
        potential: Potential,
        config: Config,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.potential = potential
        self.config = config
        self.generator = generator
        self.device = device
        self.memory = MemoryBudget(potential, config.training.memory_gb, device)
        self.mean = torch.zeros(
            len(potential.species), potential.pet.last_size, dtype=torch.float64, device=device
        )
        """Of the last features of each element's atoms in eV."""

    def batches(self, dataset: AtomsDataset) -> Iterator[Batch]:
        """Go through a data set in batches that fit into memory."""
        return batches(self.memory, dataset, self.config, self.device)

    def curvature(self, dataset: AtomsDataset, of_energy: float, of_force: float) -> Tensor:
        """Compute C, (D, D), on the CPU.

        Args:
            dataset: Training structures; those without a label do not count for it.
            of_energy: 1 / s_E^2; zero without such errors.
            of_force: 1 / s_F^2; zero without such errors.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in self.batches(dataset):
            atoms = self.of_atoms(batch.graph) / batch.n_atoms[batch.structure].unsqueeze(1)
            atoms = atoms[~torch.isnan(batch.energy)[batch.structure]]
            total = total + of_energy * (atoms.t() @ atoms)
            labelled = ~torch.isnan(batch.forces)
            for _ in range(PROBES if of_force > 0 and bool(labelled.any()) else 0):
                # The mean of v v^T is one: a direction stands for the sum over all components.
                direction = self.normal(len(batch.graph.species)) * labelled
                forces = self.sum(batch, self.slopes(batch, direction))
                total = total + of_force / PROBES * (forces.t() @ forces)
        return total.cpu()

    def errors(self, probed: AtomsDataset, others: AtomsDataset) -> Validation:
        """Find those of all energies, and of `CHECKS` force components of each probed structure.

        The parts of forces take `CHECKS` times as many numbers as the probed atoms have features.
        """
        features, species = [self.mean[:0].cpu()], [torch.zeros(0, dtype=torch.int64)]
        energies, forces = Collected(self.mean.shape[1]), Collected(self.mean.shape[1])
        for dataset, checks in ((probed, CHECKS), (others, 0)):
            for batch in self.batches(dataset):
                found = predict(
                    self.potential,
                    batch.graph,
                    batch.structure,
                    batch.n_structures,
                    chunk_size=self.memory.chunk_size,
                )
                assert found.forces is not None
                first = sum(len(part) for part in features)
                features.append(self.of_atoms(batch.graph).cpu())
                species.append(self.species(batch).cpu())
                labelled = ~torch.isnan(batch.energy)
                energies.add(batch, found.energy - batch.energy, labelled, features[-1], first)
                error = found.forces - batch.forces
                for _ in range(checks):
                    direction = self.one_component(batch)
                    # F = -dE/dr, and the slopes are those of E.
                    values = torch.zeros_like(found.energy)
                    values = values.index_add(0, batch.structure, -(error * direction).nansum(1))
                    moved = (direction != 0) & ~torch.isnan(error)
                    known = torch.zeros_like(labelled)
                    known = known.index_fill(0, batch.structure[moved.any(1)], True)
                    # They are many; their round-off is below that of a float32 network's features.
                    slopes = self.slopes(batch, direction).to(torch.float32)
                    forces.add(batch, values, known, slopes.cpu(), first)
        return Validation(
            torch.cat(features), torch.cat(species), energies.errors(), forces.errors()
        )

    def find_mean(self, dataset: AtomsDataset) -> None:
        """Take the means of the last features over the atoms of each element."""
        total, count = torch.zeros_like(self.mean), torch.zeros_like(self.mean[:, :1])
        for batch in self.batches(dataset):
            species = self.species(batch)
            total = total.index_add(0, species, self.of_atoms(batch.graph))
            count = count.index_add(0, species, torch.ones_like(total[species, :1]))
        self.mean = total / count.clamp(min=1.0)

    def species(self, batch: Batch) -> Tensor:
        """Return which of the potential's elements each atom is, (N,)."""
        return self.potential.preparation.species_index[batch.graph.species]

    def of_atoms(self, graph: Graph) -> Tensor:
        """Compute the atoms' f in eV, measured from the mean, (N, D)."""
        with torch.no_grad():
            inputs = self.potential.preparation(graph)
            nothing = torch.zeros_like(inputs.repulsion)
            found = self.potential.evaluate(
                [], inputs, nothing, False, self.memory.chunk_size, uncertainty=1
            )
        return self.potential.scale * found.last - self.mean[inputs.species]

    def sum(self, batch: Batch, of_atoms: Tensor) -> Tensor:
        """Add up over the atoms of each structure, (S, D)."""
        total = of_atoms.new_zeros(batch.n_structures, of_atoms.shape[1])
        return total.index_add(0, batch.structure, of_atoms)

    def slopes(self, batch: Batch, direction: Tensor) -> Tensor:
        """Compute v^T df/dr of the atoms along directions v of all of them (N, 3), (N, D)."""
        centre, neighbor = batch.graph.edge_index
        change = STEP * (direction[neighbor] - direction[centre])
        ahead, behind = (
            self.of_atoms(batch.graph._replace(edge_vectors=vectors))
            for vectors in (batch.graph.edge_vectors + change, batch.graph.edge_vectors - change)
        )
        return (ahead - behind) / (2 * STEP)

    def normal(self, n_atoms: int) -> Tensor:
        """Draw independent normal components, (N, 3)."""
        drawn = torch.randn(n_atoms, 3, generator=self.generator, dtype=torch.float64)
        return drawn.to(self.device)

    def one_component(self, batch: Batch) -> Tensor:
        """Draw a unit vector along an axis of one atom of each structure, (N, 3)."""
        shape = (batch.n_structures,)
        share = torch.rand(shape, generator=self.generator, dtype=torch.float64).to(self.device)
        axis = torch.randint(3, shape, generator=self.generator).to(self.device)
        first = batch.n_atoms.cumsum(0) - batch.n_atoms
        atom = first + (share * batch.n_atoms).long()
        direction = torch.zeros(
            len(batch.graph.species), 3, dtype=torch.float64, device=self.device
        )
        direction[atom, axis] = 1.0
        return direction
