"""The step on NumPy arrays in one compiled pass over memory."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import numba
import numpy
from numba.extending import intrinsic

from rmsprop_graves.kernels import numpy as numpy_kernel
from rmsprop_graves.kernels import threads
from rmsprop_graves.kernels.hyperparameters import runs
from rmsprop_graves.kernels.overlap import Written


def step(
    param: numpy.ndarray,
    grad: numpy.ndarray,
    n: numpy.ndarray,
    g: numpy.ndarray,
    delta: numpy.ndarray,
    *,
    lr: float,
    alpha: float,
    momentum: float,
    eps: float,
) -> None:
    """Steps one parameter in place: writes param, n, g and delta, with the bits of the NumPy kernel.

    Contiguous float32 and float64 arrays in native byte order are stepped in one compiled pass, which warns of
    no overflow. Any others go to the NumPy kernel, float16 among them, which Numba does not compile for a CPU.
    The first step of each dtype compiles, or reads from disk what an earlier process compiled.

    Args:
        param: The parameter, of any shape and a real floating dtype.
        grad: Its gradient, of the same shape.
        n: Running mean of the squared gradient, of the same shape and dtype as ``param``.
        g: Running mean of the gradient, likewise.
        delta: The last step, likewise.
        lr: Step size.
        alpha: Decay rate of ``n`` and ``g``.
        momentum: Decay rate of ``delta``.
        eps: Added inside the root, so in units of squared gradient.

    Raises:
        TypeError: The dtype of ``param`` is not a real floating one.
    """
    arrays = (param, grad, n, g, delta)
    # A gradient in the memory of what is written is copied first, if it must be, by the NumPy kernel.
    if _fit(*arrays) and not _overlap(grad, param, n, g, delta):
        flat = [array.ravel() for array in arrays]

        def step_span(begin: int, end: int) -> None:
            _step_elements(*(array[begin:end] for array in flat), lr, alpha, 1 - alpha, momentum, eps)

        threads.run(step_span, param.size)
    else:
        numpy_kernel.step(*arrays, lr=lr, alpha=alpha, momentum=momentum, eps=eps)


class Table:
    """Parameters and their states by the addresses of their arrays, stepped in one call.

    Args:
        params: The parameters, of one dtype.
        ns: The running mean of the squared gradient of each.
        gs: The running mean of the gradient of each.
        deltas: The last step of each.
    """

    # Fewer are stepped faster one by one.
    FEWEST = 4

    def __init__(
        self,
        params: list[numpy.ndarray],
        ns: list[numpy.ndarray],
        gs: list[numpy.ndarray],
        deltas: list[numpy.ndarray],
    ) -> None:
        # They also keep what is at the addresses.
        self._columns = columns = [params, ns, gs, deltas]
        # None where an array cannot be stepped by its address.
        self._shapes = [arrays[0].shape if _fit(*arrays) else None for arrays in zip(*columns)]
        sizes = [0 if shape is None else param.size for shape, param in zip(self._shapes, params)]
        self._bounds = numpy.cumsum([0, *sizes])
        self._nbytes = numpy.array(sizes, numpy.uintp) * params[0].itemsize
        self._objects = numpy.array([_ids(column) for column in columns])
        self._addresses = _locate(self._objects)
        self._like = numpy.empty(0, params[0].dtype)

        self._written = Written(self._addresses, self._nbytes)

    def holds(
        self,
        params: list[numpy.ndarray],
        ns: list[numpy.ndarray],
        gs: list[numpy.ndarray],
        deltas: list[numpy.ndarray],
    ) -> bool:
        """Whether it is of these very arrays, none of which has been resized or made read-only since."""
        return (
            len(params) == len(self._nbytes)
            and all(all(map(operator.is_, *columns)) for columns in zip(self._columns, (params, ns, gs, deltas)))
            and numpy.array_equal(_locate(self._objects), self._addresses)
        )

    def misfits(self, grads: list[numpy.ndarray]) -> list[int]:
        """The places of parameters that cannot be stepped by their addresses, with these gradients.

        Those are among them that were given another shape in place since the table was made.
        """
        return [
            place
            for place, (shape, address, grad, param, n, g, delta) in enumerate(
                zip(self._shapes, _locate(_ids(grads)).tolist(), grads, *self._columns)
            )
            if not (
                address
                and grad.shape == shape == param.shape == n.shape == g.shape == delta.shape
                and grad.dtype == param.dtype == self._like.dtype
            )
        ]

    def step(self, grads: list[numpy.ndarray], hyperparameters: list[dict[str, float]], first: int, last: int) -> None:
        """Steps the parameters at places from first to before last, in order; no misfit may be among them.

        Args:
            grads: The gradient of each parameter.
            hyperparameters: lr, alpha, momentum and eps of each.
            first: The first place.
            last: The place after the last.
        """
        addresses = _locate(_ids(grads[first:last]))
        if self._written.includes(addresses, self._nbytes[first:last]):
            params, *states = self._columns
            for place in range(first, last):
                n, g, delta = (state[place] for state in states)
                step(params[place], grads[place], n, g, delta, **hyperparameters[place])
            return
        values = numpy.empty((last - first, 4))
        place = 0
        for same, count in runs(hyperparameters[first:last]):
            values[place : place + count] = [same[name] for name in ("lr", "alpha", "momentum", "eps")]
            place += count

        def step_span(begin: int, end: int, _kept: Any = grads) -> None:
            _walk(self._addresses, addresses, self._bounds, values, self._like, first, offset + begin, offset + end)

        for begin, end in self._written.runs(first, last):
            offset = int(self._bounds[begin])
            threads.run(step_span, int(self._bounds[end]) - offset)


def _fit(*arrays: numpy.ndarray) -> bool:
    """Whether arrays are alike and laid out as the compiled pass takes them."""
    dtype, shape = arrays[0].dtype, arrays[0].shape
    if dtype not in _DTYPES:
        return False
    for array in arrays:
        # Numba knows no masked arrays.
        if type(array) is not numpy.ndarray or array.dtype != dtype or array.shape != shape or not array.flags.carray:
            return False
    return True


def _overlap(grad: numpy.ndarray, *others: numpy.ndarray) -> bool:
    # Of two arrays in the same memory one is a view.
    if grad.base is None and all(array.base is None for array in others):
        return False
    return any(numpy.may_share_memory(grad, array) for array in others)


def _ids(arrays: list[numpy.ndarray]) -> numpy.ndarray:
    return numpy.fromiter(map(id, arrays), numpy.uintp, len(arrays))


if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

# Neither fastmath nor contraction: every product and sum is rounded, as in NumPy. A division by zero is infinite.
_OPTIONS = {"nogil": True, "error_model": "numpy"}
_DTYPES = (numpy.dtype(numpy.float32), numpy.dtype(numpy.float64))


def _can_cache() -> bool:
    try:
        # Any function of this file: where to is decided when it is decorated.
        numba.njit(cache=True)(_fit)
    except RuntimeError as error:
        warnings.warn(
            f"{error}. The update is compiled anew in each process; NUMBA_CACHE_DIR may name a folder for it.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


_compiled = numba.njit(cache=_can_cache(), **_OPTIONS)


@_compiled
def _step_elements(
    param: Any,
    grad: Any,
    n: Any,
    g: Any,
    delta: Any,
    lr: Any,
    alpha: Any,
    one_minus_alpha: Any,
    momentum: Any,
    eps: Any,
) -> None:
    real = param.dtype.type
    zero, largest = real(0), numpy.finfo(real).max
    lr, alpha, one_minus_alpha = real(lr), real(alpha), real(one_minus_alpha)
    momentum, eps = real(momentum), real(eps)
    for i in range(param.size):
        t = one_minus_alpha * grad[i]
        n[i] = n[i] * alpha + t * grad[i]
        g[i] = g[i] * alpha + t
        square = g[i] * g[i]
        # It may overflow where n has, and infinite less infinite is NaN.
        v = n[i] - (largest if square > largest else square)
        delta[i] = delta[i] * momentum - lr * grad[i] / numpy.sqrt((zero if v < zero else v) + eps)
        param[i] += delta[i]


@intrinsic
def _pointer(context: Any, address: Any, like: Any) -> Any:
    """The address as a pointer to numbers of the dtype of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return numba.types.CPointer(like.dtype)(address, like), generate


# Of an array object, as `PyArrayObject_fields` has them, which NumPy's C interface makes public and keeps as they are.
# `array.ctypes.data` takes twenty times as long as reading them.
_DATA = object.__basicsize__
_FLAGS = _DATA + 48
_IS_CARRAY = 0x1 | 0x100 | 0x400  # contiguous, aligned and writable


@_compiled
def _locate(objects: Any) -> Any:
    """The address of each array's data, given that of the array object; 0 where it is not as `_fit` wants it."""
    addresses = numpy.zeros_like(objects)
    for place, array in enumerate(objects.flat):
        flags = numba.carray(_pointer(array + _FLAGS, numpy.empty(0, numpy.int32)), 1)[0]
        if flags & _IS_CARRAY == _IS_CARRAY:
            addresses.flat[place] = numba.carray(_pointer(array + _DATA, objects), 1)[0]
    return addresses


@_compiled
def _walk(
    addresses: Any, grads: Any, bounds: Any, hyperparameters: Any, like: Any, first: Any, begin: Any, end: Any
) -> None:
    """Steps elements begin to end of the parameters, counted through all; gradients and values are from first on."""
    row = numpy.searchsorted(bounds, begin, side="right") - 1
    while begin < end:
        offset = (begin - bounds[row]) * like.itemsize
        count = min(bounds[row + 1], end) - begin
        lr, alpha, momentum, eps = hyperparameters[row - first]
        _step_elements(
            numba.carray(_pointer(addresses[0, row] + offset, like), count),
            numba.carray(_pointer(grads[row - first] + offset, like), count),
            numba.carray(_pointer(addresses[1, row] + offset, like), count),
            numba.carray(_pointer(addresses[2, row] + offset, like), count),
            numba.carray(_pointer(addresses[3, row] + offset, like), count),
            lr,
            alpha,
            1 - alpha,
            momentum,
            eps,
        )
        begin += count
        row += 1


def _prove() -> None:
    """Finds out here, and not in the middle of an update, whether the code can be compiled and works."""
    for dtype in _DTYPES:
        arrays = [numpy.ones((2, 3), dtype) for _ in range(5)]
        read_only = numpy.ones(2)
        read_only.flags.writeable = False
        samples = [*arrays, arrays[0].T, read_only]
        if _locate(_ids(samples)).tolist() != [*(array.ctypes.data for array in arrays), 0, 0]:
            raise ImportError("this NumPy keeps its arrays in another form than NumPy 1 and 2")
        param, grad, *states = arrays
        table = Table([param], *([state] for state in states))
        table.step([grad], [{"lr": 1.0, "alpha": 1.0, "momentum": 1.0, "eps": 1.0}], 0, 1)


_prove()
