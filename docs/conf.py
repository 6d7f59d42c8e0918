"""Sphinx configuration."""

from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

from pet_mlip.config import reference_yaml
from pet_mlip.learn.config import reference_yaml as learn_reference_yaml
from pet_mlip.version import __version__

project = "pet_mlip"
copyright = "the pet_mlip developers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
html_theme = "furo"
lexers["lammps"] = TextLexer()  # pygments has none for input decks
exclude_patterns = ["_build"]

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
