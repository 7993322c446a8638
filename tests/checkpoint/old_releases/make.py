"""Make the files of an old Chainer release: checkpoints after three updates, and the arrays after three more.

Install the release into an environment of Python 3.6, the newest Python for which all of these releases install:

    pip install pip==21.3.1
    pip install "setuptools<58" numpy==1.15.4 h5py==2.10.0 six filelock mock nose
    pip install "protobuf<3.18" "typing_extensions<4.2"
    pip install --no-build-isolation --no-deps chainer==1.24.0

Run it from the root of this repository. It writes the files to a folder named after the release:

    python tests/checkpoint/old_releases/make.py

The tests train the same model on with today's Chainer, so this module runs on Python 2.7, 3.6 and later.
"""

import os
import shutil
import tempfile

import chainer
import numpy
from chainer.iterators import SerialIterator
from chainer.serializers import DictionarySerializer, save_hdf5, save_npz
from chainer.training import StandardUpdater, Trainer, extensions

HYPERPARAMETERS = {"lr": 0.01, "alpha": 0.9, "momentum": 0.8, "eps": 1e-3}
SAVED, END = 3, 6  # numbers of updates

# Shape and dtype of each parameter with a gradient. The last one has a gradient in every second update only.
SHAPES = {
    "/first/W": ((4, 3), "f4"),
    "/first/b": ((4,), "f4"),
    "/block/second/W": ((2, 4), "f8"),
    "/block/second/scale": ((), "f8"),
    "/block/sometimes": ((3,), "f4"),
}
UNUSED = "/block/unused"  # never has a gradient


def numbers(shape, dtype, seed):
    """Make numbers between -1 and 1 that are exact in float32, without a random generator that may change."""
    count = int(numpy.prod(shape))
    integers = [(1103515245 * (seed * 1009 + i + 1) + 12345) % 2**31 % 4001 - 2000 for i in range(count)]
    return (numpy.array(integers, dtype) / 2048).reshape(shape)


def model_of(is_lazy):
    """Make a model of nested links.

    Args:
        is_lazy: Whether one parameter is never initialized. Chainer 1 cannot save such a model.
    """
    first = chainer.Link(W=SHAPES["/first/W"], b=SHAPES["/first/b"])
    second = chainer.Link(W=SHAPES["/block/second/W"], scale=SHAPES["/block/second/scale"])
    block = chainer.Chain(second=second)
    block.add_param("sometimes", *SHAPES["/block/sometimes"])
    block.add_param("unused", (2,))
    if is_lazy:
        block.add_param("lazy")
    model = chainer.Chain(first=first, block=block)
    params = dict(model.namedparams())
    for i, (path, (shape, dtype)) in enumerate(sorted(SHAPES.items())):
        params[path].data = numbers(shape, dtype, 100 + i)
    params[UNUSED].data = numpy.ones(2, "f4")
    return model


def set_gradients(model, t):
    """Set the gradients of an update."""
    model.cleargrads()
    params = dict(model.namedparams())
    for i, (path, (shape, dtype)) in enumerate(sorted(SHAPES.items())):
        if path != "/block/sometimes" or t % 2:
            params[path].grad = numbers(shape, dtype, 10 * t + i)


class Updater(StandardUpdater):
    """Updates with the gradients above."""

    def update_core(self):
        """Update once."""
        self.get_iterator("main").next()
        optimizer = self.get_optimizer("main")
        set_gradients(optimizer.target, optimizer.t)
        optimizer.update()


def trainer_of(optimizer, out, stop):
    """Make a trainer."""
    iterator = SerialIterator(list(range(8)), 4, shuffle=False)
    return Trainer(Updater(iterator, optimizer), (stop, "iteration"), out)


def entries_of(optimizer):
    """Return the entries of the model's file and of the optimizer's."""
    serializer = DictionarySerializer()
    serializer["model"].save(optimizer.target)
    serializer["optimizer"].save(optimizer)
    return serializer.target


def main():
    """Write the files."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), chainer.__version__)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    optimizer = chainer.optimizers.RMSpropGraves(**HYPERPARAMETERS)
    optimizer.setup(model_of(is_lazy=chainer.__version__[0] != "1"))
    out = tempfile.mkdtemp()
    trainer = trainer_of(optimizer, out, SAVED)
    trainer.extend(extensions.snapshot(filename="snapshot.npz"), trigger=(SAVED, "iteration"))
    trainer.run()
    shutil.move(os.path.join(out, "snapshot.npz"), folder)
    # Chunks for compression would make the file three times as large.
    save_hdf5(os.path.join(folder, "snapshot.h5"), trainer, compression=None)
    save_npz(os.path.join(folder, "optimizer.npz"), optimizer)
    save_hdf5(os.path.join(folder, "optimizer.h5"), optimizer)
    save_npz(os.path.join(folder, "model.npz"), optimizer.target)
    os.rmdir(out)
    for _ in range(SAVED, END):
        set_gradients(optimizer.target, optimizer.t)
        optimizer.update()
    numpy.savez_compressed(os.path.join(folder, "end.npz"), **entries_of(optimizer))


if __name__ == "__main__":
    main()
