"""Every message in the headings of the troubleshooting page is printed by a program."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import numpy
import pytest
from interpreter import run, write
from skips import not_installed

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = [match[2].strip() for match in re.finditer(r"^### (`+)(.+)\1$", PAGE, re.M)]

PRELUDE = """
import warnings

import rmsprop_graves
import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer.serializers import load_npz, save_npz
from chainer.training import extensions

warnings.simplefilter("error")  # CuPy may warn while it is imported
CHAINERS = chainer.optimizers.rmsprop_graves.RMSpropGraves
x = numpy.ones((4, 3), "f")


def trained(optimizer_class=rmsprop_graves.RMSpropGraves, link=None):
    model = link or L.Linear(3, 2)
    optimizer = optimizer_class().setup(model)
    optimizer.update(lambda: F.sum(next(model.links(skipself=link is not None))(x)))
    return model, optimizer


def new(model, optimizer_class=rmsprop_graves.RMSpropGraves):
    return optimizer_class().setup(model)


def saved(**changes):
    save_npz("optimizer.npz", trained()[1])
    with numpy.load("optimizer.npz") as file:
        entries = dict(file)
    for key, value in changes.items():
        entries[key.replace("_", "/")] = value
    numpy.savez("optimizer.npz", **{key: value for key, value in entries.items() if value is not None})


def trainer(shuffle=True):
    model = L.Classifier(L.Linear(3, 2))
    data = [(numpy.ones(3, "f"), numpy.int32(0))] * 2
    iterator = chainer.iterators.SerialIterator(data, 2, shuffle=shuffle)
    updater = chainer.training.updaters.StandardUpdater(iterator, new(model))
    return model, chainer.training.Trainer(updater, (1, "iteration"), out="result")
"""

# The key is the beginning of the heading. All run in one interpreter, each after its own copy of the prelude.
PROGRAMS = {
    "AttributeError: module 'numpy' has no attribute 'float'": "numpy.float",
    "TypeError: only 0-dimensional": "float(numpy.ones(1))",
    "TypeError: lr must be a number, got a Linear": "rmsprop_graves.RMSpropGraves(L.Linear(3, 2))",
    "TypeError: lr must be a finite number, got 'x'": "rmsprop_graves.RMSpropGraves(lr='x')",
    "ValueError: eps must": "rmsprop_graves.RMSpropGraves(eps=-1)",
    "TypeError: lr must be a finite number, got ndarray": "rmsprop_graves.RMSpropGraves(lr=numpy.ones(3))",
    "UserWarning: momentum is 1": "rmsprop_graves.RMSpropGraves(momentum=1)",
    "TypeError: RMSpropGraves() got an unexpected": "rmsprop_graves.RMSpropGraves(learning_rate=0.1)",
    "UserWarning: learning_rate has no effect": "rmsprop_graves.RMSpropGraves().learning_rate = 0.1",
    "UserWarning: weight_decay has no effect": "rmsprop_graves.RMSpropGraves().weight_decay = 1e-4",
    "ImportError: cannot import name 'save_npz'": "from rmsprop_graves import save_npz",
    "AttributeError: 'NoneType' object has no attribute 'namedlinks'": """
        iterator = chainer.iterators.SerialIterator([], 2)
        updater = chainer.training.StandardUpdater(iterator, rmsprop_graves.RMSpropGraves())
        chainer.training.Trainer(updater, (1, "iteration"))
        """,
    "UserWarning: no parameter has a gradient": """
        model = L.Linear(3, 2)
        optimizer = new(model)
        with chainer.no_backprop_mode():
            optimizer.update(lambda: F.sum(model(x)))
        """,
    "UserWarning: all gradients are NaN": "new(L.Linear(3, 2)).update()",
    "UserWarning: the model has no parameters": "new(chainer.Chain()).update()",
    "Actual: float32 != float64": "L.Linear(3, 2)(x.astype('d'))",
    "Actual: i != f": "L.Linear(3, 2)(x.astype('i'))",
    "Actual: 5 != 3": "L.Linear(3, 2)(numpy.ones((4, 5), 'f'))",
    "RuntimeError: An Expr instance": "F.softmax_cross_entropy(x, numpy.zeros((4, 3), 'i'))",
    "RuntimeError: Tried to parse ChainerX": "chainer.get_device('gpu')",
    "KeyError: 'extensions/LogReport/_log": """
        model, saved_trainer = trainer()
        saved_trainer.extend(extensions.snapshot(filename="snapshot"), trigger=(1, "iteration"))
        saved_trainer.run()
        model, other_trainer = trainer()
        other_trainer.extend(extensions.LogReport())
        warnings.simplefilter("ignore")
        load_npz("result/snapshot", other_trainer)
        """,
    "KeyError: 'updater/iterator:main/_order": """
        model, saved_trainer = trainer(shuffle=False)
        saved_trainer.extend(extensions.snapshot(filename="snapshot"), trigger=(1, "iteration"))
        saved_trainer.run()
        load_npz("result/snapshot", trainer()[1])
        """,
    "RuntimeError: Optimizer is not set up": "rmsprop_graves.RMSpropGraves().add_hook(print)",
    "TypeError: optimization target": "new(L.Linear)",
    "TypeError: hook function must be callable": "new(L.Linear(3, 2)).add_hook('WeightDecay')",
    'KeyError: \'hook "WeightDecay" does not exist': """
        optimizer = new(L.Linear(3, 2))
        optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4), name="decay")
        optimizer.remove_hook("WeightDecay")
        """,
    'KeyError: \'hook "WeightDecay" already exists': """
        optimizer = new(L.Linear(3, 2))
        for _ in range(2):
            optimizer.add_hook(chainer.optimizer_hooks.WeightDecay(1e-4))
        """,
    "TypeError: lossfun must be": "model, optimizer = trained(); optimizer.update(F.sum(model(x)))",
    "TypeError: lossfun must return": "trained()[1].update(lambda: None)",
    "ValueError: The truth value of an array": """
        model, optimizer = trained()
        optimizer.update(model, x, numpy.zeros(4, "i"))
        """,
    "ValueError: the loss must be a scalar": "model, optimizer = trained(); optimizer.update(model, x)",
    "RuntimeError: Cannot retrieve": "new(L.Linear(None, 2, nobias=True)).update()",
    "ValueError: parameter W: found a gradient": """
        model, optimizer = trained()
        model.W.grad.resize((3, 3), refcheck=False)
        optimizer.update()
        """,
    "TypeError: parameter W: found a state": """
        model, optimizer = trained()
        for param in model.params():
            param.array, param.grad = param.array.astype("d"), None
        optimizer.update(lambda: F.sum(model(x.astype("d"))))
        """,
    "ValueError: parameter W: found an array that is read-only": """
        model, optimizer = trained()
        model.W.array.flags.writeable = False
        optimizer.update()
        """,
    "TypeError: parameter w: found an array of dtype int32": """
        model = chainer.Link()
        with model.init_scope():
            model.w = chainer.Parameter(numpy.ones(3, "i"))
        optimizer = new(model)
        model.w.grad = numpy.ones(3, "i")
        optimizer.update()
        """,
    "RuntimeError: duplicated new_epoch": """
        optimizer = new(L.Linear(3, 2))
        optimizer.use_auto_new_epoch = True
        optimizer.new_epoch()
        """,
    "RuntimeError: Kill the process": """
        model, trainer = trainer()
        trainer.updater.update_core = lambda: model.predictor.W.array.fill(numpy.nan)
        trainer.extend(extensions.FailOnNonNumber())
        trainer.run(show_loop_exception_msg=False)
        """,
    "KeyError: 'W/n is not a file": """
        save_npz("optimizer.npz", new(L.Linear(3, 2), CHAINERS))
        load_npz("optimizer.npz", new(L.Linear(3, 2), CHAINERS))
        """,
    "KeyError: 'l1/W/t is not a file": """
        model = chainer.Chain(l1=L.Linear(3, 2))
        save_npz("optimizer.npz", trained(CHAINERS, model)[1])
        with numpy.load("optimizer.npz") as file:
            old = {key: file[key] for key in file if not key.endswith("/t")}  # as Chainer 3.3 saved it
        numpy.savez("optimizer.npz", **old)
        load_npz("optimizer.npz", new(chainer.Chain(l1=L.Linear(3, 2)), CHAINERS))
        """,
    "KeyError: 'optimizer.npz: /W/n: it is not in the checkpoint'": (
        "saved(W_n=None); load_npz('optimizer.npz', new(L.Linear(3, 2)))"
    ),
    'KeyError: "optimizer.npz: /l1/W/t': ("saved(); load_npz('optimizer.npz', new(chainer.Chain(l1=L.Linear(3, 2))))"),
    "KeyError: 'optimizer.npz: /W/n: it is not in the checkpoint; this looks": """
        save_npz("optimizer.npz", trained(chainer.optimizers.Adam)[1])
        load_npz("optimizer.npz", new(L.Linear(3, 2)))
        """,
    'KeyError: "model.npz: t': """
        save_npz("model.npz", L.Linear(3, 2))
        load_npz("model.npz", new(L.Linear(3, 2)))
        """,
    'KeyError: "W is not a file': "saved(); load_npz('optimizer.npz', L.Linear(3, 2, nobias=True))",
    'KeyError: "predictor/W is not a file': """
        model, trainer = trainer()
        trainer.extend(extensions.snapshot(filename="snapshot"))
        trainer.run()
        load_npz("result/snapshot", L.Classifier(L.Linear(3, 2, nobias=True)))
        """,
    "ValueError: optimizer.npz: /W/n: found shape": "saved(); load_npz('optimizer.npz', new(L.Linear(4, 2)))",
    "ValueError: could not broadcast": "save_npz('model.npz', L.Linear(3, 2)); load_npz('model.npz', L.Linear(4, 2))",
    "ValueError: optimizer.npz: /W/g: found NaN": """
        saved(W_g=numpy.full((2, 3), numpy.nan, "f"))
        load_npz("optimizer.npz", new(L.Linear(3, 2)))
        """,
    "ValueError: model.npz: W.npy is a pickled object": """
        save_npz("model.npz", L.Linear(None, 2))
        rmsprop_graves.load_npz("model.npz", L.Linear(None, 2))
        """,
    "ValueError: model.npz: it is not in the npz format": """
        with open("model.npz", "w") as file:
            file.write("version https://git-lfs.github.com/spec/v1")
        rmsprop_graves.load_npz("model.npz", L.Linear(3, 2))
        """,
    "RuntimeError: the snapshot": """
        def refuse(path, target):
            raise OSError("no space left")
        model, trainer = trainer()
        writer = extensions.snapshot_writers.ThreadWriter(savefun=refuse)
        trainer.extend(extensions.snapshot(writer=writer), trigger=(1, "iteration"))
        trainer.run(show_loop_exception_msg=False)
        """,
    "ValueError: the kernel on a CPU": "rmsprop_graves.kernels.use_on_cpu('fast')",
    "ImportError: the update on a GPU needs CuPy 12": """
        import sys, types
        sys.modules["cupy"] = types.SimpleNamespace(__version__="11.6.0")
        rmsprop_graves.kernels.on_gpu()
        """,
}
LOCAL_FUNCTION = """
import multiprocessing
import rmsprop_graves, chainer

def main():
    multiprocessing.set_start_method("spawn")
    data = chainer.datasets.TransformDataset([1, 2], lambda one: 2 * one)
    print(list(chainer.iterators.MultiprocessIterator(data, 1, False, n_processes=1)))

if __name__ == "__main__":
    main()
"""
# Each of these runs in an interpreter of its own.
COMPLETE = {
    "UserWarning: RMSpropGraves is still Chainer's class": """
        import rmsprop_graves
        from chainer.optimizers import RMSpropGraves
        rmsprop_graves.install_in_chainer()
        """,
    "ModuleNotFoundError: No module named 'pkg_resources'": """
        import sys, types, numpy
        numpy.sctypes = {"int": [numpy.int64], "float": [numpy.float64]}  # as NumPy 1 has it
        find = sys.meta_path[-1].find_spec
        sys.meta_path[-1] = types.SimpleNamespace(
            find_spec=lambda name, *more: None if name == "pkg_resources" else find(name, *more))
        sys.modules["numpy.distutils"] = sys.modules["numpy.distutils.system_info"] = types.ModuleType("distutils")
        import chainer
        """,
    "ModuleNotFoundError: No module named 'numpy.distutils'": """
        import sys, types, numpy
        numpy.sctypes = {"int": [numpy.int64], "float": [numpy.float64]}
        sys.modules["pkg_resources"] = types.ModuleType("pkg_resources")
        import chainer
        """,
    "AttributeError: `np.sctypes` was removed": "import chainer",
    "RuntimeError: An attempt has been made to start a new process": """
        import multiprocessing
        multiprocessing.get_context("spawn").Process(target=print).start()
        """,
    "RuntimeError: CUDA environment": """
        import sys
        sys.modules["cupy"] = None
        import rmsprop_graves, chainer
        chainer.links.Linear(3, 2).to_gpu()
        """,
    "RuntimeError: MultiprocessIterator has no more batches": """
        import rmsprop_graves, chainer, numpy

        class Dataset(chainer.dataset.DatasetMixin):
            def __len__(self):
                return 8

            def get_example(self, i):
                if i == 7:
                    raise ValueError("image 7 is broken")
                return numpy.float32(i)

        if __name__ == "__main__":
            print(list(chainer.iterators.MultiprocessIterator(Dataset(), 2, False, False, n_processes=1)))
        """,
    "PicklingError: Can't pickle local object": LOCAL_FUNCTION,
    "AttributeError: Can't": LOCAL_FUNCTION,
    "RuntimeWarning: Numba cannot be used": """
        import os
        os.environ["NUMBA_DISABLE_JIT"] = "1"
        import rmsprop_graves
        rmsprop_graves.kernels.on_cpu()
        """,
    "RuntimeWarning: OMP_NUM_THREADS": """
        import os
        os.environ["OMP_NUM_THREADS"] = "x"
        import rmsprop_graves
        rmsprop_graves.kernels.get_num_threads()
        """,
}
NUMPY = tuple(map(int, numpy.__version__.split(".")[:2]))
# Whether these programs end with the message here.
HERE = {
    "AttributeError: module 'numpy' has no attribute 'float'": NUMPY >= (1, 24),
    "AttributeError: `np.sctypes` was removed": NUMPY >= (2, 0),
    "TypeError: only 0-dimensional": NUMPY >= (2, 4),
    "ModuleNotFoundError: No module named 'numpy.distutils'": sys.version_info >= (3, 12),
    "PicklingError: Can't pickle local object": sys.version_info >= (3, 14),
    "AttributeError: Can't": sys.version_info < (3, 14),
}
# Other tests cover these messages, or they need software that the tests do not install.
ELSEWHERE = {
    "ImportError: rmsprop_graves needs Chainer 7",  # chainer7/test_loader.py
    "ImportError: rmsprop_graves repairs chainer in its source",  # chainer7/test_loader.py
    "RuntimeWarning: Numba's cache in",  # kernels/test_numba.py
    "UserWarning: cuDNN is not enabled",  # CuPy 14
    "prterun has detected",  # Open MPI
    "There are not enough slots",  # Open MPI
}


def entry_of(message, table):
    """Return the longest key of a table that the message begins with, or None."""
    return max((key for key in table if message.startswith(key)), key=len, default=None)


def pattern_of(message):
    """Return a regular expression in which `...` stands for any text and a space for any white space."""
    parts = (r"\s+".join(map(re.escape, part.split())) for part in message.split("..."))
    return r".*".join(parts)


def test_each_heading_has_a_program_and_each_program_a_heading():
    tables = (PROGRAMS, COMPLETE, ELSEWHERE)
    used = [[entry_of(message, table) for table in tables] for message in MESSAGES]
    assert [message for message, keys in zip(MESSAGES, used) if keys.count(None) != len(tables) - 1] == []
    assert {key for keys in used for key in keys} >= {*PROGRAMS, *COMPLETE, *ELSEWHERE}


RUN_ALL = """
import json, sys, traceback

prelude, programs = json.load(sys.stdin)
tracebacks = {}
for key, program in programs.items():
    names = {}
    exec(prelude, names)
    try:
        exec(program, names)
        tracebacks[key] = "no error"
    except Exception:
        tracebacks[key] = traceback.format_exc()
print(json.dumps(tracebacks))
"""


@pytest.fixture(scope="module")
def tracebacks(tmp_path_factory):
    """Run the programs; return their tracebacks."""
    programs = {key: textwrap.dedent(program) for key, program in PROGRAMS.items()}
    folder = tmp_path_factory.mktemp("programs")
    result = run("-c", RUN_ALL, cwd=folder, stdin=json.dumps([PRELUDE, programs]))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("message", [message for message in MESSAGES if entry_of(message, ELSEWHERE) is None])
def test_a_message_is_printed(message, tracebacks, tmp_path):
    if not HERE.get(entry_of(message, HERE), True):
        pytest.skip("another version of Python or NumPy prints the message")
    if "Numba" in message:
        pytest.importorskip("numba", reason=not_installed("numba"))
    key = entry_of(message, PROGRAMS)
    if key is None:
        write(tmp_path, "program.py", COMPLETE[entry_of(message, COMPLETE)])
        printed = run("program.py", cwd=tmp_path).stderr
    else:
        printed = tracebacks[key]
    assert re.search(pattern_of(message), printed, re.S), printed
