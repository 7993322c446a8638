"""The pictures of the tutorial, made by running the whole example and then the tutorial's own code."""

from __future__ import annotations

import doctest
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import style

DOCS = Path(__file__).resolve().parents[1]


def main():
    """Runs the example, and then every line at the tutorial's Python prompts in the example's folder."""
    # With one thread the bits do not depend on the number of cores.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    prompts = doctest.DocTestParser().get_examples((DOCS / "tutorial.md").read_text(encoding="utf-8"))
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        subprocess.run([sys.executable, DOCS / "examples" / "train_text.py"], check=True)
        matplotlib.rcdefaults()  # a reader does not have the style of the other figures
        names = {}
        for prompt in prompts:
            exec(compile(prompt.source, "tutorial.md", "single"), names)
        os.chdir(before)
        for path in Path(folder, "result", "text").glob("*.png"):
            style.IMAGES.mkdir(exist_ok=True)
            print(shutil.copy(path, style.IMAGES / f"tutorial-{path.name}"))


if __name__ == "__main__":
    main()
