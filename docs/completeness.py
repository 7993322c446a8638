"""Makes the build warn of public names that the reference lacks, and of entries whose name does not exist."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import rmsprop_graves  # isort: split

import chainer
from sphinx.util import logging

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule, kernels

LAUNCHER = "python -m rmsprop_graves"


def python_names():
    """Returns the public names of the package, its kernels and its classes, with inherited and instance attributes."""
    names = {f"rmsprop_graves.{name}" for name in rmsprop_graves.__all__}
    names |= {f"rmsprop_graves.kernels.{name}" for name in kernels.__all__}
    names |= {f"rmsprop_graves.kernels.{kernel}.step" for kernel in ("numpy", "numba", "cupy")}
    for instance in (RMSpropGraves().setup(chainer.Link()), RMSpropGravesRule()):
        path = f"rmsprop_graves.{type(instance).__name__}"
        names |= {f"{path}.{name}" for name in dir(instance) if not name.startswith("_")}
    return names


def launcher_options():
    """Returns the options in the launcher's help."""
    command = [sys.executable, "-m", "rmsprop_graves", "--help"]
    text = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout
    return {option for line in re.findall(r"^  (-.*?)(?:  |$)", text, re.MULTILINE) for option in line.split(", ")}


def environment_variables():
    """Returns words in the package's strings, messages and docstrings that look like an environment variable."""
    names = set()
    for path in Path(rmsprop_graves.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.update(re.findall(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b", node.value))
    return names


def exists(path):
    """Whether a dotted path leads to something."""
    try:
        return pkgutil.resolve_name(path) is not None
    except (ImportError, AttributeError):
        return False


def faults(domains):
    """Returns a message for each fault in the domains of a build."""
    public, found = python_names(), domains["py"].objects
    options = {name for program, name in domains["std"].progoptions if program == LAUNCHER.replace(" ", "-")}
    variables = {name for kind, name in domains["std"].objects if kind == "envvar"}
    missing = (
        *sorted(public - found.keys()),
        *(f"the option {option} of {LAUNCHER}" for option in sorted(launcher_options() - options)),
        *(f"the environment variable {name}" for name in sorted(environment_variables() - variables)),
    )
    gone = (
        *(name for name in found if name not in public and not exists(name)),
        *(f"the option {option} of {LAUNCHER}" for option in sorted(options - launcher_options())),
    )
    return [
        *(f"{name} is public and has no entry in the reference" for name in missing),
        *(f"{name} has an entry in the reference and does not exist" for name in gone),
    ]


def setup(app):
    """Registers the check with Sphinx."""

    def check(app, env):
        for fault in faults(env.domains):
            logging.getLogger(__name__).warning(fault)

    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
