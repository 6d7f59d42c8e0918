"""Sphinx configuration."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.highlighting import lexers

from pet_mlip.config import reference_yaml
from pet_mlip.learn.config import reference_yaml as learn_reference_yaml
from pet_mlip.version import __version__

project = "pet_mlip"
copyright = "the pet_mlip developers"
release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_theme = "furo"
lexers["lammps"] = TextLexer()  # pygments has none for input decks
exclude_patterns = ["_build"]

# A word in single backticks in a docstring is code.
default_role = "literal"
autodoc_member_order = "bysource"
FLOATS = r"~?(numpy\.)?ndarray\[tuple\[[^]]*\], [^]]*float64\]\]"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "Floats": "Floats"}
python_maximum_signature_line_length = 100
# Pages build without the programs that the interfaces are for.
autodoc_mock_imports = [
    name for name in ("ipi", "metatensor", "metatomic", "torch_sim") if find_spec(name) is None
]

# The reference is written from the schema, so that it cannot fall behind.
PAGE = """# Configuration reference

Every key with its description, type and default.

## Training

As in `configs/reference.yaml`, for `pet-mlip train`.

```yaml
{}```

## Learning

As in `examples/learn/reference.yaml`, for `pet-mlip learn`.

```yaml
{}```
"""
Path(__file__).with_name("configuration.md").write_text(
    PAGE.format(reference_yaml(), learn_reference_yaml()), encoding="utf-8"
)


def read_sections(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Translate Google's sections in docstrings; what is said of attributes has none."""
    if what not in ("attribute", "property", "data"):
        style = Config(napoleon_use_ivar=True)
        found = GoogleDocstring(lines, style, app, what, name, thing, options)
        lines[:] = found.lines()


def shorten_types(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, arguments: str, returned: str
) -> tuple[str, str]:
    """Write the names of arrays' types in place of what they stand for."""

    def shortened(text: str | None) -> Any:
        if text is None:
            return None
        text = re.sub(FLOATS, "Floats", text)
        return re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)

    return shortened(arguments), shortened(returned)


def setup(app: Sphinx) -> None:
    """Let Sphinx read this package's docstrings."""
    app.connect("autodoc-process-docstring", read_sections)
    app.connect("autodoc-process-signature", shorten_types)
