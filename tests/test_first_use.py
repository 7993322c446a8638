"""Several threads of a new process use the package for the first time, all at once.

Several of Chainer's modules import each other. So do this package and Chainer once the class is installed there. If
two threads enter such a cycle at different modules, Python detects a deadlock and returns partially initialized
modules.
"""

from __future__ import annotations

import itertools
import random

import pytest
from interpreter import run_python
from skips import not_installed

PROGRAM = """
import os, sys, threading, traceback, warnings
warnings.simplefilter("ignore")
sys.setswitchinterval({interval})

def use_optimizer():
    from rmsprop_graves import RMSpropGraves
    RMSpropGraves()

def use_load_npz():
    from rmsprop_graves import load_npz

def use_rule():
    from rmsprop_graves import RMSpropGravesRule

def use_attributes():
    import rmsprop_graves
    rmsprop_graves.RMSpropGraves, rmsprop_graves.load_npz, rmsprop_graves.kernels

def use_kernels():
    from rmsprop_graves import kernels
    kernels.on_cpu()

def install():
    import rmsprop_graves
    rmsprop_graves.install_in_chainer()
    import chainer
    assert chainer.optimizers.RMSpropGraves is rmsprop_graves.RMSpropGraves

def use_chainer():
    import rmsprop_graves
    import chainer
    chainer.optimizers.RMSpropGraves

def use_private_module():
    import rmsprop_graves._optimizer

def use_pickle():
    import pickle, rmsprop_graves
    pickle.loads(b"crmsprop_graves\\nRMSpropGraves\\n.")

def update():
    from rmsprop_graves import RMSpropGraves
    import chainer, numpy
    param = chainer.Parameter(numpy.ones(3, "f"))
    link = chainer.Link()
    with link.init_scope():
        link.param = param
    param.grad = numpy.ones(3, "f")
    RMSpropGraves(lr=0.5).setup(link).update()
    assert (param.array < 1).all()

begin, *uses = {uses}
if begin != "nothing":
    import rmsprop_graves
if begin == "installed":
    rmsprop_graves.install_in_chainer()
barrier, failed = threading.Barrier(len(uses)), []

def run(use):
    barrier.wait()
    try:
        globals()[use]()
    except BaseException:
        failed.append(use + ": " + traceback.format_exc())

threads = [threading.Thread(target=run, args=(use,), daemon=True) for use in uses]
for thread in threads: thread.start()
for thread in threads: thread.join(100)
failed += ["hangs: " + use for use, thread in zip(uses, threads) if thread.is_alive()]
print(*failed, sep="\\n", flush=True)
if failed:
    os._exit(1)
import rmsprop_graves
assert rmsprop_graves.RMSpropGraves is sys.modules["rmsprop_graves._optimizer"].RMSpropGraves
os._exit(0)
"""
USES = [
    "use_optimizer",
    "use_load_npz",
    "use_rule",
    "use_attributes",
    "use_kernels",
    "install",
    "use_chainer",
    "use_private_module",
    "use_pickle",
    "update",
]
BEGINS = ["nothing", "imported", "installed"]


def assert_all_work(begin, *uses, interval=1e-5, kernel="numpy"):
    """Assert that all uses work, each in a thread of one new process. Numba is not the default: its import is slow."""
    code = PROGRAM.format(uses=[begin, *uses], interval=interval)
    stdout, _ = run_python(code, "-u", RMSPROP_GRAVES_CPU_KERNEL=kernel)
    assert not stdout.strip(), stdout


@pytest.mark.parametrize("begin", BEGINS)
def test_first_uses_in_ten_threads_at_once(begin):
    """Each thread begins with a different use."""
    assert_all_work(begin, *USES, kernel="auto")


@pytest.mark.parametrize("begin", BEGINS)
@pytest.mark.parametrize("pair", [("install", "use_private_module"), ("use_optimizer", "use_load_npz")], ids="-".join)
def test_first_uses_in_two_threads_at_once(begin, pair):
    """In the first pair, a private module waits for Chainer, whose import needs that module to install the class."""
    assert_all_work(begin, *pair)


def test_numba_waits_for_chainers_import():
    """Both import SciPy, in different orders. In two threads, each could wait for the other, and one would fail."""
    pytest.importorskip("numba", reason=not_installed("numba"))
    pytest.importorskip("scipy", reason=not_installed("scipy"))
    run_python("""
        import importlib.machinery, sys, threading, time
        import rmsprop_graves
        from rmsprop_graves import kernels

        def waits_for_an_import():
            frame = sys._current_frames()[other.ident]  # KeyError: it has ended
            return frame.f_code.co_name == "acquire" and "importlib" in frame.f_code.co_filename

        class Pause:
            def find_spec(self, name, path=None, target=None):
                if name.startswith("scipy.linalg."):
                    sys.meta_path.remove(self)
                    spec = importlib.machinery.PathFinder.find_spec(name, path)
                    self.execute, spec.loader.exec_module = spec.loader.exec_module, self.exec_module
                    return spec

            def exec_module(self, module):
                other.start()
                until = time.monotonic() + 100
                while not waits_for_an_import():
                    assert time.monotonic() < until
                    time.sleep(0.1)
                self.execute(module)

        other = threading.Thread(target=lambda: kernels.use_on_cpu("numba"), daemon=True)
        sys.meta_path.insert(0, Pause())
        import chainer
        other.join(100)
        assert not other.is_alive()
        assert kernels.on_cpu().__name__ == "rmsprop_graves.kernels.numba"
    """)


@pytest.mark.search
@pytest.mark.parametrize("begin", BEGINS)
def test_every_pair_of_first_uses(begin):
    """Each pair is tried with two switch intervals of Python's threads."""
    for pair, interval in itertools.product(itertools.combinations_with_replacement(USES, 2), (1e-5, 5e-3)):
        assert_all_work(begin, *pair, interval=interval)


@pytest.mark.search
@pytest.mark.parametrize("seed", range(100))
def test_first_uses_at_random(seed):
    """3 to 8 threads, with and without Numba."""
    chosen = random.Random(seed)
    uses = chosen.choices(USES, k=chosen.randint(3, 8))
    assert_all_work(chosen.choice(BEGINS), *uses, kernel=chosen.choice(["numpy", "numpy", "auto"]))
