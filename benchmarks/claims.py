"""The measured numbers of README and docs, each with the command that makes it.

    python benchmarks/claims.py

checks that every number still stands where it is listed, that the program, the files and the
options of every command exist, and lists tables with measured numbers near which no command is
named. The exit code is 1 if anything is wrong. It runs no command: they take minutes to hours.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from pet_mlip.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks/", "configs/", "docs/", "examples/", "tests/")
NAMES_A_COMMAND = re.compile(
    r"python -m (?:benchmarks|pytest|pet_mlip)|python [\w/]+\.py|pet-mlip [a-z]+|make [a-z]+"
    r"|(?:benchmarks|tests|examples)/[\w/]+"
)
MEASURED = re.compile(
    r"\d[.,]\d|\d\s*(?:·\s*10|%|meV|ms|s\b)|\d+ / \d+|\de-\d\d|^\W*\d+\W*$", flags=re.IGNORECASE
)
PARAMETERS = re.compile(r"`|[(][A-Z], ?[\dA-Z]*[)]")
"""What cells of tables of arguments and keys have, whose numbers are not measured."""
FEWEST_NUMBERS = 3
"""Measured cells that make a table one of measurements."""


@dataclass(frozen=True)
class Claim:
    """A number of the documentation.

    Attributes:
        file: Page, from the root of the repository.
        text: Fragment of the page that holds it, on one line.
        command: What makes it; DIR is where the public data sets are.
    """

    file: str
    text: str
    command: str


CURVES = "python -m benchmarks.learning --data DIR --sets acac,mlearn_Si,mlearn_Cu,nbmotaw,aspirin"
ECSE = (
    "python -m benchmarks.peers --structures ecse --contestants plain,ecse --threads 1 --shape ours"
)
ACAC = "pet-mlip train configs/acac.yaml --set data.root=DIR --set training.max_time=00:12:00"
CLAIMS = [
    Claim("README.md", "below 1e-10 eV/atom, 1e-9 eV/Å, whatever", "pytest tests/physics"),
    Claim("README.md", "below 2e-6 eV/atom, 2e-5 eV/Å", "pytest tests/physics"),
    Claim("README.md", "ethanol 1.31 (1.23 to 1.36), copper 1.82 (1.71 to 1.88)", ECSE),
    Claim("README.md", "0.001 / -0.001 meV/atom/ps", "make demo"),
    Claim(
        "README.md",
        "51 / 98 / 269, 26 / 44 / 86, 114 / 175 / 317 meV/Å",
        "python -m benchmarks.learning --sets 3bpa --contestants ours,ours_start,mace --minutes 5 "
        "--structures 50",
    ),
    Claim("README.md", "183 / 32 / 24 meV/Å", "pet-mlip learn examples/learn/ethanol.yaml"),
    Claim("README.md", "below 1e-9 of the largest", "python -m benchmarks.hessians"),
    Claim("README.md", "below 1e-11 eV/atom and eV/Å; 1, 2 and 4 ranks", "pytest tests/lammps"),
    Claim(
        "README.md", "acetylacetone 4.5, silicon 9.4, copper 31", "python benchmarks/ensembles.py"
    ),
    Claim(
        "README.md",
        "silicon in 1 evaluation, fcc copper in 3 or fewer, ethanol in about 40",
        "pytest tests/ase/test_symmetrize_structure.py",
    ),
    Claim(
        "README.md",
        "**100 %** | **98 %** | 5e-9, 6e-7 | 1.3",
        "python -m benchmarks.relaxations run",
    ),
    Claim(
        "docs/benchmarks.md",
        "**100 %** | **98 %** | 5e-9, 6e-7 | 1.3",
        "python -m benchmarks.relaxations run",
    ),
    Claim("README.md", "energies 1e-10 relative, forces 1e-8 eV/Å", "pytest tests/convert"),
    Claim("README.md", "**16.7 / 11.6** | **0.35 / 0.29**", f"{CURVES} --minutes 12"),
    Claim(
        "README.md",
        "**7.7 / 5.4** | **0.75 / 0.62**",
        "python -m benchmarks.learning --data DIR --sets mlearn_Mo,mlearn_Ni,mlearn_Li "
        "--contestants ours,mace --minutes 12",
    ),
    Claim("README.md", "**36.2 / 25.6** | **1.13 / 0.92**", f"{CURVES} --minutes 12"),
    Claim(
        "README.md",
        "| aspirin | 21 | 45.8 | 1.14 (1.10-1.33)",
        "python -m benchmarks.peers --structures aspirin,water-63,water-192,silicon-216 "
        "--threads 1 --repeats 5 --seconds 30",
    ),
    Claim("docs/theory.md", "takes 1.06 times the plain model for water", ECSE),
    Claim("docs/theory.md", "1e-10 eV/atom and 1e-9 eV/Å in float64", "pytest tests/physics"),
    Claim(
        "docs/inference.md",
        "1.1 meV/atom and 48 meV/Å, root mean square",
        "python benchmarks/precisions.py run/model.pt examples/data/ethanol/test.xyz",
    ),
    Claim(
        "docs/training.md",
        "25.9 / 56.8 (`small`, 2,660 steps)",
        "python -m benchmarks.learning --data DIR --sets acac --contestants ours --minutes 3 "
        "--ours-set size=small",
    ),
    Claim(
        "docs/training.md",
        "right to about a quarter",
        "python benchmarks/training_memory.py",
    ),
    Claim("docs/uncertainty.md", "| 300 K | 16.8 / 16.9 | 73 %, 95 %", ACAC),
    Claim("docs/uncertainty.md", "| 600 K | 39.4 / 35.2 | 67 %, 92 %", ACAC),
    Claim(
        "docs/uncertainty.md",
        "at four times the cost",
        "python -m benchmarks.committees configs/acac.yaml --data DIR --time 00:05:00 "
        "-o committees --every 3",
    ),
    Claim(
        "docs/learning.md",
        "| 280 | 183 | 57 | 32 | 27 | 24 |",
        "pet-mlip learn examples/learn/ethanol.yaml --output ethanol",
    ),
    Claim(
        "docs/learning.md",
        "forces fall from 129 to 51 meV/Å",
        "pet-mlip learn examples/learn/diamond.yaml --output diamond",
    ),
    Claim(
        "docs/learning.md",
        "has 29 meV/Å",
        "pet-mlip train ethanol/round_00/run/config.yaml --set training.epochs=43",
    ),
    Claim(
        "docs/finetuning.md",
        "0.32 to 0.52 of the errors",
        "python -m benchmarks.learning --data DIR --sets acac,3bpa,aspirin "
        "--contestants ours,ours_start --minutes 5 --structures 50",
    ),
    Claim(
        "docs/symmetry_in_practice.md",
        "| structure | 1 | 24 | 18 |",
        "pytest -m slow tests/docs/test_symmetry_in_practice.py",
    ),
    Claim(
        "docs/ecse_tool.md",
        "| with the ensemble, 1,000 steps (20 s) | 0.015 e Å, 6 %",
        "python examples/covariant/pointnet.py",
    ),
    Claim(
        "docs/gallery.md",
        "gauche lies 33 meV too high",
        "python examples/gallery/barrier.py barrier.png organic-xtb",
    ),
    Claim("docs/gallery.md", "uncertain by 316 meV/Å", "python examples/gallery/rdf.py"),
    Claim("docs/gallery.md", "3 THz too low", "python examples/gallery/phonons.py"),
    Claim("docs/gallery.md", "is wrong by 2.3 eV", "python examples/gallery/uncertainty.py"),
    Claim("docs/gallery.md", "to the 1 % that differences", "python examples/gallery/heat_flux.py"),
    Claim(
        "examples/covariant/README.md",
        "| dipole | 0.0063 e Å | 2.7 %",
        "python examples/covariant/predict.py covariant/model.pt",
    ),
    Claim(
        "pet_mlip/weights/organic-xtb.md",
        "| 2.8 / 3.0 meV | 16 / 23 meV/Å |",
        "pet-mlip eval organic-xtb examples/data/ethanol/test.xyz",
    ),
    Claim(
        "pet_mlip/weights/organic-xtb.md",
        "| 7.8 / 22.2 meV | 37 / 85 meV/Å |",
        "python -m benchmarks.starting_weights",
    ),
]


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def what_is_gone(claim: Claim) -> str | None:
    """Say that a claim no longer stands in its page; None if it does."""
    if not (ROOT / claim.file).is_file():
        return f"{claim.file} does not exist"
    if claim.text not in read(claim.file):
        return f"{claim.file} no longer says: {claim.text}"
    return None


def what_is_missing(command: str) -> list[str]:
    """List what a command needs and the repository does not have: program, files, options."""
    words = shlex.split(command)
    sources, arguments = program_of(words)
    if sources is None:
        return [f"{command}: there is no such program"]
    faults = [
        f"{command}: there is no {word}"
        for word in arguments
        if word.startswith(FOLDERS) and not (ROOT / word.partition("::")[0]).exists()
    ]
    if words[0] == "pet-mlip":
        known = {option for one in click_command(words[1]).params for option in one.opts}
        unknown = [word for word in arguments if word.startswith("--") and word not in known]
        faults += [f"{command}: there is no option {word}" for word in unknown]
    elif words[0] == "python":
        text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
        for word in arguments:
            if word.startswith("--") and not re.search(option_pattern(word), text):
                faults.append(f"{command}: there is no option {word}")
    return faults


def program_of(words: list[str]) -> tuple[list[Path] | None, list[str]]:
    """Find the sources of a command's program, and its arguments; None if there is none."""
    match words:
        case ["make", target, *arguments]:
            makefile = ROOT / "Makefile"
            known = re.search(rf"^{re.escape(target)}:", read("Makefile"), flags=re.MULTILINE)
            return ([makefile] if known else None), arguments
        case ["pytest", *arguments]:
            return [], arguments
        case ["pet-mlip", name, *arguments]:
            return ([] if click_command(name) is not None else None), arguments
        case ["python", "-m", module, *arguments]:
            path = ROOT.joinpath(*module.split("."))
            if path.is_dir():
                return (sorted(path.glob("*.py")) if (path / "__main__.py").is_file() else None), (
                    arguments
                )
            file = path.with_suffix(".py")
            return ([file] if file.is_file() else None), arguments
        case ["python", script, *arguments]:
            return ([ROOT / script] if (ROOT / script).is_file() else None), arguments
    return None, []


def click_command(name: str) -> Any:
    """Return a command of `pet-mlip`, None if there is none."""
    return typer.main.get_command(app).commands.get(name)  # type: ignore[attr-defined]


def option_pattern(option: str) -> str:
    """A pattern of how sources declare an option: by its words, or as a parameter's name."""
    return rf"\"{option}\"|\b{option.lstrip('-').replace('-', '_')}: Annotated\["


def bare_tables(page: str) -> list[int]:
    """Lines at which tables with measured numbers begin that have no command in their section.

    A section reaches from one heading to the next. A table that holds a claim has a command.
    """
    lines = read(page).splitlines()
    claimed = [claim.text for claim in CLAIMS if claim.file == page]
    found = []
    start = 0
    while start < len(lines):
        if not lines[start].startswith("|"):
            start += 1
            continue
        end = start
        while end < len(lines) and lines[end].startswith("|"):
            end += 1
        table = lines[start:end]
        if is_measured(table) and not any(text in row for text in claimed for row in table):
            section = section_around(lines, start, end)
            if not NAMES_A_COMMAND.search("\n".join(section)):
                found.append(start + 1)
        start = end
    return found


def is_measured(table: list[str]) -> bool:
    """Whether the cells of a table are measurements rather than words, shapes or settings."""
    cells = [cell.strip() for row in table[2:] for cell in row.strip("|").split("|")[1:]]
    numbers = [cell for cell in cells if MEASURED.search(cell) and not PARAMETERS.search(cell)]
    return len(numbers) >= max(FEWEST_NUMBERS, len(cells) / 4)


def section_around(lines: list[str], start: int, end: int) -> list[str]:
    """The lines from the heading above to the heading below."""
    first = next((k for k in range(start, -1, -1) if lines[k].startswith("#")), 0)
    last = next((k for k in range(end, len(lines)) if lines[k].startswith("#")), len(lines))
    return lines[first:last]


def pages() -> list[str]:
    """Pages whose tables are looked at."""
    generated = ROOT / "docs" / "configuration.md"
    found = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found if path != generated]


def faults() -> list[str]:
    """List all that is wrong, one sentence each."""
    found = [fault for claim in CLAIMS if (fault := what_is_gone(claim)) is not None]
    for command in dict.fromkeys(claim.command for claim in CLAIMS):
        found += what_is_missing(command)
    for page in pages():
        for line in bare_tables(page):
            found.append(f"{page}, line {line}: no command is named near this table")
    return found


def main() -> int:
    """Print the claims and what is wrong with them."""
    for claim in CLAIMS:
        print(f"{claim.file}: {claim.text}\n    {claim.command}")
    found = faults()
    for fault in found:
        print(f"Error: {fault}.", file=sys.stderr)
    print(f"{len(CLAIMS)} claims, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
