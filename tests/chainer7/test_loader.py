"""Importing Chainer gives the repaired modules, and changes nothing else."""

from __future__ import annotations

import compileall
import importlib.util
import inspect
import re
import shutil
import sys
import traceback

import numpy
import pytest
from interpreter import run_python

from rmsprop_graves._chainer7.repairs import REPAIRS, repairs_of


def test_a_repaired_module_shows_its_own_source_and_lines():
    """inspect and tracebacks show Chainer's file and the failing line, whether or not a repair changed it."""
    module = importlib.import_module("chainer.functions.array.as_strided")
    assert "np.sctypes['float']" in inspect.getsource(module.AsStridedGrad.forward)
    node = module.AsStridedGrad(None, (1,), (1,), 0)
    try:
        node.forward((numpy.ones(1, "i4"),))
    except TypeError:
        frame = traceback.extract_tb(sys.exc_info()[2])[-1]
    assert frame.filename == module.__file__
    assert frame.line == "raise TypeError('Only float is supported for back propagation')"
    lines = inspect.getsource(module).splitlines()
    repaired = inspect.getsource(module)
    for repair in repairs_of(module.__name__):
        repaired = repair.apply(repaired)
    changed = [old.strip() for old, new in zip(lines, repaired.splitlines()) if "longdouble" in new]
    assert changed == ["if gy.dtype not in np.sctypes['float']:"]


def test_numpy_and_the_warning_filters_are_unchanged():
    """This holds after this package, Chainer and chainer.testing have been imported."""
    run_python("""
        import sys, warnings, numpy
        names, filters = set(dir(numpy)), list(warnings.filters)
        import rmsprop_graves
        assert warnings.filters == filters
        assert set(dir(numpy)) == names
        from rmsprop_graves import RMSpropGraves
        import chainer.testing
        # A submodule of NumPy that Chainer imports becomes an attribute, with or without this package.
        added = {name for name in set(dir(numpy)) - names if f"numpy.{name}" not in sys.modules}
        assert not added, added
        for name in ("float", "int", "sctypes", "distutils"):
            assert (name in names) == (name in dir(numpy)), name
    """)


def test_missing_modules_stay_missing_for_other_code():
    """Other code finds no pkg_resources or numpy.distutils unless setuptools or NumPy provides it."""
    run_python("""
        import sys
        import os, rmsprop_graves
        from rmsprop_graves import RMSpropGraves
        folder = os.path.dirname(rmsprop_graves.__file__)
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(folder):
                assert name.startswith("rmsprop_graves"), name
    """)


def test_chainers_bytecode_cache_is_neither_used_nor_written(tmp_path):
    """A program that imports Chainer without this package must not get a repaired module from the cache."""
    run_python("""
        import os, sys
        sys.dont_write_bytecode = False
        import rmsprop_graves
        import chainer.functions.array.as_strided as module
        path = module.__spec__.cached
        if os.path.exists(path):
            with open(path, "rb") as cache:
                assert b"longdouble" not in cache.read()
    """)


def test_importing_this_package_alone_does_not_import_chainer():
    """A script can still set CUDA_VISIBLE_DEVICES after this import, which loads only a few small modules."""
    run_python("""
        import sys
        import __future__, ast, contextlib, importlib.abc, importlib.machinery, importlib.util, typing
        class Entry(typing.NamedTuple):
            name: str

        before = set(sys.modules)
        import rmsprop_graves
        added = set(sys.modules) - before
        ours = {name for name in added if name.partition(".")[0] == "rmsprop_graves"}
        assert ours == {
            "rmsprop_graves",
            "rmsprop_graves._take_over",
            *(f"rmsprop_graves._chainer7{name}" for name in ("", ".loader", ".processes", ".repairs")),
        }, ours
        # The finder needs the standard library's modules that are imported above, and no others.
        assert added == ours, added - ours
    """)


def test_chainer_first_works_where_chainer_can_be_imported_alone():
    """A Chainer that was imported before this package is used unchanged."""
    run_python("""
        try:
            import chainer
        except Exception:
            chainer = None
        from rmsprop_graves import RMSpropGraves
        import chainer as again
        assert chainer is None or chainer is again
        RMSpropGraves().setup(again.links.Linear(1, 1))
    """)


@pytest.mark.parametrize("before", ["import sys", "import rmsprop_graves"])
@pytest.mark.parametrize("package", ["chainer", "chainermn"])
def test_a_failed_import_of_chainer_is_recovered(package, before):
    """A failed import leaves submodules in sys.modules, which must not count as complete."""
    run_python(f"""
        {before}
        import sys

        class Break:
            def find_spec(self, name, path=None, target=None):
                if name == "chainer._environment_check":
                    raise RuntimeError("as on Python 3.12")

        sys.meta_path.insert(0, Break())
        try:
            import {package}
        except Exception:  # at Break, or earlier if Chainer cannot be imported alone
            del sys.meta_path[0]
        else:
            raise AssertionError("the import was to fail")
        stale = sys.modules["chainer.variable"]
        assert "chainer" not in sys.modules
        from rmsprop_graves import RMSpropGraves
        import {package}, chainer
        assert chainer.variable is not stale
        assert isinstance(chainer.Parameter(), chainer.variable.Variable)
        RMSpropGraves().setup(chainer.links.Linear(1, 1))
    """)


def test_a_missing_chainer_is_one_error_with_the_install_command(tmp_path):
    """The error says what is missing and how to install it, without a traceback through ten modules."""
    _, error = run_python(
        """
        import sys

        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "chainer":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Hide())
        import importlib.util
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, package=None: None if name == "chainer" else find(name, package)
        import rmsprop_graves
        """,
        expect=1,
    )
    assert "ImportError: rmsprop_graves needs Chainer 7, which is not installed. To install it:" in error
    assert 'pip install --no-build-isolation "chainer>=7.0,<8"' in error
    assert "During handling" not in error


def test_chainer_needs_no_setuptools_of_any_version():
    """Chainer needs none of the modules that setuptools provided either, and its import gives no warning."""
    run_python(
        """
        import sys

        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in ("setuptools", "pkg_resources", "distutils") or name == "numpy.distutils":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Hide())
        from rmsprop_graves import RMSpropGraves
        import chainer.testing, chainermn
        RMSpropGraves().setup(chainer.links.Linear(1, 1))
        """,
        "-W",
        "error",
    )


def test_the_slowest_part_of_importing_chainer_is_left_out():
    """pkg_resources and numpy.distutils took a fifth of the time."""
    run_python("""
        import sys
        from rmsprop_graves import RMSpropGraves
        slow = {"pkg_resources", "setuptools", "numpy.distutils"} & set(sys.modules)
        assert not slow, slow
    """)


def test_repaired_bytecode_is_cached_beside_chainers_own(tmp_path):
    """The cache is written once and then read. Its name depends on the repairs. A changed source makes it stale."""
    chainer = importlib.util.find_spec("chainer").submodule_search_locations[0]
    shutil.copytree(chainer, tmp_path / "chainer", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
        import sys
        sys.dont_write_bytecode = False
        from rmsprop_graves._chainer7 import loader
        compiled = []
        original = loader._RepairingLoader.source_to_code
        loader._RepairingLoader.source_to_code = lambda self, *a, **k: (
            compiled.append(self.name), original(self, *a, **k))[1]
        import chainer
        summary = chainer.reporter.Summary()
        print(len(compiled), "chainer.reporter" in compiled, chainer.__file__)
    """
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONPYCACHEPREFIX": str(tmp_path / "cache")}
    first, second = (run_python(code, **environment)[0].split() for _ in range(2))
    assert int(first[0]) > 5
    assert first[1:] == ["True", str(tmp_path / "chainer" / "__init__.py")]
    assert second[:2] == ["0", "False"]
    (cached,) = (tmp_path / "cache").rglob("reporter*repaired-*.pyc")
    assert b"_numpy1" in cached.read_bytes()
    reporter = tmp_path / "chainer" / "reporter.py"
    reporter.write_text(reporter.read_text() + "\n# another version\n")
    assert run_python(code, **environment)[0].split()[:2] == ["1", "True"]


@pytest.mark.parametrize("kind", ["bytecode alone", "a zip file"])
def test_a_chainer_without_sources_is_refused(tmp_path, kind):
    """A module that cannot be repaired is not imported."""
    chainer = importlib.util.find_spec("chainer").submodule_search_locations[0]
    folder = tmp_path / "folder"
    shutil.copytree(chainer, folder / "chainer", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder
    if kind == "a zip file":
        path = shutil.make_archive(str(tmp_path / "chainer"), "zip", folder)
    else:
        compileall.compile_dir(folder, quiet=2, legacy=True, workers=1)
        for source in folder.rglob("*.py"):
            source.unlink()
    _, error = run_python("import rmsprop_graves, chainer", expect=1, PYTHONPATH=str(path))
    assert re.search("ImportError: rmsprop_graves repairs chainer[a-z_.]* in its source, and found only ", error)
    assert "install Chainer as a folder of .py files" in error


def test_a_repair_is_left_out_without_the_module_that_it_needs():
    """The repair of Caffe's protobuf file needs a module that only newer protobufs have."""
    repair = next(repair for repair in REPAIRS if repair.only_with)
    assert repairs_of("chainer.links.caffe.protobuf3.caffe_pb2") == (
        [repair] if importlib.util.find_spec(repair.only_with) else []
    )
    code = f"""
        import sys
        sys.modules["google"] = None
        from rmsprop_graves._chainer7.repairs import REPAIRS, repairs_of
        assert repairs_of({repair.modules!r}) == []
    """
    run_python(code)
