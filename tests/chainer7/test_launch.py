"""python -m rmsprop_graves runs programs as python itself does, with this optimizer in Chainer."""

from __future__ import annotations

import os
import py_compile
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from chainer.backends import cuda
from interpreter import run, write
from skips import not_installed

import rmsprop_graves
from rmsprop_graves import __main__, kernels
from rmsprop_graves.kernels import cupy as cupy_kernel

LAUNCHER = ["-m", "rmsprop_graves"]


def assert_as_under_python(*arguments, cwd, options=(), stdin=""):
    """Asserts that output, errors and exit status are the same with and without the launcher, and returns them."""
    launched = run(*LAUNCHER, *arguments, cwd=cwd, options=options, stdin=stdin)
    plain = run(*arguments, cwd=cwd, options=options, stdin=stdin)
    assert (launched.stdout, launched.stderr, launched.returncode) == (plain.stdout, plain.stderr, plain.returncode)
    return launched


WHO_AM_I = """
    import sys
    print(sys.argv)
    print(sys.path)
    print(sorted(name for name in globals()))
    for name in ("__name__", "__file__", "__package__", "__doc__", "__cached__"):
        print(name, globals().get(name))
    print(__spec__ and (__spec__.name, __spec__.origin), type(__loader__).__name__)
    print(sys.modules["__main__"].__dict__ is globals(), type(__builtins__))
    import atexit
    atexit.register(lambda: print(sorted(globals())))
"""
WHO_AM_I_AT_COLUMN_0 = textwrap.dedent(WHO_AM_I)


@pytest.mark.parametrize("arguments", [[], ["a", "-m", "--info", "--", "-h", "b c"]], ids=["none", "like options"])
def test_a_script_sees_the_same_as_under_python(tmp_path, arguments):
    """sys.argv, sys.path and every attribute of the main module are the same, in the script's folder and elsewhere."""
    write(tmp_path, "program/script.py", WHO_AM_I)
    assert_as_under_python("program/script.py", *arguments, cwd=tmp_path)
    assert_as_under_python("script.py", *arguments, cwd=tmp_path / "program")


@pytest.mark.parametrize("module", ["module", "package", "package.inside"])
def test_a_module_sees_the_same_as_under_python(tmp_path, module):
    """Cases: a module, a package with a __main__, and a module of a package that uses relative imports."""
    write(tmp_path, "module.py", WHO_AM_I)
    write(tmp_path, "package/__init__.py", "")
    write(tmp_path, "package/__main__.py", WHO_AM_I)
    write(tmp_path, "package/other.py", "value = 3")
    write(tmp_path, "package/inside.py", WHO_AM_I + "    from .other import value\n    print(value)\n")
    assert_as_under_python("-m", module, "a", "-m", cwd=tmp_path)
    assert_as_under_python(f"-m{module}", "a", cwd=tmp_path)


@pytest.mark.parametrize("arguments", [["-c", WHO_AM_I_AT_COLUMN_0, "a", "-c"], [f"-c{WHO_AM_I_AT_COLUMN_0}"]])
def test_code_on_the_command_line_sees_the_same_as_under_python(tmp_path, arguments):
    """The code is a separate argument, or attached to -c."""
    assert "__main__" in assert_as_under_python(*arguments, cwd=tmp_path).stdout


@pytest.mark.parametrize("arguments", [[], ["-"], ["-", "a", "-m"], ["--"], ["--", "-", "a"]])
def test_a_program_on_standard_input_sees_the_same_as_under_python(tmp_path, arguments):
    """Python and the launcher read the program if the argument is `-` or missing."""
    code = WHO_AM_I_AT_COLUMN_0 + "print(repr(sys.stdin.read()))\n"
    assert "<stdin>" in assert_as_under_python(*arguments, cwd=tmp_path, stdin=code).stdout


def test_a_closed_standard_input_is_an_empty_program(tmp_path):
    """sys.stdin is None if standard input is closed."""
    for arguments in ([], LAUNCHER):
        command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize(
    "path",
    ["./script.py", ".//script.py", "folder/../script.py", "link/../script.py", "--", "folder/", "link/.", "zip/"],
)
def test_a_path_is_not_normalized(tmp_path, path):
    """For example, `link/../script.py` lies beside the link's target, not beside the link."""
    write(tmp_path, "script.py", WHO_AM_I)
    write(tmp_path, "-script.py", WHO_AM_I)
    main = write(tmp_path, "folder/__main__.py", WHO_AM_I)
    write(tmp_path, "elsewhere/script.py", "print('elsewhere')" + WHO_AM_I_AT_COLUMN_0)
    write(tmp_path, "elsewhere/inner/__main__.py", WHO_AM_I)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "inner")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.write(main, "__main__.py")
    arguments = ["--", "-script.py"] if path == "--" else [path]
    assert_as_under_python(*arguments, "a", cwd=tmp_path)
    assert_as_under_python(*arguments[:-1], tmp_path / arguments[-1], cwd=tmp_path)


@pytest.mark.parametrize("name", ["script.pyc", "script"])
def test_bytecode_runs_as_under_python(tmp_path, name):
    """Bytecode is recognized by its suffix or its content; the bytecode of another Python is refused."""
    source = write(tmp_path, "source.py", WHO_AM_I)
    py_compile.compile(str(source), cfile=str(tmp_path / name), dfile="source.py", doraise=True)
    assert "Sourceless" in assert_as_under_python(name, "a", cwd=tmp_path).stdout
    (tmp_path / "old.pyc").write_bytes(b"\x03\xf3\r\n" + bytes(12))
    assert "Bad magic number" in assert_as_under_python("old.pyc", cwd=tmp_path).stderr


SESSION = """\
import pty, signal, sys
signal.alarm(60)
status = pty.spawn([sys.executable, *sys.argv[1:]])
sys.exit(status >> 8)
"""


def test_a_terminal_gets_an_interactive_session(tmp_path):
    """In the session, Chainer's optimizer is this project's."""
    pty = pytest.importorskip("pty", reason="there are no terminals of this kind on Windows")
    try:
        for descriptor in pty.openpty():
            os.close(descriptor)
    except OSError as error:
        pytest.skip(f"this machine has no terminals: {error}")
    typed = """\
import sys, chainer
print([sys.argv, sys.path[0], chainer.optimizers.RMSpropGraves.__module__])
sys.exit(3)
"""
    result = run("-c", SESSION, *LAUNCHER, cwd=tmp_path, stdin=typed)
    assert result.returncode == 3, result.stdout
    assert ">>> " in result.stdout
    assert "[[''], '', 'rmsprop_graves']" in result.stdout


def test_a_folder_and_a_zip_file_run_their_main(tmp_path):
    """Python accepts both in place of a script."""
    main = write(tmp_path, "folder/__main__.py", WHO_AM_I)
    assert "__main__" in assert_as_under_python("folder", "a", cwd=tmp_path).stdout
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.write(main, "__main__.py")
    assert_as_under_python("program.zip", "a", cwd=tmp_path)


def test_a_symbolic_link_puts_the_folder_of_its_target_on_the_path(tmp_path):
    """Python resolves the link of a script before it puts the script's folder on the path."""
    script = write(tmp_path, "program/script.py", WHO_AM_I)
    (tmp_path / "link.py").symlink_to(script)
    assert_as_under_python("link.py", cwd=tmp_path)


def test_isolated_mode_keeps_the_scripts_folder_off_the_path(tmp_path):
    """Under python -I this package is found only if it is installed."""
    write(tmp_path, "script.py", WHO_AM_I)
    installed = run("-c", "import rmsprop_graves", cwd=tmp_path, options=["-I"]).returncode == 0
    if not installed:
        pytest.skip("the package is not installed but found through PYTHONPATH, which -I ignores")
    assert_as_under_python("script.py", cwd=tmp_path, options=["-I"])


EXITS = {
    "end": "print('end')",
    "status": "import sys; sys.exit(3)",
    "message": "import sys; sys.exit('a message')",
    "error": "def f():\n    1 / 0\nf()",
    "chained error": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('x') from e",
    "syntax error": "a = \nb",
    "interrupt": "import atexit\natexit.register(print, 'bye')\nraise KeyboardInterrupt",
    "own hook": "import sys\nsys.excepthook = lambda *e: print(e[0], e[2].tb_lineno, e[1].__traceback__ is e[2])\n1/0",
    "atexit": "import atexit, sys\natexit.register(lambda: print(sys.modules['__main__'].__name__, sys.argv))",
    "error with atexit": "import atexit\natexit.register(lambda: print(sorted(globals())))\n1 / 0",
    "exit with atexit": "import atexit\natexit.register(lambda: print(sorted(globals())))\nraise SystemExit(2)",
    "not utf-8": "# coding: latin-1\nprint(len('\u00e9'))",
}


@pytest.mark.parametrize("how", EXITS)
def test_a_program_ends_as_under_python(tmp_path, how):
    """Output, exit status and traceback are the same for every kind of program; no frame of the launcher shows."""
    (tmp_path / "script.py").write_text(EXITS[how], encoding="utf-8")
    assert_as_under_python("script.py", cwd=tmp_path)
    if how != "syntax error":
        assert_as_under_python("-m", "script", cwd=tmp_path)
    # Python 3.8 applies this encoding comment to code on the command line; newer ones cannot seek back in a pipe.
    if how != "not utf-8":
        assert_as_under_python("-c", EXITS[how], cwd=tmp_path)
        assert_as_under_python("-", cwd=tmp_path, stdin=EXITS[how])


def test_a_traceback_shows_lines_of_command_line_code_if_pythons_does(tmp_path):
    """Python shows them since 3.13, and removes their common indentation since 3.14."""
    shown = assert_as_under_python("-c", "import inspect\ndef f():\n    1 / 0\nprint(inspect)\nf()", cwd=tmp_path)
    assert ("1 / 0\n" in shown.stderr) is (sys.version_info >= (3, 13))
    indented = assert_as_under_python("-c", "\n   print(1)\n   if 1:\n     1 / 0\n", cwd=tmp_path)
    assert ("IndentationError" in indented.stderr) is (sys.version_info < (3, 14))


def test_a_missing_program_is_reported_as_by_python(tmp_path):
    """Cases: a script, a module, a module of a package, a folder without a __main__."""
    (tmp_path / "empty").mkdir()
    for arguments in (["nothing.py"], ["-m", "nothing"], ["-m", "empty.nothing"], ["empty"]):
        result = assert_as_under_python(*arguments, cwd=tmp_path)
        assert result.returncode in (1, 2)
        assert "Traceback" not in result.stderr


@pytest.fixture
def _interruptible():
    """Enables SIGINT: a shell ignores it in background jobs, and their child processes inherit that."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_ends_a_program_as_under_python(tmp_path):
    """SIGINT ends the program by that signal, after its traceback and its exit handlers."""
    write(
        tmp_path,
        "script.py",
        """
        import atexit, time
        atexit.register(print, "bye", flush=True)
        print("ready", flush=True)
        for _ in range(600):
            time.sleep(0.1)
        """,
    )
    for launcher in (LAUNCHER, []):
        with subprocess.Popen(
            [sys.executable, *launcher, "script.py"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate()
        assert stdout == "bye\n"
        assert process.returncode == -signal.SIGINT
        assert stderr.rstrip().endswith("KeyboardInterrupt")
        assert "rmsprop_graves" not in stderr


CHAINER_SCRIPT = """
    import os, sys
    os.environ["CHAINER_SEED"] = "1"
    assert "chainer" not in sys.modules
    import chainer
    from chainer.optimizers import RMSpropGraves
    from chainer.optimizers.rmsprop_graves import RMSpropGraves as Original
    assert RMSpropGraves is chainer.optimizers.RMSpropGraves
    print(RMSpropGraves.__module__, Original.__module__, Original().create_update_rule().__module__)
    optimizer = RMSpropGraves(lr=0.5).setup(chainer.links.Linear(1, 1))
    print(optimizer)
"""


def test_an_unmodified_script_gets_this_optimizer_and_chainers_stays_available(tmp_path):
    """The script itself imports Chainer, so it can first set environment variables that Chainer reads at import."""
    write(tmp_path, "script.py", CHAINER_SCRIPT)
    for arguments in (["script.py"], ["-m", "script"]):
        result = run(*LAUNCHER, *arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        ours, chainers, chainers_rule, optimizer = result.stdout.replace("\n", " ", 1).split(maxsplit=3)
        assert ours == "rmsprop_graves"
        assert chainers == chainers_rule == "chainer.optimizers.rmsprop_graves"
        assert optimizer == "RMSpropGraves(lr=0.5, alpha=0.95, momentum=0.9, eps=0.0001)\n"


def test_a_private_module_that_is_imported_first_gets_this_optimizer_too(tmp_path):
    """The module imports Chainer before it is complete, and replacing Chainer's class needs the complete module."""
    write(
        tmp_path,
        "script.py",
        """
        from rmsprop_graves._update_rule import RMSpropGravesRule
        import chainer, rmsprop_graves
        print(chainer.optimizers.RMSpropGraves is rmsprop_graves.RMSpropGraves)
        """,
    )
    result = run(*LAUNCHER, "script.py", cwd=tmp_path)
    assert (result.stdout, result.returncode) == ("True\n", 0), result.stderr


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("fork", ["script.py"]),
        ("spawn", ["script.py"]),
        ("forkserver", ["script.py"]),
        ("spawn", ["-m", "script"]),
        ("forkserver", ["-m", "package"]),
    ],
)
def test_child_processes_have_this_optimizer_and_the_main_module(tmp_path, method, arguments):
    """A child, and a child of that child, has the main module's functions, sys.argv and this optimizer."""
    code = f"""
        import multiprocessing, sys, chainer

        def work(depth):
            print(depth, sys.argv[1:], __name__, chainer.optimizers.RMSpropGraves.__module__, flush=True)
            if depth:
                start(depth - 1)

        def start(depth):
            process = multiprocessing.get_context("{method}").Process(target=work, args=(depth,))
            process.start()
            process.join()
            assert process.exitcode == 0

        if __name__ == "__main__":
            start(1)
        """
    write(tmp_path, "script.py", code)
    # A child does not execute a package's __main__ again, so the functions are in another module of the package.
    write(tmp_path, "package/__init__.py", "")
    write(tmp_path, "package/work.py", code)
    write(tmp_path, "package/__main__.py", "from package.work import start\nstart(1)\n")
    result = run(*LAUNCHER, *arguments, "a", "b", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    main = {"fork": "__main__"}.get(method, "__mp_main__") if "package" not in arguments else "package.work"
    assert result.stdout.splitlines() == [f"{depth} ['a', 'b'] {main} rmsprop_graves" for depth in (1, 0)]


def test_pickled_objects_of_the_main_module_return_from_a_pool(tmp_path):
    """Instances of a class that the script defines reach a spawned worker and return."""
    write(
        tmp_path,
        "script.py",
        """
        import multiprocessing, chainer

        class Result:
            def __init__(self, value):
                self.value = value

        def square(result):
            return Result(result.value ** 2)

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results = pool.map(square, [Result(2), Result(3)])
            print([r.value for r in results], {type(r) is Result for r in results})
        """,
    )
    result = run(*LAUNCHER, "script.py", cwd=tmp_path)
    assert (result.stdout, result.returncode) == ("[4, 9] {True}\n", 0), result.stderr


HOST = """
    import os, runpy, sys

    class Main: pass

    def state():
        modules = [id(sys.modules.get(name)) for name in ("__main__", "__mp_main__")]
        return sys.argv, id(sys.path), list(sys.path), modules, sys.excepthook, dict(os.environ)

    sys.argv[1:] = ARGUMENTS
    before = state()
    try:
        runpy.run_module("rmsprop_graves", run_name="__main__", alter_sys=True)
    except BaseException as error:
        print("raised", repr(error))
    print("as before" if state() == before else (before, state()))
    print(__name__, Main.__module__)
"""
GUEST = """
import multiprocessing, sys
import neighbour
print(__name__, sys.argv, sys.path[0] == FOLDER, sys.modules["__main__"].__dict__ is globals())
sys.path.append("of the program's own")
sys.path = list(sys.path)
"""


@pytest.mark.parametrize(
    ("end", "raised"),
    [("", ""), ("sys.exit(3)", "raised SystemExit(3)\n"), ("1 / 0", "raised ZeroDivisionError('division by zero')\n")],
    ids=["end", "exit", "exception"],
)
@pytest.mark.parametrize("first", ["", "import multiprocessing"], ids=["", "with multiprocessing"])
def test_a_process_that_outlives_the_program_is_restored(tmp_path, first, end, raised):
    """A notebook is such a process. The caller gets the exception. sys.path and the main module are as before."""
    write(tmp_path, "program/neighbour.py", "")
    guest = GUEST.replace("FOLDER", repr(os.path.realpath(tmp_path / "program")))
    script = write(tmp_path, "program/script.py", guest + end)
    host = textwrap.dedent(HOST).replace("ARGUMENTS", repr([str(script), "a"]))
    write(tmp_path, "host/host.py", f"{first}\n{host}")
    for arguments in (["host/host.py"], ["-c", f"{first}\n{host}"]):
        result = run(*arguments, cwd=tmp_path)
        told = f"__main__ {[str(script), 'a']} True True\n"
        assert result.stdout == f"{told}{raised}as before\n__main__ __main__\n", result.stderr
        assert result.stderr == ""


def test_ipython_runs_the_launcher_and_goes_on(tmp_path):
    """%run -m runs a program, and then a second one that fails."""
    pytest.importorskip("IPython", reason=not_installed("IPython"))
    write(
        tmp_path,
        "script.py",
        """
        import chainer, sys
        print("in the program", chainer.optimizers.RMSpropGraves.__module__, sys.argv[1:])
        """,
    )
    write(tmp_path, "failing.py", "import numpy\nnumpy.no_such_name")
    code = """
        import sys
        before = (list(sys.path), sys.excepthook, sys.modules["__main__"], sys.argv)
        %run -m rmsprop_graves script.py a
        %run -m rmsprop_graves failing.py
        print("as before", before == (list(sys.path), sys.excepthook, sys.modules["__main__"], sys.argv))
        """
    session = write(tmp_path, "session.ipy", code)
    result = run("-m", "IPython", "--colors=NoColor", session, cwd=tmp_path)
    assert "in the program rmsprop_graves ['a']" in result.stdout, result.stderr
    assert "AttributeError" in result.stdout + result.stderr
    assert "as before True" in result.stdout


@pytest.fixture
def site_without_chainer(tmp_path):
    """Makes a folder of links to every package that is installed beside NumPy, except Chainer."""
    site = tmp_path / "site"
    site.mkdir()
    for entry in Path(numpy.__file__).parents[1].iterdir():
        if not entry.name.lower().startswith(("chainer", "rmsprop_graves", "__pycache__")):
            (site / entry.name).symlink_to(entry)
    (site / "rmsprop_graves").symlink_to(Path(rmsprop_graves.__file__).parent)
    return site


def run_on_site(site, *arguments, cwd):
    """Runs python with packages from one folder only."""
    command = [sys.executable, "-S", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


BROKEN = {
    "missing": ({}, "not installed, cannot be imported: ModuleNotFoundError: No module named 'chainer'"),
    "broken": (
        {
            "chainer/__init__.py": "raise OSError('libz.so is missing\\nand more')",
            "chainer-7.8.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: chainer\nVersion: 7.8.1\n",
        },
        "7.8.1, cannot be imported: OSError: libz.so is missing",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_info_and_version_work_without_chainer(site_without_chainer, tmp_path, how):
    """The line for Chainer says why it cannot be imported. No other line is missing."""
    files, line = BROKEN[how]
    for name, content in files.items():
        write(site_without_chainer, name, content)
    version = run_on_site(site_without_chainer, *LAUNCHER, "--version", cwd=tmp_path)
    assert version.stdout.endswith(f"{rmsprop_graves.__version__}\n"), version.stderr
    info = run_on_site(site_without_chainer, *LAUNCHER, "--info", cwd=tmp_path)
    assert (info.returncode, info.stderr) == (0, "")
    lines = dict(text.split(maxsplit=1) for text in info.stdout.splitlines())
    assert lines["Chainer"] == line
    whole = run(*LAUNCHER, "--info", cwd=tmp_path)
    assert lines.keys() >= dict(text.split(maxsplit=1) for text in whole.stdout.splitlines()).keys()


def test_a_program_without_chainer_ends_with_two_lines_that_say_so(site_without_chainer, tmp_path):
    """The exit status is 1."""
    write(tmp_path, "script.py", "print('run')")
    result = run_on_site(site_without_chainer, *LAUNCHER, "script.py", cwd=tmp_path)
    assert (result.stdout, result.returncode) == ("", 1)
    assert result.stderr.startswith("rmsprop_graves needs Chainer 7, which is not installed. To install it:\n")
    assert len(result.stderr.splitlines()) == 2


def test_info_names_versions_devices_and_kernels(monkeypatch, tmp_path):
    """A bug report needs all of these."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = run(*LAUNCHER, "--info", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if not line.startswith(" "))
    assert lines["rmsprop_graves"] == rmsprop_graves.__version__
    assert lines["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    import chainer

    assert lines["Chainer"] == chainer.__version__
    assert lines["NumPy"] == numpy.__version__
    kernel = kernels.on_cpu().__name__
    assert lines["@numpy"].endswith(f"stepped by {kernel}" + (", on 1 thread" if kernel.endswith("numba") else ""))
    assert {"CuPy", "Numba"} <= lines.keys()


def test_info_shows_why_a_kernel_cannot_be_used(monkeypatch, tmp_path):
    """--info is the command to find such a problem, so it must not fail."""
    monkeypatch.setenv("RMSPROP_GRAVES_CPU_KERNEL", "fortran")
    result = run(*LAUNCHER, "--info", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "stepped by nothing: the kernel on a CPU (RMSPROP_GRAVES_CPU_KERNEL) must be one of" in result.stdout


class Runtime:
    """A stand-in for cupy.cuda.runtime, with one GPU or without a driver."""

    class CUDARuntimeError(RuntimeError):
        """The error of CUDA's runtime."""

    def __init__(self, has_driver=True):
        self.has_driver = has_driver

    def getDeviceCount(self):  # noqa: N802  CuPy's name
        """Returns 1, or raises the error of a missing driver."""
        if not self.has_driver:
            raise self.CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
        return 1

    def getDeviceProperties(self, device):  # noqa: N802  CuPy's name
        """Returns the only property that --info prints."""
        return {"name": b"A GPU"}


@pytest.mark.parametrize(
    ("version", "has_driver", "line"),
    [
        ("14.0.0", True, "@cupy:0         A GPU, stepped by rmsprop_graves.kernels.cupy"),
        ("11.6.0", True, "@cupy:0         A GPU, stepped by nothing: the update on a GPU needs CuPy 12 or newer"),
        ("14.0.0", False, "@cupy           no device: cudaErrorInsufficientDriver"),
    ],
    ids=["usable", "too old", "no driver"],
)
def test_info_names_the_gpu_kernel_or_says_why_there_is_none(monkeypatch, version, has_driver, line):
    """In all cases Chainer itself can use CuPy."""
    cupy = SimpleNamespace(__version__=version, cuda=SimpleNamespace(runtime=Runtime(has_driver)))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(cuda, "available", True)
    monkeypatch.setattr(cuda, "cupy", cupy)
    monkeypatch.setattr(kernels, "on_gpu", kernels.on_gpu.__wrapped__)
    monkeypatch.setattr(cupy_kernel, "load_cupy", cupy_kernel.load_cupy.__wrapped__)
    assert line in __main__._info()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ModuleNotFoundError("No module named 'cupy'", name="cupy"), "not installed; for a GPU install cupy-cuda12x"),
        (RuntimeError('Failure finding "libcublas.so"\nin'), 'none usable: Failure finding "libcublas.so"; install'),
    ],
    ids=["missing", "without cuBLAS"],
)
def test_info_says_why_chainer_cannot_use_cupy_and_what_to_do(monkeypatch, error, line):
    """Chainer silently turns its GPU support off."""
    monkeypatch.setattr(cuda, "available", False)
    monkeypatch.setattr(cuda, "_resolution_error", error, raising=False)
    assert line in __main__._info()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m"], "after -m"),
        (["-c"], "after -c"),
        (["--nonsense"], "--nonsense"),
        (["--epoch", "2", "train.py"], "--epoch 2 train.py; options of the script come after it"),
        (["-u", "train.py"], "-u train.py; options of the script come after it, and options of python before -m"),
    ],
    ids=["-m alone", "-c alone", "unknown option", "option of the script", "option of python"],
)
def test_a_wrong_command_line_is_explained(tmp_path, arguments, message):
    """The message is argparse's, with the usage and exit status 2."""
    result = run(*LAUNCHER, *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("usage: python -m rmsprop_graves SCRIPT")
    assert message in result.stderr


def test_a_notebook_is_refused_with_the_ways_to_run_it(tmp_path):
    """Python runs some notebooks as an expression without effect, and fails at a `null` in others."""
    write(tmp_path, "train.ipynb", '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    result = run(*LAUNCHER, "train.ipynb", cwd=tmp_path)
    assert result.returncode == 1
    assert "train.ipynb is a notebook: open it with Jupyter and import rmsprop_graves" in result.stderr
    assert result.stderr.endswith("jupyter nbconvert --to script train.ipynb\n")


def test_help_and_version_are_printed(tmp_path):
    """Both go to standard output."""
    assert "Run an unmodified Chainer program as python would" in run(*LAUNCHER, "--help", cwd=tmp_path).stdout
    assert run(*LAUNCHER, "--version", cwd=tmp_path).stdout.endswith(f"{rmsprop_graves.__version__}\n")


def test_the_launched_program_trains_as_chainer_alone_would(tmp_path):
    """The output of a script is the same under the launcher and with Chainer's class put back."""
    code = """
        import chainer, numpy
        {}
        numpy.random.seed(0)
        model = chainer.links.Linear(3, 2)
        optimizer = chainer.optimizers.RMSpropGraves(1e-2).setup(model)
        optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(1.0))
        for _ in range(20):
            x = numpy.random.standard_normal((4, 3)).astype("f")
            optimizer.update(lambda: chainer.functions.sum(model(x) ** 2))
        print(type(optimizer).__module__, model.W.array.tobytes().hex(), model.b.array.tobytes().hex())
        """
    back = "chainer.optimizers.RMSpropGraves = chainer.optimizers.rmsprop_graves.RMSpropGraves"
    write(tmp_path, "ours.py", code.format(""))
    write(tmp_path, "chainers.py", code.format(back))
    ours, chainers = (run(*LAUNCHER, script, cwd=tmp_path) for script in ("ours.py", "chainers.py"))
    assert ours.stdout.split()[0] == "rmsprop_graves"
    assert chainers.stdout.split()[0] == "chainer.optimizers.rmsprop_graves"
    assert ours.stdout.split()[1:] == chainers.stdout.split()[1:]
