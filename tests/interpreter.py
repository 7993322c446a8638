"""Code and programs run in an interpreter of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap


def run_python(code, *options, expect=0, **environment):
    """What a new interpreter prints, to standard output and error, when it runs the code to the expected status."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(code)],
        # Elsewhere than in the checkout, whose sources would be imported in place of the installed package.
        cwd=tempfile.gettempdir(),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout, done.stderr


def write(folder, name, code):
    """The path of a file with the code, in a folder that is made for it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))
    return path


def run(*arguments, cwd, options=(), stdin="", python=sys.executable, **environment):
    """What python does with the arguments and a standard input, within a minute: a program that hangs is an error."""
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
