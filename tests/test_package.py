"""The installed package and its public names."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
import sys
import typing
from importlib import metadata
from pathlib import Path

import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from interpreter import run_python

import rmsprop_graves
from rmsprop_graves import RMSpropGraves

ROOT = Path(__file__).resolve().parents[1]


def test_the_public_names_are_the_documented_names():
    """Attribute access, dir() and a star import find them. Any other name raises an AttributeError that names it."""
    namespace = {}
    exec("from rmsprop_graves import *", namespace)
    names = {"RMSpropGraves", "RMSpropGravesRule", "install_in_chainer", "load_hdf5", "load_npz"}
    assert names == set(rmsprop_graves.__all__) == namespace.keys() - {"__builtins__"}
    assert set(rmsprop_graves.__all__) <= set(dir(rmsprop_graves))
    with pytest.raises(AttributeError, match="module 'rmsprop_graves' has no attribute 'nothing'"):
        _ = rmsprop_graves.nothing


@pytest.mark.parametrize("name", rmsprop_graves.__all__)
def test_a_public_object_is_named_by_the_package(name):
    """Pickles, reprs and help show ``rmsprop_graves.NAME``, never the private module."""
    public = getattr(rmsprop_graves, name)
    assert (public.__module__, public.__qualname__) == ("rmsprop_graves", name)
    assert f"crmsprop_graves\n{name}\n".encode() in pickle.dumps(public, 2)
    assert pickle.loads(pickle.dumps(public)) is public
    if inspect.isclass(public):
        assert repr(public) == f"<class 'rmsprop_graves.{name}'>"


@pytest.mark.parametrize("name", rmsprop_graves.__all__)
def test_inspect_finds_the_source_of_a_public_object_or_nothing(name):
    """inspect looks for a class in the file of its ``__module__``. It must not return lines of something else."""
    public = getattr(rmsprop_graves, name)
    if inspect.isclass(public):
        with pytest.raises(OSError, match=r"could not find class definition|source code not available"):
            inspect.getsource(public)
        public = public.update
    assert inspect.getsource(public).lstrip().startswith(f"def {public.__name__}(")


@pytest.mark.skipif(sys.version_info < (3, 10), reason="Python 3.8 and 3.9 cannot evaluate int | None")
@pytest.mark.parametrize("name", rmsprop_graves.__all__)
def test_type_hints_of_a_public_object_can_be_evaluated(name):
    """A class's hints are evaluated with the names of its ``__module__``."""
    public = getattr(rmsprop_graves, name)
    typing.get_type_hints(public)
    if inspect.isclass(public):
        for method in (public.__init__, public.update):
            assert typing.get_type_hints(method)["return"] is type(None)


@pytest.fixture
def distribution():
    """Return the installed distribution."""
    try:
        distribution = metadata.distribution("rmsprop-graves")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed, as by make test, but found through PYTHONPATH")
    if '"editable": true' in (distribution.read_text("direct_url.json") or ""):
        pytest.skip("an editable installation has no files of the package")
    return distribution


def test_the_installed_distribution_is_the_package_with_its_types_and_no_tests(distribution):
    """Its files are the package, py.typed included, and nothing else."""
    assert distribution.version == rmsprop_graves.__version__
    files = {str(file) for file in distribution.files}
    assert "rmsprop_graves/py.typed" in files
    assert {file.partition("/")[0] for file in files if ".dist-info" not in file} == {"rmsprop_graves"}


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("CHANGELOG.md", r"^## \[(\d\S*)\]"),
        ("CITATION.cff", r"^version: (\S+)$"),
        ("docs/license.md", r"^  version = \{(\S+)\},$"),
        ("docs/install.md", r"^rmsprop_graves  (\S+)$"),
        ("docs/tutorial.md", r"^rmsprop_graves  (\S+)$"),
        ("docs/reference/launcher.md", r"^rmsprop_graves  (\S+)$"),
    ],
)
def test_every_page_names_the_version_of_the_package(file, pattern):
    found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    assert found.group(1) == rmsprop_graves.__version__


def test_the_description_for_a_package_index_needs_no_files_of_the_repository(distribution):
    """The README has relative links and a picture; the description has neither."""
    description = distribution.read_text("METADATA").partition("\n\n")[2]
    links = re.findall(r"\]\((.*?)\)", description)
    assert "https://arxiv.org/abs/1308.0850" in links
    assert [link for link in links if not link.startswith("https://")] == []
    assert "<img" not in description


def test_the_kernels_are_an_attribute_of_the_package():
    """They can be used without another import."""
    code = """
        import rmsprop_graves
        rmsprop_graves.kernels.use_on_cpu("numpy")
        print(rmsprop_graves.kernels.on_cpu().__name__)
    """
    assert run_python(code)[0] == "rmsprop_graves.kernels.numpy\n"


def test_class_is_found_by_the_name_in_a_configuration():
    """Programs look it up as an attribute or by a dotted path, and pass keyword or positional arguments."""
    config = {"target": "rmsprop_graves.RMSpropGraves", "lr": 2.5e-4, "alpha": 0.9, "momentum": 0.0, "eps": 1e-2}
    module, name = config.pop("target").rsplit(".", 1)
    optimizer_class = getattr(importlib.import_module(module), name)
    assert optimizer_class is RMSpropGraves
    optimizer = optimizer_class(**config)
    assert {key: getattr(optimizer, key) for key in config} == config
    in_order = optimizer_class(*config.values())
    assert {key: getattr(in_order, key) for key in config} == config
    assert name in dir(rmsprop_graves)


def test_class_has_the_name_of_chainers_and_a_summary():
    """Programs find an optimizer by its name, in upper or lower case, and show the docstring's first sentence."""
    assert RMSpropGraves.__name__ == RMSpropGraves.__qualname__ == ChainerRMSpropGraves.__name__ == "RMSpropGraves"
    by_lower_name = {name.lower(): getattr(rmsprop_graves, name) for name in rmsprop_graves.__all__}
    assert by_lower_name["rmspropgraves"] is RMSpropGraves
    sentence = RMSpropGraves.__doc__.split(".")[0]
    assert sentence.startswith("Alex Graves's RMSprop")
    assert len(sentence.split()) > 4
    assert sentence == sentence.strip()
    assert "\n" not in sentence
