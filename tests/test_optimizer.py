"""Everything that Chainer documents of an optimizer, through this class."""

from __future__ import annotations

import doctest
import pickle
import warnings
from types import SimpleNamespace

import chainer
import numpy
import pytest
from chainer import functions as F
from chainer import links as L
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from chainer.optimizers.rmsprop_graves import RMSpropGravesRule as ChainerRMSpropGravesRule
from models import Arrays, arrays_of, assert_same_bits

from rmsprop_graves import RMSpropGraves, RMSpropGravesRule, kernels

CLASSES = (RMSpropGraves, ChainerRMSpropGraves)


def gradients(*shapes, seed=0, dtype="f4"):
    """One gradient for each shape."""
    rng = numpy.random.RandomState(seed)
    return [numpy.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def assert_trains_as_chainers(prepare, step, steps=5):
    """Sets both classes up with `prepare(cls)` and steps them with `step(optimizer, t)`: the same bits, the same t."""
    ours, chainers = map(prepare, CLASSES)
    for t in range(steps):
        for optimizer in (ours, chainers):
            step(optimizer, t)
        assert_same_bits(arrays_of(ours), arrays_of(chainers))
        assert rule_times(ours) == rule_times(chainers)
        assert (ours.t, ours.epoch) == (chainers.t, chainers.epoch)
    return ours, chainers


def rule_times(optimizer):
    return [param.update_rule.t for param in optimizer.target.params()]


# Construction


def test_it_is_a_gradient_method_of_its_own():
    """Chainer's base classes, not Chainer's RMSpropGraves."""
    assert issubclass(RMSpropGraves, chainer.optimizer.GradientMethod)
    assert issubclass(RMSpropGravesRule, chainer.optimizer.UpdateRule)
    assert not issubclass(RMSpropGraves, ChainerRMSpropGraves)
    assert not issubclass(RMSpropGravesRule, ChainerRMSpropGravesRule)
    assert RMSpropGraves.__name__ == "RMSpropGraves"


def test_the_defaults_are_chainers():
    """In the documented order, also positionally."""
    optimizer = RMSpropGraves()
    assert (optimizer.lr, optimizer.alpha, optimizer.momentum, optimizer.eps) == (1e-4, 0.95, 0.9, 1e-4)
    optimizer = RMSpropGraves(1, 0.5, 0.25, 0.125)
    assert (optimizer.lr, optimizer.alpha, optimizer.momentum, optimizer.eps) == (1, 0.5, 0.25, 0.125)


@pytest.mark.parametrize("name", ["lr", "alpha", "momentum", "eps"])
def test_attributes_are_aliases_of_the_hyperparameters(name):
    """Read and written through either, and read by every rule."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    setattr(optimizer, name, 0.5)
    assert getattr(optimizer.hyperparam, name) == 0.5
    assert getattr(optimizer.target.p0.update_rule.hyperparam, name) == 0.5
    setattr(optimizer.hyperparam, name, 0.25)
    assert getattr(optimizer, name) == 0.25


@pytest.mark.parametrize("name", ["lr", "alpha", "momentum", "eps"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("x", TypeError),
        ("0.1", TypeError),
        (None, TypeError),
        (1j, TypeError),
        ([0.1], TypeError),
        (numpy.array([0.1]), TypeError),
        (numpy.complex64(1), TypeError),
        (chainer.Variable(numpy.ones((), "f4")), TypeError),
        (SimpleNamespace(shape=(), dtype="torch.float32"), TypeError),
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        (numpy.float32("-inf"), ValueError),
        (numpy.array(numpy.nan), ValueError),
        (10**400, ValueError),
    ],
    ids=repr,
)
def test_a_value_that_cannot_work_is_refused_wherever_it_is_set(name, value, error):
    """In both constructors and on both sets of hyperparameters; the error names it, and nothing has changed."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    rule = optimizer.target.p0.update_rule
    places = [
        lambda: RMSpropGraves(**{name: value}),
        lambda: setattr(optimizer, name, value),
        lambda: setattr(optimizer.hyperparam, name, value),
        lambda: setattr(rule.hyperparam, name, value),
    ]
    if value is not None:  # which means inherited in a rule's constructor
        places.append(lambda: RMSpropGravesRule(**{name: value}))
    for place in places:
        with pytest.raises(error, match=f"^{name} must be a finite number.*, got ") as caught:
            place()
        assert repr(value) in str(caught.value)
    assert repr(optimizer) == repr(RMSpropGraves())
    assert name not in vars(rule.hyperparam)


@pytest.mark.parametrize("name", ["alpha", "momentum", "eps"])
def test_a_negative_decay_or_eps_is_refused(name):
    """Also a negative zero's neighbour; zero itself is fine."""
    with pytest.raises(ValueError, match=f"{name} must be a finite number >= 0, got -5e-324"):
        RMSpropGraves(**{name: -5e-324})
    RMSpropGraves(**{name: 0})


@pytest.mark.parametrize(
    "values",
    [
        {"lr": -1e-3},
        {"lr": 1.0001, "alpha": 1.05, "momentum": 1.0, "eps": 0.1001},
        {"lr": numpy.float32(0.5), "alpha": numpy.array(0.5), "momentum": 0, "eps": numpy.int64(1)},
    ],
    ids=["ascent", "each default plus 0.1", "other number types"],
)
def test_values_that_chainer_takes_and_that_work_are_taken_as_they_are(values):
    """And kept as the objects that they were."""
    optimizer = RMSpropGraves(**values).setup(Arrays([1.0]))
    for name, value in values.items():
        assert getattr(optimizer, name) is value
    optimizer.target.set_grads(numpy.ones(1))
    optimizer.update()
    assert numpy.isfinite(optimizer.target.p0.array).all()


def test_repr_shows_the_values_and_can_be_evaluated():
    """The optimizer's; a rule's shows its own values, its t and whether it is disabled."""
    optimizer = RMSpropGraves(lr=0.5)
    assert repr(optimizer) == "RMSpropGraves(lr=0.5, alpha=0.95, momentum=0.9, eps=0.0001)"
    assert repr(eval(repr(optimizer))) == repr(optimizer)
    rule = optimizer.create_update_rule()
    rule.hyperparam.eps = 1
    assert repr(rule) == "<RMSpropGravesRule(lr=0.5, alpha=0.95, momentum=0.9, eps=1) t=0>"
    rule.enabled = False
    assert repr(rule).endswith("t=0 disabled>")


# setup and update


@pytest.mark.parametrize(
    "call",
    [
        lambda optimizer: optimizer.update(),
        lambda optimizer: optimizer.update(lambda: None),
        lambda optimizer: optimizer.serialize(chainer.serializers.DictionarySerializer()),
        lambda optimizer: optimizer.add_hook(print, name="print"),
        lambda optimizer: optimizer.remove_hook("print"),
        lambda optimizer: optimizer.call_hooks(),
    ],
    ids=["update", "update with a loss", "serialize", "add_hook", "remove_hook", "call_hooks"],
)
def test_what_needs_a_model_says_so_before_setup(call):
    """In Chainer's words."""
    with pytest.raises(RuntimeError, match=r"^Optimizer is not set up\. Call `setup` method\.$"):
        call(RMSpropGraves())


def test_setup_returns_the_optimizer_and_starts_over():
    """The target is the link; t, epoch and states are new."""
    model = Arrays([1.0])
    optimizer = RMSpropGraves()
    assert optimizer.setup(model) is optimizer
    assert optimizer.target is model
    model.set_grads(numpy.ones(1))
    optimizer.update()
    optimizer.new_epoch()
    assert (optimizer.t, optimizer.epoch) == (1, 1)
    optimizer.setup(model)
    assert (optimizer.t, optimizer.epoch, model.p0.update_rule.t) == (0, 0, 0)
    assert model.p0.update_rule.state is None


def test_setup_of_what_is_not_a_link_is_refused():
    """As Chainer refuses it."""
    with pytest.raises(TypeError, match="optimization target must be a link"):
        RMSpropGraves().setup([numpy.ones(1)])


def test_create_update_rule_makes_a_rule_that_inherits():
    """A new one at each call; its state is empty until the first update."""
    optimizer = RMSpropGraves(lr=0.5)
    rule = optimizer.create_update_rule()
    assert isinstance(rule, RMSpropGravesRule)
    assert rule is not optimizer.create_update_rule()
    assert rule.hyperparam.parent is optimizer.hyperparam
    assert rule.state is None
    assert rule.is_elementwise


def test_update_calls_the_loss_function_with_its_arguments():
    """Positional and by name; the gradients are those of what it returns, not what was there before."""
    given = []

    def prepare(cls):
        numpy.random.seed(0)
        return cls(lr=1e-2).setup(L.Linear(3, 2))

    def step(optimizer, t):
        def loss(x, scale):
            given.append((x, scale))
            return scale * F.sum(optimizer.target(x) ** 2)

        optimizer.target.W.grad = numpy.full_like(optimizer.target.W.array, 1e6)
        optimizer.update(loss, numpy.full((1, 3), t, "f4"), scale=2.0)

    assert_trains_as_chainers(prepare, step)
    assert [scale for _, scale in given] == [2.0] * 10


def test_update_without_a_loss_function_uses_the_gradients_that_are_there():
    """And adds one to t of the optimizer and of the rule."""
    assert_trains_as_chainers(
        lambda cls: cls().setup(Arrays(*gradients((2, 3), 4))),
        lambda optimizer, t: (optimizer.target.set_grads(*gradients((2, 3), 4, seed=t)), optimizer.update()),
    )


@pytest.mark.parametrize("use", [True, False])
def test_use_cleargrads_chooses_between_clearing_and_zeroing(use):
    """Deprecated, and warned of, since Chainer 2."""
    called = []

    class Model(L.Linear):
        def cleargrads(self):
            called.append("cleargrads")
            super().cleargrads()

        def zerograds(self):
            called.append("zerograds")
            for param in self.params():
                param.grad = numpy.zeros_like(param.array)

    optimizer = RMSpropGraves().setup(Model(2, 1))
    with pytest.warns(DeprecationWarning, match="use_cleargrads is deprecated"):
        optimizer.use_cleargrads(use)
    optimizer.update(lambda: F.sum(optimizer.target(numpy.ones((1, 2), "f4"))))
    assert called == ["cleargrads" if use else "zerograds"]
    assert (optimizer.target.W.array != 0).all()


def test_reallocate_cleared_grads_makes_zeros_of_none():
    """Of the parameter's shape and dtype, and leaves other gradients as they are."""
    optimizer = RMSpropGraves().setup(Arrays(*gradients((2, 3), 4)))
    grad = numpy.ones(4, "f4")
    optimizer.target.p0.cleargrad()
    optimizer.target.p1.grad = grad
    optimizer.reallocate_cleared_grads()
    numpy.testing.assert_array_equal(optimizer.target.p0.grad, numpy.zeros((2, 3), "f4"))
    assert optimizer.target.p1.grad is grad


def test_new_epoch_counts_and_refuses_to_be_called_twice_for_one():
    """By hand, or by an updater that has said so; never both."""
    optimizer = RMSpropGraves().setup(Arrays([1.0]))
    optimizer.new_epoch()
    assert optimizer.epoch == 1
    with pytest.raises(RuntimeError, match="invalid new_epoch call with auto=True"):
        optimizer.new_epoch(auto=True)
    optimizer.use_auto_new_epoch = True
    optimizer.new_epoch(auto=True)
    assert optimizer.epoch == 2
    with pytest.raises(RuntimeError, match="duplicated new_epoch with the updater"):
        optimizer.new_epoch()
    assert optimizer.epoch == 2


# The state


def test_states_are_three_arrays_like_the_parameter_written_in_place():
    """Others, such as ChainerRL's workers, hold them as views of shared memory."""
    optimizer = RMSpropGraves().setup(Arrays(*gradients((2, 3))))
    optimizer.target.set_grads(*gradients((2, 3), seed=1))
    optimizer.update()
    param = optimizer.target.p0
    state = param.update_rule.state
    assert sorted(state) == ["delta", "g", "n"]
    held = dict(state, param=param.array)
    before = {name: array.copy() for name, array in held.items()}
    optimizer.update()
    for name, array in dict(state, param=param.array).items():
        assert array is held[name], name
        assert (array.shape, array.dtype) == ((2, 3), "f4")
        assert (array != before[name]).all(), name


def test_init_state_can_be_called_from_outside_and_its_arrays_swapped():
    """As ChainerRL does before training: `rule._state = {}`, init_state, then views in place of the arrays."""

    def prepare(cls):
        optimizer = cls().setup(Arrays(*gradients((2, 3))))
        rule = optimizer.target.p0.update_rule
        rule._state = {}
        rule.init_state(optimizer.target.p0)
        for name, array in rule.state.items():
            numpy.testing.assert_array_equal(array, numpy.zeros((2, 3), "f4"))
            shared = numpy.zeros(7, "f4")
            rule.state[name] = shared[1:].reshape(2, 3)
        return optimizer

    def step(optimizer, t):
        optimizer.target.set_grads(*gradients((2, 3), seed=t))
        optimizer.update()

    ours, _ = assert_trains_as_chainers(prepare, step)
    for array in ours.target.p0.update_rule.state.values():
        assert array.base is not None
        assert array.base.ravel()[0] == 0


# What is special about a parameter


def test_a_rules_own_hyperparameters_win_over_the_optimizers():
    """For that parameter alone, also when the optimizer's change afterwards."""

    def prepare(cls):
        optimizer = cls().setup(Arrays(*gradients(3, 3)))
        optimizer.target.p0.update_rule.hyperparam.lr = 0.5
        optimizer.target.p0.update_rule.hyperparam.momentum = 0.1
        return optimizer

    def step(optimizer, t):
        optimizer.lr = 0.1 * t
        optimizer.target.set_grads(*gradients(3, 3, seed=t))
        optimizer.update()

    ours, _ = assert_trains_as_chainers(prepare, step)
    assert ours.target.p0.update_rule.hyperparam.lr == 0.5
    assert ours.target.p1.update_rule.hyperparam.lr == 0.4


def test_a_rule_takes_its_values_in_its_constructor_as_chainers_does():
    """And stands alone, with the defaults for the rest."""
    results = []
    for cls in (RMSpropGravesRule, ChainerRMSpropGravesRule):
        param = chainer.Parameter(*gradients(5))
        param.update_rule = cls(lr=0.1, momentum=0.5)
        assert param.update_rule.hyperparam.alpha == 0.95
        for seed in range(3):
            (param.grad,) = gradients(5, seed=seed)
            param.update()
        results.append({"param": param.array, **param.update_rule.state})
    assert_same_bits(*results)


def test_a_disabled_rule_leaves_its_parameter_alone_until_enabled():
    """No step, no state, no t."""

    def prepare(cls):
        optimizer = cls().setup(Arrays(*gradients(3, 3)))
        optimizer.target.p0.update_rule.enabled = False
        return optimizer

    def step(optimizer, t):
        rule = optimizer.target.p0.update_rule
        if t == 2:
            assert (rule.t, rule.state) == (0, None)
            numpy.testing.assert_array_equal(optimizer.target.p0.array, gradients(3)[0])
            rule.enabled = True
        optimizer.target.set_grads(*gradients(3, 3, seed=t))
        optimizer.update()

    assert_trains_as_chainers(prepare, step)


def test_a_rule_without_a_gradient_does_not_step():
    """When update() of the parameter is called by itself: Chainer counts t, and nothing moves."""
    results = []
    for cls in (RMSpropGravesRule, ChainerRMSpropGravesRule):
        param = chainer.Parameter(*gradients(5))
        param.update_rule = cls()
        param.cleargrad()
        param.update()
        results.append({"param": param.array, **param.update_rule.state})
        assert param.update_rule.t == 1
    assert_same_bits(*results)
    assert_same_bits({"param": results[0]["param"]}, {"param": gradients(5)[0]})


def test_a_parameter_that_is_not_initialized_joins_when_it_is():
    """A layer that learns its input size from its first batch, before and after."""

    def prepare(cls):
        return cls().setup(chainer.Sequential(L.Linear(None, 2, initialW=0.5)))

    def step(optimizer, t):
        if t == 0:
            optimizer.target.cleargrads()
            optimizer.target[0].b.grad = numpy.ones(2, "f4")
            optimizer.update()
            assert optimizer.target[0].W.array is None
            return
        x = gradients((4, 3), seed=t)[0]
        optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))

    ours, chainers = map(prepare, CLASSES)
    for t in range(5):
        for optimizer in (ours, chainers):
            step(optimizer, t)
        assert rule_times(ours) == rule_times(chainers)
    assert_same_bits(arrays_of(ours), arrays_of(chainers))


def test_a_parameter_shared_by_two_links_is_updated_as_often_as_chainer_does():
    """Twice for each update, since it is listed twice; its t says so."""

    def prepare(cls):
        first = L.Linear(2, 2, initialW=0.5)
        second = L.Linear(2, 2, initialW=0.25)
        with second.init_scope():
            second.W = first.W
        return cls().setup(chainer.Sequential(first, second))

    def step(optimizer, t):
        x = gradients((4, 2), seed=t)[0]
        optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))

    ours, _ = assert_trains_as_chainers(prepare, step)
    assert ours.target[0].W is ours.target[1].W
    assert ours.target[0].W.update_rule.t == 10
    assert ours.target[0].b.update_rule.t == 5


# Half precision


def half_model():
    with chainer.using_config("dtype", numpy.float16):
        return L.Linear(3, 2, initialW=0.5)


def step_half(optimizer, t):
    x = gradients((4, 3), seed=t, dtype="f2")[0]
    optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))


@pytest.mark.parametrize("before_setup", [True, False])
def test_use_fp32_update_keeps_a_float32_master(before_setup):
    """The parameter is the master rounded; the states are float32; the bits are Chainer's."""

    def prepare(cls):
        optimizer = cls(lr=1e-3)
        if before_setup:
            optimizer.use_fp32_update()
        optimizer.setup(half_model())
        if not before_setup:
            optimizer.use_fp32_update()
        return optimizer

    ours, _ = assert_trains_as_chainers(prepare, step_half)
    weight = ours.target.W
    assert weight.dtype == numpy.float16
    assert {array.dtype for array in weight.update_rule.state.values()} == {numpy.dtype("f4")}
    master = weight.update_rule._fp32_param.array
    numpy.testing.assert_array_equal(weight.array, master.astype("f2"))
    assert (master != weight.array).any()


def test_a_half_that_is_not_initialized_may_use_fp32_update():
    """Chainer makes it a master that it cannot read, pickle or get rid of, and fails when others have moved."""
    ends = []
    for updates_before in (0, 1):
        layer = L.Linear(None, 2, initialW=chainer.initializers.Constant(0.5, "f2"), nobias=True)
        optimizer = RMSpropGraves(lr=1e-3).setup(layer)
        optimizer.use_fp32_update()
        layer.cleargrads()
        for _ in range(updates_before):
            optimizer.update()
            optimizer = pickle.loads(pickle.dumps(optimizer))
            layer = optimizer.target
        assert layer.W.update_rule.t == updates_before
        step_half(optimizer, 0)
        assert layer.W.update_rule.state["n"].dtype == numpy.float32
        ends.append(arrays_of(optimizer))
    assert_same_bits(*ends)


def test_a_half_that_is_resized_gets_another_master():
    """Chainer holds the gradient to the shape of the last one, and fails when other parameters have moved."""
    optimizer = RMSpropGraves(lr=1e-3).setup(half_model())
    optimizer.use_fp32_update()
    step_half(optimizer, 0)
    weight = optimizer.target.W
    weight.cleargrad()
    weight.array = numpy.ones((2, 5), "f2")
    weight.update_rule._state = None
    x = gradients((4, 5), seed=1, dtype="f2")[0]
    optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))
    assert weight.update_rule._fp32_param.shape == weight.shape == (2, 5)
    assert (weight.array != 1).all()


def test_one_rule_alone_may_use_fp32_update():
    """rule.use_fp32_update() on a parameter; the others step in half precision."""
    optimizer = RMSpropGraves().setup(half_model())
    optimizer.target.W.update_rule.use_fp32_update()
    step_half(optimizer, 0)
    assert optimizer.target.W.update_rule.state["n"].dtype == numpy.float32
    assert optimizer.target.b.update_rule.state["n"].dtype == numpy.float16


@pytest.mark.parametrize("configure", [lambda o: o.loss_scaling(scale=8.0), lambda o: o.set_loss_scale(8.0)])
def test_a_static_loss_scale_is_divided_out(configure):
    """A power of two: the same bits as without one, and as Chainer's."""

    def prepare(cls):
        optimizer = cls(lr=1e-2).setup(L.Linear(3, 2, initialW=0.5))
        configure(optimizer)
        return optimizer

    def step(optimizer, t):
        x = gradients((4, 3), seed=t)[0]
        optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))

    ours, _ = assert_trains_as_chainers(prepare, step)
    plain = RMSpropGraves(lr=1e-2).setup(L.Linear(3, 2, initialW=0.5))
    for t in range(5):
        step(plain, t)
    assert_same_bits(arrays_of(ours), arrays_of(plain))


@pytest.mark.filterwarnings("ignore:Non finite number found in param.grad:UserWarning")
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_dynamic_loss_scaling_skips_a_step_that_is_not_finite_and_lowers_the_scale():
    """Nothing moves at that step, t of the optimizer goes on, and the scale is halved."""
    scales = []

    def prepare(cls):
        optimizer = cls(lr=1e-2).setup(L.Linear(3, 2, initialW=0.5))
        optimizer.loss_scaling(interval=10)
        return optimizer

    def step(optimizer, t):
        x = gradients((4, 3), seed=t)[0]
        if t == 3:
            x[0, 0] = numpy.inf
        before = {name: array.copy() for name, array in arrays_of(optimizer).items()}
        optimizer.update(lambda: F.sum(optimizer.target(x) ** 2))
        assert optimizer.is_safe_to_update() == (t != 3)
        if t == 3:
            assert_same_bits(arrays_of(optimizer), before)
        scales.append(optimizer._loss_scale)

    ours, _ = assert_trains_as_chainers(prepare, step, steps=6)
    assert ours.t == 6
    assert ours.target.W.update_rule.t == 5
    assert scales[::2] == scales[1::2]
    assert scales[6] == scales[4] / 2


def test_is_safe_to_update_may_be_overridden_to_skip_steps():
    """Hooks run and t counts; the parameters stay."""

    class Cautious(RMSpropGraves):
        def is_safe_to_update(self):
            return False

    optimizer = Cautious().setup(Arrays([1.0]))
    optimizer.target.set_grads(numpy.ones(1))
    optimizer.update()
    assert optimizer.t == 1
    numpy.testing.assert_array_equal(optimizer.target.p0.array, [1.0])


# Arrays that are not NumPy's


def test_an_array_that_numpy_cannot_write_into_is_refused_by_its_type(monkeypatch):
    """iDeep's arrays look like NumPy's but cannot be the output of a NumPy function."""

    class Mdarray:
        __module__ = "ideep4py"
        shape, dtype = (1,), numpy.dtype("f4")

    optimizer = RMSpropGraves().setup(Arrays(numpy.ones(1, "f4")))
    param = optimizer.target.p0
    param.grad = numpy.ones(1, "f4")
    optimizer.update()
    param.update_rule.state["n"] = Mdarray()
    monkeypatch.setattr(chainer, "get_array_types", lambda: (numpy.ndarray, Mdarray))
    with pytest.raises(TypeError, match=r"parameter p0: .* takes numpy\.ndarray, found ideep4py.*Mdarray; .*to_cpu"):
        param.update_rule.update_core_cpu(param)


@pytest.mark.parametrize("has_grad", [True, False])
def test_the_update_on_a_gpu_hands_the_arrays_to_the_cupy_kernel(monkeypatch, has_grad):
    """In the kernel's order, with the hyperparameters as Python floats; without a gradient it does nothing."""
    calls = []
    kernel = SimpleNamespace(step=lambda *arrays, **values: calls.append((arrays, values)))
    monkeypatch.setattr(kernels, "on_gpu", lambda: kernel)
    optimizer = RMSpropGraves(lr=numpy.float32(0.5)).setup(Arrays(numpy.ones(2, "f4")))
    param = optimizer.target.p0
    rule = param.update_rule
    param.grad = numpy.ones(2, "f4") if has_grad else None
    rule._state = {}
    rule.init_state(param)
    rule.update_core_gpu(param)
    if not has_grad:
        assert calls == []
        return
    ((arrays, values),) = calls
    for given, expected in zip(arrays, (param.array, param.grad, *(rule.state[name] for name in ("n", "g", "delta")))):
        assert given is expected
    assert values == {"lr": 0.5, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4}
    assert {type(value) for value in values.values()} == {float}


def test_the_examples_in_the_docstrings_run():
    """As a reader would type them, after the imports of any Chainer script."""
    names = {"chainer": chainer, "F": F, "numpy": numpy, "RMSpropGraves": RMSpropGraves}
    tests = [
        test
        for documented in (RMSpropGraves, RMSpropGravesRule)
        for test in doctest.DocTestFinder().find(documented, documented.__name__, globs=names)
        if test.examples
    ]
    assert tests
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.summarize().failed == 0


def test_training_raises_no_warning_of_its_own():
    """Neither at construction nor at an update nor at the first state."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = RMSpropGraves().setup(Arrays(*gradients((), 0, (2, 3))))
        for seed in range(3):
            optimizer.target.set_grads(*gradients((), 0, (2, 3), seed=seed))
            optimizer.update()
    assert optimizer.t == 3
