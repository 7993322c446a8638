"""The rule in plain Python floats: an oracle that shares no code with the package."""

from __future__ import annotations

import math


def step(w, x, n, g, delta, *, lr=1e-4, alpha=0.95, momentum=0.9, eps=1e-4):
    """Step one element in double precision; return the new w, n, g and delta."""
    n = alpha * n + (1 - alpha) * x**2
    g = alpha * g + (1 - alpha) * x
    delta = momentum * delta - lr * x / math.sqrt(max(n - g**2, 0) + eps)
    return w + delta, n, g, delta


def run(w, gradients, **hyperparameters):
    """Step one element once for each gradient, from a state of zeros; return the last w, n, g and delta."""
    state = (w, 0.0, 0.0, 0.0)
    for x in gradients:
        state = step(state[0], x, *state[1:], **hyperparameters)
    return state
