"""Loading when a device or the process runs out of memory."""

from __future__ import annotations

import chainer
import numpy
import pytest
from checkpoint.training import entries_of, load_from_dict
from file_formats import needs_h5py
from interpreter import run_python
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
    """Return a `send_array` that sends `capacity` arrays, and then raises a MemoryError."""
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
    """Loading sends every array to its device before it writes the first one."""
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


# Prints one line for each limit: the error, and whether the optimizer is the old or the new one.
LIMITED = """
    import gc, os, resource
    import rmsprop_graves, chainer, numpy
    from chainer import serializers

    class Model(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.w = chainer.Parameter(numpy.zeros(2**20, "f"))

    def trained(updates):
        optimizer = rmsprop_graves.RMSpropGraves().setup(Model())
        for _ in range(updates):
            for param in optimizer.target.params():
                param.grad = numpy.arange(param.size, dtype="f") % 251
            optimizer.update()
        return optimizer

    def content(optimizer):
        return [(param.update_rule.t, *map(float, map(numpy.sum, param.update_rule.state.values())))
                for param in optimizer.target.params()]

    new, optimizer = trained(2), trained(1)
    serializers.save_{kind}(r"{path}", new, compression=4)
    before, after = content(optimizer), content(new)
    load = {loader}.load_{kind}
    load(r"{path}", trained(1))  # allocates what later loading reuses
    gc.collect()
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    for megabytes in numpy.arange(0.5, 33, 0.7):
        # With too little memory the hdf5 library may crash when it opens a file.
        if os.fork():
            print(end="crashed\\n" * os.WIFSIGNALED(os.wait()[1]), flush=True)
            continue
        # The C library keeps memory that has been freed.
        ballast = []
        resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
        try:
            while True:
                ballast.append(bytearray(50_000))
        except MemoryError:
            pass
        resource.setrlimit(resource.RLIMIT_AS, (used + int(megabytes * 2**20), resource.RLIM_INFINITY))
        try:
            load(r"{path}", optimizer)
            name = "None"
        except Exception as error:
            name = type(error).__name__
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        found = "old" if content(optimizer) == before else "new" if content(optimizer) == after else "half"
        print(name, found, flush=True)
        os._exit(0)
"""


@pytest.mark.parametrize(
    "loader",
    [pytest.param("serializers", id="Chainer's", marks=pytest.mark.long), pytest.param("rmsprop_graves", id="ours")],
)
@pytest.mark.parametrize("kind", ["npz", pytest.param("hdf5", marks=needs_h5py)])
def test_a_lack_of_memory_is_told_from_damage(tmp_path, kind, loader):
    """A filter of hdf5 reports a lack of memory as damage. Loading must raise a MemoryError."""
    pytest.importorskip("resource", reason="needs limits of memory")
    code = LIMITED.format(path=tmp_path / "file", kind=kind, loader=loader)
    lines = run_python(code)[0].splitlines()
    assert len(lines) == 47
    assert lines.count("crashed") < (5 if kind == "hdf5" else 1)
    assert set(lines) - {"crashed"} == {"MemoryError old", "None new"}
