"""Properties of diamond by all of matcalc's calculators that apply to one element.

    pip install '.[tools]'
    pet-mlip train examples/lammps/diamond.yaml --output diamond
    python examples/tools/matcalc_properties.py diamond/model.pt

Prints a table. Each of matcalc's classes takes the calculator as it is. Hessians, force constants
and elastic constants are differences of small forces: run the model in float64.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import matcalc
import numpy as np
from ase import units
from ase.build import bulk
from pymatgen.core import Structure
from pymatgen.io.ase import AseAtomsAdaptor

from pet_mlip import PETCalculator

FMAX = 1e-4
"""eV/Å of every relaxation but those of defects."""
LOOSE = 0.02
Found = dict[str, float]


def diamond() -> Structure:
    """Return the primitive cell."""
    return AseAtomsAdaptor.get_structure(bulk("C", "diamond", a=3.57))


def relaxation(calculator: PETCalculator) -> Found:
    """Relax the cell."""
    found = matcalc.RelaxCalc(calculator, fmax=FMAX).calc(diamond())
    return {"lattice constant, Å": found["final_structure"].to_conventional().lattice.a}


def elasticity(calculator: PETCalculator) -> Found:
    """Fit stresses to strains."""
    found = matcalc.ElasticityCalc(
        calculator, fmax=FMAX, shear_strains=(-0.01, -0.005, 0.005, 0.01), units_GPa=True
    ).calc(diamond())
    tensor = np.array(found["elastic_tensor"].voigt)
    return {
        "C11, GPa": tensor[0, 0],
        "C12, GPa": tensor[0, 1],
        "C44, GPa (atoms not relaxed)": tensor[3, 3],
        "largest difference of equal constants, GPa": max(
            np.ptp(np.diag(tensor)[:3]), np.ptp(np.diag(tensor)[3:])
        ),
        "bulk modulus from strains, GPa": found["bulk_modulus_vrh"],
    }


def equation_of_state(calculator: PETCalculator) -> Found:
    """Fit energies to volumes."""
    found = matcalc.EOSCalc(calculator, fmax=FMAX, max_abs_strain=0.04).calc(diamond())
    return {"bulk modulus from energies, GPa": found["bulk_modulus_bm"]}


def phonons(calculator: PETCalculator) -> Found:
    """Compute frequencies by phonopy."""
    found = matcalc.PhononCalc(
        calculator, fmax=FMAX, min_length=10.0, t_max=300, write_phonon=False
    ).calc(diamond())
    phonon = found["phonon"]
    phonon.run_qpoints([[0, 0, 0], [0.5, 0, 0.5]])
    gamma, x = phonon.get_qpoints_dict()["frequencies"]
    return {
        "Raman mode, THz": gamma[3:].mean(),
        "its splitting, THz": np.ptp(gamma[3:]),
        "largest acoustic frequency at Γ, THz": np.abs(gamma[:3]).max(),
        "TA mode at X, THz": x[0],
        "heat capacity of two atoms at 300 K, J/mol/K": found["thermal_properties"][
            "heat_capacity"
        ][-1],
    }


def quasi_harmonic(calculator: PETCalculator) -> Found:
    """Expand with temperature."""
    found = matcalc.QHACalc(
        calculator,
        fmax=FMAX,
        t_max=400,
        t_step=50,
        scale_factors=(0.98, 0.99, 1.0, 1.01, 1.02),
        phonon_calc_kwargs={"min_length": 10.0},
    ).calc(diamond())
    at_300 = list(found["temperatures"]).index(300)
    expansion = found["qha_results"][0]["thermal_expansion_coefficients"]
    return {"volume expansion at 300 K, 1e-6/K": 1e6 * expansion[at_300]}


def conductivity(calculator: PETCalculator) -> Found:
    """Compute the thermal conductivity by phono3py, in the relaxation time approximation."""
    found = matcalc.Phonon3Calc(
        calculator, fmax=FMAX, mesh_numbers=(9, 9, 9), t_min=300, t_max=300, t_step=1
    ).calc(diamond())
    return {"thermal conductivity, W/m/K": float(np.ravel(found["thermal_conductivity"])[0])}


def dynamics(calculator: PETCalculator) -> Found:
    """Run NVE of 64 atoms."""
    cell = diamond().to_conventional().make_supercell((2, 2, 2), in_place=False)
    found = matcalc.MDCalc(
        calculator, ensemble="nve", temperature=300, timestep=0.5, steps=200, frames=200, fmax=LOOSE
    ).calc(cell)
    total = [atoms.get_total_energy() / len(atoms) for atoms in found["trajectory"]]
    return {"range of the total energy in NVE, meV/atom": 1e3 * float(np.ptp(total))}


def migration(calculator: PETCalculator) -> Found:
    """Move a neighbour into a vacancy."""
    cell = diamond().to_conventional().make_supercell((2, 2, 2), in_place=False)
    neighbour = min(range(1, len(cell)), key=lambda k: cell.get_distance(0, k))
    start, end = cell.copy(), cell.copy()
    start.remove_sites([0])
    end.replace(neighbour, "C", cell[0].frac_coords)
    end.remove_sites([0])
    calc = matcalc.NEBCalc(calculator, fmax=0.05, climb=True, max_steps=300)
    first, last = calc.calc_endpoints(start, end)
    found = calc.calc_images(first["final_structure"], last["final_structure"], n_images=3)
    return {
        "barrier of a vacancy, eV": found["barrier"],
        "energy at its end, eV": found["reaction_energy"],
    }


def defects(calculator: PETCalculator) -> Found:
    """Make a vacancy."""
    found = matcalc.DefectCalc(
        calculator,
        fmax=LOOSE,
        elemental_refs={"C": {"structure": diamond()}},
    ).calc_defects(diamond(), min_length=7.0)
    return {"energy of a vacancy, eV": found[0]["formation_energy"]}


def surfaces(calculator: PETCalculator) -> Found:
    """Cut two surfaces."""
    calc = matcalc.SurfaceCalc(calculator, fmax=LOOSE)
    to_joule = units._e * 1e20
    result = {}
    for index in ((1, 1, 1), (1, 1, 0)):
        found = calc.calc_slabs(diamond(), index, min_slab_size=8.0, min_vacuum_size=10.0)
        lowest = min(one["surface_energy"] for one in found)
        result["surface {}{}{}, J/m^2".format(*index)] = lowest * to_joule
    return result


ALL: tuple[Callable[[PETCalculator], Found], ...] = (
    relaxation,
    elasticity,
    equation_of_state,
    phonons,
    quasi_harmonic,
    conductivity,
    dynamics,
    migration,
    defects,
    surfaces,
)


def main() -> None:
    """Print one line for each number."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--only", help="names of functions of this file, with commas")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    calculator = PETCalculator(options.model, dtype="float64")
    chosen = options.only.split(",") if options.only else [one.__name__ for one in ALL]
    for compute in ALL:
        if compute.__name__ in chosen:
            for name, value in compute(calculator).items():
                print(f"| {compute.__name__} | {name} | {value:.4g} |", flush=True)


if __name__ == "__main__":
    main()
