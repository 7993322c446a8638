"""Learns to read handwritten digits: a small convolutional network, trained with Graves's RMSprop.

    python train_digits.py                      99 % test accuracy, in about half a minute
    python train_digits.py --resume             goes on after Ctrl-C, with bit-identical results
    python train_digits.py --optimizer adam     for comparison
    mpiexec -n 2 python train_digits.py --communicator naive
                                                in two processes, each on its share of the images

The data are scikit-learn's 1,797 images of 8 by 8 pixels. A random fifth of them is used only for the test.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

# With one thread the results do not depend on the number of cores. More threads would not speed up such small arrays.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from rmsprop_graves import RMSpropGraves  # isort: split

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer.training import extensions, updaters
from interruptible import InterruptibleTrainer, PlotReport, PrintReport, ranks_end_together

try:
    import matplotlib
    from sklearn.datasets import load_digits
except ImportError as error:
    sys.exit(f"{error}. This example needs scikit-learn and matplotlib: pip install '.[examples]'")

OPTIMIZERS = {
    "graves": lambda: RMSpropGraves(lr=1e-3),
    "chainer": lambda: chainer.optimizers.rmsprop_graves.RMSpropGraves(lr=1e-3),
    "adam": lambda: chainer.optimizers.Adam(alpha=1e-3),
}


def build_model():
    """Returns a classifier of images of shape (batch, 1, 8, 8), which also reports its loss and accuracy."""
    return L.Classifier(
        chainer.Sequential(
            L.Convolution2D(1, 16, ksize=3, pad=1),
            F.relu,
            L.Convolution2D(16, 32, ksize=3, pad=1),
            F.relu,
            lambda x: F.max_pooling_2d(x, ksize=2),
            L.Linear(32 * 4 * 4, 128),
            F.relu,
            L.Linear(128, 10),
        )
    )


def load_images(seed):
    """Returns the images with their digits, as a dataset for training and one for the test."""
    x, t = load_digits(return_X_y=True)
    x = (x / 16).astype("f").reshape(-1, 1, 8, 8)
    images = chainer.datasets.TupleDataset(x, t.astype("i"))
    return chainer.datasets.split_dataset_random(images, len(images) * 4 // 5, seed)


def shuffle(order, position):
    """Draws the order of the next epoch. It depends only on the last order, which a snapshot holds."""
    return numpy.random.RandomState(order).permutation(order)


def main():
    """Trains with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--communicator",
        choices=["naive", "pure_nccl"],
        help="train in all processes that mpiexec has started, with this communicator of ChainerMN",
    )
    parser.add_argument(
        "--device",
        default="@numpy",
        help="Chainer device, such as @cupy:0, or @cupy:{} for one GPU per rank (default: %(default)s)",
    )
    parser.add_argument("--epoch", type=int, default=15, help="total number of epochs (default: %(default)s)")
    parser.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        default="graves",
        help="this package's RMSpropGraves, Chainer's own, or Adam (default: %(default)s)",
    )
    parser.add_argument("--out", default="result/digits", help="folder for the results (default: %(default)s)")
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="SNAPSHOT", help="resume from SNAPSHOT, or the newest one in --out"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the split and weights (default: %(default)s)")
    args = parser.parse_args()
    if args.epoch < 1:
        parser.error(f"--epoch must be at least 1, got {args.epoch}")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed must be in 0 ... 2**32 - 1, got {args.seed}")
    comm = None
    if args.communicator:
        try:
            import chainermn

            comm = chainermn.create_communicator(args.communicator)
        except ImportError as error:
            parser.error(f"--communicator {args.communicator} needs MPI: pip install '.[mpi]' ({error})")
        except Exception as error:
            parser.error(f"--communicator {args.communicator} is not available: {' '.join(str(error).split())}")
        args.device = args.device.replace("{}", str(comm.intra_rank))
    is_first = comm is None or comm.rank == 0
    try:
        device = chainer.get_device(args.device)
        device.use()
    except Exception as error:
        parser.error(f"--device {args.device} is not available: {' '.join(str(error).split())}")

    numpy.random.seed(args.seed)
    train, test = load_images(args.seed)
    model = build_model()
    model.to_device(device)
    optimizer = OPTIMIZERS[args.optimizer]().setup(model)
    settings = {"optimizer": args.optimizer, "seed": args.seed}
    if comm:
        share = chainermn.scatter_dataset(train, comm, shuffle=True, seed=args.seed)
        print(f"Rank {comm.rank} of {comm.size}: {len(share):,} of {len(train):,} images", flush=True)
        train = share
        optimizer = chainermn.create_multi_node_optimizer(optimizer, comm)
        optimizer.update()  # the first update of ChainerMN only broadcasts the parameters
        settings["ranks"] = comm.size

    # Each rank takes 16 images per step: more ranks make fewer and larger steps.
    iterator = chainer.iterators.SerialIterator(train, 16, shuffle=None, order_sampler=shuffle)
    updater = updaters.StandardUpdater(iterator, optimizer, device=device)
    trainer = InterruptibleTrainer(updater, args.epoch, args.out, settings, comm)

    # The test images are one batch, because Evaluator gives every batch the same weight, even a smaller last one.
    test_iterator = chainer.iterators.SerialIterator(test, len(test), repeat=False, shuffle=False)
    evaluator = extensions.Evaluator(test_iterator, model, device=device)
    if comm:  # every rank takes all test images, because ChainerMN gives every rank the same weight
        evaluator = chainermn.create_multi_node_evaluator(evaluator, comm)
    trainer.extend(evaluator, name="test")
    trainer.extend(extensions.observe_lr())
    learning_rate = "alpha" if args.optimizer == "adam" else "lr"
    trainer.extend(extensions.ExponentialShift(learning_rate, 0.8), trigger=(1, "epoch"))
    has_bar = comm is None and sys.stdout.isatty()  # under Open MPI, stdout always looks like a terminal
    if is_first:  # main/loss and main/accuracy are the means of this rank's share of the data
        trainer.extend(extensions.LogReport(filename="log.json"))
        columns = ["epoch", "lr", "main/loss", "main/accuracy", "test/main/accuracy"]
        trainer.extend(PrintReport(columns, has_bar))
        matplotlib.use("Agg")
        for quantity in ("loss", "accuracy"):
            keys = [f"main/{quantity}", f"test/main/{quantity}"]
            trainer.extend(PlotReport(keys, "epoch", quantity, f"{quantity}.png"))
    if has_bar:  # a function as its trigger keeps the bar out of snapshots
        trainer.extend(extensions.ProgressBar(update_interval=5), trigger=lambda _: True)

    if args.resume is not None:
        try:
            trainer.resume(args.resume)
        except ValueError as error:
            parser.error(f"--resume: {error}")
    try:
        os.makedirs(args.out, exist_ok=True)
        tempfile.TemporaryFile(dir=args.out).close()
    except OSError as error:
        parser.error(f"--out {args.out} cannot be written to: {error.strerror}")
    trainer.run()
    if not is_first:
        return

    accuracy = trainer.get_extension("LogReport").log[-1]["test/main/accuracy"]
    print(f"Test accuracy: {accuracy:.1%} of {len(test)} images")
    print(f"Plots:    {args.out}/loss.png, {args.out}/accuracy.png")
    print(f"Log:      {args.out}/log.json")
    print(f"Snapshot: {trainer.newest_snapshot()}")


if __name__ == "__main__":
    with ranks_end_together():
        main()
