"""Loading on a device whose memory is exhausted."""

from __future__ import annotations

import chainer
import numpy
import pytest
from checkpoint.training import entries_of, load_from_dict
from models import Arrays

from rmsprop_graves import RMSpropGraves


def trained(device, updates):
    """Make an optimizer of float16 parameters with float32 masters, and update it."""
    rng = numpy.random.RandomState(updates)
    optimizer = RMSpropGraves().setup(Arrays(numpy.ones((2, 3), "f2"), numpy.ones(4, "f2")))
    optimizer.target.to_device(device)
    optimizer.use_fp32_update()
    for _ in range(updates):
        for param in optimizer.target.params():
            param.grad = param.device.send(rng.standard_normal(param.shape).astype("f2"))
        optimizer.update()
    return optimizer


def bytes_of(optimizer):
    """Return the entries of a checkpoint, as bytes."""
    return {key: numpy.asarray(value).tobytes() for key, value in entries_of(optimizer).items()}


def limited(send_array, capacity):
    """Make a device's method that sends as many arrays as there is memory for."""
    sent = []

    def send(self, array):
        if len(sent) == capacity:
            raise MemoryError
        sent.append(array)
        return send_array(self, array)

    return send


@pytest.mark.parametrize("device", ["@numpy", "@cupy:1"])
@pytest.mark.parametrize("updates", [0, 2])
def test_running_out_of_device_memory_at_any_array_changes_nothing(gpu, monkeypatch, device, updates):
    """Every array is on its device before the first one is written."""
    saved, optimizer = trained(device, 3), trained(device, updates)
    entries, before = entries_of(saved), bytes_of(optimizer)
    kind = type(chainer.get_device(device))
    # Two parameters have a master and three states each.
    for capacity in range(8):
        with monkeypatch.context() as patch:
            patch.setattr(kind, "send_array", limited(kind.send_array, capacity))
            with pytest.raises(MemoryError):
                load_from_dict(entries, optimizer)
        assert bytes_of(optimizer) == before
    load_from_dict(entries, optimizer)
    assert bytes_of(optimizer) == bytes_of(saved)
