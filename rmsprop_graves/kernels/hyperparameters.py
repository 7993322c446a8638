"""The hyperparameters of many parameters, of which most or all have the same."""

from __future__ import annotations

from typing import Iterator


def runs(hyperparameters: list[dict[str, float]]) -> Iterator[tuple[dict[str, float], int]]:
    """Yields each and how often it follows itself, as the same object."""
    count = 0
    previous = None
    for values in hyperparameters:
        if values is not previous:
            if previous is not None:
                yield previous, count
            previous, count = values, 0
        count += 1
    if previous is not None:
        yield previous, count
