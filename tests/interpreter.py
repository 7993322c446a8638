"""Code run in an interpreter of its own."""

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
