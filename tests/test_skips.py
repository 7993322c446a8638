"""The summary of skipped tests."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from skips import HOW, not_installed

TESTS = Path(__file__).resolve().parent
SKIPPING = f"""
import pytest

@pytest.mark.parametrize("n", range(20))
def test_other_platform(n):
    pytest.skip("there is no fork here")

@pytest.mark.skipif(True, reason={not_installed("onnx")!r})
def test_mark():
    pass

def test_import():
    pytest.importorskip("no_such_module", reason={not_installed("numba")!r})

def test_import_again():
    pytest.importorskip("no_such_module", reason={not_installed("numba")!r})

def test_passes():
    pass
"""
SKIPPED_MODULE = f"""
import pytest

pytest.skip({not_installed("h5py")!r}, allow_module_level=True)
"""


def summary_of(folder, *options):
    """Run pytest with the hook on the tests in a folder; return the lines of its summary of skipped tests."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-m", "pytest", "-p", "skips", "-p", "no:cacheprovider", *options, str(folder)]
    run = subprocess.run(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    lines = run.stdout.splitlines()
    titles = [number for number, line in enumerate(lines) if "skipped tests by reason" in line]
    # The last line is pytest's own.
    return [line.strip() for line in lines[titles[0] + 1 : -1]] if titles else None


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_skipped_tests_are_counted_by_reason(tmp_path, options):
    """The most frequent reason comes first. One line lists all packages that are not installed."""
    if options and importlib.util.find_spec("xdist") is None:
        pytest.skip(not_installed("xdist"))
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    (tmp_path / "test_skipped.py").write_text(SKIPPED_MODULE)
    assert summary_of(tmp_path, *options) == [
        "20  there is no fork here",
        "4  not installed: h5py (extra test), numba (extra numba), onnx (pip install onnx)",
    ]


def test_no_summary_without_skipped_tests(tmp_path):
    """If every test passes, nothing is added to pytest's output."""
    (tmp_path / "test_passing.py").write_text("def test_passes():\n    pass\n")
    assert summary_of(tmp_path) is None


def test_reasons_name_extras_that_exist():
    project = (TESTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    for how in HOW.values():
        name = how.partition("extra ")[2]
        assert not name or f"\n{name} = [" in project, how
