"""Reasons for skipping tests, and the summary that counts them."""

from __future__ import annotations

# How to install the packages that some tests need, by import name. Each extra is one of pyproject.toml.
HOW = {
    "chainerrl": "make clients",
    "cupy": "extra nvrtc",
    "h5py": "extra test",
    "jax": "extra oracle",
    "matplotlib": "extra examples",
    "minatar": "extra dqn",
    "mpi4py": "extra mpi",
    "numba": "extra numba",
    "optax": "extra oracle",
    "PIL": "extra examples",
    "playwright": "extra browser",
    "scipy": "extra examples",
    "sklearn": "extra examples",
    "sphinx": "extra docs",
    "xdist": "extra test",
}


def not_installed(package):
    """Return the reason for skipping a test that needs a package: that it is not installed, and how to install it."""
    return f"not installed: {package} ({HOW.get(package, f'pip install {package}')})"


def pytest_terminal_summary(terminalreporter):
    """Print how many tests were skipped for each reason, most frequent first.

    Reasons with the same text before the first colon share a line, which lists the texts after it: one line lists all
    packages that are not installed. pytest's own ``-rs`` prints a line for each place in the code.
    """
    counts = {}
    for report in terminalreporter.stats.get("skipped", []):
        _file, _line, message = report.longrepr
        kind, _, detail = message.split("Skipped: ", 1)[-1].partition(": ")
        counts.setdefault(kind, []).append(detail)
    if not counts:
        return
    terminalreporter.write_sep("=", "skipped tests by reason")
    for kind, details in sorted(counts.items(), key=lambda item: (-len(item[1]), item[0])):
        named = ", ".join(sorted(set(filter(None, details))))
        terminalreporter.write_line(f"{len(details):5}  {kind}{': ' if named else ''}{named}")
