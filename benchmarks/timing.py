"""Contenders timed in turn, so that a machine whose speed drifts is as fast for one as for another."""

from __future__ import annotations

import random
import time

from benchmarks.libraries import Contender

# What is timed at once takes about this long: less than the breaks that a shared machine makes.
SECONDS = 0.01
# A call that takes longer needs none before it that is not timed.
LONG = 0.05
# Idle threads of OpenMP wait busily for some milliseconds; an update right after torch was slower by a third or more.
SPINNING = 0.02


def time_in_turn(
    contenders: list[Contender], budget: float, fewest: int = 7, most: int = 41
) -> dict[str, list[float]]:
    """Seconds for a call of each contender in each round, whose order is drawn anew.

    There are as many rounds as begin within the seconds of the budget, but not fewer or more than the bounds.
    """
    once = {contender.name: _warm_up(contender) for contender in contenders}
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    order = random.Random(0)
    begin = time.perf_counter()
    for round_ in range(most):
        if round_ >= fewest and time.perf_counter() - begin > budget:
            break
        for contender in order.sample(contenders, len(contenders)):
            count = max(1, round(SECONDS / once[contender.name]))
            contender.prepare()
            if once[contender.name] < LONG:
                contender.update()
            start = time.perf_counter()
            for _ in range(count):
                contender.update()
            seconds[contender.name].append((time.perf_counter() - start) / count)
            _let_spin(contender)
    return seconds


def _warm_up(contender: Contender) -> float:
    contender.prepare()
    # The first compiles, or makes states; the last tells how long a call takes.
    for _ in range(3):
        start = time.perf_counter()
        contender.update()
        seconds = time.perf_counter() - start
    _let_spin(contender)
    return seconds


def _let_spin(contender: Contender) -> None:
    if contender.spins:
        time.sleep(SPINNING)
