"""Sphinx's configuration of the site. `make docs` builds it."""

from __future__ import annotations

import doctest
import sys
from importlib.util import find_spec
from pathlib import Path

from rmsprop_graves import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "rmsprop-graves"
author = "The rmsprop-graves maintainers"
copyright = author
version = release = __version__

extensions = [
    "completeness",
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "examples", "figures"]
myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

nitpicky = True
# These types in signatures are documented on other sites, and a build makes no requests.
nitpick_ignore_regex = [("py:class", r"(numpy\.)?ndarray|(types\.)?ModuleType|(typing\.)?BinaryIO|(os\.)?PathLike")]
autodoc_typehints_format = "short"
# Stricter than Sphinx, which does not compare the messages of exceptions.
doctest_default_flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "rmsprop-graves"
html_copy_source = False
# The only file of MathJax that the pages load. It draws formulas as SVG, so it needs no fonts.
_mathjax = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg.js"
html_static_path = ["_static", str(_mathjax)]
html_css_files = ["site.css"]
mathjax_path = _mathjax.name
mathjax3_config = {"options": {"enableMenu": False}}
