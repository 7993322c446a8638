"""Time contenders in turn, so that a drift of the machine's speed affects all of them."""

from __future__ import annotations

import random
import time

from benchmarks.libraries import Contender

# Repeat calls for about this many seconds, which is shorter than most interruptions on a shared machine.
SECONDS = 0.01
# A contender whose call takes longer than this needs no untimed call first.
LONG = 0.05
# Idle OpenMP threads busy-wait for some milliseconds: an update right after torch took at least a third longer.
SPINNING = 0.02


def time_in_turn(
    contenders: list[Contender], budget: float, fewest: int = 7, most: int = 41
) -> dict[str, list[float]]:
    """Return the seconds per call of each contender in each round. Every round has a new random order.

    Args:
        contenders: The contenders.
        budget: No round begins after this many seconds.
        fewest: The least number of rounds, even beyond the budget (default: 7).
        most: The greatest number of rounds (default: 41).
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
    # The first call compiles or makes states; the last one is timed.
    for _ in range(3):
        start = time.perf_counter()
        contender.update()
        seconds = time.perf_counter() - start
    _let_spin(contender)
    return seconds


def _let_spin(contender: Contender) -> None:
    if contender.spins:
        time.sleep(SPINNING)
