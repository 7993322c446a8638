"""Imports Chainer's own modules with the repairs that today's Python and NumPy need.

Chainer 7.8.1 is the last release. The modules that `repairs` lists are compiled from their installed source with a few
expressions replaced. Line numbers stay the same, so tracebacks and `inspect.getsource` are right.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Callable, Sequence

from rmsprop_graves._chainer7.repairs import repairs_of

_INSTALL_COMMAND = (
    'python -m pip install -U "setuptools<81" wheel && python -m pip install --no-build-isolation "chainer>=7.0,<8"'
)


class _RepairingLoader(SourceFileLoader):
    """Compiles the repaired source, and caches its bytecode beside Chainer's own under another name."""

    def exec_module(self, module: ModuleType) -> None:
        from rmsprop_graves._chainer7 import files, numpy1, workers

        # Replacements call functions of these modules.
        module.__dict__.update(_numpy1=numpy1, _workers=workers, _files=files)
        super().exec_module(module)

    def source_to_code(self, data: Any, path: Any, *more: Any, **options: Any) -> CodeType:  # type: ignore[override]
        source = importlib.util.decode_source(data)
        for repair in repairs_of(self.name):
            source = repair.apply(source)
        code: CodeType = super().source_to_code(source.encode(), path, *more, **options)
        return code

    def get_data(self, path: str) -> bytes:
        return super().get_data(self._own(path))

    def set_data(self, path: str, data: Any, **options: Any) -> None:
        super().set_data(self._own(path), data, **options)

    def _own(self, path: str) -> str:
        # The usual name is for the bytecode of the unrepaired source.
        if not path.endswith(".pyc"):
            return path
        repairs = importlib.util.source_hash(repr(repairs_of(self.name)).encode()).hex()
        return f"{path[:-4]}.repaired-{repairs}.pyc"


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in ("chainer", "chainermn"):
            # A failed import leaves submodules behind, which the next import would take for complete.
            for name in [name for name in sys.modules if name.startswith(fullname + ".")]:
                del sys.modules[name]
        repairs = repairs_of(fullname)
        if not (repairs or fullname in _calls):
            return None
        # Any finder may find the module, for example the finder of an editable installation.
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return None
        # Check `chainer` too, which is imported first and may need no repair itself.
        if (repairs or fullname == "chainer") and not isinstance(spec.loader, SourceFileLoader):
            raise ImportError(
                f"rmsprop_graves repairs {fullname} in its source, and found only {spec.origin}: install "
                f"Chainer as a folder of .py files. To install it:\n  {_INSTALL_COMMAND}",
                name=fullname,
            )
        if repairs:
            spec.loader = _RepairingLoader(fullname, spec.loader.path)  # type: ignore[attr-defined]
        # Before Python 3.10 the loader of a zip file has no such method.
        if fullname in _calls and hasattr(spec.loader, "exec_module"):
            _call_after(spec.loader, fullname)
        return spec


def _call_after(loader: Any, name: str) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        _calls[name]()

    loader.exec_module = exec_module


_finder = _Finder()
# Chainer has an entry from the start, because one thread may set its call while another one imports Chainer.
_calls: dict[str, Callable[[], None]] = {"chainer": lambda: None}


def make_importable() -> None:
    """Makes `import chainer` and `import chainermn` work from now on, even if an import has failed before.

    Raises:
        ImportError: Chainer is not installed.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    spec = importlib.util.find_spec("chainer")
    # Any folder named chainer on the path is a namespace package, which has no origin.
    if spec is None or spec.origin is None:
        raise ImportError(
            f"rmsprop_graves needs Chainer 7, which is not installed. To install it:\n  {_INSTALL_COMMAND}"
        )


def when_imported(name: str, call: Callable[[], None]) -> None:
    """Calls `call` after every import of the module, and at once if the module has been imported."""
    _calls[name] = call
    if is_half_imported(sys.modules.get(name)):
        # Wait for the thread that imports it. If that fails, a later import makes the call.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if name in sys.modules:
        call()


def is_half_imported(module: ModuleType | None) -> bool:
    """Whether a module's code is still being executed, perhaps by another thread."""
    return getattr(getattr(module, "__spec__", None), "_initializing", False)
