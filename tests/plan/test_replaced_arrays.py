"""An update uses every array and value that was replaced since the last one."""

from __future__ import annotations

import numpy
import pytest
from chainer.optimizers.rmsprop_graves import RMSpropGraves as ChainerRMSpropGraves
from models import on_host
from random_models import EVENTS, FREEING, Model, PerParameter, around, events_on, state_of, train

from rmsprop_graves import RMSpropGraves

EVENTS_ON_CPU = [*events_on("@numpy"), *(event.__name__ for event in FREEING)]


def train_through(device, event, number, *classes):
    """Train five parameters, with an event on the third after three updates. It must not change replaced arrays."""
    events = [[], [], [], [(event, 2, number)], [], []]
    held, given_up = {}, []

    def watch(optimizer):
        arrays = {}
        for param in optimizer.target.params():
            for array in (param.array, *state_of(param).values()):
                arrays[id(array)] = array
        for place, array in held.get(type(optimizer), {}).items():
            if place not in arrays:
                given_up.append((array, numpy.array(on_host(array))))
        held[type(optimizer)] = arrays

    train(Model(around({"device": device}), events), RMSpropGraves, PerParameter, *classes, after_events=watch)
    for array, before in given_up:
        numpy.testing.assert_array_equal(on_host(array), before)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("event", EVENTS_ON_CPU)
def test_an_event_between_updates_is_seen_by_the_next(kernel, event, number):
    """That update has the bits or the error of Chainer's class, and writes nothing to replaced arrays."""
    train_through("@numpy", event, number, ChainerRMSpropGraves)


@pytest.mark.parametrize("event", sorted(set(EVENTS) - set(EVENTS_ON_CPU) | set(events_on("@cupy:0"))))
def test_an_event_between_updates_on_a_gpu_is_seen_by_the_next(gpu, event):
    """That update has the bits or the error of Chainer's own loop."""
    for number in range(3):
        train_through("@cupy:0", event, number)
