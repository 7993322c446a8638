"""The commands of the documentation and the Python code of the README run and print what is shown.

`make docs` runs the Python code of the documentation, by Sphinx.
"""

from __future__ import annotations

import doctest
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from interpreter import run_python
from skips import not_installed

import rmsprop_graves

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if path.relative_to(DOCS).parts[0] not in ("_build", "examples", "figures")
}
# A word of a command or its output, and the modules that the command needs.
NEEDS = {"mpiexec": ["mpi4py"], "train_digits.py": ["sklearn", "matplotlib"], "numba": ["numba"], "h5py": ["h5py"]}
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+|:::+) *\{?(?P<language>[\w:-]*)\}? *(?P<argument>.*)$", re.M)
CONSOLE = re.compile(
    r"(?:^ *%(?P<comment>[^\n]*)\n\s*)?^(?P<indent> *)```+console\n(?P<text>.*?)^(?P=indent)```+ *$", re.M | re.S
)
END = "== end of the output of a command"


def commands_of(page):
    """Return a page's commands with their outputs, except blocks that are marked as not run."""
    commands = []
    for block in CONSOLE.finditer(page):
        if "not run" in (block["comment"] or ""):
            assert re.fullmatch(r" not run: .+", block["comment"]), "a block that is not run has no reason"
            continue
        lines = textwrap.dedent(block["text"]).splitlines()
        assert lines[0].startswith("$ "), "a console block begins with no command"
        for line in lines:
            if line.startswith("$ "):
                commands.append([line[2:], ""])
            elif line.startswith("> ") and not commands[-1][1]:
                commands[-1][0] += "\n" + line[2:]
            else:
                commands[-1][1] += line + "\n"
    return commands


def faults_of(page, folder):
    """Run a page's commands in a folder, one after another; return the differences from the page."""
    (folder / "docs").mkdir()
    shutil.copytree(DOCS / "examples", folder / "docs" / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    commands = commands_of(page)
    script = "".join(f"{command}\nprintf '\\n{END} %d\\n' $?\n" for command, _ in commands)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        # Open MPI needs a short path, and permission to run as root and on few cores.
        "TMPDIR": "/tmp",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=600,
    )
    outputs = re.findall(rf"(.*?)\n{END} (\d+)\n", done.stdout, re.S)
    faults = [] if len(outputs) == len(commands) else [f"only {len(outputs)} of {len(commands)} commands were run"]
    for (command, expected), (output, status) in zip(commands, outputs):
        # Python 3.8 and 3.9 have another title for options, and escape codes that move the cursor are invisible.
        output = re.sub(r"\x1b\[\d*[A-Z]", "", output.replace("optional arguments:", "options:"))
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if expected and not doctest.OutputChecker().check_output(expected.strip(), output.strip(), flags):
            faults.append(f"$ {command}\nshown:\n{expected}\ngot:\n{output}")
        elif status != "0" and "rror" not in expected:
            faults.append(f"$ {command}\nexit status {status}:\n{output}")
    return faults


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if commands_of(page)])
def test_commands_of_a_page_print_the_output_on_the_page(name, tmp_path):
    """They run in a folder with the examples; the interpreter's scripts come first on the PATH."""
    text = str(commands_of(PAGES[name]))
    for word, modules in NEEDS.items():
        for module in modules if word in text else ():
            pytest.importorskip(module, reason=not_installed(module))
    faults = faults_of(PAGES[name], tmp_path)
    assert not faults, "\n\n".join(faults)


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ("$ echo one two\none   ...\n$ cd docs\n$ ls\nexamples\n", None),
        ("$ echo one\\\n> two\nonetwo", None),
        ("$ cat nothing\ncat: nothing: ... file or directory", "exit status 1"),
        ("$ python -c 'x'\nTraceback...\nNameError: ...", None),
        ("$ echo one\ntwo\n", "shown:\ntwo\n"),
        ("$ echo one\n$ false", "exit status 1"),
        ("$ exit 0", "only 0 of 1"),
    ],
)
def test_the_check_finds_a_command_that_prints_something_else(block, fault, tmp_path):
    """It also finds a command that fails or does not run."""
    faults = faults_of(f"Text.\n\n```console\n{block}\n```\n", tmp_path)
    assert faults == [] if fault is None else fault in faults[0]


def test_a_block_that_is_not_run_says_why():
    """The reason is in a comment before it."""
    page = "% not run: it takes hours\n\n```console\n$ python train.py\n```\n"
    assert commands_of(page) == []
    assert commands_of(page.partition("\n")[2]) == [["python train.py", ""]]
    with pytest.raises(AssertionError, match="has no reason"):
        commands_of(page.replace(": it takes hours", ""))


def unrun(page):
    """Return the opening lines of blocks of Python or commands that no test runs."""
    shells = {"bash", "sh", "shell", "shell-session", "zsh"}
    pythons = {"python", "python3", "py", "pycon", "ipython", "ipython3"}
    blocks = FENCE.finditer(page)
    words = ({block["language"], block["argument"].strip()} for block in FENCE.finditer(page))
    return [block[0] for block, either in zip(blocks, words) if either & (shells | pythons)]


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_a_page_is_run_by_a_test(name):
    """Python is in blocks of doctest or testcode, and commands are in blocks of console."""
    assert unrun(PAGES[name]) == []
    for opening in ("```python", "~~~ py", "  ````pycon", ":::{code-block} python", "```{code} bash"):
        assert unrun(f"{PAGES[name]}\n{opening}\n1\n") == [opening]


@pytest.mark.parametrize("name", PAGES)
def test_every_page_has_content(name):
    """A page is more than a title and a list of pages."""
    text = re.sub(r"^```.*?^```$|^#.*?$", "", PAGES[name], flags=re.M | re.S)
    assert text.strip()


def test_every_make_target_in_the_text_exists():
    """The text is the README and the documentation."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z-]+)\b(?= *[`#\n])", "\n".join([README, *PAGES.values()])))
    assert "test" in named
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.M))


README_PYTHON = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)


@pytest.mark.parametrize("number", range(len(README_PYTHON)))
def test_python_of_the_readme_runs(number):
    """Each block runs after the earlier blocks, with a model defined."""
    code = "import rmsprop_graves, chainer\nmodel = chainer.links.Linear(3, 2)\n"
    if "comm" in README_PYTHON[number]:
        pytest.importorskip("mpi4py", reason=not_installed("mpi4py"))
        code += "import chainermn\ncomm = chainermn.create_communicator('naive')\n"
    code += "".join(README_PYTHON[: number + 1])
    run_python(code, TMPDIR="/tmp", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def test_commands_of_the_readme_that_ask_the_launcher_run():
    """Other tests cover the other commands, which install, train or test."""
    options = set(re.findall(r"python -m rmsprop_graves (--[a-z]+)", README))
    assert "--info" in options
    for option in options:
        subprocess.run([sys.executable, "-m", "rmsprop_graves", option], capture_output=True, check=True)


def test_signatures_in_the_reference_are_those_of_the_methods():
    """The reference contains signatures of methods that are inherited from Chainer's classes."""
    pages = "".join(page for name, page in PAGES.items() if name.startswith("reference/"))
    written = re.findall(r"\{py:method\} (\w+)\.(\w+)\((.*)\)$", pages, re.M)
    assert len(written) > 10
    for cls, method, arguments in written:
        signature = inspect.signature(getattr(getattr(rmsprop_graves, cls), method))
        own = [one.replace(annotation=one.empty) for one in list(signature.parameters.values())[1:]]
        own = signature.replace(parameters=own, return_annotation=signature.empty)
        assert str(own) == f"({arguments})", f"{cls}.{method}"


def test_a_missing_or_superfluous_entry_in_the_reference_fails_the_build(tmp_path, monkeypatch):
    """The error contains each name."""
    pytest.importorskip("sphinx", reason=not_installed("sphinx"))
    monkeypatch.syspath_prepend(str(DOCS))
    completeness = importlib.import_module("completeness")
    (tmp_path / "conf.py").write_text("extensions = ['completeness']\n", encoding="utf-8")
    page = "Title\n=====\n\n.. py:class:: rmsprop_graves.RMSpropGraves\n\n   .. py:method:: ascend()\n"
    (tmp_path / "index.rst").write_text(page, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "--fail-on-warning", "-b", "dummy", str(tmp_path), "out"]
    environment = {**os.environ, "PYTHONPATH": str(DOCS)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode != 0
    missing = completeness.python_names() - {"rmsprop_graves.RMSpropGraves"}
    missing |= {f"the option {name} of {completeness.LAUNCHER}" for name in ("--help", "-h", "--info", "-m")}
    missing |= {f"the environment variable {name}" for name in ("RMSPROP_GRAVES_CPU_KERNEL", "OMP_NUM_THREADS")}
    for name in missing:
        assert f"{name} is public and has no entry in the reference" in done.stderr
    assert "rmsprop_graves.RMSpropGraves.ascend has an entry in the reference and does not exist" in done.stderr
