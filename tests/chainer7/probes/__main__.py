"""Makes the record. It refuses to run on any stack but the one that Chainer was written for."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys

# With one thread the order of a sum is fixed.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import chainer
import numpy

from . import names, record, runner


def main():
    """Calls every probe and writes the record, or exits with the reason why it cannot."""
    wrong = [
        *(
            f"{what} is {found}, not {needed}"
            for what, found, needed in (
                ("Python", platform.python_version(), "3.8"),
                ("NumPy", numpy.__version__, "1.22"),
                ("Chainer", chainer.__version__, record.CHAINER),
            )
            if found != needed and not found.startswith(f"{needed}.")
        ),
        *(f"{name} is missing" for name in sorted(set(names.NEEDS.values())) if not importlib.util.find_spec(name)),
        *(["rmsprop_graves is imported"] if "rmsprop_graves" in sys.modules else []),
    ]
    if wrong:
        sys.exit(f"The record is made by plain Chainer on its own stack: {', '.join(wrong)}.")
    outcomes = {name: runner.outcomes_of(*probes) for name, probes in names.probes().items()}
    about = {"python": platform.python_version(), "numpy": numpy.__version__, "names": names.public_names()}
    record.write(outcomes, about)
    size = record.PATH.stat().st_size
    print(f"{sum(map(len, outcomes.values()))} calls of {len(outcomes)} names: {record.PATH}, {size:,} bytes")


if __name__ == "__main__":
    main()
