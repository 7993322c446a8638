"""Random models, gradients and events between updates: one state space for every test that needs one.

A `Model` describes how an optimizer and its model are built, which gradients it gets, and which events happen between
updates. The strategy `models` draws random ones. `train` builds the same model for several optimizer classes, trains
them side by side and compares everything after each update.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import io
import operator
import pickle
import warnings
from types import SimpleNamespace

import chainer
import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.optimizers.rmsprop_graves import RMSpropGravesRule as ChainerRMSpropGravesRule
from chainer.optimizers.sgd import SGDRule
from hypothesis import strategies as st
from models import assert_same_bits, snapshot_of

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule, kernels
from rmsprop_graves.kernels import threads

GPUS = ("@cupy:0", "@cupy:1")
STATES = ("n", "g", "delta")


def use_on_cpu(name, monkeypatch):
    """Choose the kernel for NumPy arrays, and make it divide even small arrays among threads."""
    if name == "numba":
        pytest.importorskip("rmsprop_graves.kernels.numba", exc_type=ImportError)
    monkeypatch.setattr(kernels, "_on_cpu", None)
    monkeypatch.setattr(threads, "_num_threads", 2)
    monkeypatch.setattr(threads, "SPAN", 8)
    kernels.use_on_cpu(name)
    return name


class PerParameter(RMSpropGraves):
    """This package's rules in Chainer's own loop, which updates one parameter after another."""

    def update(self, lossfun=None, *args, **kwds):
        """Update as Chainer's optimizers do."""
        chainer.optimizer.GradientMethod.update(self, lossfun, *args, **kwds)


# The description of a model


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter. `other` selects another one, for example the one that a hook changes."""

    shape: tuple = (2, 3)
    dtype: str = "f4"
    device: str = "@numpy"
    layout: str = "contiguous"
    memory: str = "own"
    gradient: str = "contiguous"
    special: str = "nothing"
    timing: str = "pre"
    link: int = 0
    other: int = 0


@dataclasses.dataclass(frozen=True)
class Model:
    """Parameters, and events before each update: (name of the event, number of a parameter, argument)."""

    params: list
    events: tuple = ((),) * 5
    alpha: float = 0.9
    keeps_gradients_missing: bool = False
    seed: int = 0


def around(plain=None, **odd):
    """Return four plain parameters and, in the middle, an odd one."""
    shapes = [(3,), (2, 3), (17,), (2, 3)]
    params = [Parameter(shape, **(plain or {})) for shape in shapes]
    return [*params[:2], dataclasses.replace(params[1], **{"other": 1, **odd}), *params[2:]]


class Subclass(numpy.ndarray):
    """A subclass of NumPy's array type."""


def unaligned(array):
    new = numpy.ndarray(array.shape, array.dtype, bytearray(array.nbytes + 1), 1)
    new[...] = array
    return new


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


# Views of new memory, on any device.
LAYOUTS = {
    "contiguous": lambda new, shape: new(shape),
    "transposed": lambda new, shape: new(shape[::-1]).T,
    "strided": lambda new, shape: new((*shape, 2))[..., 0],
    "backwards": lambda new, shape: new((*shape, 1))[::-1][..., 0],
    "one element further": lambda new, shape: new((1 + int(numpy.prod(shape)),))[1:].reshape(shape),
}
# Layouts of NumPy arrays only; CuPy arrays are left alone.
NUMPY_LAYOUTS = {
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "subclass": lambda array: array.view(Subclass),
    "unaligned": unaligned,
    "read-only": read_only,
    "broadcast": lambda array: numpy.broadcast_to(numpy.asarray(array.sum(), array.dtype), array.shape),
}


def laid_out(array, layout):
    """Return the array in a layout, as a copy if necessary."""
    if layout == "contiguous":
        return array
    if layout in NUMPY_LAYOUTS:
        return NUMPY_LAYOUTS[layout](array) if isinstance(array, numpy.ndarray) else array
    device = chainer.backend.get_device_from_array(array)
    new = LAYOUTS[layout](lambda shape: device.send(numpy.zeros(shape, array.dtype)), array.shape)
    with device.create_context():
        new[...] = array
    return new


def scaled(array, factor):
    """Return a multiple of an array, as a new array in the same layout."""
    new = copy.deepcopy(array)
    new *= array.dtype.type(factor)
    return new


def drawn(rng, shape, dtype):
    return numpy.asarray(rng.standard_normal(shape)).astype(dtype)


def param_of(optimizer, index):
    """Return a parameter by its number, which may be any integer."""
    found = [param for _, param in sorted(optimizer.target.namedparams(), key=operator.itemgetter(0))]
    return found[index % len(found)]


def state_of(param):
    """Return the state of a parameter's rule, or an empty dict."""
    return getattr(param.update_rule, "state", None) or {}


# Hooks of rules, which change their parameter's gradient or another parameter

# The optimizer that is being updated, and the records of its hooks. Hooks look it up here, so that a copied hook finds
# the copied optimizer.
acting = SimpleNamespace(optimizer=None, log=None)


def scale_gradient(rule, param, other):
    if param.grad is not None:
        param.grad = scaled(param.grad, 2)


def scale_gradient_in_place(rule, param, other):
    if param.grad is not None:
        grad = param.grad
        grad *= param.dtype.type(0.5)


def scale_array_of_other(rule, param, other):
    array = other.array
    array *= array.dtype.type(0.5)


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
    acting.log.append(snapshot_of(acting.optimizer))


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
    """A rule's hook that can be copied and pickled.

    Args:
        meddling: The name of a function of `MEDDLINGS`, which the hook calls.
        other: The number of the parameter that the function changes.
    """

    name = "meddler"

    def __init__(self, meddling, other):
        self.meddling = meddling
        self.other = other

    def __call__(self, rule, param):
        """Call the function."""
        MEDDLINGS[self.meddling](rule, param, param_of(acting.optimizer, self.other))


class Halving:
    """A mixin for update rules that halves the gradient before each step."""

    def update_core(self, param):
        """Step with half the gradient."""
        scale_gradient_in_place(self, param, None)
        super().update_core(param)


class HalvingRule(Halving, RMSpropGravesRule):
    """This package's rule with half the gradient."""


class ChainersHalvingRule(Halving, ChainerRMSpropGravesRule):
    """Chainer's rule with half the gradient."""


class Tagged(chainer.optimizer.Hyperparameter):
    """Hyperparameters of another class than this package's, as in Chainer's own rules."""


# Ways to make a parameter special. The ones named "own ..." and "user's ..." keep it plain.


def use_subclassed_rule(optimizer, param):
    halving = ChainersHalvingRule if isinstance(optimizer, ChainerRMSpropGraves) else HalvingRule
    param.update_rule = halving(optimizer.hyperparam)


def use_other_hyperparameter_class(optimizer, param):
    param.update_rule.hyperparam = Tagged(optimizer.hyperparam)


def own_values(optimizer, param):
    hyperparam = param.update_rule.hyperparam
    hyperparam.momentum, hyperparam.eps, hyperparam.alpha = 0.5, 1e-2, 0.75


def user_attributes(optimizer, param):
    param.tag = param.update_rule.tag = param.update_rule.hyperparam.tag = "mine"


SPECIALS = {
    "nothing": lambda optimizer, param: None,
    "own lr": lambda optimizer, param: setattr(param.update_rule.hyperparam, "lr", 0.05),
    "own values": own_values,
    "user's attributes": user_attributes,
    "subclassed rule": use_subclassed_rule,
    "rule of another optimizer": lambda optimizer, param: setattr(param, "update_rule", SGDRule(lr=0.01)),
    "hyperparameters of another class": use_other_hyperparameter_class,
    "disabled": lambda optimizer, param: setattr(param.update_rule, "enabled", False),
    "no rule": lambda optimizer, param: setattr(param, "update_rule", None),
    "fp32 update": lambda optimizer, param: param.update_rule.use_fp32_update(),
    "loss scale": lambda optimizer, param: setattr(param, "_loss_scale", 4.0),
}

MEMORIES = ("own", "registered before", "in a buffer", "not yet")
GRADIENTS = (
    *LAYOUTS,
    *sorted(set(NUMPY_LAYOUTS) - {"byte-swapped"}),  # Chainer requires the parameter's dtype
    "none",
    "an array of the model",
    "a state of the model",
    "a variable",
)


def nothing():
    """Do nothing, in place of a method. Unlike a lambda, it can be pickled."""


def build(cls, model):
    """Return an optimizer of the class with a new model; every call returns an equal one."""
    optimizer = cls(lr=1e-2, alpha=model.alpha, momentum=0.8, eps=1e-4)
    rng = numpy.random.RandomState(model.seed)
    inner = chainer.Chain()
    links = [chainer.Chain(), chainer.Link(), chainer.Link(), chainer.Link()]
    with links[0].init_scope():
        links[0].first = links[1]
        links[0].rest = chainer.ChainList(links[2], inner)
    with inner.init_scope():
        inner.last = links[3]
    buffers = {dtype: drawn(rng, 64, dtype) for dtype in ("f2", "f4", "f8")}
    # One buffer on each device.
    buffer_on = functools.lru_cache(maxsize=None)(lambda device, dtype: device.send(buffers[dtype]))
    params = []
    for i, one in enumerate(model.params):
        device = chainer.get_device(one.device)
        array = drawn(rng, one.shape, one.dtype)
        if one.memory == "registered before" and params:
            param = params[one.other % len(params)]
        elif one.memory == "not yet":
            param = chainer.Parameter(chainer.initializers.Constant(0.5, one.dtype))
            param.to_device(device)
        else:
            param = chainer.Parameter(array)
            param.to_device(device)
            if one.memory == "in a buffer":
                param.array = buffer_on(device, one.dtype)[one.other :][: array.size].reshape(one.shape)
            else:
                param.array = laid_out(param.array, one.layout)
        params.append(param)
        with links[one.link].init_scope():
            setattr(links[one.link], f"p{i}", param)
    optimizer.setup(links[0])
    for param, one in zip(params, model.params):
        rule = param.update_rule
        if rule is None:  # a parameter that is registered twice, with "no rule" the first time
            continue
        if one.special in MEDDLINGS:
            if not (rule._hookable._pre_update_hooks or rule._hookable._post_update_hooks):
                rule.add_hook(Meddler(one.special, one.other), timing=one.timing)
        else:
            SPECIALS[one.special](optimizer, param)
    if model.keeps_gradients_missing:
        optimizer.reallocate_cleared_grads = nothing
    return optimizer


def give_gradients(optimizer, model, step):
    """Give each parameter its gradient of this step."""
    rng = numpy.random.RandomState(model.seed + step + 1)
    for (_, param), one in zip(sorted(optimizer.target.namedparams()), model.params):
        if param.array is None or one.gradient == "none":
            param.cleargrad()
            continue
        grad = param.device.send(drawn(rng, param.shape, param.dtype))
        other = param_of(optimizer, one.other)
        shared = None
        if one.gradient == "an array of the model":
            shared = other.array
        elif one.gradient == "a state of the model" and other.update_rule is not param.update_rule:
            shared = state_of(other).get("delta")
        elif one.gradient == "a variable":
            param.grad_var = chainer.Variable(grad)
            continue
        elif one.gradient in GRADIENTS:
            grad = laid_out(grad, one.gradient if one.gradient in {**LAYOUTS, **NUMPY_LAYOUTS} else "contiguous")
        if shared is not None and (other.device, shared.shape, shared.dtype) == (param.device, grad.shape, grad.dtype):
            grad = shared
        param.grad = grad


# Events between updates. Each takes an optimizer, one of its parameters and a number; if it returns an optimizer,
# training continues with that one.


def replace_array(optimizer, param, number):
    param.array = scaled(param.array, 0.5)


def replace_data(optimizer, param, number):
    param.data = scaled(param.data, 0.5)


def replace_shape(optimizer, param, number):
    param.array = param.device.send(numpy.ones((5, 3), param.dtype))
    param.update_rule._state = None


def replace_states(optimizer, param, number):
    state = param.update_rule.state
    for name, factor in (("n", 1.5), ("g", 0.5), ("delta", -0.5)):
        state[name] = scaled(state[name], factor)


def replace_one_state(optimizer, param, number):
    name = STATES[number % 3]
    state = param.update_rule.state
    state[name] = scaled(state[name], {"n": 1.5, "g": 0.5, "delta": 0.5}[name])


def share_states(optimizer, param, number):
    """Make every state a view of a buffer, as ChainerRL does for memory that processes share."""
    for one in optimizer.target.params():
        for name, state in state_of(one).items():
            if isinstance(state, numpy.ndarray):
                view = numpy.frombuffer(bytearray(state.nbytes + 8), state.dtype)[8 // state.itemsize :]
                state_of(one)[name] = view.reshape(state.shape)
                state_of(one)[name][...] = state


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


def delete_alpha(optimizer, param, number):
    """Delete the hyperparameter that Chainer's class reads first, so that it fails before it changes a state."""
    del optimizer.hyperparam.alpha


def set_alpha(optimizer, param, number):
    optimizer.alpha = 0.8


def set_lr_of_rule(optimizer, param, number):
    param.update_rule.hyperparam.lr = 0.002 * (number + 1)


def unset_lr_of_rule(optimizer, param, number):
    vars(param.update_rule.hyperparam).pop("lr", None)


def replace_hyperparameters_of_rule(optimizer, param, number):
    param.update_rule.hyperparam = chainer.optimizer.Hyperparameter(optimizer.hyperparam)
    param.update_rule.hyperparam.lr = 0.5


def replace_parent_of_hyperparameters(optimizer, param, number):
    param.update_rule.hyperparam._parent = RMSpropGraves(lr=0.5, alpha=0.75).hyperparam


def tag(optimizer, param, number):
    param.update_rule.tag = param.tag = number


def add_hook(optimizer, param, number):
    param.update_rule.add_hook(Meddler(sorted(MEDDLINGS)[number % len(MEDDLINGS)], number))


def remove_hook(optimizer, param, number):
    param.update_rule.remove_hook("meddler")


def use_other_kernel(optimizer, param, number):
    kernels.use_on_cpu("numpy" if number % 2 else "auto")


def use_other_threads(optimizer, param, number):
    kernels.set_num_threads(1 + number % 3)


def reshape_in_place(array, shape):
    with warnings.catch_warnings():
        # NumPy 2.5 deprecates setting the shape.
        warnings.simplefilter("ignore", DeprecationWarning)
        array.shape = shape


def reshape_all(optimizer, param, number):
    for array in (param.array, *state_of(param).values()):
        reshape_in_place(array, (1, *array.shape))


def reshape_array_alone(optimizer, param, number):
    reshape_in_place(param.array, (1, *param.shape))


def reshape_state_alone(optimizer, param, number):
    state = param.update_rule.state["n"]
    reshape_in_place(state, (1, *state.shape))


def resize_all(optimizer, param, number):
    for array in (param.array, *state_of(param).values()):
        array.resize((100 + number,), refcheck=False)


def move_memory(optimizer, param, number):
    """Move the arrays to other memory, and keep the array objects."""
    for array in (param.array, *state_of(param).values()):
        shape, values = array.shape, array.copy()
        array.resize((100_000,), refcheck=False)
        array.resize(shape, refcheck=False)
        array[...] = values


def copyparams(optimizer, param, number):
    other = copy.deepcopy(optimizer.target)
    for theirs in other.params():
        if theirs.array is not None:
            theirs.array[...] *= 0.5
    optimizer.target.copyparams(other)


def repeat_link(optimizer, param, number):
    """Replace a link by two copies of itself, made by `Link.repeat`."""
    name = ("first", "rest")[number % 2]
    repeated = optimizer.target[name].repeat(2, mode="copy")
    delattr(optimizer.target, name)
    with optimizer.target.init_scope():
        setattr(optimizer.target, name, repeated)


def go_on_with_deepcopy(optimizer, param, number):
    return copy.deepcopy(optimizer)


def go_on_with_pickled(optimizer, param, number):
    return pickle.loads(pickle.dumps(optimizer))


def has_every_state(optimizer):
    """Whether no state is missing. Chainer fails to load a missing one, and leaves states of one float32 element."""
    return all(map(state_of, optimizer.target.params()))


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
    optimizer.target.to_device(param.device)


def to_cpu(optimizer, param, number):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        optimizer.target.to_cpu()


def to_other_gpu(optimizer, param, number):
    optimizer.target.to_device(GPUS[number % 2])


def move_state_to_other_gpu(optimizer, param, number):
    state = param.update_rule.state
    with warnings.catch_warnings():
        state["g"] = chainer.get_device(GPUS[number % 2]).send(state["g"])


def lock(optimizer, param, number):
    param.array.flags.writeable = False


def unlock(optimizer, param, number):
    param.array.flags.writeable = True


def set_loss_scale(optimizer, param, number):
    param._loss_scale = (None, 2.0, 0.5)[number % 3]


def replace_rule(optimizer, param, number):
    param.update_rule = optimizer.create_update_rule()


def share_rule(optimizer, param, number):
    other = param_of(optimizer, number)
    if (
        param.array is not None
        and other.array is not None
        and (other.shape, other.dtype) == (param.shape, param.dtype)
    ):
        param.update_rule = other.update_rule


def swap_rules(optimizer, param, number):
    other = param_of(optimizer, number)
    param.update_rule, other.update_rule = other.update_rule, param.update_rule
    for one in (param, other):
        one.update_rule._state = None


def initialize(optimizer, param, number):
    if param.array is None:
        param.initialize((2, 3))


ON_ANY_DEVICE = (
    replace_array,
    replace_data,
    replace_shape,
    replace_states,
    replace_one_state,
    forget_state,
    init_state,
    toggle,
    set_lr,
    delete_alpha,
    set_alpha,
    set_lr_of_rule,
    unset_lr_of_rule,
    replace_hyperparameters_of_rule,
    replace_parent_of_hyperparameters,
    tag,
    add_hook,
    remove_hook,
    reshape_all,
    reshape_array_alone,
    reshape_state_alone,
    go_on_with_deepcopy,
    go_on_with_pickled,
    save_and_load_dictionary,
    to_device,
    set_loss_scale,
    replace_rule,
    swap_rules,
    initialize,
)
ON_CPU = (
    share_rule,
    share_states,
    use_other_kernel,
    use_other_threads,
    copyparams,
    repeat_link,
    save_and_load,
    to_cpu,
    lock,
    unlock,
)
ON_GPU = (to_other_gpu, move_state_to_other_gpu)
# These free memory that other arrays may be views of, so they do not suit every model.
FREEING = (resize_all, move_memory)
EVENTS = {event.__name__: event for event in (*ON_ANY_DEVICE, *ON_CPU, *ON_GPU, *FREEING)}


def events_on(device):
    """Return the names of the events that are possible for every model on the device."""
    return [event.__name__ for event in (*ON_ANY_DEVICE, *(ON_CPU if device == "@numpy" else ON_GPU))]


# Strategies

SHAPES = ((3,), (2, 3), (17,), (1,), (), (0,), (2, 0), (2, 1, 2), (5, 7))


def mostly(usual, *others):
    """Return a strategy that draws the usual value four times in five."""
    return st.sampled_from([usual] * (4 * len(others)) + list(others))


def models(dtypes=("f4", "f2", "f8"), device="@numpy"):
    """Return a strategy for models; most parameters have the first dtype and are on the device."""
    is_on_cpu = device == "@numpy"
    layouts = [*LAYOUTS, *(sorted(set(NUMPY_LAYOUTS) - {"broadcast"}) if is_on_cpu else ())]
    param = st.builds(
        Parameter,
        shape=st.sampled_from(SHAPES),
        dtype=mostly(*dtypes),
        device=st.just(device) if is_on_cpu else mostly(device, *GPUS, "@numpy"),
        layout=mostly(*layouts),
        memory=mostly(*MEMORIES),
        gradient=mostly(*GRADIENTS),
        special=st.one_of(st.just("nothing"), st.sampled_from(sorted(MEDDLINGS)), st.sampled_from(sorted(SPECIALS))),
        timing=st.sampled_from(["pre", "post"]),
        link=st.integers(0, 3),
        other=st.integers(0, 7),
    )
    event = st.tuples(st.sampled_from(events_on(device)), st.integers(0, 7), st.integers(0, 11))
    return st.builds(
        Model,
        params=st.lists(param, min_size=1, max_size=9),
        events=st.lists(st.lists(event, max_size=2), min_size=3, max_size=6),
        alpha=st.sampled_from([0.9, 0.95, 0.5]),
        keeps_gradients_missing=mostly(False, True),
        seed=st.integers(0, 1000),
    )


# Training and comparison


def outcome_of(call, *args):
    """Return the result of a call, or the type of the error that it raises."""
    try:
        return call(*args)
    except Exception as error:
        return type(error)


def update(optimizer, log):
    acting.optimizer, acting.log = optimizer, log
    try:
        optimizer.update()
    finally:
        acting.optimizer = None


def is_locked(param):
    """Whether the next update would write a read-only array. With a master, it replaces the parameter's array."""
    is_replaced = param.update_rule._use_fp32_update and param.dtype == numpy.float16
    return isinstance(param.array, numpy.ndarray) and not (is_replaced or param.array.flags.writeable)


def has_misfits(optimizer, model):
    """Whether the next update would use a state of another shape than its parameter, or write a read-only parameter.

    In both cases Chainer's class fails half-way or broadcasts.
    """
    return any(
        any(state.shape != param.shape for state in state_of(param).values()) or is_locked(param)
        for param in optimizer.target.params()
        if param.array is not None
        and isinstance(param.update_rule, RMSpropGravesRule)
        and param.update_rule.enabled
        and not (model.keeps_gradients_missing and param.grad is None)
    )


def variance_is_sound(optimizer):
    """Whether n - g * g is nowhere negative. Chainer's class takes its root."""
    states = map(state_of, optimizer.target.params())
    return all((state["n"] - state["g"] * state["g"] >= 0).all() for state in states if "n" in state)


def train(model, *classes, after_events=lambda optimizer: None):
    """Train several classes side by side; assert the same errors, hook records, bits and counts after each update.

    If a state has another shape than its parameter, or a parameter is read-only, the update of the first class must
    raise ValueError and change nothing; that ends the training.

    Args:
        model: The model to train.
        *classes: The classes of the optimizers; each of the others is compared with the first.
        after_events: Called with each optimizer before each update.
    """
    optimizers = [build(cls, model) for cls in classes]
    for step, events in enumerate(model.events):
        for name, place, number in events:
            outcomes = [outcome_of(EVENTS[name], one, param_of(one, place), number) for one in optimizers]
            if all(isinstance(outcome, chainer.Optimizer) for outcome in outcomes):
                optimizers = outcomes
            else:
                assert len(set(outcomes)) == 1, (name, outcomes)
        for optimizer in optimizers:
            after_events(optimizer)
            give_gradients(optimizer, model, step)
        ours, *others = optimizers
        is_refused, before = has_misfits(ours, model), snapshot_of(ours, gradients=False)
        logs = [[] for _ in optimizers]
        outcomes = [outcome_of(update, optimizer, log) for optimizer, log in zip(optimizers, logs)]
        if is_refused:
            assert outcomes[0] is ValueError
            before["/t"] += 1
            assert_same_bits(snapshot_of(ours, gradients=False), before)
            return
        if outcomes[0] is ValueError and has_misfits(ours, model):
            # Two parameters share a rule, and the update of the first made a state that misfits the second.
            assert set(outcomes) == {ValueError}
            return
        for other, log, outcome in zip(others, logs[1:], outcomes[1:]):
            if isinstance(other, ChainerRMSpropGraves) and not variance_is_sound(other):
                return
            assert outcomes[0] == outcome, (step, outcomes)
            assert len(logs[0]) == len(log)
            for recorded, expected in zip(logs[0], log):
                assert_same_bits(recorded, expected)
            assert_same_bits(snapshot_of(ours), snapshot_of(other))


def plain(cls, device="@numpy"):
    """Return an optimizer of five plain parameters, p0 to p4."""
    return build(cls, Model(around({"device": device})))


def train_plain(optimizer, *steps, give=lambda optimizer: None):
    """Update once for each step number; `give` may replace the gradients."""
    for step in steps:
        give_gradients(optimizer, Model(around()), step)
        give(optimizer)
        optimizer.update()
    return optimizer


def assert_same(*optimizers):
    """Assert that optimizers are equal in everything that an update may change."""
    first, *others = map(snapshot_of, optimizers)
    for other in others:
        assert_same_bits(first, other)
