"""The update of a whole model at once, held to Chainer's class and to the update of each parameter by itself."""

from __future__ import annotations

import copy
import gc
import io
import multiprocessing
import operator
import pickle
import tracemalloc
import warnings
import weakref
from types import SimpleNamespace

import chainer
import numpy
import pytest
from chainer import links as L
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.optimizers.rmsprop_graves import RMSpropGravesRule as ChainerRMSpropGravesRule
from chainer.optimizers.sgd import SGDRule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models import Arrays, OneByOne, arrays_of, assert_same_bits, mostly

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule, kernels
from rmsprop_graves.kernels import numpy as numpy_kernel
from rmsprop_graves.kernels import threads


@pytest.fixture(params=["numba", "numpy"])
def kernel(request, monkeypatch):
    """The name of each kernel in turn. Small arrays are divided among threads too."""
    if request.param == "numba":
        pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError)
    monkeypatch.setattr(kernels, "_on_cpu", None)
    monkeypatch.setattr(threads, "_num_threads", 2)
    monkeypatch.setattr(threads, "SPAN", 8)
    kernels.use_on_cpu(request.param)
    if request.param == "numba":
        monkeypatch.setattr(kernels.on_cpu().Table, "FEWEST", 1)
    return request.param


@pytest.fixture
def numba_kernel(monkeypatch):
    """The compiled kernel, in use."""
    module = pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError)
    monkeypatch.setattr(kernels, "_on_cpu", module)
    monkeypatch.setattr(threads, "_num_threads", 2)
    monkeypatch.setattr(module.Table, "FEWEST", 1)
    return module


class PerParameter(RMSpropGraves):
    """This package's optimizer without its plan."""

    def setup(self, link):
        """Sets the other plan in place."""
        super().setup(link)
        self._plan = OneByOne()
        return self


CLASSES = (RMSpropGraves, PerParameter, ChainerRMSpropGraves)
with_each_kernel = pytest.mark.usefixtures("kernel")


def copies_of(optimizer):
    """Copies of every array that an update may change, and what each rule counts."""
    arrays, times = {}, {}
    for path, param in optimizer.target.namedparams():
        rule = param.update_rule
        found = {"": param.array, "/grad": param.grad if param._grad_valid else None}
        if rule is not None:
            found.update((f"/{name}", state) for name, state in (rule.state or {}).items())
            if rule._fp32_param is not None:
                found["/fp32"] = rule._fp32_param.array
            times[path] = rule.t
        arrays.update((path + name, numpy.array(array)) for name, array in found.items() if array is not None)
    return arrays, times


def assert_same_copies(actual, expected):
    assert_same_bits(actual[0], expected[0])
    assert actual[1] == expected[1]


def gradients(*shapes, seed=0, dtype="f4"):
    rng = numpy.random.RandomState(seed)
    return [numpy.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def set_gradients(optimizer, seed):
    """Gives every parameter its own."""
    rng = numpy.random.RandomState(seed)
    for param in optimizer.target.params():
        param.grad = numpy.asarray(rng.standard_normal(param.shape), param.dtype)


def assert_all_train_alike(prepare, step, steps=6):
    """Sets the three classes up with `prepare(cls)`, steps them with `step(optimizer, t)`: the same after each."""
    optimizers = [prepare(cls) for cls in CLASSES]
    for t in range(steps):
        outcomes = [outcome_of(step, optimizer, t) for optimizer in optimizers]
        assert outcomes[0] == outcomes[1] == outcomes[2]
        ours, *others = map(copies_of, optimizers)
        for other in others:
            assert_same_copies(ours, other)
    return optimizers[0]


def outcome_of(call, *args):
    try:
        call(*args)
    except Exception as error:
        return type(error)
    return None


def reshape_in_place(array, shape):
    with warnings.catch_warnings():
        # NumPy 2.5 deprecates it.
        warnings.simplefilter("ignore", DeprecationWarning)
        array.shape = shape


def scaled(array, factor):
    """A new array in the same layout."""
    new = array.copy(order="K")
    new *= factor
    return new


# Any model, any events


class Halving:
    """Makes an update rule one that halves the gradient first."""

    def update_core(self, param):
        """Steps with half the gradient."""
        if param.grad is not None:
            param.grad = scaled(param.grad, 0.5)
        super().update_core(param)


class HalvingRule(Halving, RMSpropGravesRule):
    """This package's."""


class ChainersHalvingRule(Halving, ChainerRMSpropGravesRule):
    """Chainer's."""


class Subclass(numpy.ndarray):
    """An array that is not of NumPy's own type."""


def unaligned(array):
    new = numpy.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 1), 1)
    new[...] = array
    return new


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "contiguous": lambda array: array,
    "fortran": lambda array: array.copy(order="F"),
    "strided": lambda array: numpy.repeat(array, 2, axis=0)[::2] if array.ndim else array,
    "backwards": lambda array: array[::-1].copy()[::-1] if array.ndim else array,
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "subclass": lambda array: array.view(Subclass),
    "unaligned": unaligned,
    "read-only": read_only,
    "broadcast": lambda array: numpy.broadcast_to(numpy.asarray(array.sum(), array.dtype), array.shape),
}

# The optimizer that is being updated, and what hooks have recorded: a copied hook must find its own.
acting = SimpleNamespace(optimizer=None, log=None)


def place_of(optimizer, index):
    """One of the parameters, by any number."""
    found = [param for _, param in sorted(optimizer.target.namedparams(), key=operator.itemgetter(0))]
    return found[index % len(found)]


def scale_gradient(rule, param, other):
    if param.grad is not None:
        param.grad = scaled(param.grad, 2)


def scale_gradient_in_place(rule, param, other):
    if param.grad is not None:
        param.grad *= 0.5


def scale_array_of_other(rule, param, other):
    other.array[...] *= 0.5


def replace_array_of_other(rule, param, other):
    other.array = scaled(other.array, 0.5)


def replace_gradient_of_other(rule, param, other):
    if other.grad is not None:
        other.grad = scaled(other.grad, -2)


def replace_state_of_other(rule, param, other):
    replace_states(acting.optimizer, other, 0)


def set_lr_of_other(rule, param, other):
    other.update_rule.hyperparam.lr = 0.03


def set_lr_of_all(rule, param, other):
    acting.optimizer.lr *= 1.5


def toggle_other(rule, param, other):
    other.update_rule.enabled = not other.update_rule.enabled


def drop_rule_of_other(rule, param, other):
    other.update_rule = None


def record(rule, param, other):
    acting.log.append((rule.t, *copies_of(acting.optimizer)))


def refuse_the_second(rule, param, other):
    if rule.t == 2:
        raise RuntimeError("refused by a hook")


MEDDLINGS = {
    meddle.__name__: meddle
    for meddle in (
        scale_gradient,
        scale_gradient_in_place,
        scale_array_of_other,
        replace_array_of_other,
        replace_gradient_of_other,
        replace_state_of_other,
        set_lr_of_other,
        set_lr_of_all,
        toggle_other,
        drop_rule_of_other,
        record,
        refuse_the_second,
    )
}


class Meddler:
    """A rule's hook that can be copied and pickled."""

    name = "meddler"

    def __init__(self, meddling, other):
        """Takes the name of what it does, and to which parameter."""
        self.meddling = meddling
        self.other = other

    def __call__(self, rule, param):
        """Does it."""
        MEDDLINGS[self.meddling](rule, param, place_of(acting.optimizer, self.other))


def nothing():
    """Stands in for a method; it can be pickled."""


def build(cls, spec):
    """An optimizer of this class and a new model, the same at every call."""
    optimizer = cls(lr=1e-2, alpha=spec["alpha"], momentum=0.8, eps=1e-4)
    rng = numpy.random.RandomState(spec["seed"])
    inner = chainer.Chain()
    links = [chainer.Chain(), chainer.Link(), chainer.Link(), chainer.Link()]
    with links[0].init_scope():
        links[0].first = links[1]
        links[0].rest = chainer.ChainList(links[2], inner)
    with inner.init_scope():
        inner.last = links[3]
    buffers = {dtype: rng.standard_normal(64).astype(dtype) for dtype in ("f2", "f4", "f8")}
    params = []
    for i, one in enumerate(spec["params"]):
        array = numpy.asarray(rng.standard_normal(one["shape"]), one["dtype"])
        if one["memory"] == "registered before" and params:
            param = params[one["other"] % len(params)]
        elif one["memory"] == "not yet":
            param = chainer.Parameter(chainer.initializers.Constant(0.5, one["dtype"]))
        elif one["memory"] == "in a buffer":
            array = buffers[one["dtype"]][one["other"] :][: array.size].reshape(array.shape)
            param = chainer.Parameter(array)
        else:
            param = chainer.Parameter(LAYOUTS[one["layout"]](array))
        params.append(param)
        with links[one["link"]].init_scope():
            setattr(links[one["link"]], f"p{i}", param)
    optimizer.setup(links[0])
    for param, one in zip(params, spec["params"]):
        rule = param.update_rule
        if rule is None:  # of a parameter that was registered before
            continue
        if one["special"] in MEDDLINGS:
            if not (rule._hookable._pre_update_hooks or rule._hookable._post_update_hooks):
                rule.add_hook(Meddler(one["special"], one["other"]), timing=one["timing"])
        elif one["special"] == "subclassed rule":
            halving = ChainersHalvingRule if cls is ChainerRMSpropGraves else HalvingRule
            param.update_rule = halving(optimizer.hyperparam)
        elif one["special"] == "rule of another":
            param.update_rule = SGDRule(lr=0.01)
        elif one["special"] == "disabled":
            rule.enabled = False
        elif one["special"] == "no rule":
            param.update_rule = None
        elif one["special"] == "own lr":
            rule.hyperparam.lr = 0.05
        elif one["special"] == "own others":
            rule.hyperparam.momentum, rule.hyperparam.eps, rule.hyperparam.alpha = 0.5, 1e-2, 0.75
        elif one["special"] == "fp32 update":
            rule.use_fp32_update()
        elif one["special"] == "loss scale":
            param._loss_scale = 4.0
    if spec["may have no gradient"]:
        optimizer.reallocate_cleared_grads = nothing
    return optimizer


def give_gradients(optimizer, spec, step):
    """Each parameter its own of this step, laid out as its specification says."""
    rng = numpy.random.RandomState(spec["seed"] + step + 1)
    params = dict(optimizer.target.namedparams())
    for (_, param), one in zip(sorted(params.items()), spec["params"]):
        if param.array is None or one["gradient"] == "none":
            param.cleargrad()
            continue
        grad = numpy.asarray(rng.standard_normal(param.shape)).astype(param.dtype)
        other = place_of(optimizer, one["other"])
        if one["gradient"] == "an array of the model" and other.array is not None:
            if (other.shape, other.dtype) == (param.shape, param.dtype):
                grad = other.array
        elif one["gradient"] == "a state of the model":
            state = (getattr(other.update_rule, "state", None) or {}).get("delta")
            if state is not None and other is not param and (state.shape, state.dtype) == (grad.shape, grad.dtype):
                grad = state
        elif one["gradient"] == "a variable":
            param.grad_var = chainer.Variable(grad)
            continue
        else:
            grad = LAYOUTS.get(one["gradient"], numpy.asarray)(grad)
        param.grad = grad


# Events between updates: each takes an optimizer, one of its parameters and a number. One that returns an
# optimizer goes on with that.


def replace_array(optimizer, param, number):
    param.array = scaled(param.array, 0.5)


def replace_data(optimizer, param, number):
    param.data = scaled(param.data, 0.5)


def replace_states(optimizer, param, number):
    state = param.update_rule.state
    for name, factor in (("n", 1.5), ("g", 0.5), ("delta", -0.5)):
        state[name] = scaled(state[name], factor)


def replace_one_state(optimizer, param, number):
    name = ("n", "g", "delta")[number % 3]
    state = param.update_rule.state
    state[name] = scaled(state[name], {"n": 1.5, "g": 0.5, "delta": 0.5}[name])


def forget_state(optimizer, param, number):
    param.update_rule._state = None


def init_state(optimizer, param, number):
    if param.array is not None:
        param.update_rule._state = {}
        param.update_rule.init_state(param)


def toggle(optimizer, param, number):
    param.update_rule.enabled = not param.update_rule.enabled


def set_lr(optimizer, param, number):
    optimizer.lr = 0.001 * (number + 1)


def set_lr_of_rule(optimizer, param, number):
    param.update_rule.hyperparam.lr = 0.002 * (number + 1)


def unset_lr_of_rule(optimizer, param, number):
    vars(param.update_rule.hyperparam).pop("lr", None)


def add_hook(optimizer, param, number):
    param.update_rule.add_hook(Meddler(sorted(MEDDLINGS)[number % len(MEDDLINGS)], number))


def remove_hook(optimizer, param, number):
    param.update_rule.remove_hook("meddler")


def use_other_kernel(optimizer, param, number):
    kernels._on_cpu = numpy_kernel if number % 2 else None


def use_other_threads(optimizer, param, number):
    kernels.set_num_threads(1 + number % 3)


def reshape_all(optimizer, param, number):
    for array in (param.array, *param.update_rule.state.values()):
        reshape_in_place(array, (1, *array.shape))


def reshape_array_alone(optimizer, param, number):
    reshape_in_place(param.array, (1, *param.shape))


def copyparams(optimizer, param, number):
    other = copy.deepcopy(optimizer.target)
    for theirs in other.params():
        if theirs.array is not None:
            theirs.array[...] *= 0.5
    optimizer.target.copyparams(other)


def go_on_with_deepcopy(optimizer, param, number):
    return copy.deepcopy(optimizer)


def go_on_with_pickled(optimizer, param, number):
    return pickle.loads(pickle.dumps(optimizer))


def has_every_state(optimizer):
    """Where one is missing, Chainer fails to load it and leaves states of one float32 element behind."""
    return all(getattr(param.update_rule, "state", None) for param in optimizer.target.params())


def save_and_load(optimizer, param, number):
    if not has_every_state(optimizer):
        return
    saved = [io.BytesIO(), io.BytesIO()]
    for file, thing in zip(saved, (optimizer, optimizer.target)):
        chainer.serializers.save_npz(file, thing)
    param.array = scaled(param.array, 3)
    param.update_rule._state = None
    for file, thing in zip(saved, (optimizer, optimizer.target)):
        file.seek(0)
        chainer.serializers.load_npz(file, thing)


def save_and_load_dictionary(optimizer, param, number):
    if not has_every_state(optimizer):
        return
    serializer = chainer.serializers.DictionarySerializer()
    optimizer.serialize(serializer)
    optimizer.serialize(chainer.serializers.NpzDeserializer(serializer.target))


def to_device(optimizer, param, number):
    optimizer.target.to_device("@numpy")


def lock(optimizer, param, number):
    param.array.flags.writeable = False


def unlock(optimizer, param, number):
    param.array.flags.writeable = True


def set_loss_scale(optimizer, param, number):
    param._loss_scale = (None, 2.0, 0.5)[number % 3]


def replace_rule(optimizer, param, number):
    param.update_rule = optimizer.create_update_rule()


def share_rule(optimizer, param, number):
    other = place_of(optimizer, number)
    if (
        param.array is not None
        and other.array is not None
        and (other.shape, other.dtype) == (param.shape, param.dtype)
    ):
        param.update_rule = other.update_rule


def initialize(optimizer, param, number):
    if param.array is None:
        param.initialize((2, 3))


EVENTS = {
    event.__name__: event
    for event in (
        replace_array,
        replace_data,
        replace_states,
        replace_one_state,
        forget_state,
        init_state,
        toggle,
        set_lr,
        set_lr_of_rule,
        unset_lr_of_rule,
        add_hook,
        remove_hook,
        use_other_kernel,
        use_other_threads,
        reshape_all,
        reshape_array_alone,
        copyparams,
        go_on_with_deepcopy,
        go_on_with_pickled,
        save_and_load,
        save_and_load_dictionary,
        to_device,
        lock,
        unlock,
        set_loss_scale,
        replace_rule,
        share_rule,
        initialize,
    )
}

SPECIALS = [
    "subclassed rule",
    "rule of another",
    "disabled",
    "no rule",
    "own lr",
    "own others",
    "fp32 update",
    "loss scale",
]


def models(dtypes):
    param = st.fixed_dictionaries(
        {
            "shape": st.sampled_from([(3,), (2, 3), (17,), (1,), (), (0,), (2, 0), (2, 1, 2), (5, 7)]),
            "dtype": mostly("f4", *dtypes),
            "layout": mostly("contiguous", *sorted(set(LAYOUTS) - {"broadcast"})),
            "memory": mostly("own", "registered before", "in a buffer", "not yet"),
            "gradient": mostly(
                "own",
                *sorted(set(LAYOUTS) - {"byte-swapped"}),  # Chainer wants the parameter's dtype
                "none",
                "an array of the model",
                "a state of the model",
                "a variable",
            ),
            "special": st.one_of(
                st.just("nothing"),
                st.sampled_from(sorted(MEDDLINGS)),
                st.sampled_from(SPECIALS),
            ),
            "timing": st.sampled_from(["pre", "post"]),
            "link": st.integers(0, 3),
            "other": st.integers(0, 7),
        }
    )
    event = st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 7), st.integers(0, 11))
    return st.fixed_dictionaries(
        {
            "params": st.lists(param, min_size=1, max_size=9),
            "events": st.lists(st.lists(event, max_size=2), min_size=3, max_size=6),
            "alpha": st.sampled_from([0.9, 0.95, 0.5]),
            "may have no gradient": mostly(False, True),
            "seed": st.integers(0, 1000),
        }
    )


def update(optimizer, log):
    acting.optimizer, acting.log = optimizer, log
    try:
        optimizer.update()
    finally:
        acting.optimizer = None


def variance_is_sound(optimizer):
    """Whether rounding has left Chainer's n - g * g positive: what is not, it takes the root of as it is."""
    states = (getattr(param.update_rule, "state", None) or {} for param in optimizer.target.params())
    return all((state["n"] - state["g"] * state["g"] >= 0).all() for state in states if "n" in state)


def is_rounded_as_ours(spec):
    """Chainer computes float32 arrays of no dimensions in float64."""
    return all(one["shape"] for one in spec["params"])


def has_misfits(optimizer):
    """Whether a rule has states of another shape than its parameter: Chainer fails half-way, or broadcasts."""
    return any(
        state.shape != param.shape
        for param in optimizer.target.params()
        for state in (getattr(param.update_rule, "state", None) or {}).values()
        if param.array is not None
    )


def states_of(optimizer):
    """Copies of all but the gradients, which hooks may change before an update fails."""
    arrays, times = copies_of(optimizer)
    return {name: array for name, array in arrays.items() if not name.endswith("/grad")}, times


def train_through_events(spec, *classes):
    """Trains the classes side by side: the same events, errors, records of hooks, bits and times after each step."""
    optimizers = [build(cls, spec) for cls in classes]
    for step, events in enumerate(spec["events"]):
        for name, place, number in events:
            outcomes = []
            for i, optimizer in enumerate(optimizers):
                error = None
                try:
                    optimizers[i] = EVENTS[name](optimizer, place_of(optimizer, place), number) or optimizer
                except Exception as raised:
                    error = type(raised)
                outcomes.append(error)
            assert len(set(outcomes)) == 1, (name, outcomes)
        logs, outcomes = [], []
        for optimizer in optimizers:
            give_gradients(optimizer, spec, step)
        before = states_of(optimizers[0])
        for optimizer in optimizers:
            logs.append([])
            outcomes.append(outcome_of(update, optimizer, logs[-1]))
        ours, other = optimizers
        if outcomes[0] is ValueError and has_misfits(ours):
            assert_same_copies(states_of(ours), before)
            return
        if classes[1] is ChainerRMSpropGraves and not variance_is_sound(other):
            return
        assert outcomes[0] == outcomes[1], step
        assert [t for t, *_ in logs[0]] == [t for t, *_ in logs[1]]
        for (_, *recorded), (_, *others) in zip(*logs):
            assert_same_copies(recorded, others)
        assert_same_copies(copies_of(ours), copies_of(other))


any_model = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@any_model
@given(spec=models(("f2", "f4", "f8")))
def test_any_model_trains_as_with_each_parameter_updated_by_itself(kernel, spec):
    """Whatever its parameters, rules and hooks, and whatever happens to it between updates."""
    kernels.use_on_cpu(kernel)
    train_through_events(spec, RMSpropGraves, PerParameter)


@any_model
@given(spec=models(("f4", "f8")).filter(is_rounded_as_ours))
def test_any_model_trains_as_with_chainers_class(kernel, spec):
    """In float32 and float64, as long as rounding leaves Chainer's variance positive."""
    kernels.use_on_cpu(kernel)
    train_through_events(spec, RMSpropGraves, ChainerRMSpropGraves)


# Arrays that are replaced behind the optimizer's back


def two_layers(cls):
    """An optimizer of a Chain of two layers with biases, whose weights are always the same."""
    random = numpy.random.RandomState(0)
    model = chainer.Chain()
    with model.init_scope():
        model.l1 = L.Linear(3, 4, initialW=random.randn(4, 3), initial_bias=random.randn(4))
        model.l2 = L.Linear(4, 2, initialW=random.randn(2, 4), initial_bias=random.randn(2))
    return cls(lr=1e-2).setup(model)


def array_by_array(optimizer):
    optimizer.target.l1.W.array = optimizer.target.l1.W.array * numpy.float32(0.5)


def array_by_data(optimizer):
    optimizer.target.l2.b.data = optimizer.target.l2.b.data * numpy.float32(0.5)


def array_of_another_shape(optimizer):
    param = optimizer.target.l1.W
    param.array = numpy.ones((5, 3), "f4")
    param.update_rule._state = None


def states_by_views_of_a_buffer(optimizer):
    for param in optimizer.target.params():
        for name, state in param.update_rule.state.items():
            shared = numpy.frombuffer(bytearray(state.nbytes + 8), "f4")[2:].reshape(state.shape)
            shared[...] = state * numpy.float32(0.5)
            param.update_rule.state[name] = shared


def states_by_init_state(optimizer):
    rule = optimizer.target.l1.b.update_rule
    rule._state = {}
    rule.init_state(optimizer.target.l1.b)


def device_by_to_cpu(optimizer):
    optimizer.target.to_cpu()


def device_by_to_device(optimizer):
    optimizer.target.to_device("@numpy")


def values_by_copyparams(optimizer):
    optimizer.target.copyparams(two_layers(ChainerRMSpropGraves).target)


def arrays_by_npz(optimizer):
    other = two_layers(ChainerRMSpropGraves)
    for seed in range(2):
        set_gradients(other, seed + 100)
        other.update()
    for thing, loaded in ((other, optimizer), (other.target, optimizer.target)):
        file = io.BytesIO()
        chainer.serializers.save_npz(file, thing)
        file.seek(0)
        chainer.serializers.load_npz(file, loaded)


def states_by_npz_alone(optimizer):
    """Those of a rule that has none yet are new arrays."""
    file = io.BytesIO()
    chainer.serializers.save_npz(file, optimizer)
    file.seek(0)
    for param in optimizer.target.params():
        param.update_rule = optimizer.create_update_rule()
    chainer.serializers.load_npz(file, optimizer)


def shapes_in_place(optimizer):
    param = optimizer.target.l1.W
    for array in (param.array, *param.update_rule.state.values()):
        reshape_in_place(array, (3, 4))


def shape_of_the_array_alone(optimizer):
    reshape_in_place(optimizer.target.l1.W.array, (3, 4))


def shape_of_a_state_alone(optimizer):
    reshape_in_place(optimizer.target.l1.W.update_rule.state["n"], (3, 4))


def sizes_in_place(optimizer):
    param = optimizer.target.l1.b
    for array in (param.array, *param.update_rule.state.values()):
        array.resize((1000,), refcheck=False)


def memory_in_place(optimizer):
    for array in arrays_of(optimizer).values():
        shape = array.shape
        values = array.copy()
        array.resize((100_000,), refcheck=False)
        array.resize(shape, refcheck=False)
        array[...] = values


def hyperparameters_by_chainers(optimizer):
    rule = optimizer.target.l1.W.update_rule
    rule.hyperparam = chainer.optimizer.Hyperparameter(optimizer.hyperparam)
    rule.hyperparam.lr = 0.5


def hyperparameters_by_computed_ones(optimizer):
    rule = optimizer.target.l1.W.update_rule

    class Computed(type(rule.hyperparam)):
        lr = property(lambda self: 10 * self.parent.lr)

    rule.hyperparam = Computed(optimizer.hyperparam)


def method_of_a_rule(optimizer):
    rule = optimizer.target.l1.W.update_rule
    original = rule.update_core

    def update_core(param):
        param.grad *= 0.5
        original(param)

    rule.update_core = update_core


def method_of_a_parameter(optimizer):
    param = optimizer.target.l2.W
    original = param.update

    def update():
        original()
        original()

    param.update = update


def link_by_another(optimizer):
    del optimizer.target.l1
    with optimizer.target.init_scope():
        optimizer.target.l1 = L.Linear(3, 4, initialW=0.5)
    for param in optimizer.target.l1.params():
        param.update_rule = optimizer.create_update_rule()


def link_by_its_repetition(optimizer):
    repeated = optimizer.target.l1.repeat(2, mode="copy")
    del optimizer.target.l1
    with optimizer.target.init_scope():
        optimizer.target.l1 = repeated


def rule_by_another(optimizer):
    optimizer.target.l2.W.update_rule = optimizer.create_update_rule()


def rules_swapped(optimizer):
    one, other = optimizer.target.l1.b, optimizer.target.l2.b
    one.update_rule, other.update_rule = optimizer.create_update_rule(), one.update_rule
    other.update_rule._state = None


def kernel_by_the_other(optimizer):
    name = kernels.on_cpu().__name__
    kernels._on_cpu = None if name.endswith("numpy") else numpy_kernel


@with_each_kernel
@pytest.mark.filterwarnings("ignore:to_cpu is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "replace",
    [
        array_by_array,
        array_by_data,
        array_of_another_shape,
        states_by_views_of_a_buffer,
        states_by_init_state,
        values_by_copyparams,
        device_by_to_cpu,
        device_by_to_device,
        arrays_by_npz,
        states_by_npz_alone,
        shapes_in_place,
        shape_of_the_array_alone,
        shape_of_a_state_alone,
        sizes_in_place,
        memory_in_place,
        hyperparameters_by_chainers,
        hyperparameters_by_computed_ones,
        method_of_a_rule,
        method_of_a_parameter,
        link_by_another,
        link_by_its_repetition,
        rule_by_another,
        rules_swapped,
        kernel_by_the_other,
    ],
    ids=lambda replace: replace.__name__.replace("_", " "),
)
def test_what_is_replaced_between_updates_is_seen_by_the_very_next(replace):
    """With Chainer's bits or Chainer's error, and nothing is written into arrays that are no longer the model's."""
    optimizers = [two_layers(cls) for cls in CLASSES]
    for seed in range(3):
        for optimizer in optimizers:
            set_gradients(optimizer, seed)
            optimizer.update()
    given_up = []
    for optimizer in optimizers:
        held = arrays_of(optimizer)
        replace(optimizer)
        left = {id(array) for array in arrays_of(optimizer).values()}
        given_up += [(array, array.copy()) for array in held.values() if id(array) not in left]
    for seed in range(3, 6):
        outcomes = []
        for optimizer in optimizers:
            set_gradients(optimizer, seed)
        before = states_of(optimizers[0])
        for optimizer in optimizers:
            outcomes.append(outcome_of(optimizer.update))
        assert outcomes[0] is outcomes[1] is outcomes[2]
        if has_misfits(optimizers[0]):
            assert outcomes[0] is ValueError
            assert_same_copies(states_of(optimizers[0]), before)
            break
        copies = [copies_of(optimizer) for optimizer in optimizers]
        assert_same_copies(copies[0], copies[1])
        assert_same_copies(copies[0], copies[2])
    for array, before in given_up:
        numpy.testing.assert_array_equal(array, before)


@with_each_kernel
@pytest.mark.parametrize("updates", [0, 1, 3])
def test_states_in_the_shared_memory_of_processes_are_written_there(updates):
    """As ChainerRL puts them there: each state entry is made a view of a RawArray after init_state."""
    raws = {}

    def prepare(cls):
        optimizer = two_layers(cls)
        for seed in range(updates):
            set_gradients(optimizer, seed)
            optimizer.update()
        for path, param in optimizer.target.namedparams():
            rule = param.update_rule
            if rule.state is None:
                rule._state = {}
                rule.init_state(param)
            for name, state in rule.state.items():
                raw = multiprocessing.RawArray("f", state.size)
                numpy.frombuffer(raw, "f4")[:] = state.ravel()
                rule.state[name] = numpy.frombuffer(raw, "f4").reshape(state.shape)
                raws[cls, path, name] = raw
        return optimizer

    def step(optimizer, t):
        set_gradients(optimizer, 10 + t)
        optimizer.update()
        for path, param in optimizer.target.namedparams():
            for name, state in param.update_rule.state.items():
                seen = numpy.frombuffer(raws[type(optimizer), path, name], "f4")
                numpy.testing.assert_array_equal(seen, state.ravel())
                assert seen.any()

    assert_all_train_alike(prepare, step)


@with_each_kernel
@pytest.mark.parametrize("locked", [0, 1, 3])
def test_an_array_made_read_only_is_refused_as_chainer_refuses_it(locked):
    """The parameter keeps its value, those before it are stepped and counted, and those after it are not."""
    before = {}

    def step(optimizer, t):
        param = place_of(optimizer, locked)
        if t == 3:
            param.array.flags.writeable = False
            before[type(optimizer)] = param.array.copy()
        set_gradients(optimizer, t)
        try:
            optimizer.update()
        finally:
            if t >= 3:
                numpy.testing.assert_array_equal(param.array, before[type(optimizer)])

    ours = assert_all_train_alike(two_layers, step)
    assert outcome_of(step, ours, 6) is ValueError
    times = [param.update_rule.t for param in ours.target.params()]
    assert times == [7] * (locked + 1) + [3] * (3 - locked)


@with_each_kernel
@pytest.mark.parametrize("state", ["n", "g", "delta"])
def test_a_state_made_read_only_is_not_written(state):
    """It is refused as Chainer refuses it, and those before it are stepped and counted."""
    optimizer = two_layers(RMSpropGraves)
    for seed in range(3):
        set_gradients(optimizer, seed)
        optimizer.update()
    params = list(optimizer.target.params())
    locked = params[2].update_rule.state[state]
    locked.flags.writeable = False
    before = locked.copy()
    set_gradients(optimizer, 3)
    with pytest.raises(ValueError, match="read-only"):
        optimizer.update()
    assert_same_bits({"": locked}, {"": before})
    assert [param.update_rule.t for param in params] == [4, 4, 4, 3]


@with_each_kernel
def test_a_missing_hyperparameter_is_noticed_when_its_turn_comes():
    """The parameters before it are stepped, and it and those after it are not, as on Chainer's class."""
    ends = []
    for cls in CLASSES:
        optimizer = two_layers(cls)
        for seed in range(3):
            set_gradients(optimizer, seed)
            optimizer.update()
        rules = [param.update_rule for param in optimizer.target.params()]
        rules[0].hyperparam.lr = 0.5
        del optimizer.hyperparam.lr
        before = copies_of(optimizer)[0]
        set_gradients(optimizer, 3)
        with pytest.raises(AttributeError, match="lr"):
            optimizer.update()
        after = copies_of(optimizer)[0]
        moved = [path for path, _ in optimizer.target.namedparams() if (before[path] != after[path]).any()]
        ends.append((moved, [rule.t for rule in rules]))
    assert ends[0] == ends[1] == ends[2]
    assert ends[0][1] == [4, 4, 3, 3]
    assert len(ends[0][0]) == 1


@with_each_kernel
def test_a_subclass_may_do_without_our_constructor():
    """As one that sets the hyperparameters its own way does on Chainer's class."""

    class Own(RMSpropGraves):
        def __init__(self):
            chainer.optimizer.GradientMethod.__init__(self)
            self.hyperparam = RMSpropGraves(lr=0.5).hyperparam

    ends = []
    for optimizer in (Own(), RMSpropGraves(lr=0.5)):
        optimizer.setup(Arrays(numpy.ones(5, "f4")))
        optimizer.target.set_grads(numpy.ones(5, "f4"))
        for _ in range(2):
            optimizer.update()
        ends.append(arrays_of(optimizer))
    assert_same_bits(*ends)


@with_each_kernel
def test_setup_lets_the_arrays_of_the_last_model_go():
    """They are no longer of any use to the optimizer."""
    model = Arrays(numpy.ones(5, "f4"))
    optimizer = RMSpropGraves().setup(model)
    for _ in range(2):
        model.set_grads(numpy.ones(5, "f4"))
        optimizer.update()
    array = weakref.ref(model.p0.array)
    optimizer.setup(Arrays(numpy.ones(5, "f4")))
    del model
    gc.collect()
    assert array() is None


@pytest.mark.parametrize("count", range(1, 6))
def test_few_parameters_and_many_have_the_same_bits(count):
    """The few are stepped one by one, as between parameters with hooks."""

    def prepare(cls):
        return cls().setup(Arrays(*gradients(*[(7,)] * count)))

    def step(optimizer, t):
        set_gradients(optimizer, t)
        optimizer.update()

    assert_all_train_alike(prepare, step)


@with_each_kernel
def test_a_negative_zero_is_not_zero():
    """As an lr it turns the sign of the zeros in delta, as it does on Chainer's class."""

    def prepare(cls):
        optimizer = two_layers(cls)
        optimizer.lr = optimizer.momentum = 0.0
        return optimizer

    def step(optimizer, t):
        optimizer.lr = (0.0, -0.0)[t % 2]
        set_gradients(optimizer, 0)
        optimizer.update()

    assert_all_train_alike(prepare, step)


@with_each_kernel
def test_gradients_of_every_kind_are_used():
    """Set by grad or by grad_var, read-only as a broadcast is, and the very array of another parameter."""

    def step(optimizer, t):
        set_gradients(optimizer, t)
        model = optimizer.target
        if t >= 2:
            model.l1.b.grad_var = chainer.Variable(model.l1.b.grad * 2)
            model.l2.b.grad = numpy.broadcast_to(numpy.float32(0.5 + t), (2,))
            model.l2.W.grad = numpy.asfortranarray(model.l2.W.grad)
        if t >= 4:
            model.l1.b.grad_var.array = numpy.arange(4, dtype="f4")
            model.l1.W.grad = model.l1.W.array

    assert_all_train_alike(two_layers, lambda optimizer, t: (step(optimizer, t), optimizer.update()), steps=8)


# Parameters of one model that have to do with one another


@with_each_kernel
def test_a_parameter_of_two_links_is_updated_twice():
    """As by Chainer: with the gradient that is there, each time from where the last left it."""

    def prepare(cls):
        optimizer = two_layers(cls)
        with optimizer.target.init_scope():
            optimizer.target.shared = optimizer.target.l1.W
        return optimizer

    ours = assert_all_train_alike(prepare, lambda optimizer, t: (set_gradients(optimizer, t), optimizer.update()))
    assert ours.target.l1.W.update_rule.t == 12
    assert ours.target.l1.b.update_rule.t == 6


@with_each_kernel
@pytest.mark.parametrize("overlap", [0, 1, 30])
def test_parameters_may_be_views_of_one_buffer(overlap):
    """Side by side or overlapping: what both hold is stepped by one and then by the other."""

    def prepare(cls):
        (buffer,) = gradients(200)
        optimizer = cls(lr=1e-2).setup(Arrays(*numpy.zeros((2, 100), "f4")))
        optimizer.target.p0.array = buffer[:100]
        optimizer.target.p1.array = buffer[100 - overlap : 200 - overlap]
        return optimizer

    assert_all_train_alike(prepare, lambda optimizer, t: (set_gradients(optimizer, t), optimizer.update()))


@with_each_kernel
@pytest.mark.parametrize(("reader", "read"), [(0, 1), (1, 0), (0, 0)])
def test_a_gradient_may_be_the_array_of_a_parameter(reader, read):
    """It is read as it is when its turn comes: before or after the other is stepped."""

    def step(optimizer, t):
        set_gradients(optimizer, t)
        params = list(optimizer.target.params())
        params[reader].grad = params[read].array
        optimizer.update()

    assert_all_train_alike(lambda cls: cls(lr=1e-2).setup(Arrays(*gradients(100, 100, 20))), step)


@with_each_kernel
@pytest.mark.parametrize("shift", [-3, 3])
def test_a_gradient_may_overlap_its_own_parameter(shift):
    """All of it is read as it was before the parameter is written."""

    def prepare(cls):
        (buffer,) = gradients(106)
        optimizer = cls(lr=1e-2).setup(Arrays(*numpy.zeros((3, 100), "f4")))
        optimizer.target.p1.array = buffer[3:103]
        return optimizer

    def step(optimizer, t):
        set_gradients(optimizer, t)
        param = optimizer.target.p1
        param.grad = param.array.base[3 + shift : 103 + shift]
        optimizer.update()

    assert_all_train_alike(prepare, step)


@with_each_kernel
def test_each_rule_goes_by_its_own_hyperparameters():
    """Those set on it, at any time; the others are the optimizer's, at any time too."""

    def step(optimizer, t):
        rules = [param.update_rule for param in optimizer.target.params()]
        if t == 1:
            rules[0].hyperparam.lr = 0.1
            rules[2].hyperparam.momentum = 0.5
        if t == 3:
            optimizer.lr = 0.02
            rules[3].hyperparam.alpha, rules[3].hyperparam.eps = 0.5, 1e-2
        if t == 4:
            del rules[0].hyperparam.lr
        if t == 5:
            rules[1].hyperparam._parent = RMSpropGraves(lr=0.5).hyperparam
        set_gradients(optimizer, t)
        optimizer.update()

    assert_all_train_alike(two_layers, step)


@with_each_kernel
def test_parameters_of_several_dtypes_alternate():
    """Each is stepped in its own."""

    def prepare(cls):
        optimizer = cls(lr=1e-2).setup(Arrays(*gradients(20, 20, 20, 20, 20)))
        for name in ("p1", "p3"):
            param = getattr(optimizer.target, name)
            param.array = param.array.astype("f8")
        return optimizer

    assert_all_train_alike(prepare, lambda optimizer, t: (set_gradients(optimizer, t), optimizer.update()))


@with_each_kernel
def test_half_precision_with_use_fp32_update_is_stepped_on_its_master():
    """Among parameters of float32 and after states are there; what is half precision is the master rounded."""

    def prepare(cls):
        optimizer = cls(lr=1e-2).setup(Arrays(*gradients(20, 20, 20)))
        optimizer.target.p1.array = optimizer.target.p1.array.astype("f2")
        optimizer.use_fp32_update()
        return optimizer

    ours = assert_all_train_alike(prepare, lambda optimizer, t: (set_gradients(optimizer, t), optimizer.update()))
    master = ours.target.p1.update_rule._fp32_param.array
    numpy.testing.assert_array_equal(ours.target.p1.array, master.astype("f2"))
    assert (ours.target.p1.array != master).any()


@with_each_kernel
def test_a_device_that_is_not_chainers_own_is_asked_for_the_states_at_each_update():
    """As Chainer asks every device for them; there is no telling what it does."""
    sent = []

    class Device(chainer.backend.CpuDevice):
        def send(self, arrays):
            sent.append(arrays)
            return super().send(arrays)

    def prepare(cls):
        optimizer = two_layers(cls)
        optimizer.target.l1.b._device = Device()
        return optimizer

    assert_all_train_alike(prepare, lambda optimizer, t: (set_gradients(optimizer, t), optimizer.update()))
    assert len(sent) == len(CLASSES) * 6 * 3


@with_each_kernel
def test_a_parameter_of_a_subclass_is_updated_by_its_own_method():
    """Chainer calls param.update(), which may be overridden."""
    calls = []

    class Parameter(chainer.Parameter):
        def update(self):
            calls.append(self.update_rule.t)
            super().update()

    def prepare(cls):
        optimizer = two_layers(cls)
        with optimizer.target.l1.init_scope():
            optimizer.target.l1.c = Parameter(numpy.ones(5, "f4"))
        optimizer.target.l1.c.update_rule = optimizer.create_update_rule()
        return optimizer

    assert_all_train_alike(prepare, lambda optimizer, t: (set_gradients(optimizer, t), optimizer.update()))
    assert calls == [t for t in range(6) for _ in CLASSES]


# What is called in the middle of an update


@with_each_kernel
@pytest.mark.parametrize("timing", ["pre", "post"])
def test_a_rules_hook_finds_the_parameters_before_it_stepped_and_those_after_it_not(timing):
    """Its own is stepped when the hook comes after the update."""
    seen = []

    def prepare(cls):
        optimizer = two_layers(cls)
        set_gradients(optimizer, 0)
        optimizer.update()
        third = place_of(optimizer, 2)
        third.update_rule.add_hook(lambda rule, param: seen.append(copies_of(optimizer)), "look", timing)
        return optimizer

    def step(optimizer, t):
        set_gradients(optimizer, t + 1)
        before, _ = copies_of(optimizer)
        optimizer.update()
        found, times = seen[-1]
        paths = sorted(path for path, _ in optimizer.target.namedparams())
        stepped = paths[: 2 if timing == "pre" else 3]
        for path in paths:
            assert (found[path] != before[path]).any() == (path in stepped)
            assert times[path] == t + 1 + (path in paths[:3])

    assert_all_train_alike(prepare, step)
    for ours, *others in zip(seen[0::3], seen[1::3], seen[2::3]):
        for other in others:
            assert_same_copies(ours, other)


@with_each_kernel
@pytest.mark.parametrize("timing", ["pre", "post"])
def test_an_exception_in_a_rules_hook_leaves_what_precedes_it_stepped(timing):
    """And the rest as it was; each rule has counted what Chainer's has, and training can go on."""

    def refuse(rule, param):
        if rule.t == 3:
            raise RuntimeError("refused by a hook")

    def prepare(cls):
        optimizer = two_layers(cls)
        place_of(optimizer, 2).update_rule.add_hook(refuse, timing=timing)
        return optimizer

    def step(optimizer, t):
        set_gradients(optimizer, t)
        if t != 2:
            optimizer.update()
            return
        with pytest.raises(RuntimeError, match="refused by a hook"):
            optimizer.update()
        assert [param.update_rule.t for param in optimizer.target.params()] == [3, 3, 3, 2]

    assert_all_train_alike(prepare, step)


@with_each_kernel
def test_an_lr_set_by_a_rules_hook_holds_for_the_parameters_after_it():
    """Those before it have been stepped with the old one."""

    def prepare(cls):
        optimizer = two_layers(cls)
        place_of(optimizer, 1).update_rule.add_hook(
            lambda rule, param: setattr(optimizer, "lr", 0.01 * rule.t), "raise lr", "post"
        )
        return optimizer

    assert_all_train_alike(prepare, lambda optimizer, t: (set_gradients(optimizer, t), optimizer.update()))


@with_each_kernel
def test_a_rule_made_by_an_overridden_create_update_rule_is_used():
    """Of a subclass, or of this package's own class with hyperparameters of its own."""
    calls = []

    class Rule(RMSpropGravesRule):
        def update_core(self, param):
            calls.append(param.name)
            super().update_core(param)

    class Overriding(RMSpropGraves):
        def create_update_rule(self):
            return Rule(self.hyperparam)

    class Faster(RMSpropGraves):
        def create_update_rule(self):
            return RMSpropGravesRule(self.hyperparam, lr=0.02)

    optimizers = [two_layers(cls) for cls in (Overriding, RMSpropGraves, Faster)]
    optimizers.append(two_layers(RMSpropGraves))
    optimizers[3].lr = 0.02
    for t in range(3):
        for optimizer in optimizers:
            set_gradients(optimizer, t)
            optimizer.update()
        assert_same_copies(copies_of(optimizers[0]), copies_of(optimizers[1]))
        assert_same_copies(copies_of(optimizers[2]), copies_of(optimizers[3]))
    assert calls == ["W", "b", "W", "b"] * 3


# Lifetimes and copies


@with_each_kernel
def test_gradients_are_not_kept_alive():
    """After cleargrads nothing holds them."""
    optimizer = two_layers(RMSpropGraves)
    for t in range(3):
        set_gradients(optimizer, t)
        optimizer.update()
    gone = [weakref.ref(param.grad) for param in optimizer.target.params()]
    optimizer.target.cleargrads()
    gc.collect()
    assert all(ref() is None for ref in gone)


@with_each_kernel
def test_replaced_arrays_are_not_kept_alive_beyond_the_next_update():
    """Neither parameters nor states."""
    optimizer = two_layers(RMSpropGraves)
    for t in range(3):
        set_gradients(optimizer, t)
        optimizer.update()
    gone = [weakref.ref(array) for array in arrays_of(optimizer).values()]
    for param in optimizer.target.params():
        param.array = param.array.copy()
        for name in ("n", "g", "delta"):
            param.update_rule.state[name] = param.update_rule.state[name].copy()
    optimizer.update()
    gc.collect()
    assert len(gone) == 16
    assert all(ref() is None for ref in gone)


@with_each_kernel
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_trains_on_by_itself(duplicate):
    """To the bits of an optimizer that was never copied, and the original likewise, neither touching the other."""
    original, undisturbed = two_layers(RMSpropGraves), two_layers(RMSpropGraves)

    def train(optimizer, *seeds):
        for seed in seeds:
            set_gradients(optimizer, seed)
            optimizer.update()

    train(original, 0, 1, 2)
    duplicated = duplicate(original)
    assert_same_copies(copies_of(duplicated), copies_of(original))
    before = copies_of(original)
    train(duplicated, 3, 4)
    assert_same_copies(copies_of(original), before)
    train(original, 3, 4)
    train(undisturbed, 0, 1, 2, 3, 4)
    assert_same_copies(copies_of(original), copies_of(undisturbed))
    assert_same_copies(copies_of(duplicated), copies_of(undisturbed))


# The table of addresses


@pytest.mark.usefixtures("numba_kernel")
def test_a_table_serves_until_an_array_is_another_object():
    """Be it a parameter or a state; new gradients, values and hyperparameters need no new table."""
    optimizer = two_layers(RMSpropGraves)

    def table_after_update():
        optimizer.update()
        (table,) = optimizer._plan._tables
        return table

    set_gradients(optimizer, 0)
    optimizer.update()
    table = table_after_update()
    set_gradients(optimizer, 1)
    optimizer.lr = 0.5
    optimizer.target.l1.W.update_rule.hyperparam.momentum = 0.5
    optimizer.target.l1.W.array[...] = 3
    assert table_after_update() is table
    optimizer.target.l1.W.array = optimizer.target.l1.W.array.copy()
    other = table_after_update()
    assert other is not table
    assert table_after_update() is other
    for name in ("n", "g", "delta"):
        state = optimizer.target.l2.b.update_rule.state
        state[name] = state[name].copy()
        last, other = other, table_after_update()
        assert other is not last
        assert table_after_update() is other


def rows(*shapes, dtype="f4", seed=0):
    """Four columns of arrays and one of gradients."""
    columns = [gradients(*shapes, seed=seed + i, dtype=dtype) for i in range(5)]
    columns[1] = [numpy.asarray(array**2 + 1, dtype) for array in columns[1]]
    return columns[:4], columns[4]


def values_of(count):
    """Other hyperparameters for each row."""
    return [{"lr": 0.01 * (i + 1), "alpha": 0.9, "momentum": 0.5 + 0.01 * i, "eps": 1e-4} for i in range(count)]


def copied(columns):
    return [[array.copy() for array in column] for column in columns]


def assert_same_columns(actual, expected):
    for i, (column, other) in enumerate(zip(actual, expected)):
        assert_same_bits(*({f"{i}, {j}": array for j, array in enumerate(arrays)} for arrays in (column, other)))


def step_rows(columns, grads, values, first=0, last=None):
    """Steps them one by one with the NumPy kernel."""
    for row in range(len(grads))[first:last]:
        params, *states = (column[row] for column in columns)
        numpy_kernel.step(params, grads[row], *states, **values[row])


def test_rows_that_cannot_be_stepped_by_address_are_named(numba_kernel):
    """By their layouts when the table is made, by those of gradients, and by what has become of them since."""
    columns, grads = rows(*[(2, 3)] * 12)
    columns[0][1] = columns[0][1].copy(order="F")
    columns[1][2] = unaligned(columns[1][2])
    columns[2][3] = columns[2][3].astype("f8")
    columns[3][4] = columns[3][4].reshape(3, 2)
    columns[0][5] = read_only(columns[0][5])
    columns[3][6] = numpy.repeat(columns[3][6], 2, axis=1)[:, ::2]
    table = numba_kernel.Table(*columns)
    assert table.misfits(grads) == [1, 2, 3, 4, 5, 6]
    grads[0] = grads[0].copy(order="F")
    grads[7] = grads[7].astype("f8")
    grads[8] = grads[8].reshape(6)
    assert table.misfits(grads) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    for column in columns:
        reshape_in_place(column[9], (3, 2))
    grads[9] = grads[9].reshape(3, 2)
    reshape_in_place(columns[0][10], (3, 2))
    assert table.misfits(grads) == list(range(11))


@pytest.mark.parametrize("dtype", ["f2", ">f4", "longdouble"])
def test_all_rows_of_a_dtype_that_is_not_compiled_for_are_misfits(numba_kernel, dtype):
    """The table is there all the same."""
    columns, grads = rows(3, 4, dtype=numpy.dtype(dtype))
    assert numba_kernel.Table(*columns).misfits(grads) == [0, 1]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(("first", "last"), [(0, 6), (0, 1), (2, 4), (5, 6), (3, 3)])
def test_a_step_of_some_rows_leaves_the_others(numba_kernel, dtype, first, last):
    """Each with its own hyperparameters; then all are stepped."""
    columns, grads = rows(5, (2, 3), (), 1, 17, (3, 1), dtype=dtype)
    expected, values = copied(columns), values_of(6)
    table = numba_kernel.Table(*columns)
    for span in ((first, last), (0, 6)):
        table.step(grads, values, *span)
        step_rows(expected, grads, values, *span)
        assert_same_columns(columns, expected)


@pytest.mark.parametrize("threads_", [1, 3])
def test_rows_without_elements_may_be_anywhere(numba_kernel, monkeypatch, threads_):
    """At the beginning, in the middle, at the end, and alone."""
    monkeypatch.setattr(threads, "_num_threads", threads_)
    monkeypatch.setattr(threads, "SPAN", 2)
    columns, grads = rows(0, (2, 0), 5, 0, (0, 3), 4, 1, 0, 0)
    expected, values = copied(columns), values_of(9)
    table = numba_kernel.Table(*columns)
    assert table.misfits(grads) == []
    for span in ((0, 9), (0, 2), (3, 5), (7, 9), (1, 8)):
        table.step(grads, values, *span)
        step_rows(expected, grads, values, *span)
        assert_same_columns(columns, expected)


@pytest.mark.parametrize("span", [1 << 17, 1000])
@pytest.mark.parametrize("threads_", [1, 2, 3, 7])
def test_any_number_of_threads_has_the_same_bits(numba_kernel, monkeypatch, threads_, span):
    """A million elements in rows that end in the middle of spans."""
    monkeypatch.setattr(threads, "_num_threads", threads_)
    monkeypatch.setattr(threads, "SPAN", span)
    columns, grads = rows(400_003, 7, 0, (100, 999), 500_000)
    expected, values = copied(columns), values_of(5)
    table = numba_kernel.Table(*columns)
    for _ in range(2):
        table.step(grads, values, 0, 5)
        step_rows(expected, grads, values)
    assert_same_columns(columns, expected)


@pytest.mark.parametrize("threads_", [1, 3])
@pytest.mark.parametrize("column", range(4))
@pytest.mark.parametrize("row", [0, 2])
def test_a_gradient_in_the_memory_of_another_row_is_read_when_its_turn_comes(
    numba_kernel, monkeypatch, threads_, column, row
):
    """Before or after that row is stepped; also where it is but a part of it."""
    monkeypatch.setattr(threads, "_num_threads", threads_)
    monkeypatch.setattr(threads, "SPAN", 2)
    columns, grads = rows(50, 40, 50)
    expected, values = copied(columns), values_of(3)
    grads[1] = columns[column][row][3:43]
    table = numba_kernel.Table(*columns)
    assert table.misfits(grads) == []
    for _ in range(3):
        table.step(grads, values, 0, 3)
        step_rows(expected, [grads[0], expected[column][row][3:43], grads[2]], values)
    assert_same_columns(columns, expected)


def test_a_gradient_in_memory_of_which_a_part_is_another_rows_is_found(numba_kernel, monkeypatch):
    """It lies behind that part in the parameter around it."""
    monkeypatch.setattr(threads, "run", run_backwards)
    columns, grads = rows(100, 10, 40)
    columns[0][1] = columns[0][0][10:20]
    grads[2] = columns[0][0][50:90]
    expected, values = copied(columns), values_of(3)
    expected[0][1] = expected[0][0][10:20]
    table = numba_kernel.Table(*columns)
    for _ in range(3):
        table.step(grads, values, 0, 3)
        step_rows(expected, [*grads[:2], expected[0][0][50:90]], values)
    assert_same_columns(columns, expected)


def run_backwards(work, size):
    """Hands out spans in an order that threads may take them in."""
    for begin in reversed(range(0, size, 7)):
        work(begin, min(begin + 7, size))


def test_rows_that_share_memory_are_stepped_in_order(numba_kernel, monkeypatch):
    """One that is there twice, and one whose state is the parameter of another, whichever thread is first."""
    monkeypatch.setattr(threads, "run", run_backwards)
    columns, grads = rows(50, 50, 50, 50)
    for column in columns:
        column[2] = column[0]
    columns[3][3] = columns[0][1]
    expected, values = copied(columns), values_of(4)
    for column in expected:
        column[2] = column[0]
    expected[3][3] = expected[0][1]
    table = numba_kernel.Table(*columns)
    for _ in range(3):
        table.step(grads, values, 0, 4)
        step_rows(expected, grads, values)
    assert_same_columns(columns, expected)


# Memory


@pytest.fixture
def traced():
    """Measures with tracemalloc, to which NumPy reports its arrays."""
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_the_update_of_a_large_parameter_needs_next_to_no_memory(kernel, monkeypatch):
    """4 million elements, 16 MB an array: less than 1 MiB with Numba, and seven blocks of 32768 with NumPy."""
    monkeypatch.setattr(threads, "SPAN", 1 << 17)
    array = numpy.zeros(4_000_000, "f4")
    optimizer = RMSpropGraves().setup(Arrays(array))
    optimizer.target.set_grads(numpy.ones_like(array))
    for _ in range(2):
        optimizer.update()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tracemalloc.start()
    optimizer.update()
    _, peak = tracemalloc.get_traced_memory()
    assert before > 5 * array.nbytes  # the arrays are traced at all
    assert peak < {"numba": 1 << 20, "numpy": 2 << 20}[kernel]


@pytest.mark.usefixtures("numba_kernel")
def test_the_tables_of_a_model_are_small_beside_it():
    """For 50 parameters of 10,001 elements, what the first planned update leaves behind is less than 1 % of them."""

    def stepped_once():
        optimizer = RMSpropGraves().setup(Arrays(*numpy.zeros((50, 10_001), "f4")))
        optimizer.target.set_grads(*numpy.ones((50, 10_001), "f4"))
        optimizer.update()
        return optimizer

    stepped_once().update()  # compiles, and fills the caches
    optimizer = stepped_once()
    gc.collect()
    tracemalloc.start()
    optimizer.update()
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert optimizer._plan._tables
    assert 0 < kept < 0.01 * 50 * 10_001 * 4
