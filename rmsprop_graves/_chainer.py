"""Makes Chainer 7 importable on Pythons, NumPys and setuptools that it was never told about.

Chainer 7.8.1 is the last release. A few of its modules hold expressions that have stopped working since;
those modules, and no others, are compiled from their installed source with the expressions of `_REPAIRS`
replaced in the syntax tree. Lines keep their numbers, so tracebacks and `inspect.getsource` stay right.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, Callable, Sequence

# module -> {source that no longer works: source that means the same}
_REPAIRS: dict[str, dict[str, str]] = {
    # pkg_resources went with setuptools 82, numpy.distutils with Python 3.12 and setuptools 74.
    "chainer._environment_check": {
        "import pkg_resources": "from rmsprop_graves import _pkg_resources as pkg_resources",
        "import numpy.distutils.system_info": "import numpy",
        # A macOS query for the old Accelerate library, which NumPy has refused to build with since 1.20.
        "numpy.distutils.system_info.get_info('blas_opt')": "{}",
    },
    "chainer.testing.helper": {
        "import pkg_resources": "from rmsprop_graves import _pkg_resources as pkg_resources",
    },
    "chainer.testing.doctest_helper": {
        "import pkg_resources": "from rmsprop_graves import _pkg_resources as pkg_resources",
    },
    # np.sctypes went with NumPy 2.0.
    "chainer.functions.array.as_strided": {
        "np.sctypes['int']": "(np.int8, np.int16, np.int32, np.int64)",
        "np.sctypes['float']": "(np.float16, np.float32, np.float64, np.longdouble)",
    },
    # numpy.float went with NumPy 1.24.
    "chainer.functions.array.resize_images": {"numpy.float": "float"},
    # meshgrid returns a tuple since NumPy 2.0; it is added to a list.
    "chainer.distributions.categorical": {
        "numpy.meshgrid(*(range(i) for i in self.batch_shape), indexing='ij')": (
            "list(numpy.meshgrid(*(range(i) for i in self.batch_shape), indexing='ij'))"
        ),
    },
    # int() of an array of one dimension fails since NumPy 2.4, and here leaves the other ranks waiting.
    "chainermn.iterators.multi_node_iterator": {"int(_size)": "int(_size.item())"},
}

_INSTALL_COMMAND = (
    'python -m pip install -U "setuptools<81" wheel && python -m pip install --no-build-isolation "chainer>=7.0,<8"'
)


class _Repair(ast.NodeTransformer):
    def __init__(self, replacements: dict[str, str]) -> None:
        pairs = [(_parse(old), _parse(new)) for old, new in replacements.items()]
        self._replacements = {ast.dump(old): new for old, new in pairs}
        self._types = tuple({type(old) for old, _ in pairs})

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, self._types):
            new = self._replacements.get(ast.dump(node))
            if new is not None:
                for part in ast.walk(new):
                    ast.copy_location(part, node)
                return new
        return self.generic_visit(node)


def _parse(source: str) -> ast.AST:
    statement = ast.parse(source).body[0]
    return statement.value if isinstance(statement, ast.Expr) else statement


class _RepairingLoader(SourceFileLoader):
    # The interpreter's bytecode cache belongs to the unrepaired source, so it is neither read nor written.
    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        tree: Any = _Repair(_REPAIRS[fullname]).visit(ast.parse(self.get_data(path), path))
        code: CodeType = compile(tree, path, "exec", dont_inherit=True)
        return code


class _CallingLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        _calls[module.__name__]()


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _REPAIRS and fullname not in _calls:
            return None
        # Whoever else finds it, such as the finder of an editable installation.
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        loader = _RepairingLoader if fullname in _REPAIRS else _CallingLoader
        spec.loader = loader(fullname, spec.loader.path)
        return spec


_finder = _Finder()
_calls: dict[str, Callable[[], None]] = {}


def make_importable() -> None:
    """Lets `import chainer` and `import chainermn` work from here on, also where one has failed before.

    Raises:
        ImportError: Chainer is not installed.
    """
    for package in ("chainer", "chainermn"):
        if package not in sys.modules:
            # What a failed import leaves behind would be taken for whole by the next one.
            for name in [name for name in sys.modules if name.startswith(package + ".")]:
                del sys.modules[name]
    spec = importlib.util.find_spec("chainer")
    # A folder of that name that merely lies about is found as a package without an origin.
    if spec is None or spec.origin is None:
        raise ImportError(
            f"rmsprop_graves needs Chainer 7, which is not installed. To install it:\n  {_INSTALL_COMMAND}"
        )
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def when_imported(name: str, call: Callable[[], None]) -> None:
    """Calls `call` whenever the module of that name has been imported from now on."""
    _calls[name] = call
