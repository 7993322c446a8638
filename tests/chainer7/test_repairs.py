"""Repaired Chainer gives the results of Python 3.8 with NumPy 1.22: one test for each known fault.

Plain Chainer printed the expected numbers there. `test_same_as_reference` compares everything else.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import io
import warnings
from pathlib import Path

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
import pytest
from chainer import initializers, training
from chainer.training import extensions
from skips import not_installed

from rmsprop_graves._chainer7.repairs import REPAIRS, repairs_of

INSTALLED = [
    module
    for repair in REPAIRS
    for module in repair.modules.split()
    if importlib.util.find_spec(module.partition(".")[0]) is not None
]


def source_of(module):
    """Reads the installed source. Finding the module would import its package, whose requirements may be missing."""
    package, *names = module.split(".")
    folder = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    return folder.joinpath(*names).with_suffix(".py").read_text(encoding="utf-8")


# The table of repairs


@pytest.mark.parametrize("module", sorted(set(INSTALLED)))
def test_every_repair_changes_code_and_nothing_else(module):
    """Chainer's source has each text to replace; no line is added, and no string, such as a CUDA kernel, changes."""
    if module.startswith("chainer") and chainer.__version__ != "7.8.1" and module != "chainer.reporter":
        pytest.skip("the table is of Chainer 7.8.1: install that version")
    source = source_of(module)
    for repair in repairs_of(module):
        for old in repair.changes:
            assert old in source, old
    repaired = source
    for repair in repairs_of(module):
        repaired = repair.apply(repaired)
    assert repaired.count("\n") == source.count("\n")
    if not module.endswith("caffe_pb2"):
        assert texts_of(repaired) - {"#include <cupy/float16.cuh>"} == texts_of(source)


def texts_of(source):
    """Returns the strings of more than one word."""
    constants = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and len(value.split()) > 1}


def test_every_repair_names_a_version_and_a_symptom():
    """The documentation shows the table."""
    for repair in REPAIRS:
        assert all((repair.modules, repair.what, repair.since, repair.seen, repair.changes)), repair
        assert repair.since.split()[0] in (
            "Python",
            "NumPy",
            "SciPy",
            "CuPy",
            "setuptools",
            "protobuf",
            "onnx",
            "Chainer",
        )


# Silently wrong results


def summary_of(value, times, weight=1):
    """Returns the mean and standard deviation of a value that is reported many times."""
    summary = chainer.reporter.Summary()
    for _ in range(times):
        summary.add(value, weight)
    return tuple(map(float, summary.make_statistics()))


@pytest.mark.parametrize(
    ("value", "times", "mean", "deviation"),
    [
        (numpy.float32(0.1), 60_000, 0.10000000149011612, 7.9e-8),
        (numpy.float16(1), 5_000, 1, 0),
        (numpy.array(1, "f2"), 5_000, 1, 0),
        (numpy.int32(100_000), 3, 100_000, 0),
        (numpy.uint8(200), 300, 200, 0),
        (numpy.int8(-100), 300, -100, 0),
        (0.25, 3, 0.25, 0),
    ],
    ids=str,
)
def test_a_summary_is_right_for_every_dtype(value, times, mean, deviation):
    """Without the repair the sum has the value's dtype: the mean of ones is 0.41, the deviation NaN."""
    assert summary_of(value, times) == pytest.approx((mean, deviation), rel=1e-12, abs=1e-7)


@pytest.mark.parametrize("weight", [numpy.float16(0.5), numpy.uint8(200), numpy.array(3, "i1")], ids=str)
def test_weights_of_a_summary_do_not_overflow(weight):
    """Without the repair, sums of narrow weights overflow: means of 0 and 2.5 instead of 0.5."""
    summary = chainer.reporter.DictSummary()
    for _ in range(5_000):
        summary.add({"x": (0.5, weight)})
    assert float(summary.compute_mean()["x"]) == pytest.approx(0.5, rel=1e-12)


def log_of(folder, report, iterations, *others):
    """Trains a model that reports the same values in every iteration, and returns the log entry."""

    class Model(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l = L.Linear(1, 1)

        def forward(self, x):
            chainer.report(report, self)
            return F.sum(self.l(x))

    model = Model()
    optimizer = chainer.optimizers.SGD().setup(model)
    iterator = chainer.iterators.SerialIterator(numpy.ones((1, 1), "f"), 1)
    updater = training.updaters.StandardUpdater(iterator, optimizer)
    trainer = training.Trainer(updater, (iterations, "iteration"), str(folder))
    for other in others:
        trainer.extend(other)
    log = extensions.LogReport(trigger=(iterations, "iteration"))
    trainer.extend(log)
    trainer.run()
    return log.log[-1]


def test_a_log_of_float16_losses_has_the_right_mean(tmp_path):
    """Without the repair the mean of 4,000 losses of 1 is 0.512."""
    assert log_of(tmp_path, {"loss": numpy.float16(1)}, 4_000)["main/loss"] == 1


def test_an_evaluator_of_float16_accuracies_has_the_right_mean():
    """Without the repair the mean accuracy of 3,000 correct batches is 0.683."""
    model = chainer.Chain()
    iterator = chainer.iterators.SerialIterator(numpy.ones((3_000, 1), "f"), 1, repeat=False, shuffle=False)
    evaluator = extensions.Evaluator(
        iterator, model, eval_func=lambda x: chainer.report({"accuracy": numpy.float16(1)}, model)
    )
    assert evaluator()["main/accuracy"] == 1


@pytest.mark.parametrize(
    ("right", "total", "times"),
    [(numpy.uint8(13), numpy.uint8(20), 30), (numpy.float16(0.65), numpy.float16(1), 1_000)],
    ids=str,
)
def test_a_micro_average_does_not_wrap_around(tmp_path, right, total, times):
    """Without the repair small integers are added in their own dtype: 0.223, and 0.674 for float16."""
    average = extensions.MicroAverage("main/right", "main/total", "main/ratio", trigger=(times, "iteration"))
    found = log_of(tmp_path, {"right": right, "total": total}, times, average)["main/ratio"]
    assert found == pytest.approx(float(right) / float(total), rel=1e-12)


def test_observations_of_several_ranks_are_averaged_in_double_precision():
    """Without the repair the mean of four times 1,000 float16 ones is 0.512."""
    aggregator = importlib.import_module("chainermn.extensions.observation_aggregator")
    assert aggregator._average_2d([[numpy.float16(1)] * 1_000] * 4) == 1
    assert aggregator._average_2d([[numpy.ones(2, "f2")] * 3]).dtype == "f2"


def optimizer_of(optimizer, *values, dtype="f", shape=()):
    """Returns an optimizer of a model with parameters of this dtype and shape, whose gradients are the values."""
    model = chainer.Link()
    with model.init_scope():
        for i, value in enumerate(values):
            setattr(model, f"p{i}", chainer.Parameter(numpy.ones(shape, dtype)))
            getattr(model, f"p{i}").grad = numpy.full(shape, value, dtype)
    return optimizer.setup(model)


def test_clipping_of_float16_gradients_clips_them():
    """Without the repair the sum of squares overflows and the rate is zero: training stands still."""
    optimizer = optimizer_of(chainer.optimizers.SGD(), 20, 20, 20, dtype="f2", shape=(100,))
    chainer.optimizer_hooks.GradientClipping(1)(optimizer)
    for param in optimizer.target.params():
        numpy.testing.assert_array_equal(param.grad, numpy.full(100, 0.0577, "f2"))


def test_layerwise_rates_of_float16_parameters_are_finite():
    """Without the repair eps vanishes beside the norm of a gradient of 2^-16: the parameter becomes infinite."""
    optimizer = optimizer_of(chainer.optimizers.SGD(1.0), 2**-16, dtype="f2", shape=(1,))
    optimizer.target.p0.array[...] = 1.5
    optimizer.add_hook(chainer.optimizer_hooks.GradientLARS())
    optimizer.update()
    assert optimizer.target.p0.array == -22_896


def test_hyperparameters_that_are_numpy_scalars_widen_no_state():
    """Without the repair an eps of type numpy.float64 gives float32 parameters float64 states."""
    for name in ("SMORMS3", "MSVAG", "Adam", "RMSprop"):
        optimizer = optimizer_of(getattr(chainer.optimizers, name)(), 0.5, shape=(3,))
        for key, value in optimizer.hyperparam.get_dict().items():
            if isinstance(value, float):
                setattr(optimizer.hyperparam, key, numpy.float64(value))
        for _ in range(3):
            optimizer.update()
        param = optimizer.target.p0
        assert {array.dtype for array in param.update_rule.state.values()} == {numpy.dtype("f4")}, name


def test_a_rule_keeps_hyperparameters_that_can_be_copied_while_it_is_updated():
    """Chainer's rules get promoted hyperparameters during an update only; a user's own rules keep theirs."""
    seen = []

    class Watching(type(chainer.optimizers.SGD().create_update_rule())):
        def update_core_cpu(self, param):
            seen.append(self.hyperparam)
            copy.deepcopy(self)
            self.hyperparam.lr = numpy.float64(0.25)
            super().update_core_cpu(param)

    optimizer = optimizer_of(chainer.optimizers.SGD(numpy.float64(1)), 1, shape=(2,))
    param = optimizer.target.p0
    chainers = param.update_rule
    param.update_rule = Watching(optimizer.hyperparam)
    optimizer.update()
    assert seen == [param.update_rule.hyperparam]
    assert param.update_rule.hyperparam.lr == 0.25
    param.update_rule = chainers
    original, step = chainers.hyperparam, chainers.update_core_cpu
    chainers.update_core_cpu = lambda param: (seen.append(copy.deepcopy(chainers.hyperparam)), step(param))
    optimizer.update()
    assert chainers.hyperparam is original
    assert isinstance(seen[1], chainer.optimizer.Hyperparameter)


@pytest.mark.parametrize(
    ("name", "grad", "expected"), [("AdaGrad", 0, 1.0), ("SMORMS3", 0, 1.0), ("AdaDelta", 300, 0.88134765625)]
)
def test_a_zero_dimensional_float16_parameter_is_stepped_in_double_precision(name, grad, expected):
    """Without the repair eps vanishes in float16: 0 / 0 is NaN, and AdaDelta makes no step."""
    optimizer = optimizer_of(getattr(chainer.optimizers, name)(), grad, dtype="f2")
    with numpy.errstate(over="ignore"):
        for _ in range(30):
            optimizer.update()
    assert float(optimizer.target.p0.array) == expected


def test_walker_alias_draws_the_same_samples():
    """Without the repair the alias method rounds its thresholds to float32: different samples for the same seed."""
    numpy.random.seed(0)
    sampler = chainer.utils.WalkerAlias([1, 2, 3, 4, 5])
    assert sampler.sample(12).tolist() == SAMPLES


SAMPLES = [3, 4, 3, 3, 2, 3, 2, 4, 4, 3, 4, 3]


# Exceptions


def test_batch_normalization_of_several_ranks_can_be_copied():
    """On Python 3.14 copy.deepcopy of super() recurses for ever. The copy shares the communicator, as before."""
    pytest.importorskip("mpi4py", reason=not_installed("mpi4py"))
    links = importlib.import_module("chainermn.links")
    base = importlib.import_module("chainermn").CommunicatorBase
    communicator = type("Communicator", (base,), dict.fromkeys(base.__abstractmethods__))()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Chainer warns that it is experimental
        link = links.MultiNodeBatchNormalization(3, communicator, communication_backend="mpi")
    copied = copy.deepcopy({"a": link, "b": link})
    assert copied["a"] is copied["b"]
    assert copied["a"].comm is link.comm is communicator
    assert copied["a"].gamma is not link.gamma
    assert type(copied["a"]) is type(link)
    assert numpy.array_equal(copied["a"].avg_var, link.avg_var)


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2)])
def test_sparse_products_of_float16_work(shape):
    """SciPy no longer supports float16."""
    pytest.importorskip("scipy", reason=not_installed("scipy"))
    x = numpy.arange(4, dtype="f2").reshape(shape)
    sparse = chainer.utils.to_coo(x)
    y = F.sparse_matmul(sparse, x)
    assert y.dtype == "f2"
    numpy.testing.assert_array_equal(y.array, numpy.matmul(x, x))


def test_integer_variables_wrap_around():
    """Without the repair NumPy 2 refuses a Python number that is out of the dtype's range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (chainer.Variable(numpy.array([0, 5], "u1")) - 1).array.tolist() == [255, 4]
        assert (chainer.Variable(numpy.array([100], "i1")) + 200).array.tolist() == [44]


def test_padding_of_minus_one_is_the_largest_number_of_an_unsigned_dtype():
    """This holds for sequences and batches."""
    sequences = [numpy.array([1, 2], "u1"), numpy.array([3], "u1")]
    assert F.pad_sequence(sequences, padding=-1).array.tolist() == [[1, 2], [3, 255]]
    assert chainer.dataset.concat_examples(sequences, padding=-1).tolist() == [[1, 2], [3, 255]]


def test_a_label_of_minus_one_is_the_largest_number_of_an_unsigned_dtype(tmp_path):
    """The label -1 marks an image that the loss ignores."""
    image = pytest.importorskip("PIL.Image", reason=not_installed("PIL"))
    image.new("L", (2, 2)).save(tmp_path / "a.png")
    dataset = chainer.datasets.LabeledImageDataset([("a.png", -1)], str(tmp_path), label_dtype=numpy.uint8)
    assert dataset[0][1] == 255
    assert dataset[0][1].dtype == "u1"


@pytest.mark.parametrize("number", [numpy.float32, numpy.float64, numpy.array])
def test_normalizations_take_numpy_scalars(number):
    """Without the repair the scalars widen float32 arrays, and backward refuses the types."""
    x = chainer.Variable(numpy.random.RandomState(0).standard_normal((4, 2, 3)).astype("f"))
    one, zero = numpy.ones(2, "f"), numpy.zeros(2, "f")
    calls = [
        lambda: F.layer_normalization(x[:, :, 0], one, zero, eps=number(1e-3)),
        lambda: F.batch_normalization(x, one, zero, eps=number(1e-3), decay=number(0.5), axis=(0, 2)),
        lambda: F.batch_renormalization(
            x[:, :, 0], one, zero, number(1), number(0), number(1e-3), zero.copy(), one.copy()
        ),
        lambda: F.fixed_batch_normalization(x, one, zero, zero, one, eps=number(1e-3), axis=(0, 2)),
        lambda: F.local_response_normalization(x, k=number(2), alpha=number(1e-4), beta=number(0.75)),
        lambda: F.normalize(x, eps=number(1e-3)),
    ]
    for call in calls:
        x.cleargrad()
        y = call()
        F.sum(y * y).backward()
        assert (y.dtype, x.grad.dtype) == ("f4", "f4")


def test_chainermn_unpacks_gradients_that_were_sent_in_another_dtype():
    """NumPy 2 and CuPy 14 refuse copy=False if a copy is needed."""
    pytest.importorskip("mpi4py", reason=not_installed("mpi4py"))
    memory = importlib.import_module("chainermn.communicators._memory_utility")

    class Buffer:
        def to_device(self, array, size, offset, stream):
            array[...] = 3

    param = chainer.Parameter(numpy.zeros(2, "f"))
    param.grad = numpy.zeros(2, "f")
    memory.unpack_params([param], "grad", Buffer(), numpy.float16, False)
    assert param.grad.tolist() == [3, 3]


def test_a_variable_says_on_which_device_it_is():
    """NumPy 2 arrays have an attribute `device`, whose value "cpu" Chainer would print."""
    assert "device: CPU\n" in chainer.Variable(numpy.ones(2, "f")).debug_print()


def test_caffe_models_are_read_and_written(tmp_path):
    """protobuf 4 refuses the code that its compiler generated for version 3."""
    caffe = importlib.import_module("chainer.exporters.caffe")
    functions = importlib.import_module("chainer.links.caffe.caffe_function")

    class Net(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.l = L.Linear(3, 2)

        def forward(self, x):
            return F.relu(self.l(x))

    net, x = Net(), numpy.random.RandomState(0).standard_normal((1, 3)).astype("f")
    with chainer.using_config("train", False):
        caffe.export(net, [chainer.Variable(x)], str(tmp_path), True, "net")
    loaded = functions.CaffeFunction(str(tmp_path / "chainer_model.caffemodel"))
    name = next(name for name, child in loaded.namedlinks() if name.count("/") == 1 and name != "/")[1:]
    numpy.testing.assert_array_equal(getattr(loaded, name).W.array, net.l.W.array)


def test_onnx_models_are_written():
    """ONNX replaced onnx.mapping by functions; without the repair Chainer says that ONNX is not installed."""
    pytest.importorskip("onnx", reason=not_installed("onnx"))
    exporter = importlib.import_module("onnx_chainer")
    model = chainer.Sequential(L.Linear(3, 2), F.relu, lambda x: F.cast(x, numpy.float64))
    stream = io.BytesIO()
    x = numpy.ones((1, 3), "f")
    with chainer.using_config("train", False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = exporter.export(model, x, filename=stream).graph
    assert [node.op_type for node in graph.node] == ["Gemm", "Relu", "Cast"]
    assert graph.output[0].type.tensor_type.elem_type == 11


def test_a_deconvolution_has_a_gradient_of_its_weight_alone():
    """Without the repair it fails with every version of NumPy and Python: "not enough values to unpack"."""
    w = chainer.Parameter(numpy.ones((1, 1, 2, 2), "f"))
    F.sum(F.deconvolution_2d(numpy.ones((1, 1, 3, 3), "f"), w)).backward()
    assert w.grad.tolist() == [[[[9, 9], [9, 9]]]]


def test_repaired_functions_give_no_deprecation_warning():
    """Cases: numpy.fix, a positional argument `out`, and an assignment to an array's shape."""
    x = numpy.array([-1.5, 1.5], "f")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert F.fix(x).array.tolist() == [-1, 1]
        chainer.dataset.concat_examples([x, x[:1]], padding=0)
        F.sum(F.maxout(chainer.Variable(numpy.ones((2, 4), "f")), 2)).backward()
        link = L.Maxout(3, 2, 2, initialW=initializers.One(), initial_bias=lambda array: array.fill(7))
        assert link.linear.W.array.tolist() == numpy.ones((4, 3)).tolist()
        assert link.linear.b.array.tolist() == [7] * 4


# Functions that failed with any input


@pytest.mark.parametrize(("mode", "align_corners"), [("bilinear", True), ("bilinear", False), ("nearest", False)])
def test_resize_images_works(mode, align_corners):
    """Chainer computes the indices in numpy.float, which is gone. Resizing to the same size is the identity."""
    x = numpy.random.RandomState(0).standard_normal((1, 2, 3, 4)).astype("f4")
    same = chainer.functions.resize_images(x, (3, 4), mode=mode, align_corners=align_corners)
    numpy.testing.assert_allclose(same.array, x, rtol=1e-6)
    larger = chainer.functions.resize_images(x, (6, 8), mode=mode, align_corners=align_corners)
    assert larger.shape == (1, 2, 6, 8)
    assert larger.array.min() >= x.min()
    assert larger.array.max() <= x.max()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_as_strided_and_its_backward_work(dtype):
    """Windows of two elements slide over the array: inner elements occur twice, so their gradient is two."""
    x = chainer.Variable(numpy.arange(5, dtype=dtype))
    y = chainer.functions.as_strided(x, (4, 2), (1, 1), 0)
    numpy.testing.assert_array_equal(y.array, [[0, 1], [1, 2], [2, 3], [3, 4]])
    y.grad = numpy.ones_like(y.array)
    y.backward()
    numpy.testing.assert_array_equal(x.grad, numpy.array([1, 2, 2, 2, 1], dtype))


def test_categorical_log_prob_works():
    """The result is the logarithm of the probability of each row's category."""
    p = numpy.array([[0.25, 0.75], [0.5, 0.5]], "f4")
    log_p = chainer.distributions.Categorical(p).log_prob(numpy.array([1, 0], "i4"))
    numpy.testing.assert_allclose(log_p.array, numpy.log([0.75, 0.5]), rtol=1e-6)


def test_the_iterator_of_chainermn_returns_the_data():
    """Two ranks share one queue as their communicator. The batch size arrives as an array of one element."""
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
