"""Inputs for which every kernel must give the same bits."""

from __future__ import annotations

import itertools

import numpy

DTYPES = ("float16", "float32", "float64")
NAMES = ("param", "grad", "n", "g", "delta")
ENTRIES = ("param", "n", "g", "delta")

DEFAULTS = {"lr": 1e-4, "alpha": 0.95, "momentum": 0.9, "eps": 1e-4}
SETTINGS = {
    "defaults": DEFAULTS,
    "dqn": {"lr": 2.5e-4, "alpha": 0.95, "momentum": 0.0, "eps": 1e-2},
    "short memory": {"lr": 1e-3, "alpha": 0.8, "momentum": 0.8, "eps": 1e-8},
    "long memory": {"lr": 0.1, "alpha": 0.99, "momentum": 0.9, "eps": 1e-6},
    "ascent without memory": {"lr": -1e-2, "alpha": 0.0, "momentum": 0.0, "eps": 1.0},
}
# Values that are zero or subnormal in float32, and the ends of the valid ranges.
EXTREME_SETTINGS = {
    "eps 0": {"lr": 1e-2, "alpha": 0.9, "momentum": 0.5, "eps": 0.0},
    "subnormal eps": {"lr": 1e-2, "alpha": 0.9, "momentum": 0.5, "eps": 1e-41},
    "subnormal rates": {"lr": 1e-41, "alpha": 1e-41, "momentum": 1e-41, "eps": 1e-4},
    "rates that float32 rounds to zero": {"lr": 1.0, "alpha": 1e-50, "momentum": 1e-50, "eps": 1e-30},
    "smallest normal eps": {"lr": 1.0, "alpha": 0.0, "momentum": 0.999, "eps": 1.1754943508222875e-38},
    "growth": {"lr": 1.0, "alpha": 1.05, "momentum": 1.0, "eps": 1e-4},
    "growth in small steps": {"lr": 1e-4, "alpha": 1.05, "momentum": 1.0, "eps": 1e-4},
    "lr -0": {"lr": -0.0, "alpha": 0.95, "momentum": 0.0, "eps": 1e-4},
}


def special_values(dtype):
    """Return zeros, subnormal and ordinary numbers, the largest ones, infinities and NaN."""
    limits = numpy.finfo(dtype)
    zero, one = numpy.array([0, 1], dtype)
    subnormal, normal, largest = numpy.nextafter(zero, one), limits.tiny, limits.max
    root = numpy.sqrt(largest)
    numbers = [0, subnormal, normal - subnormal, normal, 0.3, 1, root, largest, numpy.inf]
    return numpy.array([*numbers, *(-number for number in numbers), numpy.nan], dtype)


def crossed(dtype):
    """Return the Cartesian product of special values in param, grad, n, g and delta.

    n has no negative values. param, g and delta have only some of the values, to keep the product small.
    """
    values = special_values(dtype)
    positive, negative, nan = values[:9], values[9:18], values[18:]
    fewer = numpy.concatenate([positive[[0, 1, 4, 7, 8]], negative[[0, 1, 4, 7, 8]], nan])
    columns = itertools.product(fewer, values, numpy.concatenate([positive, nan]), fewer, fewer)
    return dict(zip(NAMES, numpy.ascontiguousarray(numpy.array(list(columns), dtype).T)))


def start_at(param):
    """Return a copy of a parameter, and states of zeros."""
    return {"param": param.copy(), **{name: numpy.zeros_like(param) for name in ENTRIES[1:]}}


def gradients(dtype, steps, size=2000):
    """Return gradients of many magnitudes, subnormal ones included, whose mean is zero or not."""
    rng = numpy.random.RandomState(313)
    low, high = {"float16": (-8, 4), "float32": (-45, 19), "float64": (-320, 150)}[dtype]
    magnitude = 10 ** rng.uniform(low, high, size)
    mean = rng.randint(0, 3, size)
    return [(magnitude * (mean + rng.standard_normal(size))).astype(dtype) for _ in range(steps)]


def assert_same_bits(actual, expected):
    """Assert that two dicts hold the same bits. All NaNs are equal: IEEE 754 leaves their sign and payload open."""
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        other = expected[name]
        assert (array.dtype, array.shape) == (other.dtype, other.shape), name
        bits, others = (numpy.where(numpy.isnan(one), numpy.nan, one).astype(one.dtype) for one in (array, other))
        differs = numpy.flatnonzero(bits.view(f"u{bits.itemsize}") != others.view(f"u{bits.itemsize}"))
        assert len(differs) == 0, (name, len(differs), bits.flat[differs[:5]], others.flat[differs[:5]])
