"""The Python code of the README and the pages prints the output that they show, and so do the pages' commands."""

from __future__ import annotations

import codeop
import doctest
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from docs.blocks import DOCS, PAGES, README, ROOT, blocks_of
from skips import not_installed

import rmsprop_graves

TEXTS = {"README.md": README, **PAGES}
# A word of a command or its output, and the modules that the command needs.
NEEDS = {"mpiexec": ["mpi4py"], "train_digits.py": ["sklearn", "matplotlib"], "numba": ["numba"], "h5py": ["h5py"]}
# A word of a page's Python code, and the module that the page needs. A block that needs another says so in a comment.
PYTHON_NEEDS = {"matplotlib": "matplotlib", '"numba"': "numba"}
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+|:::+) *\{?(?P<language>[\w:-]*)\}? *(?P<argument>.*)$", re.M)
END = "== end of the output"
ENVIRONMENT = {
    **os.environ,
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    "PYTHONUTF8": "1",
    # Open MPI needs a short path, and permission to run as root and on few cores.
    "TMPDIR": "/tmp",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def run(*command, folder, script):
    """Run a program in a folder, with a script as its input. Return its output and errors."""
    return subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=600,
    ).stdout


def commands_of(page):
    """Return a page's commands with their outputs and blocks, except blocks that are marked as not run."""
    commands = []
    for block in blocks_of(page, "console"):
        if "not run" in block.comment:
            assert re.fullmatch(r" not run: .+", block.comment), "a block that is not run has no reason"
            continue
        lines = block.text.splitlines()
        assert lines[0].startswith("$ "), "a console block begins with no command"
        for line in lines:
            if line.startswith("$ "):
                commands.append([line[2:], "", block])
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
    script = "".join(f"{command}\nprintf '\\n{END} %d\\n' $?\n" for command, _, _ in commands)
    outputs = re.findall(rf"(.*?)\n{END} (\d+)\n", run("sh", "-c", script, folder=folder, script=""), re.S)
    faults = [] if len(outputs) == len(commands) else [f"only {len(outputs)} of {len(commands)} commands were run"]
    for (command, expected, block), (output, status) in zip(commands, outputs):
        output = output.replace("optional arguments:", "options:")  # Python 3.8 and 3.9
        if expected and not block.is_shown(expected, output):
            faults.append(f"$ {command}\nshown:\n{expected}\ngot:\n{output}")
        elif status != "0" and "rror" not in expected:
            faults.append(f"$ {command}\nexit status {status}:\n{output}")
    return faults


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if commands_of(page)])
def test_commands_of_a_page_print_the_output_on_the_page(name, tmp_path):
    """The commands run in a folder with the examples. The interpreter's scripts come first on the PATH."""
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
    """The check also finds a command that fails or does not run."""
    faults = faults_of(f"Text.\n\n```console\n{block}\n```\n", tmp_path)
    assert faults == [] if fault is None else fault in faults[0]


def test_a_block_that_is_not_run_says_why():
    """The reason is in a comment before the block."""
    page = "<!-- not run: it takes hours -->\n\n```console\n$ python train.py\n```\n"
    assert commands_of(page) == []
    assert len(commands_of(page.partition("\n")[2])) == 1
    with pytest.raises(AssertionError, match="has no reason"):
        commands_of(page.replace(": it takes hours", ""))


@pytest.mark.parametrize("name", [name for name, page in TEXTS.items() if blocks_of(page, "console")])
def test_commands_of_a_page_can_be_pasted_into_a_shell(name):
    """These include the commands that no test runs."""
    for block in blocks_of(TEXTS[name], "console"):
        subprocess.run(["sh", "-n"], input=block.copied, encoding="utf-8", check=True)


def python_of(page):
    """Return a page's blocks of Python that this environment can run."""
    return [block for block in blocks_of(page, "pycon", "python") if can_run(block)]


def can_run(block):
    """Whether the module that a block needs is installed and, for CuPy, finds a GPU."""
    needed = re.fullmatch(r" needs: (\w+)", block.comment)
    if not needed or not find_spec(needed[1]):
        return not needed
    return needed[1] != "cupy" or importlib.import_module("cupy").is_available()


def faults_of_python(page, folder):
    """Paste a page's Python code into one interpreter, block after block; return the differences from the page."""
    code = python_of(page)
    pasted = ["import sys; sys.ps1 = sys.ps2 = ''", *(block.copied for block in code)]
    # One Enter after each block.
    script = "".join(f"{block}\nprint('\\n{END}')\n" for block in pasted)
    outputs = run(sys.executable, "-i", "-q", "-u", folder=folder, script=script).split(f"\n{END}\n")[1:-1]
    faults = [] if len(outputs) == len(code) else [f"only {len(outputs)} of {len(code)} blocks were run"]
    for block, output in zip(code, outputs):
        if not block.is_shown(block.output, output):
            faults.append(f"pasted:\n{block.copied}\nshown:\n{block.output}\ngot:\n{output}")
    return faults


@pytest.mark.parametrize("name", [name for name, page in TEXTS.items() if python_of(page)])
def test_python_of_a_page_prints_the_output_on_the_page_when_it_is_pasted(name, tmp_path):
    """The interpreter reads the blocks of a page in turn, line by line as Python up to 3.12 does."""
    text = str(python_of(TEXTS[name]))
    for word, module in PYTHON_NEEDS.items():
        if word in text:
            pytest.importorskip(module, reason=not_installed(module))
    faults = faults_of_python(TEXTS[name], tmp_path)
    assert not faults, "\n\n".join(faults)


@pytest.mark.parametrize("name", TEXTS)
def test_python_of_a_page_can_be_pasted_line_by_line(name):
    """This includes the blocks that need a module that is not installed."""
    for block in blocks_of(TEXTS[name], "pycon", "python"):
        lines = []
        for line in f"{block.copied}\n".split("\n"):
            lines.append(line)
            if codeop.compile_command("\n".join(lines)):
                lines = []
        assert lines == []


def lost_outputs(page):
    """Return the statements whose values Python 3.13 and newer do not show when their block is pasted."""
    return [
        example.source
        for block in blocks_of(page, "pycon")
        for example in doctest.DocTestParser().get_examples(block.text)[:-1]
        if example.want and not example.source.startswith(("print(", "for ", "with "))
    ]


@pytest.mark.parametrize("name", PAGES)
def test_python_of_a_page_prints_all_values_but_the_last_of_a_block(name):
    """Python 3.13 and newer run a pasted block as a whole: they show the last value only, and end at an exception."""
    assert lost_outputs(PAGES[name]) == []


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        (">>> for i in range(2):\n...     print(i)\n...\n0\n1\n>>> 1 + 1\n2", None),
        (">>> 1 / 0\nTraceback (most recent call last):\n    ...\nZeroDivisionError: division by zero", None),
        (">>> for i in range(2):\n...     print(i)\n0\n1\n>>> 1 + 1\n2", "SyntaxError"),
        (">>> def f():\n...     return 1\n>>> f()\n1", "SyntaxError"),
        (">>> 1 + 1\n3", "shown:\n3\ngot:\n2"),
        (">>> 1 + 1", "got:\n2"),
        (">>> x", "NameError"),
        (">>> exit()", "only 0 of 1"),
    ],
)
def test_the_check_finds_python_that_prints_something_else(block, fault, tmp_path):
    """The check also finds an indented block without an empty line before the next statement."""
    faults = faults_of_python(f"Text.\n\n```pycon\n{block}\n```\n", tmp_path)
    assert faults == [] if fault is None else fault in faults[0]


@pytest.mark.parametrize(("shown", "accepted"), [("2", True), ("3", False)])
def test_a_block_of_text_after_a_script_is_its_output(shown, accepted, tmp_path):
    """If a comment before the script gives the output, the comment counts."""
    page = f"```python\nprint(1 + 1)\n```\n\n```text\n{shown}\n```\n"
    assert (faults_of_python(page, tmp_path) == []) == accepted
    assert faults_of_python(f"<!-- prints: 2 -->\n{page}", tmp_path) == []


@pytest.mark.parametrize(
    ("comment", "shown", "accepted"),
    [
        ("numbers differ: a reason", "loss 2.75", True),
        ("numbers differ: a reason", "bits 2.75", False),
        ("", "loss 2.75", False),
    ],
)
def test_numbers_may_differ_after_a_comment_that_says_why(comment, shown, accepted, tmp_path):
    """Words may not differ."""
    page = f"<!-- {comment} -->\n```pycon\n>>> print('loss', 3.5)\n{shown}\n```\n"
    assert (faults_of_python(page, tmp_path) == []) == accepted


def test_the_check_finds_values_that_are_not_shown():
    """Python shows only the last value of a pasted block, so a page must print the values before it."""
    block = ">>> {}\n2\n>>> 1 + 1\n2\n"
    for statement, lost in [("1 + 1", ["1 + 1\n"]), ("print(1 + 1)", [])]:
        assert lost_outputs(f"```pycon\n{block.format(statement)}```\n") == lost


def unrun(page):
    """Return the opening lines of blocks of Python or commands that no test runs."""
    shells = {"bash", "console", "sh", "shell", "shell-session", "zsh"}
    pythons = {"doctest", "ipython", "ipython3", "py", "pycon", "python", "python3", "testcode", "testsetup"}
    return [
        block[0]
        for block in FENCE.finditer(page)
        if {block["language"], block["argument"].strip()} & (shells | pythons)
        and not re.fullmatch(r" *```+(console|pycon|python) *", block[0])
    ]


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_a_page_is_run_by_a_test(name):
    """Blocks of Python are marked pycon or python, and blocks of commands are marked console."""
    assert unrun(PAGES[name]) == []
    # A forge shows MyST's comments as text, and no test finds `not run` in them.
    assert re.findall(r"^% .*", PAGES[name], re.M) == []
    for opening in ("```py", "~~~ pycon", ":::{code-block} python", "```{code} sh", "```{doctest}", "```{console}"):
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


def test_commands_of_the_readme_that_ask_the_launcher_run():
    """Each option of the launcher that the README uses exits with status 0. Other tests cover the other commands."""
    options = set(re.findall(r"python -m rmsprop_graves (--[a-z]+)", README))
    assert "--info" in options
    for option in options:
        subprocess.run([sys.executable, "-m", "rmsprop_graves", option], capture_output=True, check=True)


def test_signatures_in_the_reference_are_those_of_the_methods():
    """The reference spells out the signatures of methods that are inherited from Chainer's classes."""
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
