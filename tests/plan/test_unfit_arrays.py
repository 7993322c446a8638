"""A parameter or state that a step cannot write raises an error with its name before any parameter has moved."""

from __future__ import annotations

import functools
import itertools
import re
import warnings

import chainer
import numpy
import pytest
from models import Arrays, gradients
from numpy.lib.stride_tricks import as_strided

from rmsprop_graves import RMSpropGraves

SHAPE = (2, 3)
MISSING = object()
ENTRIES = ("param", "n", "g", "delta")
# The target, p2, is plain, or has a hook or a master. Other parameters are plain or special, or have other dtypes.
MODELS = ("plain", "hook before", "hook after", "own hook", "several dtypes", "master elsewhere", "master")


def viewed(array, view):
    """Return a view of an array of NumPy or of the stand-in."""
    return view(array) if isinstance(array, numpy.ndarray) else array._view(view(array.host))


def strided(*strides):
    return lambda array: viewed(
        array.copy(), lambda host: as_strided(host, SHAPE, [one * host.itemsize for one in strides], writeable=True)
    )


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def of_dtype(dtype):
    return lambda array: array.astype(dtype)


# Functions that replace a valid array, and words of the error message. An element has 4 or 2 bytes.
OVERLAPS = {
    "broadcast": (strided(0, 1), "share memory"),
    "of one element": (strided(0, 0), "share memory"),
    "overlapping": (strided(1, 1), "share memory"),
    "overlapping backwards": (
        lambda array: viewed(strided(1, 1)(array), lambda host: host[::-1, ::-1]),
        "share memory",
    ),
    "integers": (of_dtype("i4"), "dtype int32"),
    "truth values": (of_dtype("?"), "dtype bool"),
    "complex": (of_dtype("c8"), "dtype complex64"),
    "double": (of_dtype("f8"), "dtype float"),
}
READ_ONLY = {
    "read-only": (read_only, "read-only"),
    "read-only broadcast": (lambda array: numpy.broadcast_to(array[:1], SHAPE), "share memory"),
    "masked": (numpy.ma.masked_array, "type MaskedArray"),
    "byte-swapped": (lambda array: array.astype(array.dtype.newbyteorder()), "dtype"),
}
NO_ARRAY = {
    "missing": (lambda array: MISSING, "no state"),
    "a list": (lambda array: array.tolist() if isinstance(array, numpy.ndarray) else [1.0], "type list"),
    "none": (lambda array: None, "type NoneType"),
    "a number": (lambda array: 1.0, "type float"),
    "a scalar": (lambda array: numpy.float32(1), "type float32"),
}


def lock(array):
    array.flags.writeable = False


def make_integers(array):
    array.dtype = f"i{array.itemsize}"


def swap_bytes(array):
    array.dtype = array.dtype.newbyteorder()


def make_strides_zero(array):
    array.strides = (0, 0)


def reshape(array):
    array.shape = SHAPE[::-1]


IN_PLACE = {
    "lock": (lock, "read-only"),
    "integers": (make_integers, "dtype int"),
    "byte order": (swap_bytes, "dtype"),
    "strides": (make_strides_zero, "share memory"),
    "shape": (reshape, "shape"),
}


def set_up(device, model):
    optimizer = RMSpropGraves(lr=0.01, alpha=0.9, momentum=0.5)
    dtypes = {"several dtypes": ["f4", "f8", "f4", "f2", "f8"], "master elsewhere": ["f2", *["f4"] * 4]}.get(
        model, ["f2" if model == "master" else "f4"] * 5
    )
    optimizer.setup(Arrays(*(array.astype(dtype) for array, dtype in zip(gradients(*[SHAPE] * 5), dtypes))))
    optimizer.target.to_device(device)
    hooked = {"hook before": 0, "hook after": 4, "own hook": 2}.get(model)
    if hooked is not None:
        getattr(optimizer.target, f"p{hooked}").update_rule.add_hook(lambda rule, param: None, name="nothing")
    if "master" in model:
        for param in optimizer.target.params():
            param.update_rule.use_fp32_update()
    return optimizer


def give(optimizer, seed):
    for param, grad in zip(optimizer.target.params(), gradients(*[SHAPE] * 5, seed=seed)):
        param._set_grad_without_check(param.device.send(grad.astype(param.dtype)))


def train(optimizer, *seeds):
    for seed in seeds:
        give(optimizer, seed)
        optimizer.update()


def bits(array):
    host = getattr(array, "host", array)
    return host.tobytes() if isinstance(host, numpy.ndarray) else repr(host)


def everything(optimizer):
    """Return every array object with its bits, and every rule's t."""
    found = []
    for param in optimizer.target.params():
        rule = param.update_rule
        master = rule._fp32_param
        arrays = [param.array, *(rule.state or {}).values(), None if master is None else master.array]
        found.append((rule.t, rule.state and list(rule.state), [(id(one), bits(one)) for one in arrays]))
    return found


def written(param):
    master = param.update_rule._fp32_param
    return param if master is None else master


def array_of(param, entry):
    return written(param).array if entry == "param" else param.update_rule.state[entry]


def put(param, entry, array):
    if entry == "param":
        written(param)._data[0] = array
    elif array is MISSING:
        del param.update_rule.state[entry]
    else:
        param.update_rule.state[entry] = array


def ends_of(optimizer):
    return [bits(array_of(param, entry)) for param in optimizer.target.params() for entry in ENTRIES]


def assert_refused(optimizer, message, seed=9, found="found "):
    give(optimizer, seed)
    before, t = everything(optimizer), optimizer.t
    with pytest.raises((ValueError, TypeError), match=f"^parameter p2: {found}.*{re.escape(message)}"):
        optimizer.update()
    assert everything(optimizer) == before
    assert optimizer.t == t + 1


def prepare(optimizer, steps, entry):
    """Train, and return the target. Before a first update, make its states, as a program may do."""
    train(optimizer, *range(steps))
    target = optimizer.target.p2
    if entry != "param" and target.update_rule.state is None:
        target.update_rule._state = {}
        is_wide = target.update_rule._use_fp32_update and target.dtype == "f2"
        target.update_rule.init_state(chainer.Variable(target.array.astype("f4")) if is_wide else target)
    return target


def replacements(device, entry, model):
    found = dict(OVERLAPS)
    if device == "@numpy":
        found.update(READ_ONLY)
    if entry != "param":
        found.update(NO_ARRAY)
    return found


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_an_array_that_is_replaced_by_an_unfit_one_is_refused(device, entry, model):
    """Updates are tried before, at and after the one that builds a table. With the old array training goes on."""

    @functools.lru_cache(maxsize=None)
    def untouched(steps):
        optimizer = set_up(device, model)
        prepare(optimizer, steps, entry)
        train(optimizer, 10, 11)
        return ends_of(optimizer)

    for (name, (fault, message)), steps in itertools.product(replacements(device, entry, model).items(), (0, 1, 3)):
        # The first update makes a master and states, and replaces the array of a parameter with a master.
        is_another_dtype = name in ("double", "byte-swapped")
        if entry == "param" and steps == 0 and (model == "master" or is_another_dtype):
            continue
        optimizer = set_up(device, model)
        target = prepare(optimizer, steps, entry)
        right = array_of(target, entry)
        with target.device.create_context():
            put(target, entry, fault(right))
        assert_refused(optimizer, "" if entry == "param" and is_another_dtype else message)
        put(target, entry, right)
        train(optimizer, 10, 11)
        assert ends_of(optimizer) == untouched(steps), name


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("entry", ENTRIES)
def test_an_array_that_is_changed_in_place_to_an_unfit_one_is_refused(device, entry, model):
    """The array object is the same, so an update that reuses a table must check it again."""
    for (name, (change, message)), steps in itertools.product(IN_PLACE.items(), (0, 1, 3)):
        # A master of another shape is made anew.
        is_replaced = entry == "param" and model == "master" and (steps == 0 or name == "shape")
        # The first update makes states of the parameter's dtype.
        is_replaced |= entry == "param" and steps == 0 and name == "byte order"
        if is_replaced or (device != "@numpy" and name != "shape"):
            continue
        optimizer = set_up(device, model)
        target = prepare(optimizer, steps, entry)
        with warnings.catch_warnings():
            # NumPy 2.4 and 2.5 deprecate setting strides, dtype and shape.
            warnings.simplefilter("ignore", DeprecationWarning)
            change(array_of(target, entry))
        assert_refused(optimizer, message)


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_update_of_one_parameter_refuses_it_too(device, entry):
    """This is param.update(), rule.update(param), or the device's method of the rule."""
    method = "update_core_cpu" if device == "@numpy" else "update_core_gpu"
    calls = (
        lambda param: param.update(),
        lambda param: param.update_rule.update(param),
        lambda param: getattr(param.update_rule, method)(param),
    )
    for (name, (fault, _)), call in itertools.product(replacements(device, entry, "plain").items(), calls):
        optimizer = set_up(device, "plain")
        target = prepare(optimizer, 2, entry)
        put(target, entry, fault(array_of(target, entry)))
        give(optimizer, 3)
        before = [bits(one) for _, _, arrays in everything(optimizer) for one in arrays]
        with pytest.raises((ValueError, TypeError), match=r"^parameter p2: found "):
            call(target)
        assert [bits(one) for _, _, arrays in everything(optimizer) for one in arrays] == before, name


def test_the_update_of_one_parameter_refuses_masked_arrays():
    """It does so even if all arrays are masked, and so have the same type."""
    optimizer = set_up("@numpy", "plain")
    target = prepare(optimizer, 2, "n")
    for entry in ENTRIES:
        put(target, entry, numpy.ma.masked_array(array_of(target, entry)))
    target._grad = numpy.ma.masked_array(target.grad)
    with pytest.raises(TypeError, match=r"^parameter p2: found an array of type MaskedArray"):
        target.update()


def test_views_that_do_not_overlap_are_stepped(device):
    """Their rows may interlock, such as the elements 0, 2, 4 and 3, 5, 7 of a buffer."""
    for strides in ((3, 2), (2, 3), (3, 1), (1, 2), (7, 2)):
        optimizer, expected = set_up(device, "plain"), set_up(device, "plain")
        target = prepare(optimizer, 2, "n")
        train(expected, 0, 1)
        for entry in ENTRIES:
            old = array_of(target, entry)
            room = target.device.send(numpy.zeros(20, "f4"))
            view = viewed(room, functools.partial(as_strided, shape=SHAPE, strides=[4 * one for one in strides]))
            view[...] = old
            put(target, entry, view)
        for one in (optimizer, expected):
            train(one, 2, 3)
        assert ends_of(optimizer) == ends_of(expected)


def test_a_gradient_of_another_dtype_is_refused_on_a_gpu(gpu):
    """CuPy's kernels take one dtype only."""
    optimizer = set_up("@cupy:0", "plain")
    train(optimizer, 0, 1)
    give(optimizer, 2)
    target = optimizer.target.p2
    target._grad = target.grad.astype("f8")
    before = everything(optimizer)
    with pytest.raises(TypeError, match=r"^parameter p2: found a gradient of dtype float64, expected float32"):
        optimizer.update()
    assert everything(optimizer) == before


@pytest.mark.parametrize("steps", [0, 3])
def test_a_read_only_parameter_with_a_master_is_replaced_as_by_chainer(kernel, steps):
    """The update writes the master, and gives the parameter a new array."""
    optimizer = set_up("@numpy", "master")
    train(optimizer, *range(steps))
    optimizer.target.p2.array.flags.writeable = False
    before = optimizer.target.p2.array
    train(optimizer, 5)
    assert (optimizer.target.p2.array != before).any()


@pytest.mark.parametrize("first", [True, False])
def test_float32_updates_may_be_switched_on_and_off(device, first):
    """States keep their dtype, as with Chainer's class. A GPU refuses this: CuPy's kernels take one dtype only."""
    optimizer = set_up(device, "several dtypes")
    rule = optimizer.target.p3.update_rule
    if device != "@numpy":
        rule.use_fp32_update(first)
        train(optimizer, 0)
        rule.use_fp32_update(not first)
        found, expected = ("float32", "float16") if first else ("float16", "float32")
        before = everything(optimizer)
        with pytest.raises(TypeError, match=f"^parameter p3: found a state n of dtype {found}, expected {expected}"):
            train(optimizer, 1)
        assert everything(optimizer) == before
        return
    rule.use_fp32_update(first)
    train(optimizer, 0, 1)
    rule.use_fp32_update(not first)
    train(optimizer, 2, 3)
    assert {rule.state[name].dtype for name in ENTRIES[1:]} == {numpy.dtype("f4" if first else "f2")}


def test_a_state_on_another_device_is_copied_even_if_it_is_read_only(gpu):
    """Chainer sends every state to its parameter's device, so nothing writes the old array."""
    optimizer = set_up("@cupy:0", "plain")
    train(optimizer, 0, 1)
    state = optimizer.target.p2.update_rule.state
    state["n"] = read_only(state["n"].get())
    train(optimizer, 2)
    assert isinstance(state["n"], chainer.backends.cuda.ndarray)


def test_an_array_that_is_not_written_is_not_checked(device):
    """The rule is disabled, or there is no gradient."""
    for name in ("disabled", "no gradient"):
        optimizer = set_up(device, "plain")
        target = prepare(optimizer, 2, "n")
        for entry in ENTRIES:
            put(target, entry, strided(0, 0)(array_of(target, entry)))
        give(optimizer, 3)
        if name == "disabled":
            target.update_rule.enabled = False
        else:
            optimizer.reallocate_cleared_grads = lambda: None
            target.cleargrad()
        before = bits(target.array)
        optimizer.update()
        assert bits(target.array) == before


# Not with a hook on the rule, which might set the hyperparameter during the update.
@pytest.mark.parametrize("model", [model for model in MODELS if model != "own hook"])
@pytest.mark.parametrize("name", ["lr", "alpha", "momentum", "eps"])
def test_an_invalid_hyperparameter_of_a_parameter_is_refused(device, model, name):
    """A zero-dimensional array is kept, and may be changed in place."""
    for steps in (0, 1, 3):
        optimizer = set_up(device, model)
        target = prepare(optimizer, steps, "param")
        own = numpy.array(0.25)
        setattr(target.update_rule.hyperparam, name, own)
        own[...] = numpy.nan
        assert_refused(optimizer, "", found=f"{name} must be a finite number")
        own[...] = 0.5
        train(optimizer, 9)
