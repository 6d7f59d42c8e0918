"""Molecular dynamics of a structure, with a state that can be saved and continued exactly."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from ase import Atoms, units
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet

from pet_mlip.ase.symmetrize.rotations import RandomRotation
from pet_mlip.errors import UserError
from pet_mlip.files import replacing, write_text

BAR = 1e5 * units.Pascal
Ensemble = Literal["nve", "nvt", "npt"]


@dataclass(frozen=True)
class MDSettings:
    """What defines a simulation, besides the model and the structure."""

    ensemble: Ensemble = "nvt"
    """nve: velocity Verlet; nvt: Langevin (BAOAB); npt: Langevin with a Langevin barostat."""
    temperature: float = 300.0
    """K; in nve, only that of the initial velocities."""
    pressure: float = 1.01325
    """bar; only in npt."""
    timestep: float = 0.5
    """fs."""
    damping: float = 100.0
    """Time constant of the thermostat in fs."""
    pressure_damping: float = 1000.0
    """Time constant of the barostat in fs."""
    flexible: bool = False
    """Let the shape of the cell vary in npt, not only its volume."""
    seed: int = 0
    """Of the initial velocities and of the thermostat."""

    def __post_init__(self) -> None:
        if self.ensemble not in ("nve", "nvt", "npt"):
            raise UserError(f"ensemble {self.ensemble!r} is not known; use nve, nvt or npt.")
        for name in ("timestep", "damping", "pressure_damping"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be a positive time in fs, not {getattr(self, name)}.")
        if not self.temperature >= 0:
            raise UserError(f"temperature must be zero or more kelvins, not {self.temperature}.")


class Simulation:
    """Atoms, integrator and random numbers: what happens next depends on nothing else.

    Continued from a saved state, it repeats the uninterrupted simulation bit for bit (with a model
    that is deterministic: on the CPU with an unchanged number of threads).

    Args:
        atoms: With a calculator. Momenta that it carries are kept; otherwise velocities are drawn
            at the temperature, without net momentum and, for molecules, net rotation.
        settings: Ensemble and constants.

    Raises:
        UserError: Constant pressure is asked for without a three-dimensionally periodic cell.
    """

    def __init__(self, atoms: Atoms, settings: MDSettings) -> None:
        if settings.ensemble == "npt" and not (atoms.pbc.all() and atoms.cell.rank == 3):
            raise UserError(
                "npt needs a structure that is periodic in all three directions; use nvt or nve."
            )
        self.atoms = atoms
        self.settings = settings
        self.rng = np.random.default_rng(settings.seed)
        if not atoms.has("momenta"):
            draw_velocities(atoms, settings.temperature, self.rng)
        self.integrator = _integrator(atoms, settings, self.rng)

    @property
    def step(self) -> int:
        """Number of steps done."""
        return int(self.integrator.nsteps)

    def advance(self, n_steps: int) -> None:
        """Do `n_steps` steps."""
        step: Callable[[], object] = self.integrator.step  # type: ignore[attr-defined]
        for _ in range(n_steps):
            step()
            self.integrator.nsteps += 1

    def observe(self) -> dict[str, float]:
        """Compute energies in eV, temperature in K, pressure in bar and volume in Å^3, by name."""
        potential = float(self.atoms.get_potential_energy())
        kinetic = float(self.atoms.get_kinetic_energy())
        state = {
            "step": float(self.step),
            "time_ps": self.step * self.settings.timestep / 1000.0,
            "temperature": float(self.atoms.get_temperature()),
            "potential": potential,
            "kinetic": kinetic,
            "total": potential + kinetic,
        }
        if self.atoms.pbc.all() and self.atoms.cell.rank == 3:
            stress = self.atoms.get_stress(voigt=False, include_ideal_gas=True)
            state["pressure"] = float(-np.trace(stress) / 3.0 / BAR)
            state["volume"] = float(self.atoms.get_volume())
        return state

    def save(self, path: str | Path, **extra: Any) -> None:
        """Write the whole state, atomically.

        Args:
            path: File to write (.npz).
            extra: JSON types to keep with it.
        """
        path = Path(path)
        atoms = self.atoms
        barostat = {k: getattr(self.integrator, k) for k in _BAROSTAT if self._has_barostat()}
        text = {"step": self.step, "rng": self.rng.bit_generator.state, "extra": extra}
        rotation = self._random_rotation()
        if rotation is not None:
            text["rotation"] = rotation.before
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                numbers=atoms.numbers,
                positions=atoms.positions,
                momenta=atoms.get_momenta(),
                cell=atoms.cell.array,
                pbc=atoms.pbc,
                text=json.dumps(text),
                **barostat,
            )

    def restore(self, path: str | Path) -> dict[str, Any]:
        """Go to a saved state, and return what was kept with it.

        Raises:
            UserError: There is no such file, it is damaged, or it is of another structure.
        """
        state = _read_state(Path(path))
        if not np.array_equal(state["numbers"], self.atoms.numbers):
            raise UserError(f"{path} holds the state of another structure; give the one it is of.")
        text = json.loads(str(state["text"]))
        self.atoms.set_cell(state["cell"])
        self.atoms.set_pbc(state["pbc"])
        self.atoms.positions = state["positions"]
        self.atoms.arrays["momenta"] = state["momenta"]
        self.rng.bit_generator.state = text["rng"]
        self.integrator.nsteps = text["step"]
        rotation = self._random_rotation()
        if rotation is not None and "rotation" in text:
            rotation.random.bit_generator.state = text["rotation"]
        if isinstance(self.integrator, LangevinBAOAB):
            self.integrator._update_accel()
        if self._has_barostat():
            for name in _BAROSTAT:
                # Scalars come back as arrays of shape ().
                setattr(self.integrator, name, state[name][()])
        extra: dict[str, Any] = text["extra"]
        return extra

    def _random_rotation(self) -> RandomRotation | None:
        """What turns the structure at random in each step, if the calculator does that."""
        engine = getattr(self.atoms.calc, "engine", None)
        return engine if isinstance(engine, RandomRotation) else None

    def _has_barostat(self) -> bool:
        return self.settings.ensemble == "npt"


# Momentum of the cell and the force on it, as LangevinBAOAB names them.
_BAROSTAT = ("p_eps", "force_eps")


def draw_velocities(atoms: Atoms, temperature: float, rng: np.random.Generator) -> None:
    """Maxwell-Boltzmann velocities without net momentum and, for molecules, net rotation."""
    widths = np.sqrt(atoms.get_masses() * units.kB * temperature)
    atoms.set_momenta(widths[:, None] * rng.standard_normal((len(atoms), 3)))
    if len(atoms) > 1 and temperature > 0 and not atoms.constraints:
        Stationary(atoms, preserve_temperature=True)
        if not atoms.pbc.any():
            with np.errstate(invalid="ignore"):  # linear molecules: no moment about their axis
                ZeroRotation(atoms, preserve_temperature=True)


def read_settings(path: str | Path) -> MDSettings:
    """Settings from JSON.

    Raises:
        UserError: The file is missing or damaged.
    """
    try:
        return MDSettings(**json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: no settings of a simulation can be read ({error}).") from error


def write_settings(path: str | Path, settings: MDSettings) -> None:
    """Write settings as JSON."""
    write_text(path, json.dumps(asdict(settings), indent=1) + "\n")


def _integrator(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> MolecularDynamics:
    timestep = settings.timestep * units.fs
    if settings.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    options: dict[str, Any] = {}
    if settings.ensemble == "npt":
        options = {
            "externalstress": -settings.pressure * BAR,
            "hydrostatic": not settings.flexible,
            "P_tau": settings.pressure_damping * units.fs,
        }
    with warnings.catch_warnings():
        # It announces the mass that it chose for the barostat, and that constraints are untested.
        warnings.simplefilter("ignore")
        return LangevinBAOAB(
            atoms,
            timestep,
            temperature_K=settings.temperature,
            T_tau=settings.damping * units.fs,
            rng=rng,
            **options,
        )


def _read_state(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path}: there is no saved state to continue from.") from None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"{path}: the saved state is damaged ({error}).") from error
