"""Chainer made importable: what is repaired works, and nothing else is touched."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import traceback

import chainer
import numpy
import pytest
from interpreter import run_python

from rmsprop_graves import _chainer, _pkg_resources

# What is repaired works


@pytest.mark.parametrize(("mode", "align_corners"), [("bilinear", True), ("bilinear", False), ("nearest", False)])
def test_resize_images_works(mode, align_corners):
    """Its indices were computed in numpy.float, which is gone; enlarging by one is the identity."""
    x = numpy.random.RandomState(0).standard_normal((1, 2, 3, 4)).astype("f4")
    same = chainer.functions.resize_images(x, (3, 4), mode=mode, align_corners=align_corners)
    numpy.testing.assert_allclose(same.array, x, rtol=1e-6)
    larger = chainer.functions.resize_images(x, (6, 8), mode=mode, align_corners=align_corners)
    assert larger.shape == (1, 2, 6, 8)
    assert larger.array.min() >= x.min()
    assert larger.array.max() <= x.max()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_as_strided_and_its_backward_work(dtype):
    """A sliding window of two: inner elements are seen twice, so their gradient is two."""
    x = chainer.Variable(numpy.arange(5, dtype=dtype))
    y = chainer.functions.as_strided(x, (4, 2), (1, 1), 0)
    numpy.testing.assert_array_equal(y.array, [[0, 1], [1, 2], [2, 3], [3, 4]])
    y.grad = numpy.ones_like(y.array)
    y.backward()
    numpy.testing.assert_array_equal(x.grad, numpy.array([1, 2, 2, 2, 1], dtype))


def test_categorical_log_prob_works():
    """The logarithm of each row's own probability."""
    p = numpy.array([[0.25, 0.75], [0.5, 0.5]], "f4")
    log_p = chainer.distributions.Categorical(p).log_prob(numpy.array([1, 0], "i4"))
    numpy.testing.assert_allclose(log_p.array, numpy.log([0.75, 0.5]), rtol=1e-6)


def test_the_iterator_of_chainermn_hands_out_the_data():
    """Master and slave, joined by a communicator that is a queue: the size arrives as an array of one element."""
    iterators = importlib.import_module("chainermn.iterators.multi_node_iterator")

    class Communicator:
        size = 1

        def __init__(self):
            self.sent = []

        def bcast(self, value, root):
            if value is not None:
                self.sent.append(value)
                return value
            return self.sent.pop(0)

        bcast_obj = bcast

    communicator = Communicator()
    dataset = [numpy.full(2, i, "f4") for i in range(4)]
    iterator = chainer.iterators.SerialIterator(dataset, 2, repeat=False, shuffle=False)
    master = iterators._MultiNodeIteratorMaster(iterator, communicator, 0)
    slave = iterators._MultiNodeIteratorSlave(communicator, 0)
    assert (slave.dataset_size, type(slave.dataset_size)) == (4, int)
    for _ in range(2):
        numpy.testing.assert_array_equal(master.__next__(), slave.__next__())


def test_chainers_version_check_answers_as_pkg_resources_did():
    """Installed in the version, in another, not at all; under a name that is spelled another way."""
    version = numpy.__version__
    assert [found.version for found in _pkg_resources.require(f"numpy=={version}", "chainer")] == [
        version,
        chainer.__version__,
    ]
    assert _pkg_resources.get_distribution("NumPy").version == version
    with pytest.raises(_pkg_resources.VersionConflict, match=r"numpy<1\.0 is required"):
        _pkg_resources.WorkingSet().require("numpy<1.0")
    with pytest.raises(_pkg_resources.DistributionNotFound, match="no-such-thing is not installed"):
        _pkg_resources.require("no-such-thing")


def test_chainer_still_warns_of_a_cupy_that_it_does_not_know(monkeypatch):
    """Its environment check runs whole, with the stand-in under it."""
    check = importlib.import_module("chainer._environment_check")
    asked = []

    def require(requirement):
        asked.append(requirement)
        if requirement.startswith("cupy>"):
            raise _pkg_resources.VersionConflict(requirement)
        raise _pkg_resources.DistributionNotFound(requirement)

    monkeypatch.setattr(_pkg_resources, "require", require)
    monkeypatch.setattr(_pkg_resources, "get_distribution", lambda name: _pkg_resources.metadata.distribution("numpy"))
    with pytest.warns(UserWarning, match=r"CuPy \(cupy\) version .* may not be compatible"):
        check.check()
    assert any(requirement.startswith("ideep4py") for requirement in asked)


def test_chainers_check_on_macos_finds_no_accelerate(monkeypatch):
    """It asked numpy.distutils, which is gone, for a library that no NumPy from 1.22 on is built with."""
    check = importlib.import_module("chainer._environment_check")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert check._check_osx_numpy_backend() is None


def test_chainers_testing_module_can_be_imported():
    """It decorates tests by what is installed."""
    testing = importlib.import_module("chainer.testing")
    importlib.import_module("chainer.testing.doctest_helper")
    assert "skip" not in repr(testing.with_requires("numpy>=1.0"))
    decorated = testing.with_requires("numpy<1.0")(lambda: None)
    assert decorated.__unittest_skip__


# Nothing else is touched


def test_every_repair_names_an_expression_that_is_there():
    """A repair that matches nothing would be dead: each is found in the installed Chainer's source."""
    for name, replacements in _chainer._REPAIRS.items():
        spec = importlib.util.find_spec(name)
        source = spec.loader.get_data(spec.origin)
        for old, new in replacements.items():
            before = ast.parse(source)
            after = _chainer._Repair({old: new}).visit(ast.parse(source))
            assert ast.dump(before) != ast.dump(after), (name, old)


def test_a_repaired_module_shows_its_own_source_and_lines():
    """In inspect and in tracebacks: the file is Chainer's, and the line is the one that failed, repaired or not."""
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
    repaired = [
        node
        for node in ast.walk(
            _chainer._Repair(_chainer._REPAIRS[module.__name__]).visit(ast.parse(inspect.getsource(module)))
        )
        if isinstance(node, ast.Attribute) and node.attr == "longdouble"
    ]
    assert [lines[node.lineno - 1].strip() for node in repaired] == ["if gy.dtype not in np.sctypes['float']:"]


def test_numpy_and_the_warning_filters_are_left_as_they_were():
    """After importing this package, Chainer, and what it repairs."""
    run_python("""
        import sys, warnings, numpy
        names, filters = set(dir(numpy)), list(warnings.filters)
        import rmsprop_graves
        assert warnings.filters == filters
        assert set(dir(numpy)) == names
        from rmsprop_graves import RMSpropGraves
        import chainer.testing
        # A submodule that Chainer imports is an attribute of its package, as it was without us.
        added = {name for name in set(dir(numpy)) - names if f"numpy.{name}" not in sys.modules}
        assert not added, added
        for name in ("float", "int", "sctypes", "distutils"):
            assert (name in names) == (name in dir(numpy)), name
    """)


def test_no_module_stands_in_for_one_that_is_not_there():
    """Nobody else finds a pkg_resources or a numpy.distutils that setuptools or NumPy did not bring."""
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
    """Someone who imports Chainer without this package must not get a repaired module from the cache."""
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
    """So that a script may still set CUDA_VISIBLE_DEVICES; and it costs next to nothing."""
    run_python("""
        import sys
        import __future__, ast, importlib.abc, importlib.machinery, importlib.util, typing
        before = set(sys.modules)
        import rmsprop_graves
        added = set(sys.modules) - before
        ours = {name for name in added if name.partition(".")[0] == "rmsprop_graves"}
        assert ours == {"rmsprop_graves", "rmsprop_graves._chainer"}, ours
        # Beside what the finder is made of, imported above, it takes nothing from anywhere.
        assert added == ours, added - ours
    """)


def test_chainer_first_works_where_chainer_can_be_imported_alone():
    """The other order: a Chainer that is there already is used as it is."""
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


@pytest.mark.parametrize("package", ["chainer", "chainermn"])
def test_a_failed_import_of_chainer_is_recovered(package, tmp_path):
    """Half of it stays behind in sys.modules, and is not taken for whole."""
    run_python(f"""
        import sys

        class Break:
            def find_spec(self, name, path=None, target=None):
                if name == "chainer._environment_check":
                    raise RuntimeError("as on Python 3.12")

        sys.meta_path.insert(0, Break())
        try:
            import {package}
        except Exception:  # there, or earlier where Chainer cannot be imported alone
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


def test_a_missing_chainer_is_one_clear_error_with_the_command(tmp_path):
    """No traceback of ten imports: what is missing and how it is installed."""
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
    """Nor what came and went with it; and importing it warns of nothing."""
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
    """pkg_resources and numpy.distutils took a fifth of it; what takes their place is in the standard library."""
    run_python("""
        import sys
        from rmsprop_graves import RMSpropGraves
        slow = {"pkg_resources", "setuptools", "numpy.distutils"} & set(sys.modules)
        assert not slow, slow
    """)
