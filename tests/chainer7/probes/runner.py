"""Calls the probes of a table in every dtype and with hyperparameters of every form, and returns the outcomes."""

from __future__ import annotations

import builtins
import contextlib
import inspect
import io
import random
import warnings

import chainer
import numpy

from .inputs import DTYPE, FORMS, Hyperparameter, Input


def outcomes_of(probes, dtypes):
    """Returns the outcome of every call of a name's probes."""
    return {call: run(probe, dtype, form) for call, probe, dtype, form in calls_of(probes, dtypes)}


def calls_of(probes, dtypes):
    """Yields every call of a name's probes: its name in the record, the probe, dtype and form."""
    for index, probe in enumerate(probes if isinstance(probes, tuple) else (probes,)):
        specs = _specs(probe)
        forms = FORMS if any(isinstance(spec, Hyperparameter) for spec in specs.values()) else ["python"]
        fixed = not any(_takes_dtype(spec) for spec in specs.values())
        for dtype in ("float32",) if fixed else dtypes:
            for form in forms:
                yield f"{index} {dtype} {form}", probe, dtype, form


def run(probe, dtype, form):
    """Makes one call. The outcome maps a label to an array, a Python value, or the name of an exception."""
    outcome = {}
    with warnings.catch_warnings(record=True) as caught, numpy.errstate(all="ignore"), _silence():
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", module="cupy|matplotlib|pyparsing")  # not Chainer's
        first = _Call(probe, dtype, form)
        outcome.update(first.forward())
        outcome.update(first.backward())
        if outcome and form == "python" and dtype in ("float16", "float32") and first.gradients:
            second = _Call(probe, dtype, form)
            second.forward()
            second.backward(enable_double_backprop=True)
            outcome.update(second.backward_again())
    for warning in caught:
        outcome[f"warns {warning.category.__name__}: {warning.message}"] = None
    return outcome


@contextlib.contextmanager
def _silence():
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        yield


class _Call:
    def __init__(self, probe, dtype, form):
        numpy.random.seed(0)
        random.seed(0)
        self.dtype = dtype
        self.inputs = {}
        self.variables = []
        self.outputs = []
        self.gradients = []
        self.probe = probe
        for name, spec in _specs(probe).items():
            self.inputs[name] = FORMS[form] if isinstance(spec, Hyperparameter) else self._made(name, spec)

    def _made(self, name, spec):
        if isinstance(spec, tuple):
            return [self._made(f"{name}.{index}", one) for index, one in enumerate(spec)]
        if spec is DTYPE:
            return numpy.dtype(self.dtype)
        if not isinstance(spec, Input):
            return spec
        made = spec.make(name, self.dtype)
        if isinstance(made, chainer.Variable):
            self.variables.append((name, made))
        return made

    def forward(self):
        try:
            with chainer.using_config("dtype", numpy.dtype(self.dtype if self.dtype.startswith("f") else "float32")):
                result = self.probe(**self.inputs)
        except Exception as error:
            return {"raises": _name_of(error)}
        found = dict(_leaves(result, "", self))
        return found

    def backward(self, **options):
        self.outputs = [
            output for output in self.outputs if output.array.dtype.kind == "f" and output.creator_node is not None
        ]
        if not self.outputs:
            return {}
        for _, variable in self.variables:
            variable.cleargrad()
        for output in self.outputs:
            output.grad = _weights(output.array)
        try:
            chainer.backward(self.outputs, **options)
        except Exception as error:
            return {"backward raises": _name_of(error)}
        self.gradients = [
            (name, variable.grad_var) for name, variable in self.variables if variable.grad_var is not None
        ]
        return _arrays("gradient", [(name, gradient.array) for name, gradient in self.gradients])

    def backward_again(self):
        outputs = [gradient for _, gradient in self.gradients if gradient.creator_node is not None]
        if not outputs:
            return {}
        for _, variable in self.variables:
            variable.cleargrad()
        for output in outputs:
            output.grad = _weights(output.array)
        try:
            chainer.backward(outputs)
        except Exception as error:
            return {"backward of backward raises": _name_of(error)}
        return _arrays("second gradient", [(name, variable.grad) for name, variable in self.variables])


def _specs(probe):
    return {name: parameter.default for name, parameter in inspect.signature(probe).parameters.items()}


def _takes_dtype(spec):
    if isinstance(spec, tuple):
        return any(map(_takes_dtype, spec))
    return spec is DTYPE or (isinstance(spec, Input) and spec.dtype is None)


def _weights(array):
    """Returns the gradients of an output. They differ between elements, and are exact in float16."""
    weights = numpy.arange(array.size) % 7 * 0.25 - 0.5
    return weights.reshape(array.shape).astype(array.dtype)


def _leaves(value, label, call):
    """Yields every labelled value in a result, and adds its outputs and parameters to `call` for the gradients."""
    if isinstance(value, chainer.Link):
        for path, param in sorted(value.namedparams()):
            call.variables.append((f"{label}{path}", param))
            yield from _leaves(param.array, f"{label}{path}", call)
        for path, link in sorted(value.namedlinks()):
            for name in sorted(link._persistent):
                yield from _leaves(getattr(link, name), f"{label}{path}.{name}", call)
    elif isinstance(value, chainer.Variable):
        call.outputs.append(value)
        yield from _leaves(value.array, label, call)
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _leaves(value[key], f"{label}.{key}", call)
    elif isinstance(value, numpy.ndarray) and value.dtype == object:
        yield from _leaves(value.tolist(), f"{label} object", call)
    elif isinstance(value, (list, tuple)):
        yield f"{label} length", str(len(value))
        for index, one in enumerate(value):
            yield from _leaves(one, f"{label}.{index}", call)
    elif isinstance(value, (numpy.ndarray, numpy.generic)) and value.dtype.kind in "USO":
        yield label, str(value.tolist())
    elif isinstance(value, (numpy.ndarray, numpy.generic)):
        yield from _sampled(label, value)
    elif isinstance(value, (bool, int, float)):
        yield label, numpy.array(value)  # a Python float becomes a float64
    elif value is None or isinstance(value, str):
        yield label, value
    else:
        yield label, f"a {type(value).__name__}"


def _arrays(label, arrays):
    found = {}
    for name, array in arrays:
        if array is not None:
            found.update(_sampled(f"{label} of {name}", array))
    return found


def _sampled(label, array):
    """Yields a copy of the array, or the shape and some evenly spread elements if it is large."""
    array = numpy.array(array)
    if array.size > _FEW:
        yield f"{label} shape", str(array.shape)
        array = array.ravel()[numpy.arange(_FEW) * (array.size - 1) // (_FEW - 1)]
    yield label, array


_FEW = 24  # recorded elements per array; each further element adds 80 kB to the file


def _name_of(error):
    """Returns the name of the first base class that Python or Chainer defines. NumPy has renamed its exceptions."""
    known = (name.__name__ for name in type(error).__mro__ if name.__module__.split(".")[0] in _NAMED)
    return f"{next(known)}"


_NAMED = (builtins.__name__, "chainer", "chainermn")
