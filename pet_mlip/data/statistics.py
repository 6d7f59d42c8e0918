"""What a data set contains: numbers for `pet-mlip info DATA`."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from pet_mlip.data.baseline import fit_baseline
from pet_mlip.data.checks import structure_problem
from pet_mlip.data.neighbours import neighbour_list
from pet_mlip.data.structure import Structure
from pet_mlip.data.summary import DataStatistics, Outlier, Range

Floats = NDArray[np.float64]

# A value further from the median than this many robust standard deviations is an outlier.
OUTLIER_SIGMA = 6.0
# Median absolute deviation to standard deviation, for a normal distribution.
MAD_TO_SIGMA = 1.4826
# Structures that agree to this precision in Å are duplicates.
DUPLICATE_PRECISION = 1e-5


def data_statistics(
    structures: Iterable[Structure],
    cutoff: float = 5.0,
    progress: Callable[[int], None] | None = None,
) -> DataStatistics:
    """Statistics of a stream of structures; only a few numbers per structure are kept.

    Args:
        structures: As they are read, unchecked.
        cutoff: For neighbour counts and distances in Å.
        progress: Called with the number of structures done.
    """
    collector = _Collector(cutoff)
    for count, structure in enumerate(structures, start=1):
        collector.add(structure)
        if progress:
            progress(count)
    return collector.result()


class _Collector:
    """Running sums and per-structure numbers."""

    def __init__(self, cutoff: float) -> None:
        self.cutoff = cutoff
        # What must be kept of every structure: source, species and energy.
        self.light: list[Structure] = []
        self.elements: Counter[int] = Counter()
        self.periodicity: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.config_types: Counter[str] = Counter()
        self.volume: list[float] = []
        self.nearest: list[float] = []
        self.largest_force: list[float] = []
        self.pressure: list[float] = []
        self.neighbours = _Moments()
        self.force_norm = _Moments()
        self.force_square: defaultdict[int, float] = defaultdict(float)
        self.force_count: Counter[int] = Counter()
        self.shortest: dict[tuple[int, int], float] = {}
        self.fingerprints: dict[bytes, list[str]] = {}
        self.problems: list[str] = []

    def add(self, s: Structure) -> None:
        species = s.species.astype(np.int16)
        light = Structure(species, np.zeros((0, 3)), s.cell, s.pbc, s.energy, source=s.source)
        self.light.append(light)
        self.elements.update(Counter(map(int, s.species)))
        self.periodicity["".join(np.array(list("abc"))[s.pbc]) or "none"] += 1
        self.labels.update(n for n in ("energy", "forces", "stress") if getattr(s, n) is not None)
        self.config_types.update([s.config_type] if s.config_type else [])
        self.volume.append(s.volume / max(s.n_atoms, 1))
        self.pressure.append(math.nan if s.stress is None else -np.trace(s.stress) / 3)
        self._add_forces(s)
        self.fingerprints.setdefault(_fingerprint(s), []).append(str(s.source))
        problem = structure_problem(s)
        if problem:
            self.problems.append(f"{s.source}: {problem}.")
        self._add_neighbours(s)

    def _add_forces(self, s: Structure) -> None:
        if s.forces is None or s.n_atoms == 0:
            self.largest_force.append(math.nan)
            return
        norms = np.linalg.norm(s.forces, axis=1)
        self.largest_force.append(float(norms.max()))
        self.force_norm.add(norms)
        for z in np.unique(s.species):
            chosen = s.forces[s.species == z]
            self.force_square[int(z)] += float((chosen**2).sum())
            self.force_count[int(z)] += chosen.size

    def _add_neighbours(self, s: Structure) -> None:
        self.nearest.append(math.nan)
        try:
            (i, j), _, vectors = neighbour_list(s.positions, s.cell, s.pbc, self.cutoff)
        except ValueError:  # Among the problems already.
            return
        self.neighbours.add(np.bincount(i, minlength=s.n_atoms))
        if len(i) == 0:
            return
        distances = np.linalg.norm(vectors, axis=1)
        self.nearest[-1] = float(distances.min())
        first, second = np.sort([s.species[i], s.species[j]], axis=0)
        pair = first * 1000 + second
        order = np.lexsort((distances, pair))
        keys, places = np.unique(pair[order], return_index=True)
        for key, distance in zip(keys, distances[order][places], strict=True):
            name = (int(key) // 1000, int(key) % 1000)
            self.shortest[name] = min(self.shortest.get(name, math.inf), float(distance))

    def result(self) -> DataStatistics:
        atoms = np.array([s.n_atoms for s in self.light], dtype=np.float64)
        energies = np.array([math.nan if s.energy is None else s.energy for s in self.light])
        residual = self._residual(energies, atoms)
        squares, components = sum(self.force_square.values()), sum(self.force_count.values())
        return DataStatistics(
            n_structures=len(self.light),
            n_atoms=int(atoms.sum()),
            elements={_symbol(z): n for z, n in sorted(self.elements.items())},
            atoms_per_structure=Range.of(atoms),
            periodicity=dict(self.periodicity.most_common()),
            labels={name: self.labels[name] for name in ("energy", "forces", "stress")},
            config_types=dict(self.config_types.most_common()),
            cutoff=self.cutoff,
            neighbours=self.neighbours.range(),
            nearest_distance=Range.of(self.nearest),
            shortest_by_pair={
                f"{_symbol(a)}-{_symbol(b)}": d for (a, b), d in sorted(self.shortest.items())
            },
            volume_per_atom=Range.of(self.volume),
            energy_per_atom=Range.of(_divide(energies, atoms)),
            energy_residual=Range.of(residual),
            force_norm=self.force_norm.range(),
            force_rms=math.sqrt(squares / components) if components else None,
            force_rms_by_element={
                _symbol(z): math.sqrt(self.force_square[z] / n)
                for z, n in sorted(self.force_count.items())
            },
            pressure=Range.of(self.pressure),
            outliers=self._outliers(residual),
            duplicates=[group for group in self.fingerprints.values() if len(group) > 1],
            problems=self.problems,
        )

    def _residual(self, energies: Floats, atoms: Floats) -> Floats:
        """Energies per atom less a fitted composition baseline; nan without an energy."""
        usable = [s for s in self.light if s.n_atoms and s.energy is not None]
        usable = [s for s in usable if math.isfinite(s.energy or 0.0)]
        if not usable:
            return np.full(len(energies), math.nan)
        baseline = fit_baseline(usable)
        base = [sum(baseline.energies.get(int(z), math.nan) for z in s.species) for s in self.light]
        return _divide(energies - np.array(base), atoms)

    def _outliers(self, residual: Floats) -> list[Outlier]:
        quantities = {
            "energy per atom less composition [eV]": residual,
            "largest force [eV/Å]": np.array(self.largest_force),
        }
        found = []
        for name, values in quantities.items():
            sigmas = _robust_sigmas(values)
            far = np.flatnonzero(sigmas > OUTLIER_SIGMA)
            for index in far[np.argsort(-sigmas[far])]:
                source = str(self.light[index].source)
                found.append(Outlier(source, name, float(values[index]), float(sigmas[index])))
        return found


class _Moments:
    """Range of numbers that come in portions."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0
        self.square = 0.0
        self.min = math.inf
        self.max = -math.inf

    def add(self, values: NDArray[Any]) -> None:
        values = values[np.isfinite(values)].astype(np.float64)
        if len(values) == 0:
            return
        self.count += len(values)
        self.sum += float(values.sum())
        self.square += float((values**2).sum())
        self.min = min(self.min, float(values.min()))
        self.max = max(self.max, float(values.max()))

    def range(self) -> Range | None:
        if self.count == 0:
            return None
        mean = self.sum / self.count
        variance = max(self.square / self.count - mean * mean, 0.0)
        return Range(self.min, mean, self.max, math.sqrt(variance))


def _robust_sigmas(values: Floats) -> Floats:
    """Distances from the median in robust standard deviations; 0 where nothing can be said."""
    finite = values[np.isfinite(values)]
    if len(finite) < 4:
        return np.zeros(len(values))
    median = np.median(finite)
    sigma = MAD_TO_SIGMA * np.median(np.abs(finite - median))
    if sigma <= 1e-12 * max(abs(median), 1.0):
        return np.zeros(len(values))
    return np.nan_to_num(np.abs(values - median) / sigma)


def _divide(values: Floats, atoms: Floats) -> Floats:
    return np.where(atoms > 0, values / np.maximum(atoms, 1), math.nan)


def _fingerprint(s: Structure) -> bytes:
    """Equal for structures with the same atoms at the same places in the same cell."""
    digest = hashlib.blake2b(s.species.tobytes() + s.pbc.tobytes(), digest_size=16)
    for values in (s.positions, s.cell[s.pbc]):
        # Adding zero turns -0.0 into 0.0.
        digest.update((np.round(values / DUPLICATE_PRECISION) + 0.0).tobytes())
    return digest.digest()


def _symbol(z: int) -> str:
    return chemical_symbols[z] if 0 <= z < len(chemical_symbols) else str(z)
