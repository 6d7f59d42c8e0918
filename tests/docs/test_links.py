"""Links, anchors and paths in the pages lead to what is there; nothing is asked of the network."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATTERNS = (
    "*.md",
    "docs/**/*.md",
    "examples/**/README.md",
    "benchmarks/**/README.md",
    "lammps_plugin/README.md",
    "pet_mlip/weights/*.md",
)
GENERATED = {ROOT / "docs" / "configuration.md"}
"""By Sphinx, whose warnings are errors."""
FENCE = re.compile(r"^(```+|~~~+).*?^\1\s*?$", flags=re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^\n)(?:^(?: {4}|\t).*\n?)+", flags=re.MULTILINE)
LINK = re.compile(r"\[[^]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^\[[^]]+\]:\s*(\S+)", flags=re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
FOLDERS = "benchmarks|configs|docs|examples|lammps_plugin|pet_mlip|tests"
PATH = re.compile(rf"(?:{FOLDERS})/[\w./-]+")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", flags=re.IGNORECASE)


def find_pages() -> list[Path]:
    """Pages whose links are checked."""
    found = {path for pattern in PATTERNS for path in ROOT.glob(pattern)}
    return sorted(found - GENERATED)


def without_code(text: str) -> str:
    """The text without blocks of code, whose brackets are no links."""
    return INDENTED.sub("\n", FENCE.sub("", text))


def links_of(text: str) -> list[str]:
    """Targets of all links that stay in the repository."""
    prose = CODE.sub("", without_code(text))
    targets = [*LINK.findall(prose), *REFERENCE.findall(prose)]
    return [target for target in targets if not ELSEWHERE.match(target)]


def slug(heading: str) -> str:
    """The anchor that GitHub and MyST make of a heading."""
    words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


@cache
def anchors_of(page: Path) -> frozenset[str]:
    """Anchors of a page's headings, and those that it sets itself."""
    text = without_code(page.read_text(encoding="utf-8"))
    found: list[str] = re.findall(r"^\(([\w-]+)\)=$|<a name=\"([\w-]+)\"", text, re.MULTILINE)
    anchors = {name for pair in found for name in pair if name}
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", text, flags=re.MULTILINE):
        name, count = slug(heading), 0
        while name in anchors:
            count += 1
            name = f"{slug(heading)}-{count}"
        anchors.add(name)
    return frozenset(anchors)


def broken_link(page: Path, target: str) -> str | None:
    """What is wrong with a link, if anything is."""
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if file in GENERATED:
        return None
    if not file.exists():
        return f"{target}: there is no {path}"
    if not file.is_relative_to(ROOT):
        return f"{target}: it leaves the repository"
    if anchor and file.suffix == ".md" and anchor not in anchors_of(file):
        return f"{target}: {file.relative_to(ROOT)} has no heading #{anchor}"
    return None


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in find_pages()])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    faults = [broken_link(ROOT / page, target) for target in links_of(text)]
    assert [fault for fault in faults if fault] == []


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in find_pages()])
def test_paths_in_the_prose_exist(page: str) -> None:
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    paths = [word for code in CODE.findall(text) for word in code.split() if PATH.fullmatch(word)]
    # A folder, a file, or a module without its suffix; of the repository, or beside the page.
    missing = [
        path
        for path in paths
        if not any((folder / path).exists() for folder in (ROOT, (ROOT / page).parent))
        and not any(ROOT.glob(f"{path}.*"))
    ]
    assert missing == []


def test_faults_are_found(tmp_path: Path) -> None:
    text = (
        "# One `two` (three)\n\n[a](#one-two-three) [b](#nowhere) ![c](gone.png)\n"
        "[d](https://example.org/x) `[e](no.md)`\n\n    [f](code.md)\n\n```\n[g](code.md)\n```\n"
    )
    page = tmp_path / "page.md"
    page.write_text(text)
    assert links_of(text) == ["#one-two-three", "#nowhere", "gone.png"]
    assert anchors_of(page) == {"one-two-three"}
    assert broken_link(page, "gone.png") == "gone.png: there is no gone.png"
