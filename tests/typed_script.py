"""A user's script, which mypy checks in `make lint`: the types of the package as a type checker sees them."""

from __future__ import annotations

import chainer
from typing_extensions import assert_type

import rmsprop_graves
from rmsprop_graves import RMSpropGraves, kernels

model = chainer.links.Linear(3, 2)
optimizer = RMSpropGraves(lr=1e-3).setup(model)
assert_type(optimizer, RMSpropGraves)
assert_type(optimizer.lr, float)
assert_type(optimizer.alpha, float)
assert_type(optimizer.momentum, float)
assert_type(optimizer.eps, float)
optimizer.lr *= 0.5
rmsprop_graves.install_in_chainer()
rmsprop_graves.load_npz("file", model)
assert_type(kernels.get_num_threads(), int)
assert_type(rmsprop_graves.kernels.get_num_threads(), int)

# Strict mypy fails if an ignored error does not occur.
optimizer.lr = "fast"  # type: ignore[assignment]
RMSpropGraves(lr="fast")  # type: ignore[arg-type]
RMSpropGraves(learning_rate=1e-3)  # type: ignore[call-arg]
rmsprop_graves.save_npz("file", model)  # type: ignore[attr-defined]
