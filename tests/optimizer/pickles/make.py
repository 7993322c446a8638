"""Write the pickles of this folder, of optimizers after three updates.

Version 1.0.0 (commit 6ab8461) wrote them on Python 3.8 with NumPy 1.22, whose pickles every later NumPy reads:

    git worktree add --detach ../v1 6ab8461
    PYTHONPATH=../v1 python3.8 tests/optimizer/pickles/make.py

`tests/optimizer/test_pickles.py` loads them and trains on. Do not write them anew with a later version.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import rmsprop_graves  # first: it makes Chainer importable  # isort: skip
import chainer
import numpy

FOLDER = Path(__file__).resolve().parent
UPDATES = 3


def set_up(optimizer_class, dtype):
    """Return an optimizer of a small model; float16 parameters are updated in float32."""
    with chainer.using_config("dtype", numpy.dtype(dtype)):
        model = chainer.Sequential(
            chainer.links.Linear(3, 4, initialW=numpy.linspace(-1, 1, 12).reshape(4, 3)),
            chainer.links.Linear(4, 2, initialW=numpy.linspace(1, -1, 8).reshape(2, 4)),
        )
    optimizer = optimizer_class(lr=1e-2, momentum=0.5).setup(model)
    if dtype == "float16":
        optimizer.use_fp32_update()
    # One parameter has a value of its own, and one has a hook.
    model[0].b.update_rule.hyperparam.lr = 1e-3
    model[1].W.update_rule.add_hook(chainer.optimizer_hooks.WeightDecay(0.1))
    return optimizer


def update(optimizer, step):
    """Update every parameter with a gradient drawn for this step."""
    random = numpy.random.RandomState(step)
    for _, param in sorted(optimizer.target.namedparams()):
        param.grad = random.standard_normal(param.shape).astype(param.dtype)
    optimizer.update()


def reload(optimizer, dtype):
    """Return a new optimizer that has loaded a checkpoint of this one, before its first update."""
    loaded = set_up(type(optimizer), dtype)
    for source, target in ((optimizer.target, loaded.target), (optimizer, loaded)):
        file = io.BytesIO()
        chainer.serializers.save_npz(file, source)
        file.seek(0)
        chainer.serializers.load_npz(file, target)
    return loaded


def main():
    """Write a pickle for each dtype, and one of a float16 model that has just loaded a checkpoint."""
    optimizers = {}
    for dtype in ("float32", "float16"):
        optimizers[dtype] = set_up(rmsprop_graves.RMSpropGraves, dtype)
        for step in range(UPDATES):
            update(optimizers[dtype], step)
    optimizers["float16-loaded"] = reload(optimizers["float16"], "float16")
    for name, optimizer in optimizers.items():
        path = FOLDER / f"{rmsprop_graves.__version__}-{name}.pickle"
        path.write_bytes(pickle.dumps(optimizer, 2))
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
