"""Random sequences of updates, changes and checkpoints, compared step by step with the model in plain_optimizer."""

from __future__ import annotations

import copy
import io
import os
import tempfile
import warnings

import chainer
import chainer.functions as F
import numpy
import pytest
from chainer import optimizer_hooks
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from file_formats import h5py
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from models import assert_same_bits, snapshot_of
from plain_optimizer import HALF, SINGLE, STATES, Optimizer, Parameter, RefusedError, is_sound
from random_models import SHAPES as SHAPES_OF_ANY_MODEL
from random_models import go_on_with_deepcopy, go_on_with_pickled, mostly, share_states, use_on_cpu

from rmsprop_graves import RMSpropGraves, kernels

# Without zero-dimensional arrays: Chainer's class computes float32 ones in float64.
SHAPES = [shape for shape in SHAPES_OF_ANY_MODEL if shape]


# Hooks: for Chainer, objects; for the model, functions (array, gradient, loss scale) -> (new array, new gradient)


class Halve:
    """A hook of an optimizer or a rule that replaces the gradient by half of it."""

    name = "halve"
    call_for_each_param = True

    def __call__(self, rule, param):
        """Set a new array as the gradient."""
        if param.grad is not None:
            param.grad = numpy.asarray(param.grad * param.grad.dtype.type(0.5))


class Shrink:
    """A hook that halves the parameter in place."""

    name = "shrink"
    call_for_each_param = True

    def __call__(self, rule, param):
        """Write to the array."""
        if param.array is not None:
            param.array[...] *= param.dtype.type(0.5)


def halve(array, grad, scale):
    return array, numpy.asarray(grad * grad.dtype.type(0.5))


def shrink(array, grad, scale):
    return numpy.asarray(array * array.dtype.type(0.5)), grad


def decay(array, grad, scale):
    return array, numpy.asarray(grad + array.dtype.type(0.25 if scale is None else 0.25 * scale) * array)


def clip(array, grad, scale):
    return array, numpy.asarray(numpy.clip(grad, -1, 1))


HOOKS = {
    "halve": (Halve, halve),
    "shrink": (Shrink, shrink),
    "WeightDecay": (lambda: optimizer_hooks.WeightDecay(0.25), decay),
    "GradientHardClipping": (lambda: optimizer_hooks.GradientHardClipping(-1, 1), clip),
}


# Strategies

PARAMETERS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(SHAPES), st.sampled_from(["f4", "f8", "f2"]), st.booleans()),
    min_size=1,
    max_size=6,
)
RANKS = st.integers(0, 7)
SEEDS = st.integers(0, 99)
HYPERPARAMETERS = {
    "lr": st.sampled_from([1e-2, 1e-4, 0.0, -1e-2]),
    "alpha": st.sampled_from([0.95, 0.5, 0.0]),
    "momentum": st.sampled_from([0.9, 0.0, 1.0]),
    "eps": st.sampled_from([1e-4, 1e-2, 1.0]),
}
VALUES = st.one_of(*(st.tuples(st.just(name), values) for name, values in HYPERPARAMETERS.items()))
KINDS = mostly("drawn", "zero", "tiny", "large", "largest", "steady", "not finite", "none", "as it is")


def drawn(shape, dtype, seed):
    return numpy.asarray(numpy.random.RandomState(seed).standard_normal(shape)).astype(dtype)


def gradient(kind, shape, dtype, seed):
    """Return a gradient of a kind, or None."""
    if kind == "none":
        return None
    factors = {"zero": 0.0, "tiny": 1e-6 if dtype == HALF else 1e-40, "large": 100.0}
    if kind in factors:
        with numpy.errstate(under="ignore"):
            return numpy.asarray(drawn(shape, "f8", seed) * factors[kind]).astype(dtype)
    if kind == "steady":
        return numpy.full(shape, 10, dtype)
    array = drawn(shape, dtype, seed)
    if kind == "largest":
        array = numpy.asarray(numpy.copysign(numpy.finfo(dtype).max, array))
    elif kind == "not finite":
        array.ravel()[:1] = (numpy.inf, -numpy.inf, numpy.nan)[seed % 3]
    return array


def save(kind, thing):
    """Return a checkpoint: the bytes of a file, or a dict of entries."""
    if kind == "dictionary":
        serializer = chainer.serializers.DictionarySerializer()
        serializer.save(thing)
        return copy.deepcopy(serializer.target)
    if kind == "npz":
        file = io.BytesIO()
        chainer.serializers.save_npz(file, thing)
        return file.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "checkpoint.hdf5")
        chainer.serializers.save_hdf5(path, thing)
        with open(path, "rb") as file:
            return file.read()


def load(kind, saved, thing):
    if kind == "dictionary":
        chainer.serializers.NpzDeserializer(saved).load(thing)
    elif kind == "npz":
        chainer.serializers.load_npz(io.BytesIO(saved), thing)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "checkpoint.hdf5")
            with open(path, "wb") as file:
                file.write(saved)
            chainer.serializers.load_hdf5(path, thing)


def can_load(kind, arrays):
    """Whether a model of these arrays can be loaded. An old h5py divides by zero if it reads an empty array."""
    return kind != "hdf5" or all(array is None or array.size for array in arrays)


FORMATS = ["dictionary", "npz"] + ["hdf5"] * (h5py is not None)

DAMAGES = {
    "missing": lambda entries, path, name: entries.pop(f"{path}/{name}"),
    "of another shape": lambda entries, path, name: entries.update({f"{path}/{name}": numpy.ones((4, 4), "f4")}),
    "of integers": lambda entries, path, name: entries.update(
        {f"{path}/{name}": numpy.ones(entries[f"{path}/{name}"].shape, "i4")}
    ),
    "NaN": lambda entries, path, name: entries.update(
        {f"{path}/{name}": numpy.full_like(entries[f"{path}/{name}"], numpy.nan)}
    ),
    "without a time": lambda entries, path, name: entries.pop(f"{path}/t"),
    "with a time below zero": lambda entries, path, name: entries.update({f"{path}/t": numpy.array(-1)}),
    "without an epoch": lambda entries, path, name: entries.pop("epoch"),
}


class Lives(RuleBasedStateMachine):
    """An optimizer and its plain model, side by side.

    Args:
        cls: The optimizer's class. For Chainer's class, operations at which it is known to fail are skipped.
    """

    def __init__(self, cls):
        super().__init__()
        self.cls = cls
        self.is_ours = cls is RMSpropGraves
        self.checkpoints = []

    def of(self, rank):
        """Return one parameter: its path, the parameter, and its model."""
        found = sorted(dict(self.optimizer.target.namedparams()).items())
        path, param = found[rank % len(found)]
        return path, param, self.model.params[path]

    @initialize(
        params=PARAMETERS,
        values=st.fixed_dictionaries(HYPERPARAMETERS),
        seed=SEEDS,
    )
    def set_up(self, params, values, seed):
        """Make two links with parameters of any shapes and dtypes, some of them uninitialized."""
        target = chainer.Chain()
        with target.init_scope():
            target.a, target.b = chainer.Link(), chainer.Link()
        models = {}
        for i, (link, shape, dtype, is_early) in enumerate(params):
            if not self.is_ours and dtype == "f2":
                dtype = "f4"
            is_lazy = is_early and (seed + i) % 4 == 0
            array = None if is_lazy else drawn(shape, dtype, seed + i)
            with target[link].init_scope():
                initializer = chainer.initializers.Constant(0.5, dtype) if is_lazy else array.copy()
                setattr(target[link], f"p{i}", chainer.Parameter(initializer))
            models[f"/{link}/p{i}"] = Parameter(array, dtype)
        # Before this, reading the gradient of an uninitialized parameter fails.
        target.cleargrads()
        self.optimizer = self.cls(**values).setup(target)
        in_order = {path: models[path] for path, _ in target.namedparams()}
        self.model = Optimizer(in_order, values, clamped=self.is_ours)

    # Updates

    def update(self, *arguments):
        """Update both; if the model refuses, the optimizer must raise an error that names the parameter."""
        try:
            self.model.update()
        except RefusedError as refused:
            with pytest.raises((ValueError, TypeError), match=f"parameter {str(refused).rpartition('/')[2]}: found "):
                self.optimizer.update(*arguments)
        else:
            self.optimizer.update(*arguments)

    @rule(kind=KINDS, seed=SEEDS)
    def update_with_gradients(self, kind, seed):
        """Update with gradients that the program sets."""
        for i, (path, param) in enumerate(sorted(self.optimizer.target.namedparams())):
            model = self.model.params[path]
            if model.array is not None and kind != "as it is":
                model.grad = gradient(kind, model.array.shape, model.dtype, seed + i)
                param.grad = copy.deepcopy(model.grad)
        self.update()

    @rule(seed=SEEDS, of=st.sets(RANKS))
    def update_with_loss(self, seed, of):
        """Update with the gradients of a loss that depends on some of the parameters."""
        occurring = []
        for rank, (path, model) in enumerate(sorted(self.model.params.items())):
            model.grad = None
            if model.array is not None and (rank in of or not occurring):
                weights = drawn(model.array.shape, model.dtype, seed + rank)
                scale = model.dtype.type(1 if self.model.loss_scale is None else self.model.loss_scale)
                model.grad = numpy.asarray(weights * scale)
                model.loss_scale = self.model.loss_scale
                occurring.append((path, weights))
        if not occurring:
            return

        def loss():
            params = dict(self.optimizer.target.namedparams())
            return sum(F.cast(F.sum(params[path] * weights), "f8") for path, weights in occurring)

        self.update(loss)

    @precondition(lambda self: self.is_ours)
    @rule(rank=RANKS, wrong=st.sampled_from(["of another shape", "that broadcasts", "complex", "a list"]))
    def update_with_wrong_gradient(self, rank, wrong):
        """A gradient set without Chainer's check is refused with the parameter's name, and no parameter is stepped."""
        path, param, model = self.of(rank)
        shrinks = "shrink" in self.model.hooks and self.model.hooks["shrink"][0] == "pre"
        if model.array is None or not (model.has_rule and model.enabled) or shrinks:
            return
        param._set_grad_without_check(
            {
                "of another shape": numpy.ones((4, 4), model.dtype),
                "that broadcasts": numpy.ones((2, *model.array.shape), model.dtype),
                "complex": numpy.ones(model.array.shape, "c8"),
            }.get(wrong)
        )
        if wrong == "a list":
            param._grad = [1.0]
        self.model.fill_gradients()
        refused = [one for one, other in self.model.params.items() if other.misfits() or one == path]
        names = "|".join(one.rpartition("/")[2] for one in refused)
        with pytest.raises((ValueError, TypeError), match=f"parameter ({names}): found "):
            self.optimizer.update()
        # If a hook fails before the step, the update does not count, and some gradients have changed.
        assert self.optimizer.t in (self.model.t, self.model.t + 1)
        self.model.t = self.optimizer.t
        self.optimizer.target.cleargrads()
        for other in self.model.params.values():
            other.grad = None

    # Changes between updates

    @rule(value=VALUES)
    def set_hyperparameter(self, value):
        """Set a hyperparameter of the optimizer, as a schedule does."""
        setattr(self.optimizer, *value)
        self.model.hyperparameters = {**self.model.hyperparameters, value[0]: value[1]}

    @rule(rank=RANKS, value=VALUES)
    def set_hyperparameter_of_rule(self, rank, value):
        """Set a rule's own value, which overrides the optimizer's."""
        _, param, model = self.of(rank)
        if model.has_rule:
            setattr(param.update_rule.hyperparam, *value)
            model.own[value[0]] = value[1]

    @rule(rank=RANKS)
    def unset_hyperparameters_of_rule(self, rank):
        """Delete a rule's own values, so that it inherits the optimizer's again."""
        _, param, model = self.of(rank)
        for name in model.own:
            delattr(param.update_rule.hyperparam, name)
        model.own.clear()

    @rule(name=st.sampled_from(sorted(HOOKS)), timing=st.sampled_from(["pre", "post"]))
    def add_or_remove_hook(self, name, timing):
        """Add a hook to the optimizer, or remove it."""
        if self.model.hooks.pop(name, None):
            self.optimizer.remove_hook(name)
        else:
            make, plain = HOOKS[name]
            if all(param.has_rule for param in self.model.params.values()):
                self.optimizer.add_hook(make(), timing=timing)
                self.model.hooks[name] = timing, plain

    @rule(rank=RANKS, name=st.sampled_from(sorted(HOOKS)), timing=st.sampled_from(["pre", "post"]))
    def add_or_remove_hook_of_rule(self, rank, name, timing):
        """Add a hook to a rule, or remove it. The hook gets the float32 master of its parameter if there is one."""
        _, param, model = self.of(rank)
        if model.hooks.pop(name, None):
            param.update_rule.remove_hook(name)
        elif model.has_rule:
            make, plain = HOOKS[name]
            param.update_rule.add_hook(make(), timing=timing)
            model.hooks[name] = timing, plain

    @rule(rank=RANKS, enabled=st.booleans())
    def enable_or_disable(self, rank, enabled):
        """Enable or disable the update of one parameter."""
        _, param, model = self.of(rank)
        if model.has_rule:
            param.update_rule.enabled = model.enabled = enabled

    @rule(link=st.sampled_from("ab"), enabled=st.booleans())
    def enable_or_disable_link(self, link, enabled):
        """Enable or disable the updates of all parameters of a link."""
        of_link = self.optimizer.target[link]
        (of_link.enable_update if enabled else of_link.disable_update)()
        for path, model in self.model.params.items():
            if path.startswith(f"/{link}/") and model.has_rule:
                model.enabled = enabled

    @rule(zero=st.booleans())
    def clear_gradients(self, zero):
        """Remove all gradients, or set them to zero."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # zerograds
            (self.optimizer.target.zerograds if zero else self.optimizer.target.cleargrads)()
        for model in self.model.params.values():
            if model.array is not None:
                model.grad = numpy.zeros_like(model.array) if zero else None

    @rule()
    def new_epoch(self):
        """Count an epoch."""
        self.optimizer.new_epoch()
        self.model.epoch += 1

    @rule(shape=st.sampled_from(SHAPES))
    def initialize_one(self, shape):
        """Initialize the first uninitialized parameter."""
        for path, model in self.model.params.items():
            if model.array is None:
                param = dict(self.optimizer.target.namedparams())[path]
                param.initialize(shape)
                param.cleargrad()
                model.array = numpy.full(shape, 0.5, model.initial_dtype)
                break

    @rule(rank=RANKS, shape=st.sampled_from(SHAPES), seed=SEEDS, keep=st.booleans())
    def resize(self, rank, shape, seed, keep):
        """Replace the array, as for a growing embedding; keep the state, which no longer fits, or remove it."""
        _, param, model = self.of(rank)
        if model.array is None:
            return
        model.array, model.grad = drawn(shape, model.dtype, seed), None
        param.cleargrad()
        param.array = model.array.copy()
        if model.has_rule and not (keep and self.is_ours):
            param.update_rule._state = model.state = None

    @rule(rank=RANKS, dtype=st.sampled_from(["f2", "f4", "f8"]), keep=st.booleans())
    def cast(self, rank, dtype, keep):
        """Cast a parameter to another dtype; keep its state or cast it too."""
        _, param, model = self.of(rank)
        if model.array is None or (dtype == "f2" and not self.is_ours):
            return
        model.array, model.grad = model.array.astype(dtype), None
        param.cleargrad()
        param.array = model.array.copy()
        # The dtype of a loaded state is not documented if its parameter is cast before the next update.
        if model.state and not (keep and self.is_ours and not model.is_loaded):
            for name in STATES:
                model.state[name] = model.state[name].astype(dtype)
                param.update_rule.state[name] = model.state[name].copy()

    @rule()
    def share_states(self):
        """Make every state a view of a buffer, as ChainerRL does; updates must write to the buffer."""
        share_states(self.optimizer, None, 0)

    @rule(rank=RANKS)
    def init_state(self, rank):
        """Call a rule's init_state, as ChainerRL does."""
        _, param, model = self.of(rank)
        if model.has_rule and model.array is not None:
            param.update_rule._state = {}
            param.update_rule.init_state(param)
            model.state = {name: numpy.zeros_like(model.array) for name in STATES}

    @rule(rank=RANKS)
    def replace_rule(self, rank):
        """Replace a parameter's rule by a new one."""
        _, param, model = self.of(rank)
        param.update_rule = self.optimizer.create_update_rule()
        model.take_rule(False)

    @rule(rank=RANKS)
    def drop_rule(self, rank):
        """Remove a parameter's rule, so that it is no longer trained."""
        if not self.model.hooks:
            _, param, model = self.of(rank)
            param.update_rule = None
            model.take_rule(False)
            model.has_rule = False

    @rule(link=st.sampled_from("ab"), shape=st.sampled_from(SHAPES), seed=SEEDS)
    def grow(self, link, shape, seed):
        """Add a parameter to a link, with a rule of the optimizer."""
        name = f"q{len(self.model.params)}"
        array = drawn(shape, "f4", seed)
        target = self.optimizer.target
        if len(self.model.params) > 7:
            return
        with target[link].init_scope():
            setattr(target[link], name, chainer.Parameter(array.copy()))
        getattr(target[link], name).update_rule = self.optimizer.create_update_rule()
        models = {**self.model.params, f"/{link}/{name}": Parameter(array, "f4")}
        self.model.params = {path: models[path] for path, _ in target.namedparams()}

    @rule(to=st.sampled_from(["device", "cpu"]), rank=RANKS)
    def move(self, to, rank):
        """Move the model to the device where it already is."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # to_cpu
            self.optimizer.target.to_cpu() if to == "cpu" else self.optimizer.target.to_device("@numpy")
            self.of(rank)[1].to_device("@numpy")

    @precondition(lambda self: self.is_ours)
    @rule(flag=st.booleans())
    def use_fp32_update(self, flag):
        """Call the optimizer's method. Chainer enables float32 updates in existing rules even if the flag is False."""
        if all(param.has_rule for param in self.model.params.values()):
            self.optimizer.use_fp32_update(flag)
            self.model.wide = flag
            for model in self.model.params.values():
                model.wide = True

    @precondition(lambda self: self.is_ours)
    @rule(rank=RANKS, flag=st.booleans())
    def use_fp32_update_of_rule(self, rank, flag):
        """Call the method of one parameter's rule."""
        _, param, model = self.of(rank)
        if model.has_rule:
            param.update_rule.use_fp32_update(flag)
            model.wide = flag

    @rule(scale=st.sampled_from([None, 1.0, 8.0, 0.5]))
    def scale_loss(self, scale):
        """Scale the loss by a power of two, so that dividing by it rounds nothing."""
        if scale is None:
            self.optimizer._loss_scale = None
        else:
            self.optimizer.loss_scaling(scale=scale)
        self.model.loss_scale = scale

    @rule()
    def set_up_again(self):
        """Call setup again with the same model, which makes new rules."""
        self.optimizer.setup(self.optimizer.target)
        self.model.set_up()

    @rule(how=st.sampled_from(["pickle", "deepcopy"]))
    def go_on_with_copy(self, how):
        """Continue with a copy of the optimizer. Chainer does not copy a parameter's loss scale."""
        go_on = {"pickle": go_on_with_pickled, "deepcopy": go_on_with_deepcopy}[how]
        self.optimizer = go_on(self.optimizer, None, 0)
        for model in self.model.params.values():
            model.loss_scale = None

    @rule()
    def start_again(self):
        """Make a new optimizer of a copy of the model, as a restarted program does before it loads a checkpoint."""
        values = self.model.hyperparameters
        self.optimizer = self.cls(**values).setup(copy.deepcopy(self.optimizer.target))
        self.model = Optimizer(self.model.params, values, clamped=self.is_ours)
        for model in self.model.params.values():
            model.loss_scale = None

    @rule(name=st.sampled_from(["auto", "numpy"]), number=st.integers(1, 3))
    def use_kernel(self, name, number):
        """Choose a kernel and the number of threads."""
        kernels.use_on_cpu(name)
        kernels.set_num_threads(number)

    # Checkpoints

    @rule(kind=st.sampled_from(FORMATS))
    def save_checkpoint(self, kind):
        """Save the optimizer and the model."""
        # Chainer's class cannot load a checkpoint in which a state is missing.
        if self.is_ours or all(param.state for param in self.model.params.values()):
            arrays = {path: copy.deepcopy(param.array) for path, param in self.model.params.items()}
            saved = save(kind, self.optimizer), save(kind, self.optimizer.target)
            self.checkpoints.append((kind, *saved, self.model.saved(), arrays))

    @precondition(lambda self: self.checkpoints)
    @rule(number=RANKS, with_model=st.booleans())
    def load_checkpoint(self, number, with_model):
        """Load a saved checkpoint, with the saved model or without."""
        kind, optimizer, target, saved, arrays = self.checkpoints[number % len(self.checkpoints)]
        if not self.is_ours and not self.is_sound_for_chainer(saved):
            return
        if with_model and self.has_arrays_like(arrays) and can_load(kind, arrays.values()):
            load(kind, target, self.optimizer.target)
            for path, array in arrays.items():
                if array is not None:
                    self.model.params[path].array = array.copy()
        try:
            self.model.load(saved)
        except RefusedError as refused:
            with pytest.raises((KeyError, ValueError), match=str(refused)):
                load(kind, optimizer, self.optimizer)
        else:
            load(kind, optimizer, self.optimizer)

    @precondition(lambda self: self.is_ours)
    @rule(kind=st.sampled_from(FORMATS), model_first=st.booleans())
    def resume(self, kind, model_first):
        """Load into a new optimizer and model, configured as the old ones: training goes on as if uninterrupted."""
        params = self.model.params
        if not all(param.has_rule and is_as_after_an_update(param) for param in params.values()):
            return
        if not can_load(kind, [param.array for param in params.values()]):
            return
        optimizer, target = save(kind, self.optimizer), save(kind, self.optimizer.target)
        resumed = self.cls(**self.model.hyperparameters).setup(copy.deepcopy(self.optimizer.target))
        resumed.target.cleargrads()
        for path, param in resumed.target.namedparams():
            model, of_rule = params[path], param.update_rule
            param.array[...] = 3
            of_rule.enabled = model.enabled
            of_rule.use_fp32_update(model.wide)
            for name, value in model.own.items():
                setattr(of_rule.hyperparam, name, value)
            for name, (timing, _) in model.hooks.items():
                of_rule.add_hook(HOOKS[name][0](), timing=timing)
        for name, (timing, _) in self.model.hooks.items():
            resumed.add_hook(HOOKS[name][0](), timing=timing)
        resumed._use_fp32_update = self.model.wide
        resumed._loss_scale = self.model.loss_scale
        loads = [(optimizer, resumed), (target, resumed.target)]
        for saved, thing in reversed(loads) if model_first else loads:
            load(kind, saved, thing)
        self.optimizer = resumed
        for model in params.values():
            model.grad = model.loss_scale = None
            # The next update decides again whether to use the master.
            model.take_master(model.loaded_master if model.master is None else model.master)

    def is_sound_for_chainer(self, saved):
        """Whether the checkpoint has a state for each parameter, with the parameter's shape and dtype."""
        rules = saved[2]
        return rules.keys() == self.model.params.keys() and all(
            rules[path][1] is not None
            and all((a.shape, a.dtype) == (param.array.shape, param.dtype) for a in rules[path][1].values())
            for path, param in self.model.params.items()
            if param.array is not None
        )

    def has_arrays_like(self, arrays):
        """Whether the model has the same parameters as a checkpoint, with the same shapes and dtypes."""
        return arrays.keys() == self.model.params.keys() and all(
            array is not None
            and param.array is not None
            and (array.shape, array.dtype) == (param.array.shape, param.dtype)
            for array, param in zip(arrays.values(), self.model.params.values())
        )

    @precondition(lambda self: self.is_ours)
    @rule(damage=st.sampled_from(sorted(DAMAGES)), name=st.sampled_from(STATES), rank=RANKS)
    def load_damaged_checkpoint(self, damage, name, rank):
        """Damage the optimizer's own checkpoint and load it: it is refused, and nothing changes."""
        path, _, model = self.of(rank)
        if not model.state or (damage == "NaN" and not model.state[name].size):
            return
        entries = save("dictionary", self.optimizer)
        DAMAGES[damage](entries, path[1:], name)
        if not any(key.endswith("/t") for key in entries):
            return  # as in a file of Chainer 3.3 or earlier, which loads
        with pytest.raises((KeyError, ValueError)):
            load("dictionary", entries, self.optimizer)

    # The invariant

    @invariant()
    def is_as_the_model(self):
        """Counts, arrays, gradients, states and masters are bit-identical to the model's."""
        if not hasattr(self, "optimizer"):
            return
        expected = {"/t": self.model.t, "/epoch": self.model.epoch}
        for path, model in self.model.params.items():
            expected[path] = model.array
            if model.array is not None:
                expected[f"{path}/grad"] = model.grad
            if model.has_rule:
                expected.update({f"{path}/{name}": array for name, array in (model.state or {}).items()})
                expected.update({f"{path}/t": model.t, f"{path}/enabled": model.enabled})
                expected[f"{path}/fp32_param"] = model.loaded_master if model.master is None else model.master
        expected = {name: numpy.asarray(array) for name, array in expected.items() if array is not None}
        found = snapshot_of(self.optimizer)
        for path, model in self.model.params.items():
            if model.is_loaded and model.state and model.dtype == HALF:
                # These states may be float16 or float32 until the next update.
                found.update({f"{path}/{name}": found[f"{path}/{name}"].astype(SINGLE) for name in STATES})
                expected.update({f"{path}/{name}": expected[f"{path}/{name}"].astype(SINGLE) for name in STATES})
        assert_same_bits(found, expected)


def is_as_after_an_update(param):
    """Whether state and master are as an update leaves them, so that a checkpoint restores them exactly."""
    if param.array is None or (param.state is None and param.enabled and param.t > 0):
        return False
    is_wide = param.wide and param.dtype == HALF
    states = {} if param.state is None else param.state
    master = param.loaded_master if param.master is None else param.master
    return all(
        array.shape == param.array.shape
        and array.dtype == (SINGLE if is_wide else param.dtype)
        and is_sound(name, array, param.dtype)
        for name, array in states.items()
    ) and (master is None or (is_wide and numpy.array_equal(master.astype(HALF), param.array)))


@pytest.fixture
def small_spans(monkeypatch):
    """Use the best kernel, and divide even small arrays among threads."""
    use_on_cpu("auto", monkeypatch)


def live(cls, lives):
    """Run this many random lives of up to 50 steps."""
    with numpy.errstate(all="ignore"):
        run_state_machine_as_test(
            lambda: Lives(cls),
            settings=settings(max_examples=lives, stateful_step_count=50, suppress_health_check=list(HealthCheck)),
        )


@pytest.mark.filterwarnings("ignore:(alpha|momentum) is :UserWarning")
@pytest.mark.usefixtures("small_spans")
def test_every_random_life_agrees_with_the_plain_model():
    """Bits and counts agree after every step, and errors change nothing."""
    live(RMSpropGraves, 400)


@pytest.mark.filterwarnings("ignore:(alpha|momentum) is :UserWarning")
@pytest.mark.usefixtures("small_spans")
def test_the_plain_model_agrees_with_chainers_class():
    """The model does not clamp a negative variance here. Operations at which Chainer's class fails are left out."""
    live(ChainerRMSpropGraves, 200)
