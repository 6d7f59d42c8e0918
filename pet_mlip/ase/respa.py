"""Multiple time stepping: what averaging adds to the plain model acts once in several steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from pet_mlip.ase.calculator import PETCalculator
from pet_mlip.ase.engine import Floats
from pet_mlip.ase.parts import check_part
from pet_mlip.errors import UserError


class Respa(MolecularDynamics):
    """Constant-energy dynamics by r-RESPA with two levels: time-reversible and symplectic.

    A step is half a kick of the slow force, `inner_steps` steps of velocity Verlet with the fast
    force, and the other half of the kick. The fast force is that of another calculator, and the
    slow one is the difference to that of the atoms' own. The dynamics is that of the atoms'
    own calculator, whatever the fast force is: that decides only how long a step may be. Loggers
    and observers see whole steps, and the atoms' own calculator. Constraints are honoured
    as in ASE's `VelocityVerlet`; those that act as forces count as fast ones.

    Args:
        atoms: With a calculator.
        timestep: Of a whole step, in ASE's unit of time.
        inner_steps: Evaluations of the fast force in each of them.
        fast: Calculator of the fast force; by default the plain part of a PETCalculator.
        options: Of ASE's `MolecularDynamics`: trajectory, logfile, loginterval.

    Raises:
        UserError: The atoms' calculator has no plain part.
    """

    def __init__(
        self,
        atoms: Atoms,
        timestep: float,
        inner_steps: int,
        fast: Calculator | None = None,
        **options: Any,
    ) -> None:
        if inner_steps < 1:
            raise UserError(f"inner_steps must be a number from 1 on, not {inner_steps}.")
        super().__init__(atoms, timestep, **options)
        self.inner_steps = inner_steps
        self.fast = plain_part(atoms.calc) if fast is None else fast
        self._inner = VelocityVerlet(atoms, timestep / inner_steps)

    def todict(self) -> dict[str, Any]:
        """Description that ASE writes into trajectories."""
        return {**super().todict(), "inner-steps": self.inner_steps}

    def step(self) -> Floats:
        """Do one whole step; returns the forces after it."""
        whole = self.atoms.get_forces(md=True)
        # Both calculators remember the forces at the end of the step before.
        with self._fast_force():
            fast = self.atoms.get_forces(md=True)
        self._kick(whole - fast)
        with self._fast_force():
            for _ in range(self.inner_steps):
                fast = self._inner.step(fast)
        whole = self.atoms.get_forces(md=True)
        self._kick(whole - fast)
        return whole

    def _kick(self, force: Floats) -> None:
        self.atoms.set_momenta(self.atoms.get_momenta() + 0.5 * self.dt * force)

    @contextmanager
    def _fast_force(self) -> Iterator[None]:
        own = self.atoms.calc
        self.atoms.calc = self.fast
        try:
            yield
        finally:
            self.atoms.calc = own


def plain_part(calculator: Calculator | None) -> PETCalculator:
    """A calculator of the plain part of the same model.

    Raises:
        UserError: There is none.
    """
    if not isinstance(calculator, PETCalculator) or calculator.part != "all":
        raise UserError(
            "Respa needs atoms with a PETCalculator of the whole model, whose plain part is the "
            "fast force; give the calculator of another fast force as fast=..."
        )
    check_part("correction", calculator.metadata, calculator.symmetrization)
    return calculator.clone(part="plain")
