"""python -m rmsprop_graves SCRIPT [ARGS]: an unmodified Chainer script on this optimizer."""

from __future__ import annotations

import argparse
import platform
import sys
import warnings
from importlib import metadata

import rmsprop_graves
from rmsprop_graves import _launch, kernels

_DESCRIPTION = """\
Runs a Chainer program as python would, unmodified: Chainer is importable on today's Python and
NumPy, and chainer.optimizers.RMSpropGraves is this project's."""


def main() -> None:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m rmsprop_graves",
        usage="%(prog)s SCRIPT [ARGS ...]\n       %(prog)s -m MODULE [ARGS ...]\n       %(prog)s --info",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-m", dest="is_module", action="store_true", help="run a module, as python -m does")
    parser.add_argument("--info", action="store_true", help="print versions, devices and which kernel serves which")
    parser.add_argument("--version", action="version", version=f"%(prog)s {rmsprop_graves.__version__}")
    parser.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()

    if options.info:
        print(_info())
    elif not options.program:
        parser.error("a MODULE is required after -m" if options.is_module else "a SCRIPT is required")
    elif options.is_module:
        _launch.run_module(options.program[0], options.program[1:])
    else:
        _launch.run_script(options.program[0], options.program[1:])


def _info() -> str:
    with warnings.catch_warnings():
        # Chainer warns of what CuPy lacks; what is there is printed below.
        warnings.simplefilter("ignore")
        import chainer
        import numpy
        from chainer.backends import cuda

    lines = {
        "rmsprop_graves": rmsprop_graves.__version__,
        "Python": f"{platform.python_version()}, {sys.executable}",
        "NumPy": numpy.__version__,
        "Chainer": chainer.__version__,
        "CuPy": cuda.cupy.__version__ if cuda.available else _why_no_cupy(cuda._resolution_error),
        "Numba": _version_of("numba"),
        "@numpy": f"{platform.machine()}, stepped by {_on_cpu()}",
    }
    if cuda.available:
        runtime = cuda.cupy.cuda.runtime
        try:
            for device in range(runtime.getDeviceCount()):
                name = runtime.getDeviceProperties(device)["name"].decode()
                lines[f"@cupy:{device}"] = f"{name}, stepped by {_on_gpu()}"
        except runtime.CUDARuntimeError as error:
            lines["@cupy"] = f"no device: {_first_line(error)}"
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items())


def _on_cpu() -> str:
    try:
        name, threads = kernels.on_cpu().__name__, kernels.get_num_threads()
    except Exception as error:
        return f"nothing: {_first_line(error)}"
    # NumPy's is not divided among threads.
    return f"{name}, on {threads} thread{'s' * (threads > 1)}" if name.endswith(".numba") else name


def _on_gpu() -> str:
    try:
        return kernels.on_gpu().__name__
    except Exception as error:
        return f"nothing: {_first_line(error)}"


def _why_no_cupy(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
        return "not installed; for a GPU install cupy-cuda12x or cupy-cuda13x"
    # Chainer needs more of CUDA's libraries than CuPy does to be imported.
    return f"none usable: {_first_line(error)}; install CUDA's libraries, such as with 'cupy-cuda13x[ctk]'"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
