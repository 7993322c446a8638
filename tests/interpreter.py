"""Helpers to run code and programs in a new Python process."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap


def run_python(code, *options, expect=0, **environment):
    """Run code in a new interpreter, assert its exit status, and return its standard output and standard error."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        # Outside the checkout, so that the installed package is imported and not the sources.
        cwd=tempfile.gettempdir(),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout, done.stderr


def write(folder, name, code):
    """Write code to a file, make its folder if necessary, and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))
    return path


def run(*arguments, cwd, options=(), stdin="", python=sys.executable, **environment):
    """Run python with arguments and standard input, for at most a minute; return the completed process."""
    return subprocess.run(
        [str(python), *options, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
