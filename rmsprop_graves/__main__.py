"""python -m rmsprop_graves SCRIPT [ARGS]: runs an unmodified Chainer script with this optimizer."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from typing import Any

import rmsprop_graves
from rmsprop_graves import _take_over, kernels
from rmsprop_graves._chainer7 import launch
from rmsprop_graves._chainer7.loader import make_importable

_USAGE = """\
%(prog)s SCRIPT [ARGS ...]
       %(prog)s -m MODULE [ARGS ...]
       %(prog)s -c CODE [ARGS ...]
       %(prog)s - [ARGS ...] < SCRIPT
       %(prog)s --info"""
_DESCRIPTION = """\
Run an unmodified Chainer program as python would, with two differences:
Chainer works on today's Python and NumPy, and
chainer.optimizers.RMSpropGraves is this package's optimizer."""


def main() -> None:
    """Runs the program that the command line names, or prints the requested information."""
    parser = argparse.ArgumentParser(
        prog="python -m rmsprop_graves",
        usage=_USAGE,
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-m", action="store_true", help="run a module, as python -m does")
    parser.add_argument("-c", action="store_true", help="run code, as python -c does")
    parser.add_argument("--info", action="store_true", help="print versions, devices and the kernel of each device")
    parser.add_argument("--version", action="version", version=f"%(prog)s {rmsprop_graves.__version__}")

    arguments = sys.argv[1:]
    # Without arguments, the program is read from standard input.
    first = arguments[0] if arguments else "-"
    if first in ("-m", "-c") and len(arguments) == 1:
        parser.error(f"argument expected after {first}")
    elif first in ("-", "--") or first[:2] in ("-m", "-c") or first[:1] != "-":
        _run(arguments)
    else:
        _, unknown = parser.parse_known_args(arguments)
        if unknown:
            parser.error(
                f"unrecognized arguments: {' '.join(unknown)}; options of the script come after it, and options of "
                "python before -m"
            )
        print(_info())


def _run(arguments: list[str]) -> None:
    try:
        make_importable()
    except ImportError as error:
        sys.exit(str(error))
    with launch.own_process() if _is_own_process() else launch.borrowed_process():
        _take_over.launch()
        launch.run(arguments)


def _is_own_process() -> bool:
    """Whether `python -m rmsprop_graves` started this process, rather than a call of runpy in a running one."""
    names = []
    frame: Any = sys._getframe()
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names == ["_is_own_process", "_run", "main", "<module>", "_run_code", "_run_module_as_main"]


def _info() -> str:
    # Imported here, because at the top it would hide a program's own module `platform`.
    import platform

    import numpy

    chainer, cupy = _chainer_and_cupy()
    is_usable = not isinstance(cupy, Exception)
    lines = {
        "rmsprop_graves": rmsprop_graves.__version__,
        "Python": f"{platform.python_version()}, {sys.executable}{_supported_pythons()}",
        "NumPy": numpy.__version__,
        "Chainer": chainer,
        "CuPy": cupy.__version__ if is_usable else _why_no_cupy(cupy),
        "Numba": _version_of("numba"),
        "@numpy": f"{platform.machine()}, stepped by {_on_cpu()}",
    }
    if is_usable:
        runtime = cupy.cuda.runtime
        try:
            for device in range(runtime.getDeviceCount()):
                name = runtime.getDeviceProperties(device)["name"].decode()
                lines[f"@cupy:{device}"] = f"{name}, stepped by {_on_gpu()}"
        except runtime.CUDARuntimeError as error:
            lines["@cupy"] = f"no device: {_first_line(error)}"
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items())


def _chainer_and_cupy() -> tuple[str, Any]:
    """Returns Chainer's version, or why it cannot be imported; and CuPy, or the exception that its import raised."""
    with warnings.catch_warnings():
        # Chainer warns if CuPy is missing or incomplete; `_info` prints that instead.
        warnings.simplefilter("ignore")
        try:
            import chainer
            from chainer.backends import cuda

            return chainer.__version__, cuda.cupy if cuda.available else cuda._resolution_error
        except (Exception, SystemExit) as error:
            why = f"{_version_of('chainer')}, cannot be imported: {type(error).__name__}: {_first_line(error)}"
        try:
            return why, importlib.import_module("cupy")
        except Exception as error:
            return why, error


def _supported_pythons() -> str:
    from importlib import metadata

    try:
        classifiers = metadata.metadata("rmsprop-graves").get_all("Classifier") or []
    except metadata.PackageNotFoundError:
        return ""
    versions = [classifier.rpartition(" ")[2] for classifier in classifiers if " :: 3." in classifier]
    return f"; supported: {versions[0]} to {versions[-1]}" if versions else ""


def _on_cpu() -> str:
    try:
        name, threads = kernels.on_cpu().__name__, kernels.get_num_threads()
    except Exception as error:
        return f"nothing: {_first_line(error)}"
    # The NumPy kernel uses one thread.
    return f"{name}, on {threads} thread{'s' * (threads > 1)}" if name.endswith(".numba") else name


def _on_gpu() -> str:
    try:
        return kernels.on_gpu().__name__
    except Exception as error:
        return f"nothing: {_first_line(error)}"


def _why_no_cupy(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
        return "not installed; for a GPU install cupy-cuda12x or cupy-cuda13x"
    # Chainer imports parts of CuPy that need more of CUDA's libraries than `import cupy` does.
    return f"none usable: {_first_line(error)}; install CUDA's libraries, for example with 'cupy-cuda13x[ctk]'"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _version_of(distribution: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
