"""Calls of the reporter, the updaters, and every extension and trigger, in the trainer itself."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import reporter, serializers, training
from chainer.training import extensions, triggers, updaters
from chainer.training.extensions import snapshot_writers

from .inputs import DTYPE, h, normal

ONE_BY_ONE = (1, "iteration")


class _Updater(training.Updater):
    """Observes a value and steps an optimizer in every iteration; `epoch` is the number of iterations of an epoch."""

    def __init__(self, observe, epoch=10, lr=0.1):
        self.iteration = 0
        self._observe = observe
        self._epoch = epoch
        self.optimizer = chainer.optimizers.MomentumSGD(lr)
        self.optimizer.setup(L.Linear(3, 2, initialW=0.5))
        self.optimizer.target.cleargrads()

    epoch = property(lambda self: self.iteration // self._epoch)
    epoch_detail = property(lambda self: self.iteration / self._epoch)
    previous_epoch_detail = property(lambda self: (self.iteration - 1) / self._epoch)
    is_new_epoch = property(lambda self: self.iteration % self._epoch == 0)

    def connect_trainer(self, trainer):
        pass

    def finalize(self):
        pass

    def get_optimizer(self, name):
        return self.optimizer

    def get_all_optimizers(self):
        return {"main": self.optimizer}

    def update(self):
        self.iteration += 1
        self.optimizer.update()
        chainer.report(self._observe(self.iteration - 1))

    def serialize(self, serializer):
        self.iteration = serializer("iteration", self.iteration)
        self.optimizer.serialize(serializer["optimizer"])


def _trained(*extended, observe=lambda _: {}, iterations=30, look=None, epoch=10, lr=0.1, resume=False):
    """Returns the results of `look(trainer)` after every iteration, and the trainer."""
    seen = []
    with tempfile.TemporaryDirectory() as folder:

        def made():
            trainer = training.Trainer(_Updater(observe, epoch, lr), (iterations, "iteration"), folder)
            for one in extended:
                one, trigger = one if isinstance(one, tuple) else (one, None)
                trainer.extend(one, trigger=trigger)
            if look:
                last = training.make_extension(trigger=ONE_BY_ONE, priority=-1000)(
                    lambda trainer: seen.append(look(trainer))
                )
                trainer.extend(last, name="last")
            return trainer

        trainer = made()
        trainer.run(show_loop_exception_msg=False)
        files = sorted(os.listdir(folder))
        if resume:
            file = io.BytesIO()
            serializers.save_npz(file, trainer)
            file.seek(0)
            trainer = made()
            serializers.load_npz(file, trainer)
            trainer.stop_trigger = training.get_trigger((2 * iterations, "iteration"))
            trainer.run(show_loop_exception_msg=False)
        return seen, files, trainer


# The kinds of a loss or an accuracy in the dtype: scalars, zero-dimensional arrays, and variables.
def _reported(dtype, value=1, kind="scalar", cycle=1):
    """Observes `value`, `value` + 1, ... in turn, in the dtype."""
    values = [numpy.asarray(value + index).astype(dtype) for index in range(cycle)]
    if kind == "scalar":
        values = [value[()] for value in values]
    if kind == "variable":
        values = [chainer.Variable(value) for value in values]
    return lambda iteration: {"main/loss": values[iteration % cycle]}


KINDS = ("scalar", "array", "variable")


def _each_kind(call):
    """Returns a probe for every kind of value."""
    return tuple(lambda dtype=DTYPE, kind=kind: call(dtype, kind) for kind in KINDS)


def _summarized(values, weights=None):
    summary = reporter.Summary()
    for index, value in enumerate(values):
        if weights is None:
            summary.add(value)
        else:
            summary.add(value, weights[index])
    saved = {}
    summary.serialize(serializers.DictionarySerializer(saved))
    return summary.make_statistics(), summary.compute_mean(), saved


def _resumed(values):
    """Saves a summary of the first values, loads it, and adds the others."""
    summary, saved = reporter.Summary(), {}
    for value in values[:-10]:
        summary.add(value)
    summary.serialize(serializers.DictionarySerializer(saved))
    summary = reporter.Summary()
    summary.serialize(serializers.NpzDeserializer(saved))
    for value in values[-10:]:
        summary.add(value)
    return summary.make_statistics(), summary.compute_mean()


def _values(dtype, number, count, kind, step=0):
    values = [numpy.asarray(number + step * (index % 7)).astype(dtype) for index in range(count)]
    return values if kind == "array" else [value[()] for value in values]


def _dictionary(dtype, kind, weighted=False):
    summary = reporter.DictSummary()
    value, weight = _reported(dtype, 3.75, kind, 3), _reported(dtype, 2, kind, 2)
    for index in range(1000):
        x, w = value(index)["main/loss"], weight(index)["main/loss"]
        summary.add({"x": (x, w) if weighted else x, "array": numpy.ones(2)})
    saved = {}
    summary.serialize(serializers.DictionarySerializer(saved))
    return summary.make_statistics(), summary.compute_mean(), saved


def _resumed_dictionary(dtype):
    summary, saved = reporter.DictSummary(), {}
    for value in _values(dtype, 3.75, 300, "scalar", 1):
        summary.add({"x": value})
    summary.serialize(serializers.DictionarySerializer(saved))
    summary = reporter.DictSummary()
    summary.serialize(serializers.NpzDeserializer(saved))
    for value in _values(dtype, 3.75, 10, "scalar", 1):
        summary.add({"x": value})
    return summary.make_statistics()


SUMMARIES = (
    lambda dtype=DTYPE: _summarized(_values(dtype, 1, 5000, "scalar")),
    lambda dtype=DTYPE: _summarized(_values(dtype, 1, 5000, "array")),
    lambda dtype=DTYPE: _summarized(_values(dtype, 0.1, 5000, "scalar")),
    lambda dtype=DTYPE: _summarized(_values(dtype, 100, 3000, "scalar", 1)),
    lambda dtype=DTYPE: _summarized(_values(dtype, 100, 30, "array", 5)),
    lambda dtype=DTYPE: _summarized(_values(dtype, 3, 1, "scalar")),
    lambda dtype=DTYPE: _summarized(_values(dtype, 2, 300, "scalar"), _values(dtype, 1, 300, "scalar", 2)),
    lambda dtype=DTYPE: _summarized(_values(dtype, 2, 300, "array"), _values(dtype, 1, 300, "array", 2)),
    lambda dtype=DTYPE, h=h: _summarized(_values(dtype, 1, 300, "scalar", 1), [h(0.1)] * 300),
    lambda dtype=DTYPE: _summarized(_values(dtype, 1, 300, "scalar", 1), [2] * 300),
    lambda dtype=DTYPE: _resumed(_values(dtype, 1, 3000, "scalar", 0.1)),
    lambda dtype=DTYPE: _resumed(_values(dtype, 1, 3000, "array", 0.1)),
    lambda h=h: _summarized([h(0.1)] * 1000),
    lambda h=h: _summarized([h(100000)] * 3),
)


def _scoped(x):
    """Returns the names under which values are reported."""
    link, found = L.Linear(3, 2), []
    made = chainer.Reporter()
    made.add_observer("main", link)
    made.add_observers("main", [("/child", L.Linear(3, 2))])
    observation = {}
    with made.scope(observation):
        chainer.report({"x": x, "y": 1}, link)
        with chainer.report_scope({"z": 2}) as inner:
            found.append(inner)
        found.append(chainer.get_current_reporter() is made)
    return {
        key: value.array if isinstance(value, chainer.Variable) else value for key, value in observation.items()
    }, found


def _evaluated(dtype, kind, count=1000):
    """Returns the means of the values that a model reports over many batches."""
    link = L.Linear(3, 2)
    observe = _reported(dtype, 3.75, kind, 2)

    class Evaluator(extensions.Evaluator):
        def get_target(self, name):
            return target

    class Target(chainer.Chain):
        calls = 0

        def forward(self, x):
            chainer.report({"loss": observe(self.calls)["main/loss"], "one": numpy.asarray(1, dtype)}, self)
            self.calls += 1

    target = Target()
    data = [numpy.zeros(3, "f")] * count
    del link
    evaluator = extensions.Evaluator(chainer.iterators.SerialIterator(data, 1, repeat=False, shuffle=False), target)
    return evaluator()


def _logged(dtype, kind, interval=400, **options):
    log = extensions.LogReport(trigger=(interval, "iteration"), **options)
    text = io.StringIO()
    printed = extensions.PrintReport(["epoch", "iteration", "main/loss", "lr"], log, text)
    _, files, trainer = _trained(
        log,
        (printed, (interval, "iteration")),
        (extensions.observe_lr(), ONE_BY_ONE),
        observe=_reported(dtype, 3.75, kind, 2),
        iterations=2 * interval,
    )
    saved = {}
    trainer.get_extension("LogReport").serialize(serializers.DictionarySerializer(saved))
    found = [{key: value for key, value in entry.items() if key != "elapsed_time"} for entry in log.log]
    return found, text.getvalue().splitlines()[-2:], files


def _averaged(dtype, value, total, kind="scalar"):
    """Trains with MicroAverage, a quotient of two sums."""
    observe = {"n": numpy.asarray(value).astype(dtype), "d": numpy.asarray(total).astype(dtype)}
    if kind == "scalar":
        observe = {key: one[()] for key, one in observe.items()}
    seen, _, _ = _trained(
        extensions.MicroAverage("n", "d", "result", (400, "iteration")),
        observe=lambda _: dict(observe),
        iterations=800,
        look=lambda trainer: trainer.observation.get("result"),
    )
    return [one for one in seen if one is not None]


def _schedule(make):
    """Probes of a schedule: the learning rate after each iteration, for numbers of every form."""

    def rate(trainer):
        return float(trainer.updater.optimizer.lr)

    return (
        lambda h=h: _trained((make(h), ONE_BY_ONE), look=rate, lr=h(0.1), iterations=12)[0],
        lambda h=h: _trained((make(h), ONE_BY_ONE), look=rate, lr=h(0.1), iterations=6, resume=True)[0],
        lambda h=h: _trained((make(h), (3, "iteration")), look=rate, iterations=12)[0],
    )


def _fired(make, value=0.75, cycle=5, iterations=40):
    """Probes of a trigger: the iterations in which it fires."""

    def call(dtype, kind):
        fired = []
        marked = training.make_extension(trigger=make())(lambda trainer: fired.append(trainer.updater.iteration))
        _trained(marked, observe=_reported(dtype, value, kind, cycle), iterations=iterations)
        return fired

    return (*_each_kind(call), lambda: _saved_trigger(make()))


def _saved_trigger(trigger):
    saved = {}
    if hasattr(trigger, "serialize"):
        trigger.serialize(serializers.DictionarySerializer(saved))
    return saved


def _stopped(dtype, kind, **options):
    """Returns when EarlyStoppingTrigger ends a training, and the trigger's own values."""
    observe = _reported(dtype, 0.75, kind, 5)
    trigger = triggers.EarlyStoppingTrigger(
        (100, "iteration"), "main/loss", max_trigger=(1000, "iteration"), **options
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.Trainer(_Updater(lambda i: observe(i if i < 500 else 0)), trigger, folder)
        trainer.run(show_loop_exception_msg=False)
    return trainer.updater.iteration, trigger.best, trigger.count, trigger.get_training_length()


def _statistics(dtype):
    """Returns statistics of parameters and gradients."""
    link = L.Linear(3, 2, initialW=numpy.linspace(-1, 1, 6).reshape(2, 3).astype(dtype))
    link.name = "link"
    for param in link.params():
        param.grad = (param.array * 2 + 1).astype(param.dtype)
    seen, _, _ = _trained(
        extensions.ParameterStatistics(link, trigger=(100, "iteration")),
        iterations=100,
        look=lambda trainer: dict(trainer.observation),
    )
    return seen[-1]


def _sampled(dtype):
    """Returns the numbers that a plot of statistics shows."""
    import matplotlib

    matplotlib.use("Agg")
    link = L.Linear(3, 2, initialW=numpy.linspace(-1, 1, 6).reshape(2, 3).astype(dtype))
    for param in link.params():
        param.grad = (param.array * 2 + 1).astype(param.dtype)
    plot = extensions.VariableStatisticsPlot(link, max_sample_size=5, trigger=(30, "iteration"))
    # The plot is drawn once; only the sample depends on the dtype.
    _, files, _ = _trained((plot, ONE_BY_ONE), iterations=30 if dtype == "float32" else 29)
    return plot._samples.get_data(), files


def _plotted(dtype, kind):
    """Returns the numbers that a plot of observed values shows."""
    import matplotlib

    matplotlib.use("Agg")
    plot = extensions.PlotReport(["main/loss"], trigger=(400, "iteration"), filename="plot.png")
    _, files, _ = _trained(plot, observe=_reported(dtype, 3.75, kind, 2), iterations=400)
    saved = {}
    plot.serialize(serializers.DictionarySerializer(saved))
    return json.loads(str(saved["_plot_plot.png"])), files


def _bar(**options):
    text = io.StringIO()
    _trained(extensions.ProgressBar(update_interval=10, out=text, **options))
    return [line for line in text.getvalue().splitlines() if "iters/sec" not in line and "Estimated" not in line]


def _snapshot(make, loaded=None):
    """Probes of a snapshot: the names of its files, and the entries of the last one."""

    def probe():
        found = {}

        def look(trainer):
            for name in sorted(os.listdir(trainer.out)):
                if name not in found:
                    with numpy.load(os.path.join(trainer.out, name), allow_pickle=True) as archive:
                        found[name] = {key: archive[key] for key in sorted(archive) if "elapsed" not in key}

        _, files, _ = _trained((make(), (10, "iteration")), iterations=30)
        _trained((make(), (10, "iteration")), iterations=30, look=look)
        return files, found

    return probe


def _written(make):
    """Probes of a snapshot writer: the files that it has written."""

    def probe():
        with tempfile.TemporaryDirectory() as folder:
            writer = make(savefun=serializers.npz.save_npz)
            writer("snapshot", folder, {"x": numpy.arange(3)})
            writer.finalize()
            with numpy.load(os.path.join(folder, "snapshot")) as archive:
                return sorted(os.listdir(folder)), dict(archive)

    return probe


def _model(dtype):
    model = L.Classifier(L.Linear(3, 3))
    optimizer = chainer.optimizers.SGD(0.1)
    optimizer.setup(model)
    data = chainer.datasets.TupleDataset(
        numpy.linspace(-1, 1, 30).reshape(10, 3).astype(dtype), (numpy.arange(10) % 3).astype("i")
    )
    return model, optimizer, chainer.iterators.SerialIterator(data, 4, shuffle=False)


def _updated(make, steps=10):
    """Probes of an updater: parameters, states and observations after some updates."""

    def probe(dtype=DTYPE, h=h):
        model, optimizer, iterator = _model(dtype)
        updater = make(iterator, optimizer, h)
        observed = chainer.Reporter()
        observed.add_observer("main", model)
        for name, one in getattr(updater, "_models", {}).items():
            observed.add_observer(name, one)
        found = []
        with observed:
            for _ in range(steps):
                updater.update()
                found.append(
                    [updater.epoch, updater.is_new_epoch, updater.epoch_detail, updater.previous_epoch_detail]
                )
        saved = {}
        updater.serialize(serializers.DictionarySerializer(saved))
        updater.finalize()
        return (
            model,
            found,
            saved,
            updater.iteration,
            {key: chainer.as_array(v) for key, v in observed.observation.items()},
        )

    return probe


def _extended():
    """Returns the order, names and triggers of extensions."""
    calls = []

    class Extension(training.Extension):
        trigger = (15, "iteration")
        priority = training.PRIORITY_WRITER

        def initialize(self, trainer):
            calls.append("initialize")

        def __call__(self, trainer):
            calls.append([trainer.updater.iteration, trainer.elapsed_time > 0])

        def finalize(self):
            calls.append("finalize")

    function = training.make_extension((20, "iteration"), "function", finalizer=lambda: calls.append("end"))(
        lambda trainer: calls.append(trainer.updater.iteration)
    )
    extension = Extension()
    _trained(extension, function)
    return calls, extension.default_name, function.default_name


def _unchained(x):
    link = L.Linear(3, 2)
    with tempfile.TemporaryDirectory() as folder:
        trainer = training.Trainer(_Updater(lambda _: {"loss": F.sum(link(x))}), (3, "iteration"), folder)
        trainer.extend(extensions.unchain_variables())
        trainer.run()
        return trainer.observation["loss"]


def _graph(make):
    """Probes of a computational graph as text, without the numbers of its nodes."""

    def probe():
        found = []

        def observe(_):
            x = chainer.Variable(numpy.ones((1, 3), "f"), name="x")
            return {"loss": F.sum(x * 2)}

        class Updater(_Updater):
            def update(self):
                self.iteration += 1
                with chainer.using_config("keep_graph_on_report", True):
                    chainer.report(observe(0))

        with tempfile.TemporaryDirectory() as folder:
            trainer = training.Trainer(Updater(observe), (2, "iteration"), folder)
            trainer.extend(make())
            trainer.run()
            for name in sorted(os.listdir(folder)):
                with open(os.path.join(folder, name)) as file:
                    found.append([name, sorted(re.sub("[0-9]{6,}", "N", file.read()).split(";"))])
        return found

    return probe


def _failed(dtype):
    def spoil(trainer):
        trainer.updater.optimizer.target.b.array[...] = numpy.nan

    return _trained((training.make_extension()(spoil), ONE_BY_ONE), (extensions.FailOnNonNumber(), ONE_BY_ONE))


DICTIONARIES = (
    lambda dtype=DTYPE: _resumed_dictionary(dtype),
    *_each_kind(_dictionary),
    *_each_kind(lambda dtype, kind: _dictionary(dtype, kind, True)),
)

PROBES = {
    "chainer.reporter": {
        "Summary": SUMMARIES,
        "DictSummary": DICTIONARIES,
        "Reporter": lambda x=normal[2, 3]: _scoped(x),
        "report": lambda x=normal[2, 3]: _scoped(x),
        "report_scope": lambda x=normal[2, 3]: _scoped(x),
        "get_current_reporter": lambda x=normal[2, 3]: _scoped(x),
    },
    "chainer.training": {
        "Extension": _extended,
        "Trainer": lambda: _trained()[0],
        "Updater": lambda: training.Updater().connect_trainer(None),
        "get_trigger": lambda: [
            type(training.get_trigger(one)).__name__ for one in ((1, "epoch"), None, lambda trainer: True)
        ],
        "make_extension": _extended,
    },
    "chainer.training.extensions": {
        "DumpGraph": _graph(lambda: extensions.DumpGraph("loss", filename="graph.dot")),
        "Evaluator": _each_kind(_evaluated),
        "ExponentialShift": (
            *_schedule(lambda h: extensions.ExponentialShift("lr", h(0.9), target=h(0.05))),
            *_schedule(lambda h: extensions.ExponentialShift("lr", h(1.1), h(0.2), h(0.3))),
        ),
        "FailOnNonNumber": lambda dtype=DTYPE: _failed(dtype),
        "InverseShift": (
            *_schedule(lambda h: extensions.InverseShift("lr", h(0.1), h(0.75), h(0.2), h(0.15))),
            *_schedule(lambda h: extensions.InverseShift("lr", h(0.1), h(-0.75), target=h(0.15))),
        ),
        "LinearShift": _schedule(lambda h: extensions.LinearShift("lr", (h(0.1), h(0.01)), (h(2), h(8)))),
        "LogReport": (*_each_kind(_logged), lambda: _logged(numpy.dtype("float16"), "scalar", 3000)),
        "MicroAverage": (
            lambda dtype=DTYPE: _averaged(dtype, 13, 20),
            lambda dtype=DTYPE: _averaged(dtype, 13, 20, "array"),
            lambda dtype=DTYPE: _averaged(dtype, 100, 120),
        ),
        "MultistepShift": _schedule(lambda h: extensions.MultistepShift("lr", h(0.1), [3, 6], h(0.1))),
        "ParameterStatistics": lambda dtype=DTYPE: _statistics(dtype),
        "PlotReport": lambda dtype=DTYPE: _plotted(dtype, "scalar"),
        "PolynomialShift": _schedule(lambda h: extensions.PolynomialShift("lr", h(0.75), h(20), h(0.2), h(0.1))),
        "PrintReport": lambda dtype=DTYPE: _logged(dtype, "scalar", keys=["main/loss"]),
        "ProgressBar": (lambda: _bar(training_length=(30, "iteration")), lambda: _bar(bar_length=10)),
        "StepShift": _schedule(lambda h: extensions.StepShift("lr", h(0.75), h(3), h(0.2), h(0.1))),
        "VariableStatisticsPlot": lambda dtype=DTYPE: _sampled(dtype),
        "WarmupShift": _schedule(lambda h: extensions.WarmupShift("lr", h(0.01), h(8), h(0.1))),
        "observe_lr": lambda h=h: _trained(
            (extensions.observe_lr(), ONE_BY_ONE), lr=h(0.1), iterations=2, look=lambda trainer: trainer.observation
        )[0],
        "observe_value": lambda h=h: _trained(
            (extensions.observe_value("x", lambda trainer: h(0.1)), ONE_BY_ONE),
            iterations=2,
            look=lambda trainer: trainer.observation,
        )[0],
        "snapshot": _snapshot(lambda: extensions.snapshot(n_retains=2)),
        "snapshot_object": _snapshot(
            lambda: extensions.snapshot_object(L.Linear(3, 2, initialW=0.5), "{.updater.iteration}")
        ),
        "unchain_variables": lambda x=normal[4, 3]: _unchained(x),
    },
    "chainer.training.extensions.snapshot_writers": {
        name: _written(getattr(snapshot_writers, name))
        for name in ("SimpleWriter", "ThreadWriter", "ThreadQueueWriter")
    },
    "chainer.training.triggers": {
        "BestValueTrigger": _fired(
            lambda: triggers.BestValueTrigger("main/loss", lambda best, new: new > best, (2, "epoch"))
        )
        + _fired(
            lambda: triggers.BestValueTrigger("main/loss", lambda best, new: new != best, (300, "iteration")),
            value=3.75,
            iterations=600,
        ),
        "EarlyStoppingTrigger": (
            *_each_kind(lambda dtype, kind: _stopped(dtype, kind, patience=3)),
            *_each_kind(lambda dtype, kind: _stopped(dtype, kind, patients=2, mode="max")),
        ),
        "IntervalTrigger": _fired(lambda: triggers.IntervalTrigger(3, "iteration"))
        + _fired(lambda: triggers.IntervalTrigger(0.7, "epoch"))
        + (lambda h=h: _intervals(h),),
        "ManualScheduleTrigger": _fired(lambda: triggers.ManualScheduleTrigger([3, 7], "iteration"))
        + _fired(lambda: triggers.ManualScheduleTrigger([0.75, 2.1], "epoch")),
        "MaxValueTrigger": _fired(lambda: triggers.MaxValueTrigger("main/loss", (3, "iteration"))),
        "MinValueTrigger": _fired(lambda: triggers.MinValueTrigger("main/loss", (3, "iteration"))),
        "OnceTrigger": _fired(lambda: triggers.OnceTrigger()),
        "TimeTrigger": lambda: _saved_trigger(triggers.TimeTrigger(2.5)),
    },
    "chainer.training.updaters": {
        "StandardUpdater": (
            _updated(lambda iterator, optimizer, h: updaters.StandardUpdater(iterator, optimizer)),
            _updated(lambda iterator, optimizer, h: updaters.StandardUpdater(iterator, optimizer, loss_scale=h(128))),
            _updated(
                lambda iterator, optimizer, h: updaters.StandardUpdater(iterator, optimizer, auto_new_epoch=False)
            ),
        ),
        "ParallelUpdater": _updated(
            lambda iterator, optimizer, h: updaters.ParallelUpdater(
                iterator, optimizer, devices={"main": "@numpy", "second": "@numpy"}
            )
        ),
    },
}


def _intervals(h):
    """Trains with an interval that is a number of any form."""
    fired = []
    marked = training.make_extension(trigger=(h(3), "iteration"))(
        lambda trainer: fired.append(trainer.updater.iteration)
    )
    other = training.make_extension(trigger=(h(0.75), "epoch"))(
        lambda trainer: fired.append(trainer.updater.iteration)
    )
    _trained(marked, other, iterations=20)
    return fired


NEEDS = {
    "chainer.training.extensions.PlotReport": "matplotlib",
    "chainer.training.extensions.VariableStatisticsPlot": "matplotlib",
}

LEFT_OUT = {
    "chainer.training.extensions.snapshot_writers.ProcessQueueWriter": "starts a process, which has tests of its own",
    "chainer.training.extensions.snapshot_writers.ProcessWriter": "starts a process, which has tests of its own",
    "chainer.training.extensions.snapshot_writers.QueueWriter": "abstract",
    "chainer.training.extensions.snapshot_writers.StandardWriter": "abstract",
    "chainer.training.extensions.snapshot_writers.Writer": "abstract",
    "chainer.training.updaters.MultiprocessParallelUpdater": "needs several GPUs",
}
