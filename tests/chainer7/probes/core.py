"""Calls of every operator of variables and parameters, and of the functions of ``chainer`` and ``chainer.utils``."""

from __future__ import annotations

import contextlib
import io
import operator
import os
import re

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import backend, gradient_check, utils

from .inputs import DTYPE, flags, fractions, h, large, normal, positive, words

OPERATORS = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "pow": operator.pow,
}
REFUSED = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}
REFUSED.update({"eq": operator.eq, "ne": operator.ne, "bool": bool, "nonzero": bool})


def _left(op):
    """Probes of an operator with a variable on the left, and a number or array on the right."""
    return (
        lambda x=normal[2, 3], h=h: op(x, h(0.75)),
        lambda x=positive[2, 3], h=h: op(x, h(0.1)),
        lambda x=normal[2, 3], h=h: op(x, h(3)),
        lambda x=large[2, 3], h=h: op(x, h(-2)),
        lambda x=large[2, 3], h=h: op(x, h(200)),
        lambda x=normal[2, 3], h=h: op(x, h(1e-6)),
        lambda x=normal[2, 3]: op(x, 1e6),
        lambda x=normal[2, 3]: op(x, True),
        lambda x=normal[2, 3], h=h: op(x, h(100000)),
        lambda x=normal[()], h=h: op(x, h(0.75)),
        lambda x=large[()], h=h: op(x, h(3)),
        lambda x=positive[2, 3], y=normal[2, 3]: op(x, y),
        lambda x=large[2, 3], y=large[2, 3]: op(x, y),
        lambda x=positive[2, 3], y=normal.raw[3]: op(x, y),
        lambda x=positive[2, 3], y=normal[()]: op(x, y),
        lambda x=positive[()], y=normal[()]: op(x, y),
        lambda x=positive[2, 3], y=positive.raw[()]: op(x, y[()]),
        lambda x=normal[2, 3], y=normal.single[2, 3]: op(x, y),
        lambda x=normal[2, 3]: op(x, "2"),
    )


def _right(op):
    """Probes of an operator with a number or array on the left, and a variable on the right."""
    return (
        lambda x=positive[2, 3], h=h: op(h(0.75), x),
        lambda x=positive[2, 3], h=h: op(h(3), x),
        lambda x=large[2, 3], h=h: op(h(-2), x),
        lambda x=large[2, 3], h=h: op(h(200), x),
        lambda x=positive[()], h=h: op(h(0.75), x),
        lambda x=positive[2, 3], y=normal.raw[3]: op(y, x),
        lambda x=positive[2, 3], y=normal.raw[()]: op(y[()], x),
    )


def _accumulated(dtype):
    """Accumulates many gradients, and steps a parameter by hand."""
    param = chainer.Parameter(numpy.ones((3,), dtype))
    param.cleargrad()
    for _ in range(300):
        (F.sum(param * 0.1) * numpy.float64(0.1)).backward()
    param.array -= 0.1 * param.grad
    other = chainer.Variable(numpy.zeros((3,), dtype), requires_grad=True)
    other.grad = numpy.full((3,), 0.1, dtype)
    for _ in range(300):
        param.addgrad(other)
    return param.array, param.grad


def _initialized(initializer, shape):
    param = chainer.Parameter(initializer)
    param.initialize(shape)
    return param.array, param.grad


def _updated(dtype):
    param = chainer.Parameter(numpy.ones((3,), dtype))
    param.update_rule = chainer.optimizers.sgd.SGDRule(lr=numpy.float64(0.1))
    param.grad = numpy.full((3,), 0.3, dtype)
    param.update()
    return param.array


def _scrubbed(text):
    """Removes memory addresses from a text."""
    return re.sub("0x[0-9a-f]+", "0x", text)


def _named(x):
    return chainer.Variable(x.array, name="x")


def _attributes(*names):
    return lambda x=normal[2, 3]: [str(getattr(getattr(x, name), "__name__", getattr(x, name))) for name in names]


def _backward(x, y, **options):
    z = x * y
    w = F.sum(F.exp(x * 0.1) * z)
    w.backward(**options)
    return w.array, x.grad, y.grad, z.grad


class _Old(chainer.Function):
    def forward(self, inputs):
        return (inputs[0] * 3,)

    def backward(self, inputs, gradients):
        return (gradients[0] * 3,)


class _New(chainer.FunctionNode):
    def forward(self, inputs):
        self.retain_inputs((0,))
        return (inputs[0] ** 2 * 0.1,)

    def backward(self, indexes, gradients):
        return (self.get_retained_inputs()[0] * 0.2 * gradients[0],)


class _Calls(chainer.FunctionHook):
    name = "calls"

    def __init__(self):
        self.calls = []

    def forward_postprocess(self, function, inputs):
        self.calls.append(f"forward {function.label}")

    def backward_postprocess(self, function, inputs, gradients):
        self.calls.append(f"backward {function.label}")


class _Forwards(chainer.LinkHook):
    name = "forwards"

    def __init__(self):
        self.calls = []

    def forward_postprocess(self, args):
        self.calls.append(type(args.link).__name__)


def _hooked(hook, x):
    with hook:
        y = F.sum(L.Linear(3, 2)(x))
        y.backward()
    return hook.calls


class _Pair(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.a = L.Linear(3, 2)
            self.b = L.BatchNormalization(2)

    def forward(self, x):
        return self.b(self.a(x))


def _serialized(link):
    saved = {}
    link.serialize(chainer.serializers.DictionarySerializer(saved))
    return saved


def _link(x):
    link = _Pair()
    y = link(x)
    other = link.copy("copy")
    other.copyparams(link)
    other.cleargrads()
    link.cleargrads()
    F.sum(y).backward()
    other.a.W.grad = link.a.W.grad
    other.a.b.grad = link.a.b.grad
    link.a.addgrads(other.a)
    return link, _serialized(link), link.count_params(), sorted(dict(link.namedparams()))


def _repeated(x):
    model = chainer.Sequential(L.Linear(3), F.relu).repeat(2, mode="init")
    model.append(L.Linear(3, 2))
    return model(x), model, len(model), _scrubbed(str(model))


def _grads(x, y):
    z = F.exp(x * 0.1) * y
    gx, gy = chainer.grad([z], [x, y], enable_double_backprop=True)
    (ggx,) = chainer.grad([F.sum(gx * gy)], [x], grad_outputs=[chainer.Variable(numpy.full((), 0.5, x.dtype))])
    return gx.array, gy.array, ggx.array


def _configured(x):
    with chainer.using_config("dtype", numpy.float16), chainer.using_config("train", False):
        link = L.Linear(3, 2)
        found = [str(chainer.get_dtype()), str(chainer.get_dtype(map_mixed16=numpy.float32)), link.W.dtype.name]
        found += [F.dropout(x).array]
    with chainer.using_config("dtype", chainer.mixed16):
        found += [
            str(chainer.get_dtype()),
            chainer.get_dtype(map_mixed16=numpy.float32).name,
            L.Linear(3, 2).W.dtype.name,
        ]
    return found


def _debugged(x):
    """Debug mode raises an error at a NaN."""
    with chainer.using_config("debug", True):
        return F.log(x - 10)


def _switched(x):
    found = [chainer.is_debug()]
    with chainer.DebugMode(True):
        found.append(chainer.is_debug())
    with chainer.no_backprop_mode():
        y = x * 2
        with chainer.force_backprop_mode():
            z = x * 2
    return [*found, y.creator is None, z.creator is None]


def _reported(x):
    reporter = chainer.Reporter()
    with reporter, chainer.report_scope({}):
        chainer.report({"x": x})
        return dict(chainer.get_current_reporter().observation)


def _about():
    text = io.StringIO()
    chainer.print_runtime_info(text)
    return [line.split(":")[0] for line in text.getvalue().splitlines() if line.startswith(("Chainer", "NumPy"))]


def _written(show, x):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        result = show(x)
    return _scrubbed(text.getvalue()), _scrubbed(str(result))


def _temporary():
    with utils.tempdir() as folder:
        exists = os.path.isdir(folder)
    return exists, os.path.isdir(folder)


def _checked(dtype, check=gradient_check.check_backward, **options):
    x = numpy.linspace(0.25, 1, 6).reshape(2, 3).astype(dtype)
    if check is gradient_check.check_double_backward:
        options["x_grad_grad"] = x
    check(lambda x: F.exp(x) * 0.5, x, x, dtype="d", atol=1e-3, rtol=1e-3, **options)
    return True


def _numerical(dtype):
    x = numpy.linspace(0.25, 1, 6).reshape(2, 3).astype(dtype)
    return [grad.dtype.name for grad in gradient_check.numerical_grad(lambda: (x * x,), (x,), (x,), eps=2**-4)]


def _locked(base):
    class Base(base):
        @utils.final
        def method(self):
            return 1

    return type("Child", (Base,), {"method": None})


ATTRIBUTES = words("""array data dtype ndim shape size rank label layout name requires_grad device xp chx_array""")

VARIABLE = {
    **{f"__{name}__": _left(op) for name, op in OPERATORS.items()},
    **{f"__r{name}__": _right(op) for name, op in OPERATORS.items()},
    **{f"__{name}__": lambda x=normal[2, 3], op=op: op(x, *[x] * (op is not bool)) for name, op in REFUSED.items()},
    "__neg__": (lambda x=normal[2, 3]: -x, lambda x=large[2, 3]: -x, lambda x=normal[()]: -x),
    "__pos__": lambda x=normal[2, 3]: +x,
    "__abs__": (lambda x=normal[2, 3]: abs(x), lambda x=large[2, 3]: abs(x), lambda x=normal[()]: abs(x)),
    "__matmul__": (
        lambda x=normal[2, 3], y=normal[3, 2]: x @ y,
        lambda x=large[2, 3], y=large[3, 2]: x @ y.array,
        lambda x=normal[2, 3], y=normal.single.raw[3, 2]: x @ y,
    ),
    "__rmatmul__": lambda x=normal.raw[2, 3], y=normal[3, 2]: x @ y,
    "__getitem__": lambda x=normal[2, 3]: (x[0], x[:, 1:], x[..., None], x[numpy.array([1, 0])]),
    "__len__": lambda x=normal[2, 3]: len(x),
    "__copy__": lambda x=normal[2, 3]: x.__copy__(),
    "__reduce__": lambda x=normal[2, 3]: _named(x).__reduce__()[1][0],
    "__repr__": (lambda x=normal[2, 3]: repr(x), lambda x=normal[()]: repr(_named(x)), lambda x=normal[0]: repr(x)),
    "__str__": (lambda x=normal[2, 3]: str(x), lambda x=normal[()]: str(_named(x)), lambda x=normal[0]: str(x)),
    **{name: _attributes(name) for name in ATTRIBUTES},
    "creator": lambda x=normal[2, 3]: str((x * 2).creator.label),
    "creator_node": lambda x=normal[2, 3]: str((x * 2).creator_node.label),
    "node": lambda x=normal[2, 3]: str(x.node.label),
    "grad": lambda x=normal[2, 3]: _gradient(x, x.array),
    "grad_var": lambda x=normal[2, 3]: _gradient(x, x.array * 2),
    "addgrad": lambda dtype=DTYPE: _accumulated(dtype),
    "cleargrad": lambda x=normal[2, 3]: _without_gradient(x),
    "copydata": lambda x=normal[2, 3], y=normal[2, 3]: _copied(x, y),
    "backward": (
        lambda x=normal[2, 3], y=normal[2, 3]: _backward(x, y),
        lambda x=normal[2, 3], y=normal[2, 3], h=h: _backward(x, y, loss_scale=h(128)),
        lambda x=normal[2, 3], y=normal[2, 3]: _backward(x, y, retain_grad=True),
    ),
    "unchain": lambda x=normal[2, 3]: _unchained(x, "unchain"),
    "unchain_backward": lambda x=normal[2, 3]: _unchained(x, "unchain_backward"),
    "retain_data": lambda x=normal[2, 3]: x.retain_data(),
    "mean": (lambda x=normal[2, 3]: x.mean(axis=1), lambda x=large[2, 3]: x.mean(), lambda x=large[3000]: x.mean()),
    "item": (lambda x=normal[()]: x.item(), lambda x=normal[1]: x.item(), lambda x=normal[2]: x.item()),
    "reshape": lambda x=normal[2, 3]: (x.reshape(3, 2), x.reshape((-1,))),
    "transpose": lambda x=normal[2, 3, 4]: (x.transpose(), x.transpose(1, 0, 2), x.transpose((2, 0, 1))),
    "T": lambda x=normal[2, 3]: x.T,
    "summary": lambda x=normal[2, 3]: _named(x).summary(),
    "debug_print": (
        lambda x=normal[2, 3]: _scrubbed(_named(x).debug_print()),
        lambda x=normal[2, 3]: _scrubbed(_with_gradient(x).debug_print()),
    ),
    "to_cpu": lambda x=normal[2, 3]: _moved(x, "to_cpu"),
    "to_device": lambda x=normal[2, 3]: _moved(x, "to_device", "@numpy"),
    "as_layout": lambda x=normal[2, 3]: x.as_layout(None),
    "from_chx": lambda x=normal[2, 3]: _moved(x, "from_chx"),
    "set_creator_node": lambda x=normal[2, 3]: str(_created(x).creator_node.label),
}


def _gradient(x, gradient):
    x.grad = gradient
    return x.grad, x.grad_var.array, x.grad_var.dtype.name


def _with_gradient(x):
    x.grad = x.array
    return x


def _without_gradient(x):
    x.grad = x.array
    x.cleargrad()
    return x.grad


def _copied(x, y):
    x.copydata(y)
    return x.array


def _unchained(x, how):
    y = x * 2
    getattr(y, how)()
    return y.array, y.creator is None


def _moved(x, how, *args):
    getattr(x, how)(*args)
    return x.array, str(x.device)


def _created(x):
    y = chainer.Variable(x.array)
    y.set_creator_node((x * 2).creator_node)
    return y


PARAMETER = {
    "initialize": (
        lambda dtype=DTYPE, h=h: _initialized(h(0.1), (2, 3)),
        lambda dtype=DTYPE, h=h: _initialized(chainer.initializers.Normal(h(0.1), dtype), ()),
        lambda dtype=DTYPE: _initialized(None, (2,)),
        lambda dtype=DTYPE: _initialized(numpy.ones((2,), dtype), (2,)),
    ),
    "is_initialized": lambda: [chainer.Parameter().is_initialized, chainer.Parameter(0.5, (2,)).is_initialized],
    "update": lambda dtype=DTYPE: _updated(dtype),
}

CHAINER = {
    "AbstractSerializer": lambda: sorted(name for name in vars(chainer.AbstractSerializer) if name == "__call__"),
    "Serializer": lambda x=normal[2, 3]: _serialized(_Pair()),
    "Deserializer": lambda: chainer.Deserializer().load(_Pair()),
    "Chain": lambda x=normal[4, 3]: _link(x),
    "ChainList": lambda x=normal[4, 3]: [link(x) for link in chainer.ChainList(L.Linear(3, 2), L.Bias(1, (3,)))],
    "Link": lambda x=normal[4, 3]: _serialized(_Pair().a),
    "Sequential": lambda x=normal[4, 3]: _repeated(x),
    "DebugMode": lambda x=normal[2, 3]: _debugged(x),
    "DeviceResident": lambda: [str(_Pair().device), _Pair().to_cpu() is not None],
    "Distribution": lambda: chainer.Distribution().sample(),
    "Function": lambda x=normal[2, 3]: _Old()(x),
    "FunctionAdapter": lambda x=normal[2, 3]: str(type(_Old()(x).creator_node).__name__),
    "FunctionNode": lambda x=normal[2, 3]: _New().apply((x,)),
    "FunctionHook": lambda x=normal[4, 3]: _hooked(_Calls(), x),
    "LinkHook": lambda x=normal[4, 3]: _hooked(_Forwards(), x),
    "get_function_hooks": lambda: len(chainer.get_function_hooks()),
    "GradientMethod": lambda dtype=DTYPE: _updated(dtype),
    "Optimizer": lambda: [chainer.Optimizer().t, chainer.Optimizer().epoch],
    "UpdateRule": lambda: chainer.UpdateRule().t,
    "Initializer": lambda dtype=DTYPE: str(chainer.Initializer(dtype).dtype),
    "Variable": lambda x=normal[2, 3]: chainer.Variable(x.array, name="x", grad=x.array).grad,
    "Parameter": lambda dtype=DTYPE: _initialized(chainer.initializers.Constant(0.1, dtype), (2,)),
    "as_array": lambda x=normal[2, 3]: chainer.as_array(x),
    "as_variable": lambda x=normal.raw[2, 3]: chainer.as_variable(x),
    "backward": lambda x=normal[2, 3]: _backward_of_two(x),
    "grad": lambda x=normal[2, 3], y=normal[2, 3]: _grads(x, y),
    "cross_entropy": lambda a=normal[3], b=positive[3]: chainer.cross_entropy(
        chainer.distributions.Normal(a, b), chainer.distributions.Normal(b, b)
    ),
    "kl_divergence": lambda a=normal[3], b=positive[3]: chainer.kl_divergence(
        chainer.distributions.Normal(a, b), chainer.distributions.Normal(b, b)
    ),
    "register_kl": lambda: callable(chainer.register_kl(type("P", (), {}), type("Q", (), {}))),
    "force_backprop_mode": lambda x=normal[2, 3]: _switched(x),
    "no_backprop_mode": lambda x=normal[2, 3]: _switched(x),
    "is_debug": lambda: chainer.is_debug(),
    "set_debug": lambda: chainer.set_debug(False),
    "using_config": lambda x=normal[2, 3]: _configured(x),
    "using_device": lambda: _in_device(),
    "get_dtype": lambda x=normal[2, 3]: _configured(x),
    "get_compute_mode": lambda: str(chainer.get_compute_mode()),
    "get_device": lambda: str(chainer.get_device("@numpy")),
    "get_array_types": lambda: [cls.__name__ for cls in chainer.get_array_types() if cls is numpy.ndarray],
    "get_cpu_array_types": lambda: [cls.__name__ for cls in chainer.get_cpu_array_types()],
    "is_arrays_compatible": lambda x=normal.raw[2]: chainer.is_arrays_compatible([x, x]),
    "print_runtime_info": _about,
    "static_code": lambda: callable(chainer.static_code(lambda: None)),
    "static_graph": lambda x=normal[4, 3]: _static(x),
}


def _backward_of_two(x):
    y, z = F.exp(x * 0.1), x * 3
    chainer.backward([y, z], [x, x * 0 + 1])
    return x.grad


def _in_device():
    with chainer.using_device("@numpy"):
        return str(chainer.get_device("@numpy"))


class _Static(chainer.Chain):
    def __init__(self):
        super().__init__()
        with self.init_scope():
            self.linear = L.Linear(3, 2)

    @chainer.static_graph
    def forward(self, x):
        return F.relu(self.linear(x))


def _static(x):
    link = _Static()
    for _ in range(3):
        link.cleargrads()
        y = link(x.array)
        F.sum(y).backward()
    return y.array, link.linear.W.grad


UTILS = {
    "CooMatrix": lambda x=normal.raw[2, 3]: utils.to_coo(x).to_dense(),
    "to_coo": (
        lambda x=flags.raw[2, 3]: _sparse(utils.to_coo(x)),
        lambda x=flags.raw[2, 2, 3]: _sparse(utils.to_coo(x, ldnz=6)),
    ),
    "get_order": lambda: utils.get_order(numpy.array([0, 0, 1]), numpy.array([0, 1, 0])),
    "WalkerAlias": (
        lambda: _alias([1, 2, 3, 4, 5]),
        lambda: _alias([0.1, 0.2, 0.7]),
        lambda p=positive.raw[7]: _alias(p),
        lambda p=fractions.raw[50]: _alias(p + (p == 0)),
    ),
    "enable_final": lambda: _locked(utils.enable_final()),
    "final": lambda: _locked(utils.enable_final()),
    "experimental": lambda: utils.experimental("chainer7.probes"),
    "force_array": (
        lambda x=normal.raw[()], h=h: utils.force_array(x * h(2), x.dtype),
        lambda x=normal.raw[2]: [utils.force_array(x[0]), utils.force_array(x), utils.force_array(0.5)],
    ),
    "force_type": lambda dtype=DTYPE, h=h: [
        utils.force_type(dtype, h(2)),
        utils.force_type(dtype, numpy.ones(2, dtype)),
    ],
    "get_conv_outsize": lambda: utils.get_conv_outsize(7, 3, 2, 1, cover_all=True, d=2),
    "get_deconv_outsize": lambda: utils.get_deconv_outsize(7, 3, 2, 1, cover_all=True, d=2),
    "nondeterministic": lambda: utils.nondeterministic("chainer7.probes"),
    "size_of_shape": lambda: [utils.size_of_shape((2, 3)), utils.size_of_shape(())],
    "sum_to": (
        lambda x=normal.raw[2, 3, 4]: utils.sum_to(x, (3, 1)),
        lambda x=large.raw[300, 2]: utils.sum_to(x, (2,)),
    ),
    "tempdir": _temporary,
}


def _sparse(matrix):
    return matrix.data, matrix.row, matrix.col, matrix.shape, str(matrix.order)


def _alias(probabilities):
    sampler = utils.WalkerAlias(probabilities)
    return sampler.threshold, sampler.values, sampler.sample((3, 4))


BACKEND = {
    "CpuDevice": lambda: str(backend.CpuDevice()),
    "Device": lambda x=normal.raw[2]: backend.get_device("@numpy").send(x),
    "copyto": lambda x=normal.raw[2, 3], y=normal.raw[2, 3]: _overwritten(x, y),
    "from_chx": lambda x=normal.raw[2]: backend.from_chx(x),
    "get_array_module": lambda x=normal[2]: backend.get_array_module(x, x.array, 1.0).__name__,
    "get_device_from_array": lambda x=normal[2]: str(backend.get_device_from_array(x.array)),
}


def _overwritten(x, y):
    backend.copyto(x, y)
    return x


PROBES = {
    "chainer.Variable": VARIABLE,
    "chainer.Parameter": PARAMETER,
    "chainer": CHAINER,
    "chainer.variable": {
        "VariableNode": lambda x=normal[2, 3]: [str(x.node.dtype), x.node.shape, x.node.label],
        "variable_repr": lambda x=normal[2, 3]: chainer.variable.variable_repr(x),
        "variable_str": lambda x=normal[2, 3]: chainer.variable.variable_str(x),
    },
    "chainer.utils": UTILS,
    "chainer.backend": BACKEND,
    "chainer.gradient_check": {
        "NondifferentiableError": lambda: _abrupt(),
        "assert_allclose": lambda x=normal.raw[2]: gradient_check.assert_allclose(x, x),
        "check_backward": lambda dtype=DTYPE: _checked(dtype),
        "check_double_backward": lambda dtype=DTYPE: _checked(dtype, gradient_check.check_double_backward),
        "numerical_grad": lambda dtype=DTYPE: _numerical(dtype),
    },
}


def _abrupt():
    x = numpy.zeros(2)
    return gradient_check.numerical_grad(
        lambda: (numpy.sign(x),), (x,), (numpy.ones(2),), eps=0.1, detect_nondifferentiable=True
    )


LEFT_OUT = {
    "chainer.should_use_cudnn": "needs a GPU",
    "chainer.should_use_cudnn_tensor_core": "needs a GPU",
    "chainer.Variable.__div__": "Python 2's name for __truediv__",
    "chainer.Variable.__rdiv__": "Python 2's name for __rtruediv__",
    "chainer.Variable.set_creator": "set_creator_node of a function",
    "chainer.Variable.raw_array": "the array, without ChainerX's check",
    "chainer.Variable.to_chx": "needs ChainerX",
    "chainer.Variable.to_gpu": "needs a GPU",
    "chainer.Variable.to_intel64": "needs iDeep",
    "chainer.Variable.zerograd": "deprecated since Chainer 1.15, and warns of it",
    "chainer.backend.ChainerxDevice": "needs ChainerX",
    "chainer.backend.GpuDevice": "needs a GPU",
    "chainer.backend.Intel64Device": "needs iDeep",
    "chainer.backend.to_chx": "needs ChainerX",
}
