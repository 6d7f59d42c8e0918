"""Output folder of a simulation: trajectory, thermo log, and the state to continue from."""

from __future__ import annotations

import io
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz

from pet_mlip.ase.md import MDSettings, Simulation, read_settings, write_settings
from pet_mlip.errors import UserError
from pet_mlip.files import writing

SETTINGS, STATE = "settings.json", "state.npz"
TRAJECTORY, THERMO = "trajectory.xyz", "thermo.csv"
COLUMNS = ("step", "time_ps", "temperature", "potential", "kinetic", "total", "pressure", "volume")


class Recorder:
    """Writes what a simulation does; what a killed one wrote after its last state is cut off.

    Args:
        folder: Output folder, existing.
        simulation: To be recorded.
        interval: Steps between frames of the trajectory and lines of the log.
        uncertainty: Whether frames have the uncertainties of energies and forces.
    """

    def __init__(
        self, folder: Path, simulation: Simulation, interval: int, uncertainty: bool = False
    ) -> None:
        self.folder = folder
        self.simulation = simulation
        self.interval = interval
        self.uncertainty = uncertainty
        self._files: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for file in self._files.values():
            file.close()

    def start(self) -> None:
        """Begin new files."""
        self._open("wb", {})
        write_settings(self.folder / SETTINGS, self.simulation.settings)
        self._append(THERMO, ",".join(COLUMNS) + "\n")
        self.record()
        self.save()

    def resume(self) -> None:
        """Go to the saved state and continue the files from there.

        Raises:
            UserError: There is no state, or files are missing.
        """
        extra = self.simulation.restore(self.folder / STATE)
        self._open("r+b", extra["sizes"])

    def _open(self, mode: str, sizes: dict[str, int]) -> None:
        for name in (TRAJECTORY, THERMO):
            path = self.folder / name
            try:
                # Unbuffered, so that nothing is left to write when it is closed.
                file = self._files[name] = open(path, mode, buffering=0)  # noqa: SIM115
            except OSError as error:
                raise UserError(f"{path} cannot be opened ({error.strerror}).") from error
            file.truncate(sizes.get(name, 0))
            file.seek(0, os.SEEK_END)

    def record(self) -> dict[str, float]:
        """Add a frame and a line of the log; returns the line."""
        line = self.simulation.observe()
        cells = [f"{line[name]:.10g}" if name in line else "" for name in COLUMNS]
        self._append(THERMO, ",".join(cells) + "\n")
        text = io.StringIO()
        write_extxyz(text, [frame(self.simulation, self.uncertainty)])
        self._append(TRAJECTORY, text.getvalue())
        return line

    def _append(self, name: str, text: str) -> None:
        """Add to a file, or leave it as it was where the disk is full."""
        file = self._files[name]
        size = file.tell()
        with writing(self.folder / name):
            try:
                rest = text.encode()
                while rest:  # a disk that fills up takes a part first
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(size)
                raise

    def save(self) -> None:
        """Save the state, together with how far the files go by now."""
        sizes = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = os.fstat(file.fileno()).st_size
        self.simulation.save(self.folder / STATE, sizes=sizes)


def frame(simulation: Simulation, uncertainty: bool = False) -> Atoms:
    """The present structure with momenta, energy, forces, and their uncertainties if wanted."""
    atoms: Atoms = simulation.atoms.copy()
    atoms.set_constraint()
    live = simulation.atoms
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=live.get_potential_energy(),
        forces=live.get_forces(apply_constraint=False),
    )
    if uncertainty:
        # That of forces first: the others come with it.
        for name in ("forces_uncertainty", "energies_uncertainty"):
            atoms.arrays[name] = live.calc.get_property(name, live)
        atoms.info["energy_uncertainty"] = live.calc.get_property("energy_uncertainty", live)
    atoms.info["step"] = simulation.step
    atoms.info["time_ps"] = simulation.step * simulation.settings.timestep / 1000.0
    return atoms


def check_same(folder: Path, asked: dict[str, object]) -> MDSettings:
    """Settings of the simulation in a folder, if those asked for do not differ.

    Args:
        folder: Output folder.
        asked: Settings to compare; None where nothing was asked for.

    Raises:
        UserError: One differs, or there is no simulation.
    """
    settings = read_settings(folder / SETTINGS)
    for name, value in asdict(settings).items():
        wanted = asked.get(name)
        if wanted is not None and wanted != value:
            raise UserError(
                f"The simulation in {folder} was started with {name} = {value}, and cannot be "
                f"continued with {wanted}; leave the option out, or start anew in another folder."
            )
    return settings
