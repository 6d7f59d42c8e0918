"""LAMMPS from Python: a crystal of diamond, its forces as arrays, and some steps of dynamics.

python examples/lammps/driver.py [MODEL] [STEPS]
"""

import sys

import numpy as np

from pet_mlip.lammps import lammps


def main(model: str = "model.pt", steps: int = 100) -> None:
    """Print energy and largest force before and after."""
    with lammps(cmdargs=["-log", "none", "-screen", "none"]) as lmp:
        lmp.commands_string(f"""
            units metal
            atom_style atomic
            lattice diamond 3.57
            region box block 0 2 0 2 0 2
            create_box 1 box
            create_atoms 1 box
            mass 1 12.011
            pair_style pet
            pair_coeff * * {model} C
            displace_atoms all random 0.05 0.05 0.05 1
            velocity all create 300 1
            fix 1 all nve
            timestep 0.0005
        """)
        for n in (0, steps):
            lmp.command(f"run {n}")
            forces = lmp.numpy.extract_atom("f")[: lmp.extract_setting("nlocal")]
            energy = lmp.get_thermo("pe")
            print(f"step {n}: {energy:.6f} eV, largest force {np.abs(forces).max():.4f} eV/Å")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
