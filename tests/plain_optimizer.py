"""A model of the optimizer in plain NumPy, written from the documentation: updates, saving and loading.

The documentation is docs/reference/optimizer.md, rule.md and checkpoints.md, and Chainer's documentation of
`UpdateRule`, `GradientMethod` and their hooks. The model replaces arrays instead of updating them in place, and has no
batches, no devices and no file formats.
"""

from __future__ import annotations

import copy

import numpy

HALF, SINGLE = numpy.dtype("f2"), numpy.dtype("f4")
STATES = ("n", "g", "delta")


class RefusedError(Exception):
    """The model refuses an update or a checkpoint; the argument is the parameter's path.

    Nothing has changed, except by hooks that ran before the update.
    """


def step(param, grad, n, g, delta, *, lr, alpha, momentum, eps, clamped):
    """Step in the parameter's dtype, or in float32 for float16; every product and sum is rounded."""
    dtype = SINGLE if param.dtype == HALF else param.dtype
    own = [array.dtype for array in (param, n, g, delta)]
    param, grad, n, g, delta = (array.astype(dtype) for array in (param, grad, n, g, delta))
    lr, alpha, one_minus_alpha, momentum, eps = map(dtype.type, (lr, alpha, 1 - alpha, momentum, eps))
    t = one_minus_alpha * grad
    if clamped:
        # A rate of zero resets an infinite state; any other infinite number stays infinite.
        n, g, delta = (_finite_if(rate == 0, state) for rate, state in ((alpha, n), (alpha, g), (momentum, delta)))
    n = n * alpha + t * grad
    g = g * alpha + t
    square = g * g
    if clamped:
        square = numpy.minimum(square, numpy.finfo(dtype).max)
    v = n - square
    if clamped:
        v = numpy.where(v < 0, dtype.type(0), v)
    delta, by = delta * momentum, lr * grad / numpy.sqrt(v + eps)
    delta = delta - numpy.where(numpy.isinf(delta), _finite_if(clamped, by), by)
    moved = param + numpy.where(numpy.isinf(param), _finite_if(clamped, delta), delta)
    return [numpy.asarray(array, of) for array, of in zip((moved, n, g, delta), own)]


def _finite_if(condition, array):
    """Return the array or, if the condition holds, a copy in which the largest finite numbers replace infinities."""
    largest = numpy.finfo(array.dtype).max
    return array.clip(-largest, largest) if condition else array


class Parameter:
    """A parameter with its rule.

    Args:
        array: The array, or None if the parameter is uninitialized.
        dtype: The dtype of the initializer.
    """

    def __init__(self, array, dtype):
        self.array = array
        self.initial_dtype = numpy.dtype(dtype)
        self.grad = self.loss_scale = None
        self.take_rule(False)

    def take_rule(self, wide):
        """Replace the rule. If `wide`, the new one keeps a float32 master of a float16 parameter."""
        self.has_rule = self.enabled = True
        self.t = 0
        self.own = {}
        self.hooks = {}
        self.state = None
        self.wide = wide
        # A loaded master is checked at the next update, because the model may be loaded after the optimizer.
        self.master = self.loaded_master = None
        # Whether the state was loaded after the last update: the next update converts it to its final dtype.
        self.is_loaded = False

    @property
    def is_stepped(self):
        """Whether an update may change the parameter."""
        return self.enabled and self.array is not None

    def take_master(self, master):
        """Load a float32 master. The next update uses it only if the master rounds to the parameter."""
        self.master, self.loaded_master = None, master
        self.is_loaded = True

    @property
    def dtype(self):
        """The dtype of the array or, if the parameter is uninitialized, of the initializer."""
        return self.initial_dtype if self.array is None else self.array.dtype

    def misfits(self):
        """Whether the gradient or the state has a shape or a dtype that the update must refuse."""
        if self.array is None or self.grad is None or not (self.has_rule and self.enabled):
            return False
        states = list((self.state or {}).values())
        # The next update converts a loaded state. A float16 parameter may have states of either dtype, because float32
        # updates can be switched on and off.
        dtypes = {HALF, SINGLE} if self.dtype == HALF else {self.dtype}
        return any(array.shape != self.array.shape for array in (self.grad, *states)) or (
            not self.is_loaded and any(state.dtype not in dtypes for state in states)
        )

    def update(self, hyperparameters, clamped):
        """Update the parameter by its rule."""
        if not self.has_rule:
            return
        if self.array is not None:
            self._settle()
        if not self.enabled:
            return
        self.t += 1
        if self.array is None or self.grad is None:
            return
        is_wide = self.wide and self.dtype == HALF
        if is_wide:
            if self.master is None:
                self.master = self.array.astype(SINGLE)
            array, grad, scale = self.master, self.grad.astype(SINGLE), None
        else:
            array, grad, scale = self.array, self.grad, self.loss_scale
        if self.state is None:
            self.state = {name: numpy.zeros_like(array) for name in STATES}
        if self.loss_scale is not None:
            grad = numpy.asarray(grad / grad.dtype.type(self.loss_scale))
        for timing, hook in self.hooks.values():
            if timing == "pre":
                array, grad = hook(array, grad, scale)
        states = [self.state[name] for name in STATES]
        array, *states = step(array, grad, *states, **{**hyperparameters, **self.own}, clamped=clamped)
        self.state = dict(zip(STATES, states))
        for timing, hook in self.hooks.values():
            if timing == "post":
                array, grad = hook(array, grad, scale)
        if is_wide:
            self.master, self.array = array, array.astype(HALF)
        else:
            self.array, self.grad = array, grad

    def _settle(self):
        if self.master is not None and self.master.shape != self.array.shape:
            self.master = None
        is_wide = self.wide and self.dtype == HALF
        if self.is_loaded and self.state is not None:
            self.state = {name: state.astype(SINGLE if is_wide else self.dtype) for name, state in self.state.items()}
        self.is_loaded = False
        master, self.loaded_master = self.loaded_master, None
        if master is not None and is_wide and numpy.array_equal(master.astype(HALF), self.array):
            self.master = master


class Optimizer:
    """An optimizer and its model.

    Args:
        params: The parameters by path, in the order of updates.
        hyperparameters: A dict of lr, alpha, momentum and eps.
        clamped: Whether a negative variance is clamped to zero and loading refuses a state that is not sound, as in
            this package; False for Chainer's class.
    """

    def __init__(self, params, hyperparameters, clamped):
        self.params = params
        self.hyperparameters = hyperparameters
        self.clamped = clamped
        self.wide = False
        self.loss_scale = None
        self.set_up()

    def set_up(self):
        """Start over with new rules."""
        self.t = self.epoch = 0
        self.hooks = {}
        for param in self.params.values():
            param.take_rule(self.wide)

    def fill_gradients(self):
        """Set missing gradients to zeros."""
        for param in self.params.values():
            if param.array is not None and param.grad is None:
                param.grad = numpy.zeros_like(param.array)

    def call_hooks(self, when):
        """Call the hooks with this timing on every initialized parameter."""
        for timing, hook in self.hooks.values():
            if timing == when:
                for param in self.params.values():
                    if param.array is not None:
                        param.array, param.grad = hook(param.array, param.grad, param.loss_scale)

    def update(self):
        """Update every parameter, or none if one has a wrong gradient or state."""
        self.fill_gradients()
        self.call_hooks("pre")
        self.t += 1
        for path, param in self.params.items():
            if param.misfits():
                raise RefusedError(path)
        for param in self.params.values():
            param.update(self.hyperparameters, self.clamped)
        self.fill_gradients()
        self.call_hooks("post")

    def saved(self):
        """Return a checkpoint: t, epoch and, for each rule, its t, state and float32 master."""
        rules = {}
        for path, param in self.params.items():
            if param.has_rule:
                master = param.master if param.master is not None else param.loaded_master
                rules[path] = copy.deepcopy((param.t, param.state, master))
        return self.t, self.epoch, rules

    def load(self, checkpoint):
        """Load all of a checkpoint, or raise `RefusedError` and load nothing."""
        t, epoch, rules = checkpoint
        params = {path: param for path, param in self.params.items() if param.has_rule}
        for path, param in params.items():
            can_load = _can_load(param, *rules[path], self.clamped) if path in rules else not param.is_stepped
            if not can_load:
                raise RefusedError(path)
        self.t, self.epoch = t, epoch
        for path, param in params.items():
            if path in rules:
                _load(param, *copy.deepcopy(rules[path]))


def _can_load(param, t, state, master, must_be_sound):
    if state is None:
        return t == 0 or not param.is_stepped
    if param.array is not None:
        expected = param.array.shape
    else:
        expected = param.state["n"].shape if param.state else state["n"].shape
    shapes = [array.shape for array in state.values()]
    if master is not None and param.array is not None:
        shapes.append(master.shape)
    if not all(shape == expected for shape in shapes):
        return False
    dtypes = param.state or state
    return not must_be_sound or all(
        is_sound(name, array, dtypes[name].dtype if param.array is None else param.dtype)
        for name, array in state.items()
    )


def is_sound(name, array, dtype):
    """Whether a state has no NaN and no number that is infinite in the dtype.

    n may be infinity if it was saved as infinity. For a float16 parameter, n may also overflow.
    """
    with numpy.errstate(over="ignore", under="ignore"):
        held = array.astype(dtype)
    if numpy.isnan(array).any() or (array == -numpy.inf).any():
        return False
    if name == "n":
        return dtype == HALF or not (numpy.isinf(held) & numpy.isfinite(array)).any()
    return numpy.isfinite(held).all()


def _load(param, t, state, master):
    param.t = t
    if state is not None:
        dtypes = {name: array.dtype for name, array in (param.state or state).items()}
        if param.array is not None:
            # float32 represents every float16 number, so the next update can still choose either.
            dtypes = dict.fromkeys(state, SINGLE if param.dtype == HALF else param.dtype)
        param.state = {name: array.astype(dtypes[name]) for name, array in state.items()}
    elif param.state and param.is_stepped:
        fits = all(array.shape == param.array.shape for array in param.state.values())
        param.state = {name: numpy.zeros_like(array) for name, array in param.state.items()} if fits else None
    param.take_master(master)
