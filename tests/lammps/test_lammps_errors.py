"""Bad input ends in one sentence on every rank."""

import pytest
from ase.build import bulk
from lammps_models import ELEMENTS, save, save_charged, small_potential
from simulation import Lammps, deck, write_data

from pet_mlip.export import save_model
from pet_mlip.export.metadata import FORMAT_VERSION, Metadata


@pytest.fixture(scope="module")
def lmp(plugin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors")
    save(folder / "model.pt", "plain")
    write_data(folder, bulk("SiO", "zincblende", a=5.0, cubic=True), ELEMENTS)
    (folder / "text.pt").write_text("not a model")
    whole = (folder / "model.pt").read_bytes()
    (folder / "cut.pt").write_bytes(whole[: len(whole) // 2])
    return Lammps(plugin, folder)


CASES = {
    "missing file": ({"pair": "pair_style pet\npair_coeff * * no.pt Si O"}, "no model file no.pt"),
    "not a model": (
        {"pair": "pair_style pet\npair_coeff * * text.pt Si O"},
        "not a pet_mlip model",
    ),
    "cut short": ({"pair": "pair_style pet\npair_coeff * * cut.pt Si O"}, "cut short"),
    "unknown species": (
        {"pair": "pair_style pet\npair_coeff * * model.pt Si C"},
        "does not know the element C; it knows O Si",
    ),
    "no element": (
        {"pair": "pair_style pet\npair_coeff * * model.pt Si Qq"},
        "Qq is not a chemical",
    ),
    "too few elements": ({"pair": "pair_style pet\npair_coeff * * model.pt Si"}, "2 atom types"),
    "too many": ({"pair": "pair_style pet\npair_coeff * * model.pt Si O O"}, "2 atom types"),
    "types": ({"pair": "pair_style pet\npair_coeff 1 1 model.pt Si O"}, "must start with * *"),
    "no coeff": ({"pair": "pair_style pet"}, "coeffs are not set"),
    "keyword": (
        {"style": "devices cpu"},
        "no keyword devices; it knows device, dtype, chunk, charge and spin",
    ),
    "no value": ({"style": "device"}, "keyword device needs a value"),
    "device": ({"style": "device gpu"}, "device gpu is not one of auto, cpu, cuda, cuda:N"),
    "dtype": ({"style": "dtype half"}, "dtype half is not one of"),
    "tf32": ({"style": "device cpu dtype tf32"}, "dtype tf32 is a precision of NVIDIA's GPUs"),
    "chunk": ({"style": "chunk -1"}, "chunk must not be negative"),
    "units": ({"units": "lj"}, "units metal or real, not in units lj"),
    "charge": ({"style": "charge 1"}, "does not depend on charge and spin"),
    "NaN": ({"setup": "variable n atom exp(1000)-exp(1000)\nset atom 1 x v_n"}, "Non-numeric"),
    "overlap": ({"setup": "create_atoms 1 single 0 0 0"}, "not a finite number"),
}


@pytest.mark.parametrize("name", CASES)
def test_message(lmp, name):
    arguments, words = CASES[name]
    message = lmp.fails(deck(" ".join(ELEMENTS), **arguments))
    assert words in message
    assert len(message) < 400


@pytest.mark.parametrize("name", ["missing file", "unknown species", "overlap"])
def test_all_ranks_stop(lmp, name):
    arguments, words = CASES[name]
    assert words in lmp.fails(deck(" ".join(ELEMENTS), **arguments), ranks=2)


def test_cuda_without_a_gpu(lmp):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    message = lmp.fails(deck(" ".join(ELEMENTS), style="device cuda"))
    assert "torch sees no GPU; use device cpu" in message


def test_a_newer_format(lmp, monkeypatch):
    lines = Metadata.to_lines
    newer = f"format_version {FORMAT_VERSION + 1}"
    monkeypatch.setattr(
        Metadata,
        "to_lines",
        lambda self: lines(self).replace(f"format_version {FORMAT_VERSION}", newer),
    )
    save_model(lmp.folder / "newer.pt", small_potential("plain"), dtype="float64")
    message = lmp.fails(deck("", pair="pair_style pet\npair_coeff * * newer.pt Si O"))
    assert f"format {FORMAT_VERSION + 1}" in message
    assert "update pet_mlip" in message


BONDED = """units metal
atom_style bond
region box block 0 10 0 10 0 10
create_box 1 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 2
create_atoms 1 single 5 5 5
create_atoms 1 single 6.5 5 5
mass 1 28
create_bonds single/bond 1 1 2
bond_style zero
bond_coeff *
pair_style pet device cpu
pair_coeff * * model.pt Si
{special}
run 0
"""


def test_special_bonds_that_drop_neighbours(lmp):
    message = lmp.fails(BONDED.format(special=""))
    assert "set special_bonds lj/coul 1 1 1" in message
    assert lmp.start(BONDED.format(special="special_bonds lj/coul 1 1 1")).returncode == 0


def test_charges_out_of_range(lmp):
    save_charged(lmp.folder / "charged.pt")
    pair = "pair_style pet charge 11\npair_coeff * * charged.pt Si O"
    message = lmp.fails(deck(" ".join(ELEMENTS), pair=pair))
    assert "knows charges up to 10 and spin multiplicities from 1 to 10" in message


def test_averages_over_orientations_are_not_taken_silently(lmp):
    path = lmp.folder / "average.pt"
    save_model(path, small_potential("plain"), dtype="float64", orientations="structure")
    pair = "pair_style pet\npair_coeff * * average.pt Si O"
    message = lmp.fails(deck(" ".join(ELEMENTS), pair=pair))
    assert "average over orientations" in message
    assert "--symmetrization none" in message
