"""Runs Chainer's own CPU tests on two stacks and compares them case by case.

    python tests/clients/chainer_suite.py CHECKOUT --reference PYTHON --python PYTHON

CHECKOUT is Chainer's repository at v7.8.1. The reference is a Python with plain Chainer 7.8.1 on a stack that Chainer
was written for (Python 3.8, NumPy 1.22). The other Python has this package, whose launcher runs the tests. Both need
pytest and mock. The tests run against the installed Chainer, never against the checkout's. The status is 1 if a case
that passes on the reference does not pass on the other stack.

The results are in the folder of --out. An interrupted run continues where it stopped; when both stacks are complete,
the command only compares them. --again starts over, --only selects some test files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

SUITES = ("chainer_tests", "chainermn_tests", "onnx_chainer_tests")
MARKERS = "not gpu and not multi_gpu and not cudnn and not ideep and not chainerx and not theano and not slow"

# Repairs of test files that use removed features themselves: (old, new, why). Both stacks run the repaired files.
MENDS = (
    ("dtype=numpy.bool)", "dtype=bool)", "deprecated in NumPy 1.20, another type since 2.0"),
    ("np.int)", "int)", "deprecated in NumPy 1.20, removed in 1.24"),
    ("np.int,", "int,", "deprecated in NumPy 1.20, removed in 1.24"),
    ("numpy.object)", "object)", "deprecated in NumPy 1.20, removed in 1.24"),
    ("numpy.complex_", "numpy.complex128", "removed in NumPy 2.0"),
    ("numpy.product(", "numpy.prod(", "removed in NumPy 2.0"),
    ("numpy.fix(", "numpy.trunc(", "deprecated in NumPy 2.5"),
    ("float(scaling ** self.x.shape[1])", "(scaling ** self.x.shape[1]).item()", "an array of shape (1,): NumPy 2.4"),
    ("self.dtype(self.pad)", "numpy.array(self.pad).astype(self.dtype)", "uint8(-1) raises since NumPy 2.0"),
    ("loss_expect = 0.0\n        count", "loss_expect = numpy.float64(0)\n        count", "float16 from NumPy 2.0 on"),
    ("return unittest.SkipTest(msg)", "raise unittest.SkipTest(msg)", "a test that returns a value: Python 3.11"),
)

# Chainer's setup.cfg turns warnings into errors, with exceptions. The reference needs these exceptions too.
IGNORED = """
    ignore:.* is a deprecated alias:DeprecationWarning
    ignore::ResourceWarning
"""


def main(arguments=None):
    """Runs the remaining tests, prints the comparison, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="Chainer's repository at v7.8.1")
    parser.add_argument("--reference", metavar="PYTHON", help="the Python of the stack to compare with")
    parser.add_argument("--python", metavar="PYTHON", help="the Python of the stack to test, with rmsprop_graves")
    parser.add_argument("--out", type=Path, default=Path("chainer-suite"), help="folder for the results")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only test files whose path contains one of these")
    parser.add_argument("--again", action="store_true", help="delete the results of the given stacks first")
    parser.add_argument("--patience", type=float, default=300, help="seconds after which a case counts as hung")
    parser.add_argument(
        "--all-combinations", action="store_true", help="run all combinations of parameters, not only pairs"
    )
    options = parser.parse_args(arguments)

    os.environ["CHAINER_TEST_PAIRWISE_PARAMETERIZATION"] = "never" if options.all_combinations else "always"
    out = options.out.resolve()
    reference, subject = out / "reference", out / "subject"
    copy_tests(options.checkout.resolve(), out / "source")
    files = test_files(out / "source" / "tests", options.only)
    if options.again:
        for file in files:
            for folder in [reference] * bool(options.reference) + [subject] * bool(options.python):
                with contextlib.suppress(FileNotFoundError):
                    log_of(folder, file).unlink()
    if options.reference:
        run(shlex.split(options.reference), files, reference, options.patience)
    if options.python:
        run([*shlex.split(options.python), "-m", "rmsprop_graves"], files, subject, options.patience)
    return compare(reference, subject, files)


def copy_tests(checkout, source):
    """Copies the tests without Chainer itself, and repairs them."""
    shutil.rmtree(source, ignore_errors=True)
    (source / "tests").mkdir(parents=True)
    settings = (checkout / "setup.cfg").read_text()
    (source / "setup.cfg").write_text(settings.replace("\n    error\n", "\n    error" + IGNORED, 1))
    shutil.copy(checkout / "tests" / "conftest.py", source / "tests")
    for suite in SUITES:
        shutil.copytree(checkout / "tests" / suite, source / "tests" / suite)
    unused = set(MENDS)
    for path in source.rglob("*.py"):
        text = path.read_text()
        used = [mend for mend in MENDS if mend[0] in text]
        for old, new, _ in used:
            text = text.replace(old, new)
        path.write_text(text)
        unused.difference_update(used)
    if unused:
        raise ValueError(f"no test file contains {unused.pop()[0]!r}: is the checkout at v7.8.1?")


def test_files(tests, only):
    """Returns the paths of the test files, relative to the folder of the tests."""
    names = sorted(str(path.relative_to(tests)) for suite in SUITES for path in (tests / suite).rglob("test_*.py"))
    return [name for name in names if not only or any(text in name for text in only)]


def log_of(folder, file):
    """Returns the path of the log for a test file on one stack."""
    return folder / f"{file}.jsonl"


def read(log):
    """Returns the last entry of each case in a log, and the entry that ends the log (None if it is incomplete)."""
    cases, end = {}, None
    with contextlib.suppress(FileNotFoundError), log.open() as lines:
        for line in lines:
            entry = json.loads(line)
            if "case" in entry:
                cases[entry["case"]] = entry
            else:
                end = entry
    return cases, end


def add(log, **entry):
    """Appends an entry to a log."""
    with log.open("a") as file:
        file.write(json.dumps(entry) + "\n")


def run(python, files, folder, patience):
    """Runs each test file in its own process."""
    left = [file for file in files if read(log_of(folder, file))[1] is None]
    for number, file in enumerate(left, 1):
        log = log_of(folder, file)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")  # an interrupted run may have left an incomplete log
        start = time.monotonic()
        while True:
            why = run_process([*python, __file__, "inside", file, str(log)], log, patience)
            stuck = [case for case, entry in read(log)[0].items() if entry["outcome"] == "started"]
            if why or stuck:
                for case in stuck or ["the process"]:
                    add(log, case=case, outcome="failed", why=why or "the process ended before the case")
            # A case that hung or crashed has failed. A new process runs the cases after it.
            if not stuck:
                break
        seconds = round(time.monotonic() - start, 1)
        add(log, seconds=seconds)
        counts = Counter(entry["outcome"] for entry in read(log)[0].values())
        print(f"[{number}/{len(left)}] {file}: {dict(sorted(counts.items()))} {seconds} s", flush=True)


def run_process(command, log, patience):
    """Runs a command until it ends or `log` stops growing; returns a description of what went wrong, if anything."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        environment = {
            **os.environ,
            "CHAINER_DATASET_ROOT": folder,
            "MPLBACKEND": "Agg",
            "OMP_NUM_THREADS": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
        }
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        size, since = 0, time.monotonic()
        hung = False
        try:
            while process.poll() is None and not hung:
                time.sleep(0.05)
                if log.stat().st_size != size:
                    size, since = log.stat().st_size, time.monotonic()
                hung = time.monotonic() - since > patience
        finally:
            # A test may have left workers behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        last = output.read()[-2000:].decode(errors="replace")
    if hung:
        return f"{last}\nhung for {patience:.0f} s"
    return f"{last}\nended with status {process.returncode}" if process.returncode else None


def inside(file, log):
    """Runs the cases of one test file that are not in the log yet, in this process; returns 0 on success."""
    sys.path.pop(0)  # the folder of this script
    import chainer
    import numpy
    import pytest

    # Only the log of an MPI program's first rank counts.
    rank = os.environ.get("OMPI_COMM_WORLD_RANK", "0")
    log = Path(log if rank == "0" else f"{log}.{rank}")
    source = next(folder / "source" for folder in log.parents if (folder / "source").is_dir())
    python = ".".join(map(str, sys.version_info[:3]))
    add(log, stack=f"Python {python}, NumPy {numpy.__version__}, Chainer {chainer.__version__}")
    seed()  # some cases have random parameters
    status = pytest.main(
        [
            *("-c", str(source / "setup.cfg"), "-o", "addopts=", "-m", MARKERS, "-q", "--tb=short"),
            *("-p", "no:cacheprovider", str(source / "tests" / file)),
        ],
        plugins=[Recorder(log)],
    )
    # pytest's status is 0 if every case passed, 1 if some failed, 2 if the file cannot be imported, 5 without cases.
    return 0 if status in (0, 1, 2, 5) else status


class Recorder:
    """A pytest plugin that logs the outcome of each case as soon as it is known."""

    def __init__(self, log):
        """Reads the cases that are already in the log."""
        self.log = log
        self.done = read(log)[0]
        self.reports = []

    def add(self, nodeid, outcome, why=""):
        """Logs an outcome, with the end of the traceback."""
        add(self.log, case=case_of(nodeid), outcome=outcome, why=why[-3000:])

    def pytest_collection_modifyitems(self, items):
        """Skips the cases that earlier processes ran."""
        items[:] = [item for item in items if case_of(item.nodeid) not in self.done]

    def pytest_collectreport(self, report):
        """Logs a file or class that cannot be collected."""
        if report.failed:
            self.add(report.nodeid, "failed", report.longreprtext)

    def pytest_runtest_logstart(self, nodeid):
        """Logs the start, so that a case that never ends is in the log."""
        self.reports = []
        self.add(nodeid, "started")

    def pytest_runtest_setup(self):
        """Seeds the random numbers, so that a case gets the same ones on both stacks."""
        seed()

    def pytest_runtest_logreport(self, report):
        """Keeps the outcome of the setup, the call or the teardown."""
        self.reports.append(report)

    def pytest_runtest_logfinish(self, nodeid):
        """Logs the worst outcome of the three phases."""
        worst = min(self.reports, key=lambda report: ("failed", "skipped", "passed").index(report.outcome))
        self.add(nodeid, worst.outcome, worst.longreprtext)


def seed():
    """Seeds all random number generators."""
    import random

    import numpy

    random.seed(0)
    numpy.random.seed(0)


def case_of(nodeid):
    """Returns pytest's name of a case without the file."""
    return nodeid.partition("::")[2] or "the file"


def compare(reference, subject, files):
    """Prints the counts of each folder and the cases that fail. Returns 1 if a case fails, else 0."""
    counts, failed = defaultdict(Counter), defaultdict(list)
    incomplete = 0
    for file in files:
        (ours, end), (theirs, other_end) = read(log_of(reference, file)), read(log_of(subject, file))
        if not end or not other_end:
            incomplete += 1
            continue
        if "the process" in theirs and "the process" not in ours:
            failed[file, last_line(theirs["the process"])].append("the process")
        names = partners(ours, theirs)
        for case, entry in ours.items():
            if entry["outcome"] != "passed":
                continue
            # If a file or its process failed as a whole, its cases have no entries.
            entries = (theirs.get(name) for name in (names.get(case), "the file", "the process"))
            found = next(filter(None, entries), {"outcome": "not run", "why": "not run"})
            if found["outcome"] != "passed":
                failed[file, last_line(found)].append(case)
            for folder in "/".join(file.split("/")[:2][: file.count("/")]), "all":
                counts[folder].update(["reference", "passed" if found["outcome"] == "passed" else "failed"])
    for title, folder in ("reference", reference), ("subject", subject):
        print(f"{title}: {', '.join(stacks(folder, files)) or 'not run'}")
    print(f"\n{'cases that pass on the reference':<42}{'':>10}{'pass too':>10}{'fail':>10}")
    for folder in sorted(counts, key=lambda folder: (folder == "all", folder)):
        print(f"{folder:<42}{''.join(f'{counts[folder][key]:>10,}' for key in ('reference', 'passed', 'failed'))}")
    if incomplete:
        print(f"\nnot compared, because they have not run on both stacks: {incomplete} test files")
    for (file, last), cases in failed.items():
        print(f"\nfailed, {len(cases)}: {file}\n    {last}")
        print("".join(f"    {case}\n" for case in cases[:3]), end="    ...\n" * (len(cases) > 3))
    return int(bool(failed))


def last_line(entry):
    """Returns the line of a failure that names the error."""
    return (entry["why"].strip().splitlines() or [entry["outcome"]])[-1]


def stacks(folder, files):
    """Returns the stacks that made the results in a folder, and the seconds that each took."""
    seconds = Counter()
    stack = "one that did not start"
    for file in files:
        with contextlib.suppress(FileNotFoundError), log_of(folder, file).open() as lines:
            for entry in map(json.loads, lines):
                stack = entry.get("stack") or stack
                seconds[stack] += entry.get("seconds", 0)
    return [f"{stack} in {number:.0f} s" for stack, number in seconds.items()]


def partners(ours, theirs):
    """Maps each case to its name on the other stack, where the text of parameter values may differ."""
    names = {case: case for case in ours if case in theirs}
    rest = defaultdict(list)
    for case in theirs:
        if case not in names:
            rest[without_values(case)].append(case)
    for case in ours:
        if case not in names and rest[without_values(case)]:
            names[case] = rest[without_values(case)].pop(0)
    return names


def without_values(case):
    """Replaces `_param_3_{dtype=float16, ...}` by `_param_3_`."""
    return re.sub(r"(_param_\d+_)\{.*?\}(?=_param_\d+_|::|$)", r"\1", case, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(inside(*sys.argv[2:]) if sys.argv[1:2] == ["inside"] else main())
