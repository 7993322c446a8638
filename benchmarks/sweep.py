"""Time variants of the table's kernel on a GPU, in turn, in one process: python -m benchmarks --gpu --sweep.

A variant edits the CUDA text, or divides the work in another way. It is timed only if its results on the same GPU are
bit-identical to the NumPy kernel's. The kernel of one parameter is timed with blocks of several sizes.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple
from unittest import mock

import numpy

from benchmarks import gpu, gpu_report, models
from benchmarks.libraries import ALPHA, EPS, LR, MOMENTUM, in_one_line
from benchmarks.report import save, spread
from rmsprop_graves.kernels import cuda
from rmsprop_graves.kernels import cupy as kernel
from rmsprop_graves.kernels import numpy as numpy_kernel
from rmsprop_graves.kernels.hyperparameters import floats_of

VALUES = (LR, ALPHA, MOMENTUM, EPS)
AS_IT_IS = "as it is"
# Below this size each variant has its own arrays, because another variant's arrays would still be in the cache.
LARGE = 5 * 10**6


class Variant(NamedTuple):
    """A way to step a table.

    `vectors` is the number of vectors of each array that a thread steps. A grid has at most `most` blocks.
    """

    name: str
    source: str = cuda.TABLE_SOURCE
    threads: int = cuda.THREADS
    vectors: int = cuda.CHUNK_BYTES // (16 * cuda.THREADS)
    most: int = 2**31 - 1


def constants_of(variant: Variant) -> Any:
    """Return a context in which the package makes the kernel and the chunks of a variant."""
    chunk_bytes = 16 * variant.vectors * variant.threads
    return mock.patch.multiple(cuda, TABLE_SOURCE=variant.source, THREADS=variant.threads, CHUNK_BYTES=chunk_bytes)


class Table(kernel.Table):
    """A table that is stepped by a variant."""

    def __init__(self, variant: Variant, *columns: list[Any]) -> None:
        """Take the parameters and the states."""
        not_cached = mock.patch.object(kernel, "_table_kernel", kernel._table_kernel.__wrapped__)
        with constants_of(variant), not_cached:
            super().__init__(*columns)
        launch = self._kernel

        def launch_at_most(grid: tuple[int], block: tuple[int], arguments: tuple[Any]) -> None:
            # The last place is free, because no table here has as many rows as a launch can take.
            self._fields["grads"][-1] = grid[0]
            launch((min(grid[0], variant.most),), (variant.threads,), arguments)

        self._kernel = launch_at_most


def variants(processors: int) -> Iterator[Variant]:
    """Yield the kernel as it is, then its variants for a device with this number of multiprocessors."""
    yield Variant(AS_IT_IS)
    for vectors in (1, 2, 8, 16):
        yield Variant(f"{vectors} vectors a thread", vectors=vectors)
    for threads, vectors in ((128, 1), (128, 4), (512, 1), (512, 2)):
        yield Variant(f"{threads} threads, {vectors} vectors", _bounded(1024 // threads), threads, vectors)
    for ahead, threads, vectors in ((2, 256, 2), (2, 256, 4), (2, 128, 4), (4, 128, 4)):
        yield Variant(f"{ahead} vectors ahead, {threads} threads, {vectors} vectors", _ahead(ahead), threads, vectors)
    yield Variant("at least 5 blocks a multiprocessor", _edited((_BOUNDS, "%(threads)d, 5", 1)))
    for load, store in (("cs", ""), ("", "cs"), ("cs", "cs"), ("cg", ""), ("cg", "cs"), ("lu", "cs")):
        yield Variant(f"loads .{load or 'ca'}, stores .{store or 'wb'}", _hinted(load, store))
    yield Variant("loads .cs, stores .cs, 1 vectors a thread", _hinted("cs", "cs"), vectors=1)
    yield Variant("chunks read as 8 bytes", _edited((r"struct Chunk \{", "struct alignas(8) Chunk {", 1)))
    for vectors in (1, 4):
        most = 4 * processors
        yield Variant(f"4 blocks a multiprocessor, {vectors} vectors", _persistent(most), vectors=vectors, most=most)


_BOUNDS = r"%\(bounds\)s"
_LOAD = r"\*\((?:const )?Vector \*\)\((\w+) \+ i\)(?! =)"
_STORE = r"\*\(Vector \*\)\((\w+) \+ i\) = (\w+);"
_STEP = r"(?=__device__ __forceinline__ void\nstep)"


def _edited(*edits: tuple[str, str, int], source: str = cuda.TABLE_SOURCE) -> str:
    """Make replacements: pattern, replacement, and how often the pattern must be found."""
    for pattern, replacement, count in edits:
        source, found = re.subn(pattern, replacement, source)
        if found != count:
            raise ValueError(f"the CUDA text must have {pattern!r} {count} times, found it {found} times")
    return source


def _bounded(blocks: int) -> str:
    """Limit the registers of float16 so that a multiprocessor has room for this number of blocks."""
    return _edited((_BOUNDS, f"%(threads)d, sizeof(T) == 2 ? {blocks} : 1", 1))


def _hinted(load: str, store: str) -> str:
    """Load or store the vectors with a cache operator of PTX."""
    source = cuda.TABLE_SOURCE
    if store:
        function = (
            "__device__ __forceinline__ void store(T *p, const Vector &v) "
            f"{{ __st{store}((uint4 *)p, *(const uint4 *)&v); }}\n\n"
        )
        source = _edited((_STORE, r"store(\1 + i, \2);", 4), (_STEP, function, 1), source=source)
    if load:
        function = (
            "__device__ __forceinline__ Vector load(const T *p) "
            f"{{ const uint4 v = __ld{load}((const uint4 *)p); return *(const Vector *)&v; }}\n\n"
        )
        source = _edited((_LOAD, r"load(\1 + i)", 5), (_STEP, function, 1), source=source)
    return source


def _ahead(ahead: int) -> str:
    """Load several vectors of each array before the first is used, with as many registers as that needs."""
    each = f"""            #pragma unroll
            for (unsigned a = 0; a < {ahead}; ++a) {{
                const unsigned i = at + a * THREADS * LANES;
                if (i < done) {{
"""
    names = ("param", "n", "g", "delta")
    loads = "".join(f"                    {name}s[a] = *(Vector *)({name} + i);\n" for name in names)
    stores = "".join(f"                    *(Vector *)({name} + i) = {name}s[a];\n" for name in names)
    vectors = ", ".join(f"{name}s[{ahead}]" for name in ("grad", *names))
    loop = f"""        for (unsigned at = threadIdx.x * LANES; at < done; at += {ahead} * THREADS * LANES) {{
            Vector {vectors};
{each}                    grads[a] = *(const Vector *)(grad + i);
{loads}                }}
            }}
{each}                    #pragma unroll
                    for (unsigned k = 0; k < LANES; ++k)
                        step(grads[a].lane[k], params[a].lane[k], ns[a].lane[k], gs[a].lane[k], deltas[a].lane[k],
                             hyperparameters);
{stores}                }}
            }}
        }}
    }}
"""
    whole = r"(?s) {8}for \(unsigned i = threadIdx\.x \* LANES.*(?= {4}for \(unsigned i = done)"
    return _edited((whole, loop, 1), (_BOUNDS, "%(threads)d", 1))


def _persistent(blocks: int) -> str:
    """Let each block step several chunks; `Table` passes the number of chunks in the last place of the gradients."""
    loop = (
        "(const Launch launch) {\n    const unsigned chunks = (unsigned long long)launch.grads[%(rows)d - 1];\n"
        f"    for (unsigned block = blockIdx.x; block < chunks; block += {blocks}) {{"
    )
    edits = (r"\(const Launch launch\) \{", loop, 1), (r"launch\.chunks\[blockIdx\.x\]", "launch.chunks[block]", 1)
    return _edited(*edits) + "}\n"


@functools.lru_cache(maxsize=None)
def why_not(variant: Variant, dtype: numpy.dtype) -> str:
    """Return the reason why a variant must not be timed, in one line, or an empty string."""
    import cupy

    try:
        before, after = _example(dtype)
        # The second half does not begin at a multiple of 16 bytes.
        rows = [[cupy.asarray(array) for array in row] for row in before]
        rows += [[cupy.asarray(numpy.append(array[:1], array))[1:] for array in row] for row in before]
        params, grads, *states = map(list, zip(*rows))
        step = _stepped(Table(variant, params, *states), grads)
        for _ in range(_STEPS):
            step()
        for row, expected in zip(rows, after * 2):
            for array, numpys in zip(row, expected):
                if array.get().tobytes() != numpys.tobytes():
                    return "its results are not bit-identical to the NumPy kernel's"
    except Exception as error:
        return in_one_line(error)[:200]
    return ""


_STEPS = 3


@functools.lru_cache(maxsize=None)
def _example(dtype: numpy.dtype) -> tuple[list[list[Any]], list[list[Any]]]:
    """Return rows of arrays of odd sizes and of whole chunks, and the same after some steps of the NumPy kernel."""
    rng = numpy.random.default_rng(0)
    sizes = (1, 7, 8, 1000, 2**15 - 1, 2**15, 2**15 + 8, 100_003)
    before = [[rng.standard_normal(size).astype(dtype) for _ in range(5)] for size in sizes]
    for row in before:
        row[2] = numpy.square(row[3]) + numpy.square(row[2])
    after = [[array.copy() for array in row] for row in before]
    for row in after:
        for _ in range(_STEPS):
            numpy_kernel.step(*row, lr=LR, alpha=ALPHA, momentum=MOMENTUM, eps=EPS)
    return before, after


def _stepped(table: kernel.Table, grads: list[Any]) -> Callable[[], Any]:
    addresses = table.locate(grads)
    if addresses is None:
        raise ValueError("the table cannot step these arrays")
    # It keeps the gradients alive: the table has only their addresses.
    return lambda: table.step(addresses, [VALUES] * len(grads))


def contenders(shapes: models.Shapes, kind: str, leave_out: Callable[[str], None]) -> Iterator[gpu.Contender]:
    """Yield the variants, the kernel of one parameter with several sizes of its blocks, and the copy."""
    import cupy

    dtype = numpy.dtype(kind)
    nbytes = 9 * dtype.itemsize * models.size(shapes)

    def draw() -> tuple[list[Any], ...]:
        params, grads = ([cupy.asarray(gpu._draw(shape, dtype, seed)) for shape in shapes] for seed in (0, 1))
        return grads, params, *([cupy.zeros(shape, dtype) for shape in shapes] for _ in range(3))

    arrays = draw()
    for variant in variants(cupy.cuda.Device().attributes["MultiProcessorCount"]):
        reason = why_not(variant, dtype)
        if reason:
            leave_out(f"{variant.name}, {kind} ({reason})")
            continue
        grads, *columns = arrays if models.size(shapes) > LARGE else draw()
        yield gpu.Contender(variant.name, _stepped(Table(variant, *columns), grads), nbytes)
    step = kernel._kernel(cuda.TYPES[dtype.char][1])
    for block in (128, 256, 512):
        yield gpu.Contender(f"one by one, blocks of {block}", functools.partial(_each, step, arrays, block), nbytes)
    yield gpu.Contender(gpu.COPY, gpu._copy(nbytes), nbytes)


def _each(step: Callable[..., Any], arrays: tuple[list[Any], ...], block: int) -> None:
    for grad, *written in zip(*arrays):
        step(grad, *floats_of(*VALUES), *written, block_size=block)


# The cases in which a table steps the parameters.
CASES = [case for case in gpu.CASES if case[2] in cuda.DTYPES]


def summary(results: dict[str, Any]) -> str:
    """Return a table with a row for each variant: the speed-up over the kernel as it is, by the time on the device."""
    cases = results["cases"]
    names = dict.fromkeys(name for case in cases for name in case["seconds"])
    lines = [
        f"{results['machine']['GPU']}: speed-up over the kernel as it is, on the device, median (lower to upper "
        "quartile) of the rounds",
        "",
        f"| | {' | '.join('{model}, {kind}'.format(**case) for case in cases)} |",
        f"|---|{'---:|' * len(cases)}",
    ]
    for name in names:
        cells = [
            spread(gpu_report.ratios(case, AS_IT_IS, name, "device")) if name in case["seconds"] else "-"
            for case in cases
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write the results as Markdown and as JSON; return the paths."""
    document = gpu_report.document(results, summary(results))
    return save(results, document, folder / "gpu_sweep", "python -m benchmarks --gpu --sweep")
