"""The step on NumPy arrays, compiled by Numba: one pass over memory."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections import deque
from functools import partial
from itertools import chain, starmap
from typing import Any, Iterable, Sequence

import numba
import numpy
from llvmlite import ir
from numba.core.caching import NullCache
from numba.extending import intrinsic

from rmsprop_graves.kernels import memory, threads
from rmsprop_graves.kernels import numpy as numpy_kernel
from rmsprop_graves.kernels import table as _table
from rmsprop_graves.kernels.changes import ADD, CLIP, SIGN, Change
from rmsprop_graves.kernels.hyperparameters import NAMES, floats_of
from rmsprop_graves.kernels.numba_cache import Cache


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
    """Steps one parameter in place: writes param, n, g and delta, bit-identical to the NumPy kernel.

    Contiguous float32 and float64 arrays in native byte order are stepped in one compiled pass, which does not warn
    of overflow. The NumPy kernel steps all others, including float16, which Numba cannot compile for a CPU. When this
    module is imported, it compiles the loop for both dtypes, or loads it from Numba's cache on disk.

    Args:
        param: The parameter, of any shape and a real floating-point dtype.
        grad: Its gradient, of the same shape and a real dtype.
        n: Running mean of the squared gradient, of the shape and dtype of ``param``.
        g: Running mean of the gradient, of the shape and dtype of ``param``.
        delta: The last step, of the shape and dtype of ``param``.
        lr: Step size; any finite number.
        alpha: Decay rate of ``n`` and ``g``; >= 0.
        momentum: Decay rate of ``delta``; >= 0.
        eps: Added inside the root, in units of squared gradient; >= 0.

    Raises:
        TypeError: ``param`` or a state is not of a real floating-point dtype, or ``grad`` is not of a real dtype;
            nothing is written.
        ValueError: ``param`` or a state is read-only or has elements that share memory, or an array has another
            shape; nothing is written.
    """
    arrays = (param, grad, n, g, delta)
    # The NumPy kernel copies a gradient that shares memory with a written array, if necessary.
    if not _fit(*arrays) or numpy_kernel.may_overlap(grad, param, n, g, delta):
        numpy_kernel.step(*arrays, lr=lr, alpha=alpha, momentum=momentum, eps=eps)
        return
    hyperparameters = numpy.array(floats_of(lr, alpha, momentum, eps))
    if param.size < 2 * threads.SPAN:
        _step_elements(param.ravel(), grad.ravel(), n.ravel(), g.ravel(), delta.ravel(), hyperparameters)
        return
    addresses = numpy.array([[array.ctypes.data] for array in (param, n, g, delta, grad)])
    one = numpy.zeros(1, numpy.intp)
    bounds, like = numpy.array([0, param.size]), param.ravel()[:0]
    _step_on_threads(addresses[:4], addresses[4], bounds, hyperparameters[None], one, (), like)


class Table(_table.Table):
    """Addresses of parameters and states, for stepping all of them in one compiled call.

    Every array must be C-contiguous and writable, and have the parameter's shape and dtype: float32 or float64.
    """

    CHARS = "fd"

    def _locate_columns(self) -> Any:
        self._params = _objects(self._columns[0])
        self._objects = _objects([array for column in self._columns for array in column])
        self._like = numpy.empty(0, self._columns[0][0].dtype)
        self._seen = self._look(self._objects, _WRITABLE)
        dtype = self._like.dtype
        is_sound = all(_fit(*arrays) and arrays[0].dtype == dtype for arrays in zip(*self._columns))
        return self._seen[0].reshape(4, -1) if is_sound else None

    def _is_as_it_was(self) -> bool:
        return numpy.array_equal(self._look(self._objects, _WRITABLE), self._seen)

    def _locate_grads(self, grads: list[Any]) -> Any:
        addresses, dtypes = self._look(_objects(grads), _READABLE)
        for place in numpy.flatnonzero((addresses == 0) | (dtypes != self._seen[1, : len(grads)])):
            param, grad = self._columns[0][place], grads[place]
            if (
                type(grad) is not numpy.ndarray
                or (grad.shape, grad.dtype) != (param.shape, param.dtype)
                or self._reads_what_is_written(grad, grad.ctypes.data)
            ):
                return None
            grads[place] = numpy.require(grad, requirements=["C", "A"])
            addresses[place] = grads[place].ctypes.data
        return addresses

    def can_change(self, addresses: numpy.ndarray, grads: list[Any]) -> bool:
        """Whether the step can change these gradients in place. None of them may be a copy made by :meth:`locate`."""
        are_writable = self._look(_objects(grads), _WRITABLE)[0].all()
        return are_writable and not memory.Memory(addresses[None], self._nbytes).overlaps

    def _look(self, objects: numpy.ndarray, flags: int) -> Any:
        return _look(
            objects.ctypes.data, len(objects), self._params.ctypes.data, self._sizes, id(numpy.ndarray), flags
        )

    def _step(
        self,
        grads: numpy.ndarray,
        sets: numpy.ndarray,
        set_of: numpy.ndarray,
        changes: Sequence[Change],
        then: Iterable[object],
    ) -> None:
        _step_on_threads(self._addresses, grads, self._bounds, sets, set_of, changes, self._like, then)


def change(params: list[numpy.ndarray], grads: list[numpy.ndarray], changes: Sequence[Change]) -> bool:
    """Makes the changes in order, all in one compiled pass, bit-identical to Chainer's hooks.

    Args:
        params: The parameters, of one dtype.
        grads: The gradient of each.
        changes: The changes to make.

    Returns:
        Whether the changes were made. Nothing is changed if an array is not contiguous or not of the common dtype, or
        if a gradient is read-only, has another shape than its parameter or shares memory with another array.
    """
    count, dtype = len(params), params[0].dtype
    if dtype.char not in Table.CHARS:
        return False
    objects = _objects([*params, *grads])
    sizes = numpy.array([param.size for param in params], numpy.intp)
    address = objects.ctypes.data
    addresses, dtypes = _look(address, 2 * count, address, sizes, id(numpy.ndarray), _READABLE)
    written, _ = _look(objects[count:].ctypes.data, count, address, sizes, id(numpy.ndarray), _WRITABLE)
    if not addresses.all() or not written.all() or (dtypes != dtypes[0]).any():
        return False
    rows = addresses.reshape(2, count)
    if memory.overlap(rows[1], rows[0], sizes * dtype.itemsize):
        return False
    bounds, set_of = numpy.cumsum([0, *sizes]), numpy.zeros(count, numpy.intp)
    no_sets, like = numpy.empty((0, len(NAMES))), numpy.empty(0, dtype)
    _step_on_threads(numpy.repeat(rows[:1], 4, axis=0), rows[1].copy(), bounds, no_sets, set_of, changes, like)
    return True


def _step_on_threads(
    addresses: numpy.ndarray,
    grads: numpy.ndarray,
    bounds: numpy.ndarray,
    sets: numpy.ndarray,
    set_of: numpy.ndarray,
    changes: Sequence[Change],
    like: numpy.ndarray,
    then: Iterable[object] = (),
) -> None:
    """Changes the gradients, steps all elements, on several threads if that is faster, and consumes `then`.

    If there are no sets of hyperparameters, it makes no step.

    A signal handler, such as the one that raises KeyboardInterrupt at Ctrl-C, runs before or after all writes.
    """
    size = int(bounds[-1])
    count = threads.count_for(size)
    spans = threads.spans(size, count)
    kinds, numbers = _NO_CHANGES
    if changes:
        kinds = numpy.array([one.kind for one in changes], numpy.intp)
        numbers = numpy.array([numpy.broadcast_to(one.numbers, (len(grads), 2)) for one in changes])
    work = partial(_walk, _closed_job(), spans, addresses, grads, bounds, sets, set_of, kinds, numbers, like, *_PAUSES)
    threads.ask_for_help(partial(work, False), count - 1)
    # Python handles signals between bytecodes, and this is a single call of C functions.
    deque(chain(starmap(work, [(True,)]), then), maxlen=0)


_NO_CHANGES = numpy.empty(0, numpy.intp), numpy.empty((0, 0, 2))


def _objects(arrays: list[Any]) -> numpy.ndarray:
    """Returns an object array of the arrays. Its memory holds the addresses of the array objects."""
    # The None keeps NumPy from stacking the arrays. A list of `id`s would take ten times as long while an audit hook
    # is set, and filelock, which Chainer imports, sets one.
    return numpy.array([None, *arrays], object)[1:]


def _fit(*arrays: numpy.ndarray) -> bool:
    """Whether the compiled loop can step the arrays: of one shape and supported dtype, contiguous and writable."""
    dtype, shape = arrays[0].dtype, arrays[0].shape
    if dtype not in _DTYPES:
        return False
    for array in arrays:
        # A subclass, such as a masked array, may hold more than its elements.
        if type(array) is not numpy.ndarray or array.dtype != dtype or array.shape != shape or not array.flags.carray:
            return False
    return True


if numba.config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

# Without fastmath LLVM contracts nothing: every product and sum is rounded, as in NumPy. With this error model a
# division by zero gives infinity and raises nothing.
_OPTIONS = {"nogil": True, "error_model": "numpy"}
_DTYPES = (numpy.dtype(numpy.float32), numpy.dtype(numpy.float64))


_COMPILED_ANEW = "The update is compiled anew in each process"


def _can_cache() -> bool:
    try:
        # Numba finds one folder for all functions of this file.
        Cache(_fit)
    except Exception as error:
        warnings.warn(
            f"{error}. {_COMPILED_ANEW}; set NUMBA_CACHE_DIR to a folder that can be written.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


_CACHE = _can_cache()
_dispatchers: list[Any] = []


def _compiled(function: Any) -> Any:
    dispatcher = numba.njit(**_OPTIONS)(function)
    if _CACHE:
        dispatcher._cache = Cache(function)
    _dispatchers.append(dispatcher)
    return dispatcher


@_compiled
def _capped(number: Any, largest: Any) -> Any:
    # Comparisons pass a NaN through; `min` and `max` may not.
    return largest if number > largest else -largest if number < -largest else number


@_compiled
def _decayed(number: Any, rate: Any, largest: Any) -> Any:
    # Infinity times zero would be NaN: a rate of zero resets an infinite state too.
    return (_capped(number, largest) if rate == 0 else number) * rate


@_compiled
def _moved(number: Any, by: Any) -> Any:
    # Infinity minus infinity would be NaN: an infinite number stays infinite.
    moved = number + by
    return number - by if numpy.isnan(moved) else moved


@_compiled
def _step_elements(param: Any, grad: Any, n: Any, g: Any, delta: Any, hyperparameters: Any) -> None:
    """Steps one-dimensional arrays. The hyperparameters are a float64 array of lr, alpha, 1 - alpha, momentum, eps."""
    real = param.dtype.type
    zero, largest = real(0), numpy.finfo(real).max
    lr, alpha, one_minus_alpha = real(hyperparameters[0]), real(hyperparameters[1]), real(hyperparameters[2])
    momentum, eps = real(hyperparameters[3]), real(hyperparameters[4])
    for i in range(param.size):
        # All loads precede all stores: large arrays begin at the same offset within a page, and a processor delays a
        # load after a store to the same offset (4K aliasing).
        x, param0, n0, g0, delta0 = grad[i], param[i], n[i], g[i], delta[i]
        t = one_minus_alpha * x
        n1 = _decayed(n0, alpha, largest) + t * x
        g1 = _decayed(g0, alpha, largest) + t
        v = n1 - _capped(g1 * g1, largest)
        by = -lr * x / numpy.sqrt((zero if v < zero else v) + eps)
        delta1 = _moved(_decayed(delta0, momentum, largest), by)
        n[i], g[i], delta[i], param[i] = n1, g1, delta1, _moved(param0, delta1)


@_compiled
def _change_elements(kind: Any, param: Any, grad: Any, numbers: Any) -> None:
    """Makes one change. Each kind has a loop of its own, so that the compiler can vectorize it."""
    real = grad.dtype.type
    a, b = real(numbers[0]), real(numbers[1])
    if kind == ADD:
        for i in range(grad.size):
            grad[i] += a * param[i]
    elif kind == SIGN:
        for i in range(grad.size):
            p = param[i]
            # A NaN is its own sign, as in NumPy.
            grad[i] += a * (real(1) if p > 0 else real(-1) if p < 0 else real(0) if p == 0 else p)
    elif kind == CLIP:
        for i in range(grad.size):
            x = a if grad[i] < a else grad[i]
            grad[i] = b if x > b else x
    else:
        for i in range(grad.size):
            grad[i] *= a


@intrinsic
def _pointer(context: Any, address: Any, like: Any) -> Any:
    """Converts an address to a pointer to elements of the dtype of `like`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return numba.types.CPointer(like.dtype)(address, like), generate


# Offsets of the fields of an array object. NumPy's headers declare this struct but deprecate direct access, and may
# hide it one day; `_prove` refuses a NumPy with another layout. The public `array.ctypes.data` takes a microsecond for
# each array, as long as the whole step of a small parameter.
_DATA = object.__basicsize__
_TYPE, _NDIM, _SHAPE, _DTYPE, _FLAGS = _DATA - 8, _DATA + 8, _DATA + 16, _DATA + 40, _DATA + 48
# NumPy's flags: C-contiguous and aligned; the same and writable.
_READABLE = 0x1 | 0x100
_WRITABLE = _READABLE | 0x400


@intrinsic
def _add(context: Any, address: Any, number: Any) -> Any:
    """Adds to the machine word at an address, atomically, and returns its previous value."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.get_value_type(numba.types.CPointer(numba.types.intp))
        return builder.atomic_rmw("add", builder.inttoptr(arguments[0], pointer), arguments[1], "seq_cst")

    return numba.types.intp(address, numba.types.intp), generate


@intrinsic
def _call(context: Any, address: Any) -> Any:
    """Calls the C function at an address with the argument 1, which a function without parameters ignores."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        int_type = context.get_value_type(numba.types.intc)
        function = ir.FunctionType(int_type, [int_type])
        return builder.call(builder.inttoptr(arguments[0], function.as_pointer()), [int_type(1)])

    return numba.types.intc(address), generate


@intrinsic
def _word(context: Any, address: Any) -> Any:
    """The machine word at an address."""
    return numba.types.intp(address), _load


@intrinsic
def _int(context: Any, address: Any) -> Any:
    """The C int at an address."""
    return numba.types.intc(address), _load


def _load(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    pointer = context.get_value_type(numba.types.CPointer(signature.return_type))
    return builder.load(builder.inttoptr(arguments[0], pointer))


@_compiled
def _look(objects: Any, count: Any, params: Any, sizes: Any, array_type: Any, flags: Any) -> Any:
    """Reads the addresses of each array's data and dtype object. Array k belongs to parameter k % len(sizes).

    Returns a row of data addresses and a row of dtype addresses. Both addresses are 0 if the array is not a plain
    `numpy.ndarray`, lacks one of the flags, or differs from its parameter's shape or recorded size.
    """
    seen = numpy.zeros((2, count), numpy.intp)
    for place in range(count):
        row = place % len(sizes)
        array, param = _word(objects + 8 * place), _word(params + 8 * row)
        if _word(array + _TYPE) != array_type or _int(array + _FLAGS) & flags != flags:
            continue
        ndim = _int(array + _NDIM)
        if ndim != _int(param + _NDIM):
            continue
        size = 1
        is_alike = True
        for axis in range(ndim):
            length = _word(_word(array + _SHAPE) + 8 * axis)
            size *= length
            is_alike &= length == _word(_word(param + _SHAPE) + 8 * axis)
        if is_alike and size == sizes[row]:
            seen[0, place] = _word(array + _DATA)
            seen[1, place] = _word(array + _DTYPE)
    return seen


@_compiled
def _walk_span(
    addresses: Any,
    grads: Any,
    bounds: Any,
    sets: Any,
    set_of: Any,
    kinds: Any,
    numbers: Any,
    like: Any,
    begin: Any,
    end: Any,
) -> None:
    """Steps the elements from `begin` to `end`, numbered as if all parameters lay end to end."""
    row = numpy.searchsorted(bounds, begin, side="right") - 1
    while begin < end:
        offset = (begin - bounds[row]) * like.itemsize
        count = min(bounds[row + 1], end) - begin
        if len(kinds) > 0:
            count = min(count, _BLOCK)
        param = numba.carray(_pointer(addresses[0, row] + offset, like), count)
        grad = numba.carray(_pointer(grads[row] + offset, like), count)
        for place in range(len(kinds)):
            _change_elements(kinds[place], param, grad, numbers[place, row])
        if len(sets) > 0:
            _step_elements(
                param,
                grad,
                numba.carray(_pointer(addresses[1, row] + offset, like), count),
                numba.carray(_pointer(addresses[2, row] + offset, like), count),
                numba.carray(_pointer(addresses[3, row] + offset, like), count),
                sets[set_of[row]],
            )
        begin += count
        if begin == bounds[row + 1]:
            row += 1


# A job: two words in different cache lines, changed atomically. The first is the number of the next span that a thread
# may take, or -1 while the job is closed; the second is the number of spans that are finished.
_NEXT, _FINISHED = 0, 16
# Elements of a gradient that are changed and then stepped while they are in the first-level cache.
_BLOCK = 1 << 11
# How often a waiting thread yields before a helper gives up and the caller sleeps: about a millisecond.
_PATIENCE = 1000


def _closed_job() -> numpy.ndarray:
    job = numpy.zeros(32, numpy.intp)
    job[_NEXT] = -1
    return job


def _addresses_of_pauses() -> tuple[int, int]:
    """The addresses of two functions of the operating system: let other threads run; sleep for the shortest time.

    The compiled code takes them as arguments, because it is cached for other processes, which have other addresses.
    """
    if os.name == "nt":
        library, names = ctypes.CDLL("kernel32"), ("SwitchToThread", "Sleep")
    else:
        library, names = ctypes.CDLL(None), ("sched_yield", "usleep")
    give_way, sleep = (ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names)
    return give_way, sleep


_PAUSES = _addresses_of_pauses()


@_compiled
def _walk(
    job: Any,
    spans: Any,
    addresses: Any,
    grads: Any,
    bounds: Any,
    sets: Any,
    set_of: Any,
    kinds: Any,
    numbers: Any,
    like: Any,
    give_way: Any,
    sleep: Any,
    is_caller: Any,
) -> None:
    """Steps spans until none is left. The caller of the step opens the job, and waits until all spans are finished.

    The caller's wait always ends: a helper finishes the span that it has taken, because nothing here waits for Python.
    A helper does not wait long for a job to open, because an interrupt may have ended the caller before that.
    """
    count = len(spans) - 1
    next_span, finished = job[_NEXT:].ctypes.data, job[_FINISHED:].ctypes.data
    if is_caller:
        _add(next_span, 1)
    else:
        tries = 0
        while _add(next_span, 0) < 0:
            if tries == _PATIENCE:
                return
            tries += 1
            _call(give_way)
    span = _add(next_span, 1)
    while span < count:
        _walk_span(addresses, grads, bounds, sets, set_of, kinds, numbers, like, spans[span], spans[span + 1])
        _add(finished, 1)
        span = _add(next_span, 1)
    if is_caller:
        tries = 0
        while _add(finished, 0) < count:
            # If a caller of higher priority only yielded, it could keep a helper off its core for ever.
            _call(give_way if tries < _PATIENCE else sleep)
            tries += 1


def _prove() -> None:
    """Compiles the code, and checks that it reads array objects correctly, so that no update fails halfway."""
    for dtype in _DTYPES:
        columns = [[numpy.ones((2, 3), dtype) for _ in range(4)] for _ in range(4)]
        grads = [numpy.ones((2, 3), dtype), numpy.ones((3, 2), dtype).T, numpy.ones(6, dtype), None]
        columns[1][3].flags.writeable = False
        all_arrays = [array for column in columns for array in column]
        proof = Table(*columns)
        expected = [array.ctypes.data if array.flags.writeable else 0 for array in all_arrays]
        if proof._seen[0].tolist() != expected or proof._look(_objects(grads), _READABLE)[0, 1:].any():
            raise ImportError("this NumPy lays out its array objects differently from NumPy 1 and 2")
        proof = Table(*(column[:1] for column in columns))
        addresses = proof.locate(grads[:1])
        assert addresses is not None
        proof._step(addresses, numpy.ones((1, len(NAMES))), numpy.zeros(1, numpy.intp), (), ())


def _prove_numbers() -> None:
    """Checks that the compiled loop gives the bits of the NumPy kernel. A damaged cache may hold other code."""
    for dtype in _DTYPES:
        numbers = [numpy.sin(numpy.arange(203, dtype=dtype) * k) for k in (1, 2, 3, 4, 5)]
        numbers[1][:3] = 0, numpy.finfo(dtype).tiny / 8, -1e5
        arrays, expected = [list(map(numpy.copy, numbers)) for _ in range(2)]
        # A program may have set NumPy to raise an error on underflow.
        with numpy.errstate(all="ignore"):
            for kernel_step, five in ((step, arrays), (numpy_kernel.step, expected)):
                kernel_step(*five, lr=0.1, alpha=0.95, momentum=0.9, eps=1e-4)
        if any(array.tobytes() != other.tobytes() for array, other in zip(arrays, expected)):
            raise ImportError("the compiled update gives different results from NumPy")


def _prove_all() -> None:
    _prove()
    _prove_numbers()


try:
    _prove_all()
except Exception as error:
    if not _CACHE:
        raise
    # The cause may be Numba's cache: a damaged file or a full disk. Numba does not catch these errors.
    _folder = _dispatchers[0].stats.cache_path
    try:
        for _dispatcher in _dispatchers:
            _dispatcher._cache = NullCache()
            _dispatcher.recompile()
        _prove_all()
    except Exception:
        # It was not the cache.
        raise error from None
    warnings.warn(
        f"Numba's cache in {_folder} cannot be used ({type(error).__name__}: {error}). {_COMPILED_ANEW}. "
        "Delete that folder, make room on its disk, or set NUMBA_CACHE_DIR to another one.",
        RuntimeWarning,
        stacklevel=2,
    )
