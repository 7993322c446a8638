"""Assignments that are made all together or not at all."""

from __future__ import annotations

import collections
import itertools
import operator
from typing import Any

import chainer
import numpy

_ALL = slice(None)


class Changes:
    """Assignments to make in one call of `make`.

    The call runs no bytecode, so neither a signal handler, such as the one of Ctrl-C, nor a trace function runs
    between two assignments. It allocates no memory, except for arrays that are not contiguous and for `restore_dict`.
    Calling it again has the same result.
    """

    def __init__(self) -> None:
        self._attributes: list[tuple[Any, str, Any]] = []
        self._items: list[tuple[Any, Any, Any]] = []
        self._cleared: list[dict[str, Any]] = []
        self._refilled: list[tuple[dict[str, Any], dict[str, Any]]] = []
        # Keeps replaced objects alive, so that no finalizer runs between two assignments.
        self._released: list[Any] = []

    def set_attribute(self, owner: Any, name: str, value: Any) -> None:
        """Adds an assignment to an attribute."""
        present = getattr(owner, name)
        self._released.append(present)
        setattr(owner, name, present)  # adds it to the instance now, because that may need memory
        self._attributes.append((owner, name, value))

    def set_item(self, owner: Any, key: Any, value: Any) -> None:
        """Adds an assignment to an existing item of a dict or a list."""
        self._released.append(owner[key])
        self._items.append((owner, key, value))

    def set_array(self, owner: dict[str, Any], name: str, value: Any) -> None:
        """Adds a write into an existing array of a dict, or the array's replacement if the value does not fit."""
        array = owner[name]
        if can_hold(array, value):
            self._write(array, value)
        else:
            self.set_item(owner, name, value)

    def restore_array(self, owner: dict[str, Any], name: str, array: Any) -> None:
        """Adds a restoration of an array's content. On a GPU, a copy replaces the array in the owner at once."""
        content = array.copy()
        if can_hold(array, content):
            self._write(array, content)
        elif not isinstance(array, numpy.ndarray):
            owner[name] = content

    def restore_dict(self, owner: dict[str, Any], content: dict[str, Any] | None = None) -> None:
        """Adds a restoration of a dict to its present content, or to the given content."""
        self._cleared.append(owner)
        self._refilled.append((owner, dict(owner) if content is None else content))

    def _write(self, array: numpy.ndarray, value: numpy.ndarray) -> None:
        if array.flags.c_contiguous and value.flags.c_contiguous and type(array) is type(value) is numpy.ndarray:
            # An assignment to an array allocates memory, one to a memoryview of bytes does not.
            to, of = (one.reshape(-1).view(numpy.uint8).data for one in (array, value))
            self._items.append((to, _ALL, of))
        else:
            self._items.insert(0, (array, ..., value))

    def make(self) -> None:
        """Makes the changes."""
        calls = itertools.chain(
            map(dict.clear, self._cleared),
            itertools.starmap(dict.update, self._refilled),
            # A `__setattr__` of a class would run bytecode.
            itertools.starmap(object.__setattr__, self._attributes),
            itertools.starmap(operator.setitem, self._items),
        )
        collections.deque(calls, maxlen=0)


def can_hold(array: Any, value: Any) -> bool:
    """Whether one uninterruptible call can write a value into an existing array. On a GPU it cannot."""
    return (
        isinstance(array, numpy.ndarray)
        and isinstance(array, chainer.get_array_types())
        and isinstance(value, numpy.ndarray)
        and (array.shape, array.dtype) == (value.shape, value.dtype)
        and array.flags.writeable
    )
