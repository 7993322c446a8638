"""Child processes compute with a repaired Chainer, whatever starts them."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
import zipfile
from pathlib import Path

import pytest
from interpreter import run, write
from skips import not_installed

import rmsprop_graves

LAUNCHER = ["-m", "rmsprop_graves"]
METHODS = [method for method in ("fork", "spawn", "forkserver") if method in multiprocessing.get_all_start_methods()]
IS_FORK_MADE_DEFAULT = sys.platform == "linux" and sys.version_info >= (3, 14)


def output_of(*arguments, cwd, **environment):
    """Returns the standard output of a program, which must end with status 0."""
    result = run(*arguments, cwd=cwd, **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


# Children of multiprocessing

# The package is imported inside a function, so that no child imports it along with the main module.
WORKERS = """
    import sys

    def train(method):
        import rmsprop_graves
        import chainer, multiprocessing, numpy
        from chainer.training.extensions import snapshot_writers
        multiprocessing.set_start_method(method)
        data = chainer.datasets.TupleDataset(numpy.arange(10, dtype="f"), numpy.arange(10, dtype="i"))
        iterator = chainer.iterators.MultiprocessIterator(data, 4, repeat=False, shuffle=False, n_processes=2)
        print([float(x) for batch in iterator for x, _ in batch])
        iterator.finalize()
        for name in ("ProcessWriter", "ProcessQueueWriter", "ThreadWriter", "ThreadQueueWriter"):
            writer = getattr(snapshot_writers, name)()
            for i in range(2):
                writer(f"{name}{i}", ".", {"x": numpy.full(3, i)})
            writer.finalize()

    if __name__ == "__main__":
        train(sys.argv[1])
"""


@pytest.mark.parametrize("launcher", [[], LAUNCHER], ids=["plain", "launched"])
@pytest.mark.parametrize("method", METHODS)
def test_chainers_own_workers_work_under_every_start_method(tmp_path, method, launcher):
    """Without the repairs, some of them start workers without end, or write nothing."""
    write(tmp_path, "script.py", WORKERS)
    output = output_of(*launcher, "script.py", method, cwd=tmp_path)
    assert output == f"{[float(i) for i in range(10)]}\n"
    written = sorted(path.name for path in tmp_path.iterdir() if "Writer" in path.name)
    assert len(written) == 8
    assert all(zipfile.is_zipfile(tmp_path / name) for name in written)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "fork"])
def test_children_find_the_package_where_their_parent_found_it(tmp_path, method):
    """Only the parent's sys.path has the folder, and the child gets this path after it has unpickled an object."""
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "rmsprop_graves").symlink_to(Path(rmsprop_graves.__file__).parent)
    write(
        tmp_path,
        "script.py",
        f"""
        import sys
        if __name__ == "__main__":
            sys.path[:] = [path for path in sys.path if not path.endswith("site-packages")]
            sys.path += [r"{tmp_path / "found"}", *{[p for p in sys.path if p.endswith("site-packages")]!r}]
            import rmsprop_graves, chainer, multiprocessing
            with multiprocessing.get_context("{method}").Pool(1) as pool:
                print(pool.apply(type, (chainer.Variable(),)))
        """,
    )
    assert output_of("script.py", cwd=tmp_path) == "<class 'chainer.variable.Variable'>\n"


@pytest.mark.skipif("forkserver" not in METHODS, reason="there is no forkserver here")
def test_a_forkserver_that_imports_chainer_before_any_child_is_repaired(tmp_path):
    """The forkserver imports the modules to preload and, since Python 3.14, the main module."""
    write(
        tmp_path,
        "script.py",
        """
        import multiprocessing, sys
        if __name__ == "__main__":
            import rmsprop_graves
        import chainer

        def version(_):
            return chainer.__version__

        if __name__ == "__main__":
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(sys.argv[1:])
            with context.Pool(1) as pool:
                print(pool.map(version, [None]) == [chainer.__version__])
        """,
    )
    # Before Python 3.14 the server does not import the main module.
    if sys.version_info >= (3, 14):
        assert output_of("script.py", "__main__", cwd=tmp_path) == "True\n"
    write(
        tmp_path,
        "plain.py",
        (tmp_path / "script.py").read_text().replace("import multi", "import rmsprop_graves, multi"),
    )
    assert output_of("plain.py", "chainer", cwd=tmp_path) == "True\n"


def test_a_launched_program_forks_unless_it_chooses_otherwise(tmp_path):
    """Chainer's scripts were written for fork; on Linux, Python 3.14 changed the default start method."""
    write(
        tmp_path,
        "script.py",
        """
        import multiprocessing, sys

        if sys.argv[1:]:
            multiprocessing.set_start_method(sys.argv[1])

        def work():
            print(multiprocessing.current_process().name, flush=True)

        if __name__ == "__main__":
            print(multiprocessing.get_start_method(), multiprocessing.get_context("spawn").get_start_method())
            print(multiprocessing.get_all_start_methods()[0])
            process = multiprocessing.Process(target=work, name="child")
            process.start()
            process.join()
        """,
    )
    plain = output_of("script.py", cwd=tmp_path).split()
    launched = output_of(*LAUNCHER, "script.py", cwd=tmp_path).split()
    default = "fork" if IS_FORK_MADE_DEFAULT else plain[0]
    assert launched == [default, "spawn", default, "child"]
    for method in METHODS:
        assert output_of(*LAUNCHER, "script.py", method, cwd=tmp_path).split()[0] == method


def test_an_unguarded_script_with_local_functions_runs_under_the_launcher(tmp_path):
    """Such a script needs fork, the default start method of the Pythons it was written for."""
    if multiprocessing.get_all_start_methods()[0] != "fork" and not IS_FORK_MADE_DEFAULT:
        pytest.skip("fork is not the default start method of this system's older Pythons either")
    write(
        tmp_path,
        "script.py",
        """
        import chainer, numpy
        data = chainer.datasets.TransformDataset(numpy.arange(6, dtype="f"), lambda x: 2 * x)
        iterator = chainer.iterators.MultiprocessIterator(data, 3, repeat=False, shuffle=False, n_processes=2)
        print([float(x) for batch in iterator for x in batch])
        """,
    )
    assert output_of(*LAUNCHER, "script.py", cwd=tmp_path) == "[0.0, 2.0, 4.0, 6.0, 8.0, 10.0]\n"


# Failures end with an error

BROKEN = """
    import multiprocessing, os, signal, sys, threading, time
    import rmsprop_graves, chainer, numpy

    multiprocessing.set_start_method(sys.argv[1], force=True)

    class Unpicklable(Exception):
        def __init__(self, number, what):
            super().__init__(f"{{number}} is {{what}}")

    class Dataset(chainer.dataset.DatasetMixin):
        def __len__(self):
            return 12

        def get_example(self, i):
            if i == 7 and {case!r} == "raises":
                raise ValueError("image 7 is broken")
            if i == 7 and {case!r} == "raises what cannot be unpickled":
                raise Unpicklable(7, "broken")
            if i == 7 and {case!r} == "leaves":
                os._exit(3)
            if i == 7 and {case!r} == "leaves without an error":
                os._exit(0)
            if i > 3 and {case!r} == "is killed":
                time.sleep(0.2 if i < 8 else 600)
            return numpy.float32(i)

    def train():
        iterator = chainer.iterators.MultiprocessIterator(
            Dataset(), 4, repeat=False, shuffle=False, n_processes=2, dataset_timeout=None)
        next(iterator)
        next(iterator)
        if {case!r} == "is killed":
            os.kill(iterator._prefetch_loop._pool._pool[0].pid, signal.SIGKILL)
        next(iterator)

    if __name__ == "__main__" or {case!r} == "is unguarded":
        train()
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("raises", "RuntimeError: MultiprocessIterator has no more batches: image 7 is broken"),
        ("is killed", "a worker process has ended with signal 9"),
        ("is unguarded", "Error"),
        ("leaves", "a worker process has ended with exit status 3"),
        ("leaves without an error", "a worker process has ended with exit status 0"),
        ("raises what cannot be unpickled", "the main process cannot unpickle a result or an exception"),
    ],
)
def test_a_broken_iterator_raises_an_error(tmp_path, case, error, method):
    """Chainer hangs if the dataset raises or ends the process, a worker is killed, or the script has no guard."""
    if case == "is unguarded" and method == "fork":
        pytest.skip("a forked child runs no script again")
    write(tmp_path, "script.py", BROKEN.format(case=case))
    result = run("script.py", method, cwd=tmp_path)
    assert result.returncode == 1
    assert error in result.stderr


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_dies_between_fast_batches_is_noticed(tmp_path, method):
    """The pool replaces a dead worker before the iterator checks its workers."""
    write(
        tmp_path,
        "script.py",
        f"""
        import multiprocessing, os, signal
        import rmsprop_graves, chainer, numpy

        class Dataset(chainer.dataset.DatasetMixin):
            def __len__(self):
                return 1000

            def get_example(self, i):
                if i == 300 and not os.path.exists("killed"):
                    open("killed", "w").close()
                    os.kill(os.getpid(), signal.SIGKILL)
                return numpy.float32(i)

        if __name__ == "__main__":
            multiprocessing.set_start_method("{method}")
            iterator = chainer.iterators.MultiprocessIterator(Dataset(), 10, False, False, n_processes=2)
            print(sum(map(len, iterator)))
        """,
    )
    result = run("script.py", cwd=tmp_path)
    assert result.returncode == 1
    assert "a worker process has ended with signal 9" in result.stderr


def test_a_failed_iterator_fails_again(tmp_path):
    """Further attempts raise at once and do not wait, even after a reset."""
    write(
        tmp_path,
        "script.py",
        """
        import rmsprop_graves, chainer, numpy

        class Dataset(chainer.dataset.DatasetMixin):
            def __len__(self):
                return 4

            def get_example(self, i):
                return 1 / (int(i) - 3)

        if __name__ == "__main__":
            iterator = chainer.iterators.MultiprocessIterator(
                Dataset(), 1, shuffle=False, n_processes=1, n_prefetch=1)
            errors = []
            for attempt in range(6):
                if attempt == 5:
                    iterator.reset()
                try:
                    next(iterator)
                except RuntimeError as error:
                    errors.append(type(error.__cause__).__name__)
            print(errors)
            iterator.finalize()
        """,
    )
    assert output_of(*LAUNCHER, "script.py", cwd=tmp_path) == f"{['ZeroDivisionError'] * 3}\n"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("writer", ["ProcessWriter", "ProcessQueueWriter", "ThreadWriter", "ThreadQueueWriter"])
def test_a_failed_snapshot_writer_ends_the_training(tmp_path, writer, method):
    """Without the repair nothing is written, and the training ends with status 0 or never."""
    if "Thread" in writer and method != METHODS[0]:
        pytest.skip("a thread has no start method")
    write(
        tmp_path,
        "script.py",
        f"""
        import multiprocessing
        import rmsprop_graves, chainer, numpy
        from chainer import training
        from chainer.training import extensions

        def refuse(path, target):
            raise OSError("no space left")

        if __name__ == "__main__":
            multiprocessing.set_start_method("{method}", force=True)
            model = chainer.links.Classifier(chainer.links.Linear(1, 2))
            optimizer = rmsprop_graves.RMSpropGraves().setup(model)
            data = chainer.datasets.TupleDataset(numpy.ones((4, 1), "f"), numpy.zeros(4, "i"))
            iterator = chainer.iterators.SerialIterator(data, 2)
            trainer = training.Trainer(training.updaters.StandardUpdater(iterator, optimizer), (4, "iteration"), "out")
            writer = extensions.snapshot_writers.{writer}(savefun=refuse)
            trainer.extend(extensions.snapshot(writer=writer), trigger=(1, "iteration"))
            trainer.run()
        """,
    )
    result = run("script.py", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "RuntimeError: " in result.stderr
    assert "not been written: " in result.stderr
    assert ("OSError: no space left" if "Thread" in writer else "has ended with exit status 1") in result.stderr
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_file()]


def test_a_failed_snapshot_writer_is_finalized_again_without_its_queue(tmp_path):
    """Chainer finalizes a writer again at exit. The queue may hang then: its thread has ended with a lock held."""
    write(
        tmp_path,
        "script.py",
        """
        import rmsprop_graves, chainer
        from chainer.training import extensions

        def refuse(path, target):
            raise OSError("no space left")

        if __name__ == "__main__":
            writer = extensions.snapshot_writers.ProcessQueueWriter(savefun=refuse)
            writer("snapshot", ".", {})
            try:
                writer.finalize()
            except RuntimeError as error:
                print(error)
            writer._queue.put = None
            writer.finalize()
        """,
    )
    assert output_of("script.py", cwd=tmp_path).endswith(" has ended with exit status 1\n")


# Interpreters that a launched program starts

WHICH = """
    import chainer, json, os, sys
    print(json.dumps([chainer.optimizers.RMSpropGraves.__module__.partition(".")[0], sys.path, sys.argv[1:]]))
"""


def test_an_interpreter_that_a_launched_program_starts_is_launched(tmp_path):
    """An interpreter that this one starts is launched too. The import paths are as without the launcher."""
    write(tmp_path, "child.py", WHICH)
    write(
        tmp_path,
        "middle.py",
        """
        import subprocess, sys
        sys.exit(subprocess.run([sys.executable, "child.py", "a"]).returncode)
        """,
    )
    write(tmp_path, "script.py", "import runpy; runpy.run_path('middle.py', run_name='__main__')")
    plain = run("-c", "import json, sys; print(json.dumps(sys.path[1:]))", cwd=tmp_path).stdout.strip()
    for program in ("script.py", "middle.py"):
        output = output_of(*LAUNCHER, program, cwd=tmp_path)
        assert output.startswith('["rmsprop_graves", [')
        assert f"{plain[1:-1]}], " in output


def test_an_existing_sitecustomize_runs(tmp_path):
    """A launched interpreter runs the environment's own sitecustomize, as any interpreter does."""
    write(tmp_path, "site/sitecustomize.py", "import sys; sys.customized = __file__")
    write(tmp_path, "child.py", "import sys, sitecustomize; print(sys.customized == sitecustomize.__file__)")
    write(tmp_path, "script.py", "import subprocess, sys; subprocess.run([sys.executable, 'child.py'], check=True)")
    for launcher in ([], LAUNCHER):
        output = output_of(*launcher, "script.py", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
        assert output == "True\n"


def test_an_error_in_a_sitecustomize_is_reported_as_without_the_launcher(tmp_path):
    """The interpreter goes on after the error, and is still launched."""
    write(tmp_path, "site/sitecustomize.py", "import no_such_module")
    code = "import chainer; print(chainer.optimizers.RMSpropGraves.__module__[:5])"
    write(tmp_path, "script.py", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])")
    result = run(*LAUNCHER, "script.py", cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert result.stdout == "rmspr\n"
    assert "Error in sitecustomize" in result.stderr
    assert "no_such_module" in result.stderr


@pytest.mark.parametrize("path", ["{0}:", ":{0}", ":", ""])
def test_existing_entries_of_pythonpath_stay(tmp_path, path):
    """An empty entry means the folder that the child starts in."""
    write(tmp_path, "child.py", "import sys; print(sys.path)")
    write(tmp_path, "script.py", "import subprocess, sys; subprocess.run([sys.executable, 'child.py'], check=True)")
    path = path.format(tmp_path / "of the user").replace(":", os.pathsep)
    outputs = [output_of(*launcher, "script.py", cwd=tmp_path, PYTHONPATH=path) for launcher in ([], LAUNCHER)]
    assert outputs[0] == outputs[1]


def other_python():
    """Returns the Python that made this virtual environment, or None outside of a virtual environment."""
    base = getattr(sys, "_base_executable", sys.executable)
    return base if base != sys.executable and sys.prefix != sys.base_prefix else None


def test_another_python_is_left_alone(tmp_path):
    """Another Python prints and imports as without the launcher, even if it finds the package on its path."""
    if other_python() is None:
        pytest.skip("the tests do not run in a virtual environment, as by make test")
    code = "import sys; print('rmsprop_graves' in sys.modules, sorted(sys.modules))"
    write(
        tmp_path, "script.py", f"import subprocess; subprocess.run([{other_python()!r}, '-c', {code!r}], check=True)"
    )
    root = str(Path(rmsprop_graves.__file__).parent.parent)
    launched = run(*LAUNCHER, "script.py", cwd=tmp_path, PYTHONPATH=root)
    plain = run("script.py", cwd=tmp_path, PYTHONPATH=root)
    assert launched.stderr == plain.stderr == ""
    assert launched.stdout.startswith("False ")
    ours = {"sitecustomize"}
    assert set(eval(launched.stdout[6:])) - ours == set(eval(plain.stdout[6:])) - ours


def test_the_startup_file_is_valid_on_any_python(tmp_path):
    """A launched program may start a Python that is too old for this package."""
    import ast

    import rmsprop_graves._chainer7.startup as startup

    source = (Path(next(iter(startup.__path__))) / "sitecustomize.py").read_text()
    ast.parse(source, feature_version=(3, 4))
    assert 'f"' not in source


def test_the_workers_of_joblib_are_repaired(tmp_path):
    """loky runs an estimator of the script, in a launched program and in one that imports the package itself."""
    pytest.importorskip("sklearn", reason=not_installed("sklearn"))
    code = """
        {first}
        import chainer, numpy
        from sklearn.base import BaseEstimator, RegressorMixin
        from sklearn.model_selection import GridSearchCV

        class Net(RegressorMixin, BaseEstimator):
            def __init__(self, lr=1e-3):
                self.lr = lr

            def fit(self, x, y):
                numpy.random.seed(0)
                self.model = chainer.links.Linear(2, 1)
                optimizer = chainer.optimizers.RMSpropGraves(self.lr).setup(self.model)
                self.module_ = type(optimizer).__module__
                for _ in range(5):
                    optimizer.update(lambda: chainer.functions.mean_squared_error(self.model(x), y))
                return self

            def predict(self, x):
                if self.module_.startswith("chainer") is {is_launched}:
                    raise RuntimeError(self.module_)
                return self.model(x).array

        if __name__ == "__main__":
            x = numpy.random.RandomState(0).standard_normal((12, 2)).astype("f")
            search = GridSearchCV(Net(), {{"lr": [1e-3, 1e-2]}}, n_jobs=2, cv=2, error_score="raise")
            search.fit(x, x[:, :1])
            print(search.best_params_)
        """
    write(tmp_path, "plain.py", code.format(first="import rmsprop_graves", is_launched=False))
    write(tmp_path, "launched.py", code.format(first="", is_launched=True))
    assert output_of("plain.py", cwd=tmp_path) == "{'lr': 0.01}\n"
    assert output_of(*LAUNCHER, "launched.py", cwd=tmp_path) == "{'lr': 0.01}\n"


def test_the_workers_of_pytest_xdist_are_launched(tmp_path):
    """execnet starts each worker as a new interpreter."""
    if importlib.util.find_spec("xdist") is None:
        pytest.skip(not_installed("xdist"))
    write(
        tmp_path,
        "test_it.py",
        """
        import chainer, os

        def test_in_a_worker():
            assert os.environ["PYTEST_XDIST_WORKER"]
            assert chainer.optimizers.RMSpropGraves.__module__.startswith("rmsprop_graves")
        """,
    )
    arguments = ["-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "test_it.py"]
    assert "1 passed" in output_of(*LAUNCHER, *arguments, cwd=tmp_path, PYTEST_ADDOPTS="")
