"""Writes, reads and compares the record of what the probes gave on the stack that Chainer was written for."""

from __future__ import annotations

import collections
import io
import json
import zipfile
from pathlib import Path

import numpy

from .bounds import HALF, Bound

CHAINER = "7.8.1"
PATH = Path(__file__).with_name("record.npz")


def write(outcomes, about, path=PATH):
    """Writes the labelled values of every call of every name. The same results give the same bytes."""
    columns = _Columns()
    index = {
        name: {
            call: {label: columns.placed(value) for label, value in sorted(outcome.items())}
            for call, outcome in calls.items()
        }
        for name, calls in sorted(outcomes.items())
    }
    text = json.dumps({"about": about, "outcomes": index}, separators=(",", ":"), sort_keys=True)
    arrays = {"index": numpy.frombuffer(text.encode(), "u1"), **columns.joined()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            file = io.BytesIO()
            numpy.save(file, array)
            # Without a time the entry's date is 1980, so the archive's bytes do not depend on the clock.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), file.getvalue(), zipfile.ZIP_DEFLATED, 9)


class _Columns:
    """Concatenates all arrays of each dtype, and stores equal arrays once."""

    def __init__(self):
        self._arrays = {}
        self._sizes = collections.Counter()
        self._places = {}

    def placed(self, value):
        """Adds an array, and returns its dtype, shape and start; returns any other value unchanged."""
        if not isinstance(value, numpy.ndarray):
            return value
        dtype, key = value.dtype.name, (value.dtype.name, value.shape, value.tobytes())
        if key not in self._places:
            self._places[key] = [dtype, list(value.shape), self._sizes[dtype]]
            self._arrays.setdefault(dtype, []).append(value.ravel())
            self._sizes[dtype] += value.size
        return self._places[key]

    def joined(self):
        return {dtype: numpy.concatenate(arrays) for dtype, arrays in sorted(self._arrays.items())}


def read(path=PATH):
    """Returns the description of the stack, and the outcomes."""
    with numpy.load(path) as archive:
        columns = dict(archive)
    index = json.loads(columns.pop("index").tobytes())
    for calls in index["outcomes"].values():
        for outcome in calls.values():
            for label, value in outcome.items():
                if isinstance(value, list):
                    dtype, shape, start = value
                    outcome[label] = columns[dtype][start : start + int(numpy.prod(shape))].reshape(shape)
    return index["about"], index["outcomes"]


def differences(outcome, recorded, bound):
    """Yields a line for each difference between an outcome and the record. A warning may be missing, but not new."""
    for label in sorted(outcome.keys() | recorded.keys()):
        if label.startswith("warns "):
            if label not in recorded:
                yield label
        elif label not in outcome or label not in recorded:
            yield f"{label}: {_shown(outcome, label)}, not {_shown(recorded, label)}"
        else:
            yield from _differences(outcome[label], recorded[label], label, bound)


def _differences(value, recorded, label, bound):
    if not isinstance(value, numpy.ndarray) or not isinstance(recorded, numpy.ndarray):
        same = type(value) is type(recorded) and value == recorded
    else:
        same = (value.dtype, value.shape) == (recorded.dtype, recorded.shape)
    if not same:
        yield f"{label}: {_described(value)}, not {_described(recorded)}"
    elif isinstance(value, numpy.ndarray) and value.size:
        off = parts_of(bound, value, recorded)
        if off.max() > 1:
            worst = numpy.unravel_index(off.argmax(), off.shape)
            yield (
                f"{label}: {value[worst]}, not {recorded[worst]}, in one of {numpy.count_nonzero(off > 1)} elements "
                f"of {off.size} that are off; {off.max():.3g} times the bound"
            )


def parts_of(bound, value, recorded):
    """Returns each element's difference divided by the bound, and infinity where only one of the two is a number."""
    with numpy.errstate(all="ignore"):
        same = (value == recorded) | ((value != value) & (recorded != recorded))
        if value.dtype.kind != "f":
            return numpy.where(same, 0.0, numpy.inf)
        if value.dtype == "float16":
            bound = Bound(min(bound.element, HALF.element), min(bound.array, HALF.array))
        size = numpy.abs(recorded).astype(bound.dtype or recorded.dtype)
        largest = numpy.max(size, initial=0, where=numpy.isfinite(size))
        allowed = bound.element * numpy.spacing(size) + bound.array * numpy.spacing(largest)
        off = numpy.abs(value.astype("f8") - recorded.astype("f8")) / allowed.astype("f8")
        return numpy.where(same, 0.0, numpy.where(numpy.isfinite(off), off, numpy.inf))


def _shown(outcome, label):
    return _described(outcome[label]) if label in outcome else "nothing"


def _described(value):
    if not isinstance(value, numpy.ndarray):
        return repr(value)
    return f"{value.dtype} {value.shape} {numpy.array2string(value.ravel()[:6], precision=6)}"
