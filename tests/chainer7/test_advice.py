"""The line of advice after an old program's traceback, and the documentation page made from the same table."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import re
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version
from skips import not_installed

import rmsprop_graves  # noqa: F401
from rmsprop_graves._chainer7 import advice
from rmsprop_graves._chainer7.advice import ADVICE

ROOT = Path(__file__).resolve().parents[2]

ARRAYS = "import numpy as np; a, b, rows = np.zeros(3), np.ones(1), [[1], [1, 2]]\n"
CHAINER = """\
import chainer, chainer.functions as F, chainer.links as L, numpy as np
x, optimizer = chainer.Variable(np.ones((2, 1), "f")), chainer.optimizers.SGD()
class Model(chainer.Chain): pass
model = Model()
"""
PLOT = "import matplotlib; matplotlib.use('Agg')\nfrom matplotlib import pyplot as plt\nfig = plt.figure()\n"
IMAGE = "from PIL import Image, ImageDraw, ImageFont\ndraw = ImageDraw.Draw(Image.new('L', (3, 3)))\n"
WORK = """\
import multiprocessing
def start():
    process = multiprocessing.get_context("spawn").Process(target=lambda: None)
    process.start()
start()
"""
# Programs that raise the exception of an entry. The key is the beginning of the entry's `old`.
# An entry about a removed name or module needs no program here: the tests read the name or import the module.
HABITS = {
    "`float(a)` and `int(a)`": [ARRAYS + "float(b)", ARRAYS + "int(np.ones((1, 1)))"],
    "`a[i] = b`": [ARRAYS + "a[0] = b", ARRAYS + "a[1:][0] = np.ones((1, 1))"],
    "`'%d' % a`": [ARRAYS + "'%d' % b"],
    "`numpy.random.permutation": [ARRAYS + "np.random.permutation([([1, 2], 1), ([1], 2)])"],
    "`numpy.array` of rows": [ARRAYS + "np.array(rows)"],
    "an integer outside": [ARRAYS + "np.uint8(-1)", ARRAYS + "np.array([1], np.uint8) + 300"],
    "`numpy.array(a, copy=False)`": [ARRAYS + "np.array([1.0, 2], 'f', copy=False)"],
    "`array.itemset`": [ARRAYS + "a.itemset(0, 1)", ARRAYS + "class C: pass\nC.a = a\nC.a.itemset(0, 1)"],
    "`array.newbyteorder`": [ARRAYS + "a.newbyteorder()"],
    "`array.ptp`": [ARRAYS + "a.ptp()"],
    "`array.tostring`": [ARRAYS + "a.tostring()"],
    "`numpy.fromstring`": [ARRAYS + "np.fromstring(b'1234', dtype=np.uint8)"],
    "`numpy.vstack`": [ARRAYS + "np.vstack(x for x in [a])", ARRAYS + "np.stack(map(np.asarray, [a]))"],
    "`numpy.load`": [ARRAYS + "np.save('a.npy', np.array([None]))\nnp.load('a.npy')"],
    "`optimizer.zero_grads`": [CHAINER + "optimizer.zero_grads()"],
    "`model.collect_parameters`": [CHAINER + "optimizer.setup(model.collect_parameters())"],
    "`optimizer.weight_decay`": [CHAINER + "optimizer.weight_decay(0.1)"],
    "`optimizer.clip_grads`": [CHAINER + "optimizer.clip_grads(10)"],
    "`chainer.functions.caffe`": ["from chainer.functions import caffe", "import chainer.functions.caffe"],
    "`wscale=` of a link": [CHAINER + "L.Linear(1, 1, wscale=2)", CHAINER + "L.Convolution2D(1, 1, 1, wscale=2)"],
    "`wscale=` of `chainer.links.MLP": [CHAINER + "L.MLPConvolution2D(1, (1,), 1, wscale=1)"],
    "`bias=`": [CHAINER + "L.Linear(1, 1, bias=2)", CHAINER + "L.Convolution2D(1, 1, 1, bias=2)"],
    "`train=`": [CHAINER + "F.dropout(x, train=True)"],
    "`test=`": [CHAINER + "L.BatchNormalization(1)(x, test=True)"],
    "a third argument of `F.dropout`": [CHAINER + "F.dropout(F.relu(x), 0.5, False)"],
    "`volatile=`": [CHAINER + "chainer.Variable(x.array, volatile=True)"],
    "`variable.volatile`": [CHAINER + "x.volatile"],
    "`use_cudnn=` of a function": [
        CHAINER + "F.relu(x, use_cudnn=False)",
        CHAINER + "L.BatchNormalization(1, use_cudnn=1)",
    ],
    "`use_cudnn=` of an N": [CHAINER + "L.NStepLSTM(1, 1, 1, 0.5, use_cudnn=True)"],
    "`deterministic=`": [CHAINER + "L.Convolution2D(1, 1, 1, deterministic=False)"],
    "`trigger=`": [CHAINER + "chainer.training.extensions.snapshot(trigger=(1, 'epoch'))"],
    "`chainer.cuda.init()`": ["from chainer import cuda\ncuda.init()"],
    "`model.to_intel64()`": [CHAINER + "model.to_intel64()"],
    "downloading MNIST": ["import chainer\nchainer.datasets.get_mnist()"],
    "sending a local function": [WORK],
    "`thread.isAlive`": ["import threading\nthread = threading.Thread()\nthread.isAlive()"],
    "`hmac.new`": ["import hmac\nhmac.new(b'1', b'2')"],
    "`random.sample`": ["import random\nrandom.sample({1, 2}, 1)"],
    "`random.shuffle`": ["import random\nrandom.shuffle([1], lambda: 0.5)"],
    "an index or a length of": ["zip([1], [2])[0]", "len(map(int, '1'))", "{1: 2}.items()[0]"],
    "`next` of an iterator": ["iter([1]).next()", "(i for i in [1]).next()"],
    "`range(n / 2)`": ["n = 4\nrange(n / 2)", ARRAYS + "np.zeros(len(a)/2)"],
    "`pickle.load` of a file": ["import pickle\npickle.loads(b'\\x80\\x02U\\x01\\xe9.')"],
    "`pickle` with a file": [
        "import pickle\npickle.dump(1, open('a', 'w'))",
        "import pickle\npickle.dump(1, open('a', 'wb'))\npickle.load(open('a'))",
    ],
    "`warn=`": [PLOT + "matplotlib.use('Agg', warn=False)"],
    "`normed=`": [PLOT + "plt.hist([1, 2], normed=True)"],
    "`pyplot.style.use": [PLOT + "plt.style.use('seaborn')", PLOT + "plt.style.use('seaborn-whitegrid')"],
    "`gca(projection": [PLOT + "fig.gca(projection='3d')", PLOT + "plt.gca(projection='3d')"],
    "`canvas.set_window_title`": [PLOT + "fig.canvas.set_window_title('a')"],
    "`canvas.tostring_rgb`": [PLOT + "fig.canvas.draw()\nfig.canvas.tostring_rgb()"],
    "`font.getsize`": [IMAGE + "font = ImageFont.load_default()\nfont.getsize('a')"],
    "`draw.textsize`": [IMAGE + "draw.textsize('a')"],
    "`sklearn.externals.joblib`": ["from sklearn.externals import joblib"],
    "`sklearn.datasets.fetch_mldata`": ["from sklearn.datasets import fetch_mldata"],
    **{f"`{name}`": [name] for name in ("xrange", "raw_input", "basestring", "unicode", "unichr", "reduce")},
    **{f"`{name}` of a dict": [f"{{}}.{name}"] for name in ("iteritems", "itervalues", "iterkeys", "has_key")},
}


def snippets():
    """Yields a test identifier, an entry of the table and a program that raises its exception."""
    for entry in ADVICE:
        if entry.name:
            module, _, name = entry.name.rpartition(".")
            programs = [f"import {module}\n{entry.name}", f"from {module} import {name}"]
        elif entry.old.startswith("`import "):
            programs = [entry.old.strip("`")]
        else:
            programs = next((HABITS[key] for key in HABITS if entry.old.startswith(key)), ["no program provokes it"])
        for number, program in enumerate(programs):
            yield pytest.param(entry, program, id=f"{entry.old.replace('`', '')}-{number}")


# A newer version has the names in BACK again. Other packages may provide the modules in PROVIDED.
BACK = {"`numpy.bool`": "NumPy 2 has it again", "`numpy.long`": "NumPy 2 has it again"}
PROVIDED = ("distutils", "pkg_resources", "gym")
DISTRIBUTIONS = {"Pillow": "pillow"}


def is_reached(since):
    """Whether this environment has the version, such as ``NumPy 2.4``, or a newer one."""
    if not since:
        return True
    name, version = since.rsplit(" ", 1)
    installed = platform.python_version() if name == "Python" else metadata.version(DISTRIBUTIONS.get(name, name))
    return Version(installed) >= Version(version)


def exception_of(program, folder):
    """Runs a program from a file, so that tracebacks show its lines, and returns the exception that it raises."""
    file = folder / "program.py"
    file.write_text(program, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exec(compile(program, str(file), "exec"), {"__name__": "program"})
        except Exception as error:
            # The launcher removes its own frames too.
            return error.with_traceback(error.__traceback__.tb_next)
    return None


@pytest.fixture
def _in_a_folder(tmp_path, monkeypatch):
    """Runs the test in an empty folder, and refuses network connections so that nothing is downloaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAINER_DATASET_ROOT", str(tmp_path))
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.mark.usefixtures("_in_a_folder")
@pytest.mark.parametrize(("entry", "program"), list(snippets()))
def test_each_entry_gives_advice_for_its_exception(tmp_path, entry, program):
    """The program fails and gets the advice with the entry's version and newer ones, and works with older ones."""
    needs = re.search(r"\b(scipy|matplotlib|PIL|sklearn)\b", program)
    if needs:
        pytest.importorskip(needs[1], reason=not_installed(needs[1]))
    imported = program.partition("import ")[2]
    if imported in PROVIDED and importlib.util.find_spec(imported):
        pytest.skip(f"the import that the advice is about works, as another package provides it: {imported}")
    error = exception_of(program, tmp_path)
    if error is None:
        if entry.old in BACK and is_reached("NumPy 2.0"):
            pytest.skip(BACK[entry.old])
        assert not is_reached(entry.since), "it works"
        pytest.skip(f"the advice is for newer versions: {entry.since}")
    assert is_reached(entry.since), f"raised before {entry.since}: {error!r}"
    problem = f"{entry.old} stopped working with {entry.since}" if entry.since else f"{entry.old} failed"
    assert advice.find(error) == f"{problem}: {entry.instead}".replace("`", ""), repr(error)


OWN = {
    "a class of its own with the name of a link": "class Linear:\n    def __init__(self): pass\nLinear(wscale=1)",
    "a chain of its own": CHAINER + "class Net(chainer.Chain):\n    def __init__(self): pass\nNet(wscale=1)",
    "a class of its own inside a link": CHAINER
    + "class Net:\n    def __init__(self): pass\nL.Classifier(Net(bias=1))",
    "a function of its own inside one of Chainer's": CHAINER + "def conv(x): pass\nF.relu(conv(x, use_cudnn=False))",
    "a function of its own called dropout": "def dropout(x, ratio=.5): pass\ndropout(1, 2, 3)",
    "a method of its own": CHAINER + "Model.block = lambda self, x: x\nmodel.block(x, trigger=1)",
    "an optimizer of its own": "class SGD: pass\nSGD().zero_grads()",
    "an attribute of its own": "class Variable: pass\nVariable().volatile",
    "an array of its own": "class array: pass\narray().tostring()",
    "a module of its own": "import types\nnumpy = types.ModuleType('my.numpy')\nnumpy.float",
    "a name that never was": "import numpy\nnumpy.no_such_name",
    "an import that never was": "from numpy import no_such_name",
    "a module that never was": "import imp_of_its_own",
    "a submodule": "import collections.Iterable",
    "its own words": "raise ValueError('train argument is not supported anymore. Use chainer.using_config')",
    "its own words on iDeep": "raise RuntimeError('iDeep is not available')",
    "its own words on loading": "raise ValueError('Object arrays cannot be loaded when allow_pickle=False')",
    "several values for one element": ARRAYS + "a[0] = [1, 2]",
    "a float that no division made": ARRAYS + "n = 2.0\nrange(n)",
    "a path beside a float": "n = 2.0\nrange(n), 'a/b'  # a / b",
    "a file that is missing": "open('train.npz')",
    "text where bytes were expected": "b'\\xe9'.decode('ascii')",
    "bytes where text was expected": "import io\nio.StringIO().write(b'')",
    "a style of its own": PLOT + "plt.style.use('mine')",
    "an argument of its own": PLOT + "def use(): pass\nuse(warn=False)",
    "an exception without a message": "raise AttributeError",
}


@pytest.mark.usefixtures("_in_a_folder")
@pytest.mark.parametrize("what", OWN)
def test_a_programs_own_exception_gets_no_advice(tmp_path, what):
    """This holds even if its message is like one in the table."""
    if "matplotlib" in OWN[what]:
        pytest.importorskip("matplotlib", reason=not_installed("matplotlib"))
    error = exception_of(OWN[what], tmp_path)
    assert error is not None
    assert advice.find(error) is None


def in_library(code, folder, monkeypatch):
    """Returns the exception that a program gets when it imports an installed package with this code."""
    package = folder / "site-packages" / "library"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "library", raising=False)
    return exception_of("import library", folder)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (
            "import time\ntime.clock()",
            "time.clock stopped working with Python 3.8, and library uses it: "
            "set time.clock = time.perf_counter before you import library",
        ),
        (
            "import itertools\nitertools.izip",
            "itertools.izip stopped working with Python 3.0, and library uses it: "
            "set itertools.izip = zip before you import library",
        ),
        (
            "from scipy.misc import imread",
            "scipy.misc.imread stopped working with SciPy 1.3, and library uses it: look for a newer version",
        ),
        ("iter([1]).next()", None),
    ],
    ids=["a name", "a builtin", "words", "a habit"],
)
def test_an_installed_package_that_uses_an_old_name_is_named(tmp_path, monkeypatch, code, line):
    """The program cannot change that package, but can define the old name.

    Old code without such a name, like `.next()`, gets no advice if it is in a package.
    """
    if "scipy" in code:
        pytest.importorskip("scipy", reason=not_installed("scipy"))
    assert advice.find(in_library(code, tmp_path, monkeypatch)) == line


def test_a_program_ends_with_its_traceback_and_one_line(tmp_path):
    """The launcher prints the output of python and one more line, and exits with the same status."""
    (tmp_path / "script.py").write_text("import time\nprint(1)\ntime.clock()\n", encoding="utf-8")
    for arguments in (["script.py"], ["-m", "script"]):
        plain, launched = (
            subprocess.run(
                [sys.executable, *launcher, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            for launcher in ([], ["-m", "rmsprop_graves"])
        )
        line = "rmsprop_graves: time.clock stopped working with Python 3.8: write time.perf_counter\n"
        assert launched.stderr == plain.stderr + line
        assert (launched.stdout, launched.returncode) == (plain.stdout, plain.returncode)


def test_objects_that_raise_do_not_change_how_a_program_ends(tmp_path):
    """The search for advice reads attributes of the program's objects, which may raise anything."""
    code = """\
class Trap(Exception):
    def __str__(self):
        raise ValueError("in __str__")
    def __getattr__(self, name):
        raise SystemError(name)
raise Trap
"""
    (tmp_path / "script.py").write_text(code, encoding="utf-8")
    for launcher in ([], ["-m", "rmsprop_graves"]):
        done = subprocess.run(
            [sys.executable, *launcher, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "rmsprop_graves" not in done.stderr


def test_the_page_on_old_scripts_has_the_current_tables(monkeypatch):
    """Run `python docs/old_scripts.py` after a change of the tables."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    old_scripts = importlib.import_module("old_scripts")
    page = old_scripts.PAGE.read_text(encoding="utf-8")
    assert old_scripts.with_tables(page) == page
