"""The contenders: each library's ways to update a whole model once.

All have the same hyperparameters and the same constant gradients, in arrays of their own library. The contenders of
this package share one model.
torch's rule differs (eps outside the root, lr outside the momentum), but reads and writes the same number of arrays.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Callable, Iterator, NamedTuple

import chainer
import numpy
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves

from rmsprop_graves import RMSpropGraves, kernels

LR, ALPHA, MOMENTUM, EPS = 1e-4, 0.95, 0.9, 1e-4
# Arrays per parameter: the parameter itself, its gradient and three states.
ARRAYS = 5

OURS = "ours"
NUMBA = "ours, Numba"
NUMPY = "ours, NumPy"
CHAINER = "Chainer"
TORCH = ("torch, foreach", "torch, for-loop")
TORCH_COMPILED = "torch, compiled"
OPTAX = "optax"


def nothing() -> None:
    pass


class Contender(NamedTuple):
    """A function to time.

    `prepare` is called before each timing and is not timed itself. `spins` says whether the contender's threads
    busy-wait for a while after a call.
    """

    name: str
    threads: int
    update: Callable[[], Any]
    prepare: Callable[[], Any] = nothing
    spins: bool = False


class Arrays(NamedTuple):
    """The NumPy arrays from which every library copies its parameters and gradients."""

    params: list[numpy.ndarray]
    grads: list[numpy.ndarray]


def draw(shapes, dtype) -> Arrays:
    random = numpy.random.default_rng(0)
    return Arrays(*([random.standard_normal(shape, dtype) for shape in shapes] for _ in range(2)))


def make_link(arrays: Arrays) -> chainer.Link:
    link = chainer.Link()
    with link.init_scope():
        for place, (array, grad) in enumerate(zip(*arrays)):
            param = chainer.Parameter(array.copy())
            param.grad = grad.copy()
            setattr(link, f"param{place:03}", param)
    return link


def ours(arrays: Arrays, threads: int) -> Iterator[Contender]:
    link = make_link(arrays)
    optimizer = RMSpropGraves(LR, ALPHA, MOMENTUM, EPS).setup(link)
    params = list(link.params())

    def update_each():
        for param in params:
            param.update()

    def contender(name, threads, kernel, update):
        def prepare():
            kernels.use_on_cpu(kernel)
            kernels.set_num_threads(threads)

        return Contender(name, threads, update, prepare)

    if not why_left_out("numba"):
        yield contender(NUMBA, threads, "numba", optimizer.update)
        yield contender(f"{NUMBA}, per parameter", threads, "numba", update_each)
        if threads > 1:
            yield contender(f"{NUMBA}, 1 thread", 1, "numba", optimizer.update)
            yield contender(f"{NUMBA}, per parameter, 1 thread", 1, "numba", update_each)
    yield contender(NUMPY, 1, "numpy", optimizer.update)
    yield contender(f"{NUMPY}, per parameter", 1, "numpy", update_each)


def chainers(arrays: Arrays, threads: int) -> Iterator[Contender]:
    optimizer = ChainerRMSpropGraves(LR, ALPHA, MOMENTUM, EPS).setup(make_link(arrays))
    yield Contender(CHAINER, 1, optimizer.update)


def torchs(arrays: Arrays, threads: int) -> Iterator[Contender]:
    if why_left_out("torch"):
        return
    import torch

    torch.set_num_threads(threads)

    def contender(name: str, foreach: bool) -> Contender:
        params = [torch.tensor(array, requires_grad=True) for array in arrays.params]
        for param, grad in zip(params, arrays.grads):
            param.grad = torch.tensor(grad)
        optimizer = torch.optim.RMSprop(params, LR, ALPHA, EPS, 0, MOMENTUM, centered=True, foreach=foreach)
        step = CompiledStep(optimizer.step) if name == TORCH_COMPILED else optimizer.step

        # torch does not clamp n - g^2. With constant gradients it becomes negative after about 300 updates, and an
        # update of NaNs took twice as long.
        def prepare():
            for state in optimizer.state.values():
                state["grad_avg"].zero_()
            if name == TORCH_COMPILED:
                step.check()

        return Contender(name, threads, step, prepare, spins=threads > 1)

    for name, foreach in zip(TORCH, (True, False)):
        yield contender(name, foreach)
    if not why_left_out(TORCH_COMPILED):
        forget_compiled()
        yield contender(TORCH_COMPILED, foreach=True)


class CompiledStep:
    """A function that torch has already compiled.

    Args:
        step: The ``step`` of a torch optimizer whose parameters have gradients, or a function that calls it.
        graphs: The number of graphs that torch must compile it to (default: 1). torch ends a graph where a function
            calls ``step``.

    Raises:
        RuntimeError: torch compiled it to another number of graphs.
    """

    def __init__(self, step: Callable[[], Any], graphs: int = 1) -> None:
        import torch
        from torch._dynamo import lookup_backend

        def compile_graph(graph, inputs):
            self._graphs.append(graph)
            return lookup_backend("inductor")(graph, inputs)

        self._graphs: list[Any] = []
        self._expected = graphs
        # Without `dynamic=False` torch compiles again for a second optimizer with another hyperparameter.
        self._step = torch.compile(step, backend=compile_graph, dynamic=False)
        # The first call creates the state. The second call compiles, if the first did not.
        for _ in range(3):
            self._step()
        self.check()

    def __call__(self) -> None:
        """Step once."""
        self._step()

    def check(self) -> None:
        """Raise RuntimeError unless torch has compiled as many graphs as expected."""
        if len(self._graphs) != self._expected:
            raise RuntimeError(f"torch.compile must make graphs: {self._expected}, made {len(self._graphs)}")


def forget_compiled() -> None:
    """Clear torch's compiled code. Otherwise torch compiles only the first eight optimizers of a process."""
    import torch

    torch._dynamo.reset()


def optaxes(arrays: Arrays, threads: int) -> Iterator[Contender]:
    if why_left_out("optax"):
        return
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    optimizer = optax.rmsprop(
        LR, decay=ALPHA, eps=EPS, centered=True, momentum=MOMENTUM, eps_in_sqrt=True, initial_scale=0.0
    )
    params, grads = ([jax.numpy.array(array) for array in column] for column in arrays)
    state = optimizer.init(params)

    def step(params, state, grads):
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step, donate_argnums=(0, 1))

    def update():
        nonlocal params, state
        params, state = step(params, state, grads)
        jax.block_until_ready(params)

    yield Contender(OPTAX, threads, update)


LIBRARIES = (ours, chainers, torchs, optaxes)
_OPTIONAL = ("numba", "torch", TORCH_COMPILED, "optax")
_reasons: dict[str, str] = {}


def in_one_line(error: Exception) -> str:
    """Return the class and the message of an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def why_left_out(name: str) -> str:
    """Return why a library or `TORCH_COMPILED` cannot be measured, in one line; an empty string if it can."""
    if name not in _reasons:
        # Otherwise JAX looks for other devices and prints that it found none.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _import(name)
        except Exception as error:
            _reasons[name] = in_one_line(error)
        else:
            _reasons[name] = ""
    return _reasons[name]


def _import(name: str) -> None:
    if name == "numba":
        kernels.use_on_cpu("numba")  # raises an error if it does not work
    elif name == TORCH_COMPILED:
        import torch

        # It needs a C++ compiler and a Python version that torch supports.
        parameter = torch.ones(2, requires_grad=True)
        parameter.grad = torch.ones(2)
        CompiledStep(torch.optim.RMSprop([parameter], centered=True).step)
    else:
        __import__(name)


def leave_out(name: str, reason: str) -> None:
    """Leave out a library or `TORCH_COMPILED`, with this reason."""
    _reasons[name] = reason


def left_out() -> dict[str, str]:
    return {name: reason for name in _OPTIONAL for reason in [why_left_out(name)] if reason}
