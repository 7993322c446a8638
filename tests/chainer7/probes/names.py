"""Every public name of Chainer and ChainerMN, found by inspection, and the probes of each."""

from __future__ import annotations

import importlib
import inspect

import chainer

from . import caffe, core, data, distributions, functions, links, multi_node, optimizers, training
from .inputs import FLOATS, INTEGERS, words

# An object with several names counts under the first one.
MODULES = words("""
    chainer.functions chainer.links chainer.links.caffe chainer.exporters.caffe
    chainer.optimizers chainer.optimizer_hooks chainer.link_hooks chainer.function_hooks
    chainer.initializers chainer.distributions
    chainer.dataset chainer.dataset.convert chainer.datasets chainer.iterators chainer.serializers
    chainer.reporter chainer.training.extensions chainer.training.extensions.snapshot_writers
    chainer.training.triggers chainer.training.updaters chainer.training
    chainer chainer.variable chainer.utils chainer.backend chainer.gradient_check
    chainermn chainermn.functions chainermn.links chainermn.extensions chainermn.datasets chainermn.iterators
""")
CLASSES = {"chainer.Variable": chainer.Variable, "chainer.Parameter": chainer.Parameter}

TABLES = (functions, links, optimizers, distributions, core, data, training, multi_node, caffe)


def public_names():
    """Returns the names of functions and classes that Chainer defines, and of the methods of its variables."""
    names, seen = [], set()
    for path in MODULES:
        module = importlib.import_module(path)
        for name in dir(module):
            value = getattr(module, name)
            home = (getattr(value, "__module__", None) or "").split(".")[0]
            if (
                callable(value)
                and not name.startswith("_")
                and home in ("chainer", "chainermn")
                and id(value) not in seen
            ):
                seen.add(id(value))
                names.append(f"{path}.{name}")
    for path, cls in CLASSES.items():
        of_variables = set(vars(chainer.Variable)) if cls is not chainer.Variable else ()
        for name, value in vars(cls).items():
            if (inspect.isroutine(value) or isinstance(value, property)) and name not in of_variables:
                names += [] if _is_private(name) else [f"{path}.{name}"]
    return sorted(names)


def _is_private(name):
    return name in ("__init__", "__hash__") or (name.startswith("_") and not name.endswith("__"))


def probes():
    """Returns the probes of every name that has probes, and the dtypes to call them in."""
    return {
        f"{path}.{name}": (calls, getattr(table, "DTYPES", FLOATS + INTEGERS))
        for table in TABLES
        for path, names in table.PROBES.items()
        for name, calls in names.items()
    }


def _merged(attribute):
    return {name: value for table in TABLES for name, value in getattr(table, attribute, {}).items()}


# Names that raise in every call: abstract classes, refused operators, checks that have to raise, a broken function.
RAISING = words("""
    chainer.DebugMode chainer.Deserializer chainer.Distribution chainer.cross_entropy
    chainer.gradient_check.NondifferentiableError chainer.iterators.OrderSampler
    chainer.training.extensions.FailOnNonNumber chainer.utils.enable_final chainer.utils.final
    chainer.Variable.__bool__ chainer.Variable.__nonzero__ chainer.Variable.chx_array
    chainer.Variable.__eq__ chainer.Variable.__ge__ chainer.Variable.__gt__
    chainer.Variable.__le__ chainer.Variable.__lt__ chainer.Variable.__ne__
""")
LEFT_OUT = _merged("LEFT_OUT")  # name -> why nothing is compared
NEEDS = _merged("NEEDS")  # name -> the package that it needs besides Chainer's own
