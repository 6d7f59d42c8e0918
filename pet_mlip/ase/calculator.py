"""The ASE calculator of an exported model."""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from pet_mlip.ase.checks import (
    COINCIDENT,
    NEUTRAL,
    State,
    check_atoms,
    check_indices,
    check_number,
    electronic_state,
    explain_not_finite,
)
from pet_mlip.ase.committee import Committee
from pet_mlip.ase.engine import Engine, Output, join, split
from pet_mlip.ase.hessian import REACH, Floats, compute_hessian
from pet_mlip.ase.loading import Model, open_models
from pet_mlip.ase.neighbours import SkinNeighbours, find_graph
from pet_mlip.ase.results import (
    OF_ATOMS,
    STRESSES,
    Results,
    add_d3,
    check_volume,
    collect,
    has_volume,
    needs_gradient,
)
from pet_mlip.ase.symmetrize.modes import Symmetrization, declared
from pet_mlip.ase.symmetrize.rotations import RandomRotation, RotationAverage
from pet_mlip.ase.symmetrize.structure import Cost, StructureAverage
from pet_mlip.ase.uncertainties import UNCERTAINTIES, Uncertainties, why_none
from pet_mlip.data.dispersion import D3
from pet_mlip.errors import UserError
from pet_mlip.graph.graph import Graph

LOG = logging.getLogger("pet_mlip")


class PETCalculator(Calculator):
    """Energies, forces and stresses of an exported model.

    Works for molecules, wires, slabs and crystals, whatever the periodicity. A stress is
    dE/dstrain divided by the volume of the structure's own cell; where the three cell vectors span
    no volume, asking for it raises PropertyNotImplementedError. `stresses` are per-atom virials
    over the same volume (every edge is shared equally by its two atoms), so that they sum up to
    `stress`, as ASE's own potentials have it.

    What else the model predicts (`metadata.results`: a dipole, say) is in `results` under its name,
    in its own unit: of the structure, the sum over atoms, or of each atom, as it is declared.
    `atoms.get_dipole_moment()`, `get_charges()` and `get_magnetic_moments()` find theirs.

    Asking for energies alone skips the gradient. `results` belong to the structure of the last
    call and to no other; a call that fails leaves those that were there of the same structure, and
    none of a new one. Any number of Atoms may share one calculator (in a NEB with
    `allow_shared_calculator=True`); the neighbour list is then built for each of them in turn.
    `copy.copy`, `copy.deepcopy` and `clone` give calculators that share the loaded model, with
    lists of their own: one for each image is the quicker way. Pickling embeds the model.

    Threads may share a calculator: `atoms.get_forces()`, `get_property` and `compute_batch` answer
    for the structure that they were asked for, one thread after the other; for threads to work at
    the same time, give each a clone. (`calculate` and reading `results` afterwards are two steps,
    between which another thread may come.) Torch's default dtype, threads and grad mode are left
    alone; its precision of float32 matrix products is what `dtype` asks for during a call, and
    freed memory stays with the process (`pet_mlip.engine.allocator`).

    Models that know how certain they are (`pet-mlip uncertainty`) have standard deviations, as
    invariant as the energy: `energy_uncertainty` in eV; `energies_uncertainty` of each atom's
    energy, (N,); `forces_uncertainty` of a component of each atom's force in eV/Å, the same in all
    directions, (N,). They are computed where they are asked for by name, or in every call with
    ``uncertainty``.

    Where D3 was subtracted from the labels (`metadata.subtracted`), it is added to energies,
    forces, stresses and second derivatives, and atoms have no `energies` and `stresses` then.

    Models that depend on the electronic state read `atoms.info["charge"]` and
    `atoms.info["spin_multiplicity"]` (or "spin", as metatomic has it; 2S + 1): 0 and 1 by default.

    `info` describes the last call that did not fail: `n_frames` (frames per atom), `mean_frames`,
    `max_frames`, `n_edges`, `neighbour_builds` (lists built so far), and the seconds spent,
    `time_neighbours` and `time_model`.

    Args:
        model: Path of an exported model, the name of one that comes with the package
            (`pet_mlip.weights`), or what `pet_mlip.export.load_model` returned; or several of them,
            a committee, whose mean is taken, and whose deviations are the uncertainties.
        device: "auto", "cpu" or "cuda[:N]"; of no effect on a loaded model.
        dtype: "float64", "float32", "tf32" (GPUs only) or "bf16-mixed", to run the network in
            another precision than it was exported in; of no effect on a loaded model.
        skin: Distance in Å by which the neighbour list reaches beyond the cutoff, so that it can be
            kept while atoms move less than half of it; 0 builds it in every call.
        chunk_size: Largest number of attention tokens (frames times neighbours, summed over atoms)
            whose activations are held at once, which bounds the memory (about 30 kB each for the
            default model); those of further tokens are evaluated once more for the forces. 0 for
            no bound; by default what a quarter of the available memory holds, at most 4 GB of it
            on a CPU.
        symmetrization: For models that are not invariant (published PETs): "structure" (exact),
            "quadrature" or "random" (approximate), with a choice such as "quadrature:5" (the
            degree) or "random:1" (the seed), or a `Symmetrization`; "none" to evaluate the model as
            it is. By default what the file asks for. `cost` tells what "structure" takes.
        uncertainty: "energy" for the uncertainties of energies in every call, which takes a few
            percent of its time; "forces", or True, for those of forces too, which takes several
            times as long as the forces; False for those that are asked for by name only.
        d3: Whether to add D3 where it was subtracted from the labels (extra `d3`).
        warn_above: Uncertainty above which a call logs a warning: of a force component in eV/Å, or,
            where only energies have one, of an atom's energy in eV.

    Raises:
        UserError: There is no such file, it is not a model of this package, or it does not know the
            uncertainties that are asked for.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]

    def __init__(
        self,
        model: Model | Sequence[Model],
        device: str = "auto",
        dtype: str | None = None,
        skin: float = 0.5,
        chunk_size: int | None = None,
        symmetrization: str | Symmetrization | None = None,
        uncertainty: bool | str = False,
        warn_above: float | None = None,
        d3: bool = True,
    ) -> None:
        super().__init__()
        self._lock = threading.RLock()
        check_number("skin", skin, "a length in Å, zero or more")
        if chunk_size is not None:
            check_number("chunk_size", chunk_size, "a whole number, zero or more", whole=True)
        if dtype is not None and not isinstance(dtype, str):
            raise UserError(f'dtype is a name such as "float32", not {dtype!r}.')
        if not isinstance(symmetrization, str | Symmetrization | None):
            raise UserError(
                f'symmetrization is a name such as "structure", or a Symmetrization, not '
                f"{symmetrization!r}."
            )
        self.metadata, self._model = open_models(model, device, dtype, chunk_size)
        if symmetrization is None:
            symmetrization = declared(self.metadata.symmetrization)
        elif isinstance(symmetrization, str):
            symmetrization = Symmetrization.parse(symmetrization)
        self.symmetrization = symmetrization
        # An average over orientations is one of energies only.
        results = self.metadata.results if symmetrization.mode == "none" else []
        self.declared = {r["name"]: r for r in results if not r["differentiated"]}
        """Results that are no energies, by name: unit, rank, and whether they are `per_atom`."""
        self.implemented_properties = [*type(self).implemented_properties, *self.declared]
        self.d3: D3 | None = None
        """What is added, since it was subtracted from the labels."""
        if d3 and self.metadata.subtracted is not None:
            self.d3 = D3.parse(self.metadata.subtracted)
            for name in OF_ATOMS:
                self.implemented_properties.remove(name)
        if isinstance(self._model, Committee) and symmetrization.mode != "none":
            raise UserError("A committee takes no average over orientations.")
        missing = why_none(self._model, self.metadata, symmetrization)
        self.uncertainties = Uncertainties(missing, uncertainty, warn_above)
        if self.uncertainties.known:
            self.implemented_properties += UNCERTAINTIES
        self.engine: Any = self._model
        if isinstance(self._model, Engine):
            self.engine = symmetrization.engine(self._model)
        self.info: dict[str, Any] = {}
        self._state: State | None = None
        self._announced = False
        self._neighbours = SkinNeighbours(self.metadata.cutoff, skin, self.device)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results` and `info`; ASE calls this.

        Args:
            atoms: The structure; by default that of the last call.
            properties: Names to compute at least; by default all that the structure has.
            system_changes: Of no concern: the structure itself is compared with the last one.

        Raises:
            UserError: Unknown element, positions that are not finite, coincident atoms, or what
                was given is no structure or no list of names.
            PropertyNotImplementedError: A stress is asked for and the cell has no volume.
        """
        with self._lock:
            self._calculate(atoms, properties, system_changes)

    def _calculate(
        self,
        atoms: Atoms | None,
        properties: Sequence[str] | None,
        system_changes: Sequence[str],
    ) -> None:
        if atoms is None:
            atoms = self.atoms
        if not isinstance(atoms, Atoms):
            raise UserError(f"calculate takes an ase.Atoms, not {type(atoms).__name__}.")
        # A call for forces after one for the energy of the same structure keeps what is there.
        if self.atoms is None or self.check_state(atoms):
            self.reset()
        self._check_names(properties)
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        assert atoms is not None
        if properties is None:
            properties = [n for n in self.implemented_properties if n not in UNCERTAINTIES]
            if not has_volume(atoms):
                properties = [name for name in properties if name not in STRESSES]
        check_atoms(atoms, self.metadata.species)
        check_volume(atoms, properties)
        self._state = self._electronic_state(atoms)
        self._announce_cost(atoms)
        start = time.perf_counter()
        graph = self._neighbours(atoms, self._state)
        found = time.perf_counter()
        # Energy and forces of one call belong to the same random orientation.
        gradient = needs_gradient(properties) or isinstance(self.engine, RandomRotation)
        output = self._evaluate(graph, gradient, properties)
        done = time.perf_counter()
        self.results.update(self._results(atoms, output))
        self.uncertainties.warn(output)
        self.info = {
            "n_frames": output.n_frames,
            "mean_frames": float(output.n_frames.mean()) if len(atoms) else 0.0,
            "max_frames": int(output.n_frames.max(initial=0)),
            "n_edges": graph.edge_index.shape[1],
            "neighbour_builds": self._neighbours.n_builds,
            "time_neighbours": found - start,
            "time_model": done - found,
        }

    def _results(self, atoms: Atoms, output: Output, name: str = "the structure") -> Results:
        """Return ASE's results, with what was subtracted from the labels."""
        results = collect(atoms, output, self.declared, name)
        return results if self.d3 is None else add_d3(results, self.d3(atoms))

    def _evaluate(self, graph: Graph, gradient: bool, properties: Sequence[str]) -> Output:
        """Run the engine, with those uncertainties that are asked for."""
        level = self.uncertainties.level(properties)
        if level == 0:
            return self.engine(graph, gradient)
        return self._model(graph, gradient, level)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._model.model.device

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """Find a property of the atoms, or of the last structure; ASE calls this."""
        with self._lock:
            return super().get_property(name, atoms, allow_calculation)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """List what changed since the last call; ASE calls this."""
        changes = list(super().check_state(atoms, tol))
        # ASE does not look at info.
        if not changes:
            try:
                changed = self._electronic_state(atoms) != self._state
            except UserError:
                changed = True  # `calculate` will say what is wrong
            if changed:
                changes.append("info")
        return changes

    def _electronic_state(self, atoms: Atoms, where: str = "the structure") -> State:
        """Read charge and spin multiplicity, for models that depend on them."""
        hypers = self.metadata.hypers
        if not hypers.get("system_conditioning", False):
            return NEUTRAL
        return electronic_state(atoms, hypers, where)

    def cost(self, atoms: Atoms) -> Cost:
        """Tell what evaluating a structure will cost, in evaluations of the unsymmetrized model.

        For models that average over frames of each environment, those frames are counted by `info`.

        Raises:
            UserError: As for `calculate`.
        """
        check_atoms(atoms, self.metadata.species)
        engine = self.engine
        if isinstance(engine, RotationAverage):
            count = len(engine.weights)
            return Cost(count * len(atoms), count, float(count))
        if not isinstance(engine, StructureAverage):
            return Cost(len(atoms), 1, 1.0)
        return engine.cost(self._graph_of(atoms))

    def _graph_of(self, atoms: Atoms, where: str = "the structure", reach: float = 0.0) -> Graph:
        """Find the neighbours anew, without a skin, within the cutoff and ``reach`` more."""
        state = self._electronic_state(atoms, where)
        return find_graph(atoms, self.metadata.cutoff + reach, self.device, state)

    def _announce_cost(self, atoms: Atoms) -> None:
        """Say once, before it is paid, what the structure average costs."""
        if self._announced or not isinstance(self.engine, StructureAverage):
            return
        self._announced = True
        cost = self.cost(atoms)
        LOG.warning(
            "symmetrization structure: %d frames of %d atoms in %d evaluations of the model; they "
            "cost about %.1f evaluations of this structure, besides finding the frames.",
            cost.frames,
            len(atoms),
            cost.evaluations,
            cost.relative,
        )

    def compute_batch(
        self,
        structures: Iterable[Atoms],
        properties: Sequence[str] = ("energy", "forces"),
        max_atoms: int = 2000,
    ) -> list[Results]:
        """Compute properties of many structures, which are evaluated together.

        Args:
            structures: Any mixture of molecules and crystals.
            properties: Names as in `implemented_properties`; a stress is left out for structures
                whose cell has no volume.
            max_atoms: Atoms evaluated at once (a larger structure is evaluated alone).

        Returns:
            For each structure a dictionary of the properties by name, in ASE's units and shapes,
            and `n_frames`, the number of frames of each atom, (N,).

        Raises:
            UserError: As for `calculate`, naming the place in the list.
        """
        if isinstance(structures, Atoms):
            raise UserError(
                "compute_batch takes a list of structures: write [atoms] for a single one."
            )
        if isinstance(structures, str | os.PathLike):
            raise UserError(
                f"compute_batch takes a list of structures, not a path: read them first, "
                f"ase.io.read({str(structures)!r}, ':')."
            )
        check_number("max_atoms", max_atoms, "a whole number, one or more", whole=True, smallest=1)
        self._check_names(properties)
        results: list[Results] = []
        with self._lock:
            for group in split(structures, max_atoms):
                results.extend(self._compute_group(group, properties, len(results)))
        return results

    def _check_names(self, properties: Sequence[str] | None) -> None:
        """Refuse what is no list of known properties."""
        if properties is None:
            return
        if isinstance(properties, str):
            raise UserError(
                f"properties is a list of names: write [{properties!r}] instead of {properties!r}."
            )
        unknown = [name for name in properties if name not in self.implemented_properties]
        if unknown:
            known = ", ".join(self.implemented_properties)
            raise PropertyNotImplementedError(f"{unknown} are not among the properties {known}.")

    def compute_features(self, structures: Sequence[Atoms], max_atoms: int = 2000) -> list[Floats]:
        """Compute a vector for each atom that tells environments of one element apart.

        They are the last features, measured by what the training data say of them: the length of an
        atom's vector is the uncertainty of its energy as far as the last weights are uncertain,
        that of a difference the uncertainty of the difference of two energies. They are invariant,
        and smooth.

        Args:
            structures: Any mixture of molecules and crystals.
            max_atoms: Atoms evaluated at once (a larger structure is evaluated alone).

        Returns:
            (N, D) in eV for each structure.

        Raises:
            UserError: The model does not know its uncertainty; or as for `compute_batch`.
        """
        self.uncertainties.require()
        found: list[Floats] = []
        with self._lock:
            for group in split(structures, max_atoms):
                outputs = self._outputs_of(group, ["energies_uncertainty"], len(found))
                for atoms, output in zip(group, outputs, strict=True):
                    assert output.uncertainty is not None
                    found.append(self._model.features(atoms.numbers, output.uncertainty))
        return found

    def get_hessian(self, atoms: Atoms, indices: Sequence[int] | None = None) -> Floats:
        """Compute the second derivatives of the energy over positions.

        In float64, whatever the model's precision is, and whatever the constraints are. Periodic
        images move together (the wave vector is zero).

        Args:
            atoms: The structure.
            indices: Atoms whose rows and columns are computed; by default all.

        Returns:
            d2E/dr_a dr_b in eV/Å^2, (3n, 3n), for `VibrationsData.from_2d` or Sella.

        Raises:
            UserError: As for `calculate`; or indices are none of atoms; or energies are those of
                random orientations; or the model's weights are rounded (tf32, bf16-mixed); or the
                energy is so steep that displacements of 1e-5 Å are not small.
        """
        if isinstance(self.engine, RandomRotation):
            raise UserError("An energy in a random orientation has no second derivatives.")
        check_atoms(atoms, self.metadata.species)
        chosen = check_indices(indices, len(atoms))
        with self._lock:
            graph = self._graph_of(atoms, reach=REACH)
            if bool((graph.edge_vectors.norm(dim=1) < COINCIDENT).any()):
                raise explain_not_finite(atoms, "the structure")
            engine: Any = self._model.in_float64()
            if isinstance(engine, Engine):
                engine = self.symmetrization.engine(engine)
            found = compute_hessian(engine, graph, chosen)
            if self.d3 is not None:
                rows = (3 * chosen[:, None] + np.arange(3)).ravel()
                found = found + self.d3.hessian(atoms)[np.ix_(rows, rows)]
        if not np.isfinite(found).all():
            raise explain_not_finite(atoms, "the structure")
        return found

    def _compute_group(
        self, group: Sequence[Atoms], properties: Sequence[str], first: int
    ) -> Iterator[Results]:
        parts = self._outputs_of(group, properties, first)
        for k, (atoms, part) in enumerate(zip(group, parts, strict=True)):
            found = self._results(atoms, part, f"structure {first + k}")
            yield {key: found[key] for key in properties if key in found} | {
                "n_frames": part.n_frames
            }

    def _outputs_of(
        self, group: Sequence[Atoms], properties: Sequence[str], first: int
    ) -> Iterator[Output]:
        """What the model says of structures evaluated at once; the first is the `first` of all."""
        names = [f"structure {first + k}" for k in range(len(group))]
        for atoms, name in zip(group, names, strict=True):
            check_atoms(atoms, self.metadata.species, name)
        graphs = [self._graph_of(a, name) for a, name in zip(group, names, strict=True)]
        output = self._evaluate(join(graphs), needs_gradient(properties), properties)
        if len(group) > 1 and not output.is_finite():
            # Products of many atoms' rows carry one structure's nan to all: find whose it is.
            for k, atoms in enumerate(group):
                yield from self._outputs_of([atoms], properties, first + k)
            return
        ends = np.cumsum([len(a) for a in group])
        for atoms, end in zip(group, ends, strict=True):
            yield output.part(slice(end - len(atoms), end))

    def clone(self) -> PETCalculator:
        """Make a calculator that shares the loaded model, with results and a list of its own."""
        return copy.deepcopy(self)

    def __copy__(self) -> PETCalculator:
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        # Whoever pickles goes through it later, when other threads calculate again.
        return self._content({id(self): self})  # bound methods stay those of this one

    def __deepcopy__(self, memo: dict[int, Any]) -> PETCalculator:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__setstate__(self._content(memo))
        return other

    def _content(self, memo: dict[int, Any]) -> dict[str, Any]:
        """Copies of all attributes at one moment between two calls."""
        with self._lock:
            # Each calculator has its own lock.
            kept = {name: value for name, value in vars(self).items() if name != "_lock"}
            return copy.deepcopy(kept, memo)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()
