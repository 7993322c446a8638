"""The optimizer: hyperparameters, updates and checkpoints of a whole model."""

from __future__ import annotations

import functools
import re
import warnings
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Callable, Iterable, TypeVar

from chainer import Link, Parameter, Variable
from chainer.backend import GpuDevice
from chainer.optimizer import GradientMethod, HyperparameterProxy
from chainer.serializer import Deserializer

from rmsprop_graves import _checkpoint, kernels
from rmsprop_graves._hooks import WaitingHooks
from rmsprop_graves._hyperparameter import (
    DEFAULTS,
    NAMES,
    Hyperparameter,
    advice_for_setting,
    meant_by,
    warn_of_no_effect,
)
from rmsprop_graves._mistakes import warn_of_mistakes
from rmsprop_graves._plan import Plan
from rmsprop_graves._update_rule import RMSpropGravesRule, refuse_misfits_of

_Init = TypeVar("_Init", bound=Callable[..., None])

# Values that would change the training elsewhere, so that setting them is a mistake.
_INSTEAD_OF_SETTING = {
    "weight_decay": "call add_hook(chainer.optimizer_hooks.WeightDecay(rate))",
    "clip_grads": "call add_hook(chainer.optimizer_hooks.GradientClipping(norm))",
}
# Names that users of other libraries or of Chainer 1 look for, and what to write. A program may set its own attribute
# of most of these names, such as `step` for a counter.
_INSTEAD = {
    "step": "call update()",
    "minimize": "call update(lossfun, *args)",
    "zero_grad": "call model.cleargrads()",
    "zero_grads": "call model.cleargrads()",
    "param_groups": "set lr, or update_rule.hyperparam.lr of one parameter",
    "params": "call target.params()",
    "state_dict": "call chainer.serializers.save_npz(file, optimizer)",
    "save": "call chainer.serializers.save_npz(file, optimizer)",
    "load_state_dict": "call chainer.serializers.load_npz(file, optimizer)",
    "load": "call chainer.serializers.load_npz(file, optimizer)",
    "decay": "the decay rate of the running means is alpha; to decay lr, set optimizer.lr during training",
    **_INSTEAD_OF_SETTING,
}


def _explains_arguments(init: _Init) -> _Init:
    """Wraps a constructor, so that errors about its arguments say what to write. Its signature stays."""

    @functools.wraps(init)
    def explaining_init(self: Any, *args: Any, **kwds: Any) -> None:
        function = type(self).__name__
        to_setup = f"pass the model to setup, as in {function}().setup(model)"
        for name, value in [*zip(NAMES, args), *kwds.items()]:
            is_model = _is_of_a_model(value)
            if name not in NAMES:
                advice = to_setup if is_model else _advice_for(name) or f"the arguments are {', '.join(NAMES)}"
                raise TypeError(f"{function}() got an unexpected keyword argument {name!r}: {advice}")
            if is_model:
                raise TypeError(f"{name} must be a number, got {_kind_of(value)}: {to_setup}")
        init(self, *args, **kwds)

    return explaining_init  # type: ignore[return-value]


def _advice_for(name: str) -> str | None:
    right = meant_by(name)
    return f"its name is {right}" if right else _INSTEAD.get(name)


# Cached, because every update sets attributes.
@functools.lru_cache(maxsize=None)
def _advice_for_setting(name: str) -> str | None:
    return advice_for_setting(name) or _INSTEAD_OF_SETTING.get(name)


class RMSpropGraves(GradientMethod):
    r"""Alex Graves's RMSprop: divides the gradient by its running standard deviation, with momentum.

    Every element :math:`w` of a parameter, with gradient :math:`x`, follows

    .. math::

        n &\leftarrow \alpha n + (1 - \alpha) x^2 \\
        g &\leftarrow \alpha g + (1 - \alpha) x \\
        \Delta &\leftarrow \mu \Delta - \mathrm{lr}\, x / \sqrt{\max(n - g^2, 0) + \epsilon} \\
        w &\leftarrow w + \Delta

    from :math:`n = g = \Delta = 0`. On a CPU, float32 and float64 results are bit-identical to Chainer's own class,
    except where rounding makes :math:`n - g^2` negative: there the steps of Chainer's class are too large or NaN.
    float16 is computed in float32.

    Args:
        lr: Step size; any finite number, and a negative one maximizes the loss (default: 1e-4). A new value does not
            rescale the earlier steps in :math:`\Delta`.
        alpha: Decay rate of the running means :math:`g` and :math:`n` of the gradient and its square; >= 0, normally
            below 1 (default: 0.95).
        momentum: Decay rate :math:`\mu` of the step :math:`\Delta`; >= 0, normally below 1 (default: 0.9).
        eps: Added inside the root, so in units of squared gradient; >= 0 (default: 1e-4). With 0, an element divides
            by zero if its gradient has always been 0, and may if it stays constant for long.

    Raises:
        TypeError: A value is not one real number.
        ValueError: A value is NaN or infinite, or alpha, momentum or eps is negative.

    Warns:
        UserWarning: alpha or momentum is 1 or more.

    Example:
        >>> model = chainer.links.Linear(3, 2)
        >>> optimizer = RMSpropGraves(lr=1e-3).setup(model)
        >>> optimizer.update(lambda x: F.sum(model(x) ** 2), numpy.ones((1, 3), 'f'))
        >>> optimizer.t
        1

    References:
        Alex Graves, Generating Sequences With Recurrent Neural Networks, arXiv 1308.0850, 2013, section 4.2.
    """

    @_explains_arguments
    def __init__(
        self,
        lr: float = DEFAULTS["lr"],
        alpha: float = DEFAULTS["alpha"],
        momentum: float = DEFAULTS["momentum"],
        eps: float = DEFAULTS["eps"],
    ) -> None:
        super().__init__()
        self.hyperparam = Hyperparameter()
        for name, value in zip(NAMES, (lr, alpha, momentum, eps)):
            setattr(self.hyperparam, name, value)

    # The first update of a model makes the plan. A class attribute, because a subclass may not call __init__.
    _plan: Any = None
    # Chainer sets this only in `use_cleargrads`. Without a default, every `update` would go through `__getattr__`.
    _use_cleargrads = True

    lr: float = HyperparameterProxy("lr")
    alpha: float = HyperparameterProxy("alpha")
    momentum: float = HyperparameterProxy("momentum")
    eps: float = HyperparameterProxy("eps")

    # A type checker knows the attributes better without these.
    if not TYPE_CHECKING:

        def __setattr__(self, name, value):
            """Sets an attribute. Warns if its name is another library's or misspelled, so that it has no effect."""
            # A subclass may use any name.
            if type(self) is RMSpropGraves and (advice := _advice_for_setting(name)):
                warn_of_no_effect(name, advice)
            super().__setattr__(name, value)

        def __getattr__(self, name):
            """Raises AttributeError. If another library or Chainer 1 has this name, the message says what to write."""
            if name in NAMES:
                return getattr(self.hyperparam, name)  # raises the property's own error
            advice = _advice_for(name)
            error = AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{f': {advice}' if advice else ''}"
            )
            if advice:
                error.name = name  # keeps python from adding a guess of its own
            raise error

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in NAMES)
        return f"{type(self).__name__}({values})"

    def create_update_rule(self) -> RMSpropGravesRule:
        """Returns a new rule, which inherits every hyperparameter that is not set on the rule itself."""
        return RMSpropGravesRule(self.hyperparam)

    def setup(self, link: Any) -> RMSpropGraves:
        """Sets the model to update, makes new rules without states, and removes all hooks. Returns the optimizer.

        Args:
            link: The model.

        Raises:
            TypeError: ``link`` is not a ``chainer.Link``.
            ImportError: The model is on a GPU, and CuPy is too old.
        """
        if not isinstance(link, Link):
            raise TypeError(f"optimization target must be a link, got {_kind_of(link)}: {_advice_for_target(link)}")
        if any(isinstance(param.device, GpuDevice) for param in link.params()):
            kernels.on_gpu()
        self._plan = None
        return super().setup(link)  # type: ignore[no-any-return]

    def update(self, lossfun: Any = None, *args: Any, **kwds: Any) -> None:
        """Updates every parameter once.

        Computes the gradients of ``lossfun``, calls the hooks with timing ``'pre'``, steps every parameter, and calls
        the hooks with timing ``'post'``. With dynamic loss scaling, the step is skipped if a gradient is not finite.

        Args:
            lossfun: Called with the other arguments; returns the loss to differentiate (default: None, to use the
                gradients that the parameters already have).
            *args: Passed to ``lossfun``.
            **kwds: Passed to ``lossfun``.

        Raises:
            RuntimeError: The optimizer is not set up.
            TypeError: ``lossfun`` is not callable or does not return a Variable. No gradient has been cleared.
            ValueError: The loss does not have exactly one element, and its ``grad`` is not set. No gradient has been
                cleared.
            TypeError: A gradient is not an array of real numbers, a parameter does not hold real floating-point
                numbers, or a state has another dtype than its parameter. No parameter has been stepped.
            ValueError: A gradient or a state has another shape than its parameter, a state is missing, or a parameter
                or state is read-only or has elements that share memory. No parameter has been stepped.

        Warns:
            UserWarning: In the first update, the model has no parameters, no parameter has a gradient, or a value such
                as ``lr`` was set on a rule instead of its ``hyperparam``. Or, on a CPU and without ``lossfun``, all
                gradients are NaN.
        """
        self._check_set_up()
        if lossfun is not None:
            loss = _loss_of(lossfun, args, kwds)
            if self._use_cleargrads:
                self.target.cleargrads()
            else:
                self.target.zerograds()
            loss.backward(loss_scale=self._loss_scale)
            del loss
        params = list(self.target.params())
        if self._plan is None:
            self._plan = Plan()
        if self._plan.is_new:
            self._plan.is_new = False
            warn_of_mistakes(params, made_here=lossfun is not None or self._loss_scaling_is_dynamic)
        self._reallocate_cleared_grads_of(params)
        self.check_nan_in_grads()
        plan = self._plan  # a hook may call `setup`
        hooks = self._call_hooks(plan, "pre", params)
        params = list(self.target.params()) if hooks is None else hooks.model_params()
        self.t += 1
        changed = []
        if self.is_safe_to_update():
            if not plan.update(params, hooks):
                # A user's hook or method has run, and may have cleared a gradient.
                changed = list(self.target.params())
        elif hooks is not None:
            hooks.apply()
        self._reallocate_cleared_grads_of(changed)
        hooks = self._call_hooks(plan, "post", changed or params)
        if hooks is not None:
            hooks.apply()
        self.update_loss_scale()

    def _call_hooks(self, plan: Plan, timing: str, params: list[Any]) -> WaitingHooks | None:
        """Calls the hooks of the optimizer. Returns the hooks that wait to be applied, if any."""
        hooks = None
        # If a subclass redefines one of these methods, no hook waits, so that it sees the gradients as in Chainer.
        if self._inherits("call_hooks", "call_hook", "reallocate_cleared_grads", "is_safe_to_update"):
            hooks = WaitingHooks(self.target, params, self._call_hook_now)
        try:
            plan.hooks = hooks
            self.call_hooks(timing)
        finally:
            plan.hooks = None
        return hooks if self._plan is plan else None

    def add_hook(self, hook: Any, name: str | None = None, timing: str = "auto") -> None:
        """Adds a hook, a function that the update calls before or after the steps.

        Args:
            hook: Called with the optimizer. If its attribute ``call_for_each_param`` is true, it is called for each
                parameter instead, with the update rule and the parameter.
            name: Name for ``remove_hook`` (default: the hook's attribute ``name``, or else ``__name__``).
            timing: ``'pre'`` or ``'post'``, before or after the steps; ``'auto'`` for the hook's attribute ``timing``,
                or ``'pre'`` if it has none (default: ``'auto'``).

        Raises:
            RuntimeError: The optimizer is not set up.
            TypeError: ``hook`` is not callable, or is one of Chainer's hook classes instead of an instance.
            ValueError: ``timing`` is another string, or ``hook`` has no name.
            KeyError: A hook with this name already exists.

        Warns:
            UserWarning: ``name`` is ``'post'`` and no ``timing`` is given.
        """
        self._check_set_up()
        if not callable(hook):
            raise TypeError(
                f"hook function must be callable, got {_kind_of(hook)}: write a function, or an object such as "
                "chainer.optimizer_hooks.WeightDecay(1e-4)"
            )
        if isinstance(hook, type) and hook.__module__.startswith("chainer.optimizer"):
            raise TypeError(
                f"hook must be a function, got the class {hook.__name__}: create it first, as in {hook.__name__}(...)"
            )
        if name == "post" and timing == "auto":
            warnings.warn(
                "the hook is named 'post': to have it called after the steps, write timing='post'",
                UserWarning,
                stacklevel=2,
            )
        super().add_hook(hook, name, timing)

    def remove_hook(self, name: str) -> None:
        """Removes a hook.

        Args:
            name: The name of the hook.

        Raises:
            RuntimeError: The optimizer is not set up.
            KeyError: There is no such hook. The message names the hooks that exist.
        """
        try:
            super().remove_hook(name)
        except KeyError:
            names = [*self._hookable._pre_update_hooks, *self._hookable._post_update_hooks]
            found = ", ".join(map(str, names)) or "none"
            raise KeyError(f'hook "{name}" does not exist; existing hooks: {found}') from None

    def call_hook(self, hook: Any) -> None:
        """Calls a hook of the optimizer. Chainer's own elementwise hooks may be applied together with the step."""
        plan = self._plan
        waiting = None if plan is None else plan.hooks
        if waiting is not None and waiting.take(hook):
            return
        if waiting is None:
            self._call_hook_now(hook)
            return
        # This hook may call another one and read the changed gradients, so none waits meanwhile.
        plan.hooks = None
        try:
            self._call_hook_now(hook)
        finally:
            plan.hooks = waiting

    def _call_hook_now(self, hook: Any) -> None:
        try:
            super().call_hook(hook)
        except Exception:
            # If the hook failed because of a bad gradient, name the parameter.
            refuse_misfits_of(self.target.params())
            raise

    def reallocate_cleared_grads(self) -> None:
        """Sets missing gradients to zeros. Called before and after every hook, and before and after the step."""
        # Chainer's method takes 2 to 3 microseconds for each parameter even if no gradient is missing.
        if _lacks_grad(self.target.params()):
            super().reallocate_cleared_grads()

    def _reallocate_cleared_grads_of(self, params: list[Any]) -> None:
        # Checking the list is faster than a walk over the model, but a subclass may redefine the method.
        if not self._inherits("reallocate_cleared_grads") or _lacks_grad(params):
            self.reallocate_cleared_grads()

    def _inherits(self, *names: str) -> bool:
        """Whether no subclass, mixin or instance redefines one of these methods of this class or its bases."""
        others = () if type(self) is RMSpropGraves else set(type(self).__mro__) - set(RMSpropGraves.__mro__)
        return all(vars(one).keys().isdisjoint(names) for one in (self, *others))

    def loss_scaling(self, interval: float = 1000, scale: float | None = None) -> None:
        """Multiplies the loss by a scale before ``backward``, and divides the gradients by it before the step.

        Args:
            interval: Number of updates in which a dynamic scale doubles (default: 1000).
            scale: A fixed scale (default: None, for a dynamic scale).

        Raises:
            TypeError: ``scale`` or ``interval`` is not a number.
            ValueError: ``scale`` is not positive, or ``interval`` is less than 1.
        """
        try:
            super().loss_scaling(interval, scale)
        except TypeError:
            name, value = ("interval", interval) if scale is None else ("scale", scale)
            raise TypeError(f"{name} must be a number, got {value!r}") from None

    def serialize(self, serializer: Any) -> None:
        """Saves or loads t, epoch, the dynamic loss scale, and each rule's t, state and float32 master.

        The parameters are not included: save the model too. Loading is all or nothing: everything is read and checked
        before anything is written. Each state is converted to its parameter's dtype.

        Raises:
            RuntimeError: The optimizer is not set up.
            KeyError: An entry is missing.
            ValueError: An entry is damaged or invalid, for example of another shape than its parameter.
            OSError: The operating system cannot read the file; ``errno`` says why.
        """
        self._check_set_up()
        if isinstance(serializer, Deserializer):
            _checkpoint.load_optimizer(self, serializer, RMSpropGravesRule)
        else:
            _checkpoint.save_optimizer(self, serializer)


def _advice_for_target(link: Any) -> str:
    if isinstance(link, type):
        return "create the model first"
    if isinstance(link, (list, tuple, dict)):
        return "put several links into a ChainList"
    if isinstance(link, (Variable, GeneratorType)):
        return "pass the model itself, not its parameters"
    return "pass the model, a chainer.Link such as a Chain"


def _loss_of(lossfun: Any, args: Any, kwds: Any) -> Any:
    """Returns the loss.

    Raises:
        TypeError: ``lossfun`` is not callable, or its result is not a Variable.
        ValueError: The loss is not a scalar and has no gradient to start with.
    """
    if not callable(lossfun):
        raise TypeError(
            f"lossfun must be a function that returns the loss, got {_kind_of(lossfun)}: "
            "write update(lambda: loss), or model.cleargrads(), loss.backward() and update()"
        )
    loss = lossfun(*args, **kwds)
    if not hasattr(loss, "backward"):
        advice = "return the loss itself, neither its array nor a tuple" if loss is not None else "return the loss"
        raise TypeError(f"lossfun must return a chainer.Variable, got {_kind_of(loss)}: {advice}")
    if isinstance(loss, Variable) and loss.array is None:
        raise ValueError("the loss has no array: it is a parameter that is not initialized")
    if isinstance(loss, Variable) and loss.array.size != 1 and loss.grad_var is None:
        raise ValueError(
            f"the loss must be a scalar, got the shape {loss.shape}: return F.sum or F.mean of it, or set its grad"
        )
    return loss


def _is_of_a_model(value: Any) -> bool:
    """Whether a value is a model, a model's class, or parameters in a form that other libraries accept."""
    one = value
    while isinstance(one, (dict, list, tuple)) and one:
        # In a pair of a name and a parameter, the parameter is the last.
        one = [*(one.values() if isinstance(one, dict) else one)][-1]
    is_class = isinstance(one, type) and issubclass(one, Link)
    return is_class or isinstance(one, (Link, GeneratorType, Parameter if one is value else Variable))


def _kind_of(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    # The letters of an abbreviation are spoken: an LSTM, a UNet.
    return f"{'an' if re.match('[AEIOaeiou]|U[a-z]|[FHLMNRSX](?![a-z])|ndarray', name) else 'a'} {name}"


def _lacks_grad(params: Iterable[Any]) -> bool:
    # A list takes half the time of `any` with a generator.
    return bool([param for param in params if param._grad is None and param._grad_var is None])


RMSpropGraves.__module__ = "rmsprop_graves"
