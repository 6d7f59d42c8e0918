"""Space groups in relaxations and degenerate frequencies, by models whose symmetry is known."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.spacegroup import crystal
from model_files import small_potential
from typer.testing import CliRunner

from benchmarks.relaxations.__main__ import app
from benchmarks.relaxations.crystals import (
    PER_SYSTEM,
    SHIPPED,
    SYSTEMS,
    Crystal,
    choose,
    idealized,
    read_crystals,
    space_group,
    write_crystals,
)
from benchmarks.relaxations.phonons import largest_splitting, operations, symmetrize
from benchmarks.relaxations.relax import relax
from benchmarks.relaxations.report import markdown
from benchmarks.relaxations.suite import Settings, run
from pet_mlip import PETCalculator
from pet_mlip.errors import UserError
from pet_mlip.export import save_model


class Springs(Calculator):
    """A cell that wants another volume; atoms are pulled along x in proportion to their index."""

    implemented_properties = ["energy", "forces", "stress"]

    def __init__(self, pull: float):
        super().__init__()
        self.pull = pull

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        wrong = atoms.get_volume() / (20.0 * len(atoms)) - 1
        forces = np.zeros((len(atoms), 3))
        forces[:, 0] = self.pull * (np.arange(len(atoms)) - (len(atoms) - 1) / 2)
        stress = np.array([0.1 * wrong] * 3 + [0.0] * 3)
        self.results = {"energy": 0.0, "forces": forces, "stress": stress}


def silicon():
    return Crystal("Si", bulk("Si"), 227)


def test_shipped_crystals_are_of_all_systems_and_have_their_symmetry():
    crystals = read_crystals(SHIPPED)
    assert 45 <= len(crystals) <= PER_SYSTEM * len(SYSTEMS)
    assert {c.system for c in crystals} == set(SYSTEMS)
    for c in crystals:
        assert space_group(c.atoms, 1e-5) == c.number > 1


def test_crystals_are_made_exact_and_primitive():
    rutile = crystal(
        ["Ti", "O"],
        [(0, 0, 0), (0.305, 0.305, 0)],
        spacegroup=136,
        cellpar=[4.59, 4.59, 2.96, 90, 90, 90],
    ).repeat((1, 1, 2))
    rutile.rattle(3e-4, seed=0)
    assert space_group(rutile, 1e-5) == 1
    ideal = idealized(rutile)
    assert ideal is not None and len(ideal) == 6 and space_group(ideal, 1e-5) == 136


def test_benchmark_has_as_many_crystals_of_each_system():
    library = [Crystal(f"{n}", Atoms("H"), n) for n in [2] * 30 + [14] * 3 + [225] * 30]
    chosen = choose(library)
    assert [c.system for c in chosen].count("triclinic") == PER_SYSTEM
    assert [c.system for c in chosen].count("monoclinic") == 3


def test_files_that_are_no_crystals_are_refused_in_a_sentence(tmp_path):
    molecule = Atoms("CO", [(0, 0, 0), (0, 0, 1.1)])
    write_crystals(tmp_path / "m.xyz", [Crystal("CO", molecule, 1)])
    with pytest.raises(UserError, match=r"m\.xyz, structure 0 \(CO\): it is not periodic"):
        read_crystals(tmp_path / "m.xyz")
    write_crystals(tmp_path / "t.xyz", [silicon(), silicon()])
    with pytest.raises(UserError, match="structure 1: another one is called 'Si' too"):
        read_crystals(tmp_path / "t.xyz")
    (tmp_path / "n.xyz").write_text("3\n")
    with pytest.raises(UserError, match="cannot be read"):
        read_crystals(tmp_path / "n.xyz")


@pytest.mark.parametrize("pull, kept", [(0.0, True), (0.05, False)])
def test_a_force_that_breaks_the_symmetry_is_seen(pull, kept):
    found = relax(silicon(), Springs(pull), largest_force=0.01, steps=30)
    assert found.kept == {"0.01": kept, "1e-05": kept}
    assert (found.after["1e-05"] == 227) == kept


def test_operations_map_atoms_onto_atoms_of_the_same_kind():
    for c in read_crystals(SHIPPED)[::6]:
        for matrix, target in operations(c.atoms):
            assert np.abs(matrix @ matrix.T - np.eye(3)).max() < 1e-6
            assert (c.atoms.numbers[target] == c.atoms.numbers).all()
            assert sorted(target) == list(range(len(c.atoms)))


def test_splittings_are_those_put_in():
    atoms = bulk("Si")
    random = np.random.default_rng(0).normal(size=(6, 6))
    spring = np.kron([[1, -1], [-1, 1]], np.diag([5.0, 5.0, 5.0]))
    assert np.abs(symmetrize(spring, atoms) - spring).max() < 1e-12
    assert largest_splitting(spring, atoms) < 1e-6
    split = np.kron([[1, -1], [-1, 1]], np.diag([5.0, 5.0, 5.1]))
    # Two atoms of mass m on a spring k: omega^2 = 2 k / m.
    expected = np.ptp(np.sqrt(2 * np.array([5.0, 5.1]) / 28.085)) * 521.4709
    assert largest_splitting(split, atoms) == pytest.approx(expected, rel=1e-4)
    symmetric = symmetrize(random + random.T, atoms)
    assert np.abs(symmetrize(symmetric, atoms) - symmetric).max() < 1e-12


def test_random_models_keep_the_space_group_with_ecse_only(tmp_path):
    for name, ensemble in (("plain", "none"), ("ecse", "closest_pairs")):
        # Without the density the network depends on nothing but directions, and strongly.
        random = small_potential(ensemble, zbl=True, density_channels=0, direction_share=1.0)
        save_model(tmp_path / f"{name}.pt", random)
    diamond, known = bulk("C", "diamond", a=3.3), bulk("Cu", a=3.9)
    write_crystals(
        tmp_path / "crystals.xyz",
        [Crystal("C", diamond, 227), Crystal("Cu", known, 225), Crystal("Fe", bulk("Fe"), 229)],
    )
    arguments = ["run", "--plain", str(tmp_path / "plain.pt"), "--ecse", str(tmp_path / "ecse.pt")]
    arguments += ["--crystals", str(tmp_path / "crystals.xyz"), "--steps", "5"]
    arguments += ["--output", str(tmp_path / "out"), "--contestants", "plain,structure,ecse"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "Fe is left out: the model does not know Fe." in result.output
    found = json.loads((tmp_path / "out" / "relaxations.json").read_text())
    for name in ("structure", "ecse"):
        relaxations = found["relaxations"][name]
        assert all(one["kept"]["1e-05"] for one in relaxations.values()), name
        assert found["splittings"][name]["C"] < 1e-4
        assert found["splittings"][name]["Cu"] is None  # one atom: translations only
        assert all(one["steps"] == 5 for one in relaxations.values())
    assert not any(one["kept"]["1e-05"] for one in found["relaxations"]["plain"].values())
    assert found["splittings"]["plain"]["C"] > 1.0
    assert (tmp_path / "out" / "relaxations.png").stat().st_size > 1000
    # Nothing is computed again, and other settings do not mix in.
    again = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "->" not in again.output
    other = CliRunner().invoke(app, [*arguments[:-4], "--steps", "6", *arguments[-4:]])
    assert "results of other settings" in str(other.exception)
    save_model(tmp_path / "ecse.pt", small_potential("closest_pairs", zbl=True, seed=1))
    other = CliRunner().invoke(app, arguments)
    assert "results of another" in str(other.exception)


def test_a_refused_hessian_is_told_and_loses_nothing(tmp_path, monkeypatch):
    def refuse(self, atoms):
        raise UserError("The model's energy is steep here.")

    monkeypatch.setattr(PETCalculator, "get_hessian", refuse)
    model = tmp_path / "model.pt"
    save_model(model, small_potential("closest_pairs"))
    settings = Settings(("ecse", "ecse32"), 0.01, 1, 8)
    crystals = [Crystal("C", bulk("C", "diamond", a=3.3), 227)]
    found = run(crystals, model, model, settings, tmp_path / "out")
    assert found["left_out"] == ["PET with ECSE, C: The model's energy is steep here."]
    assert found["relaxations"]["ecse"].keys() == {"C"}
    assert found["splittings"] == {"ecse": {"C": None}, "ecse32": {}}
    assert "| – |" in markdown(found)
