"""Sphinx's configuration of the site. `make docs` builds it."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from pygments.lexers.python import PythonConsoleLexer
from pygments.lexers.special import OutputLexer

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
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "examples", "figures"]
myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

nitpicky = True
# These types in signatures are documented on other sites, and a build makes no requests.
nitpick_ignore_regex = [("py:class", r"(numpy\.)?ndarray|(types\.)?ModuleType|(typing\.)?BinaryIO|(os\.)?PathLike")]
autodoc_typehints_format = "short"

html_theme = "furo"
pygments_dark_style = "github-dark"
html_title = "rmsprop-graves"
html_copy_source = False
# The only file of MathJax that the pages load. It draws formulas as SVG, so it needs no fonts.
_mathjax = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg.js"
html_static_path = ["_static", str(_mathjax)]
html_css_files = ["site.css"]
html_js_files = ["copy.js"]
mathjax_path = _mathjax.name
mathjax3_config = {"options": {"enableMenu": False}}

# The copy button leaves out prompts and outputs. A line of dots ends an indented block: it becomes an empty line.
copybutton_prompt_text = r">>> |\.\.\.(?: |$)|[$>] "
copybutton_prompt_is_regexp = True
copybutton_copy_empty_lines = False


class ConsoleLexer(PythonConsoleLexer):
    """Marks a traceback as output, which the style sheet keeps from being selected."""

    def __init__(self, **options):
        """Replace the lexer of tracebacks."""
        super().__init__(**options)
        self.root_lexer = OutputLexer(**options)


def setup(app):
    """Use the lexer for Python sessions."""
    app.add_lexer("pycon", ConsoleLexer)
