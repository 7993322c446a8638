"""Chainer's version checks with the stand-in for setuptools' pkg_resources."""

from __future__ import annotations

import importlib
import sys

import chainer
import numpy
import pytest

from rmsprop_graves._chainer7 import pkg_resources


def test_chainers_version_check_answers_as_pkg_resources_did():
    """Cases: the right version, a wrong one, no installation, and another spelling of the name."""
    version = numpy.__version__
    assert [found.version for found in pkg_resources.require(f"numpy=={version}", "chainer")] == [
        version,
        chainer.__version__,
    ]
    assert pkg_resources.get_distribution("NumPy").version == version
    with pytest.raises(pkg_resources.VersionConflict, match=r"numpy<1\.0 is required"):
        pkg_resources.WorkingSet().require("numpy<1.0")
    with pytest.raises(pkg_resources.DistributionNotFound, match="no-such-thing is not installed"):
        pkg_resources.require("no-such-thing")


def test_chainer_still_warns_of_an_unknown_cupy(monkeypatch):
    """Chainer's environment check runs unchanged on top of the stand-in."""
    check = importlib.import_module("chainer._environment_check")
    asked = []

    def require(requirement):
        asked.append(requirement)
        if requirement.startswith("cupy>"):
            raise pkg_resources.VersionConflict(requirement)
        raise pkg_resources.DistributionNotFound(requirement)

    monkeypatch.setattr(pkg_resources, "require", require)
    monkeypatch.setattr(pkg_resources, "get_distribution", lambda name: pkg_resources.metadata.distribution("numpy"))
    with pytest.warns(UserWarning, match=r"CuPy \(cupy\) version .* may not be compatible"):
        check.check()
    assert any(requirement.startswith("ideep4py") for requirement in asked)


def test_chainers_check_on_macos_finds_no_accelerate(monkeypatch):
    """Chainer looks for the old Accelerate library with numpy.distutils, which newer versions of NumPy do not have."""
    check = importlib.import_module("chainer._environment_check")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert check._check_osx_numpy_backend() is None


def test_chainers_testing_module_can_be_imported():
    """While it is imported, it asks which packages are installed."""
    testing = importlib.import_module("chainer.testing")
    importlib.import_module("chainer.testing.doctest_helper")
    assert "skip" not in repr(testing.with_requires("numpy>=1.0"))
    decorated = testing.with_requires("numpy<1.0")(lambda: None)
    assert decorated.__unittest_skip__
