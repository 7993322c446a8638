"""The package as it is installed."""

from __future__ import annotations

from importlib import metadata

import pytest
from interpreter import run_python

import rmsprop_graves


def test_the_public_names_are_those_documented():
    """And each is found by name, by dir() and by a star import; another is an AttributeError that names it."""
    namespace = {}
    exec("from rmsprop_graves import *", namespace)
    names = {"RMSpropGraves", "RMSpropGravesRule", "install_in_chainer", "load_npz"}
    assert names == set(rmsprop_graves.__all__) == namespace.keys() - {"__builtins__"}
    assert set(rmsprop_graves.__all__) <= set(dir(rmsprop_graves))
    with pytest.raises(AttributeError, match="module 'rmsprop_graves' has no attribute 'nothing'"):
        _ = rmsprop_graves.nothing


def test_the_installed_distribution_is_the_package_with_its_types_and_no_tests():
    """What pip installs is the built wheel."""
    try:
        distribution = metadata.distribution("rmsprop-graves")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed but found through PYTHONPATH")
    assert distribution.version == rmsprop_graves.__version__
    files = {str(file) for file in distribution.files}
    assert "rmsprop_graves/py.typed" in files
    assert {file.partition("/")[0] for file in files if ".dist-info" not in file} == {"rmsprop_graves"}


def test_kernels_can_be_asked_for_as_the_readme_does():
    """By the name of the package alone, before anything else of it was used."""
    code = """
        import rmsprop_graves
        rmsprop_graves.kernels.use_on_cpu("numpy")
        print(rmsprop_graves.kernels.on_cpu().__name__)
    """
    assert run_python(code)[0] == "rmsprop_graves.kernels.numpy\n"
